"""Models come whole or not at all, from the package's own code, and each thing that goes wrong is one sentence.

A server on this machine stands for the publishers': the package's own download and unpacking run, with its addresses
pointed there.
"""

from __future__ import annotations

import errno
import http.server
import io
import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from tiny_nnunet import write_model

from soars import cli
from soars.bundle.store import load_bundle
from soars.errors import EngineError
from soars.systems.registry import system_of
from soars.systems.totalsegmentator import downloads

NAME = "Dataset775_head_glands_cavities_492subj"
ORIGIN = "https://github.com"


@dataclass
class Server:
    """Answers every request in the same way; ``asked`` holds their paths, whole addresses where it is a proxy."""

    body: bytes
    status: int = 200
    promised: int | None = None
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model as it is published: one folder, named after its data set."""
    home = tmp_path_factory.mktemp("published")
    write_model(home / NAME / "nnUNetTrainer_NoMirroring__nnUNetPlans__3d_fullres_high", {"eye_left": 1})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for path in sorted(home.rglob("*")):
            file.write(path, path.relative_to(home))
    return out.getvalue()


@pytest.fixture
def server(archive: bytes) -> Iterator[Server]:
    settings = Server(archive)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            settings.asked.append(self.path)
            self.send_response(settings.status)
            length = len(settings.body) if settings.promised is None else settings.promised
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(settings.body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        settings.port = running.server_address[1]
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield settings
        running.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package keeps its models; no proxy of this machine is in the way."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "weights"))
    return tmp_path / "weights"


def point_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from totalsegmentator import libs

    real = libs.download_url_and_unpack

    def elsewhere(url: str, folder: Path) -> None:
        assert url.startswith(ORIGIN)
        real(url.replace(ORIGIN, address), folder)

    monkeypatch.setattr(libs, "download_url_and_unpack", elsewhere)


def fetch() -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    downloads.fetch_model(775, lambda done, total: seen.append((done, total)))
    return seen


def test_a_model_is_fetched_once_watched_and_in_its_place(
    server: Server, home: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, server.address)
    seen = fetch()
    assert seen[-1] == (len(archive), len(archive))
    assert server.asked == [f"/wasserth/TotalSegmentator/releases/download/v2.3.0-weights/{NAME}.zip"]
    assert [path.name for path in home.iterdir()] == [NAME], "nothing else is left there"
    needs = system_of(load_bundle("totalsegmentator")).needs(("Eye_L",))
    assert {w.name.split()[0]: w.present for w in needs.weights} == {"775": True, "298": False}
    assert fetch() == [] and len(server.asked) == 1


def test_a_proxy_is_used(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://weights.example.org")
    monkeypatch.setenv("HTTP_PROXY", server.address)
    fetch()
    assert server.asked[0].startswith("http://weights.example.org/wasserth/")
    assert (home / NAME).is_dir()


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("offline", r"127\.0\.0\.1 cannot be reached; check the network \(behind a proxy, set HTTPS_PROXY\)"),
        ("proxy", r"the proxy did not let weights\.example\.org be reached; check HTTPS_PROXY"),
        ("missing", r"127\.0\.0\.1 answered with error 404"),
        ("cut", r"the connection broke off; try again"),
        ("broken", r"what arrived is not a whole archive; try again"),
        ("empty", r"holds no model; try again later"),
        ("full", r"the disk is full; make room in .*weights"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(
    server: Server, home: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch, what: str, reason: str
) -> None:
    address = server.address
    with monkeypatch.context() as trouble:
        if what == "offline":
            address = f"http://127.0.0.1:{closed_port()}"
        elif what == "proxy":
            address = "http://weights.example.org"
            trouble.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
        elif what == "missing":
            server.status, server.body = 404, b"no"
        elif what == "cut":
            server.promised, server.body = len(archive), archive[: len(archive) // 2]
        elif what == "broken":
            server.body = archive[: len(archive) // 2]
        elif what == "empty":
            server.body = b"PK\x05\x06" + bytes(18)
        elif what == "full":
            trouble.setattr(zipfile.ZipFile, "extractall", half_then_full)
        point_at(trouble, address)
        with pytest.raises(EngineError, match=reason) as caught:
            fetch()
        assert "\n" not in str(caught.value) and NAME in str(caught.value)
    assert list(home.iterdir()) == []
    server.status, server.body, server.promised = 200, archive, None
    point_at(monkeypatch, server.address)
    fetch()
    assert (home / NAME).is_dir(), "the next attempt succeeds"


def half_then_full(archive: zipfile.ZipFile, path: Path) -> None:
    archive.extract(next(name for name in archive.namelist() if name.endswith(".json")), path)
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_model_that_was_unpacked_in_part_is_fetched_again(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the package itself leaves it when it is killed while it unpacks."""
    point_at(monkeypatch, server.address)
    fetch()
    shutil.rmtree(next((home / NAME).glob("*/fold_0")))
    needs = system_of(load_bundle("totalsegmentator")).needs(("Eye_L",))
    assert "775" in [w.name.split()[0] for w in needs.missing_weights]
    fetch()
    assert len(server.asked) == 2 and list((home / NAME).glob("*/fold_0/checkpoint_final.pth"))


def test_the_command_says_it_in_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_at(monkeypatch, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setattr("soars.systems.download.size_of", lambda weights: None)
    words = ["bundle", "get", "monday", "--organs", "Eye_L", "--yes", "--progress", "none"]
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("soars: error: TotalSegmentator's model 775") and "cannot be reached" in line


def test_a_licence_number_that_cannot_be_checked_is_not_stored(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totalsegmentator import config

    def offline(*_: object, **__: object) -> None:
        raise requests.exceptions.ConnectionError("Name or service not known")

    monkeypatch.setattr(config.requests, "post", offline)
    with pytest.raises(
        EngineError, match="licence number could not be checked: its server cannot be reached"
    ):
        downloads.enter_licence_number("aca_0000")
    assert config.has_valid_license_offline()[0] != "yes"
