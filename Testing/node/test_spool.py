"""A case is in exactly one folder, whenever the node is killed: at every rename and every flush of its way."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from soars.errors import InputError
from soars.node import collect
from soars.node.audit import Audit
from soars.node.collect import Collector
from soars.node.config import Config, read_config
from soars.node.spool import CT, STATES, Origin, Spool, sha256_of


class Killed(BaseException):
    """As a process that is killed: no clean-up of errors runs for it."""


def settings(folder: Path) -> Config:
    path = folder / "node.yaml"
    path.write_text("schema: 1\nstate: state\ncomplete: {quiet_s: 0, give_up_s: 0}\nrules: [{name: all}]\n")
    return read_config(path)


def receive(spool: Spool, files: list[Path]) -> str:
    key = ""
    for path in files:
        ds_uid = path.stem
        key = spool.keep_image("1.2.3", ds_uid, [path.read_bytes()], Origin("SOARS", "SCANNER"))
    spool.release(key)
    return key


def collector(config: Config, spool: Spool) -> Collector:
    audit = Audit(config.state / "audit")
    return Collector(config, spool, audit, lambda key: 1.0, lambda key: None, lambda case: False)


def places(spool: Spool) -> list[tuple[str, str]]:
    return [(state, case) for state in STATES for case in spool.cases(state)]


def test_killed_at_any_step_a_series_is_queued_once(ct, tmp_path: Path, monkeypatch, open_spool) -> None:
    files = ct("anna")[:4]
    real_rename, real_fsync = os.rename, os.fsync
    for step in range(100):
        folder = tmp_path / str(step)
        folder.mkdir()
        config = settings(folder)
        spool = open_spool(config.state)
        acknowledged: list[Path] = []
        left = step

        def once(real, *arguments):
            nonlocal left
            left -= 1
            if left == -1:
                raise Killed
            return real(*arguments)

        monkeypatch.setattr(os, "rename", lambda *a, once=once: once(real_rename, *a))
        monkeypatch.setattr(os, "fsync", lambda *a, once=once: once(real_fsync, *a))
        survived = True
        try:
            for path in files:
                receive(spool, [path])
                acknowledged.append(path)
            collector(config, spool).step()
        except Killed:
            survived = False
        monkeypatch.undo()
        spool.close()

        again = open_spool(config.state)
        kept = {p.name for p in config.state.glob("*/*/ct/*.dcm")}
        assert {f"{again.pseudonym(p.stem)}.dcm" for p in acknowledged} <= kept, (
            "what was acknowledged is there"
        )
        receive(again, files)  # the sender repeats all of it
        collector(config, again).step()
        assert [state for state, _ in places(again)] == ["queued"], step
        ((_, case),) = places(again)
        assert len(list((again.folder("queued", case) / CT).iterdir())) == 4
        assert list((config.state / "incoming").iterdir()) == []
        again.close()
        if survived:
            break
    else:
        pytest.fail("the way has no end")
    assert step > 15


def test_a_full_disk_while_an_image_is_written_leaves_nothing(
    ct, tmp_path: Path, monkeypatch, open_spool
) -> None:
    spool = open_spool(tmp_path / "state")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        receive(spool, ct("anna")[:1])
    monkeypatch.undo()
    assert places(spool) == [] and list((spool.home / "incoming").iterdir()) == []


def test_another_image_by_the_same_identifier_is_refused(ct, tmp_path: Path, open_spool) -> None:
    spool = open_spool(tmp_path / "state")
    first, second = (path.read_bytes() for path in ct("anna")[:2])
    key = spool.keep_image("1.2", "1.2.1", [first], Origin())
    spool.keep_image("1.2", "1.2.1", [first], Origin())
    with pytest.raises(FileExistsError):
        spool.keep_image("1.2", "1.2.1", [second], Origin())
    (kept,) = (spool.folder("receiving", key) / CT).iterdir()
    assert kept.read_bytes() == first


def test_more_images_of_a_case_that_is_done_make_another_case(ct, tmp_path: Path, open_spool) -> None:
    config = settings(tmp_path)
    spool = open_spool(config.state)
    files = ct("anna")
    key = receive(spool, files[:10])
    collector(config, spool).step()
    for state, before in (("queued", None), ("sending", "queued"), ("done", "sending")):
        if before is not None:
            spool.move(key, before, state)  # type: ignore[arg-type]
        if state == "done":
            shutil.rmtree(spool.folder("done", key) / CT)
        receive(spool, files[:10])
        collector(config, spool).step()
        assert places(spool) == [(state, key)], "what is known is a duplicate in every state"
    receive(spool, files[10:])
    collector(config, spool).step()
    assert places(spool) == [("done", key), ("failed", f"{key}-2")], "the earlier images are not kept"
    receive(spool, files)
    collector(config, spool).step()
    assert places(spool) == [("queued", f"{key}-2"), ("done", key)], "all of them together are a new case"


def test_a_series_that_lacks_announced_images_is_given_up_and_taken_up(
    ct, tmp_path: Path, open_spool
) -> None:
    config = settings(tmp_path)
    spool = open_spool(config.state)
    files = ct("anna")[:6]
    quiet: list[float | None] = [None]
    look = collector(config, spool)
    look._quiet_s = lambda key: quiet[0]
    spool.announce("1.2.3", [path.stem for path in files], Origin("SOARS", "PACS"))
    look.step()
    ((state, key),) = places(spool)
    assert state == "receiving", "nothing has come yet"
    receive(spool, files[:4])
    look.step()
    assert places(spool) == [("receiving", key)]
    quiet[0] = 1.0  # longer than both times of the settings
    look.step()
    assert places(spool) == [("failed", key)]
    assert "4 of 6 images came" in (spool.folder("failed", key) / "problem.txt").read_text()
    quiet[0] = None  # an association is open
    spool.announce("1.2.3", [path.stem for path in files], Origin("SOARS", "PACS"))
    receive(spool, files[4:])
    look.step()
    assert places(spool) == [("receiving", key), ("failed", key)]
    quiet[0] = 1.0
    look.step()
    assert places(spool) == [("queued", key)], "with what had come before it is whole"
    spool.announce("1.2.3", [path.stem for path in files[:3]], Origin())
    assert places(spool) == [("queued", key)], "what is known is not announced again"
    spool.announce("9.9", ["9.9.1"], Origin())
    look.step()
    assert places(spool) == [("queued", key)], "a series of which nothing ever came leaves nothing"
    lines = [
        line for file in (config.state / "audit").glob("*.jsonl") for line in file.read_text().splitlines()
    ]
    assert '"announced": 1' in lines[-1]


def test_most_images_of_a_series_say_which_rule_is_for_it(ct, tmp_path: Path, open_spool) -> None:
    """Two scout views and a damaged image, which their pseudonyms put before the forty slices."""
    config = settings(tmp_path)
    (rule,) = config.rules
    when = {"SeriesDescription": ("of anna",), "ImageType": ("!=*localizer*",)}
    object.__setattr__(config, "rules", (replace(rule, when=when),))
    ds = pydicom.dcmread(ct("anna")[0])
    ds.ImageType, ds.SeriesDescription = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "Scout"
    ds.save_as(tmp_path / "scout.dcm")
    slices = [path.read_bytes() for path in ct("anna")[:40]]
    scout = (tmp_path / "scout.dcm").read_bytes()
    spool = open_spool(config.state)
    uids = sorted((f"1.2.3.{number}" for number in range(43)), key=spool.pseudonym)
    for uid, data in zip(uids, [scout, slices[0][:200], scout, *slices], strict=True):
        key = spool.keep_image("1.2.3", uid, [data], Origin())
    spool.release(key)
    collector(config, spool).step()
    assert places(spool) == [("queued", key)]


def test_an_image_that_cannot_be_read_keeps_no_other_series(
    ct, tmp_path: Path, monkeypatch, open_spool
) -> None:
    config = settings(tmp_path)
    spool = open_spool(config.state)
    keys = []
    for series, name in (("1.1", "anna"), ("1.2", "berta"), ("1.3", "clara")):
        for path in ct(name)[:3]:
            key = spool.keep_image(series, path.stem, [path.read_bytes()], Origin())
        spool.release(key)
        keys.append(key)
    bad = min(keys)  # the one that is looked at first

    def sha256(path: Path) -> str:
        if bad in path.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return sha256_of(path)

    monkeypatch.setattr(collect, "sha256_of", sha256)
    with pytest.raises(OSError, match="Input/output error"):
        collector(config, spool).step()
    assert places(spool) == [("receiving", bad), *(("queued", key) for key in sorted(keys) if key != bad)]


def test_one_state_folder_has_one_node(tmp_path: Path, open_spool) -> None:
    first = open_spool(tmp_path / "state")
    with pytest.raises(InputError, match="another node is running"):
        open_spool(tmp_path / "state")
    first.close()
    second = open_spool(tmp_path / "state")
    assert second.pseudonym("1.2.3") == first.pseudonym("1.2.3"), "pseudonyms survive"
    assert (tmp_path / "state" / "secret").stat().st_mode & 0o777 == 0o600
    other = open_spool(tmp_path / "other")
    assert other.pseudonym("1.2.3") != first.pseudonym("1.2.3")


def test_what_was_kept_long_enough_is_forgotten(ct, tmp_path: Path, open_spool) -> None:
    config = settings(tmp_path)
    spool = open_spool(config.state)
    receive(spool, ct("anna")[:3])
    look = collector(config, spool)
    look.step()
    ((_, case),) = places(spool)
    spool.move(case, "queued", "done")
    look.clean()
    assert places(spool) == [("done", case)]
    assert spool.expired("done", days=-1 / 86400) == [case]
    time.sleep(0.01)
    object.__setattr__(config.keep, "done_days", 0.0)
    look.clean()
    assert places(spool) == []


def test_the_audit_log_of_a_full_disk_is_whole_once_there_is_room(tmp_path: Path) -> None:
    """The system writes a part of a line and then refuses, as a full disk does; what a crash cut short stays apart."""
    audit = Audit(tmp_path / "audit")
    audit.note("queued", "first")
    (log,) = (tmp_path / "audit").iterdir()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 20, usual[1]))
    try:
        audit.note("image-refused", "second", "disk-full")
        for _ in range(3):
            audit.note("waiting", "first", "disk-full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(log.read_text().splitlines()) == 1 and log.read_text().endswith("}\n")
    audit.note("done", "first")
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["queued", "image-refused", "waiting", "done"] and not audit.counts["audit-lost", ""]

    with log.open("a") as file:
        file.write('{"at": "2026-')
    Audit(tmp_path / "audit").note("started")
    *_, torn, last = log.read_text().splitlines()
    assert torn == '{"at": "2026-' and json.loads(last)["event"] == "started"
