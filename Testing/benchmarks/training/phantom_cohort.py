"""The papers' method from a cohort to a bundle, on phantoms with all 42 organs: does the whole of it hold its promise?

    python Testing/benchmarks/training/phantom_cohort.py WORK [--size laptop|tiny] [--until STAGE | --only STAGE]

Trains on phantoms whose contours an observer drew who differs from the truth (`Testing/helpers/observers.py`), one
observer a patient, and tests on patients of another hospital: other voxels, scanner and sizes, scored against the
truth. Stages, in order, each in a folder of WORK: `prepare` (caches, VOIs), `overfit` (one patient, learned by heart:
finds faults cheaply), for the anchors, mid-level organs and small organs a search, then the network from scratch,
`detection`, the `controls` direct (small organs in one network over the whole scan, for as many steps), together (all
organs in such a network, the papers' baseline) and detection_ct (without the anchors), `finetune` (all branches end to
end), `evaluate`. The same command goes on wherever it was killed. On a computer that can do more at once, `--only`
gives a process one stage: once `prepare` is done, `overfit`, `anchor`, `small_hard` and `controls` need nothing of each
other, and `mid_level` and `detection` only `anchor`.
WORK/report.md gets the figures and says which of these hold:

- the bundle: mean DSC of the 42 organs at least 0.87, of the small and hard ones at least 0.85;
- small organs in detected volumes: at least 10 points of DSC above direct (inner ears and cochleas left out, since they
  overlap, and the voxels of one network over the whole scan have one label each);
- detection with the anchors: centres nearer to the truth than without.

The size `laptop` takes the preset of that name: half an hour of an H200 whose 16 cores do the stages side by side. With
`--share 0.5` every training takes half of its steps. `tiny` goes through every stage within minutes, and its figures
mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "helpers"))

import numpy as np
import torch
from observers import another_hospital, drawn_by
from phantom_figures import Figures

from soars.catalogue import CATALOGUE, SOARS42, by_stratum
from soars.commands.options import add_device_option
from soars.metrics import dice
from soars.parallel import in_processes
from soars_training.cli import main as soars_train
from soars_training.cohorts.cache import CacheIndex
from soars_training.cohorts.many import Job, Made, prepare_jobs, volumes_of
from soars_training.cohorts.phantoms import phantom_case, phantom_voi_scans, voi_of_scan
from soars_training.cohorts.plan import make_plan
from soars_training.cohorts.prepare import SourceCase, Spacing
from soars_training.cohorts.reading import LeftOut
from soars_training.experiments.runs import guided
from soars_training.fitting.options import LAST, RUN_FILE
from soars_training.release.evaluate import evaluate_bundle, write_csv
from soars_training.search.search import SEARCH_FILE

FIRST_SEED, FIRST_TEST_SEED, SECOND_OBSERVER = 1000, 1, 50_000
WHOLE_MM: Spacing = (2.0, 2.0, 3.0)
FINE_MM: Spacing = (1.0, 1.0, 1.0)
WIDEST_VOI_MM = 80.0
"""A VOI is three times the organ's extent, but no wider than this: optic nerves would need 100 mm."""
MEAN_DSC, SMALL_DSC, GAIN = 0.87, 0.85, 0.10
SMALL = tuple(oar.name for oar in by_stratum("small_hard"))
DISJOINT = tuple(name for name in SMALL if not CATALOGUE[name].detection_group.startswith("Ear"))
TOGETHER = tuple(name for name in SOARS42 if name not in SMALL or name in DISJOINT)
COMPARED = ("tuned", "staged", "direct", "together", "detection_ct")
"""The bundles that are scored."""
STAGES = (
    "prepare",
    "overfit",
    "anchor",
    "mid_level",
    "detection",
    "small_hard",
    "controls",
    "finetune",
    "evaluate",
)


@dataclass(frozen=True)
class Size:
    """How large an experiment is: patients (of whom some are held out while training), steps of every stage, and what
    the networks and searches are made of."""

    whole: int
    vois: int
    held_out: int
    test: int
    overfit: int
    anchor: int
    mid_level: int
    detection: int
    small_hard: int
    search: int
    finetune: int
    network: tuple[str, ...]
    small_network: tuple[str, ...]
    search_network: tuple[str, ...]
    small_search_network: tuple[str, ...]
    voi_mm: float = WIDEST_VOI_MM
    whole_mm: Spacing = WHOLE_MM
    fine_mm: Spacing = FINE_MM

    def with_share(self, share: float) -> Size:
        """With so much of the steps of the cohort's trainings; one patient is learned by heart as before."""
        trained = ("anchor", "mid_level", "detection", "small_hard", "search", "finetune")
        return replace(self, **{name: round(share * getattr(self, name)) for name in trained})


SIZES = {
    "laptop": Size(
        whole=60, vois=48, held_out=3, test=10, overfit=250,
        anchor=3000, mid_level=7000, detection=2500, small_hard=8000, search=500, finetune=1200,
        network=(),
        small_network=("--features", "16,32,64,64"),
        # A search costs eight times a network: it is done on a narrower one, whose choice the wide one takes.
        search_network=("--features", "8,16,32,64,64", "--patch", "32,48,48"),
        small_search_network=("--features", "8,16,32,32"),
    ),
    "tiny": Size(
        whole=6, vois=4, held_out=1, test=1, overfit=20,
        anchor=20, mid_level=20, detection=20, small_hard=20, search=10, finetune=6,
        network=("--features", "4,8,16", "--patch", "16,32,32"),
        small_network=("--features", "4,8,8"),
        search_network=("--features", "2,4,4", "--patch", "16,16,16"),
        small_search_network=("--features", "2,4,4"),
        voi_mm=24.0, whole_mm=(6.0, 6.0, 6.0), fine_mm=(3.0, 3.0, 3.0),
    ),
}  # fmt: skip


def main() -> int:
    args = parse()
    work = args.work
    work.mkdir(parents=True, exist_ok=True)
    _same_size(
        work / "size.json", args.size if args.share == 1 else f"{args.size}, {args.share:g} of the steps"
    )
    lab = Laboratory(
        work, SIZES[args.size].with_share(args.share), args.device, args.threads, args.workers, args.processes
    )
    torch.set_num_threads(args.threads)
    for stage in (args.only,) if args.only else STAGES:
        print(f"== {stage}", flush=True)
        getattr(lab, stage)()
        if stage in (args.until, args.only) and stage != STAGES[-1]:
            return 0
    return lab.report()


@dataclass(frozen=True)
class Laboratory:
    """The folder of the experiment; every method does what is not done yet."""

    work: Path
    size: Size
    device: str
    threads: int
    workers: int | None
    processes: int

    def prepare(self) -> None:
        seeds = range(FIRST_SEED, FIRST_SEED + self.size.whole)
        self._cache("whole", [Job(f"phantom{s}", partial(_whole, s)) for s in seeds], self.size.whole_mm)
        self._cache("one", [Job(f"phantom{FIRST_SEED}", partial(_whole, FIRST_SEED))], self.size.whole_mm)
        if not (self.work / "voi.json").exists():
            plan = make_plan(self.work / "whole")
            widest = self.size.voi_mm
            # On coarse voxels an organ may have none: its volume is as wide as any.
            groups = dict.fromkeys(CATALOGUE[organ].detection_group for organ in SMALL)
            vois = {g: [min(v, widest) for v in plan.voi_mm.get(g, (widest,) * 3)] for g in groups}
            (self.work / "voi.json").write_text(json.dumps(vois, indent=1))
        seeds = seeds[: self.size.vois]
        jobs = [Job(f"phantom{s}", partial(_vois, s, self.voi_mm)) for s in seeds]
        self._cache("vois", jobs, self.size.fine_mm)
        self._cache("one_vois", jobs[:1], self.size.fine_mm)

    def overfit(self) -> None:
        """Each branch learns one patient by heart."""
        anchor, mid, detection, small = (
            f"overfit/{b}" for b in ("anchor", "mid_level", "detection", "small_hard")
        )
        plain = ("--augmentation", "0", "--steps", str(self.size.overfit), *self.size.network)
        self._fit("one", anchor, "anchor", *plain)
        self._guide("one", anchor, "overfit/guide")
        guide = self._at("overfit/guide")
        self._fit("one", mid, "mid_level", "--guide", guide, *plain)
        # On coarse voxels an organ may have none, in one of the caches.
        there = (
            CacheIndex.load(self.work / "one").annotated & CacheIndex.load(self.work / "one_vois").annotated
        )
        organs = ("--organs", ",".join(organ for organ in SMALL if organ in there))
        self._fit("one", detection, "detection", "--guide", guide, *organs, *plain)
        of_vois = (
            "--voi",
            self._at("voi.json"),
            "--augmentation",
            "0",
            "--steps",
            str(4 * self.size.overfit),
        )
        self._fit("one_vois", small, "small_hard", *organs, *of_vois, *self.size.small_network)
        self._export("overfit/bundle", anchor, mid, detection, small)
        self._score(
            ["overfit/bundle"], [(f"phantom{FIRST_SEED}", partial(_learned, FIRST_SEED, self.size.whole_mm))]
        )
        print(self._figures("overfit/bundle").line("one patient, learned by heart"), flush=True)

    def anchor(self) -> None:
        self._searched("whole", "anchor", self.size.anchor, self.size.search_network, self.size.network)
        self._guide("whole", "anchor", "guide")

    def mid_level(self) -> None:
        guide = ("--guide", self._at("guide"))
        size = self.size
        self._searched("whole", "mid_level", size.mid_level, size.search_network, size.network, *guide)

    def detection(self) -> None:
        self._fit(
            "whole", "detection", "detection", "--guide", self._at("guide"), *self._steps(self.size.detection)
        )

    def small_hard(self) -> None:
        size = self.size
        voi = ("--voi", self._at("voi.json"))
        self._searched(
            "vois", "small_hard", size.small_hard, size.small_search_network, size.small_network, *voi
        )

    def controls(self) -> None:
        steps = self._steps(self.size.small_hard)
        self._fit("whole", "direct", "anchor", "--organs", ",".join(DISJOINT), *steps)
        self._fit("whole", "together", "anchor", "--organs", ",".join(TOGETHER), *steps)
        self._fit("whole", "detection_ct", "detection", *self._steps(self.size.detection))

    def finetune(self) -> None:
        output = self.work / "tuned"
        if (output / "small_hard" / RUN_FILE).exists():
            return
        argv = ["finetune", self._at("whole"), self._at("anchor"), self._at("mid_level"), str(output)]
        argv += ["--detection", self._at("detection"), "--small-hard", self._at("small_hard")]
        argv += ["--vois", self._at("vois"), "--steps", str(self.size.finetune), *self._computer()]
        self._run([*argv, *(["--resume"] if (output / LAST).exists() else [])])

    def evaluate(self) -> None:
        branches = ("anchor", "mid_level", "detection", "small_hard")
        self._export("bundles/tuned", *(f"tuned/{branch}" for branch in branches))
        self._export("bundles/staged", *branches)
        self._export("bundles/direct", "direct")
        self._export("bundles/together", "together")
        self._export("bundles/detection_ct", "detection_ct", "small_hard")
        seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + self.size.test)
        bundles = [f"bundles/{bundle}" for bundle in COMPARED]
        self._score(bundles, [(f"test{s}", partial(another_hospital, s)) for s in seeds])
        path = self.work / "observers.json"
        if not path.exists():
            path.write_text(json.dumps(_agreement(seeds, self.processes), indent=1))

    def report(self) -> int:
        """Write report.md; 1 when something does not hold."""
        found = {bundle: self._figures(f"bundles/{bundle}") for bundle in COMPARED}
        ceiling = json.loads((self.work / "observers.json").read_text())
        tuned, staged = found["tuned"], found["staged"]
        with_anchors, without = staged.centre_error(), found["detection_ct"].centre_error()
        promises = {
            f"mean DSC at least {MEAN_DSC}": tuned.mean(SOARS42) >= MEAN_DSC,
            f"small and hard at least {SMALL_DSC}": tuned.mean(SMALL) >= SMALL_DSC,
            f"detected volumes {100 * GAIN:.0f} points above direct": staged.mean(DISJOINT)
            >= found["direct"].mean(DISJOINT) + GAIN,
            "detection with anchors nearer than without": with_anchors < without,
        }
        lines = [
            "# Phantoms of another hospital, learned from observers who differ",
            "",
            f"{self.size.test} test patients; DSC against the truth, through the cascade.",
            "",
            found["tuned"].line("whole method, fine-tuned end to end"),
            found["staged"].line("before fine-tuning"),
            found["detection_ct"].line("small organs by a detector without the anchors"),
            found["direct"].line("small organs in one network over the whole scan"),
            f"- these organs in one network with all others: mean {found['together'].mean(DISJOINT):.3f} "
            f"({len(DISJOINT)} organs)",
            f"- the same organs in detected volumes: mean {staged.mean(DISJOINT):.3f} ({len(DISJOINT)} organs)",
            f"- a second observer: mean {np.mean(list(ceiling.values())):.3f}, small and hard "
            f"{np.mean([ceiling[o] for o in SMALL]):.3f}",
            f"- error of the detected centres: {with_anchors:.2f} mm with the anchors, {without:.2f} mm without",
            "",
            *(f"- {'holds' if holds else 'DOES NOT HOLD'}: {what}" for what, holds in promises.items()),
            "",
            "| organ | whole method | before fine-tuning | second observer |",
            "|---|---|---|---|",
            *(f"| {o} | {tuned.of(o):.3f} | {staged.of(o):.3f} | {ceiling[o]:.3f} |" for o in SOARS42),
        ]
        (self.work / "report.md").write_text("\n".join(lines) + "\n")
        print("\n".join(lines))
        return 0 if all(promises.values()) else 1

    @property
    def voi_mm(self) -> dict[str, Spacing]:
        return {g: tuple(mm) for g, mm in json.loads((self.work / "voi.json").read_text()).items()}

    def _at(self, name: str) -> str:
        return str(self.work / name)

    def _cache(self, name: str, jobs: Sequence[Job], spacing_mm: Spacing) -> None:
        if not (self.work / name).exists():
            source = "phantoms drawn by observers"
            prepare_jobs(jobs, self.work / name, spacing_mm, source, LeftOut(), self.processes)

    def _computer(self) -> tuple[str, ...]:
        workers = () if self.workers is None else ("--workers", str(self.workers))
        return "--device", self.device, "--threads", str(self.threads), *workers, "--checkpoint-every", "100"

    def _steps(self, steps: int) -> tuple[str, ...]:
        return "--steps", str(steps), "--held-out", str(self.size.held_out), *self.size.network

    def _searched(
        self, cache: str, branch: str, steps: int, looks: Sequence[str], is_: Sequence[str], *more: str
    ) -> None:
        """A search, then the network of its choice from scratch; the same patients are held out of both."""
        held = ("--held-out", str(self.size.held_out))
        folder = self.work / f"search_{branch}"
        if not (folder / SEARCH_FILE).exists():
            argv = [
                "search",
                self._at(cache),
                str(folder),
                "--branch",
                branch,
                "--steps",
                str(self.size.search),
            ]
            argv += [*held, *looks, *more, "--alpha-rate", "0.01", *self._computer()]
            self._run([*argv, *(["--resume"] if (folder / LAST).exists() else [])])
        self._fit(cache, branch, branch, "--steps", str(steps), *held, *is_, *more, "--blocks", str(folder))

    def _fit(self, cache: str, name: str, branch: str, *more: str) -> None:
        folder = self.work / name
        if not (folder / RUN_FILE).exists():
            argv = ["fit", self._at(cache), str(folder), "--branch", branch, *more, *self._computer()]
            self._run([*argv, *(["--resume"] if (folder / LAST).exists() else [])])

    def _guide(self, cache: str, anchor: str, name: str) -> None:
        guided(self.work / cache, self.work / anchor, self.work / name, self.device)

    def _export(self, name: str, *runs: str) -> None:
        folder = self.work / name
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            told = ["--description", "Phantoms drawn by observers", "--licence", "Apache-2.0"]
            self._run(["export", str(folder), *map(self._at, runs), *told])

    def _run(self, argv: list[str]) -> None:
        print("soars-train", " ".join(argv), flush=True)
        code = soars_train(argv)
        if code:
            sys.exit(code)

    def _score(self, bundles: Sequence[str], cases: Sequence[tuple[str, Callable[[], SourceCase]]]) -> None:
        work_on = partial(_scored, self.work, bundles, self.device)
        for _ in in_processes(work_on, cases, self.processes):
            pass

    def _figures(self, bundle: str) -> Figures:
        return Figures.read(self.work / "scores" / Path(bundle).name)


def _learned(seed: int, spacing_mm: Spacing) -> SourceCase:
    """A training patient as its observer drew it."""
    case = phantom_case(seed, spacing_mm)
    return SourceCase(case.name, case.split, case.ct, drawn_by(seed, case.structures), case.annotated)


def _whole(seed: int, spacing_mm: Spacing, _left_out: LeftOut) -> Iterator[Made]:
    yield from volumes_of(_learned(seed, spacing_mm), None, spacing_mm)


def _vois(seed: int, voi_mm: dict[str, Spacing], spacing_mm: Spacing, _left_out: LeftOut) -> Iterator[Made]:
    for group, scan in phantom_voi_scans(seed, voi_mm):
        drawn = SourceCase(scan.name, scan.split, scan.ct, drawn_by(seed, scan.structures), scan.annotated)
        made = voi_of_scan(drawn, group, voi_mm[group], spacing_mm)
        if made is not None:
            yield made


def _scored(
    work: Path, bundles: Sequence[str], device: str, named: tuple[str, Callable[[], SourceCase]]
) -> None:
    """Write what every bundle draws of a patient, a table each; the patient is made once."""
    name, make = named
    case = None
    for bundle in bundles:
        path = work / "scores" / Path(bundle).name / f"{name}.csv"
        if not path.exists():
            case = case or make()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_csv(evaluate_bundle(work / bundle, [case], device=device), path)


def _agreement(seeds: Sequence[int], processes: int) -> dict[str, float]:
    """Mean DSC of an observer against the truth, on the scans of the test patients."""
    found: dict[str, list[float]] = {}
    for _, values in in_processes(_agreement_on, seeds, processes):
        for organ, value in values.items():
            found.setdefault(organ, []).append(value)
    return {organ: float(np.mean(found[organ])) for organ in SOARS42 if organ in found}


def _agreement_on(seed: int) -> dict[str, float]:
    truth = another_hospital(seed).structures
    drawn = drawn_by(SECOND_OBSERVER + seed, truth)
    return {o: dice(drawn.crop(o), truth.crop(o)) for o in SOARS42 if not truth.is_empty(o)}


def _same_size(path: Path, size: str) -> None:
    if not path.exists():
        path.write_text(json.dumps(size))
    elif json.loads(path.read_text()) != size:
        sys.exit(f"{path.parent} was begun with --size {json.loads(path.read_text())}; use another folder")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="gets caches, runs, bundles, scores and report.md")
    parser.add_argument("--size", choices=sorted(SIZES), default="laptop")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of every training (default 1)")
    add_device_option(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, help="processes that draw windows for a training")
    parser.add_argument(
        "--processes", type=int, default=1, help="that prepare and score patients (default 1)"
    )
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--until", choices=STAGES, help="stop after this stage")
    some.add_argument("--only", choices=STAGES, help="this stage alone, whose forerunners are done")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
