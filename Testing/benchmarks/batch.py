"""A batch against separate calls of `soars segment`, its memory, and its results after it was killed.

    python Testing/benchmarks/batch.py [--phantoms 50] [--field head_neck] [--real FOLDER --real-cases 10]
        [--sample 12] [--engine auto] [--ray]

The cases are phantoms (one a seed, as DICOM) and, with --real, the first CTs of a folder of NIfTI files. The batch is
all cases. Separate calls are timed on --sample of them, phantoms and real ones, whose means are weighed by how many of
each the batch has. They see the same load of the machine as the batch: whenever it has done another part of its cases
it is stopped (SIGSTOP), a call runs alone, and the batch goes on (SIGCONT); that time does not count as its own.
Processor time is what both cost where other work on the machine makes wall clock doubtful. Then the batch is started
again into another folder, killed (SIGKILL) at a fifth, a half and four fifths of its time, and run to its end.

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
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
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
    parser.add_argument(
        "--field", default="head_neck", help="what is scanned of them, as `soars demo` has it"
    )
    parser.add_argument("--real", type=Path, help="folder with *_ct.nii.gz")
    parser.add_argument("--real-cases", type=int, default=10)
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--sample", type=int, default=12, help="cases segmented by separate calls, too")
    parser.add_argument("--no-kills", action="store_true", help="leave out the batch that is killed")
    parser.add_argument("--ray", action="store_true", help="time one and two workers of Ray as well")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        table = _cases(args, home)
        options = ("--bundle", args.bundle, "--engine", args.engine)
        figures = measure(table, home, options, args.sample, kills=not args.no_kills, ray=args.ray)
    for name, figure in figures.items():
        print(f"{name:40} {figure}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    met = (
        figures["batch / separate"] <= SHARE
        and figures["memory, last third / first third"] <= GROWTH
        and figures.get("the same after three kills", True)
    )
    return 0 if met else 1


@dataclass
class Watched:
    """A batch that is watched; seconds of wall clock and of processor time, and bytes of all its processes together."""

    whole_s: float = 0.0
    processor_s: float = 0.0
    memory: list[int] = field(default_factory=list)
    """The most of it while each case was worked at."""
    separate_s: list[float] = field(default_factory=list)
    separate_processor_s: list[float] = field(default_factory=list)


def measure(
    table: Path, home: Path, options: tuple[str, ...], sample: int, *, kills: bool, ray: bool
) -> dict[str, float]:
    """All figures; times in seconds of wall clock a case where they do not say otherwise."""
    with table.open(newline="") as file:
        cts = [row["ct"] for row in csv.DictReader(file)]
    chosen, weights = _sample(cts, sample)
    seen = _batch(table, home / "batch", options, chosen, len(cts))
    third = max(len(seen.memory) // 3, 1)
    first, last = max(seen.memory[2 : third + 2]), max(seen.memory[-third:])
    alone = sum(w * s for w, s in zip(weights, seen.separate_s, strict=True))
    alone_processor = sum(w * s for w, s in zip(weights, seen.separate_processor_s, strict=True))
    together = seen.whole_s / len(cts)
    figures = {
        "cases": len(cts),
        "separate calls": len(chosen),
        "separate, s a case": round(alone, 2),
        "batch, s a case": round(together, 2),
        "separate, processor s a case": round(alone_processor, 2),
        "batch, processor s a case": round(seen.processor_s / len(cts), 2),
        "batch / separate": round(together / alone, 3),
        "memory, first third, MB": round(first / 2**20),
        "memory, last third, MB": round(last / 2**20),
        "memory, last third / first third": round(last / first, 3),
    }
    if kills:
        figures["the same after three kills"] = _killed(table, home, options, seen.whole_s)
    for workers in (1, 2) if ray else ():
        started = time.monotonic()
        _run(_command(table, home / f"ray{workers}", options, "--ray", "local", "--ray-workers", str(workers),
                      "--ray-cores", "1"))  # fmt: skip
        figures[f"Ray, {workers} workers, s a case"] = round((time.monotonic() - started) / len(cts), 2)
    return figures


def _sample(cts: list[str], count: int) -> tuple[list[str], list[float]]:
    """Some of the phantoms (folders) and of the real CTs (files), at least one of each kind that there is, and what
    each stands for."""
    chosen: list[str] = []
    weights: list[float] = []
    for kind in (Path.is_dir, Path.is_file):
        of_kind = [ct for ct in cts if kind(Path(ct))]
        if not of_kind:
            continue
        n = min(len(of_kind), max(1, round(count * len(of_kind) / len(cts))))
        chosen += [of_kind[(2 * k + 1) * len(of_kind) // (2 * n)] for k in range(n)]
        weights += [len(of_kind) / len(cts) / n] * n
    return chosen, weights


def _cases(args: argparse.Namespace, home: Path) -> Path:
    """The list of cases, CTs written; real ones are spread evenly among the phantoms."""
    rows = []
    for seed in tqdm(range(args.phantoms), desc="phantoms"):
        phantom = make_phantom(seed, spacing_mm=SPACING_MM, field_of_view=args.field)
        rows.append((f"phantom{seed:02d}", write_phantom_dicom(phantom, home / "ct" / f"phantom{seed:02d}")))
    if args.real is not None:
        files = sorted(args.real.glob("*_ct.nii.gz"))[: args.real_cases]
        step = max(args.phantoms // max(len(files), 1), 1)
        for number, path in enumerate(files):
            rows.insert(number * (step + 1), (path.name.removesuffix("_ct.nii.gz"), path.resolve()))
    table = home / "list.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("case", "ct"), *rows])
    return table


def _processor_s() -> float:
    """Processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _batch(table: Path, out: Path, options: tuple[str, ...], separate: list[str], cases: int) -> Watched:
    """Run the whole of so many ``cases``; a separate call for each of some CTs, spread evenly over it."""
    seen = Watched()
    started, used, stopped = time.monotonic(), _processor_s(), 0.0
    process = subprocess.Popen(_full(_command(table, out, options)), start_new_session=True)
    parent, bar = psutil.Process(process.pid), tqdm(separate, desc="separate calls")
    waiting = iter(bar)
    calls = 0
    try:
        while process.poll() is None:
            done = len(list(out.glob("*/batch.json")))
            _note_memory(parent, done, seen.memory)
            if calls < len(separate) and done >= calls * cases // len(separate):
                os.killpg(process.pid, signal.SIGSTOP)
                before, used_before = time.monotonic(), _processor_s()
                _separate(next(waiting), out.with_name("one"), options)
                seen.separate_s.append(time.monotonic() - before)
                seen.separate_processor_s.append(_processor_s() - used_before)
                calls += 1
                os.killpg(process.pid, signal.SIGCONT)
                stopped += time.monotonic() - before
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, "the batch failed"
    seen.whole_s = time.monotonic() - started - stopped
    seen.processor_s = _processor_s() - used - sum(seen.separate_processor_s)
    return seen


def _separate(ct: str, out: Path, options: tuple[str, ...]) -> None:
    _run(["segment", ct, "--output", str(out), *options, "--overwrite", "--progress", "none"])


def _note_memory(parent: psutil.Process, done: int, most: list[int]) -> None:
    total = 0
    try:
        for one in (parent, *parent.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:
        return
    most.extend([0] * (done + 1 - len(most)))
    most[done] = max(most[done], total)


def _killed(table: Path, home: Path, options: tuple[str, ...], whole_s: float) -> bool:
    """Whether a batch that was killed at each moment, and started again each time, has the same results, each once."""
    out = home / "killed"
    for before, moment in zip((0.0, *KILLED_AT), KILLED_AT, strict=False):
        process = subprocess.Popen(_full(_command(table, out, options)), start_new_session=True)
        time.sleep((moment - before) * whole_s)
        assert process.poll() is None, "it was done before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed with {len(list(out.glob('*/batch.json')))} cases done", file=sys.stderr)
    _run(_command(table, out, options))
    whole, resumed = ({p.name for p in folder.iterdir()} for folder in (home / "batch", out))
    same = (out / "organs.csv").read_bytes() == (home / "batch" / "organs.csv").read_bytes()
    shutil.rmtree(out)
    return same and whole == resumed


def _command(table: Path, out: Path, options: tuple[str, ...], *more: str) -> list[str]:
    return ["segment-all", str(table), str(out), *options, "--progress", "none", *more]


def _run(command: list[str]) -> None:
    subprocess.run(_full(command), check=True, stdout=subprocess.DEVNULL)


def _full(command: list[str]) -> list[str]:
    return [sys.executable, "-m", "soars.cli", *command]


if __name__ == "__main__":
    sys.exit(main())
