"""What comes by C-STORE from dcmtk becomes a case, once, and what is wrong with it is in the audit log."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, LegacyConvertedEnhancedCTImageStorage
from running_node import running_node

# A node and a sender are started for each test; each waits until no more can come.
pytestmark = [pytest.mark.usefixtures("storescu"), pytest.mark.slow]


def test_everything_at_once(bundle: Path, ct, tmp_path: Path) -> None:
    """Three patients at once, two of them interleaved in one association; a duplicate; an MR; a damaged slice; a series
    whose sender breaks off; another body part; a stranger. One run, since a node has to bear them together."""
    anna, berta, clara = ct("anna"), ct("berta"), ct("clara")
    broken_off, belly = ct("dora"), ct("emil", "Abdomen")
    mr = tmp_path / "mr.dcm"
    ds = pydicom.dcmread(anna[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    ds.Modality = "MR"
    ds.save_as(mr)
    damaged = list(ct("fritz"))
    ds = pydicom.dcmread(damaged[20])
    ds.PixelData = ds.PixelData[:-1000]
    damaged[20] = tmp_path / "damaged.dcm"
    ds.save_as(damaged[20])

    with running_node(tmp_path, bundle, listen={"callers": ["SCANNER", "PACS"]}) as node:
        interleaved = [file for pair in zip(anna, reversed(berta), strict=True) for file in pair]
        running = [
            node.sending(interleaved),
            node.sending(clara[::-1], calling="PACS"),
            node.sending(damaged),
        ]
        assert node.send(broken_off[:20], "--abort") == 0
        assert node.send(belly) == 0
        assert node.send([mr]) != 0, "an MR is refused"
        assert node.send(anna, calling="STRANGER") != 0 and node.send(anna, called="OTHER") != 0
        assert [one.wait(120) for one in running] == [0, 0, 0]
        node.wait_for(lambda: node.counts() == {"done": 3, "failed": 2, "refused": 1}, "all are settled")
        assert node.send(anna) == 0, "a duplicate is taken, as its sender cannot know"
        node.wait_for(lambda: bool(node.audit("duplicate")), "the duplicate is told")
        assert node.counts() == {"done": 3, "failed": 2, "refused": 1}

        by_reason = {(r["event"], r.get("reason", "")): r for r in node.audit()}
        for expected in (
            ("failed", "unreadable"),
            ("failed", "incomplete"),
            ("refused", "no-rule"),
            ("image-refused", "no-ct"),
            ("association-refused", "calling-title"),
            ("association-refused", "called-title"),
            ("association-broken", ""),
        ):
            assert expected in by_reason, expected
        assert by_reason["association-refused", "calling-title"]["calling"] == "STRANGER"
        assert sorted(r["images"] for r in node.audit("queued")) == [50, 50, 50, 50]
        assert len(node.audit("segmented")) == 3

        # What was contoured is the CT that was sent, with the contours on its own slices.
        studies = set()
        for case in node.cases()["done"]:
            results = node.state / "done" / case / "results"
            rtstruct = pydicom.dcmread(results / "rtstruct.dcm")
            assert {roi.ROIName for roi in rtstruct.StructureSetROISequence} >= {"Brainstem", "SpinalCord"}
            studies.add(str(rtstruct.StudyInstanceUID))
            assert not (node.state / "done" / case / "ct").exists(), (
                "the CT of a case that is done is not kept"
            )
        assert studies == {str(pydicom.dcmread(files[0]).StudyInstanceUID) for files in (anna, berta, clara)}

        # Nobody is named: neither in the log, nor in names of files, nor on the pages.
        said = (
            json.dumps(node.audit()) + node.get("/") + node.get("/health") + node.get("/metrics") + node.log()
        )
        said += " ".join(str(path) for path in node.state.rglob("*"))
        uids = {str(pydicom.dcmread(files[0])[k].value) for files in (anna, broken_off) for k in
                ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}  # fmt: skip
        for secret in ("anna", "Secret", "dora", "fritz", "Neck planning", *uids):
            assert secret not in said, secret
        problems = [p.read_text() for p in sorted(node.state.glob("failed/*/problem.txt"))]
        assert any("send the series again" in text for text in problems)
        assert 'soars_cases{state="done"} 3' in node.get("/metrics")
        assert node.stop() == 130
        assert "were written" not in node.log(), "of a node, nobody asks what it has written"


def test_the_rest_of_a_broken_series_completes_it(bundle: Path, ct, tmp_path: Path) -> None:
    files = ct("anna")
    with running_node(tmp_path, bundle) as node:
        node.send(files[:30], "--abort")
        node.wait_for(lambda: node.counts() == {"failed": 1}, "it is given up")
        assert node.audit("failed")[0]["reason"] == "incomplete"
        node.send(files[25:])
        node.wait_for(lambda: node.counts() == {"done": 1}, "the parts are joined")
        assert node.audit("queued")[0]["images"] == len(files)


def test_of_two_associations_at_once_one_that_breaks_keeps_the_series_incomplete(
    bundle: Path, ct, tmp_path: Path
) -> None:
    """A sender may deal a series out to several associations; when one breaks, images are missing although the others
    end in order, whichever ends first."""
    from pynetdicom import AE
    from pynetdicom.sop_class import CTImageStorage

    files = [pydicom.dcmread(path) for path in ct("anna")]
    entity = AE("SCANNER")
    entity.add_requested_context(CTImageStorage, pydicom.uid.ExplicitVRLittleEndian)
    with running_node(tmp_path, bundle, complete={"quiet_s": 0.5, "give_up_s": 600}) as node:
        for first_to_end in (0, 1):
            pair = [entity.associate("127.0.0.1", node.port, ae_title="SOARS") for _ in range(2)]
            for part, association in enumerate(pair):
                for image in files[part * 25 : part * 25 + 20]:
                    assert association.send_c_store(image).Status == 0
            ends = [pair[0].abort, pair[1].release]
            ends[first_to_end]()
            time.sleep(0.3)
            ends[1 - first_to_end]()
            time.sleep(2)
            assert node.counts() == {"receiving": 1}, "it waits for the rest"
        assert node.send(ct("anna")) == 0
        node.wait_for(lambda: node.counts() == {"done": 1}, "sent again, it is complete")


def _announce(port: int, files: list[Path]) -> int:
    """An Instance Availability Notification of these images (PS3.3 C.4.23); the status of the answer."""
    from pynetdicom import AE
    from pynetdicom.sop_class import InstanceAvailabilityNotification

    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    notice, series = pydicom.Dataset(), pydicom.Dataset()
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.StudyInstanceUID = headers[0].StudyInstanceUID
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ReferencedSOPSequence = []
    for header in headers:
        image = pydicom.Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = (
            header.SOPClassUID,
            header.SOPInstanceUID,
        )
        image.InstanceAvailability, image.RetrieveAETitle = "ONLINE", "PACS"
        series.ReferencedSOPSequence.append(image)
    notice.ReferencedSeriesSequence = [series]
    entity = AE("PACS")
    entity.add_requested_context(InstanceAvailabilityNotification)
    association = entity.associate("127.0.0.1", port, ae_title="SOARS")
    status, _ = association.send_n_create(
        notice, InstanceAvailabilityNotification, pydicom.uid.generate_uid()
    )
    association.release()
    return int(status.Status)


def test_what_was_announced_is_waited_for_and_no_longer(bundle: Path, ct, tmp_path: Path) -> None:
    """Before the images or after some of them; an association that breaks does not matter when all are there; nothing
    is queued with fewer."""
    anna, berta, clara = ct("anna", "Abdomen"), ct("berta", "Abdomen"), ct("clara", "Abdomen")
    with running_node(tmp_path, bundle, complete={"quiet_s": 1, "give_up_s": 600}) as node:
        assert _announce(node.port, anna) == 0
        assert node.send(anna[:30]) == 0
        assert node.send(berta, "--abort") == 0
        assert _announce(node.port, berta) == 0
        assert node.send(clara[:30], "--abort") == 0
        assert _announce(node.port, clara) == 0
        node.wait_for(lambda: node.counts() == {"receiving": 2, "refused": 1}, "one is whole")
        time.sleep(2)
        assert node.counts() == {"receiving": 2, "refused": 1}, (
            "it is quiet and released, and waits all the same"
        )
        assert node.send(anna[30:]) == 0
        node.wait_for(lambda: node.counts() == {"receiving": 1, "refused": 2}, "another one is whole")
        assert _announce(node.port, anna) == 0, "it is known, and makes nothing"
        assert node.send(clara[30:]) == 0
        node.wait_for(lambda: node.counts() == {"refused": 3}, "all are")
        assert [r["images"] for r in node.audit("announced")] == [50, 50, 50, 50]
        assert [r["images"] for r in node.audit("refused")] == [50, 50, 50]


def test_an_enhanced_ct_that_lists_thousands_of_images_it_was_made_from_is_taken(
    bundle: Path, ct, tmp_path: Path
) -> None:
    """The list stands before the series' UID (PS3.3 C.12.4), and is longer than the header of any slice."""
    from pynetdicom import AE

    image = pydicom.dcmread(ct("anna")[0])
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = LegacyConvertedEnhancedCTImageStorage
    series = Dataset()
    series.SeriesInstanceUID = "1.2.6"
    series.ReferencedInstanceSequence = [Dataset() for _ in range(2000)]
    for number, item in enumerate(series.ReferencedInstanceSequence):
        item.ReferencedSOPClassUID = CTImageStorage
        item.ReferencedSOPInstanceUID = f"1.2.840.113619.2.55.3.2831164482.755.1554100123.{number}"
    image.ReferencedSeriesSequence = [series]
    entity = AE("SCANNER")
    entity.add_requested_context(LegacyConvertedEnhancedCTImageStorage, image.file_meta.TransferSyntaxUID)
    with running_node(tmp_path, bundle) as node:
        association = entity.associate("127.0.0.1", node.port, ae_title="SOARS")
        assert association.send_c_store(image).Status == 0x0000
        association.release()
        assert node.audit("image-refused") == []


def test_a_full_disk_and_a_full_queue_are_told_to_the_sender(bundle: Path, ct, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with running_node(tmp_path / "disk", bundle, limits={"free_gb": 0, "disk_gb": 0.0001}) as node:
        assert node.send(ct("anna")) != 0
        node.wait_for(lambda: bool(node.audit("image-refused")), "it is told")
        assert {record["reason"] for record in node.audit("image-refused")} == {"disk-full"}
    (tmp_path / "queue").mkdir()
    slow = {"quiet_s": 600, "give_up_s": 600}
    with running_node(tmp_path / "queue", bundle, limits={"free_gb": 0, "cases": 1}, complete=slow) as node:
        assert node.send(ct("anna")) == 0
        assert node.send(ct("berta")) != 0
        assert {record["reason"] for record in node.audit("image-refused")} == {"queue-full"}


def test_two_hundred_associations_are_taken_in_bounded_time(bundle: Path, ct, tmp_path: Path) -> None:
    """Each an association of its own, ten at a time; the slices of four series, dealt out like cards."""
    series = [ct(name, "Abdomen") for name in ("a", "b", "c", "d")]
    hands = [file for slices in zip(*series, strict=True) for file in slices]
    assert len(hands) == 200
    with running_node(tmp_path, bundle, complete={"quiet_s": 2}) as node, ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda file: node.send([file]), hands)) == [0] * 200
        node.wait_for(lambda: node.counts() == {"refused": 4}, "all are settled", seconds=60)
        assert [record["images"] for record in node.audit("refused")] == [50] * 4
        assert "soars_associations 0" in node.get("/metrics")
