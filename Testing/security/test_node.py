"""A node among hostile peers: what they send is limited, refused and noted, and others are still served."""

from __future__ import annotations

import gc
import json
import socket
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from orthanc import free_port
from tiny_bundle import patient

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")

from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, EncapsulatedPDFStorage

from soars.archive.dimse import echo
from soars.archive.nodes import Node
from soars.dicom.write import write_ct_series
from soars.node.audit import Audit
from soars.node.config import Listen, Status
from soars.node.receive import Receiver
from soars.node.spool import Spool
from soars.node.status import Snapshot, StatusServer

LARGEST = 1 << 20


class Served:
    """A receiver that takes images of a megabyte at most."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.spool = Spool(folder / "state")
        self.audit = Audit(folder / "state" / "audit")
        listen = Listen(port=self.port, most_associations=8, idle_s=2)
        self.receiver = Receiver(listen, self.spool, self.audit, lambda key, size: "", LARGEST)
        self.receiver.start()

    def echoes(self) -> None:
        echo(Node("node", "127.0.0.1", self.port, "SOARS"))

    def reasons(self) -> list[str]:
        lines = [
            line
            for file in (self.folder / "state" / "audit").glob("*.jsonl")
            for line in file.read_text().splitlines()
        ]
        return [record.get("reason", record["event"]) for record in map(json.loads, lines)]

    def images(self) -> int:
        return len(list((self.folder / "state").glob("*/*/ct/*")))

    def store(self, dataset: pydicom.Dataset, kind: str = CTImageStorage) -> int | None:
        """The status of one C-STORE, None when the association was ended."""
        entity = AE("PEER")
        entity.add_requested_context(kind, dataset.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", self.port, ae_title="SOARS")
        assert association.is_established
        try:
            return association.send_c_store(dataset).get("Status")
        except RuntimeError:
            return None
        finally:
            if association.is_established:
                association.release()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.receiver.stop()
    served.spool.close()


def test_connections_are_closed_when_they_are_over_and_not_when_garbage_is_collected(
    node: Served, image
) -> None:
    """A connection that the node has ended must not stay open for a peer that keeps its side open."""
    gc.disable()
    try:
        peers = [socket.create_connection(("127.0.0.1", node.port), timeout=10) for _ in range(3)]
        for peer in peers:
            peer.sendall(b"\x04\x00" + struct.pack(">I", 100) + b"\xff" * 100)
        large = image()
        large.Rows = large.Columns = 2048
        large.PixelData = np.zeros((2048, 2048), np.int16).tobytes()
        assert node.store(large) is None
        end = time.monotonic() + 20
        while node.receiver._connections and time.monotonic() < end:
            time.sleep(0.05)
            node.receiver.close_ended()
        assert not node.receiver._connections
        here = psutil.Process().net_connections("tcp")
        left = [one for one in here if one.laddr.port == node.port and one.status == psutil.CONN_ESTABLISHED]
        assert left == []
        for peer in peers:
            peer.close()
    finally:
        gc.enable()


def test_the_health_page_is_there_for_a_new_client_whatever_slow_ones_do() -> None:
    now = Snapshot({}, {}, (), (), 0, 0, 0, 0, 0.0, 0.0)
    port = free_port()
    server = StatusServer(Status(port=port), lambda: now)
    slow = []
    try:
        for _ in range(50):
            slow.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            slow[-1].sendall(b"GET /hea")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as answer:
                assert answer.readline().split()[1] == b"200"
        assert len(server._server._open) <= 20
    finally:
        server.stop()
        for each in slow:
            with suppress(ConnectionResetError), each:
                assert each.recv(1) == b"", "the server has hung up"


@pytest.fixture
def image(tmp_path: Path) -> Callable[[], pydicom.Dataset]:
    files = write_ct_series(patient().image[:, :, :1], tmp_path / "ct", patient_id="P", patient_name="P")
    return lambda: pydicom.dcmread(files[0])


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00" + struct.pack(">I", 0xFFFFFFF0) + b"\x00" * 4096,  # an A-ASSOCIATE-RQ of four gigabytes
        b"\x04\x00" + struct.pack(">I", 100) + b"\xff" * 100,  # data before any association
        bytes(range(256)) * 64,
        b"",
    ],
    ids=["http", "four gigabytes", "data", "noise", "nothing"],
)
def test_bytes_that_are_no_dicom_keep_nobody_out(node: Served, sent: bytes) -> None:
    sockets = [socket.create_connection(("127.0.0.1", node.port), timeout=5) for _ in range(3)]
    for each in sockets:
        each.sendall(sent)
    node.echoes()
    for each in sockets:
        each.close()
    node.echoes()
    assert node.images() == 0


def test_a_message_without_end_is_cut_off(node: Served) -> None:
    """A request for an association that announces four gigabytes and keeps sending."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as peer:
        try:
            peer.sendall(b"\x01\x00" + struct.pack(">I", 0xFFFFFFF0))
            for _ in range(8 * LARGEST // 4096):
                peer.sendall(b"\0" * 4096)
            assert peer.recv(100) == b"", "the node has closed the connection"
        except ConnectionError:
            pass  # closed while we were sending
    node.echoes()


def test_an_image_that_is_too_large_ends_the_association(node: Served, image) -> None:
    large = image()
    large.Rows = large.Columns = 2048
    large.PixelData = np.zeros((2048, 2048), np.int16).tobytes()
    assert node.store(large) is None
    assert node.store(image()) == 0, "others are served"
    assert node.images() == 1


def test_what_does_not_hold_what_it_was_announced_as_is_refused(node: Served, image) -> None:
    without = image()
    del without.SeriesInstanceUID
    assert node.store(without) == 0xC000
    path = image()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of it, depending on its settings
        path.SeriesInstanceUID = "../../../../etc/passwd"  # becomes a pseudonym, never a path
    assert node.store(path) == 0
    other = image()
    other.add_new(0x00420011, "OB", b"%PDF")
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    assert node.store(other, EncapsulatedPDFStorage) == 0x0122
    assert sorted(node.reasons()) == ["no-ct", "no-identifiers"]
    kept = {p.relative_to(node.folder / "state").parts[0] for p in (node.folder / "state").glob("*/*/ct/*")}
    assert kept == {"receiving"} and node.images() == 1


def test_too_many_associations_are_refused_and_idle_ones_end(node: Served) -> None:
    entity = AE("PEER")
    entity.add_requested_context("1.2.840.10008.1.1")
    held = [entity.associate("127.0.0.1", node.port, ae_title="SOARS") for _ in range(8)]
    assert all(each.is_established for each in held)
    one_more = entity.associate("127.0.0.1", node.port, ae_title="SOARS")
    assert one_more.is_rejected and node.reasons() == ["too-many-associations"]
    end = time.monotonic() + 20
    while node.receiver.associations and time.monotonic() < end:
        time.sleep(0.1)
    assert node.receiver.associations == 0, "who says nothing for two seconds is ended"
    node.echoes()


def test_the_health_page_shows_text_as_text() -> None:
    evil = "<script>alert(1)</script>"
    now = Snapshot({"done": 1}, {("sent", evil): 2}, (evil,), (evil,), 0, 0, 0, 0, 0.0, 0.0)
    from soars.node.status import page

    assert "<script>" not in page(now)
    port = free_port()
    server = StatusServer(Status(port=port), lambda: now)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET /../../etc/passwd HTTP/1.0\r\n\r\n")
            assert b" 404 " in client.recv(100)
    finally:
        server.stop()
