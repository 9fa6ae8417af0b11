"""A multipart/related answer (RFC 2046, 5.1), part by part into files, as its bytes arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from pathlib import Path

from soars.errors import InputError

LONGEST_HEADER = 1 << 14
"""Bytes of the header lines of a part."""


def save_parts(
    content_type: str, chunks: Iterable[bytes], place: Callable[[int], Path], largest: int
) -> Iterator[Path]:
    """Write each part's content to ``place(number)`` (from 0) and give its path once it is whole.

    At no time is more than a chunk and a boundary in memory. Raises `InputError` when the answer is not multipart, ends
    in the middle, or has a part of more than ``largest`` bytes.
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
        raise InputError(f"an answer in parts was expected, not {content_type[:80]!r}")
    reader = _Reader(chunks, b"\r\n--" + boundary.encode("latin-1", "replace"))
    for _ in reader.until_delimiter():
        pass  # anything before the first part is ignored
    number = 0
    while reader.skip_header():
        path = place(number)
        with path.open("xb") as file:
            for piece in reader.until_delimiter():
                if file.tell() + len(piece) > largest:
                    raise InputError(
                        f"it holds an image of more than {largest >> 20} MB, larger than any CT's"
                    )
                file.write(piece)
        yield path
        number += 1


class _Reader:
    def __init__(self, chunks: Iterable[bytes], delimiter: bytes) -> None:
        self._chunks, self._delimiter = iter(chunks), delimiter
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like the others

    def until_delimiter(self) -> Iterator[bytes]:
        """The bytes up to the next delimiter, which is skipped."""
        while (at := self._buffer.find(self._delimiter)) < 0:
            safe = len(self._buffer) - len(self._delimiter) + 1
            if safe > 0:
                yield bytes(self._buffer[:safe])
                del self._buffer[:safe]
            self._more()
        yield bytes(self._buffer[:at])
        del self._buffer[: at + len(self._delimiter)]

    def skip_header(self) -> bool:
        """Skip a part's header lines; False when the delimiter was the last one."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0 and not self._buffer.startswith(b"--"):
            if len(self._buffer) > LONGEST_HEADER:
                raise InputError("the answer's parts have no end of their header")
            self._more()
        if self._buffer.startswith(b"--"):
            return False
        del self._buffer[: end + 4]
        return True

    def _more(self) -> None:
        chunk = next(self._chunks, b"")
        if not chunk:
            raise InputError("the answer ends in the middle; try again")
        self._buffer += chunk
