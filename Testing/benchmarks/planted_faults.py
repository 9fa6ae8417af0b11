"""How many planted faults the checks find, and where; and what they find in contours without a fault.

    python Testing/benchmarks/planted_faults.py [--phantoms 10] [--first-seed 500]

Six kinds of fault (`Testing/helpers/planted.py`) in four organs of each phantom. A fault is found when a finding of its
kind names the organ, and placed when the finding points to within 10 mm of where it was planted. What is usual is
learned from other phantoms, as a bundle's table is from its training patients.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import planted

from soars.cascade.preprocess import find_body
from soars.cascade.sides import find_midline
from soars.findings.norms import Norms
from soars.phantom import make_phantom
from soars_training.release.review import fit_norms

PLACED_MM = 10.0


def main() -> int:
    args = parse()
    planted_n, found_n, placed_n = Counter[str](), Counter[str](), Counter[str]()
    organs, flagged = 0, Counter[str]()
    norms = usual(range(args.first_seed + 10_000, args.first_seed + 10_000 + args.cohort))
    for seed in range(args.first_seed, args.first_seed + args.phantoms):
        phantom = make_phantom(seed, spacing_mm=(args.spacing, args.spacing, 3.0))
        good = phantom.structures.subset(
            name for name in phantom.structures.names if not phantom.structures.is_empty(name)
        )
        midline = find_midline(good, find_body(phantom.ct))
        clean = planted.findings_of(good, midline, norms)
        organs += len(good)
        for organ in {finding.organ for finding in clean}:
            flagged[organ] += 1
        for plant in planted.FAULTS:
            for organ in planted.ORGANS:
                unpaired = plant is planted.swapped and not organ.endswith(("_L", "_R"))
                fault = plant(good, "Lens_L" if unpaired else organ)
                right = [
                    finding
                    for finding in planted.findings_of(fault.structures, midline, norms)
                    if finding.organ in fault.organs and finding.kind in planted.KINDS[fault.kind]
                ]
                planted_n[fault.kind] += 1
                found_n[fault.kind] += bool(right)
                near = any(planted.distance_mm(fault, finding) <= PLACED_MM for finding in right)
                placed_n[fault.kind] += near
                if not near:
                    print(
                        f"phantom {seed}: {fault.kind} in {organ}: {[f.sentence() for f in right] or 'not found'}"
                    )
        print(f"phantom {seed}: {len(clean)} findings in {len(good)} organs without a fault", flush=True)
    print(f"\n{'fault':15}{'planted':>9}{'found':>9}{'placed':>9}")
    for kind, count in planted_n.items():
        print(f"{kind:15}{count:9}{found_n[kind]:9}{placed_n[kind]:9}")
    total = sum(flagged.values())
    print(
        f"\nwithout a fault: findings in {total} of {organs} organs ({total / organs:.3f}): {dict(flagged)}"
    )
    return 0 if placed_n == planted_n and total <= organs / 10 else 1


def usual(seeds: Iterable[int]) -> Norms:
    """Volumes and places in phantoms of these seeds."""
    cohort = (make_phantom(seed, spacing_mm=(3.0, 3.0, 3.0)).structures for seed in seeds)
    return fit_norms((structures, frozenset(structures.names)) for structures in cohort)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phantoms", type=int, default=10)
    parser.add_argument("--cohort", type=int, default=20, help="phantoms to learn from (default 20)")
    parser.add_argument("--first-seed", type=int, default=500)
    parser.add_argument("--spacing", type=float, default=1.5, help="in-plane voxel size, mm (default 1.5)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
