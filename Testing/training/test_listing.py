"""Training through the same doors as the command line: lists, patients, frames of reference, ROIs that nobody drew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from soars.ct.series import read_series
from soars.dicom.rtstruct import write_rtstruct
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.structures import Geometry, StructureSet
from soars_training.cli import main
from soars_training.cohorts.cache import CacheIndex, read_case
from soars_training.cohorts.listing import read_listing
from soars_training.cohorts.prepare import listed_cases, write_volume_cache
from soars_training.cohorts.splits import hold_out, one_fold

GRID = Geometry((40, 36, 20), (3.0, 3.0, 3.0), (-60.0, -54.0, 0.0))


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """A block of tissue in air, as DICOM."""
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[:, 4:32, 4:36] = 40
    write_ct_series(
        GRID.place(sitk.GetImageFromArray(hu)), tmp_path / "ct", patient_id="p", patient_name="n^n"
    )
    return tmp_path / "ct"


def structures(ct: Path, path: Path, *names: str, empty: tuple[str, ...] = ()) -> Path:
    """An RTSTRUCT on the CT: boxes of growing size, and ROIs that nobody drew."""
    image, series, _ = read_series(ct)
    organs = StructureSet(Geometry.of(image))
    for size, name in enumerate(names, start=4):
        organs.add_crop(name, (4, 10, 10), np.ones((size, 6, 6), bool))
    for name in empty:
        organs.add(name, np.zeros(GRID.shape, bool))
    write_rtstruct(organs, path, series)
    return path


def listing(folder: Path, *entries: Any) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps({"cases": list(entries)}))
    return path


def case(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "ct": "ct", "structures": "organs.dcm", **changes}


def edit(path: Path, **values: Any) -> None:
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(path)


def test_another_patient_or_frame_of_reference_is_refused(
    ct: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    structures(ct, tmp_path / "organs.dcm", "Brainstem")
    structures(ct, tmp_path / "patient.dcm", "Brainstem")
    edit(tmp_path / "patient.dcm", PatientID="somebody else")
    structures(ct, tmp_path / "frame.dcm", "Brainstem")
    data = pydicom.dcmread(tmp_path / "frame.dcm")
    for item in (*data.StructureSetROISequence, *data.ReferencedFrameOfReferenceSequence):
        for keyword in ("ReferencedFrameOfReferenceUID", "FrameOfReferenceUID"):
            if keyword in item:
                setattr(item, keyword, "1.2.3.4")
    data.FrameOfReferenceUID = "1.2.3.4"
    data.save_as(tmp_path / "frame.dcm")
    for name, reason in (("patient", "another patient"), ("frame", "belongs to another CT")):
        bad = case(name=name, structures=f"{name}.dcm")
        with pytest.raises(InputError, match="none of its cases can be used"):
            list(listed_cases(listing(tmp_path, bad)))
        assert reason in caplog.text
        # among good ones it costs itself
        found = list(listed_cases(listing(tmp_path, case(), bad, case(name="c"))))
        assert [c.name for c in found] == ["a", "c"]
        assert f"entry 2 ({name}): left out" in caplog.text and "1 of 3 cases were left out" in caplog.text


def test_what_nobody_drew_is_not_annotated_unless_the_list_says_so(
    ct: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    structures(ct, tmp_path / "organs.dcm", "Brainstem", empty=("Parotid_R", "Lens_L"))
    (found,) = listed_cases(listing(tmp_path, case()))
    assert found.annotated == {"Brainstem"} and found.structures.names == ("Brainstem",)
    assert "not annotated, since nobody drew them: Parotid_R, Lens_L" in caplog.text
    (found,) = listed_cases(listing(tmp_path, case(annotated=["Brainstem", "right parotid"])))
    assert found.annotated == {"Brainstem", "Parotid_R"} and found.structures.is_empty("Parotid_R")
    assert "listed as annotated, but without a voxel: Parotid_R" in caplog.text


def test_two_rois_for_one_organ_never_replace_each_other(
    ct: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    structures(ct, tmp_path / "organs.dcm", "Parotid_L", "Left Parotid")
    (found,) = listed_cases(listing(tmp_path, case()))
    assert found.structures.names == ("Parotid_L",) and found.structures.voxels("Parotid_L") == 4 * 36
    assert "left out, since Parotid_L is there: 'Left Parotid'" in caplog.text
    structures(ct, tmp_path / "organs.dcm", "Left Parotid", "parotid left", "Brainstem")
    with pytest.raises(InputError, match="none of its cases"):
        list(listed_cases(listing(tmp_path, case())))
    assert "'Left Parotid' and 'parotid left' are both Parotid_L" in caplog.text


def test_in_a_list_too_parts_make_an_organ_and_a_mandible_has_halves(ct: Path, tmp_path: Path) -> None:
    """A box of six columns: the three of greater x are the patient's left half."""
    structures(ct, tmp_path / "organs.dcm", "Mandible", "Eye_AL", "Eye_PL", "Eye_AR")
    drawn = {"Bone_Mandible", "Eye_AL", "Eye_PL", "Eye_AR"}
    (found,) = listed_cases(listing(tmp_path, case()))
    assert found.annotated == drawn | {"Bone_Mandible_L", "Bone_Mandible_R", "Eye_L"}
    left, right = (found.structures.full(f"Bone_Mandible_{side}") for side in "LR")
    assert left[..., 13:16].sum() == left.sum() == right[..., 10:13].sum() == right.sum() == 4 * 6 * 3
    assert found.structures.voxels("Eye_L") == 6 * 36  # the longer of two boxes that begin together
    (found,) = listed_cases(listing(tmp_path, case(annotated=["Mandible", "Eye_AL"])))
    assert found.annotated == {"Bone_Mandible", "Eye_AL", "Bone_Mandible_L", "Bone_Mandible_R"}
    (found,) = listed_cases(listing(tmp_path, case(sparse=["Mandible", "Eye_PL"])))
    assert found.annotated == drawn


def test_a_list_of_several_splits_is_not_evaluated_as_one(
    ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that a model has learned from would flatter it."""
    other = tmp_path / "other"
    shutil.copytree(ct, other)
    structures(ct, tmp_path / "organs.dcm", "Brainstem")
    path = listing(tmp_path, case(patient="a"), case(name="b", ct="other", split="test", patient="b"))
    assert main(["evaluate", "starter", "--list", str(path)]) == 2
    assert "has the splits test, train; say by --split which to evaluate" in capsys.readouterr().err
    assert [found.name for found in listed_cases(path, "test")] == ["b"]
    with pytest.raises(InputError, match="no cases of the split tets; its splits are test, train"):
        listed_cases(path, "tets")


def test_targets_and_helpers_are_left_out_with_one_line(
    ct: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    structures(ct, tmp_path / "organs.dcm", "Brainstem", "GTVp", "zRing_5mm", "PTV 70")
    (found,) = listed_cases(listing(tmp_path, case()))
    assert found.annotated == {"Brainstem"}
    lines = [record.getMessage() for record in caplog.records if "GTVp" in record.getMessage()]
    assert lines == ["a: left out, no organs of the catalogue: GTVp, zRing_5mm, PTV 70"]
    structures(ct, tmp_path / "organs.dcm", "GTVp")
    with pytest.raises(InputError, match="none of its cases"):
        list(listed_cases(listing(tmp_path, case())))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"ct": "ct", "structures": "organs.dcm"}, "entry 2: has no name"),
        ({"name": "b"}, "entry 2: has no ct, structures"),
        (case(name="siteA/a"), "entry 2: the name 'siteA/a' cannot be the name of a file"),
        (case(name="..\\up"), "cannot be the name of a file"),
        (case(name="b\n"), "cannot be the name of a file"),
        (case(name="nul"), "reserved on Windows"),
        (case(name="COM1.x"), "reserved on Windows"),
        (case(name="ä" * 100), "longer than 120 bytes"),
        (case(name=7), "name is 7, not a text"),
        (case(name="A"), "the name 'A' is that of entry 1 as well"),
        (case(name="a", split="validation"), "the name 'a' is that of entry 1 as well"),
        (case(name="b", ct="not_there"), "entry 2 \\(b\\): ct: there is no file or folder"),
        (case(name="b", structures="not.dcm"), "structures: there is no file or folder"),
        (case(name="b", anotated=["Brainstem"]), "has anotated, which is not known"),
        (case(name="b", annotated=["Brainstemm"]), "entry 2: annotated: unknown organ"),
        (case(name="b", annotated="Brainstem"), "annotated is not a list"),
        (case(name="b", sparse={"Brainstem": 1}), "sparse is not a list"),
        (case(name="b", patient=7), "patient is 7, not a text"),
        (case(name="b", patient=" "), "patient is ' ', not a text"),
        (case(name="b", sparse=["Brainstemm"]), "entry 2: sparse: unknown organ"),
        ("ct", "entry 2: is no case"),
    ],
)
def test_the_list_is_checked_whole_before_the_work(ct: Path, tmp_path: Path, entry: Any, reason: str) -> None:
    structures(ct, tmp_path / "organs.dcm", "Brainstem")
    with pytest.raises(InputError, match=reason):
        listed_cases(listing(tmp_path, case(), entry))


def test_a_ct_in_two_splits_is_refused(ct: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under another name and another path; two observers of one CT in one split are of one patient."""
    structures(ct, tmp_path / "organs.dcm", "Brainstem")
    (tmp_path / "same").symlink_to(ct)
    for split in ("train", "validation"):
        entries = (case(name="a"), case(name="b", ct="same", split=split))
        path = listing(tmp_path, *entries)
        if split == "train":
            assert [found.patient for found in read_listing(path)] == ["a", "a"]
            assert (
                "of one patient by their CT or Patient ID" in caplog.text and "ablate: a and b" in caplog.text
            )
            continue
        with pytest.raises(
            InputError, match=r"entry 2 \(b\): its CT is that of entry 1 \(a\).*another split"
        ):
            read_listing(path)


def scans(folder: Path, **patient_ids: str) -> list[dict[str, Any]]:
    """Entries of as many CTs, each another series, with their Patient IDs."""
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[:, 4:32, 4:36] = 40
    image = GRID.place(sitk.GetImageFromArray(hu))
    entries = []
    for name, patient_id in patient_ids.items():
        write_ct_series(image, folder / name, patient_id=patient_id, patient_name="n", seed=name)
        structures(folder / name, folder / f"{name}.dcm", "Brainstem")
        entries.append(case(name=name, ct=name, structures=f"{name}.dcm"))
    return entries


def test_a_patient_under_two_names_is_one_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The planning CT and the next one of patient SECRET-77 fall on one side of any split; the cache, and what is
    printed, do not hold the Patient ID."""
    entries = scans(tmp_path, first="SECRET-77", other="SECRET-78", again="SECRET-77")
    assert (
        main(
            ["prepare", str(tmp_path / "cache"), "--list", str(listing(tmp_path, *entries)), "--spacing", "6"]
        )
        == 0
    )
    index = CacheIndex.load(tmp_path / "cache")
    assert {e.name: e.patient for e in index.cases} == {"first": "first", "other": "other", "again": "first"}
    for learn, held in (hold_out(index.cases, 1), one_fold(index.cases, 1, 2), one_fold(index.cases, 2, 2)):
        assert {frozenset(e.name for e in part) for part in (learn, held)} == {
            frozenset({"first", "again"}),
            frozenset({"other"}),
        }
    written = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert b"SECRET" not in written and "SECRET" not in caplog.text + "".join(capsys.readouterr())
    assert "first and again" in caplog.text
    entries[2]["split"] = "validation"
    with pytest.raises(
        InputError, match=r"entry 3 \(again\): is of the same patient as entry 1 \(first\).*another split"
    ):
        read_listing(listing(tmp_path, *entries))


def test_the_list_knows_better_than_the_patient_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = scans(tmp_path, a="removed", b="removed", c="removed")
    named = [found.patient for found in read_listing(listing(tmp_path, *entries))]
    assert named == ["a", "b", "c"] and "all 3 CTs have the same Patient ID" in caplog.text
    caplog.clear()
    for entry, patient in zip(entries, ("Anna", "Berta", "anna"), strict=True):
        entry["patient"] = patient
    entries[1]["split"] = "validation"
    assert [found.patient for found in read_listing(listing(tmp_path, *entries))] == ["Anna", "Berta", "Anna"]
    assert not caplog.text
    entries[1]["patient"], entries[2]["patient"] = "a", "c"
    del entries[0]["patient"]  # b is of the patient of the case a
    with pytest.raises(InputError, match=r"entry 2 \(b\): is of the same patient as entry 1 \(a\)"):
        read_listing(listing(tmp_path, *entries))
    two = [entries[0] | {"patient": "x"}, entries[0] | {"name": "d", "patient": "y"}]
    with pytest.raises(
        InputError, match=r"entry 2 \(d\): its CT is that of entry 1 \(a\), which is of another patient"
    ):
        read_listing(listing(tmp_path, *two))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cases": {}}', '{"cases": []}', "[" * 100_000])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match="list.json"):
        listed_cases(tmp_path / "list.json")


def test_good_cases_are_cached_and_usable_though_another_is_bad(ct: Path, tmp_path: Path) -> None:
    structures(ct, tmp_path / "organs.dcm", "Brainstem")
    (tmp_path / "damaged.dcm").write_bytes((tmp_path / "organs.dcm").read_bytes()[:700])
    cases = listed_cases(listing(tmp_path, case(), case(name="b", structures="damaged.dcm"), case(name="王")))
    index = write_volume_cache(cases, tmp_path / "cache", (6.0, 6.0, 6.0), "list")
    assert [entry.name for entry in index.cases] == ["a", "王"]
    assert all((tmp_path / "cache" / entry.file).is_file() for entry in index.cases)


def test_contours_on_some_slices_are_known_there_alone(tmp_path: Path) -> None:
    """Slices 6 and 9 of 20 (3 mm) of an organ on a grid of 3 mm: these two are known, and only they have its voxels."""
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[:, 4:32, 4:36] = 40
    sitk.WriteImage(GRID.place(sitk.GetImageFromArray(hu)), str(tmp_path / "ct.nrrd"))
    folder = tmp_path / "organs"
    folder.mkdir()
    for name, slices in (("Brainstem", [6, 9]), ("SpinalCord", range(4, 15))):
        mask = np.zeros(GRID.shape, np.uint8)
        mask[list(slices), 10:16, 10:16] = 1
        sitk.WriteImage(GRID.place(sitk.GetImageFromArray(mask)), str(folder / f"{name}.nrrd"))
    entry = case(ct="ct.nrrd", structures="organs", sparse=["Brainstem"])
    index = write_volume_cache(
        listed_cases(listing(tmp_path, entry)), tmp_path / "cache", (3.0, 3.0, 3.0), "list"
    )
    assert (index.cases[0].annotated, index.cases[0].sparse) == (("SpinalCord",), ("Brainstem",))
    assert CacheIndex.load(tmp_path / "cache").cases == index.cases
    cached = read_case(tmp_path / "cache" / "a.npz")
    # The grid's slices lie between those of the CT or on them: each takes the nearest.
    z_mm = cached.origin_mm[2] + 3.0 * np.arange(cached.ct_hu.shape[0])
    nearest = np.rint(z_mm / 3.0).astype(int)
    assert cached.labelled("Brainstem").tolist() == np.isin(nearest, (6, 9)).tolist()
    assert cached.labelled("Brainstem").sum() == 2 and cached.labelled("SpinalCord").all()
    assert (cached.full_mask("Brainstem").any((1, 2)) == cached.labelled("Brainstem")).all()
    assert not cached.labelled("Parotid_L").any()
