"""Fetching TotalSegmentator's models by the package's own code: whole or not at all, watched, and with plain errors."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from soars.errors import EngineError
from soars.systems.totalsegmentator.package import is_model, model_folder, quiet

Watch = Callable[[int, int], None]
"""Called with (bytes done, bytes in all; 0 where the server does not say)."""


def fetch_model(number: int, watch: Watch) -> None:
    """Download a model, unless it is there; this contacts its publishers' servers.

    It is unpacked beside its place and renamed, so that what a broken download leaves is not taken for a model. Raises
    `EngineError` with one sentence.
    """
    from totalsegmentator.config import get_weights_dir, setup_totalseg
    from totalsegmentator.libs import download_pretrained_weights

    target, entry = model_folder(number)
    if is_model(target):
        return
    what = f"{number} {entry['foldername']}"
    home = Path(get_weights_dir())
    try:
        setup_totalseg()
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".soars-download-", dir=home) as staging:
            with _weights_in(staging), _watched(watch), quiet(f"downloading {what}"):
                download_pretrained_weights(number)
            found = Path(staging) / target.relative_to(home)
            if not is_model(found):
                raise EngineError(
                    f"what TotalSegmentator's server sent for {what} holds no model; try again later"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(found, target)
    except EngineError:
        raise
    except Exception as error:  # requests', zipfile's, the package's own
        raise EngineError(
            f"TotalSegmentator's model {what} could not be fetched: {_reason(error, home)}"
        ) from error


def enter_licence_number(number: str) -> None:
    """Store a licence number where the package keeps it; this asks its publishers' server whether it is valid.

    Raises `EngineError` when it is refused or nobody can be asked.
    """
    from totalsegmentator.config import set_license_number, setup_totalseg

    try:
        setup_totalseg()
        with quiet("checking the licence number"):
            set_license_number(number)
    except EngineError as error:
        if "An Exception occurred" in str(error):  # the package takes no answer for a no
            raise EngineError(
                "the licence number could not be checked: its server cannot be reached; check the network (behind a "
                "proxy, set HTTPS_PROXY) and try again"
            ) from error
        raise
    except Exception as error:
        raise EngineError(f"the licence number could not be checked: {_reason(error, None)}") from error


def _reason(error: Exception, home: Path | None) -> str:
    """Why a download failed, and what to do."""
    import requests

    request = getattr(error, "request", None)
    host = urlsplit(getattr(request, "url", None) or "").hostname or "its server"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy did not let {host} be reached; check HTTPS_PROXY"
    if isinstance(error, requests.exceptions.SSLError):
        return f"{host} could not prove who it is; a proxy that opens connections needs REQUESTS_CA_BUNDLE"
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"{host} answered with error {error.response.status_code}; try again later, or update TotalSegmentator"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return "the connection broke off; try again"
    if isinstance(error, requests.exceptions.RequestException):
        return f"{host} cannot be reached; check the network (behind a proxy, set HTTPS_PROXY) and try again"
    if isinstance(error, zipfile.BadZipFile):
        return "what arrived is not a whole archive; try again"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full; make room in {home}"
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({error.filename or home})"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextlib.contextmanager
def _weights_in(folder: str) -> Iterator[None]:
    """Let the package unpack into another folder."""
    name = "TOTALSEG_WEIGHTS_PATH"
    before = os.environ.get(name)
    os.environ[name] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _watched(watch: Watch) -> Iterator[None]:
    """Hear of the bytes that the package counts for its own progress bar."""
    from totalsegmentator import libs

    class Bar:
        def __init__(self, total: int = 0, **_: Any) -> None:
            self.done, self.total = 0, total

        def update(self, count: int) -> None:
            self.done += count
            watch(self.done, self.total)

        def close(self) -> None: ...

    before = libs.tqdm
    libs.tqdm = Bar
    try:
        yield
    finally:
        libs.tqdm = before
