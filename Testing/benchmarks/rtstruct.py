"""Time and size of an RTSTRUCT of 42 organs on 200 slices, against rt-utils.

    python Testing/benchmarks/rtstruct.py [--json FILE] [--repeat N]

The organs are a phantom's on a CT of 512 x 512 x 200 voxels of 1.0 x 1.0 x 1.8 mm. rt-utils is given its best: its
series is loaded before the clock runs (loading it, with the pixels, takes it seconds; ours reads positions within
the clock), masks are boolean and in its own order, so that it copies nothing, and its two ways to draw contours,
approximated and with pinholes, are both timed; the faster counts for time, the smaller file for size. Both write to
the same disk in the same run, in turns; the best of several runs counts. What each file gives back is counted with
one reader of each family, rt-utils (which wrote the other) and plastimatch.

Ends with exit code 1 when a target is missed: 3 times as fast, a file of at most 0.6 times the size, and 42 of 42
masks the same in both readers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from soars.ct.series import read_series
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.dicom.write import write_ct_series
from soars.phantom.make import make_phantom
from soars.structures import Geometry, StructureSet

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from rtstruct_readers import plastimatch_masks, rt_utils_masks

SIZE = (512, 512, 200)
SPACING_MM = (1.0, 1.0, 1.8)
FASTER, SMALLER = 3.0, 0.6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, the best counts (default: 3)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(Path(folder), args.repeat)
    for name, figure in figures.items():
        print(f"{name:34} {figure}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    met = (
        figures["times_faster"] >= FASTER
        and figures["file_ratio"] <= SMALLER
        and figures["same_in_plastimatch"] == figures["same_in_rt_utils"] == figures["organs"]
    )
    print("targets met" if met else "a target is missed")
    return 0 if met else 1


def compare(folder: Path, repeat: int) -> dict[str, Any]:
    """Seconds, megabytes and how many masks come back."""
    from rt_utils import RTStructBuilder

    structures, ct = phantom_on_ct(folder)
    image, series, _ = read_series(ct)
    geometry = Geometry.of(image)
    structures = structures.on(geometry)
    # views of [z, y, x] arrays as [y, x, z]: its order, no copy
    masks = {
        name: np.moveaxis(structures.full(name), 0, -1)
        for name in structures
        if not structures.is_empty(name)
    }
    builder = RTStructBuilder.create_new(str(ct))
    ours, theirs = folder / "ours.dcm", {}
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            work()
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    for _ in tqdm(range(repeat), desc="writing", disable=None):
        timed("ours", lambda: write_rtstruct(structures, ours, series))
        for way, options in (("approximated", {}), ("pinholes", {"use_pin_hole": True})):
            theirs[way] = folder / f"{way}.dcm"

            def write(path: Path = theirs[way], options: dict[str, bool] = options) -> None:
                from rt_utils import ds_helper
                from rt_utils.rtstruct import RTStruct

                file = RTStruct(builder.series_data, ds_helper.create_rtstruct_dataset(builder.series_data))
                for name, mask in masks.items():
                    file.add_roi(mask=mask, name=name, **options)
                file.save(str(path))

            timed(way, write)
    timed("reading ours", lambda: read_rtstruct(ours, geometry, series))
    same = {}
    for program in ("plastimatch", "rt_utils"):
        for whose, path in (("", ours), ("_of_its_file", theirs["approximated"])):
            if program == "plastimatch":
                found = plastimatch_masks(path, ct, masks, geometry, folder / f"masks{whose}")
            else:
                found = rt_utils_masks(path, ct, masks, as_it_is=True)
            same[f"same_in_{program}{whose}"] = sum(
                name in found and np.array_equal(found[name], structures.full(name)) for name in masks
            )
    best = {name: min(values) for name, values in seconds.items()}
    their_seconds = min(best["approximated"], best["pinholes"])
    megabytes = {name: path.stat().st_size / 1e6 for name, path in {"ours": ours, **theirs}.items()}
    smallest = min(megabytes[name] for name in theirs)
    return {
        "organs": len(masks),
        "voxels": " x ".join(map(str, geometry.size)),
        **{f"seconds {name}": round(value, 3) for name, value in best.items()},
        **{f"megabytes {name}": round(value, 3) for name, value in megabytes.items()},
        "times_faster": round(their_seconds / best["ours"], 2),
        "file_ratio": round(megabytes["ours"] / smallest, 3),
        **same,
    }


def phantom_on_ct(folder: Path) -> tuple[StructureSet, Path]:
    """The organs of a phantom on a CT of `SIZE`, and the folder of that CT."""
    phantom = make_phantom(1, spacing_mm=SPACING_MM, field_of_view="full", noise=False)
    grid, start = phantom.ct, []
    for have, want in zip(grid.GetSize(), SIZE, strict=True):
        start.append((have - want) // 2)
    # the middle of the scan, with air around where it is smaller
    origin = grid.TransformContinuousIndexToPhysicalPoint([float(v) for v in start])
    ct = sitk.Resample(
        grid, SIZE, sitk.Transform(), sitk.sitkNearestNeighbor, origin, SPACING_MM, defaultPixelValue=-1000
    )
    write_ct_series(ct, folder / "ct", patient_id="P", patient_name="P")
    organs = StructureSet(Geometry.of(ct))
    for name in phantom.structures:
        mask = phantom.structures.crop(name)
        first = [a - b for a, b in zip(mask.start, start[::-1], strict=True)]
        cut = max(0, -first[0]), max(0, first[0] + mask.shape[0] - SIZE[2])
        organs.add_crop(name, (first[0] + cut[0], *first[1:]), mask.array[cut[0] : mask.shape[0] - cut[1]])
    return organs, folder / "ct"


if __name__ == "__main__":
    sys.exit(main())
