"""Records chained by hash, so that a line changed, removed or inserted afterwards is noticed.

From schema 2 on every line of an effort log ends with ``"chain"``: the first 16 hexadecimal digits of the SHA-256 of
the chain of the line before (nothing for the first line) followed by the line's own JSON without its chain. Somebody
who rewrites a log from some line on can compute new chains: the chain reveals damage and careless edits. That a whole
log is still the one that was collected is proved by the checksums that `soars.study.ledger` keeps elsewhere.
"""

from __future__ import annotations

import hashlib
import json

_encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_OPENING = b',"chain":"'
_DIGITS = 16
_TAIL = len(_OPENING) + _DIGITS + len(b'"}')


def chained_line(record: dict[str, object], before: str) -> tuple[bytes, str]:
    """A record's line, with its line end, after a line whose chain is ``before``; and the line's own chain."""
    body = _encoded(record).encode("utf-8")
    chain = _next(before, body)
    return body[:-1] + _OPENING + chain.encode() + b'"}\n', chain


def plain_line(record: dict[str, object]) -> bytes:
    """The line of a record of schema 1, which has no chain."""
    return (_encoded(record) + "\n").encode("utf-8")


def chain_of(line: bytes, before: str) -> str | None:
    """The chain of a line as read (without its line end) if it follows from ``before``, else None."""
    body, tail = line[:-_TAIL] + b"}", line[-_TAIL:]
    if not (tail.startswith(_OPENING) and tail.endswith(b'"}')):
        return None
    chain = _next(before, body)
    return chain if tail[len(_OPENING) : -2] == chain.encode() else None


def _next(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()[:_DIGITS]
