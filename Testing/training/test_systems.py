"""The door for systems: one loop, one run record, one command and one export for whatever is trained behind it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from soars.bundle.store import load_bundle
from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.networks.slice_net import SliceNet
from soars.systems.trained import Found
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.commands.fit_system import _annotated
from soars_training.experiments.scores import OrganRow, read_rows
from soars_training.experiments.systems import masks_rows, score_system
from soars_training.fitting.models import Model
from soars_training.fitting.options import LAST, FittedRun
from soars_training.fitting.state import learning_rate
from soars_training.release.export import BundleFacts, write_graph
from soars_training.systems.export import export_system, system_card
from soars_training.systems.interface import SystemOptions, SystemRun, system_of_run
from soars_training.systems.loop_system import LoopSystem, averaged_weights, score_case
from soars_training.systems.registry import SYSTEMS, training_system
from soars_training.windows.task import Batch

ORGAN = "Brainstem"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five cases with a bright box in water; the last is of another organ only."""
    folder = tmp_path_factory.mktemp("cache")
    entries = []
    for n in range(5):
        hu = np.random.default_rng(n).normal(0, 20, (6, 6, 6))
        hu[1:4, 1:4, 1:4] = 500
        organ = ORGAN if n < 4 else "SpinalCord"
        masks = {organ: ((1, 1, 1), np.ones((3, 3, 3), bool))}
        case = CachedCase(f"c{n}", hu.astype(np.int16), (0, 0, 0), (3, 3, 3), masks, frozenset({organ}))
        write_case(folder / f"c{n}.npz", case)
        entries.append(IndexEntry(f"c{n}", f"c{n}.npz", "train", (organ,)))
    CacheIndex((3, 3, 3), "boxes", entries).save(folder)
    return folder


@dataclass(frozen=True)
class ThresholdOptions(SystemOptions):
    scale_hu: float = 100.0


class ThresholdData:
    title, stackable = "threshold", True

    def __init__(self, cases: Sequence[CachedCase], scale_hu: float) -> None:
        self.cases, self.scale_hu = cases, scale_hu

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        case = self.cases[n % len(self.cases)]
        return _input(case, self.scale_hu), torch.from_numpy(case.full_mask(ORGAN)).float()[None]

    def collate(self, samples: Sequence[Any]) -> Batch:
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))


class ThresholdModel(Model):
    """A logistic regression of a voxel's HU; remembers which steps it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv3d(1, 1, 1)
        self.begun: list[tuple[int, int]] = []

    def begin(self, step: int, steps: int) -> None:
        self.begun.append((step, steps))

    def loss(self, batch: Batch, balance: float) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.net(batch[0]), batch[1])


class Threshold(LoopSystem[ThresholdOptions]):
    name = "threshold"
    presets = ("laptop",)
    weights = "weights.safetensors"
    last: ThresholdModel

    def options(self, preset: str, organs: tuple[str, ...]) -> ThresholdOptions:
        return ThresholdOptions(
            organs=organs,
            steps=60,
            batch=2,
            learning_rate=0.5,
            weight_decay=0.0,
            ema=0.5,
            device="cpu",
            threads=1,
        )

    def data(
        self, options: ThresholdOptions, cases: Sequence[CachedCase], spacing_mm: Sequence[float]
    ) -> ThresholdData:
        return ThresholdData(cases, options.scale_hu)

    def model(self, options: ThresholdOptions) -> Model:
        Threshold.last = ThresholdModel()
        return Threshold.last

    def network(self, model: Model) -> nn.Module:
        return model.net  # type: ignore[return-value]

    def untrained(self, settings: Mapping[str, Any]) -> nn.Module:
        return nn.Conv3d(1, 1, 1)

    def example_shape(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        return (1, 1, 2, 2, 2)

    def find(self, network: nn.Module, options: ThresholdOptions, case: CachedCase) -> Found:
        values = torch.sigmoid(network(_input(case, options.scale_hu)[None])[0, 0].float())
        return {ORGAN: ((0, 0, 0), values.numpy())}

    def settings(self, options: ThresholdOptions, spacing_mm: Sequence[float]) -> dict[str, Any]:
        return {"scale_hu": options.scale_hu}

    def summary(self, options: ThresholdOptions) -> str:
        return "A logistic regression."

    def write_weights(self, run: SystemRun, folder: Path, bundle: Path) -> None:
        self.write_member(folder, bundle / "weights.safetensors")

    def write_member(self, folder: Path, path: Path) -> None:
        save_file(averaged_weights(folder, "net."), path)


def _input(case: CachedCase, scale_hu: float) -> Tensor:
    return torch.from_numpy(case.ct_hu.astype(np.float32))[None] / scale_hu


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "threshold", Threshold)


def _fit(cache: Path, output: Path, *more: str) -> int:
    return main(
        ["fit-system", "threshold", str(cache), str(output), "--organs", ORGAN, "--device", "cpu", *more]
    )


def test_any_system_learns_and_becomes_a_bundle(cache: Path, tmp_path: Path) -> None:
    assert _fit(cache, tmp_path / "run", "--held-out", "1", "--set", "scale_hu=200") == 0
    run = SystemRun.load(tmp_path / "run")
    assert (run.system, run.organs, run.cases, len(run.held_out)) == ("threshold", (ORGAN,), 3, 1)
    assert run.validation[ORGAN] > 0.95
    assert run.parameters == 2
    assert system_of_run(tmp_path / "run") == "threshold"
    assert Threshold.last.begun == [(step, 60) for step in range(60)]
    made = [
        "export",
        str(tmp_path / "mine"),
        str(tmp_path / "run"),
        "--description",
        "A try",
        "--licence",
        "CC0-1.0",
    ]
    assert main(made) == 0
    bundle = load_bundle(tmp_path / "mine")
    assert (bundle.system, bundle.organs, bundle.format_version) == ("threshold", (ORGAN,), 2)
    assert bundle.settings == {"scale_hu": 200.0}
    assert not bundle.warnings
    assert f"| Brainstem | {run.validation[ORGAN]:.3f} |" in bundle.card


def test_runs_that_vote_become_one_bundle(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / f"run{seed}" for seed in (1, 2)]
    for seed, run in enumerate(runs, start=1):
        assert _fit(cache, run, "--steps", "2", "--seed", str(seed)) == 0
    other = tmp_path / "other"
    assert _fit(cache, other, "--steps", "2", "--set", "scale_hu=300") == 0
    words = ["--description", "x", "--licence", "CC0-1.0"]
    assert main(["export", str(tmp_path / "mine"), *map(str, runs), *words]) == 0
    bundle = load_bundle(tmp_path / "mine")
    names = ["threshold_1.safetensors", "threshold_2.safetensors"]
    assert (bundle.settings["weights"], bundle.settings["members"]) == (names[0], names[1:])
    assert set(names) <= set(bundle.files) and "2 such networks vote, trained with seeds 1, 2" in bundle.card
    assert main(["export", str(tmp_path / "bad"), str(runs[0]), str(other), *words]) == 2
    assert "so they cannot vote" in capsys.readouterr().err and not (tmp_path / "bad").exists()


SMALL: dict[str, dict[str, Any]] = {
    "ct_mr": {"features": (4, 8), "patch": (8, 8, 8)},
    "deepmind": {"size": 32, "channels": (4,) * 5, "lost": (4,) * 5, "hidden": 8},
    "uanet": {"widths": (4, 4, 8, 8, 8), "fused": 8, "hidden": 8, "pooled": 2, "dense": (8, 8), "mask": 8},
}


def _untrained_run(name: str, folder: Path, factor: float) -> Path:
    """A finished run at random weights, the first convolution times a factor."""
    system: Any = SYSTEMS[name]()
    options = replace(system.options("laptop", (ORGAN, "SpinalCord")), **SMALL[name])
    torch.manual_seed(0)
    weights = dict(system.model(options).state_dict())
    first = next(k for k, w in weights.items() if w.ndim == 5)
    weights[first] = weights[first] * factor
    folder.mkdir()
    torch.save({"averaged": weights}, folder / LAST)
    settings = system.settings(options, (3, 3, 3))
    facts = ({}, settings, "x", options.to_dict(), 1.0, 1)
    SystemRun(name, options.organs, "boxes", (3, 3, 3), 1, (), *facts).save(folder)
    return folder


def _facts(run: Path) -> BundleFacts:
    return BundleFacts("b", "1", "d", "CC0-1.0", system_card("b", "d", "CC0-1.0", [SystemRun.load(run)]))


@pytest.mark.parametrize("name", SMALL)
def test_a_bundle_that_draws_otherwise_than_its_network_is_not_made(name: str, tmp_path: Path) -> None:
    """Half precision ends at 65504; ten times a convolution's first weights is far from it, ten million times not."""
    good, bad = (_untrained_run(name, tmp_path / f"run{k}", factor) for k, factor in enumerate((10.0, 1e7)))
    facts = _facts(good)
    assert export_system([good], tmp_path / "one", facts).system == name
    assert len(export_system([good, good], tmp_path / "two", facts).settings["members"]) == 1
    for k, runs in enumerate(([bad], [good, bad])):
        with pytest.raises(InputError, match=rf"{bad} cannot be exported: .*beyond half precision"):
            export_system(runs, tmp_path / f"bad_{k}", facts)
        assert not (tmp_path / f"bad_{k}").exists()


def test_a_graph_that_draws_the_opposite_is_told_by_its_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opposite of a value is away from it by twice its size."""

    def opposite(network: SliceNet, *rest: Any) -> None:
        network.forward = lambda x: -SliceNet.forward(network, x)  # type: ignore[method-assign]
        write_graph(network, *rest)

    monkeypatch.setattr("soars_training.systems.deepmind.system.write_graph", opposite)
    run = _untrained_run("deepmind", tmp_path / "run", 1.0)
    with pytest.raises(InputError, match="on onnxruntime it draws otherwise than it was trained to, by 200%"):
        export_system([run], tmp_path / "b", _facts(run))


def test_an_interrupted_run_ends_with_the_same_weights(cache: Path, tmp_path: Path) -> None:
    _fit(cache, tmp_path / "whole", "--deterministic")
    short = tmp_path / "short"

    class Killed(Exception):
        pass

    class Dying(ThresholdModel):
        def begin(self, step: int, steps: int) -> None:
            if step == 43:
                raise Killed

    system = Threshold()
    options = system.options("laptop", (ORGAN,))
    system.model = lambda options: Dying()  # type: ignore[method-assign]
    with pytest.raises(Killed):
        system.fit(cache, short, _changed(options, checkpoint_every=20, deterministic=True))
    fewer = tmp_path / "fewer"
    shutil.copytree(cache, fewer)
    index = CacheIndex.load(cache)
    replace(index, cases=index.cases[1:]).save(fewer)
    with pytest.raises(InputError, match=rf"other cases of the cache \(gone: {index.cases[0].name}\)"):
        Threshold().fit(fewer, short, _changed(options, checkpoint_every=20, deterministic=True), resume=True)
    Threshold().fit(cache, short, _changed(options, checkpoint_every=20, deterministic=True), resume=True)
    mine, whole = (averaged_weights(tmp_path / f, "net.") for f in ("short", "whole"))
    assert all(torch.equal(mine[name], whole[name]) for name in whole)


def _changed(options: ThresholdOptions, **changes: object) -> ThresholdOptions:
    return ThresholdOptions(**(vars(options) | changes))  # type: ignore[arg-type]


def test_what_is_wrong_is_said_in_a_sentence(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, message in (
        (["--set", "colour=1"], "has no such setting"),
        (["--set", "scale_hu=wide"], "expected a value like 100.0"),
        (["--preset", "gpu"], "threshold has laptop"),
        (["--organs", "Parotid_L"], "annotates any of Parotid_L"),
        (["--organs", f"{ORGAN},Parotid_L"], "annotates Parotid_L; leave out what nobody drew"),
        (["--set", 'schedule="spiral"'], "schedule spiral"),
    ):
        assert _fit(cache, tmp_path / "bad", *more) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="unknown system 'vnet'"):
        training_system("vnet")
    assert _fit(cache, tmp_path / "run", "--steps", "1") == 0
    assert _fit(cache, tmp_path / "run", "--steps", "1") == 2
    with pytest.raises(InputError, match="is a run of threshold"):
        FittedRun.load(tmp_path / "run")
    with pytest.raises(InputError, match="lacks"):
        (tmp_path / "run.json").write_text("{}")
        SystemRun.load(tmp_path)


def test_an_organ_that_is_missed_scores_nothing_and_an_unknown_one_is_left_out() -> None:
    mask = np.ones((2, 2, 2), bool)
    case = CachedCase(
        "c",
        np.zeros((4, 4, 4), np.int16),
        (0, 0, 0),
        (1, 1, 1),
        {ORGAN: ((0, 0, 0), mask)},
        frozenset({ORGAN}),
    )
    half = case.full_mask(ORGAN)
    half[0] = False
    rows = [score_case(case, found, (ORGAN, "SpinalCord")) for found in ({}, {ORGAN: half})]
    assert [[(r.organ, r.dsc) for r in row] for row in rows] == [[(ORGAN, 0.0)], [(ORGAN, 2 * 4 / 12)]]


def test_a_sparse_organ_is_scored_on_its_slices() -> None:
    """2 sum |A B L| / sum (|A L| + |B L|): slices that nobody contoured count neither for nor against."""
    mask = ((1, 0, 0), np.ones((2, 2, 2), bool))
    case = CachedCase(
        "c", np.zeros((5, 4, 4), np.int16), (0, 0, 0), (1, 1, 1), {ORGAN: mask}, frozenset(),
        {ORGAN: np.array([False, True, True, False, False])},
    )  # fmt: skip
    found = np.zeros((5, 4, 4), bool)
    found[1:, :2, :2] = True
    assert [r.dsc for r in score_case(case, {ORGAN: found}, (ORGAN,))] == [1.0]
    found[2, :, :] = True
    assert [r.dsc for r in score_case(case, {ORGAN: found}, (ORGAN,))] == [2 * 8 / (8 + 4 + 16)]


def test_a_system_is_scored_on_an_ablations_patients(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split, the organs and the steps are the ablation's; what is scored already is not trained again."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "scores").mkdir()
    index = CacheIndex.load(cache)
    cases = [
        replace(e, split="test" if e.name == "c3" else "train", file=str(cache / e.file)) for e in index.cases
    ]
    CacheIndex(index.spacing_mm, "boxes", cases).save(tmp_path / "cache")
    with pytest.raises(InputError, match="no ablation was begun"):
        score_system(tmp_path, "threshold", "laptop", [1], "cpu")
    (tmp_path / "ablation.json").write_text(json.dumps({"organs": [ORGAN], "steps": 55}))
    with pytest.raises(InputError, match="threshold has laptop"):
        score_system(tmp_path, "threshold", "paper", [1], "cpu")
    score_system(tmp_path, "threshold", "laptop", [1, 2], "cpu")
    rows = [r for seed in (1, 2) for r in read_rows(tmp_path / "scores" / f"threshold.{seed}.csv", OrganRow)]
    assert [(r.setting, r.seed, r.stratum, r.case, r.organ) for r in rows] == [
        ("threshold", seed, "anchor", "c3", ORGAN) for seed in (1, 2)
    ]
    assert all(r.dsc > 0.95 and r.hd_mm < 4 for r in rows)
    run = SystemRun.load(tmp_path / "seed_2" / "threshold")
    assert (run.cases, run.options["steps"], run.options["seed"]) == (3, 55, 2)
    score_system(tmp_path, "threshold", "laptop", [3], "cpu", steps=7)
    assert SystemRun.load(tmp_path / "seed_3" / "threshold").options["steps"] == 7
    assert {f.name for f in (tmp_path / "costs").iterdir()} == {f"threshold.{n}.json" for n in (1, 2, 3)}
    monkeypatch.setattr(Threshold, "fit", None)
    score_system(tmp_path, "threshold", "laptop", [1, 2], "cpu")


def test_a_small_organ_counts_on_the_fine_grid(tmp_path: Path) -> None:
    """A mask on 3 mm voxels covers 27 voxels of 1 mm each, but for corners that interpolation takes off; one that is
    missing has DSC 0 there, too."""
    lens = "Lens_L"
    coarse = CachedCase(
        "p", np.zeros((8, 8, 8), np.int16), (0, 0, 0), (3, 3, 3), {lens: ((3, 3, 3), np.ones((2, 2, 2), bool))},
        frozenset({lens}),
    )  # fmt: skip
    fine = CachedCase(
        "p.Lens_L", np.zeros((12, 12, 12), np.int16), (6, 6, 6), (1, 1, 1),
        {lens: ((2, 2, 2), np.ones((6, 6, 6), bool))}, frozenset({lens}),
    )  # fmt: skip
    for name, case, group in (("cache", coarse, None), ("voi_cache", fine, "Lens_L")):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"{case.name}.npz"
        write_case(path, case)
        entry = IndexEntry(case.name, str(path), "test", (lens,), group)
        CacheIndex(case.spacing_mm, "made", [entry]).save(tmp_path / name)
    if CATALOGUE[lens].detection_group != "Lens_L":
        pytest.fail("the lens has another group now")
    (row,) = masks_rows(tmp_path, (lens,), lambda _entry, case: {lens: case.full_mask(lens)})
    assert (row.case, row.organ, row.stratum) == ("p", lens, "small_hard") and row.dsc > 0.8
    (missed,) = masks_rows(tmp_path, (lens,), lambda _entry, _case: {})
    assert missed.dsc == 0 and np.isinf(missed.hd_mm)


def test_stairs_step_down_where_they_say() -> None:
    stairs = ((0.2, 1 / 2), (0.5, 1 / 8), (0.9, 1 / 64), (0.95, 1 / 256))
    options = ThresholdOptions(
        organs=(ORGAN,), steps=120_000, learning_rate=1e-4, schedule="stairs", stairs=stairs
    )
    at = (0, 23_999, 24_000, 59_999, 60_000, 107_999, 108_000, 113_999, 114_000, 119_999)
    factors = (1, 1, 1 / 2, 1 / 2, 1 / 8, 1 / 8, 1 / 64, 1 / 64, 1 / 256, 1 / 256)
    assert [learning_rate(options, step) for step in at] == pytest.approx([1e-4 * f for f in factors])


def test_of_an_organ_there_whole_and_in_parts_the_parts_are_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = ("Bone_Mandible_L", "Bone_Mandible_R")
    CacheIndex((3, 3, 3), "x", [IndexEntry("a", "a.npz", "train", ("Bone_Mandible", *halves, "Lips"))]).save(
        tmp_path
    )
    assert _annotated(tmp_path) == (*halves, "Lips")
    command = ["fit-system", "ct_mr", str(tmp_path), str(tmp_path / "run")]
    assert main([*command, "--organs", "Bone_Mandible,Bone_Mandible_L"]) == 2
    assert "Bone_Mandible and a part of it" in capsys.readouterr().err
