"""A bundle labels a site's CTs, and what it is sure of becomes a partly labelled cohort that `prepare` takes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_bundle import ABSENT, FOUND, patient, write_tiny_bundle

from soars.bundle.card import CARD_SECTIONS
from soars.bundle.store import load_bundle, write_manifest
from soars.dicom.write import write_ct_series
from soars.findings.finding import CHECK, SERIOUS, ExpectedDsc, Finding
from soars.formats import read_seg_nrrd
from soars.report.record import ABSENT as LOOKED_FOR
from soars.report.record import PRESENT, OrganRecord
from soars_training.cli import main
from soars_training.cohorts.cache import CacheIndex
from soars_training.cohorts.distil import Rule


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A composite of two bundles: one gives the brainstem and the eye, the other the cord."""
    home = tmp_path_factory.mktemp("bundles")
    for name in ("first", "second"):
        write_tiny_bundle(home / name)
    folder = home / "both"
    folder.mkdir()
    organs = {"Brainstem": ["first"], ABSENT: ["first"], "SpinalCord": ["second"]}
    sources = {name: str(home / name) for name in ("first", "second")}
    (folder / "composite.yaml").write_text(json.dumps({"version": 1, "sources": sources, "organs": organs}))
    (folder / "card.md").write_text("\n".join(f"# {title}\n`soars --version`\n" for title in CARD_SECTIONS))
    fields = {"name": "both", "version": "3", "description": "d", "licence": "CC0-1.0", "system": "composite"}
    write_manifest(folder, {**fields, "organs": list(organs), "settings": {}})
    return folder


@pytest.fixture
def cts(tmp_path: Path) -> Path:
    """Two patients and a file that is no CT."""
    folder = tmp_path / "cts"
    folder.mkdir()
    image = patient().image
    image.SetMetaData("PatientName", "Someone")
    for name in ("anna", "berta"):
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
    (folder / "broken.nrrd").write_bytes(b"NRRD0004\nno image\n")
    return folder


def distil(cts: Path, cohort: Path, teacher: Path, *more: str) -> int:
    return main(["distil", str(cts), str(cohort), "--bundle", str(teacher), "--device", "cpu", *more])


def rows(cohort: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (cohort / "organs.csv").open(newline="") as file:
        return {(row["case"], row["organ"]): row for row in csv.DictReader(file)}


def test_a_sites_cts_become_a_partly_labelled_cohort(
    cts: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, cache = tmp_path / "cohort", tmp_path / "cache"
    assert distil(cts, cohort, teacher, "--at-least", "0.5") == 0
    assert "4 contours of 2 cases are used" in capsys.readouterr().out
    table = rows(cohort)
    assert table["broken", ""]["used"] == "no" and table["broken", ""]["why_not"]
    assert table["anna", ABSENT]["used"] == "no"
    for organ, source in (("Brainstem", "first 1"), ("SpinalCord", "second 1")):
        row = table["anna", organ]
        assert (row["used"], row["source"]) == ("yes", source) and 0.5 <= float(row["confidence"]) <= 1
    # Each contour is the teacher's own, and says who drew it.
    drawn = read_seg_nrrd(cohort / "teacher" / "anna" / "segmentation.seg.nrrd")
    kept = read_seg_nrrd(cohort / "cases" / "anna" / "structures.seg.nrrd")
    assert set(kept.names) == set(FOUND)
    for organ in FOUND:
        assert np.array_equal(kept.full(organ), drawn.full(organ))
        assert kept.info[organ].tags["SOARS.bundle"] == drawn.info[organ].tags["SOARS.bundle"]
    image = sitk.ReadImage(str(cohort / "cases" / "anna" / "ct.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(patient().image))
    assert "PatientName" not in image.GetMetaDataKeys()
    said = json.loads((cohort / "cases" / "teacher.json").read_text())
    assert [model["bundle"] for model in said["teacher"]["models"]] == ["first", "second"]
    assert said["teacher"]["sha256"] != load_bundle(teacher).sha256 and said["at_least"] == 0.5

    # What the teacher did not draw is unknown to the student, not absent.
    assert main(["prepare", str(cache), "--data", str(cohort / "cases"), "--layout", "folders"]) == 0
    index = CacheIndex.load(cache)
    assert {case.name: set(case.annotated) for case in index.cases} == {
        "anna": set(FOUND),
        "berta": set(FOUND),
    }
    assert index.source.startswith("cohort, contours drawn by the model both 3 (")


def test_two_cts_of_a_patient_stay_one_patients(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A planning CT and a later one must not be learned from and tested on; the Patient ID itself goes nowhere."""
    for name, who in (("early", "MRN4711"), ("late", "MRN4711"), ("other", "MRN4712")):
        write_ct_series(patient().image, tmp_path / "cts" / name, patient_id=who, patient_name="n^n")
    cohort, cache = tmp_path / "cohort", tmp_path / "cache"
    assert distil(tmp_path / "cts", cohort, teacher, "--at-least", "0") == 0
    assert main(["prepare", str(cache), "--data", str(cohort / "cases"), "--layout", "folders"]) == 0
    assert {case.name: case.patient for case in CacheIndex.load(cache).cases} == {
        "early": "early",
        "late": "early",
        "other": "other",
    }
    told = [*(cohort / "cases").glob("*.json"), *(cohort / "cases").rglob("*.nrrd"), cache / "index.json"]
    assert not any(b"MRN47" in path.read_bytes() for path in told)
    (cohort / "cases" / "patients.json").write_text('{"erly": "early"}')
    assert main(["prepare", str(cache), "--data", str(cohort / "cases"), "--layout", "folders"]) == 2
    assert "names erly, and there is no such folder" in capsys.readouterr().err


def test_a_higher_bound_leaves_out_more_and_the_teacher_is_not_asked_again(
    cts: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    assert distil(cts, cohort, teacher, "--at-least", "0") == 0
    confidence = {organ: float(rows(cohort)["anna", organ]["confidence"]) for organ in FOUND}
    low, high = sorted(confidence, key=lambda organ: confidence[organ])
    assert confidence[low] < confidence[high]
    bound = (confidence[low] + confidence[high]) / 2
    capsys.readouterr()
    assert distil(cts, cohort, teacher, "--at-least", str(bound)) == 0
    assert "2 up to date" in capsys.readouterr().out
    assert read_seg_nrrd(cohort / "cases" / "anna" / "structures.seg.nrrd").names == (high,)
    assert f"confidence {confidence[low]:.2f} below" in rows(cohort)["anna", low]["why_not"]


def test_a_cohort_that_cannot_be_made_is_refused(
    cts: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    assert distil(cts, cohort, teacher, "--at-least", "1.5") == 2
    assert "--at-least must be between 0 and 1" in capsys.readouterr().err
    (cohort / "cases" / "charlotte").mkdir(parents=True)
    assert distil(cts, cohort, teacher) == 2
    assert "holds charlotte, which is not among the CTs" in capsys.readouterr().err
    (cohort / "cases" / "charlotte").rmdir()
    assert distil(cts, cohort, teacher, "--at-least", "1") == 2
    assert "no contour of the 3 CTs can be used" in capsys.readouterr().err
    assert not list((cohort / "cases").iterdir())


@pytest.mark.parametrize(
    ("organ", "known_only", "reason"),
    [
        (OrganRecord("Eye_L", "", "", PRESENT, confidence=0.9), False, ""),
        (OrganRecord("Eye_L", "", "", PRESENT, confidence=0.7), False, "confidence 0.70 below 0.8"),
        # A calibrated figure goes before the confidence that it is made of.
        (
            OrganRecord("Eye_L", "", "", PRESENT, confidence=0.9, expected_dsc=ExpectedDsc(0.6, 0.5, 0.7)),
            False,
            "expected DSC 0.60 below 0.8",
        ),
        (
            OrganRecord("Eye_L", "", "", PRESENT, confidence=0.1, expected_dsc=ExpectedDsc(0.85, 0.7, 0.9)),
            False,
            "",
        ),
        (OrganRecord("Eye_L", "", "", PRESENT), False, ""),
        (OrganRecord("Eye_L", "", "", PRESENT), True, "does not say how sure"),
        (OrganRecord("Eye_L", "", "", LOOKED_FOR, reason="too small"), False, "too small"),
        (
            OrganRecord(
                "Eye_L", "", "", PRESENT, confidence=0.9, findings=(Finding("Eye_L", "volume", SERIOUS, "huge", ""),)
            ),
            False,
            "probably wrong: huge",
        ),
        (
            OrganRecord(
                "Eye_L", "", "", PRESENT, confidence=0.9, findings=(Finding("Eye_L", "gap", CHECK, "gap", ""),)
            ),
            False,
            "",
        ),
    ],
)  # fmt: skip
def test_what_is_left_out(organ: OrganRecord, known_only: bool, reason: str) -> None:
    why = Rule(0.8, known_only).why_not(organ)
    assert reason in why and bool(reason) == bool(why)
