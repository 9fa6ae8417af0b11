"""Time of a report on 42 organs, against google-deepmind/surface-distance, and of their DVHs, against
dicompyler-core.

    python Testing/benchmarks/metrics.py [--json FILE] [--dicompyler PYTHON]

The organs are a phantom's on a grid of 512 x 512 x 200, compared with themselves moved and enlarged by a few
millimetres. Both programs compute DSC, HD, HD95, the mean distances and the surface DSC, from full masks and from
masks cropped to the joint bounding box; ours computes the added path length, volumes and centroids besides. All
figures must agree to 1e-6.

dicompyler-core 0.5.6 needs pydicom 2, so it runs in an environment of its own, whose interpreter is given by
--dicompyler (python -m venv DIR; DIR/bin/pip install dicompyler-core==0.5.6 "pydicom<3"); without it that part is
left out. It computes from the contours of an RTSTRUCT; ours is timed from masks, and again with reading the same
contours included.

Ends with exit code 1 when a target is missed: 20 times as fast on full masks, 1.5 times on cropped ones, 25 times
for DVHs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from tqdm import tqdm

from soars.ct.series import read_series
from soars.dicom.rtdose import read_rtdose
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.dose import structure_dvh
from soars.metrics import Tolerance, score_masks
from soars.phantom.export import write_phantom_dicom
from soars.phantom.make import Phantom, make_phantom
from soars.structures import Geometry, StructureSet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from peers import surface_distance_figures

SHAPE = (200, 512, 512)
TOLERANCE = Tolerance(2.5, "benchmark")
TARGETS = {"full": 20.0, "cropped": 1.5, "dvh": 25.0}

DICOMPYLER = """
import json, sys, time
import pydicom
from dicompylercore import dvhcalc
structure, dose = (pydicom.dcmread(path) for path in sys.argv[1:3])
rois = {r.ROINumber: r.ROIName for r in structure.StructureSetROISequence}
start = time.perf_counter()
found = {name: float(dvhcalc.get_dvh(structure, dose, number).mean) for number, name in rois.items()}
print(json.dumps({"seconds": time.perf_counter() - start, "mean_gy": found}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--dicompyler", metavar="PYTHON", help="interpreter of dicompyler-core's environment")
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours, the best counts (default: 3)")
    args = parser.parse_args()
    phantom = make_phantom(1, noise=False)
    figures: dict[str, Any] = compare_metrics(phantom, args.repeat)
    figures.update(compare_dvhs(phantom, args.dicompyler, args.repeat))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    met = True
    for name, target in TARGETS.items():
        factor = figures.get(f"{name}_factor")
        if factor is not None:
            met = met and factor >= target
            print(f"{name}: {factor:.1f} times as fast (target {target:g})")
    return 0 if met else 1


# --- distances ----------------------------------------------------------------------------------------------------


def compare_metrics(phantom: Phantom, repeat: int) -> dict[str, float]:
    reference, prediction = two_sides(phantom)
    spacing = (reference.geometry.spacing[2], reference.geometry.spacing[1], reference.geometry.spacing[0])
    seconds = dict.fromkeys(("full_ours_s", "full_theirs_s", "cropped_ours_s", "cropped_theirs_s"), 0.0)
    worst = 0.0
    for organ in tqdm(reference, desc="distances"):
        a, b = prediction.crop(organ), reference.crop(organ)
        low = np.minimum(a.start, b.start)
        shape = (np.maximum(a.stop, b.stop) - low).tolist()
        full = prediction.full(organ), reference.full(organ)
        cropped = a.box(low.tolist(), shape), b.box(low.tolist(), shape)
        ours = partial(score_masks, geometry=reference.geometry, tolerance=TOLERANCE)
        theirs = partial(surface_distance_figures, spacing=spacing, tolerance=TOLERANCE.mm)
        taken, score = best(partial(ours, *full), repeat)
        seconds["full_ours_s"] += taken
        taken, score = best(partial(ours, a, b), repeat)
        seconds["cropped_ours_s"] += taken
        taken, _ = best(partial(theirs, *full), 1)
        seconds["full_theirs_s"] += taken
        taken, figures = best(partial(theirs, *cropped), repeat)
        seconds["cropped_theirs_s"] += taken
        compared = {name: value for name, value in figures.items() if hasattr(score, name)}
        worst = max(worst, *(abs(getattr(score, name) - value) for name, value in compared.items()))
    if not worst < 1e-6:
        raise SystemExit(f"the figures differ by {worst:g}")
    for kind in ("full", "cropped"):
        seconds[f"{kind}_factor"] = seconds[f"{kind}_theirs_s"] / seconds[f"{kind}_ours_s"]
    print(f"{len(reference)} organs on {SHAPE}: " + ", ".join(f"{k} {v:.2f}" for k, v in seconds.items()))
    print(f"largest difference of a figure: {worst:.1e}")
    return {**seconds, "largest_difference": worst}


def two_sides(phantom: Phantom) -> tuple[StructureSet, StructureSet]:
    """The phantom's organs on the grid, and the same moved by (0.7, -0.5, 0.8) mm."""
    old = phantom.structures.geometry
    spacing = tuple(n * s / m for n, s, m in zip(old.size, old.spacing, SHAPE[::-1], strict=True))
    origin = tuple(o + move for o, move in zip(old.origin, (0.7, -0.5, 0.8), strict=True))
    size = (SHAPE[2], SHAPE[1], SHAPE[0])
    grid = Geometry(size, spacing, old.origin)  # type: ignore[arg-type]
    moved = Geometry(size, spacing, origin)  # type: ignore[arg-type]
    return phantom.structures.resample(grid), phantom.structures.resample(moved).on(grid)


# --- doses --------------------------------------------------------------------------------------------------------


def compare_dvhs(phantom: Phantom, dicompyler: str | None, repeat: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantom_dicom(phantom, folder)
        image, series, _ = read_series(folder / "ct")
        geometry = Geometry.of(image)
        write_rtstruct(phantom.structures.on(geometry), folder / "rtstruct.dcm", series)
        dose = read_rtdose(folder / "rtdose.dcm").image

        def from_masks(structures: StructureSet) -> dict[str, float]:
            return {organ: structure_dvh(dose, structures, organ).mean_gy for organ in structures}

        masks = read_rtstruct(folder / "rtstruct.dcm", geometry, series)
        taken, means = best(lambda: from_masks(masks), repeat)
        with_reading, _ = best(
            lambda: from_masks(read_rtstruct(folder / "rtstruct.dcm", geometry, series)), repeat
        )
        figures: dict[str, Any] = {"dvh_ours_s": taken, "dvh_ours_with_contours_s": with_reading}
        print(f"{len(means)} DVHs: ours {taken:.3f} s from masks, {with_reading:.3f} s from an RTSTRUCT")
        if dicompyler is None:
            print("dicompyler-core: not compared, see --dicompyler")
            return figures
        files = [str(folder / "rtstruct.dcm"), str(folder / "rtdose.dcm")]
        result = subprocess.run(
            [dicompyler, "-W", "ignore", "-c", DICOMPYLER, *files], capture_output=True, text=True
        )
        if result.returncode:
            raise SystemExit(f"dicompyler-core failed: {result.stderr.splitlines()[-1]}")
        found = json.loads(result.stdout.splitlines()[-1])
        names = {str(roi.ROIName) for roi in pydicom.dcmread(files[0]).StructureSetROISequence}
        off = {n: abs(found["mean_gy"][n] - means[n]) for n in names if np.isfinite(found["mean_gy"][n])}
        print(
            f"dicompyler-core: {found['seconds']:.2f} s; its means differ by {np.median(list(off.values())):.3f} Gy "
            f"in the median and {max(off.values()):.2f} Gy at most ({max(off, key=lambda n: off[n])})"
        )
        figures["dvh_theirs_s"] = found["seconds"]
        figures["dvh_factor"] = found["seconds"] / taken
        figures["dvh_factor_with_contours"] = found["seconds"] / with_reading
        print(f"dvh with reading the contours: {figures['dvh_factor_with_contours']:.1f} times as fast")
        return figures


def best(work: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Shortest time of some runs, and the result."""
    shortest, result = float("inf"), None
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest, result


if __name__ == "__main__":
    sys.exit(main())
