"""Untrusted text (names in bundles, series, archives, RTSTRUCTs) on its way to a terminal.

A terminal obeys control characters: they move the cursor, or change earlier output, the window's title or the
clipboard; marks of writing direction make one text look like another. Here they become visible escapes (``\\u001b``).
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_LINES = "\n\t"
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode: control characters, invisible formatting, halves of pairs, line and paragraph separators."""


def plain(text: str, keep: str = "") -> str:
    """The text with every control and formatting character as an escape, line ends too, except those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text)


@contextmanager
def plain_output() -> Iterator[None]:
    """Within the block, printed text keeps its line ends and tabs and loses all other control characters."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        cast(TextIO, _Plain(stream)) if stream is not None else stream for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unfiltered(stream: TextIO) -> TextIO:
    """The stream behind `plain_output`, for a progress line of our own that is written over and over."""
    return stream.stream if isinstance(stream, _Plain) else stream


class _Plain:
    """A text stream that passes no control characters on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(plain(text, _LINES))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _escape(character: str) -> str:
    """As JSON would write it, so that escaping a line of JSON does not change its meaning."""
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
