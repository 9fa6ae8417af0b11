"""Memory and time of 42 organs on a 512 x 512 x 360 CT: held, written to .seg.nrrd, read back, written as RTSTRUCT.

    python Testing/benchmarks/structures_memory.py [--json FILE] [--limit-mb 150]

Each step reports the peak of Python's own allocations (tracemalloc, numpy included) and of the process's
resident memory above what it was with the CT loaded. Ends with exit code 1 when one of the peaks is above the limit.

The organs are ellipsoids whose bounding boxes have about the sizes of the anatomical ones in an adult, on a grid of
1 mm (the spacing does not matter: only voxels cost memory).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from soars.ct.series import CtSeries
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd
from soars.structures import Geometry, StructureSet

SHAPE = (360, 512, 512)
# name: extent (z, y, x) and centre (z, y, x), voxels; names ending in _L also stand for their mirror image
ORGANS = {
    "Brainstem": ((60, 40, 40), (260, 300, 256)),
    "Cerebellum": ((55, 65, 110), (260, 350, 256)),
    "Eye_L": ((26, 26, 26), (270, 190, 290)),
    "Bone_Mandible_L": ((80, 90, 55), (200, 190, 290)),
    "SpinalCord": ((200, 60, 20), (130, 330, 256)),
    "Joint_TM_L": ((18, 18, 20), (250, 260, 305)),
    "BrachialPlex_L": ((90, 60, 110), (100, 320, 330)),
    "BasalGanglia_L": ((45, 55, 35), (300, 260, 280)),
    "Musc_Constrict_I": ((25, 20, 40), (130, 270, 256)),
    "Musc_Constrict_M": ((20, 20, 45), (155, 275, 256)),
    "Musc_Constrict_S": ((45, 20, 45), (190, 280, 256)),
    "Epiglottis": ((30, 20, 35), (155, 250, 256)),
    "Esophagus": ((130, 60, 35), (65, 300, 256)),
    "Larynx": ((45, 45, 45), (130, 240, 256)),
    "Cavity_Oral": ((60, 80, 70), (195, 190, 256)),
    "Parotid_L": ((65, 60, 40), (215, 270, 310)),
    "Glnd_Submand_L": ((35, 40, 30), (175, 230, 290)),
    "Lobe_Temporal_L": ((70, 110, 70), (280, 260, 305)),
    "Glnd_Thyroid_L": ((50, 30, 25), (105, 260, 280)),
    "Cochlea_L": ((8, 9, 9), (250, 285, 290)),
    "Hypothalamus": ((12, 15, 14), (290, 255, 256)),
    "Ear_Internal_L": ((14, 20, 18), (250, 288, 292)),
    "Glnd_Lacrimal_L": ((16, 16, 8), (282, 190, 305)),
    "Lens_L": ((9, 5, 9), (270, 180, 290)),
    "OpticChiasm": ((6, 12, 16), (280, 240, 256)),
    "OpticNrv_L": ((12, 45, 20), (273, 215, 275)),
    "Glnd_Pineal": ((8, 8, 8), (290, 310, 256)),
    "Pituitary": ((9, 11, 14), (275, 245, 256)),
}


def make_organs(geometry: Geometry) -> StructureSet:
    """42 ellipsoids, the lenses in the eyes and the cochleae in the inner ears."""
    structures = StructureSet(geometry)
    for name, (extent, centre) in ORGANS.items():
        ranges = [np.linspace(-1, 1, n) ** 2 for n in extent]
        ellipsoid = ranges[0][:, None, None] + ranges[1][:, None] + ranges[2] <= 1
        start = [c - n // 2 for c, n in zip(centre, extent, strict=True)]
        structures.add_crop(name, start, ellipsoid)
        if name.endswith("_L"):
            structures.add_crop(f"{name[:-2]}_R", (start[0], start[1], 512 - start[2] - extent[2]), ellipsoid)
    return structures


def resident_mb(key: str = "VmRSS") -> float:
    """Resident memory of this process, now (VmRSS) or at most (VmHWM), in MB; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"/proc/self/status has no {key}")


def measured(step: str, work: Callable[[], Any], base_mb: float, rows: list[dict[str, Any]]) -> Any:
    """Run one step and append its figures: peaks above the CT (`base_mb` of resident memory), and time."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    tracemalloc.reset_peak()
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    rows.append(
        {
            "step": step,
            "peak_python_mb": round(tracemalloc.get_traced_memory()[1] / 1e6, 1),
            "peak_resident_mb": round(resident_mb("VmHWM") - base_mb, 1),
            "seconds": round(seconds, 2),
        }
    )
    return result


def stand_in_series(geometry: Geometry) -> CtSeries:
    """A series of the right length whose files do not exist."""
    uids = [f"1.2.3.{z + 1}" for z in range(geometry.size[2])]
    files = [Path(f"absent/{z}.dcm") for z in range(geometry.size[2])]
    return CtSeries("1.2.4", "1.2.5", "1.2.6", "", "CT", files, uids, Dataset())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--limit-mb", type=float, default=150.0)
    args = parser.parse_args()

    ct = sitk.Image(SHAPE[2], SHAPE[1], SHAPE[0], sitk.sitkInt16)
    sitk.GetArrayViewFromImage(ct).max()  # every page is there
    geometry = Geometry.of(ct)
    with tempfile.TemporaryDirectory() as folder:
        path, dicom = Path(folder) / "organs.seg.nrrd", Path(folder) / "rtstruct.dcm"
        # once on a small grid, so that what the libraries load is not counted as memory of the organs
        small = StructureSet(geometry.cropped((0, 0, 0), (4, 8, 8)))
        small.add_crop("Brainstem", (1, 2, 2), np.ones((2, 3, 3), dtype=bool))
        write_seg_nrrd(small, path)
        read_seg_nrrd(path)
        write_rtstruct(small, dicom, stand_in_series(small.geometry))
        read_rtstruct(dicom, small.geometry)

        rows: list[dict[str, Any]] = []
        tracemalloc.start()
        base = resident_mb()
        organs = measured("hold 42 organs", lambda: make_organs(geometry), base, rows)
        assert len(organs) == 42, len(organs)
        measured("write .seg.nrrd", lambda: write_seg_nrrd(organs, path), base, rows)
        read = measured("read .seg.nrrd (a second set)", lambda: read_seg_nrrd(path), base, rows)
        assert all(read.crop(name).equals(organs.crop(name)) for name in organs)
        del read
        series = stand_in_series(geometry)
        measured("write RTSTRUCT", lambda: write_rtstruct(organs, dicom, series), base, rows)
        again = measured("read RTSTRUCT (a second set)", lambda: read_rtstruct(dicom, geometry), base, rows)
        assert all(again.crop(name).equals(organs.crop(name)) for name in organs)
        sizes = {"masks_mb": organs.nbytes / 1e6, "seg_nrrd_mb": path.stat().st_size / 1e6}
        sizes["rtstruct_mb"] = dicom.stat().st_size / 1e6

    for row in rows:
        print(
            f"{row['step']:<30} python {row['peak_python_mb']:6.1f} MB   resident {row['peak_resident_mb']:6.1f} MB   "
            f"{row['seconds']:6.2f} s"
        )
    print(", ".join(f"{key} {value:.2f}" for key, value in sizes.items()))
    worst = max(max(row["peak_python_mb"], row["peak_resident_mb"]) for row in rows)
    print(f"peak above the CT: {worst:.1f} MB (limit {args.limit_mb:g} MB)")
    if args.json:
        args.json.write_text(json.dumps({"steps": rows, **sizes, "peak_mb": worst}, indent=1) + "\n")
    return 0 if worst <= args.limit_mb else 1


if __name__ == "__main__":
    sys.exit(main())
