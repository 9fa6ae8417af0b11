"""The whole path on a toy: cache, fit, guide, fit guided, export, and the bundle segments through the cascade."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from soars.bundle.store import load_bundle
from soars.ct.images import CtScan
from soars.errors import InputError
from soars.metrics import dice
from soars.networks.architecture import Architecture
from soars.networks.unet import UNet
from soars.run.segment import SegmentOptions, segment
from soars.structures import Geometry, StructureSet
from soars_training.cli import main
from soars_training.cohorts.prepare import SourceCase, write_volume_cache
from soars_training.fitting.models import BranchModel, EndToEnd
from soars_training.fitting.options import FitOptions, FittedRun
from soars_training.fitting.start import start_from
from soars_training.release.evaluate import Score, evaluate_bundle, expectation_summary, summary_table
from soars_training.windows.task import BranchTask

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
        "300",
        "--learning-rate",
        "0.005",
        "--device",
        "cpu",
        "--batch",
        "2",
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
    assert (run.branch, run.anchors) == ("mid_level", ("Brainstem", "SpinalCord"))
    assert run.options["steps"] == 300
    assert json.loads((bundle.parent / "mid" / "run.json").read_text())["cases"] == 6


def test_a_run_goes_on_from_its_own_weights_and_another_branch_from_the_layers_they_share(
    bundle: Path,
) -> None:
    anchor, mid = (FittedRun.load(bundle.parent / name) for name in ("anchor", "mid"))
    trained = anchor.network(bundle.parent / "anchor").state_dict()

    same = UNet(anchor.architecture)
    start_from(same, bundle.parent / "anchor", anchor.task())
    assert all(torch.equal(value, trained[name]) for name, value in same.state_dict().items())

    guided = UNet(mid.architecture)
    head = guided.head.weight.clone()
    start_from(guided, bundle.parent / "anchor", mid.task())
    first, *rest = [name for name in trained if not name.startswith("head.")]
    weights = guided.state_dict()
    assert all(torch.equal(weights[name], trained[name]) for name in rest)
    seen = len(anchor.windows_hu)
    assert torch.equal(weights[first][:, :seen], trained[first])
    assert not weights[first][:, seen:].any()  # what guides it is learned from nothing
    assert torch.equal(guided.head.weight[1:], head[1:])  # other organs
    assert torch.equal(guided.head.weight[0], trained["head.weight"][0])  # the background is the same


def test_one_network_for_all_organs_becomes_two_branches_that_are_tuned_together(
    bundle: Path, tmp_path: Path
) -> None:
    cache, anchor, mid = (str(bundle.parent / name) for name in ("cache", "anchor", "mid"))
    tuned = ["finetune", cache, anchor, mid, str(tmp_path / "both"), "--steps", "60", "--device", "cpu"]
    assert main([*tuned, "--learning-rate", "0.003", "--held-out", "1"]) == 0
    before = FittedRun.load(Path(anchor)).network(Path(anchor)).state_dict()
    after = FittedRun.load(tmp_path / "both" / "anchor")
    assert set(after.validation) == {"Brainstem", "SpinalCord"} and min(after.validation.values()) > 0.7
    changed = after.network(tmp_path / "both" / "anchor").state_dict()
    assert not torch.equal(before["head.weight"], changed["head.weight"])
    argv = ["export", str(tmp_path / "tuned"), str(tmp_path / "both" / "anchor")]
    argv += [str(tmp_path / "both" / "mid_level"), "--description", "Toy organs", "--licence", "CC0-1.0"]
    assert main(argv) == 0
    made = load_bundle(tmp_path / "tuned")
    assert made.organs == ("Brainstem", "SpinalCord", "Larynx", "Esophagus")
    assert "- anchor: 5 cases of toy; brainstem, spinal cord." in made.card
    dsc = after.validation["Brainstem"]
    assert f"| Brainstem | {dsc:.3f} |" in made.card and "CC0-1.0" in made.card


def test_the_mid_level_loss_reaches_the_anchor_network() -> None:
    options = FitOptions(
        BranchTask("anchor", ("Brainstem", "Larynx"), ("ct",)), features=(4, 8), supervised=1
    )
    anchor = BranchModel(options, BranchTask("anchor", ("Brainstem",), ("ct",)))
    mid = BranchModel(options, BranchTask("mid_level", ("Larynx",), ("ct", "anchor"), ("Brainstem",)))
    torch.manual_seed(0)
    ct, labels = torch.randn(1, 1, 8, 8, 8), torch.zeros(1, 2, 8, 8, 8, dtype=torch.uint8)
    labels[:, 1, :4] = 2
    # Nobody annotated the brainstem, and it can be anywhere: the anchor branch's own loss has nothing to say.
    known, possible = torch.tensor([[False, True]]), torch.ones(1, 2, 8, 8, 8, dtype=torch.bool)
    EndToEnd(anchor, mid).loss((ct, labels, known, possible), 0.0).backward()
    first = anchor.network.head.weight.grad
    assert first is not None and first.abs().max() > 1e-6


def test_a_network_of_other_layers_is_no_start(bundle: Path) -> None:
    mid = FittedRun.load(bundle.parent / "mid")
    with pytest.raises(InputError, match="different layers"):
        start_from(UNet(Architecture.plain(4, 3, (8, 24))), bundle.parent / "anchor", mid.task())


def test_export_leaves_nothing_behind_when_the_card_is_incomplete(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "card.md").write_text("# nothing\n")
    argv = ["export", str(tmp_path / "b"), str(bundle.parent / "anchor"), "--card", str(tmp_path / "card.md")]
    assert main([*argv, "--description", "x", "--licence", "x"]) == 2
    assert "Trained on" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["card.md"]


def test_export_can_bring_windows_closer_together(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["export", str(tmp_path / "close"), str(bundle.parent / "anchor"), str(bundle.parent / "mid")]
    argv += ["--description", "x", "--licence", "x", "--stride"]
    assert main([*argv, "0.25"]) == 0
    assert {spec.stride for spec in load_bundle(tmp_path / "close").branches.values()} == {0.25}
    argv[1] = str(tmp_path / "other")
    assert main([*argv, "2"]) == 2
    assert "--stride" in capsys.readouterr().err and not (tmp_path / "other").exists()


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
    assert "| **small and hard** | | **0.500** | | | | 2.0 |" in table


def test_the_table_shows_volumes_and_what_leaking_slices_are_worth() -> None:
    nan = float("nan")
    scores = [
        Score("a", "SpinalCord", 0.8, nan, 0.7, volume_cc=30, reference_volume_cc=20),
        Score("b", "SpinalCord", 0.6, nan, 0.6, volume_cc=18, reference_volume_cc=20),
        Score("c", "SpinalCord", 0.7, nan, 0.2, volume_cc=22, reference_volume_cc=20),
    ]
    assert "| SpinalCord | 3 | 0.700 | 0.600 | 0.500 | 1.10 |  |" in summary_table(scores)


def test_how_well_the_expected_dsc_orders_contours_is_said() -> None:
    expected = [0.4, 0.5, 0.6, 0.7, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9]
    reached = [0.3, 0.45, 0.4, 0.9, 0.7, 0.8, 0.6, 0.65, 0.75, 0.85]
    scores = [
        Score(f"p{i}", "Larynx", d, expected_dsc=e)
        for i, (e, d) in enumerate(zip(expected, reached, strict=True))
    ]
    told = expectation_summary([*scores, Score("absent", "Larynx", 0.0)])
    # Ranks of the reached: 1 3 2 10 6 8 4 5 7 9, so 1 - 6 * (0+1+1+36+1+4+9+9+4+1) / (10 * 99) = 0.6.
    assert told is not None and "10 contours: rank correlation 0.60" in told
    assert "the 20% with the lowest expected DSC hold 2 of the 3 below 0.5" in told
    assert expectation_summary(scores[:2]) is None
    # Five contours share the lowest expectation, and two come first: two fifths of the three poor ones among them.
    same = [replace(score, expected_dsc=0.5) for score in scores[:5]] + scores[5:]
    assert "hold 1.2 of the 3 below" in str(expectation_summary(same))


def test_a_scan_that_leaks_is_scored_without_the_slices_that_leak(bundle: Path) -> None:
    case = _toy(98)
    hu = sitk.GetArrayFromImage(case.ct)
    cord = case.structures.full("SpinalCord")
    last = int(np.flatnonzero(cord.any((1, 2)))[-1])
    beyond = np.zeros(cord.shape, bool)  # the cord goes on where the CT has been masked with it
    beyond[last + 1 : last + 5] = cord[last]
    hu[last + 1 :] = np.where(beyond[last + 1 :], hu[last], -1000)
    structures = StructureSet(case.structures.geometry)
    structures.add("SpinalCord", cord | beyond)
    leaking = replace(
        case,
        ct=case.structures.geometry.place(sitk.GetImageFromArray(hu)),
        structures=structures,
        annotated=frozenset({"SpinalCord"}),
    )
    whole, cut = (evaluate_bundle(str(bundle), [c], engine="torch") for c in (leaking, case))
    (score,) = [s for s in whole if s.organ == "SpinalCord"]
    (tidy,) = [s for s in cut if s.organ == "SpinalCord"]
    assert score.reference_volume_cc == pytest.approx((cord | beyond).sum() * 0.027)
    assert score.dsc_clean != pytest.approx(score.dsc, abs=1e-3)
    assert tidy.dsc_clean == tidy.dsc
