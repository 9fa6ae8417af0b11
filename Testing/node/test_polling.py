"""Which series of an archive are fetched, and when again. The archive is a list that is changed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from soars.archive.web import SeriesEntry
from soars.node import poll
from soars.node.audit import Audit
from soars.node.config import read_config
from soars.node.poll import Poller

SETTINGS = """
schema: 1
state: state
poll: {{pacs: {{web: "http://127.0.0.1:1/dicom-web"}}}}
rules: [{{name: all, when: {{SeriesDescription: "{wanted}"}}}}]
"""


def test_a_series_that_no_rule_wanted_is_fetched_once_a_rule_is_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_spool
) -> None:
    listed = [SeriesEntry("1.2", f"1.2.{what}", "P", "20260101", what, 3) for what in ("neck", "chest")]
    fetched: list[str] = []
    monkeypatch.setattr(poll, "find_series", lambda node, since: listed)
    monkeypatch.setattr(Poller, "_fetch", lambda self, entry, key: fetched.append(entry.description))
    monkeypatch.setattr(poll.time, "monotonic", iter(range(0, 10**6, 1000)).__next__)
    spool = open_spool(tmp_path / "state")
    audit = Audit(tmp_path / "audit")

    def restarted(wanted: str) -> Poller:
        (tmp_path / "node.yaml").write_text(SETTINGS.format(wanted=wanted))
        return Poller("pacs", read_config(tmp_path / "node.yaml"), spool, audit, lambda key, size: "")

    node = restarted("neck")
    node.step()
    assert fetched == [], "a series is listed twice with as many images before it is fetched"
    for _ in range(3):
        node.step()
    assert fetched == ["neck"]
    node = restarted("*")
    for _ in range(3):
        node.step()
    assert fetched == ["neck", "chest"], "what was fetched is not fetched again"
