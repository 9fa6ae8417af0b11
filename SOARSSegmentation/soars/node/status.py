"""The node's state for people (``/``), for a supervisor (``/health``) and for Prometheus (``/metrics``)."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from soars.errors import InputError
from soars.node.config import Status
from soars.progress import duration

_TIMEOUT_S = 10
_STATES = {
    "receiving": "images are coming",
    "queued": "waits to be contoured, or is being contoured",
    "sending": "contoured; a destination has not got it yet",
    "done": "sent everywhere",
    "failed": "could not be contoured or sent; problem.txt in its folder says why",
    "refused": "no rule is for it",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "h1{font-size:1.4em;padding:.4em .7em;border-left:.4em solid}"
    ".good{border-color:#1a7f37}.waits{border-color:#b35c00}.bad{border-color:#b3261e}"
    "table{border-collapse:collapse;width:100%;margin:1.5em 0}"
    "caption{text-align:left;font-weight:600;padding-bottom:.3em}"
    "th,td{text-align:left;font-weight:400;padding:.15em 1em .15em 0;border-top:1px solid #ddd;vertical-align:top}"
    "th{width:12em}td:nth-child(2){text-align:right;width:4em}td:last-child{color:#555}"
)
_STYLE_HASH = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
_MOST_REQUESTS = 20


@dataclass(frozen=True)
class Snapshot:
    """``cases`` by state, ``events`` by (event, reason) since the start; ``problems`` of the node itself and peers that
    it ``waits_for``, in sentences without patients."""

    cases: Mapping[str, int]
    events: Mapping[tuple[str, str], int]
    problems: tuple[str, ...]
    waits_for: tuple[str, ...]
    associations: int
    used_bytes: int
    free_bytes: int
    segmented: int
    segment_seconds: float
    uptime_s: float


class StatusServer:
    """Serves what ``look`` gives, until `stop`."""

    def __init__(self, settings: Status, look: Callable[[], Snapshot]) -> None:
        class Handler(_Handler):
            snapshot = staticmethod(look)

        try:
            self._server = _Server((settings.host, settings.port), Handler)
        except OSError as error:
            raise InputError(
                f"the health page cannot be at {settings.host}:{settings.port}: {error.strerror or error}"
            ) from error
        threading.Thread(target=self._server.serve_forever, name="soars-status", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.close_all()


class _Server(ThreadingHTTPServer):
    """Answers some requests at a time; a new one closes the oldest, so that slow clients keep nobody out."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: dict[Any, None] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the look-up of this computer's name, which nothing here needs."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            oldest = next(iter(self._open)) if len(self._open) >= _MOST_REQUESTS else None
            self._open.pop(oldest, None)
            self._open[request] = None
        if oldest is not None:
            _hang_up(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone, or was closed, is no fault."""

    def close_all(self) -> None:
        with self._lock:
            left = list(self._open)
        for request in left:
            _hang_up(request)


def _hang_up(request: Any) -> None:
    """End a connection; the thread that reads from it closes it then."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    server_version = "soars"
    sys_version = ""
    snapshot: Callable[[], Snapshot]

    def do_GET(self) -> None:
        pages = {
            "/": (page, "text/html"),
            "/health": (health, "application/json"),
            "/metrics": (metrics, "text/plain"),
        }
        make, kind = pages.get(self.path, (None, ""))
        if make is None:
            self.send_error(404)
            return
        now = type(self).snapshot()
        body = make(now).encode()
        self.send_response(503 if self.path == "/health" and now.problems else 200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", f"default-src 'none'; style-src {_STYLE_HASH}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def health(now: Snapshot) -> str:
    return json.dumps(
        {
            "ok": not now.problems,
            "problems": now.problems,
            "waits_for": now.waits_for,
            "cases": dict(now.cases),
            "uptime_s": round(now.uptime_s),
        }
    )


def metrics(now: Snapshot) -> str:
    """Prometheus' text format, version 0.0.4."""
    lines = ["# TYPE soars_cases gauge"]
    lines += [f'soars_cases{{state="{state}"}} {count}' for state, count in now.cases.items()]
    lines.append("# TYPE soars_events_total counter")
    for (event, reason), count in sorted(now.events.items()):
        lines.append(f'soars_events_total{{event="{event}",reason="{reason}"}} {count}')
    for name, kind, value in (
        ("soars_healthy", "gauge", int(not now.problems)),
        ("soars_waits_for_peers", "gauge", len(now.waits_for)),
        ("soars_associations", "gauge", now.associations),
        ("soars_state_bytes", "gauge", now.used_bytes),
        ("soars_disk_free_bytes", "gauge", now.free_bytes),
        ("soars_segmented_total", "counter", now.segmented),
        ("soars_segment_seconds_total", "counter", round(now.segment_seconds, 3)),
        ("soars_uptime_seconds", "gauge", round(now.uptime_s, 1)),
    ):
        lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
    return "\n".join(lines) + "\n"


def page(now: Snapshot) -> str:
    """For people; it fetches itself again every half minute, and nothing else."""
    failed = now.cases.get("failed", 0)
    if now.problems:
        state, about = "bad", "There are problems"
    elif now.waits_for:
        state, about = "waits", "The node waits for others"
    elif failed:
        state, about = "waits", f"The node is well, but {failed} case{'s' * (failed != 1)} failed"
    else:
        state, about = "good", "All is well"
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in (*now.problems, *now.waits_for))
    cases = "".join(
        f"<tr><th>{escape(name)}</th><td>{count}</td><td>{_STATES.get(name, '')}</td></tr>"
        for name, count in now.cases.items()
    )
    events = "".join(
        f"<tr><th>{escape(_words(event))}</th><td>{count}</td><td>{escape(_words(reason))}</td></tr>"
        for (event, reason), count in sorted(now.events.items())
    )
    facts = [
        f"up for {duration(now.uptime_s)}",
        f"{now.associations} associations open",
        f"{now.used_bytes / 1e9:.2f} GB used, {now.free_bytes / 1e9:.1f} GB free",
    ]
    if now.segmented:
        facts.append(f"{duration(now.segment_seconds / now.segmented)} for a case")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="refresh" content="30"><title>SOARS node: {about}</title><style>{_STYLE}</style>'
        f'<h1 class="{state}">{about}</h1><ul>{problems}</ul><p>{", ".join(facts)}</p>'
        f"<table><caption>Cases</caption>{cases}</table>"
        f"<table><caption>What has happened since the start</caption>{events}</table></html>"
    )


def _words(code: str) -> str:
    return code.replace("-", " ")
