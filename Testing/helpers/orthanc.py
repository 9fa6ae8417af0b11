"""A real archive: Orthanc with its DICOMweb plug-in, in a folder of its own, for as long as a test needs it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PLUGINS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
AE_TITLE = "ARCHIVE"


@dataclass(frozen=True)
class Orthanc:
    dicom_port: int
    http_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def web(self) -> str:
        return f"{self.url}/dicom-web"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return answer.read()

    def instances(self) -> list[str]:
        return json.loads(self.get("/instances"))

    def put(self, file: Path) -> None:
        """Store a file by Orthanc's own REST interface."""
        request = urllib.request.Request(f"{self.url}/instances", data=file.read_bytes(), method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    def send(self, series: str, modality: str) -> None:
        """Have it send a series (its own identifier) to one of the ``modalities`` that it knows, by C-STORE."""
        url = f"{self.url}/modalities/{modality}/store"
        request = urllib.request.Request(url, data=series.encode(), method="POST")
        urllib.request.urlopen(request, timeout=120).close()

    def of_modality(self, modality: str) -> list[dict[str, str]]:
        """The tags of every instance of a modality that is there."""
        found = [json.loads(self.get(f"/instances/{uid}/simplified-tags")) for uid in self.instances()]
        return [tags for tags in found if tags["Modality"] == modality]


def program() -> str | None:
    """Orthanc's path, None where it or its DICOMweb plug-in is not installed."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return found if found and plugin() else None


def plugin() -> Path | None:
    return next((p for folder in PLUGINS for p in sorted(Path(folder).glob("*OrthancDicomWeb*.so*"))), None)


@contextmanager
def running_orthanc(
    folder: Path, *, dicom_port: int = 0, modalities: Mapping[str, tuple[str, int]] | None = None
) -> Iterator[Orthanc]:
    """Start Orthanc, wait for it, and stop it after the block. It knows the AE title SOARS only, and the AE title and
    port on this computer of the ``modalities`` that it may send to."""
    server = Orthanc(dicom_port or free_port(), free_port())
    known = {name: [title, "127.0.0.1", port] for name, (title, port) in (modalities or {}).items()}
    settings = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "Plugins": [str(plugin())],
        "HttpPort": server.http_port, "DicomPort": server.dicom_port, "DicomAet": AE_TITLE,
        "DicomCheckCalledAet": True, "DicomAlwaysAllowEcho": False, "DicomAlwaysAllowStore": False,
        "DicomModalities": {"soars": ["SOARS", "127.0.0.1", 104], **known}, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([str(program()), str(configuration)], stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(server, process, folder / "orthanc.log")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(server: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            server.get("/dicom-web/studies")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
