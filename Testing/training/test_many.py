"""A data set is prepared by several processes as by one, and goes on where it was interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.errors import InputError
from soars.structures import Geometry
from soars_training.cohorts import many
from soars_training.cohorts.cache import CacheIndex, read_case
from soars_training.cohorts.layouts import CaseFiles, case_files
from soars_training.cohorts.listing import ListedCase
from soars_training.cohorts.many import listed_jobs, prepare_files, prepare_jobs
from soars_training.cohorts.reading import LeftOut

GEOMETRY = Geometry((40, 36, 30), (2.0, 2.0, 3.0), (-40.0, -36.0, 0.0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three cases, and one whose CT is no image."""
    for n in range(3):
        hu = np.full(GEOMETRY.shape, -1000, np.int16)
        hu[2:-2, 3:-3, 3:-3] = 30 + n
        mask = np.zeros(GEOMETRY.shape, np.uint8)
        mask[12:20, 12:20, 14 + n : 24 + n] = 1
        for name, array in (("ct", hu), ("structures/Brainstem", mask)):
            path = tmp_path / "data" / f"p{n}" / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(GEOMETRY.place(sitk.GetImageFromArray(array)), str(path))
    bad = tmp_path / "data" / "q"
    (bad / "structures").mkdir(parents=True)
    (bad / "ct.nii.gz").write_bytes(b"no image")
    return tmp_path / "data"


def _prepare(data: Path, cache: Path, processes: int = 1, spacing: float = 4.0) -> tuple[CacheIndex, LeftOut]:
    left_out = LeftOut()
    files = case_files("folders", data)
    return prepare_files(files, cache, (spacing,) * 3, "test", left_out, processes), left_out


@pytest.mark.slow  # starts two more interpreters
def test_two_processes_prepare_what_one_does(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And say the same, of one case that its mask lies on every second voxel's grid, with the case's name."""
    mask = data / "p1" / "structures" / "Brainstem.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(mask))[::2, ::2, :], str(mask))
    one, left_one = _prepare(data, tmp_path / "one")
    said = [record.getMessage() for record in caplog.records if "was on another grid" in record.getMessage()]
    caplog.clear()
    two, left_two = _prepare(data, tmp_path / "two", 2)
    again = [record.getMessage() for record in caplog.records if "was on another grid" in record.getMessage()]
    assert len(said) == 1 and again == [f"p1: {said[0]}"]
    assert one.cases == two.cases == CacheIndex.load(tmp_path / "two").cases and len(one.cases) == 3
    assert left_one.rows == left_two.rows and [row[0] for row in left_one.rows] == ["q"]
    for entry in one.cases:
        a, b = (read_case(tmp_path / name / entry.file) for name in ("one", "two"))
        np.testing.assert_array_equal(a.ct_hu, b.ct_hu)
        np.testing.assert_array_equal(a.full_mask("Brainstem"), b.full_mask("Brainstem"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "one", "two"]


def test_an_interrupted_preparation_goes_on_and_shows_no_cache_before_its_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, read = tmp_path / "cache", many.read_cases
    calls: list[str] = []

    def interrupted(files: list[CaseFiles], left_out: LeftOut) -> object:
        calls.append(files[0].name)
        if calls == ["p0", "p1"]:
            raise KeyboardInterrupt
        return read(files, left_out)

    monkeypatch.setattr(many, "read_cases", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _prepare(data, cache)
    assert not cache.exists()
    with pytest.raises(InputError, match="prepared with another --spacing or from other data"):
        _prepare(data, cache, spacing=3.0)
    index, _ = _prepare(data, cache)
    assert calls == ["p0", "p1", "p1", "p2", "q"]
    assert [entry.name for entry in index.cases] == ["p0", "p1", "p2"]
    assert not (tmp_path / "cache.part").exists()


def test_a_list_of_cases_and_volumes_of_interest_go_on_as_well(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A case that cannot be read is in the list of what was left out, with its place; the others are prepared once."""
    entries = [
        {"name": name, "ct": f"{name}/ct.nii.gz", "structures": f"{name}/structures"}
        for name in ("p0", "q", "p2")
    ]
    (data / "list.json").write_text(json.dumps({"cases": entries}))
    vois = {"Pituitary": (24.0, 24.0, 24.0)}
    for name in ("p0", "p2"):
        (data / name / "structures" / "Brainstem.nii.gz").rename(
            data / name / "structures" / "Pituitary.nii.gz"
        )
    read, calls = many.read_listed, []

    def interrupted(case: ListedCase) -> object:
        calls.append(case.name)
        if calls == ["p0", "q", "p2"]:
            raise KeyboardInterrupt
        return read(case)

    monkeypatch.setattr(many, "read_listed", interrupted)
    made = lambda: prepare_jobs(  # noqa: E731
        listed_jobs(data / "list.json", vois), tmp_path / "vois", (2.0,) * 3, "list", left_out, 1, vois
    )
    left_out = LeftOut()
    with pytest.raises(KeyboardInterrupt):
        made()
    assert "q: left out: " in caplog.text and "entry 2" in caplog.text
    left_out = LeftOut()
    index = made()
    assert calls == ["p0", "q", "p2", "p2"]
    assert [(e.name, e.group, e.patient) for e in index.cases] == [
        ("p0.Pituitary", "Pituitary", "p0"),
        ("p2.Pituitary", "Pituitary", "p2"),
    ]
    assert [row[0] for row in left_out.rows] == ["q"]
    volume = read_case(tmp_path / "vois" / index.cases[1].file)
    # 24 mm and 16 mm of margin on either side, at 2 mm; the box of 8 x 8 x 10 voxels of 2 x 2 x 3 mm in its middle.
    assert volume.ct_hu.shape == (28, 28, 28)
    np.testing.assert_allclose(volume.full_mask("Pituitary").sum() * 8, 8 * 8 * 10 * 12, rtol=0.1)


def test_a_list_without_a_usable_case_makes_no_cache(data: Path, tmp_path: Path) -> None:
    entry = {"name": "q", "ct": "q/ct.nii.gz", "structures": "q/structures"}
    (data / "list.json").write_text(json.dumps({"cases": [entry]}))
    with pytest.raises(InputError, match="none of the 1 cases can be used"):
        prepare_jobs(listed_jobs(data / "list.json"), tmp_path / "cache", (4.0,) * 3, "list", LeftOut())
    assert not (tmp_path / "cache").exists()


def test_an_entry_that_was_changed_meanwhile_is_prepared_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first one's organs would stay, under the second one's name."""

    def listed(split: str) -> list[many.Job]:
        entries = [
            {"name": name, "ct": f"{name}/ct.nii.gz", "structures": f"{name}/structures", "split": part}
            for name, part in (("p0", "train"), ("p1", split), ("p2", "train"))
        ]
        (data / "list.json").write_text(json.dumps({"cases": entries}))
        return listed_jobs(data / "list.json")

    read, calls = many.read_listed, []

    def interrupted(case: ListedCase) -> object:
        calls.append(case.name)
        if calls == ["p0", "p1", "p2"]:
            raise KeyboardInterrupt
        return read(case)

    monkeypatch.setattr(many, "read_listed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_jobs(listed("train"), tmp_path / "cache", (4.0,) * 3, "list", LeftOut())
    index = prepare_jobs(listed("test"), tmp_path / "cache", (4.0,) * 3, "list", LeftOut())
    assert calls == ["p0", "p1", "p2", "p1", "p2"]
    assert [(e.name, e.split) for e in index.cases] == [("p0", "train"), ("p1", "test"), ("p2", "train")]


def test_a_scan_without_a_patient_costs_itself(data: Path, tmp_path: Path) -> None:
    hu = np.full(GEOMETRY.shape, -1000, np.int16)
    hu[14:16, 14:16, 18:20] = 30  # a speck of 0.1 cc
    image = GEOMETRY.place(sitk.GetImageFromArray(hu))
    sitk.WriteImage(image, str(data / "p1" / "ct.nii.gz"))
    index, left_out = _prepare(data, tmp_path / "cache")
    assert [entry.name for entry in index.cases] == ["p0", "p2"]
    assert [row[0] for row in left_out.rows] == ["p1", "q"]


def test_an_impossible_organ_is_unknown_wherever_its_case_comes_from(data: Path, tmp_path: Path) -> None:
    """A larynx of 1 cc: in a user's list, unless the list says that it was annotated, and in OpenKBP's."""
    speck = np.zeros(GEOMETRY.shape, np.uint8)
    speck[3:8, 25:29, 15:19] = 6  # 80 voxels of 12 mm3
    speck_image = GEOMETRY.place(sitk.GetImageFromArray(speck))
    sitk.WriteImage(speck_image, str(data / "p0" / "structures" / "Larynx.nii.gz"))
    entry = {"name": "p0", "ct": "p0/ct.nii.gz", "structures": "p0/structures"}
    vouched = {**entry, "name": "again", "annotated": ["Brainstem", "Larynx"]}
    (data / "list.json").write_text(json.dumps({"cases": [entry, vouched]}))
    left_out = LeftOut()
    index = prepare_jobs(listed_jobs(data / "list.json"), tmp_path / "list", (4.0,) * 3, "list", left_out)
    assert [e.annotated for e in index.cases] == [("Brainstem",), ("Brainstem", "Larynx")]
    assert left_out.rows[0][:2] == ("p0", "Larynx") and "0.96 cc is impossible" in left_out.rows[0][2]

    (data / "train-pats").mkdir()
    shutil.copyfile(data / "p0" / "ct.nii.gz", data / "train-pats" / "pt_1_ct.nii.gz")
    speck[12:20, 12:20, 14:24] = 1
    speck_image = GEOMETRY.place(sitk.GetImageFromArray(speck))
    sitk.WriteImage(speck_image, str(data / "train-pats" / "pt_1_oars.nii.gz"))
    facts = {
        "labels": {"Brainstem": 1, "Larynx": 6},
        "cases": {"train-pats/pt_1": {"annotated": ["Brainstem", "Larynx"]}},
    }
    facts["cases"]["train-pats/pt_2"] = {"annotated": ["Brainstem"]}  # whose files are missing
    (data / "cases.json").write_text(json.dumps(facts))
    left_out = LeftOut()
    jobs = many.openkbp_jobs(data, ["train-pats"])
    index = prepare_jobs(jobs, tmp_path / "openkbp", (4.0,) * 3, "OpenKBP", left_out)
    assert [e.annotated for e in index.cases] == [("Brainstem",)]
    assert [row[:2] for row in left_out.rows] == [("pt_1", "Larynx"), ("pt_2", "")]
    assert "missing or damaged" in left_out.rows[1][2]


def test_a_disk_without_room_for_the_rest_stops_the_work_after_the_first_case(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: shutil._ntuple_diskusage(1000, 0, 10))  # type: ignore[attr-defined]
    with pytest.raises(
        InputError, match="the cases still to prepare take about .* MB, and the disk has 0 MB left"
    ):
        _prepare(data, tmp_path / "cache")
    assert len(list((tmp_path / "cache.part").glob("*.done.json"))) == 1
