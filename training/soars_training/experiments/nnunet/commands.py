"""nnU-Net's commands as child processes: plan and preprocess, train, predict. Finished steps are not repeated."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from soars.errors import EngineError, InputError
from soars.files import write_json
from soars.supervise import end_with_this_process
from soars.texts import read_json

log = logging.getLogger(__name__)

PLANS, PLANNED = "nnUNetPlans", "3d_fullres"
TRAINERS = Path(__file__).parent / "trainers"
LEARNED, USED = "learned.json", "used.json"
"""What a trainer says of its network, and what training took, beside the checkpoints."""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
"""Have glibc keep what a step frees for the next: getting its pages anew takes a third of a processor's time."""
LOG_LINES = 15
"""So many last lines of a command that failed are shown."""


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how.

    Attributes:
        trainer: of `TRAINERS`.
        configuration: of the plans.
        channels: of the network at full resolution, and as many times more below as the plans have; theirs when None.
    """

    trainer: str
    configuration: str = PLANNED
    channels: int | None = None


NETWORK_OF = "nnUNetTrainerNoMirroring"
"""nnU-Net's own trainer that builds the same network as ours, for computers that have only nnU-Net's."""
RECIPES = {"paper": Recipe("BudgetTrainer"), "laptop": Recipe("LaptopTrainer", "3d_narrow", 16)}
"""nnU-Net as it configures itself; and with half of its channels, for what a processor does in an hour or two."""


@dataclass(frozen=True)
class Used:
    """What a command took, starting up included: wall seconds, and the largest resident memory of its processes, nan
    where it is not known (Windows)."""

    seconds: float = 0.0
    memory_mb: float = float("nan")

    def save(self, path: Path) -> None:
        write_json(
            path,
            {
                "seconds": self.seconds,
                "memory_mb": None if self.memory_mb != self.memory_mb else self.memory_mb,
            },
        )

    @staticmethod
    def load(path: Path) -> Used:
        """Nothing and nan where the file is not there, or is empty as an earlier version left it."""
        values = read_json(path) if path.exists() and path.stat().st_size else {}
        memory = values.get("memory_mb")
        return Used(values.get("seconds", 0.0), float("nan") if memory is None else memory)


@dataclass(frozen=True)
class NnUNet:
    """nnU-Net's three folders within one.

    Attributes:
        home: holds nnUNet_raw, nnUNet_preprocessed and, a folder a seed, nnUNet_results.
        number, name: of the data set: "Dataset001_Name" in its folders.
        device: cpu or cuda. memory_gb: what its planner may count on, nnU-Net's own default when None.
        workers: processes that draw the training's windows, which then differ from run to run; with 0 the training
            draws them itself, the same in every run.
        preset: of `RECIPES`.
        threads: of the training on a processor; OMP_NUM_THREADS, else as many as there are processors when None.
    """

    home: Path
    number: int
    name: str
    device: str
    memory_gb: float | None = None
    workers: int = 0
    preset: str = "paper"
    threads: int | None = None

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.preset]

    @property
    def dataset(self) -> str:
        return f"Dataset{self.number:03d}_{self.name}"

    @property
    def raw(self) -> Path:
        return self.home / "nnUNet_raw" / self.dataset

    def model(self, seed: int) -> Path:
        """The folder that training leaves."""
        recipe = self.recipe
        return self._results(seed) / self.dataset / f"{recipe.trainer}__{PLANS}__{recipe.configuration}"

    def predictions(self, seed: int) -> Path:
        return self.home / f"predictions_{seed}"

    def plan(self) -> None:
        """Fingerprint, plans and preprocessing."""
        done = self.home / "preprocessed.done"
        if not done.exists():
            memory = ["-gpu_memory_target", f"{self.memory_gb:g}"] if self.memory_gb else []
            self._run(
                "nnUNetv2_plan_and_preprocess", ["-d", str(self.number), "-c", PLANNED, "-np", "1", "-npfp", "1"]
                + memory,
            )  # fmt: skip
            done.touch()
        if self.recipe.channels is not None:
            add_narrow(
                self.home / "nnUNet_preprocessed" / self.dataset / f"{PLANS}.json",
                self.recipe.configuration,
                self.recipe.channels,
            )

    def train(self, steps: int, seed: int) -> None:
        """All cases in one fold. One that was interrupted goes on from its last epoch; a finished one that had fewer
        steps goes on from its end, with the learning rate of the longer schedule."""
        fold = self.model(seed) / "fold_all"
        finished = (fold / "checkpoint_final.pth").exists()
        if finished and _learned(fold).get("steps", steps) >= steps:
            return
        recipe = self.recipe
        words = [str(self.number), recipe.configuration, "all", "-tr", recipe.trainer, "-device", self.device]
        resume = ["--c"] if finished or (fold / "checkpoint_latest.pth").exists() else []
        before = Used.load(self.model(seed) / USED)
        used = self._run("nnUNetv2_train", words + resume, seed, steps)
        Used(before.seconds + used.seconds, used.memory_mb).save(self.model(seed) / USED)
        self._predicted_file(seed).unlink(missing_ok=True)

    def predict(self, images: Path, seed: int) -> None:
        """A label map for every image of a folder."""
        done = self._predicted_file(seed)
        if not done.exists():
            used = self._run(
                "nnUNetv2_predict",
                ["-i", str(images), "-o", str(self.predictions(seed)), "-d", str(self.number)]
                + ["-c", self.recipe.configuration, "-f", "all", "-tr", self.recipe.trainer]
                + ["-device", self.device, "-npp", "1", "-nps", "1"],
                seed,
            )  # fmt: skip
            used.save(done)

    def trained(self, seed: int) -> tuple[Used, int]:
        """What training took, and the number of parameters, 0 where it is not known."""
        learned = _learned(self.model(seed) / "fold_all")
        return Used.load(self.model(seed) / USED), learned.get("parameters", 0)

    def predicted(self, seed: int) -> Used:
        """What prediction took."""
        return Used.load(self._predicted_file(seed))

    def _predicted_file(self, seed: int) -> Path:
        return self.home / f"predictions_{seed}.done"

    def _results(self, seed: int) -> Path:
        return self.home / f"nnUNet_results_{seed}"

    def _run(self, command: str, words: list[str], seed: int = 0, steps: int = 1) -> Used:
        """Raises `EngineError` with the last lines of what the command said when it fails."""
        program = command_path(command)
        self.home.mkdir(parents=True, exist_ok=True)
        output = self.home / f"{command}.log"
        log.info("%s %s (its words: %s)", command, " ".join(words), output)
        environment = {
            "nnUNet_raw": str(self.home / "nnUNet_raw"),
            "nnUNet_preprocessed": str(self.home / "nnUNet_preprocessed"),
            "nnUNet_results": str(self._results(seed)),
            "nnUNet_extTrainer": str(TRAINERS),
            "nnUNet_n_proc_DA": str(self.workers) if command == "nnUNetv2_train" else "1",
            "nnUNet_def_n_proc": "1",
            "SOARS_NNUNET_STEPS": str(steps),
            "SOARS_NNUNET_SEED": str(seed),
            **KEEP_MEMORY,
            **({} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}),
        }
        start = time.monotonic()
        with output.open("w", encoding="utf-8") as stream:
            child = subprocess.Popen(
                [str(program), *words],
                env=os.environ | environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_this_process(),
            )
            try:
                code, memory_mb = _waited(child)
            except BaseException:
                child.terminate()
                child.wait()
                raise
        if code:
            lines = [
                line.strip() for line in output.read_text(encoding="utf-8", errors="replace").splitlines()
            ]
            said = " / ".join([line for line in lines if line][-LOG_LINES:])
            raise EngineError(
                f"{command} failed (exit code {code}); all it said is in {output}, at last: {said}"
            )
        return Used(round(time.monotonic() - start, 1), memory_mb)


def _learned(fold: Path) -> dict[str, int]:
    """What the trainer left; an earlier version did not name the steps."""
    path = fold / LEARNED
    return read_json(path) if path.exists() else {}


def add_narrow(path: Path, name: str, channels: int) -> None:
    """Add a configuration to nnU-Net's plans that is `PLANNED` but for the network's channels, as its authors' guide to
    plans has it. It keeps the preprocessed images, patch and batch."""
    plans = read_json(path)
    planned = plans["configurations"][PLANNED]["architecture"]
    wide = planned["arch_kwargs"]["features_per_stage"]
    narrow = planned["arch_kwargs"] | {"features_per_stage": [channels * many // wide[0] for many in wide]}
    plans["configurations"][name] = {
        "inherits_from": PLANNED,
        "architecture": planned | {"arch_kwargs": narrow},
    }
    write_json(path, plans)


def _waited(child: subprocess.Popen[bytes]) -> tuple[int, float]:
    """The exit code of a child that has ended, and the largest resident memory of it and its own children in MB."""
    if not hasattr(os, "wait4"):
        return child.wait(), float("nan")
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    # macOS counts bytes, all others kilobytes.
    return child.returncode, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def command_path(command: str) -> Path:
    """The installed command. Raises `InputError` when nnU-Net is not installed."""
    folder = Path(sys.executable).parent
    for name in (command, f"{command}.exe"):
        if (folder / name).exists():
            return folder / name
    raise InputError(
        f"nnU-Net is not installed here ({command} is missing): pip install 'soars-segmentation[nnunet]'"
    )
