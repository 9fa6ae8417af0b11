"""TotalSegmentator's own package, called by its real signatures, with small models in its real folders."""

from __future__ import annotations

import contextlib
import csv
import inspect
import json
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from tiny_nnunet import write_model

from soars import cli
from soars.bundle.store import load_bundle
from soars.ct.images import CtScan, read_ct
from soars.errors import CancelledError, EngineError
from soars.formats import read_seg_nrrd
from soars.progress import Progress, ignore
from soars.run.segment import SegmentOptions, segment
from soars.systems.nnunet.predictor import Steps
from soars.systems.registry import system_of
from soars.systems.state import state_of
from soars.systems.totalsegmentator import package
from soars.systems.totalsegmentator.settings import Task, parse_tasks

QUIET = Steps("totalsegmentator", "", ignore, lambda: False)
BUNDLE = "totalsegmentator"


def task(name: str) -> Task:
    return next(t for t in parse_tasks(load_bundle(BUNDLE)) if t.name == name)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would leave the machine fails the test."""

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"a request to {arguments}")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests, "post", refuse)


@pytest.fixture
def ct(ct_image: sitk.Image, tmp_path: Path) -> CtScan:
    sitk.WriteImage(ct_image, str(tmp_path / "ct.nii.gz"))
    return read_ct(tmp_path / "ct.nii.gz")


@pytest.fixture
def weights() -> None:
    """Small models where the package looks for its own: 298 finds regions, 297 is "total" at 3 mm, 775 the glands."""
    from totalsegmentator.map_to_binary import class_map

    total = {name: value for value, name in class_map["total"].items()}
    cord = [total["spinal_cord"], total["thyroid_gland"], total["skull"]]
    place_model(298, "total", "nnUNetTrainer_4000epochs_NoMirroring", "3d_fullres", cord)
    place_model(297, "total", "nnUNetTrainer_4000epochs_NoMirroring", "3d_fullres", cord)
    place_model(
        775, "head_glands_cavities", "nnUNetTrainer_DASegOrd0_NoMirroring", "3d_fullres_high", [1, 3, 7, 8]
    )


def place_model(number: int, task_name: str, trainer: str, model: str, favour: list[int]) -> None:
    from totalsegmentator.config import get_weights_dir
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS
    from totalsegmentator.map_to_binary import class_map

    labels: dict[str, int | list[int]] = {name: value for value, name in class_map[task_name].items()}
    home = Path(get_weights_dir()) / TASK_ID_WEIGHTS_CONFIGS[number]["foldername"]
    folder = home / f"{trainer}__nnUNetPlans__{model}"
    write_model(folder, labels, trainer=trainer, configuration=model, favour=favour)


# --- the contract with the installed package ---------------------------------------------------------------------


def test_the_package_has_what_is_called() -> None:
    from totalsegmentator import config, libs, map_tasks_config, nnunet, python_api

    parameters = inspect.signature(python_api.totalsegmentator).parameters
    assert {"input", "output", "ml", "fast", "task", "roi_subset", "device", "quiet"} <= set(parameters)
    assert {"nr_thr_resamp", "nr_thr_saving"} <= set(parameters)
    assert list(inspect.signature(libs.download_pretrained_weights).parameters) == ["task_id"]
    assert next(iter(inspect.signature(config.set_license_number).parameters)) == "license_number"
    for module, names in (
        (
            config,
            ("get_weights_dir", "setup_nnunet", "setup_totalseg", "has_valid_license_offline", "get_version"),
        ),
        (map_tasks_config, ("DEFAULT_CONFIG", "TASK_CONFIGS", "TASK_ID_WEIGHTS_CONFIGS")),
        (nnunet, ("nnUNetPredictor",)),
        (python_api, ("send_usage_stats",)),
    ):
        assert all(hasattr(module, name) for name in names)


def test_every_class_of_the_bundle_is_the_packages() -> None:
    for entry in parse_tasks(load_bundle(BUNDLE)):
        package.check_classes(entry)


def test_the_bundle_agrees_with_the_published_table(shared: Path) -> None:
    table = csv.DictReader((shared / "reference" / "totalsegmentator_classes.csv").open())
    listed = {organ: row["task"] for row in table for organ in row["catalogue"].split("+")}
    ours = {organ: entry.name for entry in parse_tasks(load_bundle(BUNDLE)) for organ in entry.organs}
    assert ours == listed


def test_what_is_said_of_definitions_is_true_of_the_packages_classes() -> None:
    from totalsegmentator.map_to_binary import class_map

    names = {name: set(classes.values()) for name, classes in class_map.items()}
    # One class where the catalogue has two halves, or less than a whole; what is drawn without stands beside it.
    assert {"thyroid_gland", "esophagus", "spinal_cord"} <= names["total"]
    assert not any(one.startswith(("thyroid_gland_", "esophagus_")) for one in names["total"])
    assert {"mandible", "teeth_lower"} <= names["craniofacial_structures"]
    assert {"eye_left", "eye_lens_left"} <= names["head_glands_cavities"]
    assert {"caudate_nucleus", "lentiform_nucleus", "temporal_lobe"} <= names["brain_structures"]
    halves = {one for one in names["brain_structures"] if one.endswith(("_left", "_right"))}
    assert not halves
    bundle = load_bundle(BUNDLE)
    said = {organ for one in parse_tasks(bundle) for organ in one.definitions}
    cut = {
        organ for one in parse_tasks(bundle) for rule in one.rules for organ in rule.organs if rule.organs[1:]
    }
    assert cut <= said, "each half says that it was cut"
    for word in (
        "eyes",
        "spinal cord",
        "oesophagus",
        "thyroid",
        "mandible",
        "constrictors",
        "basal ganglia",
        "temporal",
    ):
        assert word in bundle.card


def test_another_numbering_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from totalsegmentator import map_to_binary

    numbering = {
        **map_to_binary.class_map["head_glands_cavities"],
        7: "parotid_gland_right",
        8: "parotid_gland_left",
    }
    monkeypatch.setitem(map_to_binary.class_map, "head_glands_cavities", numbering)
    with pytest.raises(EngineError, match="'parotid_gland_right' as class 7.*expects 'parotid_gland_left'"):
        package.check_classes(task("head_glands_cavities"))


@pytest.mark.parametrize(
    ("name", "fast", "numbers"),
    [
        # 298 is the rough model that finds the region, see `totalsegmentator` in the package's python_api.
        ("total", True, (297, 298)),
        ("total", False, (291, 292, 293, 294, 295, 298)),
        ("head_glands_cavities", False, (775, 298)),
        ("headneck_muscles", False, (778, 779, 298)),
        ("craniofacial_structures", False, (115, 298)),
        ("brain_structures", False, (409, 298)),
    ],
)
def test_which_models_a_task_reads(name: str, fast: bool, numbers: tuple[int, ...]) -> None:
    assert package.model_numbers(name, fast=fast, subset=True) == numbers


def test_an_image_keeps_its_place_in_nibabel(ct_image: sitk.Image) -> None:
    turned = sitk.DICOMOrient(ct_image, "SRA")
    nifti = package.to_nifti(turned)
    index = (3, 11, 7)
    x, y, z = turned.TransformIndexToPhysicalPoint(index)
    assert nibabel.affines.apply_affine(nifti.affine, index) == pytest.approx([-x, -y, z])
    assert nifti.dataobj[index] == turned[index]


# --- what is needed ----------------------------------------------------------------------------------------------


def test_without_weights_one_sentence_says_what_to_do(ct: CtScan) -> None:
    system = system_of(load_bundle(BUNDLE))
    problem = system.problem(("Parotid_L",))
    assert problem is not None and "soars bundle get totalsegmentator" in problem
    needs = system.needs(("Parotid_L", "SpinalCord"))
    assert [w.name.split()[0] for w in needs.missing_weights] == ["775", "298", "297"]
    assert all(w.url.startswith("https://") and w.licence == "Apache-2.0" for w in needs.missing_weights)
    with pytest.raises(EngineError, match="not on this machine"):
        segment(ct, load_bundle(BUNDLE), SegmentOptions(organs=("Parotid_L",)))


def test_needs_tells_programs_what_is_ready_and_what_would_be_downloaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_a, **_k: pytest.fail("a server was asked"))
    words = ["bundle", "needs", "monday", "--organs", "Parotid_L,Larynx,Eye_L"]
    assert cli.main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ready"] == ["Larynx", "Parotid_L"]  # starter has both
    assert list(said["why_not"]) == ["Eye_L"] and "soars bundle get" in said["why_not"]["Eye_L"]
    assert [weights["name"].split()[0] for weights in said["weights"]] == ["775", "298"]
    assert not any(weights["present"] for weights in said["weights"]) and said["sizes"] == {}
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "2 of 3 organs can be drawn here now" in printed and "MB" not in printed


def test_sizes_are_what_the_servers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: urllib.request.Request, timeout: float) -> Any:
        asked.append((request.get_method(), request.full_url))
        return contextlib.nullcontext(SimpleNamespace(headers={"Content-Length": "234000000"}))

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    state = state_of(system_of(load_bundle(BUNDLE)), ("Eye_L", "Cerebellum"), sizes=True)
    numbers = {name.split()[0]: size for name, size in state.sizes.items()}
    assert numbers == {"775": 234000000, "298": 234000000}, "a licence server says nothing beforehand"
    assert {method for method, _ in asked} == {"HEAD"} and len(asked) == 2


def test_brain_structures_need_a_licence_number() -> None:
    needs = system_of(load_bundle(BUNDLE)).needs(("Brainstem",))
    marked = {w.name.split()[0]: w.needs_number for w in needs.weights}
    assert marked == {"409": True, "298": False}


# --- a run -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_asks_the_package_for_the_tasks_that_are_needed(weights: None, ct: CtScan) -> None:
    steps: list[Progress] = []
    organs = ("Parotid_L", "Parotid_R", "Eye_L", "Glnd_Thyroid_L")
    result = segment(ct, load_bundle(BUNDLE), SegmentOptions(organs=organs, threads=1), steps.append)
    assert set(result.structures.names) | set(result.absent) == set(organs)
    assert result.structures.names  # the models favour these classes
    assert {source.part for source in result.sources.values()} <= {"head_glands_cavities", "total"}
    assert result.engine.reason.endswith("its coarse models (3 mm) for total"), "on a processor"
    assert {step.stage for step in steps} >= {"head_glands_cavities", "total"}
    # The same label map as the package gives when it is called by itself.
    from totalsegmentator.python_api import totalsegmentator

    theirs = totalsegmentator(
        package.to_nifti(ct.image), None, ml=True, task="head_glands_cavities", device="cpu", quiet=True,
        nr_thr_resamp=1, nr_thr_saving=1,
    )  # fmt: skip
    ours = package.run_task(ct.image, task("head_glands_cavities"), [], device="cpu", fast=False, steps=QUIET)
    assert np.array_equal(ours, np.asarray(theirs.dataobj).transpose(2, 1, 0)) and len(np.unique(ours)) > 1


@pytest.mark.slow  # three networks of three systems, from the CT to the report
def test_monday_runs_from_the_ct_to_the_report_without_a_network(
    weights: None, ct_image: sitk.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sitk.WriteImage(ct_image, str(tmp_path / "ct.nrrd"))
    organs = "Parotid_L,Parotid_R,Glnd_Thyroid_L,Glnd_Thyroid_R,Musc_Constrict_S,Larynx"
    words = [
        "segment",
        str(tmp_path / "ct.nrrd"),
        "--bundle",
        "monday",
        "--organs",
        organs,
        "--device",
        "cpu",
    ]
    assert cli.main([*words, "--output", str(tmp_path / "out"), "--progress", "json"]) == 0
    stages = {json.loads(line)["stage"] for line in capsys.readouterr().out.splitlines() if line[:1] == "{"}
    assert {"totalsegmentator/head_glands_cavities", "totalsegmentator/total", "starter/anchor"} <= stages
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    found = {organ["name"]: organ for organ in record["organs"] if organ["state"] == "present"}
    assert {"Glnd_Thyroid_L", "Glnd_Thyroid_R"} <= set(found) and "Parotid_L" in found
    assert found["Parotid_L"]["source"] == "totalsegmentator 2.18 (head_glands_cavities)"
    assert found["Glnd_Thyroid_L"]["source"] == "totalsegmentator 2.18 (total)"
    assert "cut at the patient's middle" in found["Glnd_Thyroid_L"]["definition"]
    drawn = read_seg_nrrd(tmp_path / "out" / "segmentation.seg.nrrd")
    left, right = (drawn.centre_of_mass(f"Glnd_Thyroid_{side}") for side in "LR")
    assert left[0] > right[0], "x grows to the patient's left"
    # The weights of this task are not there: a sentence, and the rest is drawn.
    absent = {organ["name"]: organ["reason"] for organ in record["organs"] if organ["state"] == "absent"}
    assert "soars bundle get totalsegmentator" in absent["Musc_Constrict_S"]
    assert sum("soars bundle get" in warning for warning in record["warnings"]) == 1
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Drawn by totalsegmentator 2.18 (total)." in report and "cut at the patient" in report
    assert [model["bundle"] for model in record["bundle"]["models"]] == ["totalsegmentator", "starter"]


def test_a_cancel_stops_the_package(weights: None, ct: CtScan) -> None:
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.raises(CancelledError):
        segment(ct, load_bundle(BUNDLE), SegmentOptions(organs=("Parotid_L",), cancel=cancel))


def test_what_would_end_the_program_is_an_error(
    weights: None, ct: CtScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totalsegmentator import python_api

    def leave(*_: Any, **__: Any) -> None:
        print("ERROR: Invalid license number.")
        raise SystemExit(1)

    monkeypatch.setattr(python_api, "totalsegmentator", leave)
    with pytest.raises(EngineError, match=r"refused \(head_glands_cavities\): ERROR: Invalid license number"):
        segment(ct, load_bundle(BUNDLE), SegmentOptions(organs=("Parotid_L",)))
