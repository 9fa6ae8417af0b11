"""Two readers' contours of the same organs, compared in every figure that `soars evaluate` reports.

python examples/02_compare_two_readers.py
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation

from soars.metrics import score_structures
from soars.phantom import make_phantom, organ_boxes
from soars.structures import StructureSet

ORGANS = ("Parotid_L", "Glnd_Submand_L")


def main() -> None:
    low, high = np.array(organ_boxes(3)["Parotid_L"]) + np.array([[-25.0], [25.0]])
    first = make_phantom(3, spacing_mm=(1.0, 1.0, 2.5), region=(low, high)).structures.subset(ORGANS)

    # The second reader draws one voxel more all around in each slice, and leaves out one gland.
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True
    second = StructureSet(first.geometry)
    second.add("Parotid_L", binary_dilation(first.full("Parotid_L"), in_plane))

    for score in score_structures(second, first):
        print(
            f"{score.organ:<16}{score.state:<10} DSC {score.dsc:.3f}  HD95 {score.hd95_mm:.1f} mm  "
            f"surface DSC {score.surface_dsc:.3f} at {score.tolerance_mm} mm  "
            f"volume {score.volume_difference_percent:+.0f} %"
        )


if __name__ == "__main__":
    main()
