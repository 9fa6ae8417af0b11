"""An archive that is wrong, slow, huge or hostile; and what we keep and send of secrets."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from web_archive import BOUNDARY, SERIES, STUDY, Archive, instance, listed, series_entry, serving

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
pytest.importorskip("requests", reason="requests is not installed")

import soars.archive.dimse as dimse
import soars.archive.http as http
import soars.archive.web as web
from soars.archive.nodes import Node, nodes_file
from soars.archive.web import fetch_series, find_series
from soars.cli import main
from soars.errors import InputError


@pytest.fixture(autouse=True)
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings" / "nodes.json"
    monkeypatch.setenv("SOARS_NODES", str(path))
    monkeypatch.delenv(http.TOKEN, raising=False)
    return path


@pytest.fixture
def archive() -> Iterator[tuple[Archive, Node]]:
    state = Archive()
    with serving(state) as address:
        yield state, Node("pacs", "127.0.0.1", 104, "A", "SOARS", address)


# --- what comes is what was asked for -----------------------------------------------------------------------------
def test_a_series_comes_whole_and_for_this_user_only(archive: tuple[Archive, Node], tmp_path: Path) -> None:
    state, node = archive
    before = os.umask(0)
    try:
        files = fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    finally:
        os.umask(before)
    assert [file.read_bytes() for file in files] == state.parts
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "ct").stat().st_mode) == 0o700


WRONG = {
    "another patient's study": ([instance(1), instance(2, StudyInstanceUID="9.9")], "of another study .9.9."),
    "another series": ([instance(1), instance(2, SeriesInstanceUID="9.9")], "of another series"),
    "no series": ([instance(1, SeriesInstanceUID="")], "of another series .none."),
    "another instance": ([instance(1), instance(7)], "that the series does not have"),
    "a copy": ([instance(1), instance(1), instance(2)], "twice"),
    "another class": ([instance(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4")], "not the CT image it lists"),
    "another patient": ([instance(1), instance(2, PatientID="Q")], "of another patient"),
    "too few": ([instance(1), instance(2)], "gave 2 of the 3 images"),
    "no DICOM": ([instance(1), b"<html>sorry</html>"], "not a DICOM file"),
    "nothing": ([], "gave 0 of the 3"),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "why"), WRONG.values(), ids=WRONG)
def test_other_images_than_those_asked_for_are_refused_and_none_is_kept(
    archive: tuple[Archive, Node], tmp_path: Path, parts: list[bytes], why: str
) -> None:
    state, node = archive
    state.parts = parts
    with pytest.raises(InputError, match=why):
        fetch_series(node, STUDY, SERIES, tmp_path / "out" / "ct")
    assert not list((tmp_path / "out").iterdir())


def test_a_list_that_does_not_end_or_make_sense_is_refused(
    archive: tuple[Archive, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, node = archive
    monkeypatch.setattr(web, "MOST_INSTANCES", 2)
    with pytest.raises(InputError, match="more than 2 images"):
        fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    for series in (
        {"a": 1},
        [1, 2],
        [{"0020000D": 7}],
        [{"0020000D": {"Value": {}}}],
        b"[" * 100_000,
        b"\xff",
    ):
        state.series = series
        try:
            assert find_series(node, study_uid=STUDY) == []
        except InputError as error:
            assert "not DICOMweb" in str(error)


@pytest.mark.parametrize("knows_offsets", [True, False])
def test_an_archive_that_gives_a_hundred_series_at_a_time_is_asked_for_the_others(
    archive: tuple[Archive, Node], knows_offsets: bool
) -> None:
    """As some do when no limit is given (PS3.18 8.3.4.4); one that does not know offsets gives the same again."""
    state, node = archive
    there = [
        series_entry(**{"0020000E": f"1.2.{n}", "00080060": "CT" if n % 3 else "PT"}) for n in range(250)
    ]

    def answer(request: Any) -> None:
        query = parse_qs(urlsplit(request.path).query)
        state.asked.append((request.path, {}))
        first = int(query.get("offset", ["0"])[0]) if knows_offsets else 0
        state.send(request, "application/dicom+json", json.dumps(there[first : first + 100]).encode())

    state.answer = answer  # type: ignore[method-assign]
    found = find_series(node, since="20260101")
    known = range(250 if knows_offsets else 100)
    assert sorted(int(one.series_uid[4:]) for one in found) == [n for n in known if n % 3]
    assert len(state.asked) == (4 if knows_offsets else 2)
    del there[20:]
    find_series(node, since="20260101")
    assert len(state.asked) == (5 if knows_offsets else 3), "of a short list there is no more"


@pytest.mark.parametrize("uid", ["1.2/../../x", "1.2?a=b", "a", "1" * 65])
def test_what_is_no_uid_never_becomes_part_of_an_address(
    archive: tuple[Archive, Node], tmp_path: Path, uid: str
) -> None:
    state, node = archive
    with pytest.raises(InputError, match="is not a UID"):
        fetch_series(node, uid, SERIES, tmp_path / "ct")
    with pytest.raises(InputError, match="is not a UID"):
        fetch_series(node, STUDY, uid, tmp_path / "ct")
    assert state.asked == []


# --- size and pace ------------------------------------------------------------------------------------------------
def test_an_answer_has_a_largest_size(
    archive: tuple[Archive, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, node = archive
    monkeypatch.setattr(web, "LARGEST_SERIES", 8 << 20)

    def endless(file: Any) -> None:
        file.write(f"--{BOUNDARY}\r\n\r\n".encode())
        while True:
            file.write(bytes(1 << 16))

    state.body = endless
    with pytest.raises(InputError, match="sends more than 8 MB"):
        fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    monkeypatch.setattr(web, "LARGEST_IMAGE", 1 << 20)
    with pytest.raises(InputError, match="an image of more than 1 MB"):
        fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    monkeypatch.setattr(web, "LARGEST_LIST", 1000)
    state.series = [series_entry()] * 100
    with pytest.raises(InputError, match="sends more than"):
        find_series(node, study_uid=STUDY)
    assert not (tmp_path / "ct").exists()


def test_an_answer_has_a_slowest_pace(
    archive: tuple[Archive, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then never runs into a time-out for pauses."""
    state, node = archive
    monkeypatch.setattr(http, "TIMEOUT_S", 1.0)

    def drip(file: Any) -> None:
        while True:
            file.write(b"x")
            file.flush()
            time.sleep(0.05)

    state.body = drip
    began = time.monotonic()
    with pytest.raises(InputError, match="sends too slowly"):
        fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "body", [b"--frontier\r\n" + b"x" * 100_000, b"--frontier\r\nA: b\r\n\r\nhalf", b"", b"--frontier--"]
)
def test_parts_that_are_cut_off_are_refused(
    archive: tuple[Archive, Node], tmp_path: Path, body: bytes
) -> None:
    state, node = archive
    state.body = lambda file: file.write(body)
    with pytest.raises(InputError):
        fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    assert [p.name for p in tmp_path.iterdir()] == []


def test_parts_go_to_the_disk_as_they_come(archive: tuple[Archive, Node], tmp_path: Path) -> None:
    """A part of 300 MB is never in memory: peak of what Python holds under 20 MB."""
    import tracemalloc

    state, node = archive

    def large(file: Any) -> None:
        file.write(f"--{BOUNDARY}\r\n\r\n".encode() + instance(1))
        for _ in range(300):
            file.write(bytes(1 << 20))
        file.write(f"\r\n--{BOUNDARY}--".encode())

    state.body, state.instances = large, listed(1)
    tracemalloc.start()
    (file,) = fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    assert file.stat().st_size > 300 << 20


@contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[Node]:
    """A DICOM node that takes connections and then does what it likes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=_talk, args=(connection,), daemon=True).start()

        def _talk(connection: socket.socket) -> None:
            with suppress(OSError):
                talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield Node("hostile", "127.0.0.1", server.getsockname()[1], "A")


def test_a_node_that_promises_four_gigabytes_and_drips_is_given_up() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"\x02\x00\xff\xff\xff\xff")
        while True:
            connection.sendall(b"\0")
            time.sleep(0.02)

    with peer(talk) as node:
        began = time.monotonic()
        with pytest.raises(InputError, match="does not answer as a DICOM node"):
            dimse.echo(node, timeout_s=0.5)
        assert time.monotonic() - began < 6


def test_a_node_that_sends_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimse, "MOST_ANSWER_BYTES", 1 << 18)
    sent = 0

    def talk(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(1 << 16)
        connection.sendall(b"\x02\x00\xff\xff\xff\xff")
        while True:
            sent += connection.send(bytes(1 << 14))

    with peer(talk) as node, pytest.raises(InputError):
        dimse.echo(node, timeout_s=5)
    assert sent < 16 << 20  # what fits into the sockets' own buffers besides


# --- secrets ------------------------------------------------------------------------------------------------------
def added(*more: str, web_address: str = "https://pacs.example.org/dicom-web") -> int:
    command = ["network", "add", "pacs", "--host", "pacs.example.org", "--port", "104", "--ae-title", "A"]
    return main([*command, "--web", web_address, *more])


@pytest.mark.parametrize(
    "address", ["https://doc:geheim@pacs.example.org/x", "https://geheim@pacs.example.org", "https://h/x?key=geheim",
                "https://h/x#geheim", "https://doc:geheim@[bad/"],
)  # fmt: skip
def test_a_secret_in_an_address_is_refused_and_not_repeated(
    nodes: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    assert added(web_address=address) == 2
    said = capsys.readouterr()
    assert "geheim" not in said.err + said.out and not nodes.exists()


def test_a_secret_that_an_older_version_kept_is_not_shown(
    nodes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {
        "host": "h",
        "port": 104,
        "ae_title": "A",
        "calling_ae_title": "S",
        "web": "https://doc:geheim@h/x",
    }
    nodes.parent.mkdir()
    nodes.write_text(json.dumps({"schema": 1, "nodes": {"pacs": fields}}))
    assert main(["network", "list"]) == 2
    said = capsys.readouterr()
    assert "leave them out" in said.err and "geheim" not in said.err + said.out


@pytest.mark.skipif(os.name != "posix", reason="permissions of this kind are POSIX's")
def test_the_list_of_archives_is_readable_by_its_owner_only() -> None:
    before = os.umask(0)
    try:
        assert added() == 0
        assert stat.S_IMODE(nodes_file().stat().st_mode) == 0o600
        assert added("--overwrite") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(nodes_file().stat().st_mode) == 0o600


def test_a_token_goes_over_http_only_when_that_was_allowed(
    archive: tuple[Archive, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, node = archive
    monkeypatch.setenv(http.TOKEN, "geheim")
    find_series(node, study_uid=STUDY)  # on this computer nobody listens in between
    assert state.asked[-1][1]["Authorization"] == "Bearer geheim"
    monkeypatch.setattr(http, "is_this_computer", lambda host: False)
    asked = len(state.asked)
    with pytest.raises(InputError, match="over http, where anybody on the way can read") as caught:
        find_series(node, study_uid=STUDY)
    assert len(state.asked) == asked and "geheim" not in str(caught.value)
    find_series(Node("p", "h", 104, "A", "S", node.web, token_over_http=True), study_uid=STUDY)
    assert state.asked[-1][1]["Authorization"] == "Bearer geheim"


def test_what_netrc_holds_for_a_host_is_not_sent(
    archive: tuple[Archive, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login doc password geheim\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    state, node = archive
    find_series(node, study_uid=STUDY)
    assert "Authorization" not in state.asked[-1][1]


# --- words --------------------------------------------------------------------------------------------------------
def test_what_an_archive_says_of_a_series_cannot_move_the_cursor(
    archive: tuple[Archive, Node], capsys: pytest.CaptureFixture[str]
) -> None:
    state, node = archive
    state.series = [
        series_entry(
            **{"0008103E": "\x1b]0;owned\x07\x1b[2Jneck\nsoars: error: fake\r", "00080020": "\x1b[1m"}
        )
    ]
    added("--overwrite", web_address=node.web)
    capsys.readouterr()
    assert main(["network", "find", "pacs", "--study", STUDY]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "\r" not in out
    assert len(out.splitlines()) == 2 and "\\u001b" in out


def test_a_command_to_be_pasted_is_quoted(
    archive: tuple[Archive, Node], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, node = archive
    added("--overwrite", web_address=node.web)
    out = tmp_path / "a folder; rm -rf $HOME"
    capsys.readouterr()
    assert main(["network", "fetch", "pacs", "--study", STUDY, "--series", SERIES, "--output", str(out)]) == 0
    assert f"soars segment '{out}' --output DIR" in capsys.readouterr().out


def test_an_archive_cannot_send_us_to_another_host(
    archive: tuple[Archive, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where patients' identifiers, and perhaps a token, would go to an address that nobody named."""
    state, node = archive
    monkeypatch.setenv(http.TOKEN, "secret")
    other = Archive()
    with serving(other) as address:
        state.moved_to = address
        with pytest.raises(InputError, match="refers to another address"):
            find_series(node, patient_id="P")
        with pytest.raises(InputError, match="refers to another address"):
            fetch_series(node, STUDY, SERIES, tmp_path / "ct")
    assert other.asked == [] and not (tmp_path / "ct").exists()
