"""How long a large study takes to read and analyse, and how much memory: 1260 sessions by default.

    python Testing/benchmarks/study.py [--cases 30] [--readers 42] [--processes 2] [--keep DIR]

Simulated readers revise tiny patients (30 patients x 42 readers = 1260 logs, and 42 from scratch); then the whole is
read, checked and analysed as `soars study summarize --times-only` does: contours of 42 readers by twos would be 25,830
comparisons, which says nothing of the logs. Prints one JSON object: wall and processor seconds, and the peak memory of
the largest process in MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SOARSSegmentation"), str(ROOT / "Testing" / "helpers")]

from tiny_study import tiny_study  # noqa: E402

from soars.study.load import open_study  # noqa: E402
from soars.study.results.summary import analyse_study, write_analysis  # noqa: E402


def processor_s() -> float:
    """Of this process and of those it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def peak_mb() -> float:
    """Of the largest process (Linux counts kilobytes)."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in who) / 1024


def measured(folder: Path, processes: int) -> dict[str, float]:
    began, processor = time.perf_counter(), processor_s()
    analysis = analyse_study(open_study(folder), contours=False, processes=processes)
    analysed, processor_analysed = time.perf_counter(), processor_s()
    with tempfile.TemporaryDirectory() as output:
        write_analysis(analysis, Path(output, "out"))
    return {
        "sessions": len(analysis.collection.sessions),
        "rows": len(analysis.collection.rows),
        "analysing_s": round(analysed - began, 1),
        "analysing_processor_s": round(processor_analysed - processor, 1),
        "writing_s": round(time.perf_counter() - analysed, 1),
        "writing_processor_s": round(processor_s() - processor_analysed, 1),
        "peak_mb": round(peak_mb()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--readers", type=int, default=42)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="make the study here, or use the one that is here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary, "study")
        if not (folder / "truth.json").exists():
            organs = ("Brainstem", "Eye_L", "Lens_L", "Parotid_L")
            tiny_study(
                folder, cases=args.cases, readers=args.readers, scratch=1, organs=organs, dose=False,
                revise_minutes=1.0, scratch_minutes=5.0,
            )  # fmt: skip
        print(json.dumps(measured(folder, args.processes)))


if __name__ == "__main__":
    main()
