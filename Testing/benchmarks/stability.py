"""How far contours change when the same patient is scanned or stored otherwise: DSC per organ and variation.

    python Testing/benchmarks/stability.py CT ... [--bundle starter] [--only cropped,mirrored]

A CT is a DICOM folder or an image file. Each variation (`Testing/helpers/variations.py`) is segmented like the scan
itself, its masks are brought back, and both are compared in what both scans show. An organ of over 5 cc should reach
0.97, a smaller one 0.93; what does not is marked with a star.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from variations import VARIATIONS, Variation, agreement

from soars.bundle.store import load_bundle
from soars.ct.images import CtScan, read_ct
from soars.run.segment import SegmentOptions, segment

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
            rows = agreement(variation, usual, found)
            low = [
                name for name, (dsc, cc) in rows.items() if dsc < (LARGE_DSC if cc > LARGE_CC else SMALL_DSC)
            ]
            missed += len(low)
            cells = [
                f"{rows[n][0]:11.3f}{'*' if n in low else ' '}" if n in rows else f"{'-':>11} "
                for n in usual.names
            ]
            more = [n for n in rows if n not in usual.names]
            print(
                f"{variation.name:18}" + "".join(cells) + (f"  only here: {more}" if more else ""), flush=True
            )
    print(f"{missed} below the promise")
    return 1 if missed else 0


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
