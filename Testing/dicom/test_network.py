"""To and from a real archive (Orthanc), and what is said when it is not there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from orthanc import AE_TITLE, Orthanc, program, running_orthanc

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
pytest.importorskip("requests", reason="requests is not installed")

from soars.archive.nodes import Node, read_nodes
from soars.cli import main
from soars.ct.series import read_series
from soars.dicom.rtstruct import write_rtstruct
from soars.structures import Geometry, StructureSet


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    if program() is None:
        pytest.skip("Orthanc and its DICOMweb plug-in are not installed")
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(autouse=True)
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings" / "nodes.json"
    monkeypatch.setenv("SOARS_NODES", str(path))
    return path


def add(server: Orthanc, *more: str, title: str = AE_TITLE) -> None:
    port = str(server.dicom_port)
    command = ["network", "add", "pacs", "--host", "127.0.0.1", "--port", port, "--ae-title", title]
    assert main([*command, "--web", server.web, *more]) == 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command says on its refusal."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("soars: error: ")
    return lines[0].removeprefix("soars: error: ")


# --- with the archive ---------------------------------------------------------------------------------------------
def test_the_archive_takes_an_rtstruct_and_returns_it_unchanged(archive, ct_series, tmp_path, capsys) -> None:
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    structures = StructureSet(Geometry.of(image))
    mask = np.zeros(structures.geometry.shape, bool)
    mask[1:4, 4:9, 5:11] = True
    structures.add("Brainstem", mask)
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct(structures, path, series)
    add(archive)
    assert main(["network", "echo", "pacs"]) == 0
    assert main(["network", "send", "pacs", str(path)]) == 0
    assert f"pacs has {path}" in capsys.readouterr().out
    ours = pydicom.dcmread(path)
    there = {uid: json.loads(archive.get(f"/instances/{uid}/simplified-tags")) for uid in archive.instances()}
    (uid,) = [uid for uid, tags in there.items() if tags["SOPInstanceUID"] == ours.SOPInstanceUID]
    (tmp_path / "back.dcm").write_bytes(archive.get(f"/instances/{uid}/file"))
    assert pydicom.dcmread(tmp_path / "back.dcm") == ours
    # Sent again it is the same object: taken, and not there twice.
    before = len(archive.instances())
    assert main(["network", "send", "pacs", str(path)]) == 0
    assert len(archive.instances()) == before


def test_a_series_is_found_and_fetched_as_it_was(archive, ct_series, ramp, tmp_path, capsys) -> None:
    files = ct_series(tmp_path / "ct", series_uid="1.2.3.77")
    for file in files:
        archive.put(file)
    study = pydicom.dcmread(files[0]).StudyInstanceUID
    patient = pydicom.dcmread(files[0]).PatientID
    add(archive)
    capsys.readouterr()
    assert main(["network", "find", "pacs", "--study", study]) == 0
    assert f"--study {study} --series 1.2.3.77" in capsys.readouterr().out
    if patient:
        assert main(["network", "find", "pacs", "--patient", patient]) == 0
        assert "1.2.3.77" in capsys.readouterr().out
    out = tmp_path / "fetched"
    command = ["network", "fetch", "pacs", "--study", study, "--series", "1.2.3.77", "--output", str(out)]
    assert main(command) == 0
    import SimpleITK as sitk

    image, _, _ = read_series(out)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), ramp())
    assert "something already" in refused(capsys, *command)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".soars")) == []


def test_a_series_that_is_not_there_leaves_nothing(archive, tmp_path, capsys) -> None:
    add(archive)
    out = tmp_path / "fetched"
    said = refused(
        capsys, "network", "fetch", "pacs", "--study", "1.2", "--series", "1.9", "--output", str(out)
    )
    assert said == "pacs has no CT series 1.9 in study 1.2"
    assert not out.exists()


def test_the_wrong_titles_are_told(archive, capsys) -> None:
    add(archive, title="SOMEBODY")
    assert "refuses the connection" in refused(capsys, "network", "echo", "pacs")
    add(archive, "--calling-ae-title", "STRANGER", "--overwrite")
    assert "pacs" in refused(capsys, "network", "echo", "pacs")


def test_a_file_that_is_no_dicom_stops_all_before_the_first_is_sent(
    archive, ct_series, tmp_path, capsys
) -> None:
    good = ct_series(tmp_path / "ct", series_uid="1.2.3.78")[0]
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(good.read_bytes()[:200])
    add(archive)
    before = len(archive.instances())
    for path in (bad, tmp_path / "absent.dcm", tmp_path):
        assert str(path) in refused(capsys, "network", "send", "pacs", str(good), str(path))
    assert len(archive.instances()) == before


# --- without one --------------------------------------------------------------------------------------------------
def test_nobody_there(tmp_path, capsys) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    add(Orthanc(port, port))
    assert "cannot be reached" in refused(capsys, "network", "echo", "pacs")
    assert "cannot be reached" in refused(capsys, "network", "find", "pacs", "--patient", "P")
    command = ["network", "add", "nowhere", "--host", "nowhere.invalid", "--port", "104", "--ae-title", "A"]
    assert main(command) == 0
    assert "no computer of that name" in refused(capsys, "network", "echo", "nowhere")
    assert "no DICOMweb address" in refused(capsys, "network", "find", "nowhere", "--patient", "P")


def test_somebody_who_speaks_no_dicom(capsys) -> None:
    """A port that takes connections and never answers: told after the time-out, not waited for."""
    from soars.archive.dimse import echo
    from soars.errors import InputError

    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        node = Node("mute", "127.0.0.1", mute.getsockname()[1], "A")
        with pytest.raises(InputError, match="does not answer as a DICOM node"):
            echo(node, timeout_s=0.5)


def test_nodes_are_kept_listed_replaced_and_forgotten(nodes, capsys) -> None:
    assert main(["network", "list"]) == 0
    assert "no archive is configured" in capsys.readouterr().out
    assert "there is no archive 'pacs'" in refused(capsys, "network", "echo", "pacs")
    add(Orthanc(4242, 8042))
    assert "already" in refused(
        capsys, "network", "add", "pacs", "--host", "h", "--port", "1", "--ae-title", "A"
    )
    add(Orthanc(4243, 8042), "--overwrite")
    assert read_nodes()["pacs"] == Node(
        "pacs", "127.0.0.1", 4243, AE_TITLE, "SOARS", "http://127.0.0.1:8042/dicom-web"
    )
    capsys.readouterr()
    assert main(["network", "list"]) == 0
    assert capsys.readouterr().out.startswith("pacs: ARCHIVE at 127.0.0.1:4243, we are SOARS")
    assert "known: pacs" in refused(capsys, "network", "echo", "pax")
    assert main(["network", "remove", "pacs"]) == 0
    assert read_nodes() == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--port": "0"}, "not a port"),
        ({"--port": "70000"}, "not a port"),
        ({"--host": "a b"}, "not a host"),
        ({"--ae-title": "MORE THAN SIXTEEN"}, "not an AE title"),
        ({"--ae-title": "A\\B"}, "not an AE title"),
        ({"--web": "pacs.example.org"}, "not a DICOMweb address"),
    ],
)
def test_a_node_that_cannot_be_is_refused(nodes, capsys, change, said) -> None:
    options = {"--host": "h", "--port": "104", "--ae-title": "A"} | change
    assert said in refused(
        capsys, "network", "add", "pacs", *[part for item in options.items() for part in item]
    )
    assert not nodes.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 2, "nodes": {}}', '{"schema": 1, "nodes": {"a": {"x": 1}}}']
)
def test_a_damaged_list_is_named_and_kept(nodes, capsys, text) -> None:
    nodes.parent.mkdir()
    nodes.write_text(text)
    assert str(nodes) in refused(capsys, "network", "list")
    assert nodes.read_text() == text
