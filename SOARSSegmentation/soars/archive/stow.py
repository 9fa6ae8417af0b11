"""Storing on an archive by STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from soars.archive.http import post
from soars.archive.nodes import Node
from soars.errors import InputError

_LARGEST_ANSWER = 16 << 20
_CHUNK = 1 << 16
_FAILED, _FAILURE_REASON = "00081198", "00081197"


def store(node: Node, paths: Iterable[Path]) -> None:
    """Store DICOM files in one request. Raises `InputError` when a file is not there, the archive cannot be reached, or
    it has not taken every file."""
    files = list(paths)
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
    boundary = uuid.uuid4().hex
    headers = {
        "Accept": "application/dicom+json",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
    }
    with post(node, "/studies", headers, _body(files, boundary), _LARGEST_ANSWER) as answer:
        body = answer.whole()
    try:
        failed = json.loads(body).get(_FAILED, {}).get("Value", []) if body.strip() else []
        reasons = sorted({int(item[_FAILURE_REASON]["Value"][0]) for item in failed})
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{node.name} does not answer as STOW-RS does; nothing is known of the files"
        ) from error
    if failed:
        codes = ", ".join(f"0x{reason:04X}" for reason in reasons)
        raise InputError(f"{node.name} has not taken {len(failed)} of {len(files)} files: reason {codes}")


def _body(files: Sequence[Path], boundary: str) -> Iterator[bytes]:
    for path in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
