"""A CT through the cascade, its RTSTRUCT, and the doses in the organs found.

python examples/01_segment_and_read_doses.py FOLDER      (half a minute on two cores)
"""

from __future__ import annotations

import sys
from pathlib import Path

from soars.bundle.store import load_bundle
from soars.ct.images import read_ct
from soars.dicom.rtstruct import write_rtstruct
from soars.dose import read_dose, structure_dvh
from soars.phantom import make_phantom, write_phantom_dicom
from soars.run.segment import SegmentOptions, segment

ORGANS = ("Brainstem", "SpinalCord", "Bone_Mandible_L", "Bone_Mandible_R")


def main(folder: Path) -> None:
    # A patient to work with: a CT series and an RTDOSE on disk, as they come from an archive.
    ct_folder = write_phantom_dicom(make_phantom(7, spacing_mm=(2.0, 2.0, 3.0)), folder)

    ct = read_ct(ct_folder)
    result = segment(ct, load_bundle("phantom"), SegmentOptions(organs=ORGANS))
    for warning in result.warnings:
        print("to check:", warning)

    assert ct.series is not None  # a CT from DICOM knows its series, which the RTSTRUCT refers to
    write_rtstruct(result.structures, folder / "rtstruct.dcm", ct.series)

    dose = read_dose(folder / "rtdose.dcm", ct.series)
    print(f"{'organ':<17}{'cc':>8}{'mean Gy':>10}{'D0.03cc Gy':>12}")
    for organ in result.structures:
        dvh = structure_dvh(dose.image, result.structures, organ)
        volume = result.structures.volume_cc(organ)
        print(f"{organ:<17}{volume:>8.1f}{dvh.mean_gy:>10.1f}{dvh.hottest_cc(0.03):>12.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
