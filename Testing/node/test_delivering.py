"""Contours reach a real archive (Orthanc), once, whatever stops in between."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import time
from pathlib import Path

import pydicom
import pytest
from orthanc import AE_TITLE, free_port, program, running_orthanc
from running_node import running_node

from soars.archive.nodes import Node
from soars.archive.stow import store
from soars.errors import InputError

# A node and an archive are started for each test.
pytestmark = [pytest.mark.usefixtures("storescu", "orthanc"), pytest.mark.slow]


@pytest.fixture
def orthanc() -> None:
    if program() is None:
        pytest.skip("Orthanc and its DICOMweb plug-in are not installed")


def archive(port: int, **more: object) -> dict[str, object]:
    return {"host": "127.0.0.1", "port": port, "ae_title": AE_TITLE, **more}


def rule(bundle: Path, *send: str) -> list[dict[str, object]]:
    return [{"name": "neck", "bundle": str(bundle), "send": list(send)}]


def test_a_destination_that_is_down_and_a_node_that_is_killed(bundle: Path, ct, tmp_path: Path) -> None:
    """Three patients; the archive is not there at first; the node is killed while it receives, while it segments and
    while it tries to send. Each patient's contours arrive exactly once."""
    port = free_port()
    to = {"archive": archive(port)}
    with running_node(tmp_path, bundle, destinations=to, rules=rule(bundle, "archive")) as node:
        patients = [ct(name) for name in ("anna", "berta", "clara")]
        running = [node.sending(files) for files in patients]
        node.wait_for(lambda: any(node.state.glob("receiving/*/ct/*.dcm")), "images come")
        node.kill()
        for one in running:
            one.wait(60)
        node.start()
        for files in patients:  # a sender repeats what was not acknowledged
            assert node.send(files) == 0
        node.wait_for(lambda: bool(node.cases()["queued"]), "a case waits")
        time.sleep(0.3)
        node.kill()
        node.start()
        node.wait_for(lambda: node.counts() == {"sending": 3}, "all are segmented")
        node.wait_for(lambda: len(node.audit("not-sent")) > 3, "sending is tried again")
        health = json.loads(node.get("/health"))
        assert health["waits_for"] == ["destination archive does not take results"]
        assert health["ok"], "a node that waits for others need not be restarted"
        before = {p: p.read_bytes() for p in node.state.glob("sending/*/results/rtstruct.dcm")}
        assert len(before) == 3
        node.kill()
        node.start()
        (tmp_path / "orthanc").mkdir()
        with running_orthanc(tmp_path / "orthanc", dicom_port=port) as server:
            node.wait_for(lambda: node.counts() == {"done": 3}, "all are sent")
            arrived = server.of_modality("RTSTRUCT")
            assert len(arrived) == len(server.instances()) == 3
            assert {tags["PatientID"] for tags in arrived} == {"ID-anna", "ID-berta", "ID-clara"}
            ours = {
                str(pydicom.dcmread(p).SOPInstanceUID) for p in node.state.glob("done/*/results/rtstruct.dcm")
            }
            assert {tags["SOPInstanceUID"] for tags in arrived} == ours
        assert {p.read_bytes() for p in node.state.glob("done/*/results/rtstruct.dcm")} == set(
            before.values()
        )
        assert json.loads(node.get("/health"))["ok"]


def test_an_archive_that_sends_and_gets_seg_and_its_own_names(bundle: Path, ct, tmp_path: Path) -> None:
    """Orthanc sends a CT by C-STORE and gets an RTSTRUCT with a site's names by C-STORE, and a SEG by STOW-RS."""
    with (tmp_path / "names.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["organ", "name"], ["Brainstem", "OAR Hirnstamm"]])
    for name in ("tps", "web", "node"):
        (tmp_path / name).mkdir()
    node_port = free_port()
    with (
        running_orthanc(tmp_path / "tps", modalities={"soars-node": ("SOARS", node_port)}) as tps,
        running_orthanc(tmp_path / "web") as web,
        running_node(
            tmp_path / "node", bundle, listen={"port": node_port},
            destinations={"tps": archive(tps.dicom_port, names=str(tmp_path / "names.csv")),
                          "web": {"web": web.web, "rtstruct": False, "seg": True}},
            rules=rule(bundle, "tps", "web"),
        ) as node,
    ):  # fmt: skip
        for path in ct("anna"):
            tps.put(path)
        (series,) = json.loads(tps.get("/series"))
        tps.send(series, "soars-node")
        node.wait_for(lambda: node.counts() == {"done": 1}, "it is sent")
        (tags,) = tps.of_modality("RTSTRUCT")
        names = {roi["ROIName"] for roi in tags["StructureSetROISequence"]}
        assert "OAR Hirnstamm" in names and "SpinalCord" in names and "Brainstem" not in names
        (tags,) = web.of_modality("SEG")
        assert {s["SegmentLabel"] for s in tags["SegmentSequence"]} == {"Brainstem", "SpinalCord"}
        assert [r["calling"] for r in node.audit("queued")] == [AE_TITLE]
        # The archive says of a file that it does not take it, and so do we.
        bad = tmp_path / "bad.dcm"
        bad.write_bytes(ct("anna")[0].read_bytes()[:300])
        with pytest.raises(InputError, match="has not taken 1 of 1|cannot answer"):
            store(Node("web", "web", 1, "WEB", web=web.web), [bad])


def test_an_archive_is_polled_for_new_cts(bundle: Path, ct, tmp_path: Path) -> None:
    for name in ("pacs", "node"):
        (tmp_path / name).mkdir()
    with running_orthanc(tmp_path / "pacs") as pacs:
        poll = {"pacs": {"web": pacs.web, "every_s": 1, "days": 36500}}
        for path in ct("anna"):
            pacs.put(path)
        rules = [{"name": "neck", "when": {"StudyDescription": "neck*", "archive": "pacs"}, "bundle": str(bundle),
                  "send": ["pacs"]}]  # fmt: skip
        to = {"pacs": archive(pacs.dicom_port)}
        with running_node(tmp_path / "node", bundle, poll=poll, rules=rules, destinations=to) as node:
            node.wait_for(lambda: node.counts() == {"done": 1}, "the first is fetched and sent")
            for path in ct("berta"):
                pacs.put(path)
            node.wait_for(lambda: node.counts() == {"done": 2}, "so is the second")
            time.sleep(2.5)
            assert len(node.audit("polled")) == 2, "each is fetched once"
            assert len(pacs.of_modality("RTSTRUCT")) == 2
            node.kill()
            node.start()
            time.sleep(2.5)
            assert len(node.audit("polled")) == 2 and node.counts() == {"done": 2}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, and one of a stranger."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("node", "stranger"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/{name}.key",
             "-out", f"{folder}/{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


# pynetdicom leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tls_on_both_sides_and_only_with_a_known_certificate(
    bundle: Path, ct, certificates: Path, tmp_path: Path
) -> None:
    """One node sends to another: both over TLS, each wanting the other's certificate."""
    ours, key = str(certificates / "node.pem"), str(certificates / "node.key")
    tls = {"certificate": ours, "key": key, "clients": ours}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    from soars.archive.dimse import echo
    from soars.node.config import ClientTls
    from soars.node.deliver import client_context

    with running_node(tmp_path / "first", bundle, listen={"tls": tls}) as node:
        there = Node("node", "127.0.0.1", node.port, "SOARS")
        echo(there, tls=client_context(ClientTls(Path(ours), Path(ours), Path(key))))
        stranger = certificates / "stranger.pem"
        for wrong in (
            None,
            client_context(ClientTls(Path(ours))),
            client_context(ClientTls(stranger, Path(ours), Path(key))),
            client_context(ClientTls(Path(ours), stranger, certificates / "stranger.key")),
        ):
            with pytest.raises(InputError):
                echo(there, timeout_s=3, tls=wrong)
        assert node.send(ct("anna")) != 0, "without TLS nothing is taken"
        secure = ["+tls", key, ours, "+cf", ours]
        assert node.send(ct("anna"), *secure) == 0
        node.wait_for(lambda: node.counts() == {"done": 1}, "it is segmented")
