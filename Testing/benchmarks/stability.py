"""How far contours change when the same patient is scanned or stored otherwise: DSC per organ and variation.

    python Testing/benchmarks/stability.py CT ... [--bundle starter] [--only cropped,mirrored]

A CT is a DICOM folder or an image file. Each variation (`Testing/helpers/variations.py`) is segmented like the scan
itself, its masks are brought back, and both are compared in what both scans show. An organ of over 5 cc should reach
0.97, a smaller one 0.93; what does not is marked with a star. Where the variation has another grid, two rows say what
that costs without the networks: each mask brought to the grid and back, and the CT brought there and back.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from variations import VARIATIONS, Variation, agreement, grids_alone, resampled, there_and_back

from soars.bundle.store import load_bundle
from soars.ct.images import CtScan, read_ct
from soars.run.segment import SegmentOptions, segment
from soars.structures import StructureSet

LARGE_CC, LARGE_DSC, SMALL_DSC = 5.0, 0.97, 0.93


def main() -> int:
    args = parse()
    bundle = load_bundle(args.bundle)
    options = SegmentOptions(threads=args.threads)
    only = args.only.split(",") if args.only else []
    missed = 0
    for path in args.ct:
        scan = read_ct(path)
        start = time.perf_counter()
        usual = segment(scan, bundle, options).structures
        print(f"{path.name}: {time.perf_counter() - start:.1f} s for the scan as it is", flush=True)
        print(f"{'':18}" + "".join(f"{name[:10]:>12}" for name in usual.names), flush=True)
        print(f"{'cc':18}" + "".join(f"{usual.volume_cc(name):12.1f}" for name in usual.names), flush=True)
        for vary in VARIATIONS:
            if only and vary.__name__ not in only:
                continue
            variation: Variation = vary(scan.image)
            found = segment(CtScan(variation.image, path, None, []), bundle, options).structures
            missed += show(variation.name, agreement(variation, usual, found), usual, promised=True)
            if vary is resampled:
                show(" grids alone", grids_alone(variation, usual), usual)
                back = there_and_back(scan.image)
                found = segment(CtScan(back.image, path, None, []), bundle, options).structures
                show(f" {back.name}", agreement(back, usual, found), usual)
    print(f"{missed} below the promise")
    return 1 if missed else 0


def show(
    name: str, rows: Mapping[str, tuple[float, float]], usual: StructureSet, *, promised: bool = False
) -> int:
    """Print a row; returns how many organs are below the promise, where there is one."""
    low = [n for n, (dsc, cc) in rows.items() if dsc < (LARGE_DSC if cc > LARGE_CC else SMALL_DSC)]
    low = low if promised else []
    cells = [
        f"{rows[n][0]:11.3f}{'*' if n in low else ' '}" if n in rows else f"{'-':>11} " for n in usual.names
    ]
    more = [n for n in rows if n not in usual.names]
    print(f"{name:18}" + "".join(cells) + (f"  only here: {more}" if more else ""), flush=True)
    return len(low)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ct", type=Path, nargs="+", help="DICOM folder or image file")
    parser.add_argument("--bundle", default="starter", help="bundle name or folder")
    parser.add_argument("--only", help="names of functions in variations.py, comma-separated")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
