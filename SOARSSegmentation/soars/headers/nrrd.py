"""The header of a NRRD file (.nrrd, .nhdr, .seg.nrrd), checked before ITK or pynrrd reads the file.

Source: "Definition of NRRD File Format" (teem.sourceforge.net/nrrd/format.html), sections 2 to 6.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from soars.errors import InputError
from soars.headers.detached import MOST_COMPRESSION, detached_file
from soars.headers.memory import check_memory

LONGEST_HEADER = 16 << 20
"""Bytes; the header of a segmentation of 42 organs has about fifty thousand."""
_MOST_DIMENSIONS = 16
_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4
    ),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8
    ),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
    "float": 4,
}
_PACKED = ("gzip", "gz", "bzip2", "bz2")
_OF_A_PATIENT = {
    *("left-posterior-superior", "lps", "left-posterior-superior-time", "lpst"),
    *("right-anterior-superior", "ras", "left-anterior-superior", "las"),
}
_TURNED_WITH_TIME = ("right-anterior-superior-time", "rast", "left-anterior-superior-time", "last")
"""Spaces that ITK takes for left-posterior-superior, though it turns the same spaces without time."""
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "???", "none"}
"""Names of the unit, and of none."""
_PLAIN = ("raw",)


def check_nrrd(path: Path) -> list[str]:
    """Raise `InputError` for a header that makes no sense, announces more voxels than the file has, names a file
    outside its own folder, or does not say how large the voxels are; returns warnings. Raises `OSError`."""
    with path.open("rb") as file:
        most = min(LONGEST_HEADER, path.stat().st_size)  # Python allocates what is asked for before it reads
        fields, end = _fields(file.read(most), path)
    size = _size(fields, path)
    data = _data_file(fields, path)
    _check_bytes(fields, path, size, data, end)
    warnings = _check_directions(fields, path, size)
    if len(size) >= 3:
        _check_units(fields, path)
    if data is not None:
        warnings.append(f"{path.name}: its voxels were read from {data.name}")
    return warnings


def _fields(raw: bytes, path: Path) -> tuple[dict[str, str], int]:
    """Fields by their names in lower case, and where the data begins (the header's end when there is no empty line)."""
    if not re.match(rb"NRRD000\d\r?\n", raw):
        raise InputError(f"{path} is not a NRRD file")
    found = re.search(rb"\n\r?\n", raw)
    if found is None and len(raw) >= LONGEST_HEADER:
        raise _damaged(path, "its header has no end")
    end = found.end() if found is not None else len(raw)
    fields: dict[str, str] = {}
    for line in raw[:end].decode("utf-8", "replace").splitlines()[1:]:
        key, colon, value = line.partition(":")
        if line.startswith("#") or value.startswith("=") or not colon:
            continue
        name = re.sub(r"\s+", " ", key.strip().lower())
        if name in fields:
            raise _damaged(path, f"its header says {name!r} twice")
        fields[name] = value.strip()
    return fields, end


def _size(fields: Mapping[str, str], path: Path) -> tuple[int, ...]:
    count = _integers(fields, "dimension", path)
    size = _integers(fields, "sizes", path)
    if len(count) != 1 or not 1 <= count[0] <= _MOST_DIMENSIONS or len(size) != count[0] or min(size) < 1:
        raise _damaged(path, "its dimension and sizes do not fit each other")
    return size


def _data_file(fields: Mapping[str, str], path: Path) -> Path | None:
    name = fields.get("data file", fields.get("datafile"))
    if name is None:
        return None
    if name.startswith("LIST") or "%" in name:
        raise InputError(f"{path}: its voxels are in several files, which is not read; save it as one file")
    return detached_file(path, name)


def _check_bytes(
    fields: Mapping[str, str], path: Path, size: tuple[int, ...], data: Path | None, end: int
) -> None:
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in _BYTES:
        raise _damaged(path, f"its type is {kind[:40]!r}")
    if encoding not in (*_PLAIN, *_PACKED):
        raise InputError(
            f"{path}: its voxels are encoded as {encoding[:40]!r}, which is not read; save it as gzip"
        )
    for key in ("line skip", "lineskip", "byte skip", "byteskip"):
        if key in fields and _integers(fields, key, path) not in ((0,), (-1,)):
            raise InputError(
                f"{path}: its header skips bytes of the data, which is not read; save the image again"
            )
    there = path.stat().st_size - end if data is None else data.stat().st_size
    wanted = math.prod(size) * _BYTES[kind]
    # bzip2 can pack zeros a hundred times as tightly as DEFLATE
    factor = 1 if encoding in _PLAIN else MOST_COMPRESSION * (100 if encoding.startswith("b") else 1)
    if wanted > there * factor:
        raise _damaged(path, f"its header announces {wanted} bytes of voxels, but the file has fewer")
    check_memory(wanted, path)


def _check_directions(fields: Mapping[str, str], path: Path, size: tuple[int, ...]) -> list[str]:
    """Whether the file says how large and where its voxels are; a volume has three axes in space."""
    unknown = InputError(
        f"{path}: does not say how large its voxels are and how they lie (space directions); export it again"
    )
    if len(size) < 3:
        return []  # not a volume, which is reported where one is needed
    text = fields.get("space directions")
    if text is None:
        spacings = _vector(fields.get("spacings", ""))
        known = [v for v in spacings if math.isfinite(v)]
        if len(spacings) != len(size) or len(known) < 3 or min(known) <= 0:
            raise unknown
        return [_sides_unknown(path, "no space directions")]
    vectors = [_vector(part) for part in re.findall(r"\(([^()]*)\)", text)]
    if len(vectors) not in (3, 4) or any(len(v) != len(vectors) for v in vectors):
        raise unknown
    matrix = np.array(vectors)[:3, :3]  # the fourth is time
    lengths = np.linalg.norm(matrix, axis=1)
    if (
        not np.isfinite(matrix).all()
        or (lengths <= 0).any()
        or abs(np.linalg.det(matrix / lengths[:, None])) < 1e-3
    ):
        raise unknown
    origin = fields.get("space origin")
    if origin is not None:
        place = _vector(origin.strip("() "))
        if len(place) != len(vectors) or not all(map(math.isfinite, place)):
            raise _damaged(path, f"its space origin is {origin[:60]!r}")
    return _check_space(fields, path)


def _check_space(fields: Mapping[str, str], path: Path) -> list[str]:
    """Whether the file says which way the axes of its space run in the patient; ITK turns what it knows into LPS."""
    space = fields.get("space", "").lower()
    if space in _TURNED_WITH_TIME:
        raise InputError(
            f"{path}: is in the space {space}, which programs place differently; save it in three dimensions"
        )
    warnings = []
    if space not in _OF_A_PATIENT:
        warnings.append(_sides_unknown(path, f"its space is {space[:40]}" if space else "no space"))
    if "space origin" not in fields:
        warnings.append(
            f"{path.name}: does not say where it lies (no space origin): its first voxel was put at 0, 0, 0 mm"
        )
    return warnings


def _sides_unknown(path: Path, why: str) -> str:
    return (
        f"{path.name}: the file does not say how the patient lies in it ({why}): x was taken to run "
        "to the left, y to the back and z to the head; check left and right"
    )


def _check_units(fields: Mapping[str, str], path: Path) -> None:
    """Refuse voxels that are not measured in mm, which programs read as mm all the same."""
    text = fields.get("space units" if "space directions" in fields else "units", "")
    for unit in re.findall(r'"([^"]*)"', text)[:3]:
        if unit.strip().lower() not in _MILLIMETRES:
            raise InputError(f"{path}: its voxels are measured in {unit[:20]!r}, not in mm; save it in mm")


def _vector(text: str) -> list[float]:
    try:
        return [float(part) for part in re.split(r"[,\s]+", text.strip()) if part]
    except ValueError:
        return []


def _integers(fields: Mapping[str, str], key: str, path: Path) -> tuple[int, ...]:
    parts = fields.get(key, "").split()
    if not parts or not all(re.fullmatch(r"-?\d{1,12}", part) for part in parts):
        raise _damaged(path, f"its {key} is {fields.get(key, '')[:60]!r}")
    return tuple(int(part) for part in parts)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path}: is damaged or cut off, or not an NRRD file: {why}; copy or export it again")
