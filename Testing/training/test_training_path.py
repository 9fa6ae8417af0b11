"""The whole path on a toy: cache, fit, guide, fit guided, export, and the bundle segments through the cascade."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from soars.bundle.store import load_bundle
from soars.ct.images import CtScan
from soars.errors import InputError
from soars.metrics import dice
from soars.networks.architecture import UNetArchitecture
from soars.networks.unet import UNet
from soars.run.segment import SegmentOptions, segment
from soars.structures import Geometry, StructureSet
from soars_training.cli import main
from soars_training.dataset import BranchTask
from soars_training.evaluate import Score, summary_table
from soars_training.fit import FittedRun, start_from
from soars_training.prepare import SourceCase, write_volume_cache

CARD = """# toy
## Trained on
Cubes.
## Licence
None.
## Figures
None: `soars-train evaluate`.
## What it cannot do
Anything.
## Research use only
Not a medical device.
"""


def _toy(seed: int) -> SourceCase:
    """A water box with four bricks of different HU: two "anchors", and two organs that the anchors guide to."""
    rng = np.random.default_rng(seed)
    hu = np.full((32, 48, 64), -1000.0)
    hu[2:-2, 4:-4, 4:-4] = 40
    structures = StructureSet(Geometry((64, 48, 32), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0)))
    bricks = {"Brainstem": (10, 900), "SpinalCord": (22, 400), "Larynx": (36, -100), "Esophagus": (50, -300)}
    for organ, (x, value) in bricks.items():
        y, z = rng.integers(10, 28), rng.integers(6, 16)
        mask = np.zeros(hu.shape, bool)
        mask[z : z + 9, y : y + 9, x - 4 : x + 5] = True
        hu[mask] = value
        structures.add(organ, mask)
    hu += rng.normal(0, 5, hu.shape)
    ct = structures.geometry.place(sitk.GetImageFromArray(hu.astype(np.int16)))
    return SourceCase(f"toy{seed}", "train", ct, structures, frozenset(structures.names))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anchor and a guided mid-level branch, trained for seconds."""
    root = tmp_path_factory.mktemp("toy")
    write_volume_cache((_toy(s) for s in range(6)), root / "cache", (3.0, 3.0, 3.0), "toy")
    (root / "card.md").write_text(CARD)
    common = [
        "--features",
        "8,16",
        "--patch",
        "32,32,32",
        "--steps",
        "250",
        "--learning-rate",
        "0.01",
        "--device",
        "cpu",
    ]
    cache, guide = str(root / "cache"), str(root / "guide")
    anchors, guided = "Brainstem,SpinalCord", "Larynx,Esophagus"
    commands = [
        ["fit", cache, str(root / "anchor"), "--branch", "anchor", "--organs", anchors, *common],
        ["guide", cache, str(root / "anchor"), guide, "--device", "cpu"],
        [
            "fit",
            cache,
            str(root / "mid"),
            "--branch",
            "mid_level",
            "--organs",
            guided,
            "--guide",
            guide,
            *common,
        ],
        [
            "export",
            str(root / "toy"),
            str(root / "anchor"),
            str(root / "mid"),
            "--card",
            str(root / "card.md"),
        ]
        + ["--description", "toy", "--licence", "none"],
    ]
    for command in commands:
        assert main(command) == 0
    return root / "toy"


def test_the_bundle_is_whole_and_says_what_it_covers(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.organs == ("Brainstem", "SpinalCord", "Larynx", "Esophagus")
    assert loaded.branches["mid_level"].inputs == ("ct", "anchor")
    assert not loaded.warnings


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_the_bundle_finds_the_organs_of_a_new_case(bundle: Path, engine: str) -> None:
    case = _toy(99)
    result = segment(
        CtScan(case.ct, Path("toy"), None, []), load_bundle(bundle), SegmentOptions(engine=engine)
    )
    for organ in case.structures.names:
        assert dice(result.structures.crop(organ), case.structures.crop(organ)) > 0.7, organ


def test_a_run_remembers_what_it_was(bundle: Path) -> None:
    run = FittedRun.load(bundle.parent / "mid")
    assert (run.branch, run.anchors, run.steps) == ("mid_level", ("Brainstem", "SpinalCord"), 250)
    assert json.loads((bundle.parent / "mid" / "run.json").read_text())["cases"] == 6


def test_a_run_goes_on_from_its_own_weights_and_another_branch_from_the_layers_they_share(
    bundle: Path,
) -> None:
    anchor, mid = (FittedRun.load(bundle.parent / name) for name in ("anchor", "mid"))
    trained = anchor.network(bundle.parent / "anchor").state_dict()

    same = UNet(anchor.architecture)
    start_from(same, bundle.parent / "anchor", BranchTask("anchor", anchor.classes, anchor.inputs))
    assert all(torch.equal(value, trained[name]) for name, value in same.state_dict().items())

    guided = UNet(mid.architecture)
    head = guided.head.weight.clone()
    start_from(
        guided, bundle.parent / "anchor", BranchTask("mid_level", mid.classes, mid.inputs, mid.anchors)
    )
    first, *rest = [name for name in trained if not name.startswith("head.")]
    weights = guided.state_dict()
    assert all(torch.equal(weights[name], trained[name]) for name in rest)
    assert torch.equal(weights[first][:, :1], trained[first])
    assert not weights[first][:, 1:].any()  # what guides it is learned from nothing
    assert torch.equal(guided.head.weight, head)


def test_a_network_of_other_layers_is_no_start(bundle: Path) -> None:
    mid = FittedRun.load(bundle.parent / "mid")
    task = BranchTask("mid_level", mid.classes, mid.inputs, mid.anchors)
    with pytest.raises(InputError, match="other layers"):
        start_from(UNet(UNetArchitecture.plain(3, 3, (8, 24))), bundle.parent / "anchor", task)


def test_export_leaves_nothing_behind_when_the_card_is_incomplete(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "card.md").write_text("# nothing\n")
    argv = ["export", str(tmp_path / "b"), str(bundle.parent / "anchor"), "--card", str(tmp_path / "card.md")]
    assert main([*argv, "--description", "x", "--licence", "x"]) == 2
    assert "Trained on" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["card.md"]


def test_two_runs_of_one_branch_are_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anchor, card = str(bundle.parent / "anchor"), str(bundle.parent / "card.md")
    assert (
        main(
            [
                "export",
                str(tmp_path / "b"),
                anchor,
                anchor,
                "--card",
                card,
                "--description",
                "x",
                "--licence",
                "x",
            ]
        )
        == 2
    )
    assert "same branch" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a finished training run"):
        FittedRun.load(tmp_path)


def test_summary_averages_organs_not_cases() -> None:
    nan = float("nan")
    scores = [
        Score("a", "Parotid_L", 0.8, nan),
        Score("b", "Parotid_L", 0.6, nan),
        Score("a", "Pituitary", 0.5, 2.0),
        Score("b", "Parotid_R", nan, nan),
    ]
    table = summary_table(scores)
    assert "| Parotid_L | 2 | 0.700 | 0.600 |" in table
    assert "**0.600**" in table  # (0.7 + 0.5) / 2: an organ counts once, an undefined DSC not at all
    assert "| **small and hard** | | **0.500** | | 2.0 |" in table
