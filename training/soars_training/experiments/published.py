"""The papers' ablations, to stand beside ours: other patients, other organs, other readers, so context and no target.

Guo et al., CVPR 2020 (tables 1 and 2, 3D P-HNN, one fold of 142 patients, 42 organs; table 3, all folds) and Ye
et al., Nature Communications 2022;13:6137 (table 2, nnU-Net's U-Net, validation part of 176 patients; table 3, 326
patients).
"""

from __future__ import annotations

CVPR_2020, STUDY_2022 = "CVPR 2020, table 1", "study 2022, table 2"
SYSTEMS_2020, SYSTEMS_2022 = "CVPR 2020, table 3", "study 2022, table 3"

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

SYSTEMS = {
    STUDY_2022: {
        ("nnunet", "anchor"): (84.3, 12.4, 1.0),
        ("nnunet", "mid_level"): (71.4, 18.0, 2.0),
        ("nnunet", "small_hard"): (58.3, 4.7, 1.1),
        ("nnunet", "all"): (70.4, 12.7, 1.4),
    },
    SYSTEMS_2020: {
        ("all_in_one", "anchor"): (82.97, 8.90, 1.06),
        ("all_in_one", "mid_level"): (63.61, 11.06, 1.92),
        ("all_in_one", "small_hard"): (59.64, 6.38, 1.31),
        ("all_in_one", "all"): (66.62, 9.26, 1.86),
        ("uanet", "anchor"): (84.30, 8.89, 1.72),
        ("uanet", "mid_level"): (69.40, 11.57, 2.06),
        ("uanet", "small_hard"): (61.85, 5.28, 1.53),
        ("uanet", "all"): (70.44, 9.20, 1.83),
        ("search", "anchor"): (85.04, 5.08, 0.98),
        ("search", "mid_level"): (72.75, 10.10, 1.66),
        ("search", "small_hard"): (71.90, 2.93, 0.53),
        ("search", "all"): (75.14, 6.98, 1.12),
    },
    SYSTEMS_2022: {
        ("uanet", "anchor"): (82.7, 8.9, 1.6),
        ("uanet", "mid_level"): (72.1, 11.8, 1.9),
        ("uanet", "small_hard"): (59.4, 4.7, 1.2),
        ("uanet", "all"): (69.8, 8.8, 1.6),
        ("search", "anchor"): (86.9, 5.0, 0.7),
        ("search", "mid_level"): (74.6, 12.4, 1.8),
        ("search", "small_hard"): (67.2, 3.7, 0.7),
        ("search", "all"): (74.8, 7.9, 1.2),
    },
}
"""The same of the systems that are compared with the cascade, and of a plain U-Net and its full form, `search`."""

CENTRE_DISTANCE_2020 = {"stratification": (3.25, 2.34), "anchors": (2.91, 1.74)}
"""Table 2: mean and standard deviation in mm of the distance between a heat map's peak and the organs' centre."""

TOP_DISTANCE_2020 = {"stratification": 18.9, "anchors": 6.2}
"""Table 7: mean Hausdorff distance in mm between the 1000 largest voxels of the maps."""

ORGAN_DSC_2022 = {
    "Brainstem": (81.6, 83.2),
    "Cerebellum": (90.1, 92.9),
    "Eye_L": (85.1, 88.5),
    "Eye_R": (86.2, 88.7),
    "Bone_Mandible_L": (85.0, 89.1),
    "Bone_Mandible_R": (86.0, 89.0),
    "SpinalCord": (81.5, 86.3),
    "Joint_TM_L": (73.0, 81.0),
    "Joint_TM_R": (75.5, 83.6),
    "BrachialPlex_L": (57.5, 60.8),
    "BrachialPlex_R": (54.6, 59.6),
    "Basal_Ganglia_L": (76.0, 70.9),
    "Basal_Ganglia_R": (73.8, 71.4),
    "Musc_Constrict_I": (68.2, 70.2),
    "Musc_Constrict_M": (61.3, 63.5),
    "Musc_Constrict_S": (58.6, 61.2),
    "Epiglottis": (68.1, 71.3),
    "Esophagus": (74.2, 72.7),
    "Larynx": (58.6, 67.8),
    "Cavity_Oral": (73.4, 75.5),
    "Parotid_L": (83.2, 88.4),
    "Parotid_R": (82.7, 87.7),
    "Glnd_Submand_L": (79.2, 82.0),
    "Glnd_Submand_R": (77.7, 82.2),
    "Lobe_Temporal_L": (80.9, 82.9),
    "Lobe_Temporal_R": (81.4, 83.4),
    "Glnd_Thyroid_L": (80.0, 82.8),
    "Glnd_Thyroid_R": (80.6, 84.1),
    "Cochlea_L": (62.8, 66.0),
    "Cochlea_R": (61.7, 66.5),
    "Hypothalmus": (37.5, 59.1),
    "Ear_Internal_L": (65.6, 75.3),
    "Ear_Internal_R": (66.0, 75.0),
    "Glnd_Lacrimal_L": (45.9, 57.8),
    "Glnd_Lacrimal_R": (43.6, 56.3),
    "Lens_L": (70.9, 74.8),
    "Lens_R": (72.4, 79.5),
    "OpticNrv_L": (67.6, 69.8),
    "OpticNrv_R": (67.0, 68.2),
    "OpticChiasm": (59.8, 67.1),
    "Pineal": (50.6, 55.6),
    "Pituitary": (60.2, 69.6),
}
"""Study of 2022, table 3: mean DSC in % of UaNet and of SOARS, by organ."""
