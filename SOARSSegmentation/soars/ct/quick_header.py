"""The header of an ordinary DICOM file without pydicom: a series of 200 slices is listed in a twentieth of a second.

Only plain headers are read here: little endian, a preamble, ASCII text, values of their proper type. In any doubt the
result is None and pydicom reads the file, so that no file is understood in two ways.
Source: DICOM PS3.5, 7.1 (data elements) and 7.5 (sequences); PS3.10, 7.1 (file meta information).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

#: Headers are read up to this many bytes; longer ones are pydicom's.
MOST_BYTES = 1 << 17
_IMPLICIT = b"1.2.840.10008.1.2"
_NOT_HERE = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")  # big endian, deflated
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MOST_NESTED = 20


class _Doubtful(Exception):
    """The header is not plain."""


def wanted_tags(keywords: tuple[str, ...]) -> dict[int, tuple[str, str]]:
    """Tag -> keyword and VR, for `quick_header`."""
    return {int(tag_for_keyword(k) or 0): (k, dictionary_VR(k)) for k in keywords}


def quick_header(
    path: Path, wanted: Mapping[int, tuple[str, str]]
) -> tuple[dict[str, Any], str, int, bool] | None:
    """Values by keyword, transfer syntax, where the pixels' element begins, and whether there is anything from there
    on; None when pydicom is to read the file. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        data = file.read(1 << 13)
        if data[128:132] != b"DICM":
            return None
        try:
            try:
                return _parse(data, wanted)
            except (IndexError, struct.error):
                data += file.read(MOST_BYTES - len(data))
                return _parse(data, wanted)
        except (_Doubtful, IndexError, struct.error, ValueError):
            return None


def _parse(data: bytes, wanted: Mapping[int, tuple[str, str]]) -> tuple[dict[str, Any], str, int, bool]:
    at, syntax = _meta(data)
    implicit = syntax == _IMPLICIT
    raw: dict[int, tuple[bytes, bytes]] = {}
    last, size = 0, len(data)
    while True:
        if at >= size:
            raise IndexError
        group, element = struct.unpack_from("<HH", data, at)
        tag = group << 16 | element
        if tag in _PIXELS:
            break
        if tag <= last or group > 0x7FE0:
            raise _Doubtful
        last = tag
        vr, length, start = _element(data, at, implicit)
        if length == _UNDEFINED:
            if tag in wanted or (not implicit and vr != b"SQ"):
                raise _Doubtful
            at = _after_sequence(data, start, implicit, 0)
            continue
        at = start + length
        if at > size:
            raise IndexError
        if tag in wanted:
            raw[tag] = (vr, data[start:at])
    values: dict[str, Any] = dict.fromkeys(keyword for keyword, _ in wanted.values())
    for tag, (vr, value) in raw.items():
        keyword, usual = wanted[tag]
        if not implicit and vr.decode() not in usual.split(" or "):
            raise _Doubtful
        values[keyword] = _value(value, usual if implicit else vr.decode(), values)
    return values, syntax.decode(), at, at < size


def _meta(data: bytes) -> tuple[int, bytes]:
    """Where the data set begins, and its transfer syntax."""
    if data[132:140] != b"\x02\0\0\0UL\x04\0":
        raise _Doubtful
    end = 144 + struct.unpack_from("<I", data, 140)[0]
    if end > len(data):
        raise IndexError
    at, syntax = 144, b""
    while at < end:
        _vr, length, start = _element(data, at, False)
        if data[at : at + 4] == b"\x02\0\x10\0":
            syntax = data[start : start + length].rstrip(b"\0 ")
        at = start + length
    if at != end or not syntax.startswith(_IMPLICIT) or syntax in _NOT_HERE:
        raise _Doubtful
    return end, syntax


def _element(data: bytes, at: int, implicit: bool) -> tuple[bytes, int, int]:
    """VR, length and the value's place of the element at ``at``."""
    if implicit:
        return b"", struct.unpack_from("<I", data, at + 4)[0], at + 8
    vr = data[at + 4 : at + 6]
    if vr in _SHORT:
        return vr, struct.unpack_from("<H", data, at + 6)[0], at + 8
    if vr in _LONG:
        return vr, struct.unpack_from("<I", data, at + 8)[0], at + 12
    if len(vr) < 2:
        raise IndexError
    raise _Doubtful


def _after_sequence(data: bytes, at: int, implicit: bool, nested: int) -> int:
    """The place after a sequence of undefined length whose first item is at ``at``."""
    if nested > _MOST_NESTED:
        raise _Doubtful
    while True:
        group, element, length = struct.unpack_from("<HHI", data, at)
        tag, at = group << 16 | element, at + 8
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise _Doubtful
        if length != _UNDEFINED:
            at += length
            continue
        while True:
            group, element = struct.unpack_from("<HH", data, at)
            if (group << 16 | element) == _ITEM_END:
                at += 8
                break
            vr, length, start = _element(data, at, implicit)
            if length == _UNDEFINED:
                if not implicit and vr != b"SQ":
                    raise _Doubtful
                at = _after_sequence(data, start, implicit, nested + 1)
            else:
                at = start + length


def _value(raw: bytes, vr: str, before: Mapping[str, Any]) -> Any:
    """The value as pydicom would give it, as far as a header's users can tell; single numbers in text stay text."""
    if vr == "US or SS":
        vr = "SS" if before.get("PixelRepresentation") == 1 else "US"
    if not raw:
        return None
    if vr in ("US", "SS"):
        if len(raw) != 2:
            raise _Doubtful
        return struct.unpack("<H" if vr == "US" else "<h", raw)[0]
    if not raw.isascii() or b"\x1b" in raw:
        raise _Doubtful
    text = raw.decode("ascii")
    parts = [part.strip(" \0") for part in text.split("\\")]
    if vr == "DS":
        numbers = [float(part) for part in parts]
        return numbers if len(parts) > 1 else parts[0]
    if vr == "IS":
        if len(parts) > 1:
            raise _Doubtful
        int(parts[0])
        return parts[0]
    if vr not in ("CS", "LO", "SH", "UI"):
        raise _Doubtful
    if vr == "UI" and not all(part.replace(".", "").isdigit() for part in parts):
        raise _Doubtful
    return parts if len(parts) > 1 else parts[0]
