"""The papers' ablations, to stand beside ours: other patients, other organs, other readers, so context and no target.

Guo et al., CVPR 2020 (tables 1 and 2; 3D P-HNN, one fold of 142 patients, 42 organs) and Ye et al., Nature
Communications 2022;13:6137 (table 2; nnU-Net's U-Net, validation part of 176 patients).
"""

from __future__ import annotations

CVPR_2020, STUDY_2022 = "CVPR 2020, table 1", "study 2022, table 2"

ABLATION = {
    CVPR_2020: {
        ("all_in_one", "anchor"): (84.02, 5.98, 0.82),
        ("all_in_one", "mid_level"): (63.68, 12.97, 3.48),
        ("all_in_one", "small_hard"): (60.97, 4.86, 0.98),
        ("stratification", "anchor"): (84.14, 5.25, 0.79),
        ("stratification", "mid_level"): (67.31, 12.03, 3.97),
        ("stratification", "small_hard"): (62.09, 4.19, 1.06),
        ("anchors", "mid_level"): (70.73, 10.34, 1.67),
        ("heat_map", "small_hard"): (71.75, 2.93, 0.52),
        ("search", "anchor"): (85.73, 4.77, 0.77),
        ("search", "mid_level"): (72.55, 9.05, 1.31),
        ("search", "small_hard"): (72.57, 2.94, 0.49),
    },
    STUDY_2022: {
        ("all_in_one", "anchor"): (84.3, 12.4, 1.0),
        ("all_in_one", "mid_level"): (71.4, 18.0, 2.0),
        ("all_in_one", "small_hard"): (58.3, 4.7, 1.1),
        ("all_in_one", "all"): (70.4, 12.7, 1.4),
        ("anchors", "anchor"): (86.7, 6.4, 0.9),
        ("anchors", "mid_level"): (72.6, 11.4, 1.9),
        ("anchors", "small_hard"): (73.7, 4.6, 0.7),
        ("anchors", "all"): (76.1, 8.2, 1.3),
        ("search", "anchor"): (87.4, 5.4, 0.8),
        ("search", "mid_level"): (74.2, 10.4, 1.7),
        ("search", "small_hard"): (76.2, 3.5, 0.6),
        ("search", "all"): (77.8, 7.2, 1.2),
    },
}
"""(setting, stratum) -> DSC in %, Hausdorff distance and average surface distance in mm. The later study's
"processing stratification" has the anchors in it, so it stands beside our `anchors`."""

CENTRE_DISTANCE_2020 = {"stratification": (3.25, 2.34), "anchors": (2.91, 1.74)}
"""Table 2: mean and standard deviation in mm of the distance between a heat map's peak and the organs' centre."""

TOP_DISTANCE_2020 = {"stratification": 18.9, "anchors": 6.2}
"""Table 7: mean Hausdorff distance in mm between the 1000 largest voxels of the maps."""
