"""Tables, lists and descriptions: whatever somebody put under their names, reading them ends, and with a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from soars import texts
from soars.bundle.manifest import parse_manifest
from soars.catalogue import CATALOGUE, find
from soars.ct.images import read_ct
from soars.dicom.roi_names import read_roi_names
from soars.dose.constraints import read_constraints
from soars.effort.log import read_log
from soars.errors import BundleError, InputError, SoarsError
from soars.formats.labelnames import read_label_names
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd
from soars.metrics.tables import read_scores
from soars.metrics.tolerances import read_tolerances
from soars.report.record import read_run
from soars.service.cases import find_cases
from soars.structures import Geometry, StructureSet
from soars.structures.labels import from_label_map
from soars.study.desk import read_worklist
from soars.study.plan.model import STUDY_FILE, read_plan
from soars.systems.composite.plan import parse_plan
from soars.texts import parse_json, parse_yaml, read_bytes, read_table
from soars_training.cohorts.listing import read_listing

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "ROI names": ("names.csv", read_roi_names),
    "constraints": ("constraints.csv", read_constraints),
    "tolerances": ("tolerances.csv", read_tolerances),
    "scores": ("scores.csv", read_scores),
    "label names": ("labels.json", read_label_names),
    "label table": ("labels.csv", read_label_names),
    "list of cases": ("cases.csv", lambda path: find_cases(path, [])),
    "training list": ("cases.json", read_listing),
    "worklist": ("R1.json", read_worklist),
    "run record": ("run.json", read_run),
    "study file": (STUDY_FILE, lambda path: read_plan(path.parent)),
    "effort log": ("session.jsonl", read_log),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    name, read = READERS[kind]
    os.mkfifo(tmp_path / name)
    with pytest.raises(SoarsError):
        read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["ct", "ct.dcm", "ct.nrrd", "ct.nii.gz", "ct.mha"])
def test_a_pipe_is_no_ct(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is no ordinary file"):
        read_ct(tmp_path / name)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_without_end_is_not_read_to_its_end(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight terabytes by its size, of which nothing is on the disk: reading it whole would end the test."""
    name, read = READERS[kind]
    with (tmp_path / name).open("wb") as file:
        file.truncate(8 << 40)
    monkeypatch.setattr("soars.effort.log.LARGEST_LOG", 1 << 20)
    with pytest.raises(SoarsError, match="longer than"):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\x00", b"[" * 200_000, b'{"a": "\\ud800"}', b"\0" * 500, b'"' * 300_001]
)
def test_nonsense_is_a_sentence(tmp_path: Path, kind: str, data: bytes) -> None:
    name, read = READERS[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SoarsError):
        read(tmp_path / name)


# --- JSON and YAML ------------------------------------------------------------------------------------------------
LAUGHS = b"a0: &a0 [ha, ha]\n" + b"".join(
    b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 40)
)


@pytest.mark.parametrize(
    "data",
    [
        LAUGHS,
        b"a: &a [*a]",
        b"&a {b: *a}",
        b"[" * 900,
        b"a" * (2 << 20),
        b"a: 2001-99-99",
        b'"\\ud800"',
        b"? {a: b}\n: c",
        b"!!python/object/apply:os.system [touch x]",
        b"1" * 5000,
        b"\xff",
    ],
)
def test_yaml_that_is_made_to_hurt(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_yaml(data)
    (tmp_path / STUDY_FILE).write_bytes(data)
    with pytest.raises(InputError):
        read_plan(tmp_path)
    with pytest.raises(BundleError):
        parse_plan(data, "composite.yaml")
    assert list(tmp_path.iterdir()) == [tmp_path / STUDY_FILE]


def test_yaml_that_refers_to_its_parts_a_few_times_is_read() -> None:
    assert parse_yaml(b"a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_values_of_yaml_are_counted_as_often_as_they_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """[[1, 2], [1, 2]] has 7 values: 4 numbers, 3 lists."""
    monkeypatch.setattr(texts, "MOST_VALUES", 7)
    parse_yaml(b"[&a [1, 2], *a]")
    monkeypatch.setattr(texts, "MOST_VALUES", 6)
    with pytest.raises(ValueError, match="larger than any such file"):
        parse_yaml(b"[&a [1, 2], *a]")


@pytest.mark.parametrize("data", [b"[" * 100_000, b"1" * 5000, b'["\\udc00"]', b"\xff", b"{", b""])
def test_json_that_is_made_to_hurt(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(data)


def test_a_byte_order_mark_and_any_line_ends_are_taken(tmp_path: Path) -> None:
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]
    for ends in (b"\n", b"\r\n", b"\r"):
        path = tmp_path / "a.csv"
        path.write_bytes(b"\xef\xbb\xbf" + ends.join([b"organ,name", b"Brainstem,BS", b""]))
        assert read_roi_names(path) == {"Brainstem": "BS"}
        assert read_table(path).readlines()[1].startswith("Brainstem")


def test_a_limit_is_the_last_length_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_bytes(tmp_path / "a", 10) == b"x" * 10
    with pytest.raises(InputError, match="longer than"):
        read_bytes(tmp_path / "a", 9)


# --- names --------------------------------------------------------------------------------------------------------
def manifest(**fields: Any) -> bytes:
    return json.dumps({"format_version": 2, **fields}).encode()


def test_a_hundred_thousand_names_do_not_take_hours() -> None:
    """Looking for doubles by comparing each with each other would."""
    names = [f"n{i}" for i in range(100_000)]
    assert len(parse_manifest(manifest(files=dict.fromkeys(names, 1)))["files"]) == len(names)
    from soars.bundle.fields import get_names

    assert len(get_names({"organs": names}, "organs", "")) == len(names)
    with pytest.raises(BundleError, match="'n5' twice"):
        get_names({"organs": [*names, "n5"]}, "organs", "")


def test_texts_of_a_manifest_have_a_largest_length() -> None:
    from soars.bundle.fields import get_names, get_text

    assert get_text({"a": "x" * 2000}, "a", "") == "x" * 2000
    with pytest.raises(BundleError, match="longer than 2000"):
        get_text({"a": "x" * 2001}, "a", "")
    with pytest.raises(BundleError, match="longer than 2000"):
        get_names({"a": ["x" * 2001]}, "a", "")


def test_many_names_of_one_value_do_not_take_hours(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("".join(f"1,n{i}\n" for i in range(200_000)))
    with pytest.raises(InputError, match="names more than 2000 structures"):
        read_label_names(path)


def test_a_structures_name_has_a_largest_length() -> None:
    structures = StructureSet(Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    structures.add("x" * 500, np.ones((4, 4, 4), bool))
    with pytest.raises(InputError, match="501 characters"):
        structures.add("x" * 501, np.ones((4, 4, 4), bool))
    with pytest.raises(InputError, match="501 characters"):
        structures.rename("x" * 500, "x" * 501)


def test_ten_thousand_names_that_no_organ_has_do_not_take_minutes() -> None:
    """The nearest known name, which takes 10 ms, is looked for only where it is shown."""
    assert all(find(f"Thing number {i} of the organ") is None for i in range(10_000))
    assert find("LeftParotid") == CATALOGUE["Parotid_L"]


def test_values_and_structures_of_a_file_have_a_largest_number(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    cases = (
        ({i: "A" for i in range(1, 10_002)}, "10000 values"),
        ({1: list(map(str, range(2001)))}, "2000 s"),
    )
    for names, why in cases:
        path.write_text(json.dumps({"labels": names}))
        with pytest.raises(InputError, match=f"names more than {why}"):
            read_label_names(path)
    structures = StructureSet(Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    for i in range(2000):
        structures.add_crop(str(i), (0, 0, 0), np.ones((1, 1, 1), bool))
    with pytest.raises(InputError, match="more than 2000 structures"):
        structures.add_crop("one more", (0, 0, 0), np.ones((1, 1, 1), bool))
    structures.add_crop("7", (1, 0, 0), np.ones((1, 1, 1), bool))  # again


def test_values_that_nobody_names_take_no_time(tmp_path: Path) -> None:
    """60,000 values strewn over the volume: each one's box is the volume, and only the named one's is looked at."""
    values = np.random.default_rng(0).integers(0, 60_000, (60, 60, 60))
    image = sitk.GetImageFromArray(values.astype(np.uint16))
    found = from_label_map(image, {7: ("Brainstem",)})
    assert found.voxels("Brainstem") == int((values == 7).sum())
    assert found.warnings == ["label values without a name were left out: 1, 2, 3, 4, 5, 6, 8, 9, 10, 11 ..."]


def test_a_header_of_a_hundred_thousand_segments_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"
    structures = StructureSet(Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    structures.add("Brainstem", np.ones((4, 4, 4), bool))
    write_seg_nrrd(structures, path)
    head, _, data = path.read_bytes().partition(b"\n\n")
    more = b"".join(b"\nSegment%d_Name:=x%d" % (i, i) for i in range(1, 100_000))
    path.write_bytes(head + more + b"\n\n" + data)
    with pytest.raises(InputError, match="has 100000 segments"):
        read_seg_nrrd(path)
