"""Reading a CT series from a folder of DICOM files: find it, check it, read it as int16 HU.

One pass over the headers decides everything (which series, which order, what is wrong); SimpleITK then reads the pixels
of the ordered files, which is twice as fast as letting it sort and four times as fast as pydicom.
"""

from __future__ import annotations

import logging
import os
import struct
import warnings as python_warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ..errors import InputError
from ..hounsfield import LOWEST_HU, PADDING_ABOVE_HU, check_range, to_int16_hu
from .stack import Plane, Stack, regular_stack, same_position

log = logging.getLogger(__name__)

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
DICOM_DIRECTORY = "1.2.840.10008.1.3.10"
#: Transfer syntaxes that GDCM, inside SimpleITK, decodes: native, deflated, RLE, JPEG, JPEG-LS, JPEG 2000.
READABLE_TRANSFER_SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
LOSSY_TRANSFER_SYNTAXES = ("50", "51", "81", "91")
#: Slices read at a time when their values may not fit in int16, which bounds the memory beside the result.
SLICES_AT_ONCE = 32
#: Pixel spacings of one series may differ by this much (decimal strings of different length).
PIXEL_SPACING_TOLERANCE_MM = 1e-4
#: The slice thickness may be this much smaller than the slice distance before tissue between slices is unseen.
THIN_SLICE_FACTOR = 1.5
#: Files below a folder that is not itself a series are searched, but not more than this.
MOST_FILES = 20000

_HEADER_TAGS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "PatientID",
    "SliceThickness", "GantryDetectorTilt", "StudyInstanceUID", "SeriesInstanceUID", "AcquisitionNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PixelPaddingValue", "RescaleIntercept", "RescaleSlope", "RescaleType",
    "LossyImageCompression",
]  # fmt: skip


@dataclass(frozen=True)
class SeriesSummary:
    """One series of a folder: what a user needs to choose. `usable` says whether it can be a planning CT."""

    series_uid: str
    modality: str
    description: str
    kind: str
    n_files: int
    usable: bool


@dataclass(frozen=True)
class CtSeries:
    """The DICOM side of a CT that was read: what an RTSTRUCT must reference.

    `files` and `sop_instance_uids` are in slice order: index z of the image is index z here. `header` is the first
    file's dataset without pixels.
    """

    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    description: str
    modality: str
    files: list[Path]
    sop_instance_uids: list[str]
    header: Dataset


@dataclass(frozen=True)
class _Slice:
    """One file's header as far as reading needs it, and where its pixels begin (-1: there are none)."""

    path: Path
    data: Dataset
    transfer_syntax: str
    pixels_at: int

    def text(self, keyword: str) -> str:
        value = self.data.get(keyword)
        return "" if value is None else str(value).strip()


@dataclass
class _Folder:
    """What a folder holds: DICOM files, how many other files, and the files that are DICOM but unreadable."""

    path: Path
    slices: list[_Slice]
    others: list[Path]
    damaged: list[tuple[Path, str]]


# ---------------------------------------------------------------------------------------------------------------------
# public


def list_series(folder: Path | str) -> list[SeriesSummary]:
    """All series under `folder`, usable CT series first. Raises `InputError` when there is no DICOM file at all."""
    return [_summary(uid, slices) for uid, slices in _by_series(_scan(Path(folder)))]


def read_series(folder: Path | str, series_uid: str | None = None) -> tuple[sitk.Image, CtSeries, list[str]]:
    """Read the CT series of `folder` as int16 HU with LPS geometry, its slices in order along their normal.

    Without `series_uid` the folder must hold exactly one CT series; localizers and other kinds are left out with a
    warning. Returns the image, its DICOM side, and warnings about what is odd. Raises `InputError` with one sentence
    for everything that would make contours wrong: see `soars.dicom.stack` and the checks below.
    """
    folder = Path(folder)
    warnings: list[str] = []
    found = _scan(folder)
    slices = _choose(found, series_uid, warnings)
    slices = _without_localizers(slices, warnings)
    _check_readable(found, slices)
    _check_same(slices)
    slices = _without_duplicates(slices, warnings)
    planes = [_plane(s) for s in slices]
    try:
        stack = regular_stack(planes)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    warnings.extend(stack.warnings)
    slices = [slices[i] for i in stack.order]
    _note_oddities(slices, stack, warnings)
    image = _read_pixels(slices, stack, str(folder), warnings)
    return image, _series(slices, warnings), warnings


def is_dicom(path: Path) -> bool:
    """Whether the file looks like DICOM: the DICM mark, or an old file that begins with group 0002 or 0008."""
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:132] == b"DICM":
        return True
    # without preamble: group 0008 (or 0002), a low element, and either a VR in letters or a small length
    return len(start) >= 8 and start[:2] in (b"\x08\x00", b"\x02\x00") and start[3] == 0 and (
        start[4:6].isalpha() and start[4:6].isupper() or start[6:8] == b"\x00\x00"
    )  # fmt: skip


def series_of_file(path: Path) -> str:
    """The series UID of one DICOM file. Raises `InputError` when the file cannot be read."""
    return _read_header(path).text("SeriesInstanceUID")


# ---------------------------------------------------------------------------------------------------------------------
# finding


def _scan(folder: Path) -> _Folder:
    """Read the header of every DICOM file in `folder`; when it has none itself, of those below it."""
    if not folder.exists():
        raise InputError(f"{folder}: there is no such folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    try:
        direct = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error
    found = _scan_files(folder, direct)
    if not found.slices and not found.damaged:
        below = []
        for root, folders, names in os.walk(folder):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            if Path(root) != folder:
                below += [Path(root) / name for name in sorted(names) if not name.startswith(".")]
            if len(below) > MOST_FILES:
                raise InputError(
                    f"{folder}: more than {MOST_FILES} files below it; give the folder of one CT series"
                )
        deeper = _scan_files(folder, below)
        found = _Folder(folder, deeper.slices, found.others + deeper.others, deeper.damaged)
    if not found.slices:
        if found.damaged:
            path, reason = found.damaged[0]
            raise InputError(f"{path}: {reason}")
        if not found.others:
            raise InputError(f"{folder}: the folder is empty")
        raise InputError(
            f"{folder}: holds no DICOM file ({len(found.others)} other files); give a folder with a CT"
        )
    return found


def _scan_files(folder: Path, paths: Iterable[Path]) -> _Folder:
    found = _Folder(folder, [], [], [])
    for path in paths:
        try:
            if path.stat().st_size == 0:
                # an empty file with a DICOM name is a slice that was lost on the way
                if path.suffix.lower() in (".dcm", ".ima"):
                    found.damaged.append((path, "the file is empty (0 bytes); copy the series again"))
                else:
                    found.others.append(path)
            elif not is_dicom(path):
                found.others.append(path)
            else:
                header = _read_header(path)
                if header.data.get("SOPClassUID") != DICOM_DIRECTORY and path.name.upper() != "DICOMDIR":
                    found.slices.append(header)
        except InputError as error:
            found.damaged.append((path, str(error).removeprefix(f"{path}: ")))
        except OSError as error:
            found.damaged.append((path, f"cannot be read: {error.strerror}"))
    return found


def _read_header(path: Path) -> _Slice:
    """The header of one DICOM file. Raises `InputError` when it is damaged."""
    try:
        with (
            path.open("rb") as file,
            pydicom_config.disable_value_validation(),
            python_warnings.catch_warnings(),
        ):
            python_warnings.simplefilter("ignore")
            data = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(_HEADER_TAGS)
            )
            at = file.tell()
            more = bool(file.read(1))
        for keyword in _HEADER_TAGS:  # pydicom converts lazily: a value that cannot be converted shows here
            try:
                data.get(keyword)
            except Exception as error:
                raise InputError(
                    f"{path}: the value of {_readable(keyword)} cannot be read ({error})"
                ) from error
        syntax = str(getattr(data.file_meta, "TransferSyntaxUID", ""))
        if not syntax:
            syntax = "1.2.840.10008.1.2" if data.original_encoding[0] else "1.2.840.10008.1.2.1"
    except (InputError, OSError):
        raise
    except Exception as error:  # pydicom raises whatever the damage leads to
        raise InputError(f"{path}: the DICOM file is damaged or cut off ({error}); copy it again") from error
    if not len(data):
        raise InputError(f"{path}: the DICOM file is damaged or cut off (it has no header); copy it again")
    return _Slice(path, data, syntax, at if more else -1)


def _by_series(found: _Folder) -> list[tuple[str, list[_Slice]]]:
    """Series UID and files of every series, usable CT series first, then by number of files."""
    groups: dict[str, list[_Slice]] = {}
    for item in found.slices:
        groups.setdefault(item.text("SeriesInstanceUID"), []).append(item)
    return sorted(groups.items(), key=lambda g: (not _summary(*g).usable, -len(g[1]), g[0]))


def _is_ct_slice(item: _Slice) -> bool:
    kind = item.text("SOPClassUID")
    return (kind == CT_IMAGE or (not kind and item.text("Modality") == "CT")) and not _is_localizer(item)


def _is_localizer(item: _Slice) -> bool:
    value = item.data.get("ImageType")
    parts = [value] if isinstance(value, str) else list(value or [])
    return any(str(part).strip().upper() in ("LOCALIZER", "SCOUT", "TOPOGRAM") for part in parts)


def _kind(slices: Sequence[_Slice]) -> str:
    """What a series is, in a few words."""
    classes = {s.text("SOPClassUID") for s in slices}
    if any(_is_ct_slice(s) for s in slices):
        return "CT"
    if all(_is_localizer(s) for s in slices):
        return "localizer"
    if classes & set(ENHANCED_CT):
        return "enhanced multi-frame CT"
    modality = slices[0].text("Modality")
    if modality == "CT" or not modality:
        name = UID(next(iter(classes))).name if next(iter(classes)) else "unknown kind"
        return name.removesuffix(" Storage")
    return modality


def _summary(uid: str, slices: Sequence[_Slice]) -> SeriesSummary:
    kind = _kind(slices)
    first = slices[0]
    return SeriesSummary(
        uid, first.text("Modality"), first.text("SeriesDescription"), kind, len(slices), kind == "CT"
    )


def _choose(found: _Folder, series_uid: str | None, warnings: list[str]) -> list[_Slice]:
    """The files of the one series to read."""
    groups = _by_series(found)
    summaries = [_summary(*g) for g in groups]
    listed = "; ".join(_listed(s) for s in summaries)
    if series_uid is not None:
        for uid, slices in groups:
            if uid == series_uid:
                _refuse_unless_ct(found.path, _summary(uid, slices))
                return slices
        raise InputError(f"{found.path}: holds no series {series_uid}; it holds: {listed}")
    usable = [g for g, s in zip(groups, summaries, strict=True) if s.usable]
    if not usable:
        if len(summaries) == 1:
            _refuse_unless_ct(found.path, summaries[0])
        raise InputError(f"{found.path}: holds no CT series; it holds: {listed}")
    if len(usable) > 1:
        raise InputError(
            f"{found.path}: holds {len(usable)} CT series, choose one by its series UID: {listed}"
        )
    for summary in summaries:
        if not summary.usable:
            warnings.append(f"another series in the folder was left out: {_listed(summary)}")
    if found.others:
        log.info("%d files in %s are not DICOM and were left out", len(found.others), found.path)
    return usable[0][1]


def _refuse_unless_ct(folder: Path, summary: SeriesSummary) -> None:
    if summary.usable:
        return
    if summary.kind == "enhanced multi-frame CT":
        raise InputError(
            f"{folder}: the series is an enhanced multi-frame CT, which this program does not read; export it as "
            f"single-frame CT images"
        )
    raise InputError(f"{folder}: holds no CT but {_listed(summary)}; give a CT series")


def _listed(summary: SeriesSummary) -> str:
    description = f'"{summary.description}", ' if summary.description else ""
    files = f"{summary.n_files} file" + ("s" if summary.n_files != 1 else "")
    return f"{summary.kind} ({description}{files}, UID {summary.series_uid or 'missing'})"


# ---------------------------------------------------------------------------------------------------------------------
# checking


def _without_localizers(slices: list[_Slice], warnings: list[str]) -> list[_Slice]:
    kept = [s for s in slices if _is_ct_slice(s)]
    if len(kept) < len(slices):
        warnings.append(
            f"{len(slices) - len(kept)} localizer or other images inside the CT series were left out"
        )
    return kept


def _check_readable(found: _Folder, slices: Sequence[_Slice]) -> None:
    """Refuse damaged, truncated, multi-frame and colour files, and compressions that nothing here decodes."""
    if found.damaged:
        path, reason = found.damaged[0]
        raise InputError(f"{path}: {reason}")
    for item in slices:
        data, path = item.data, item.path
        for keyword in ("Rows", "Columns", "BitsAllocated"):
            if not item.text(keyword):
                raise InputError(f"{path}: {_readable(keyword)} is missing: the file is no complete CT image")
        if item.transfer_syntax not in READABLE_TRANSFER_SYNTAXES:
            name = UID(item.transfer_syntax).name
            raise InputError(
                f"{path}: compressed as {name}, which cannot be decoded here; export it uncompressed"
            )
        if int(data.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                f"{path}: holds {data.NumberOfFrames} frames; export the CT as single-frame images"
            )
        samples = int(data.get("SamplesPerPixel") or 1)
        if samples != 1 or not item.text("PhotometricInterpretation").startswith("MONOCHROME"):
            kind = item.text("PhotometricInterpretation") or "missing"
            raise InputError(f"{path}: is a colour image (Photometric Interpretation {kind}), not a CT")
        _check_complete(item)


def _check_complete(item: _Slice) -> None:
    """Refuse a file that ends before its pixels do."""
    data, path = item.data, item.path
    if item.transfer_syntax.endswith(".1.99"):
        return  # deflated: positions in the file mean nothing; reading the pixels tells
    cut_off = InputError(f"{path}: the file is cut off inside its pixels; copy it again")
    if item.pixels_at < 0:
        raise InputError(f"{path}: the file holds no pixels, or is cut off before them; copy it again")
    size = path.stat().st_size
    big_endian = item.transfer_syntax.endswith(".1.2.2")
    with path.open("rb") as file:
        file.seek(item.pixels_at)
        start = file.read(12)
        if len(start) < 12:
            raise cut_off
        explicit = start[4:6] in (b"OW", b"OB")
        at = item.pixels_at + (12 if explicit else 8)
        (length,) = struct.unpack(">I" if big_endian else "<I", start[8:12] if explicit else start[4:8])
        if length != 0xFFFFFFFF:
            expected = int(data.Rows) * int(data.Columns) * (int(data.BitsAllocated) // 8)
            if size < at + length or length < expected:
                raise cut_off
            return
        while True:  # items of compressed pixels, up to the delimiter
            file.seek(at)
            head = file.read(8)
            if len(head) < 8:
                raise cut_off
            group, element, length = struct.unpack("<HHI", head)
            if (group, element) == (0xFFFE, 0xE0DD):
                return
            at += 8 + length
            if (group, element) != (0xFFFE, 0xE000) or at > size:
                raise cut_off


def _check_same(slices: Sequence[_Slice]) -> None:
    """Refuse slices that cannot belong together: patient, frame of reference, matrix, pixel spacing."""
    for keyword in ("PatientID", "FrameOfReferenceUID", "Rows", "Columns"):
        values = Counter(s.text(keyword) for s in slices)
        if len(values) > 1:
            rarest = min(values, key=lambda v: values[v])
            path = next(s.path for s in slices if s.text(keyword) == rarest)
            raise InputError(f"{path}: its {_readable(keyword)} differs from the other slices of the series")
    spacings = np.array([_numbers(s, "PixelSpacing", 2) for s in slices])
    if (spacings <= 0).any():
        bad = int(np.argmax((spacings <= 0).any(axis=1)))
        raise InputError(
            f"{slices[bad].path}: Pixel Spacing {slices[bad].text('PixelSpacing')} is not positive"
        )
    differ = np.abs(spacings - np.median(spacings, axis=0)).max(axis=1) > PIXEL_SPACING_TOLERANCE_MM
    if differ.any():
        path = slices[int(np.argmax(differ))].path
        raise InputError(f"{path}: its Pixel Spacing differs from the other slices of the series")


def _numbers(item: _Slice, keyword: str, count: int) -> list[float]:
    """`count` finite numbers of an attribute. Raises `InputError` naming file and attribute."""
    value: Any = item.data.get(keyword)
    try:
        if value is None or value == "" or isinstance(value, str):
            raise ValueError
        numbers = [float(v) for v in (value if count > 1 else [value])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        state = "is missing" if not item.text(keyword) else f"is {item.text(keyword)!r}, not {count} numbers"
        raise InputError(f"{item.path}: {_readable(keyword)} {state}; the slice cannot be placed")
    return numbers


def _plane(item: _Slice) -> Plane:
    position = _numbers(item, "ImagePositionPatient", 3)
    orientation = _numbers(item, "ImageOrientationPatient", 6)
    return Plane(tuple(position), tuple(orientation), item.path.name)  # type: ignore[arg-type]


def _without_duplicates(slices: list[_Slice], warnings: list[str]) -> list[_Slice]:
    """Drop copies of a slice; refuse different slices at one place."""
    planes = [_plane(s) for s in slices]
    dropped: set[int] = set()
    for group in same_position(planes):
        first = sitk.GetArrayFromImage(_read_files([slices[group[0]].path], sitk.sitkFloat32))
        for other in group[1:]:
            moved = np.abs(np.subtract(planes[other].position, planes[group[0]].position)).max() > 0.1
            again = sitk.GetArrayFromImage(_read_files([slices[other].path], sitk.sitkFloat32))
            if moved or not np.array_equal(first, again):
                a, b = slices[group[0]], slices[other]
                phases = {s.text("AcquisitionNumber") for s in (a, b)}
                why = " (they are of different acquisitions)" if len(phases) > 1 else ""
                raise InputError(
                    f"{b.path.parent}: {a.path.name} and {b.path.name} are different slices at the same place{why}; "
                    f"keep only one volume in the series"
                )
            dropped.add(other)
    if dropped:
        n = len(dropped)
        warnings.append(
            f"{n} duplicate slice{'s' if n > 1 else ''} with the same pixels {'were' if n > 1 else 'was'} left out"
        )
    return [s for i, s in enumerate(slices) if i not in dropped]


def _note_oddities(slices: Sequence[_Slice], stack: Stack, warnings: list[str]) -> None:
    """Warnings about headers that are legal or harmless but unusual."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        missing = sum(not s.text(keyword) for s in slices)
        if missing:
            warnings.append(
                f"{_readable(keyword)} is missing in {missing} files: an RTSTRUCT cannot reference this CT fully"
            )
    uids = [s.text("SOPInstanceUID") for s in slices]
    if len(set(uids)) < len(uids):
        warnings.append("several slices share one SOP Instance UID: an RTSTRUCT cannot tell them apart")
    if any(s.text("LossyImageCompression") == "01" or s.transfer_syntax.rsplit(".", 1)[-1] in LOSSY_TRANSFER_SYNTAXES
           for s in slices):  # fmt: skip
        warnings.append("the CT was compressed with loss")
    tilt = {s.text("GantryDetectorTilt") for s in slices} - {""}
    if any(_float(t) is not None and abs(_float(t) or 0) > 0.5 for t in tilt):
        warnings.append(
            f"Gantry/Detector Tilt is {', '.join(sorted(tilt))} degrees, but the slices are not sheared"
        )
    kinds = {s.text("RescaleType") for s in slices} - {"", "HU"}
    if kinds:
        warnings.append(f"Rescale Type is {', '.join(sorted(kinds))}, not HU")
    thickness = [t for s in slices if (t := _float(s.text("SliceThickness"))) is not None and t > 0]
    if thickness and stack.slice_spacing_mm > THIN_SLICE_FACTOR * max(thickness):
        warnings.append(
            f"the slices are {max(thickness):g} mm thick but {stack.slice_spacing_mm:.4g} mm apart: slices may be missing "
            f"throughout"
        )


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _readable(keyword: str) -> str:
    """`PixelSpacing` -> `Pixel Spacing`."""
    return pydicom.datadict.dictionary_description(keyword)


# ---------------------------------------------------------------------------------------------------------------------
# reading


def _rescale(item: _Slice) -> tuple[float, float, bool]:
    """Slope, intercept, and whether the file declares both."""
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        text = item.text(keyword)
        value = _float(text) if text else None
        if text and (value is None or not np.isfinite(value) or (keyword == "RescaleSlope" and value == 0)):
            raise InputError(f"{item.path}: {_readable(keyword)} is {text!r}; HU cannot be computed")
        values.append((default if value is None else value, value is not None))
    (slope, has_slope), (intercept, has_intercept) = values
    return slope, intercept, has_slope and has_intercept


def _read_pixels(slices: Sequence[_Slice], stack: Stack, source: str, warnings: list[str]) -> sitk.Image:
    """All slices as one int16 HU image. GDCM applies each file's own slope and intercept."""
    rescale = [_rescale(s) for s in slices]
    declared = all(r[2] for r in rescale)
    if not declared:
        n = sum(not r[2] for r in rescale)
        if n < len(slices):
            path = next(s.path for s, r in zip(slices, rescale, strict=True) if not r[2])
            raise InputError(
                f"{path}: has no Rescale Slope or Intercept, but other slices of the series have"
            )
        warnings.append("the CT has no Rescale Slope or Intercept; its stored values were taken as HU")
    too_high = 0
    low, high = np.inf, -np.inf
    values = np.empty((len(slices), int(slices[0].data.Rows), int(slices[0].data.Columns)), dtype=np.int16)
    whole = all(float(s).is_integer() and float(i).is_integer() for s, i, _ in rescale)
    for start in range(0, len(slices), SLICES_AT_ONCE):
        part = slices[start : start + SLICES_AT_ONCE]
        image = _read_files([s.path for s in part], sitk.sitkInt32 if whole else sitk.sitkFloat32)
        array = sitk.GetArrayViewFromImage(image)
        if array.shape != (len(part), *values.shape[1:]):
            raise InputError(f"{part[0].path}: its pixels are not the size its header says")
        chunk = array
        padding = [_padding_hu(s, *rescale[start + i][:2]) for i, s in enumerate(part)]
        if any(p is not None and p > PADDING_ABOVE_HU for p in padding):
            chunk = array.copy()
            for i, p in enumerate(padding):
                if p is not None and p > PADDING_ABOVE_HU:
                    chunk[i][np.abs(chunk[i] - p) < 0.5] = LOWEST_HU
        values[start : start + len(part)], n_high, _ = to_int16_hu(chunk)
        too_high += n_high
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    if too_high:
        warnings.append(f"{too_high} voxels above 32767 HU were set to 32767")
    warnings.extend(check_range(low, high, source, declared=declared))
    result = sitk.GetImageFromArray(values)
    row_spacing, column_spacing = _numbers(
        slices[0], "PixelSpacing", 2
    )  # DICOM: between rows (y), between columns (x)
    result.SetSpacing((column_spacing, row_spacing, stack.slice_spacing_mm))
    result.SetOrigin(stack.origin)
    result.SetDirection(stack.direction)
    return result


def _padding_hu(item: _Slice, slope: float, intercept: float) -> float | None:
    value = _float(item.text("PixelPaddingValue"))
    return None if value is None else value * slope + intercept


def _read_files(paths: Sequence[Path], pixel_type: int) -> sitk.Image:
    """The files as one image, z in the given order; the geometry is not to be trusted."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader = sitk.ImageSeriesReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileNames([str(p) for p in paths])
        reader.SetOutputPixelType(pixel_type)
        return reader.Execute()
    except RuntimeError as error:
        if len(paths) > 1:  # find the one that fails
            for path in paths:
                _read_files([path], pixel_type)
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"{paths[0]}: its pixels cannot be decoded ({reason}); copy or export it again"
        ) from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _series(slices: Sequence[_Slice], warnings: list[str]) -> CtSeries:
    first = slices[0]
    with pydicom_config.disable_value_validation(), python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        header = pydicom.dcmread(first.path, stop_before_pixels=True, force=True)
    return CtSeries(
        series_uid=first.text("SeriesInstanceUID"),
        study_uid=first.text("StudyInstanceUID"),
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        description=first.text("SeriesDescription"),
        modality=first.text("Modality"),
        files=[s.path for s in slices],
        sop_instance_uids=[s.text("SOPInstanceUID") for s in slices],
        header=header,
    )
