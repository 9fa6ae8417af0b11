"""nnU-Net gets the same patients, and its predictions are scored as ours are; its own commands are a stand-in here."""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.errors import InputError
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.cohorts.regions import UsualRegions
from soars_training.experiments.cost import Cost
from soars_training.experiments.nnunet import commands
from soars_training.experiments.nnunet.baseline import training_labels, write_raw
from soars_training.experiments.nnunet.commands import NnUNet
from soars_training.experiments.scores import OrganRow, read_rows, write_rows

ORGANS = ("Brainstem", "Larynx")
STAND_IN = '''#!{python}
"""As strict as the real commands about their words; what it predicts is every organ one voxel to the left."""
import json, os, sys
from pathlib import Path
import numpy as np
import SimpleITK as sitk

name, words = Path(sys.argv[0]).name, sys.argv[1:]
raw = Path(os.environ["nnUNet_raw"]) / "Dataset001_Cohort"
description = json.loads((raw / "dataset.json").read_text())
if name == "nnUNetv2_plan_and_preprocess":
    assert words[:4] == ["-d", "1", "-c", "3d_fullres"], words
    assert len(list((raw / "imagesTr").iterdir())) == description["numTraining"] == 4
elif name == "nnUNetv2_train":
    assert words[:5] == ["1", "3d_fullres", "all", "-tr", "BudgetTrainer"], words
    assert (Path(os.environ["nnUNet_extTrainer"]) / "budget_trainer.py").is_file()
    assert os.environ["SOARS_NNUNET_STEPS"] == "24"
    fold = Path(os.environ["nnUNet_results"]) / "Dataset001_Cohort" / "BudgetTrainer__nnUNetPlans__3d_fullres/fold_all"
    fold.mkdir(parents=True)
    if os.environ["SOARS_NNUNET_SEED"] == "9":
        print("CUDA out of memory")
        sys.exit(3)
    (fold / "checkpoint_final.pth").touch()
else:
    assert name == "nnUNetv2_predict" and words[words.index("-f") + 1] == "all", words
    out = Path(words[words.index("-o") + 1])
    out.mkdir()
    for path in Path(words[words.index("-i") + 1]).iterdir():
        image = sitk.ReadImage(str(path))
        hu = sitk.GetArrayFromImage(image)
        labels = np.select([hu == 900, hu == 300], [1, 2]).astype(np.uint8)
        moved = sitk.GetImageFromArray(np.roll(labels, 1, axis=2))
        moved.CopyInformation(image)
        sitk.WriteImage(moved, str(out / path.name.replace("_0000", "")))
'''


def _case(name: str, annotated: tuple[str, ...]) -> CachedCase:
    hu = np.zeros((12, 12, 12), np.int16)
    masks = {}
    for organ, (start, value) in {"Brainstem": ((3, 3, 1), 900), "Larynx": ((3, 3, 6), 300)}.items():
        hu[tuple(slice(s, s + 4) for s in start)] = value
        if organ in annotated:
            masks[organ] = (start, np.ones((4, 4, 4), bool))
    return CachedCase(name, hu, (10.0, -20.0, 5.0), (3.0, 3.0, 3.0), masks, frozenset(annotated))


@pytest.fixture
def ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ablation that has scored one setting, and nnU-Net's commands."""
    out = tmp_path / "ablation"
    for folder in ("cache", "scores", "centres"):
        (out / folder).mkdir(parents=True)
    entries = []
    for n in range(6):
        annotated = ORGANS if n else ("Brainstem",)
        write_case(out / f"p{n}.npz", _case(f"p{n}", annotated))
        split = "train" if n < 4 else "test"
        entries.append(IndexEntry(f"p{n}", str(out / f"p{n}.npz"), split, annotated))
    CacheIndex((3.0, 3.0, 3.0), "boxes", entries).save(out / "cache")
    recipe = {
        "organs": ORGANS,
        "steps": 24,
        "search_steps": 4,
        "batch": 1,
        "features": [4],
        "patch": [8, 8, 8],
    }
    recipe |= {"test": ["p4", "p5"], "source": "boxes"}
    (out / "ablation.json").write_text(json.dumps(recipe))
    row = OrganRow("all_in_one", 1, "anchor", "p4", "Brainstem", 0.5, 6.0, 2.0)
    write_rows([row], OrganRow, out / "scores" / "all_in_one.1.csv")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict"):
        program = programs / name
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(commands, "command_path", lambda name: programs / name)
    monkeypatch.setattr(
        "soars_training.experiments.nnunet.baseline.command_path", lambda name: programs / name
    )
    return out


def test_nnunet_stands_in_the_tables_and_nothing_is_done_twice(
    ablation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["baseline", str(ablation), "--seeds", "1", "--device", "cpu"]
    assert main(argv) == 0
    rows = read_rows(ablation / "scores" / "nnunet.1.csv", OrganRow)
    # Four columns of voxels, found one to the left: three of four overlap.
    assert [(r.case, r.organ, r.dsc) for r in rows] == [
        (case, organ, pytest.approx(0.75)) for case in ("p4", "p5") for organ in ORGANS
    ]
    text = capsys.readouterr().out
    assert "| `all_in_one` | 50.0 |" in text and "| `nnunet` | 75.0 | 75.0 | 75.0 |" in text
    # Its own programs took some time and memory, and learned within the budget.
    cost = Cost.load(ablation / "costs" / "nnunet.1.json")
    assert (cost.patients, cost.steps) == (2, 24) and cost.memory_mb > 10 and cost.training_s > 0
    assert re.search(r"\| nnunet \|  \| 24 \| [01]\.\d \|", text) and "| `nnunet` | cpu |" in text
    assert len(list((ablation / "drawn" / "nnunet").iterdir())) == 2
    before = (ablation / "nnunet" / "nnUNetv2_train.log").stat().st_mtime_ns
    (ablation / "scores" / "nnunet.1.csv").unlink()
    assert main(argv) == 0
    assert (ablation / "nnunet" / "nnUNetv2_train.log").stat().st_mtime_ns == before
    assert read_rows(ablation / "scores" / "nnunet.1.csv", OrganRow) == rows
    assert main(["compare", str(ablation)]) == 0
    assert "`nnunet`" in capsys.readouterr().out


def test_a_command_that_fails_is_quoted(ablation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", str(ablation), "--seeds", "1", "--seed", "9", "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "nnUNetv2_train failed (exit code 3)" in message and "CUDA out of memory" in message


def test_without_an_ablation_or_nnunet_it_says_so(
    ablation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["baseline", str(tmp_path)]) == 2
    assert "no ablation was begun here" in capsys.readouterr().err
    assert main(["compare", str(tmp_path)]) == 2
    assert "no ablation has scored anything here yet" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match=r"nnUNetv2_train is missing\): pip install"):
        commands.command_path("nnUNetv2_train")


def test_an_organ_that_nobody_drew_is_ignored_where_it_may_be_and_no_background(tmp_path: Path) -> None:
    whole = [_case(f"w{n}", ORGANS) for n in range(5)]
    partly = _case("p", ("Brainstem",))
    labels = training_labels(partly, ORGANS, UsualRegions.learn([*whole, partly]))
    truth = _case("t", ORGANS).label_map(ORGANS)
    assert (labels[truth == 1] == 1).all() and (labels[truth == 2] == 3).all()
    anywhere = training_labels(partly, ORGANS, UsualRegions({}))
    assert set(np.unique(anywhere)) == {1, 3}
    assert set(np.unique(training_labels(whole[0], ORGANS, UsualRegions({})))) == {0, 1, 2}


def test_the_raw_data_set_is_nnunets(ablation: Path, tmp_path: Path) -> None:
    index = CacheIndex.load(ablation / "cache")
    raw = tmp_path / "raw"
    write_raw(raw, index.of_split("train"), index.of_split("test"), ORGANS, "boxes")
    description = json.loads((raw / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "Brainstem": 1, "Larynx": 2, "ignore": 3}
    assert description["file_ending"] == ".nii.gz" and description["channel_names"] == {"0": "CT"}
    assert sorted(p.name for p in (raw / "imagesTs").iterdir()) == ["p4_0000.nii.gz", "p5_0000.nii.gz"]
    image = sitk.ReadImage(str(raw / "imagesTr" / "p1_0000.nii.gz"))
    np.testing.assert_allclose(image.GetOrigin(), (10, -20, 5), atol=1e-5)
    assert sitk.GetArrayFromImage(image).max() == 900


def test_the_planner_gets_the_memory_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(NnUNet, "_run", lambda self, command, words, *more: said.append([command, *words]))
    tool = NnUNet(tmp_path, 1, "Cohort", "cpu", 0.5)
    tool.plan()
    tool.plan()
    assert [words[-2:] for words in said] == [["-gpu_memory_target", "0.5"]]


def test_a_training_goes_on_where_more_steps_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []

    def run(self: NnUNet, command: str, words: list[str], seed: int = 0, steps: int = 1) -> commands.Used:
        said.append([command, *words])
        if command == "nnUNetv2_train":
            fold = self.model(seed) / "fold_all"
            fold.mkdir(parents=True, exist_ok=True)
            (fold / "checkpoint_final.pth").touch()
            (fold / "learned.json").write_text(json.dumps({"parameters": 7, "steps": steps}))
        return commands.Used(10.0, 1.0)

    monkeypatch.setattr(NnUNet, "_run", run)
    tool = NnUNet(tmp_path, 1, "Cohort", "cpu")
    for steps, trainings, went_on in ((30, 1, False), (30, 1, False), (20, 1, False), (40, 2, True)):
        tool.train(steps, 1)
        tool.predict(tmp_path, 1)
        assert sum(words[0] == "nnUNetv2_train" for words in said) == trainings
        assert (said[-2][-1] == "--c") == went_on
        assert said[-1][0] == "nnUNetv2_predict" and len(said) == 2 * trainings
        assert tool.trained(1)[0].seconds == 10.0 * trainings
    (tool.model(1) / "fold_all" / "learned.json").write_text('{"parameters": 7}')
    tool.train(50, 1)  # an earlier version did not say how many steps it had
    assert len(said) == 4


def test_options_of_one_system_are_refused_for_another(
    ablation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--system", "uanet", "--bundle", "mine"]
    assert main(["baseline", str(ablation), "--device", "cpu", *words]) == 2
    assert "--bundle and --memory-gb are nnU-Net's" in capsys.readouterr().err


def test_two_presets_of_nnunet_are_not_one_row_of_the_tables(
    ablation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["baseline", str(ablation), "--device", "cpu"]
    assert main([*argv, "--seeds", "1"]) == 0
    assert main([*argv, "--seeds", "2", "--preset", "laptop"]) == 2
    assert "nnU-Net was trained here with the preset paper" in capsys.readouterr().err


def test_a_narrow_network_is_the_planned_one_with_fewer_channels(tmp_path: Path) -> None:
    """What differs is what nnU-Net's own guide to plans files has in a configuration that inherits from another."""
    path = tmp_path / "nnUNetPlans.json"
    kernels = {"features_per_stage": [32, 64, 320], "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]}
    planned = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "patch_size": [40, 48, 64],
        "architecture": {"network_class_name": "x.PlainConvUNet", "arch_kwargs": kernels},
    }
    path.write_text(json.dumps({"configurations": {"3d_fullres": planned}}))
    for _ in range(2):
        commands.add_narrow(path, "3d_narrow", 16)
        found = json.loads(path.read_text())["configurations"]
        assert found["3d_fullres"] == planned
        assert found["3d_narrow"] == {
            "inherits_from": "3d_fullres",
            "architecture": {
                "network_class_name": "x.PlainConvUNet",
                "arch_kwargs": kernels | {"features_per_stage": [16, 32, 160]},
            },
        }


def test_uanet_stands_in_the_tables(ablation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["baseline", str(ablation), "--system", "uanet", "--seeds", "1", "--device", "cpu"]
    recipe = json.loads((ablation / "ablation.json").read_text())
    (ablation / "ablation.json").write_text(json.dumps(recipe | {"steps": 2}))
    assert main(command) == 0
    rows = read_rows(ablation / "scores" / "uanet.1.csv", OrganRow)
    assert [(r.setting, r.case, r.organ) for r in rows] == [
        ("uanet", case, organ) for case in ("p4", "p5") for organ in ORGANS
    ]
    text = capsys.readouterr().out
    assert "`uanet`" in text and re.search(r"\| uanet \| 1,[\d,]+ \| 2 \|", text)
