"""The health page, the health check and the metrics, as a browser, a supervisor and Prometheus see them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from orthanc import free_port

from soars.node.config import Status
from soars.node.spool import STATES
from soars.node.status import Snapshot, StatusServer

QUIET = Snapshot(
    dict.fromkeys(STATES, 2), {("failed", "unreadable"): 3, ("sent", ""): 7}, (), (), 1, 10**9, 10**10, 4, 50.0, 90.0
)  # fmt: skip


class Page:
    """A status server, and what it is to show."""

    def __init__(self) -> None:
        self.now = QUIET
        self.port = free_port()
        self.server = StatusServer(Status(port=self.port), lambda: self.now)

    def get(self, path: str) -> tuple[int, str, str]:
        """Code, policy and body."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.headers["Content-Security-Policy"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "", error.read().decode()


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    yield made
    made.server.stop()


def test_the_page_says_whether_the_node_is_well_and_its_style_is_allowed(page: Page) -> None:
    for failed, problems, peers, said in (
        (0, (), (), "All is well"),
        (1, (), (), "The node is well, but 1 case failed"),
        (2, (), (), "The node is well, but 2 cases failed"),
        (2, (), ("destination tps does not take results",), "The node waits for others"),
        (2, ("the disk is full; cases wait",), ("archive pacs",), "There are problems"),
    ):
        page.now = replace(QUIET, cases={**QUIET.cases, "failed": failed}, problems=problems, waits_for=peers)
        code, policy, body = page.get("/")
        assert code == 200 and f">{said}</h1>" in body
        assert all(f"<li>{text}</li>" in body for text in (*problems, *peers))
        (style,) = re.findall(r"<style>(.*?)</style>", body)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert policy == f"default-src 'none'; style-src 'sha256-{digest}'"
        code, _, body = page.get("/health")
        assert code == (503 if problems else 200)
        assert json.loads(body)["problems"] == list(problems)


def test_every_state_of_a_case_is_explained() -> None:
    from soars.node.status import _STATES

    assert _STATES.keys() == set(STATES)
    documented = (Path(__file__).resolve().parents[2] / "docs" / "node.md").read_text(encoding="utf-8")
    assert all(f"`{state}/`" in documented for state in STATES)


def test_metrics_are_of_the_text_format_of_prometheus(page: Page) -> None:
    page.now = replace(QUIET, problems=("the disk is full",))
    _, _, body = page.get("/metrics")
    values = {}
    for line in body.splitlines():
        found = re.fullmatch(r"(?:# TYPE \w+ (?:gauge|counter)|(\w+(?:\{[^}]*\})?) (-?[\d.e+]+))", line)
        assert found is not None, line
        if found[1]:
            values[found[1]] = float(found[2])
    assert values['soars_events_total{event="failed",reason="unreadable"}'] == 3
    assert values['soars_cases{state="done"}'] == 2 and values["soars_healthy"] == 0
    assert values["soars_segment_seconds_total"] == 50
    assert page.get("/other")[0] == 404
