"""Contours moved from one grid to another and between files, and what that costs.

python examples/03_contours_on_another_grid.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from soars.formats import read_seg_nrrd, write_seg_nrrd
from soars.metrics import score_structures
from soars.phantom import make_phantom, organ_boxes
from soars.structures import Geometry


def main(folder: Path) -> None:
    low, high = np.array(organ_boxes(5)["Eye_R"]) + np.array([[-15.0], [15.0]])
    fine = make_phantom(5, spacing_mm=(0.5, 0.5, 1.0), region=(low, high)).structures.subset(
        ["Eye_R", "Lens_R"]
    )

    folder.mkdir(parents=True, exist_ok=True)
    write_seg_nrrd(fine, folder / "fine.seg.nrrd")
    same = read_seg_nrrd(folder / "fine.seg.nrrd")
    print("through a file:", *(f"{s.organ} DSC {s.dsc:.3f}" for s in score_structures(same, fine)))

    spacing = (2.0, 2.0, 3.0)
    size = [
        int(np.ceil(n * s / t))
        for n, s, t in zip(fine.geometry.size, fine.geometry.spacing, spacing, strict=True)
    ]
    coarse_grid = Geometry(
        (size[0], size[1], size[2]), spacing, fine.geometry.origin, fine.geometry.direction
    )
    back = fine.resample(coarse_grid).resample(fine.geometry)
    print("2 x 2 x 3 mm and back:", *(f"{s.organ} DSC {s.dsc:.3f}" for s in score_structures(back, fine)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
