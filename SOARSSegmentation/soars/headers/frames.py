"""Compressed pixels of a DICOM image: which size the stream itself declares, checked before decoding.

A slice of 512 x 512 may carry a JPEG 2000 stream of 60000 x 60000; a decoder then takes gigabytes for one slice.
Sources: ITU-T T.800 (JPEG 2000, A.5.1), T.81 (JPEG, B.2.2), T.87 (JPEG-LS, C.2.2); DICOM PS3.5 annex G (RLE).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from soars.errors import InputError

_SYNTAX = "1.2.840.10008.1.2."
_JPEG = {f"{_SYNTAX}4.{n}" for n in (50, 51, 57, 70, 80, 81)}
_JPEG_2000 = {f"{_SYNTAX}4.{n}" for n in (90, 91)}
_RLE = f"{_SYNTAX}5"
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
"""Markers that begin a frame (SOF), that of JPEG-LS last."""
_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length: TEM and the restart markers."""
_MOST_TILES = 65535
MOST_ROWS = 8192
"""Rows or columns; no CT, MR or dose has more."""
GROWTH = 2
"""No encoder enlarges pixels by more than this factor."""


def check_matrix(rows: int, columns: int, path: Path) -> None:
    """Raise `InputError` for a matrix that no scanner makes."""
    if not (0 < rows <= MOST_ROWS and 0 < columns <= MOST_ROWS):
        raise InputError(
            f"{path}: says that it has {columns} x {rows} pixels, more than any scan; export it again"
        )


def check_frame(stream: bytes, syntax: str, size: tuple[int, int, int], path: Path) -> None:
    """Raise `InputError` when a compressed frame does not have the size in the header.

    Args:
        stream: one frame.
        size: rows, columns and bits allocated by the header.
    """
    rows, columns, bits = size
    check_matrix(rows, columns, path)
    if len(stream) > _most_bytes(size):
        raise _too_long(path)
    if syntax == _RLE:
        if len(stream) < 64 or struct.unpack_from("<I", stream)[0] != max(bits // 8, 1):
            raise _other(path, "another number of bytes a pixel")
        return
    found = (
        _size_of_jpeg(stream)
        if syntax in _JPEG
        else _size_of_jpeg_2000(stream)
        if syntax in _JPEG_2000
        else None
    )
    if found is None and syntax not in _JPEG | _JPEG_2000:
        return  # not compressed
    if found is None:
        raise InputError(
            f"{path}: its pixels cannot be decoded (they declare no size); copy or export it again"
        )
    if found != (rows, columns, 1):
        raise _other(path, f"{found[1]} x {found[0]} pixels of {found[2]} value(s) each")


def check_slice(path: Path, pixels_at: int, syntax: str, size: tuple[int, int, int]) -> None:
    """`check_frame` of a single-frame file whose Pixel Data element begins at ``pixels_at``; what is not compressed
    passes. Raises `OSError`."""
    rows, columns, _bits = size
    check_matrix(rows, columns, path)
    if syntax not in _JPEG | _JPEG_2000 | {_RLE}:
        return
    stream = bytearray()
    with path.open("rb") as file:
        file.seek(pixels_at + 12)  # tag, value representation, undefined length
        file.seek(_item_length(file) or 0, os.SEEK_CUR)  # the table of offsets
        while (length := _item_length(file)) is not None:
            if len(stream) + length > _most_bytes(size):
                raise _too_long(path)
            stream += file.read(length)
    check_frame(bytes(stream), syntax, size, path)


def _item_length(file: BinaryIO) -> int | None:
    """Bytes of the item that follows; None at the end of the items."""
    head = file.read(8)
    if len(head) < 8 or struct.unpack_from("<HH", head) != (0xFFFE, 0xE000):
        return None
    return int(struct.unpack_from("<I", head, 4)[0])


def _most_bytes(size: tuple[int, int, int]) -> int:
    rows, columns, bits = size
    return GROWTH * rows * columns * max(bits // 8, 1) + 65536


def _too_long(path: Path) -> InputError:
    return InputError(f"{path}: its compressed pixels take more bytes than the pixels themselves; refused")


def _size_of_jpeg(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of the first frame header of JPEG or JPEG-LS; None without one."""
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 9 < len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1  # a fill byte
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            return struct.unpack_from(">HHB", stream, at + 5)
        else:
            at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    return None


def _size_of_jpeg_2000(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a JPEG 2000 code stream, also inside a file of boxes; None without one."""
    at = stream.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(stream) < at + 42:
        return None
    x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = struct.unpack_from(">8IH", stream, at + 8)
    if min(tile_x, tile_y) == 0 or -(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y) > _MOST_TILES:
        return None
    return y - y0, x - x0, components


def _other(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: its compressed pixels are of another size than its header says ({what}); export it again"
    )
