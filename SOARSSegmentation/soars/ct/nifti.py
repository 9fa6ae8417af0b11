"""NIfTI files: the voxels, and their position according to a header that may give it twice, once, or not at all.

A NIfTI header carries two transforms from voxels to the patient, the qform (a rotation with voxel sizes) and the sform
(any matrix), each with a code that says whether it counts. nibabel, FSL, SPM, AFNI and nnU-Net (with nibabel) take the
sform, ITK and what is built on it often the qform. As long as the two agree nobody notices; where they do not, left
and right may be swapped between programs. So both are read here and compared.
Source: nifti1.h and nifti2.h (methods 1, 2 and 3). Everything returned is LPS mm; NIfTI's own axes are RAS.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.ct.axes import TOLERANCE_VOXELS, check_skew, squared
from soars.errors import InputError
from soars.headers.memory import check_memory

FloatArray = npt.NDArray[np.float64]
#: The two transforms contradict each other when a corner of the volume differs by this part of the smallest voxel.
CONTRADICTION_VOXELS = 0.5
#: DEFLATE cannot do better than this: a compressed file cannot hold more bytes than its own times this.
MOST_COMPRESSION = 1040
_SCANNER = 1
_GZIP_MARK = b"\x1f\x8b"
_BYTES_AT_ONCE = 1 << 24
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_NO_SCALARS = {
    32: "complex values", 1792: "complex values", 2048: "complex values", 128: "3 values per voxel (RGB)",
    2304: "4 values per voxel (RGBA)", 1: "single bits", 1536: "128-bit numbers", 511: "3 values per voxel (RGB)",
}  # fmt: skip
_MM_OF_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_SFORM_READERS = "nibabel, FSL, SPM, AFNI and nnU-Net"
_QFORM_READERS = "ITK, SimpleITK and older versions of 3D Slicer"


@dataclass(frozen=True)
class NiftiHeader:
    """What of a header is used: sizes, type and scale of the voxels, and both transforms (RAS mm, 3 x 4; None where
    the header gives no usable one) with their codes (0: does not count)."""

    dimensions: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    slope: float
    intercept: float
    spacing_mm: tuple[float, float, float]
    qform: FloatArray | None
    sform: FloatArray | None
    qform_code: int
    sform_code: int


def is_nifti(path: Path) -> bool:
    """Whether the content, compressed or not, begins as a NIfTI file does. Raises `OSError`."""
    try:
        with _opened(path) as file:
            return _byte_order(file.read(540)) is not None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False


def read_nifti(path: Path, kind: str) -> tuple[sitk.Image, list[str]]:
    """One volume of NIfTI-1 or NIfTI-2, compressed or not whatever its name, with the file's own values (scaled where
    the header says so), its axes at right angles; and warnings about where it lies.

    ``kind`` is what is wanted, for messages ("a CT"). Raises `InputError` for what is damaged, not one volume of
    numbers, sheared, or placed in two ways that contradict each other.
    """
    damaged = InputError(f"{path}: the NIfTI file is damaged or cut off; copy it again")
    try:
        with _opened(path) as file:
            header = _header(file.read(540), path, kind)
            shape = _volume(header, path, kind)
            packed = isinstance(file, gzip.GzipFile)
            size = math.prod(shape) * header.dtype.itemsize
            if size > path.stat().st_size * (MOST_COMPRESSION if packed else 1):
                raise damaged
            check_memory(size, path)
            values = np.empty(shape[::-1], header.dtype)
            file.seek(header.offset)
            _fill(file, values)
            left = _to_the_end(file)  # where the checksum of what is compressed is
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error, OverflowError) as error:
        raise damaged from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    image = sitk.GetImageFromArray(_scaled(values, header))
    warnings = place_nifti(image, header, path)
    if left:
        count = f"{left} byte{'s' * (left > 1)}"
        warnings.append(f"the file holds {count} more than its header says; check that it is whole")
    return image, warnings


def _to_the_end(file: BinaryIO) -> int:
    """How many bytes are left."""
    left = 0
    while chunk := file.read(_BYTES_AT_ONCE):
        left += len(chunk)
    return left


def place_nifti(image: sitk.Image, header: NiftiHeader, path: Path) -> list[str]:
    """Give the image the place that its header says; returns warnings, raises `InputError` for a contradiction."""
    warnings: list[str] = []
    matrix = _chosen(header, path, warnings)
    lps = _RAS_TO_LPS @ matrix
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    direction, origin = squared(lps[:, :3] / spacing, spacing, lps[:, 3], image.GetSize(), path, warnings)
    image.SetSpacing(
        [float(f"{v:.7g}") for v in spacing]
    )  # single precision in the file: 0.9, not 0.89999998
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(origin.tolist())
    return warnings


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MARK
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


def _byte_order(raw: bytes) -> str | None:
    if len(raw) < 348:
        return None
    return next((o for o in "<>" if struct.unpack_from(o + "i", raw)[0] in (348, 540)), None)


def _header(raw: bytes, path: Path, kind: str) -> NiftiHeader:
    order = _byte_order(raw)
    if order is None:
        raise InputError(f"{path}: is not a NIfTI file, whatever its name says")
    second = struct.unpack_from(order + "i", raw)[0] == 540
    mark = raw[4:8] if second else raw[344:348]
    if mark in (b"ni1\0", b"ni2\0"):
        raise InputError(
            f"{path}: is only the header of a NIfTI pair; save the image as one .nii.gz or .nrrd"
        )
    if second:
        code, dim = struct.unpack_from(order + "h", raw, 12)[0], struct.unpack_from(order + "8q", raw, 16)
        pixdim = struct.unpack_from(order + "8d", raw, 104)
        offset, slope, intercept = struct.unpack_from(order + "qdd", raw, 168)
        codes = struct.unpack_from(order + "ii", raw, 344)
        numbers = struct.unpack_from(order + "18d", raw, 352)
        unit = struct.unpack_from(order + "i", raw, 500)[0]
    else:
        code, dim = struct.unpack_from(order + "h", raw, 70)[0], struct.unpack_from(order + "8h", raw, 40)
        pixdim = struct.unpack_from(order + "8f", raw, 76)
        offset, slope, intercept = struct.unpack_from(order + "3f", raw, 108)
        codes = struct.unpack_from(order + "hh", raw, 252)
        numbers = struct.unpack_from(order + "18f", raw, 256)
        unit = raw[123]
    if code in _NO_SCALARS:
        raise InputError(f"{path}: has {_NO_SCALARS[code]}, so it is not {kind}")
    if (
        code not in _TYPES
        or not 1 <= dim[0] <= 7
        or min(dim[1 : 1 + dim[0]]) < 1
        or not math.isfinite(offset)
    ):
        raise InputError(f"{path}: the NIfTI file is damaged: its type or size is invalid; copy it again")
    mm = _MM_OF_UNIT.get(unit & 7, 1.0)
    spacing = np.abs(np.array(pixdim[1:4], float)) * mm
    quaternion, shift = np.array(numbers[:3]), np.array(numbers[3:6]) * mm
    return NiftiHeader(
        dimensions=tuple(int(n) for n in dim[1 : 1 + dim[0]]),
        dtype=np.dtype(order + _TYPES[code]),
        offset=max(int(offset), 544 if second else 352),
        slope=float(slope),
        intercept=float(intercept),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        qform=_qform(quaternion, -1.0 if pixdim[0] < 0 else 1.0, spacing, shift),
        sform=_usable(np.reshape(numbers[6:18], (3, 4)).astype(float) * mm),
        qform_code=max(int(codes[0]), 0),
        sform_code=max(int(codes[1]), 0),
    )


def _volume(header: NiftiHeader, path: Path, kind: str) -> tuple[int, int, int]:
    """Size along x, y and z, when the file holds one volume."""
    size = header.dimensions
    if len(size) < 3 or any(n > 1 for n in size[3:]):
        raise InputError(
            f"{path}: has {len(size)} dimensions ({' x '.join(map(str, size))}); {kind} has three"
        )
    return size[0], size[1], size[2]


def _fill(file: BinaryIO, values: npt.NDArray[np.generic]) -> None:
    view = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = file.readinto(view[done : done + _BYTES_AT_ONCE])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count


def _scaled(values: npt.NDArray[np.generic], header: NiftiHeader) -> npt.NDArray[np.generic]:
    """The values in the machine's byte order, with slope and intercept where there are any (nifti1.h: a slope of 0
    means none)."""
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
    slope, intercept = header.slope, header.intercept
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept) or (slope, intercept) == (1, 0):
        return values
    exact = values.dtype.itemsize <= 2 or values.dtype == np.float32
    scaled: npt.NDArray[np.floating] = values.astype(np.float32 if exact else np.float64)
    scaled *= slope
    scaled += intercept
    return scaled


def _qform(
    quaternion: FloatArray, handed: float, spacing: FloatArray, shift: FloatArray
) -> FloatArray | None:
    """The rotation of a quaternion (b, c, d), its third axis turned round where ``handed`` is -1 (method 2)."""
    length = float(quaternion @ quaternion)
    if not math.isfinite(length) or length > 1 + 1e-3:
        return None
    b, c, d = quaternion / max(math.sqrt(length), 1.0)
    a = math.sqrt(max(1 - (b * b + c * c + d * d), 0.0))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return _usable(np.column_stack([turn * (spacing * [1, 1, handed]), shift]))


def _usable(matrix: FloatArray) -> FloatArray | None:
    """The matrix when it is a place in space: finite, and with a volume."""
    if not np.isfinite(matrix).all():
        return None
    lengths = np.linalg.norm(matrix[:, :3], axis=0)
    if (lengths <= 0).any() or abs(np.linalg.det(matrix[:, :3] / lengths)) < 1e-3:
        return None
    return matrix


def _chosen(header: NiftiHeader, path: Path, warnings: list[str]) -> FloatArray:
    """The transform to be used (RAS mm, 3 x 4)."""
    wanted = {"sform": header.sform_code, "qform": header.qform_code}
    found = {"sform": header.sform, "qform": header.qform}
    counting = {name: found[name] for name, code in wanted.items() if code > 0}
    for name, matrix in counting.items():
        if matrix is None and len(counting) > 1:
            warnings.append(f"its {name} is not usable (it has no volume or is not finite) and was ignored")
    usable = {name: matrix for name, matrix in counting.items() if matrix is not None}
    if len(usable) == 2:
        return _agreed(header, usable["sform"], usable["qform"], path, warnings)
    if usable:
        ((name, matrix),) = usable.items()
        if name == "sform":
            _check_spacing(header, matrix, path)
        return matrix
    spacing = np.array(header.spacing_mm)
    if counting or not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise InputError(
            f"{path}: its geometry (sform, qform or voxel size) is not usable; export the image again"
        )
    warnings.append(
        f"the file does not say how the patient lies in it (sform and qform codes are 0): x was taken to "
        f"run to the left and y to the back, as ITK does, where {_SFORM_READERS} take x to run to the right or refuse; "
        f"check left and right"
    )
    return np.column_stack([_RAS_TO_LPS * spacing, np.zeros(3)])


def _agreed(
    header: NiftiHeader, sform: FloatArray, qform: FloatArray, path: Path, warnings: list[str]
) -> FloatArray:
    """The one of two transforms that counts, when they agree or one is the scanner's own. Where left and right may be
    swapped between programs, nothing is guessed."""
    codes = header.sform_code, header.qform_code
    if codes[0] == _SCANNER or codes[1] != _SCANNER:
        check_skew(sform[:, :3] / np.linalg.norm(sform[:, :3], axis=0), path)
    smallest = float(np.linalg.norm(qform[:, :3], axis=0).min())
    apart = _apart_mm(_without_shear(sform), qform, header.dimensions)
    if apart <= TOLERANCE_VOXELS * smallest:
        return sform
    mirrored = bool(((sform[:, :3] * qform[:, :3]).sum(axis=0) < 0).any())
    what = f"sform and qform contradict each other by up to {apart:.3g} mm" + (
        ", and one is mirrored or turned relative to the other (left and right may be swapped)"
        if mirrored
        else ""
    )
    readers = f"{_SFORM_READERS} take the sform, {_QFORM_READERS} the qform"
    if apart <= CONTRADICTION_VOXELS * smallest:
        warnings.append(f"{what}: the sform was taken ({readers})")
        return sform
    if mirrored or codes[0] == codes[1] or _SCANNER not in codes:
        raise InputError(
            f"{path}: {what}; {readers}; save the image again with the one that is right in both"
        )
    name, matrix = ("sform", sform) if codes[0] == _SCANNER else ("qform", qform)
    warnings.append(f"{what}: the {name} was taken, whose code says that it is the scanner's ({readers})")
    return matrix


def _check_spacing(header: NiftiHeader, sform: FloatArray, path: Path) -> None:
    """Refuse an sform whose voxels have another size than the header says: ITK takes the one, nibabel the other."""
    lengths, said = np.linalg.norm(sform[:, :3], axis=0), np.array(header.spacing_mm)
    check_skew(sform[:, :3] / lengths, path)
    if not np.isfinite(said).all() or (said <= 0).any():
        return  # not said at all
    off = np.abs(lengths - said) * (np.array(header.dimensions[:3]) - 1)
    if (off > CONTRADICTION_VOXELS * lengths).any():
        raise InputError(
            f"{path}: its voxels are {_shown(lengths)} mm by the sform but {_shown(said)} mm by the voxel sizes "
            f"(pixdim); save the image again with the sizes that are right"
        )


def _shown(values: FloatArray) -> str:
    return " x ".join(f"{v:.4g}" for v in values)


def _without_shear(matrix: FloatArray) -> FloatArray:
    """The transform with the nearest perpendicular axes: a qform cannot hold any other."""
    spacing = np.linalg.norm(matrix[:, :3], axis=0)
    left, _, right = np.linalg.svd(matrix[:, :3] / spacing)
    return np.column_stack([left @ right * spacing, matrix[:, 3]])


def _apart_mm(a: FloatArray, b: FloatArray, size: tuple[int, ...]) -> float:
    """The largest distance that a corner voxel has between the two transforms."""
    ends = np.array([[*(np.array(c) * (np.array(size[:3]) - 1)), 1] for c in np.ndindex(2, 2, 2)], float)
    return float(np.linalg.norm(ends @ (a - b).T, axis=1).max())
