"""A DICOMweb server on this computer that says what it is told to say."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import pydicom

STUDY, SERIES, CT = "1.2.3", "1.2.3.4", "1.2.840.10008.5.1.4.1.1.2"
BOUNDARY = "frontier"


def instance(number: int, **changes: str) -> bytes:
    """A small CT image, as a part-10 file."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, f"{SERIES}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.PatientID, dataset.Modality = "P", "CT"
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def listed(count: int = 3, **more: object) -> list[dict[str, Any]]:
    def element(value: object) -> dict[str, Any]:
        return {"Value": [value]}

    return [
        {"00080018": element(f"{SERIES}.{n}"), "00080016": element(CT), **more} for n in range(1, count + 1)
    ]


def series_entry(**changes: object) -> dict[str, Any]:
    tags = {"00080060": "CT", "0020000D": STUDY, "0020000E": SERIES, "00201209": "3", "00100020": "P"}
    return {tag: {"Value": [value]} for tag, value in {**tags, **changes}.items()}


class Archive:
    """A DICOMweb server that says what it is told to say."""

    def __init__(self) -> None:
        self.series: Any = [series_entry()]
        self.instances: Any = listed()
        self.parts = [instance(n) for n in (1, 2, 3)]
        self.body: Callable[[Any], None] | None = None
        self.moved_to = ""
        self.asked: list[tuple[str, dict[str, str]]] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.path, dict(request.headers)))
        path, _, query = request.path.partition("?")
        if self.moved_to:
            request.send_response(302)
            request.send_header("Location", self.moved_to + path)
            request.end_headers()
            return
        if path.endswith("/instances"):
            later = "offset=0" not in query
            self.send(request, "application/dicom+json", json.dumps([] if later else self.instances).encode())
        elif path.endswith(f"/series/{SERIES}"):
            if self.body is not None:
                request.send_response(200)
                request.send_header(
                    "Content-Type", f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
                )
                request.end_headers()
                self.body(request.wfile)
                return
            content = b"".join(
                f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part
                for part in self.parts
            )
            kind = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
            self.send(request, kind, content + f"\r\n--{BOUNDARY}--\r\n".encode())
        else:
            body = self.series if isinstance(self.series, bytes) else json.dumps(self.series).encode()
            self.send(request, "application/dicom+json", body)

    def send(self, request: BaseHTTPRequestHandler, kind: str, body: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@contextmanager
def serving(state: Archive) -> Iterator[str]:
    """The address at which the archive answers meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def server_bind(self) -> None:  # the library's own looks its name up
            TCPServer.server_bind(self)
            self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
