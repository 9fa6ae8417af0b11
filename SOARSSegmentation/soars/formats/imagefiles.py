"""Images as files, written through Python's streams.

SimpleITK's writers report nothing when the disk is full and leave an empty or truncated file. These raise `OSError`,
and write some slices at a time. NRRD: teem's format.html; NIfTI-1: nifti1.h; MetaImage: MetaIO's documentation.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.errors import InputError
from soars.structures.model import Geometry

WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
COMPRESSION_LEVEL = 1
SLAB_BYTES = 8_000_000
_MOST_NIFTI_VOXELS = 32767  # along an axis: a 16-bit integer

#: numpy type -> its name in NRRD, NIfTI and MetaImage
_TYPES = {
    "u1": ("unsigned char", 2, "MET_UCHAR"),
    "u2": ("unsigned short", 512, "MET_USHORT"),
    "i2": ("short", 4, "MET_SHORT"),
    "u4": ("unsigned int", 768, "MET_UINT"),
    "i4": ("int", 8, "MET_INT"),
    "f4": ("float", 16, "MET_FLOAT"),
    "f8": ("double", 64, "MET_DOUBLE"),
}


def write_image(image: sitk.Image, path: Path) -> None:
    """Write a scalar image of three dimensions, compressed where the format allows it: .nrrd, .nii.gz, .nii or .mha.

    The file is written in place: see `soars.files.replacing_file` for all or nothing. Raises `OSError` when it cannot
    be written, and `InputError` for an image that the format cannot hold.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    code = voxels.dtype.str[1:]
    if voxels.ndim != 3 or code not in _TYPES:
        raise InputError(f"cannot write {path}: an image of {voxels.dtype} in {voxels.ndim} dimensions")
    geometry = Geometry.of(image)
    name = path.name.lower()
    with path.open("wb") as file:
        if name.endswith(".nrrd"):
            file.write(_nrrd_header(geometry, code))
            _write_compressed(file, voxels)
        elif name.endswith(".nii.gz"):
            _write_compressed(file, voxels, _nifti_header(geometry, code, path))
        elif name.endswith(".nii"):
            file.write(_nifti_header(geometry, code, path))
            for slab in _slabs(voxels):
                file.write(slab)
        elif name.endswith(".mha"):
            data = zlib.compress(b"".join(_slabs(voxels)), COMPRESSION_LEVEL)
            file.write(_metaimage_header(geometry, code, len(data)))
            file.write(data)
        else:
            raise InputError(f"cannot write {path}: images end in {', '.join(WRITABLE_SUFFIXES)}")


def _write_compressed(file: BinaryIO, voxels: npt.NDArray[np.generic], before: bytes = b"") -> None:
    compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    file.write(compressor.compress(before))
    for slab in _slabs(voxels):
        file.write(compressor.compress(slab))
    file.write(compressor.flush())


def _slabs(voxels: npt.NDArray[np.generic]) -> Iterator[memoryview]:
    """Some slices at a time, little-endian."""
    thickness = max(1, SLAB_BYTES // max(1, voxels[:1].nbytes))
    for z in range(0, len(voxels), thickness):
        yield np.ascontiguousarray(voxels[z : z + thickness], voxels.dtype.newbyteorder("<")).data.cast("B")


def _nrrd_header(geometry: Geometry, code: str) -> bytes:
    axes = geometry.matrix[:3, :3].T
    lines = [
        "NRRD0004",
        f"type: {_TYPES[code][0]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, geometry.size))}",
        f"space directions: {' '.join(map(_vector, axes))}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(geometry.origin)}",
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _vector(values: npt.ArrayLike) -> str:
    return "(" + ",".join(repr(float(v)) for v in np.asarray(values)) + ")"


def _nifti_header(geometry: Geometry, code: str, path: Path) -> bytes:
    """348 bytes and four for "no extension"; qform and sform say the same, in RAS mm."""
    from scipy.spatial.transform import Rotation

    if max(geometry.size) > _MOST_NIFTI_VOXELS:
        raise InputError(
            f"cannot write {path}: NIfTI holds {_MOST_NIFTI_VOXELS} voxels along an axis; use .nrrd"
        )
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.matrix
    axes = ras[:3, :3] / np.asarray(geometry.spacing)
    handed = 1.0 if np.linalg.det(axes) > 0 else -1.0
    b, c, d, a = Rotation.from_matrix(axes * (1, 1, handed)).as_quat()
    b, c, d = (b, c, d) if a >= 0 else (-b, -c, -d)
    bits = np.dtype(code).itemsize * 8
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *geometry.size, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _TYPES[code][1], bits)
    struct.pack_into("<8f", header, 76, handed, *geometry.spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)  # where the voxels begin, slope, intercept
    header[123] = 2  # mm
    struct.pack_into("<2h", header, 252, 1, 1)  # both forms: the scanner's coordinates
    struct.pack_into("<6f", header, 256, b, c, d, *ras[:3, 3])
    struct.pack_into("<12f", header, 280, *ras[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _metaimage_header(geometry: Geometry, code: str, compressed: int) -> bytes:
    def numbers(values: npt.ArrayLike) -> str:
        return " ".join(repr(float(v)) for v in np.asarray(values).ravel())

    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {compressed}",
        f"TransformMatrix = {numbers(np.reshape(geometry.direction, (3, 3)).T)}",
        f"Offset = {numbers(geometry.origin)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {numbers(geometry.spacing)}",
        f"DimSize = {' '.join(map(str, geometry.size))}",
        f"ElementType = {_TYPES[code][2]}",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode()
