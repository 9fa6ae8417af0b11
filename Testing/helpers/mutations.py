"""Damage as disks, networks and editors do it: files cut short, blocks lost, doubled or zeroed, bits flipped.

Every mutation follows from its seed, so that one that was found can be made again:
``python -m pytest Testing/dicom/test_mutated_files.py -k "rtstruct and 1234" --mutations 2000``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MOST_BLOCK = 400
Change = Callable[[bytes, random.Random, int], bytes]


def _cut(content: bytes, rng: random.Random, reach: int) -> bytes:
    return content[: rng.randrange(len(content))]


def _zeroed(content: bytes, rng: random.Random, reach: int) -> bytes:
    at, size = rng.randrange(reach), rng.randrange(1, MOST_BLOCK)
    part = content[at : at + size]
    return content[:at] + bytes(len(part)) + content[at + size :]


def _lost(content: bytes, rng: random.Random, reach: int) -> bytes:
    at = rng.randrange(reach)
    return content[:at] + content[at + rng.randrange(1, MOST_BLOCK) :]


def _doubled(content: bytes, rng: random.Random, reach: int) -> bytes:
    at, size = rng.randrange(reach), rng.randrange(1, MOST_BLOCK)
    return content[: at + size] + content[at : at + size] + content[at + size :]


def _flipped(content: bytes, rng: random.Random, reach: int) -> bytes:
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 4, 32))):
        out[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _noise(content: bytes, rng: random.Random, reach: int) -> bytes:
    at = rng.randrange(reach)
    return content[:at] + rng.randbytes(rng.randrange(1, 64)) + content[at:]


def _swapped(content: bytes, rng: random.Random, reach: int) -> bytes:
    """Two blocks change places."""
    first, second = sorted(rng.sample(range(reach), 2))
    size = min(rng.randrange(1, MOST_BLOCK), second - first)
    a, b = content[first : first + size], content[second : second + size]
    return content[:first] + b + content[first + size : second] + a + content[second + size :]


CHANGES: Sequence[Change] = (_cut, _zeroed, _lost, _doubled, _flipped, _flipped, _noise, _swapped)


def mutated(content: bytes, seed: int, header_bytes: int | None = None) -> tuple[bytes, str]:
    """A damaged copy, and what was done. Damage begins within the first ``header_bytes``, when given: a voxel that is
    changed within plain pixel data is another image, and nothing in the file could tell."""
    rng = random.Random(seed)
    change = CHANGES[seed % len(CHANGES)]
    reach = min(len(content), header_bytes or len(content))
    damaged = change(content, rng, max(reach, 2))
    return damaged, f"seed {seed}, {change.__name__.strip('_')}"
