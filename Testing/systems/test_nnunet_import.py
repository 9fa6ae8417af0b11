"""An nnU-Net model folder becomes a bundle: the right organs, no code in it, and a sentence for what cannot be used."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_nnunet import write_model

from soars.bundle.store import load_bundle
from soars.errors import BundleError
from soars.systems.nnunet.importing import ImportOptions, import_model
from soars.systems.nnunet.labels import by_name, by_table, table_text
from soars.systems.nnunet.model_folder import read_model_folder


def changed(model: Path, target: Path, file: str, change: dict[str, Any]) -> Path:
    """A copy of the model with some keys of one of its JSON files changed."""
    import shutil

    shutil.copytree(model, target)
    data = json.loads((target / file).read_text())
    data.update(change)
    (target / file).write_text(json.dumps(data))
    return target


def test_labels_become_organs_by_their_names(model: Path) -> None:
    proposed = by_name(read_model_folder(model).labels)
    assert [(rule.label, rule.values, rule.organs) for rule in proposed.rules] == [
        ("Brainstem", (1,), ("Brainstem",)),
        ("mandible", (2,), ("Bone_Mandible_L", "Bone_Mandible_R")),
        ("parotid_left", (3,), ("Parotid_L",)),
    ]
    assert list(proposed.left_out) == ["tumour"]


def test_the_written_table_says_the_same_and_can_be_corrected(model: Path, tmp_path: Path) -> None:
    labels = read_model_folder(model).labels
    table = tmp_path / "map.csv"
    table.write_text(table_text(by_name(labels)))
    assert by_table(labels, table).rules == by_name(labels).rules
    rows = {row["label"]: row["organ"] for row in csv.DictReader(table.open())}
    assert rows == {
        "Brainstem": "Brainstem",
        "mandible": "Bone_Mandible_L+Bone_Mandible_R",
        "parotid_left": "Parotid_L",
        "tumour": "",
    }
    table.write_text("label,organ\nBrainstem,\nmandible,lower jaw\nparotid_left,Parotid R\ntumour,\n")
    organs = [rule.organs for rule in by_table(labels, table).rules]
    assert organs == [("Bone_Mandible_L", "Bone_Mandible_R"), ("Parotid_R",)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("organ,label\n", "the first line must be"),
        ("label,organ\nBrainstem,Brainstem\n", "no line for the label 'mandible'"),
        ("label,organ\nBrainstem,\nmandible,\nparotid_left,\ntumour,\nliver,\n", "has no label 'liver'"),
        ("label,organ\nBrainstem,Liver\nmandible,\nparotid_left,\ntumour,\n", "line 2: unknown organ"),
        ("label,organ\nBrainstem,Eye_R+Eye_L\nmandible,\nparotid_left,\ntumour,\n", "left and a right half"),
        (
            "label,organ\nBrainstem,\nBrainstem,\nmandible,\nparotid_left,\ntumour,\n",
            "line 3: 'Brainstem' occurs",
        ),
        ("label,organ\nBrainstem,Eye_L\nmandible,Eye_L\nparotid_left,\ntumour,\n", "both mean Eye_L"),
        ("label,organ\nBrainstem,\nmandible,\nparotid_left,\ntumour,\n", "no label is an organ"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(model: Path, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(BundleError, match=reason):
        by_table(read_model_folder(model).labels, tmp_path / "map.csv")


def test_the_bundle_holds_weights_and_no_pickle(model: Path, tmp_path: Path) -> None:
    folder = read_model_folder(model)
    bundle = import_model(folder, by_name(folder.labels), ImportOptions("tiny", licence="CC-BY-4.0"))
    assert bundle.organs == ("Brainstem", "Bone_Mandible_L", "Bone_Mandible_R", "Parotid_L")
    assert set(bundle.files) == {
        "plans.json",
        "dataset.json",
        "card.md",
        "fold_0.safetensors",
        "fold_1.safetensors",
    }
    assert load_bundle("tiny").sha256 == bundle.sha256
    assert (bundle.system, bundle.licence) == ("nnunet", "CC-BY-4.0")
    for name in bundle.files:
        data = (bundle.folder / name).read_bytes()
        if name.endswith(".safetensors"):
            length = int.from_bytes(data[:8], "little")
            assert "dtype" in json.dumps(json.loads(data[8 : 8 + length]))
        else:
            data.decode("utf-8")  # plain text


class Harm:
    """Unpickling this makes a file, as an attacker's would do worse."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def test_a_checkpoint_that_could_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    home = write_model(tmp_path / "model", {"Brainstem": 1})
    path = home / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    torch.save({**checkpoint, "my_hooks": Harm(str(tmp_path / "harm"))}, path)
    folder = read_model_folder(home)
    with pytest.raises(BundleError, match=r"could run code.*--trust-checkpoint"):
        import_model(folder, by_name(folder.labels), ImportOptions("harmful"))
    assert not (tmp_path / "harm").exists()
    # Whoever says that they trust it gets what they asked for, and a bundle without the pickle.
    bundle = import_model(folder, by_name(folder.labels), ImportOptions("trusted", trust=True))
    assert (tmp_path / "harm").is_dir() and "fold_0.safetensors" in bundle.files


def test_folds_may_be_chosen_and_missing_ones_are_named(model: Path) -> None:
    assert list(read_model_folder(model).checkpoints) == ["0", "1"]
    assert list(read_model_folder(model, ["1"]).checkpoints) == ["1"]
    assert list(read_model_folder(model.parent).checkpoints) == ["0", "1"]  # the data set's folder will do
    with pytest.raises(BundleError, match=r"no fold 4; there are: 0, 1"):
        read_model_folder(model, ["0", "4"])


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("dataset.json", {"channel_names": {"0": "CT", "1": "T1"}}, "needs 2 images"),
        ("dataset.json", {"channel_names": {"0": "T1"}}, "not CT"),
        ("dataset.json", {"channel_names": {}}, "not nnU-Net v2's dataset.json"),
        ("dataset.json", {"labels": {"a": "1"}}, "labels must give"),
        ("dataset.json", {"labels": ["a"]}, "labels must give"),
        ("plans.json", {"configurations": []}, "not the plans of an nnU-Net v2"),
        ("plans.json", {"image_reader_writer": "NaturalImage2DIO"}, "not for CT volumes"),
    ],
)
def test_models_that_cannot_be_run_are_refused(
    model: Path, tmp_path: Path, file: str, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        read_model_folder(changed(model, tmp_path / "model", file, change))


def test_damaged_files_are_named(model: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(BundleError, match="there is no such folder"):
        read_model_folder(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"no plans\.json in it"):
        read_model_folder(tmp_path)
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    path = copy / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:500])
    folder = read_model_folder(copy)
    with pytest.raises(BundleError, match=r"checkpoint_final\.pth: cannot be read as a checkpoint"):
        import_model(folder, by_name(folder.labels), ImportOptions("damaged"))
    (copy / "dataset.json").write_text("{")
    with pytest.raises(BundleError, match=r"dataset\.json: not valid JSON"):
        read_model_folder(copy)


def test_a_second_stage_of_a_cascade_is_refused(tmp_path: Path) -> None:
    home = write_model(tmp_path / "model", {"Brainstem": 1}, configuration="3d_cascade_fullres")
    plans = json.loads((home / "plans.json").read_text())
    plans["configurations"]["3d_cascade_fullres"]["previous_stage"] = "3d_lowres"
    (home / "plans.json").write_text(json.dumps(plans))
    folder = read_model_folder(home)
    with pytest.raises(BundleError, match="refines the result of '3d_lowres'"):
        import_model(folder, by_name(folder.labels), ImportOptions("cascade"))


def test_folds_that_were_trained_otherwise_are_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    path = copy / "fold_1" / "checkpoint_final.pth"
    torch.save({**torch.load(path, weights_only=False), "trainer_name": "nnUNetTrainerNoMirroring"}, path)
    folder = read_model_folder(copy)
    with pytest.raises(BundleError, match="was trained differently from the other folds"):
        import_model(folder, by_name(folder.labels), ImportOptions("mixed"))
