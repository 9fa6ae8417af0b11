"""DICOM files deflated as a whole (PS3.5 A.5), inflated once to count the bytes before a parser inflates them."""

from __future__ import annotations

import zlib
from pathlib import Path

from soars.errors import InputError

DEFLATED = b"1.2.840.10008.1.2.1.99"
UNREMARKABLE_BYTES = 64 << 20
MOST_GROWTH = 100
"""A CT deflates to a half or a third, a slice of nothing but air to a hundredth."""
_CHUNK = 1 << 20


def check_inflated_size(path: Path) -> None:
    """Raise `InputError` for a deflated file that grows more than any image; other files pass. Raises `OSError`."""
    with path.open("rb") as file:
        start = file.read(4096)
        if start[128:132] != b"DICM" or DEFLATED not in start or start[132:140] != b"\x02\0\0\0UL\x04\0":
            return
        file.seek(144 + int.from_bytes(start[140:144], "little"))
        size, limit = 0, max(UNREMARKABLE_BYTES, MOST_GROWTH * path.stat().st_size)
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            while not unpacker.eof and (packed := unpacker.unconsumed_tail or file.read(_CHUNK)):
                size += len(unpacker.decompress(packed, _CHUNK))
                if size > limit:
                    raise InputError(
                        f"{path}: grows to more than {limit >> 20} MB, which no image does; refused"
                    )
        except zlib.error:
            return  # damaged, which is reported where it is read
