"""A batch against separate calls of `soars segment`, its memory, and its results after it was killed.

    python Testing/benchmarks/batch.py [--phantoms 50] [--real FOLDER --real-cases 10] [--sample 12] [--ray]

The cases are phantoms (one a seed, as DICOM) and, with --real, the first CTs of a folder of NIfTI files. Separate calls
are timed on every n-th case so that there are --sample of them, half of them before the batch and half after it, since
other work on the machine comes and goes; the batch is all cases. Processor time says what a batch saves where that
other work makes wall clock meaningless. Then the batch is started again into another folder, killed (SIGKILL) at a
fifth, a half and four fifths of its time, and run to its end.

Ends with exit code 1 when a target is missed: at most 0.6 of the time per case; the most memory in the last third of
the batch at most 1.1 times that in its first third (its first two cases left out); the same tables after the kills.
--ray adds the times with one and two workers of Ray, one processor each.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from tqdm import tqdm

from soars.phantom.export import write_phantom_dicom
from soars.phantom.make import make_phantom

SHARE, GROWTH = 0.6, 1.1
KILLED_AT = (0.2, 0.5, 0.8)
SPACING_MM = (2.0, 2.0, 3.0)
_POLL_S = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phantoms", type=int, default=50)
    parser.add_argument("--real", type=Path, help="folder with *_ct.nii.gz")
    parser.add_argument("--real-cases", type=int, default=10)
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--sample", type=int, default=12, help="cases segmented by separate calls, too")
    parser.add_argument("--ray", action="store_true", help="time one and two workers of Ray as well")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        table = _cases(args, home)
        figures = measure(table, home, args.bundle, args.sample, args.ray)
    for name, figure in figures.items():
        print(f"{name:40} {figure}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    met = (
        figures["batch / separate"] <= SHARE
        and figures["memory, last third / first third"] <= GROWTH
        and figures["the same after three kills"]
    )
    return 0 if met else 1


def measure(table: Path, home: Path, bundle: str, sample: int, ray: bool) -> dict[str, float]:
    """All figures; times in seconds of wall clock a case."""
    with table.open(newline="") as file:
        cts = [row["ct"] for row in csv.DictReader(file)]
    chosen = cts[:: max(len(cts) // sample, 1)][:sample]
    half = len(chosen) // 2
    used = [_processor_s()]
    separate = [_separate(ct, home / "one", bundle) for ct in tqdm(chosen[:half], desc="separate")]
    used.append(_processor_s())
    started = time.monotonic()
    memory = _batch(table, home / "batch", bundle)
    whole = time.monotonic() - started
    used.append(_processor_s())
    separate += [_separate(ct, home / "one", bundle) for ct in tqdm(chosen[half:], desc="separate")]
    used.append(_processor_s())
    of_separate = (used[1] - used[0] + used[3] - used[2]) / len(chosen)
    third = max(len(memory) // 3, 1)
    first, last = max(memory[2 : third + 2]), max(memory[-third:])
    per_case = sum(separate) / len(separate)
    figures = {
        "cases": len(cts),
        "separate, s a case": round(per_case, 2),
        "batch, s a case": round(whole / len(cts), 2),
        "separate, processor s a case": round(of_separate, 2),
        "batch, processor s a case": round((used[2] - used[1]) / len(cts), 2),
        "batch / separate": round(whole / len(cts) / per_case, 3),
        "memory, first third, MB": round(first / 2**20),
        "memory, last third, MB": round(last / 2**20),
        "memory, last third / first third": round(last / first, 3),
        "the same after three kills": _killed(table, home, bundle, whole),
    }
    for workers in (1, 2) if ray else ():
        started = time.monotonic()
        _run(_command(table, home / f"ray{workers}", bundle, "--ray", "local", "--ray-workers", str(workers),
                      "--ray-cores", "1"))  # fmt: skip
        figures[f"Ray, {workers} workers, s a case"] = round((time.monotonic() - started) / len(cts), 2)
    return figures


def _cases(args: argparse.Namespace, home: Path) -> Path:
    """The list of cases, CTs written."""
    rows = []
    for seed in tqdm(range(args.phantoms), desc="phantoms"):
        folder = write_phantom_dicom(
            make_phantom(seed, spacing_mm=SPACING_MM), home / "ct" / f"phantom{seed:02d}"
        )
        rows.append((f"phantom{seed:02d}", folder))
    if args.real is not None:
        files = sorted(args.real.glob("*_ct.nii.gz"))[: args.real_cases]
        rows += [(path.name.removesuffix("_ct.nii.gz"), path.resolve()) for path in files]
    table = home / "list.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("case", "ct"), *rows])
    return table


def _processor_s() -> float:
    """Processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _separate(ct: str, out: Path, bundle: str) -> float:
    started = time.monotonic()
    _run(["segment", ct, "--output", str(out), "--bundle", bundle, "--overwrite", "--progress", "none"])
    return time.monotonic() - started


def _batch(table: Path, out: Path, bundle: str) -> list[int]:
    """Run the whole; the most bytes of memory of all its processes together while each case was worked at."""
    most: list[int] = []
    process = subprocess.Popen(_full(_command(table, out, bundle)))
    watched = threading.Thread(target=_watch, args=(process, out, most))
    watched.start()
    assert process.wait() == 0, "the batch failed"
    watched.join()
    return most


def _watch(process: subprocess.Popen[bytes], out: Path, most: list[int]) -> None:
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for one in (parent, *parent.children(recursive=True)):
                total += one.memory_info().rss
        except psutil.Error:
            continue
        done = len(list(out.glob("*/batch.json")))
        most.extend([0] * (done + 1 - len(most)))
        most[done] = max(most[done], total)
        time.sleep(_POLL_S)


def _killed(table: Path, home: Path, bundle: str, whole_s: float) -> bool:
    """Whether a batch that was killed at each moment, and started again each time, has the same results."""
    out = home / "killed"
    for before, moment in zip((0.0, *KILLED_AT), KILLED_AT, strict=False):
        process = subprocess.Popen(_full(_command(table, out, bundle)), start_new_session=True)
        time.sleep((moment - before) * whole_s)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _run(_command(table, out, bundle))
    same = (out / "organs.csv").read_bytes() == (home / "batch" / "organs.csv").read_bytes()
    return same and sorted(p.name for p in out.glob("*/")) == sorted(
        p.name for p in (home / "batch").glob("*/")
    )


def _command(table: Path, out: Path, bundle: str, *more: str) -> list[str]:
    return ["segment-all", str(table), str(out), "--bundle", bundle, "--progress", "none", *more]


def _run(command: list[str]) -> None:
    subprocess.run(_full(command), check=True, stdout=subprocess.DEVNULL)


def _full(command: list[str]) -> list[str]:
    return [sys.executable, "-m", "soars.cli", *command]


if __name__ == "__main__":
    sys.exit(main())
