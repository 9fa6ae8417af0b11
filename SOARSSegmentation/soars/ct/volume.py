"""The pixels of a CT series as int16 HU.

Uncompressed 16-bit slices, which nearly all planning CTs are, are read straight into their place. Where GDCM, inside
SimpleITK, would return what is to be shown and not what is stored (it inverts MONOCHROME1, and knows no Modality LUT),
and where a file holds several frames, stored values are decoded first. Everything else is SimpleITK's, which applies
each file's own slope and intercept. HU are stored value times slope plus intercept in every case (PS3.3, C.11.1.1.2).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from soars.ct.decode import NATIVE_SYNTAXES, decoding, stored_frames
from soars.ct.dicom_files import Header, read_dataset, readable
from soars.ct.hounsfield import HIGHEST_HU, LOWEST_HU, PADDING_ABOVE_HU, check_range, to_int16_hu
from soars.ct.itk_messages import itk_messages
from soars.ct.stack import Stack
from soars.errors import InputError
from soars.headers.frames import check_matrix, check_slice
from soars.headers.memory import check_memory

#: Slices that SimpleITK reads at a time, which bounds the memory beside the result (values need not fit in int16).
SLICES_AT_ONCE = 32
_PLAIN_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
Rescale = tuple[float, float, bool]


@dataclass
class _Found:
    """What the slices held: extremes in HU before clipping, values too high, padding."""

    low: float = np.inf
    high: float = -np.inf
    too_high: int = 0
    padded: int = 0

    def add(self, other: _Found) -> None:
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.too_high += other.too_high
        self.padded += other.padded


def _rescale(header: Header) -> tuple[float, float, bool]:
    """Slope, intercept, and whether the file declares both (or a Modality LUT Sequence in their place)."""
    if header.values.get("ModalityLUTSequence"):
        return 1.0, 0.0, True
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        value, text = header.number(keyword), header.text(keyword)
        if text and (value is None or (keyword == "RescaleSlope" and value == 0)):
            raise InputError(f"{header.path}: {readable(keyword)} is {text!r}, so HU cannot be computed")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    declared = slope is not None and intercept is not None
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept, declared


def read_volume(headers: Sequence[Header], stack: Stack, source: str, warnings: list[str]) -> sitk.Image:
    """All slices as one int16 HU image, each file's own slope and intercept applied."""
    rescale = [_rescale(h) for h in headers]
    declared = [r[2] for r in rescale]
    if not all(declared):
        if any(declared):
            path = headers[declared.index(False)].path
            raise InputError(
                f"{path}: has no Rescale Slope or Intercept, but other slices of the series have"
            )
        warnings.append("the CT has no Rescale Slope and Intercept: its stored values were taken as HU")
    (usual, most), *others = Counter(r[:2] for r in rescale).most_common()
    # a scale for every slice is usual with some scanners; a few scales, of which none may prevail, are not
    if others and (2 * most > len(rescale) or 2 * (len(others) + 1) <= len(rescale)):
        odd = next(h.path.name for h, r in zip(headers, rescale, strict=True) if r[:2] != usual)
        warnings.append(
            f"Rescale Slope or Intercept of {count(len(rescale) - most, 'slice')} (for example {odd}) differs from "
            f"that of the others: check that their HU agree"
        )
    rows, columns = (int(headers[0].number(k) or 0) for k in ("Rows", "Columns"))
    check_matrix(rows, columns, headers[0].path)
    check_memory(2 * len(headers) * rows * columns, source)
    values = np.empty((len(headers), rows, columns), np.int16)
    found = _read_slices(headers, rescale, values)
    padded, too_high = found.padded, found.too_high
    if padded:
        warnings.append(f"padding outside the field of view ({count(padded, 'voxel')}) was set to air")
    if too_high:
        warnings.append(f"{count(too_high, 'voxel')} above 32767 HU had to be set to 32767")
    warnings.extend(check_range(found.low, found.high, source, declared=all(declared)))
    result = sitk.GetImageFromArray(values)
    between_rows, between_columns = headers[0].numbers("PixelSpacing", 2)  # that is: y, x
    result.SetSpacing((between_columns, between_rows, stack.slice_spacing_mm))
    result.SetOrigin(stack.origin)
    result.SetDirection(stack.direction)
    return result


def slice_hu(header: Header) -> np.ndarray:
    """One slice as int16 HU, shape (y, x)."""
    shape = (1, *(int(header.number(k) or 0) for k in ("Rows", "Columns")))
    values = np.empty(shape, np.int16)
    _read_slices([header], [_rescale(header)], values)
    return values[0]


def _read_slices(headers: Sequence[Header], rescale: Sequence[Rescale], values: np.ndarray) -> _Found:
    """All slices into ``values``, (z, y, x) int16, each by the way that its kind needs."""
    found = _Found()
    plain: list[int] = []
    stored: list[int] = []
    other: list[int] = []
    for z, (header, scale) in enumerate(zip(headers, rescale, strict=True)):
        (plain if _is_plain(header, scale) else stored if _is_special(header) else other).append(z)
    if plain:
        with ThreadPoolExecutor(min(4, len(plain))) as pool:
            for part in pool.map(lambda z: _read_plain(headers[z], rescale[z], values[z]), plain):
                found.add(part)
    for path in dict.fromkeys(headers[z].path for z in stored):
        found.add(_read_stored(headers, rescale, values, [z for z in stored if headers[z].path == path]))
    if other:
        _read_any(headers, rescale, values, other, found)
    return found


def _is_plain(header: Header, rescale: Rescale) -> bool:
    """Whether HU are the stored 16-bit integers plus a whole number."""
    slope, intercept, _ = rescale
    bits = header.number("BitsStored") or 0
    return (
        header.transfer_syntax in _PLAIN_SYNTAXES
        and header.number("BitsAllocated") == 16
        and 8 < bits <= 16
        and header.number("HighBit") == bits - 1
        and header.number("PixelRepresentation") in (0, 1)
        and header.text("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
        and not header.values.get("ModalityLUTSequence")
        and slope == 1
        and intercept.is_integer()
        and abs(intercept) <= HIGHEST_HU
    )


def _is_special(header: Header) -> bool:
    """Whether SimpleITK would return something else than the stored values on their scale.

    GDCM damages values that use some bits of 32 only, and takes those in the highest bits for ones in the lowest."""
    bits, high = header.number("BitsStored"), header.number("HighBit")
    aside = bits is not None and high is not None and high != bits - 1
    odd = aside or header.number("BitsAllocated") not in (8, 16)
    return (
        (odd and header.transfer_syntax in NATIVE_SYNTAXES)
        or header.text("PhotometricInterpretation") != "MONOCHROME2"
        or bool(header.values.get("ModalityLUTSequence"))
        or (header.number("NumberOfFrames") or 1) > 1
    )


def _read_plain(header: Header, rescale: Rescale, out: np.ndarray) -> _Found:
    """One uncompressed slice into ``out``, (y, x) int16."""
    try:
        with header.path.open("rb") as file:
            file.seek(header.pixels_at)
            start = file.read(12)
            if start[4:6] not in (b"OW", b"OB") or header.transfer_syntax == _PLAIN_SYNTAXES[0]:
                file.seek(header.pixels_at + 8)
            file.seek(header.frame * out.nbytes, 1)
            if struct.unpack_from("<HH", start) != (0x7FE0, 0x0010) or file.readinto(out.data) != out.nbytes:
                raise OSError(0, "it is cut off")
    except (OSError, struct.error) as error:
        raise InputError(f"{header.path}: its pixels cannot be read; copy or export it again") from error
    slope, intercept, _ = rescale
    signed = header.number("PixelRepresentation") == 1
    stored = out.view("<i2" if signed else "<u2")
    unused = 16 - int(header.number("BitsStored") or 16)
    if unused:  # what is in the bits above may be anything (PS3.5, 8.1.1)
        np.left_shift(stored, unused, out=stored)
        np.right_shift(stored, unused, out=stored)  # restores the sign, if there is one
    least, most, offset = int(stored.min()), int(stored.max()), int(intercept)
    found = _Found(least + offset, most + offset)
    padding = _padding_hu(header, slope, intercept)
    tight = padding is not None and padding[1] > LOWEST_HU
    if tight or found.high > HIGHEST_HU or found.low < -HIGHEST_HU - 1:
        hu = stored.astype(np.int32) + offset
        found.padded = _replace_padding(hu, padding, hu)
        found.low, found.high = float(hu.min()), float(hu.max())
        out[...], found.too_high, _ = to_int16_hu(hu)
        return found
    # modulo 65536, which is right for every result that fits in int16
    np.add(out, np.array(offset, np.int64).astype(np.int16), out=out)
    if found.low < LOWEST_HU:
        np.maximum(out, LOWEST_HU, out=out)
    return found


def _read_stored(
    headers: Sequence[Header], rescale: Sequence[Rescale], values: np.ndarray, chosen: Sequence[int]
) -> _Found:
    """The slices ``chosen``, all of one file, from its stored values."""
    path, found = headers[chosen[0]].path, _Found()
    try:
        dataset = read_dataset(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    frames = stored_frames(dataset, path)
    for z in chosen:
        header, (slope, intercept, _) = headers[z], rescale[z]
        stored = frames[header.frame]
        if header.values.get("ModalityLUTSequence"):
            hu = _through_lut(stored, dataset, path)
            padding = _padding_stored(header)
            compared = stored
        else:
            hu = stored * np.float64(slope) + intercept
            padding, compared = _padding_hu(header, slope, intercept), hu
        found.padded += _replace_padding(hu, padding, compared)
        values[z], too_high, _ = to_int16_hu(hu)
        found.add(_Found(float(hu.min()), float(hu.max()), too_high))
    return found


def _through_lut(stored: np.ndarray, dataset: Dataset, path: Path) -> np.ndarray:
    """Stored values through the Modality LUT Sequence, which takes the place of slope and intercept (C.11.1)."""
    try:
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    except Exception as error:  # pydicom raises whatever a bad table leads to
        raise InputError(
            f"{path}: its Modality LUT Sequence cannot be used; export it with slope and intercept"
        ) from error


def _read_any(
    headers: Sequence[Header],
    rescale: Sequence[Rescale],
    values: np.ndarray,
    chosen: Sequence[int],
    found: _Found,
) -> None:
    """The slices ``chosen``, of any kind, by SimpleITK."""
    whole = all(rescale[z][0].is_integer() and rescale[z][1].is_integer() for z in chosen)
    for start in range(0, len(chosen), SLICES_AT_ONCE):
        part = chosen[start : start + SLICES_AT_ONCE]
        for z in part:
            size = values.shape[1], values.shape[2], int(headers[z].number("BitsAllocated") or 0)
            check_slice(headers[z].path, headers[z].pixels_at, headers[z].transfer_syntax, size)
        paths, kind = [headers[z].path for z in part], sitk.sitkInt32 if whole else sitk.sitkFloat32
        with decoding(paths[0] if len(paths) == 1 else paths[0].parent, len(part) * values[0].nbytes):
            image = read_files(paths, kind)
        hu = sitk.GetArrayFromImage(image)
        if hu.shape != (len(part), *values.shape[1:]):
            raise InputError(f"{headers[part[0]].path}: its pixels have another size than its header says")
        for i, z in enumerate(part):
            slope, intercept, _ = rescale[z]
            found.padded += _replace_padding(hu[i], _padding_hu(headers[z], slope, intercept), hu[i])
        values[list(part)], too_high, _ = to_int16_hu(hu)
        found.add(_Found(float(hu.min()), float(hu.max()), too_high))


def _padding_stored(header: Header) -> tuple[float, float] | None:
    """The range of stored values that is padding, both ends included (C.7.5.1.1.2); None where there is none."""
    ends = [header.number(k) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    signed = header.number("PixelRepresentation") == 1
    known = [end for end in ends if end is not None]
    if signed:  # written as unsigned, as many do, though the pixels are signed
        known = [end - 0x10000 if end >= 0x8000 else end for end in known]
    elif header.number("BitsAllocated") == 16:  # and the other way round
        known = [end + 0x10000 if end < 0 else end for end in known]
    return min(known), max(known)


def _padding_hu(header: Header, slope: float, intercept: float) -> tuple[float, float] | None:
    """The same range in HU."""
    stored = _padding_stored(header)
    if stored is None:
        return None
    low, high = sorted(v * slope + intercept for v in stored)
    return low, high


def _replace_padding(hu: np.ndarray, padding: tuple[float, float] | None, compared: np.ndarray) -> int:
    """Set padding in one slice (changed in place) to air; returns how many voxels.

    ``compared`` are the values that the range ``padding`` is about. Below `LOWEST_HU` clipping does it. Above the HU of
    anything real every such voxel is padding. Between, the value may be real too (0 is water), so only the regions that
    touch a corner are: padding surrounds a round field of view.
    """
    if padding is None or (padding[1] <= LOWEST_HU and compared is hu):
        return 0
    low, high = padding
    mask = (compared > low - 0.5) & (compared < high + 0.5)
    if low < PADDING_ABOVE_HU or compared is not hu:
        if not mask[[0, 0, -1, -1], [0, -1, 0, -1]].all():
            return 0
        from scipy import ndimage

        regions, _ = ndimage.label(mask)
        mask = np.isin(regions, np.unique(regions[[0, 0, -1, -1], [0, -1, 0, -1]]))
    hu[mask] = LOWEST_HU
    return int(np.count_nonzero(mask))


def read_files(paths: Sequence[Path], pixel_type: int) -> sitk.Image:
    """The files as one image, z in the given order; its geometry is not to be used."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(p) for p in paths])
    reader.SetOutputPixelType(pixel_type)
    try:
        with itk_messages():
            return reader.Execute()
    except RuntimeError as error:
        if len(paths) > 1:  # find the one that fails
            for path in paths:
                read_files([path], pixel_type)
        raise InputError(f"{paths[0]}: its pixels cannot be decoded; copy or export it again") from error


def count(n: int, noun: str) -> str:
    """``1 slice``, ``3 slices``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
