"""GET and POST at an archive's DICOMweb, with limits on size and speed of its answers, and without leaking secrets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from soars.archive.nodes import Node, is_this_computer
from soars.errors import InputError
from soars.words import plain

TOKEN = "SOARS_DICOMWEB_TOKEN"
"""Environment variable with the bearer token of an archive that wants one."""
TIMEOUT_S = 30.0
"""For connecting, for any pause within an answer, and before `SLOWEST_BYTES_S` is asked for."""
SLOWEST_BYTES_S = 16_000
"""An archive that sends less than this on average is stalling on purpose, or is useless."""
_CHUNK = 1 << 16


class Answer:
    """A body that is read as it arrives; `chunks` raises `InputError` when it is too long or too slow."""

    def __init__(self, node: Node, response: Any, largest: int) -> None:
        self.content_type = str(response.headers.get("Content-Type", ""))
        self._node, self._response, self._largest = node, response, largest

    def chunks(self) -> Iterator[bytes]:
        began, size = time.monotonic(), 0
        while chunk := self._response.raw.read1(_CHUNK, decode_content=True):
            size += len(chunk)
            if size > self._largest:
                raise InputError(
                    f"{self._node.name} sends more than {self._largest >> 20} MB, too much for such an answer; stopped"
                )
            seconds = time.monotonic() - began
            if seconds > TIMEOUT_S and size < SLOWEST_BYTES_S * (seconds - TIMEOUT_S):
                raise InputError(
                    f"{self._node.name} sends too slowly ({size} bytes in {seconds:.0f} s); try again later"
                )
            yield chunk

    def whole(self) -> bytes:
        return b"".join(self.chunks())


@contextmanager
def get(node: Node, path: str, accept: str, params: dict[str, str], largest: int) -> Iterator[Answer]:
    """The answer to one GET below the archive's DICOMweb address, at most ``largest`` bytes long.

    Raises `InputError`, in one sentence, for whatever goes wrong between us and the archive.
    """
    with _request(node, "GET", path, {"Accept": accept}, largest, params=params) as answer:
        yield answer


@contextmanager
def post(
    node: Node, path: str, headers: dict[str, str], body: Iterable[bytes], largest: int
) -> Iterator[Answer]:
    """The answer to one POST, whose body is sent as it comes; as `get`."""
    with _request(node, "POST", path, headers, largest, data=body) as answer:
        yield answer


@contextmanager
def _request(
    node: Node, method: str, path: str, headers: dict[str, str], largest: int, **more: Any
) -> Iterator[Answer]:
    if not node.web:
        raise InputError(
            f"{node.name} has no DICOMweb address: add it with soars network add --web URL --overwrite"
        )
    try:
        import requests
        import urllib3
    except ImportError as error:
        raise InputError("requests is missing: pip install 'soars-segmentation[network]'") from error
    with requests.Session() as session, _in_words(node):
        session.auth = lambda request: request  # never from ~/.netrc, whose secrets are meant for other hosts
        response = session.request(
            method,
            f"{node.web.rstrip('/')}{path}",
            headers={**headers, **_token(node)},
            timeout=TIMEOUT_S,
            stream=True,
            allow_redirects=False,
            **more,
        )
        with response:
            if response.is_redirect:
                raise InputError(
                    f"{node.name} refers to another address ({plain(response.headers['Location'])}), which is not "
                    "asked: if it is right, add the archive with it (soars network add --overwrite)"
                )
            response.raise_for_status()
            try:
                yield Answer(node, response, largest)
            except urllib3.exceptions.HTTPError as error:
                raise InputError(
                    f"the connection to {node.name} was lost ({type(error).__name__})"
                ) from error


def _token(node: Node) -> dict[str, str]:
    token = os.environ.get(TOKEN)
    if not token:
        return {}
    address = urlsplit(node.web)
    if address.scheme == "http" and not node.token_over_http and not is_this_computer(address.hostname):
        raise InputError(
            f"{node.name} is reached over http, where anybody on the way can read {TOKEN}: use an https address, or "
            "allow it with soars network add --token-over-http --overwrite"
        )
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def _in_words(node: Node) -> Iterator[None]:
    """What goes wrong between us and the archive, in one sentence."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        if code in (401, 403):
            raise InputError(
                f"{node.name} requires authentication (HTTP {code}): set {TOKEN} to a token"
            ) from error
        raise InputError(f"{node.name} cannot answer (HTTP {code}) at {node.web}") from error
    except requests.Timeout as error:
        raise InputError(f"{node.name} does not answer within {TIMEOUT_S:g} s at {node.web}") from error
    except requests.RequestException as error:
        raise InputError(f"{node.name} cannot be reached at {node.web}") from error
