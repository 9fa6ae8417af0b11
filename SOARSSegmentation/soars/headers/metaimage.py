"""MetaImage files (.mha, .mhd with .raw or .zraw), read without MetaIO.

Source: MetaIO's documentation (ITK wiki, "MetaIO/Documentation") and what ITK's MetaImageIO makes of the fields.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.errors import InputError
from soars.headers.detached import MOST_COMPRESSION, detached_file
from soars.headers.memory import check_memory

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_LONGEST_HEADER = 1 << 20
_BYTES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class _Voxels:
    """Where the voxels are: file, first byte (-1: at the file's end), whether compressed; their type and number."""

    path: Path
    offset: int
    packed: bool
    dtype: np.dtype[np.generic]
    size: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.dtype.itemsize


def read_metaimage(path: Path, kind: str) -> tuple[sitk.Image, list[str]]:
    """One volume with one number per voxel, LPS mm, with the file's own direction; and warnings about it.

    A fourth dimension of one frame is dropped. ``kind`` is the expected kind, for messages. Raises `InputError` with
    one sentence for a header that makes no sense, incomplete voxels, and other kinds of images; `OSError`.
    """
    with path.open("rb") as file:
        fields, end = _fields(file, path)
    size = _size(fields, path, kind)
    voxels = _voxels(fields, path, size, end, kind)
    spacing, origin, direction = _geometry(fields, path, len(size))
    image = sitk.GetImageFromArray(_read(voxels, path).reshape(size[2::-1]))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    warnings = [] if voxels.path == path else [f"{path.name}: its voxels were read from {voxels.path.name}"]
    return image, warnings


def _fields(file: BinaryIO, path: Path) -> tuple[dict[str, str], int]:
    """The header's fields, and where it ends: after the line with the data file's name."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        line = file.readline(_LONGEST_HEADER - file.tell()).decode("latin-1")
        key, equals, value = line.partition("=")
        key = key.strip()
        if not line.endswith("\n") or not equals or not re.fullmatch(r"[A-Za-z0-9_ ]{1,80}", key):
            raise _damaged(path, "its header is cut short or damaged")
        if key in fields:
            raise _damaged(path, f"its header says {key} twice")
        fields[key] = value.strip()
    return fields, file.tell()


def _size(fields: Mapping[str, str], path: Path, kind: str) -> tuple[int, ...]:
    (count,) = _integers(fields, "NDims", 1, path)
    if fields.get("ObjectType", "Image") != "Image":
        raise InputError(f"{path}: holds a {fields['ObjectType'][:40]!r}, not an image")
    if not 1 <= count <= 10:
        raise _damaged(path, f"its number of dimensions is {count}")
    size = _integers(fields, "DimSize", count, path)
    if min(size) < 1:
        raise _damaged(path, "a dimension is not positive")
    if count < 3 or math.prod(size[3:]) != 1:
        raise InputError(f"{path}: has {count} dimensions ({' x '.join(map(str, size))}); {kind} has three")
    (channels,) = _integers(fields, "ElementNumberOfChannels", 1, path, default="1")
    if channels != 1:
        raise InputError(f"{path}: has {channels} values per voxel, so it is not {kind}")
    return size


def _voxels(fields: Mapping[str, str], path: Path, size: tuple[int, ...], end: int, kind: str) -> _Voxels:
    name, type_name = fields["ElementDataFile"], fields.get("ElementType", "")
    if type_name not in _TYPES:
        raise InputError(f"{path}: has voxels of type {type_name[:40]!r}, so it is not {kind}")
    if not _flag(fields, "BinaryData", path, default=True):
        raise InputError(f"{path}: its voxels are written as text, which is not read; save it as binary")
    if (
        name == "LIST"
        or name.startswith("LIST ")
        or "%" in name
        or (" " in name and not (path.parent / name).is_file())
    ):
        raise InputError(
            f"{path}: its voxels are in one file a slice, which is not read; save it as one file"
        )
    local = name.upper() == "LOCAL"
    order = (
        ">"
        if _flag(fields, "BinaryDataByteOrderMSB", path) or _flag(fields, "ElementByteOrderMSB", path)
        else "<"
    )
    packed = _flag(fields, "CompressedData", path)
    (skip,) = _integers(fields, "HeaderSize", 1, path, default="0")
    if skip < -1 or ((local or packed) and skip > 0):
        raise _damaged(path, f"its HeaderSize is {skip}")
    file = path if local else detached_file(path, name)
    voxels = _Voxels(file, end if local else skip, packed, np.dtype(order + _TYPES[type_name]), size)
    there = file.stat().st_size - max(voxels.offset, 0)
    if voxels.nbytes > there * (MOST_COMPRESSION if packed else 1):
        raise _damaged(path, f"its header announces {voxels.nbytes} bytes of voxels, but the file has fewer")
    return voxels


def _read(voxels: _Voxels, path: Path) -> npt.NDArray[np.generic]:
    """All voxels in the machine's byte order, one-dimensional."""
    check_memory(voxels.nbytes, path)
    values = np.empty(math.prod(voxels.size), voxels.dtype)
    view = values.view(np.uint8).data
    with voxels.path.open("rb") as file:
        if voxels.offset == -1 and not voxels.packed:
            file.seek(-voxels.nbytes, 2)
        else:
            file.seek(max(voxels.offset, 0))
        done = _unpack(file, view, path) if voxels.packed else file.readinto(view)
    if done != len(view):
        raise _damaged(path, "its voxels end too early")
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
    return values


def _unpack(file: BinaryIO, view: memoryview, path: Path) -> int:
    """Inflate into `view`, and not a byte more than it can hold; returns the number of bytes."""
    unpacker, done, packed = zlib.decompressobj(32 + zlib.MAX_WBITS), 0, b""
    try:
        while not unpacker.eof:
            packed = unpacker.unconsumed_tail or file.read(_BYTES_AT_ONCE)
            part = unpacker.decompress(packed, min(_BYTES_AT_ONCE, len(view) - done + 1))
            if done + len(part) > len(view):
                raise _damaged(path, "it holds more voxels than its header says")
            view[done : done + len(part)] = part
            done += len(part)
            if not packed and not part:
                break
    except zlib.error as error:
        raise _damaged(path, "its voxels cannot be unpacked") from error
    return done if unpacker.eof else -1


def _geometry(
    fields: Mapping[str, str], path: Path, count: int
) -> tuple[tuple[float, ...], tuple[float, ...], list[float]]:
    """Spacing, origin and direction (row by row) of the first three dimensions, mm."""
    if "ElementSpacing" not in fields:
        raise InputError(
            f"{path}: does not say how large its voxels are (ElementSpacing); export the image again"
        )
    spacing = _numbers(fields, ("ElementSpacing",), count, path)[:3]
    if 0 in spacing:
        raise InputError(f"{path}: its voxel size {' x '.join(f'{v:g}' for v in spacing)} is not usable")
    origin = _numbers(fields, ("Offset", "Position", "Origin"), count, path, default=[0.0] * count)[:3]
    unit = np.eye(count).ravel().tolist()
    rows = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), count * count, path, default=unit)
    axes = np.array(rows).reshape(count, count)[:3, :3]  # a row is the direction of an axis
    lengths = np.linalg.norm(axes, axis=1)
    if (np.abs(lengths - 1) > 0.01).any() or abs(float(np.linalg.det(axes))) < 0.5:
        raise InputError(f"{path}: its axes are not perpendicular; resample it to a regular grid first")
    signs = np.sign(spacing)  # a negative voxel size runs the other way, as ITK has it
    return tuple(map(abs, spacing)), origin, (axes.T * signs).ravel().tolist()


def _numbers(
    fields: Mapping[str, str],
    keys: tuple[str, ...],
    count: int,
    path: Path,
    default: list[float] | None = None,
) -> tuple[float, ...]:
    """`count` finite numbers of the first of the keys that is there."""
    key = next((k for k in keys if k in fields), None)
    if key is None and default is not None:
        return tuple(default)
    text = fields.get(key or keys[0], "")
    try:
        values = tuple(float(part) for part in text.split())
    except ValueError:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise _damaged(path, f"its {key} should be {count} numbers, not {text[:60]!r}")
    return values


def _integers(
    fields: Mapping[str, str], key: str, count: int, path: Path, default: str | None = None
) -> tuple[int, ...]:
    text = fields.get(key, default)
    parts = (text or "").split()
    if len(parts) != count or not all(re.fullmatch(r"-?\d{1,12}", part) for part in parts):
        raise _damaged(path, f"its {key} should be {count} whole numbers, not {(text or '')[:60]!r}")
    return tuple(int(part) for part in parts)


def _flag(fields: Mapping[str, str], key: str, path: Path, default: bool = False) -> bool:
    text = fields.get(key)
    if text is None:
        return default
    if text[:1].upper() not in ("T", "F", "1", "0"):
        raise _damaged(path, f"its {key} should be True or False, not {text[:60]!r}")
    return text[:1].upper() in ("T", "1")


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path}: is damaged or cut off, or not a MetaImage: {why}; copy or export it again")
