"""Reading a CT series from a folder of DICOM files: find it, check it, read it as int16 HU.

One pass over the headers (`files.py`) decides which series, in which order (`stack.py`) and what is wrong; then the
pixels are read (`volume.py`).
"""

from __future__ import annotations

import logging
import warnings as python_warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.uid import UID

from soars.ct.decode import LOSSY_SYNTAXES, check_syntax
from soars.ct.dicom_files import (
    CT_IMAGE,
    DICOM_DIRECTORY,
    ENHANCED_CT,
    FolderContents,
    Header,
    check_complete,
    is_dicom,
    read_header,
    readable,
    scan_folder,
)
from soars.ct.enhanced import frames_of, is_enhanced
from soars.ct.scans import chosen_scan, split_choice
from soars.ct.stack import Plane, Stack, regular_stack, same_position
from soars.ct.volume import count as _count
from soars.ct.volume import read_volume, slice_hu
from soars.errors import InputError, keeping_warnings

__all__ = ["CtSeries", "SeriesSummary", "is_dicom", "list_series", "read_series", "series_of_file"]

log = logging.getLogger(__name__)

#: Pixel spacings of one series may differ by this much (decimal strings of different length).
PIXEL_SPACING_TOLERANCE_MM = 1e-4
#: When slices are further apart than this multiple of their thickness, tissue between them was not seen.
THIN_SLICE_FACTOR = 1.5
#: A gantry tilt below this is rounding.
TILT_NOTED_DEGREES = 0.5


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
    file's dataset without pixels. UIDs that the files lack are "". ``frame_numbers`` (from 1) are those of an enhanced
    CT, whose slices are frames of one file; empty otherwise.
    """

    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    description: str
    modality: str
    files: list[Path]
    sop_instance_uids: list[str]
    header: Dataset
    frame_numbers: list[int] = field(default_factory=list)


def list_series(folder: Path | str) -> list[SeriesSummary]:
    """All series in `folder`, usable CT series first. Raises `InputError` when there is no DICOM file at all."""
    return [_summary(uid, headers) for uid, headers in _by_series(scan_folder(Path(folder)))]


def read_series(folder: Path | str, series_uid: str | None = None) -> tuple[sitk.Image, CtSeries, list[str]]:
    """Read the CT series of `folder` as int16 HU with LPS geometry, its slices in order along their normal.

    Without `series_uid` the folder must hold exactly one CT series; localizers and other kinds are left out with a
    warning. A series that holds several scans is refused, with a list of them; "UID/2" chooses the second. Returns the
    image, its DICOM side, and warnings. Raises `InputError` with one sentence for everything that
    would make contours wrong.
    """
    folder = Path(folder)
    warnings: list[str] = []
    with keeping_warnings(warnings):
        headers, stack = _stacked(folder, series_uid, warnings)
        image = read_volume(headers, stack, str(folder), warnings)
    return image, _series(headers), warnings


def _stacked(folder: Path, series_uid: str | None, warnings: list[str]) -> tuple[list[Header], Stack]:
    """The slices of the chosen scan in order, and their geometry."""
    contents = scan_folder(folder)
    uid, number = split_choice(series_uid)
    headers = _choose(contents, uid, warnings)
    _check_undamaged(contents, headers)
    headers = [frame for h in headers for frame in (frames_of(h) if is_enhanced(h) else [h])]
    headers = _without_localizers(headers, warnings)
    _check_readable(headers)
    headers = chosen_scan(folder, headers, number, warnings)
    _check_same(headers)
    headers = _without_duplicates(folder, headers, warnings)
    try:
        stack = regular_stack([plane_of(h) for h in headers])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    headers = [headers[i] for i in stack.order]
    warnings.extend(stack.warnings)
    _note_oddities(headers, stack, warnings)
    return headers, stack


def series_of_file(path: Path, chosen: str | None = None) -> str | None:
    """The series that one DICOM file stands for: its own UID; what was ``chosen`` for a DICOMDIR, which stands for its
    folder. ``chosen`` comes first; "/2" of it is the second scan of the file's series.

    Raises `InputError` when the file cannot be read, or is something else than a CT.
    """
    header = read_header(path)
    if header.text("SOPClassUID") == DICOM_DIRECTORY or path.name.upper() == "DICOMDIR":
        return chosen
    kind = _kind([header])
    if kind != "CT" and not _is_localizer(header):
        raise InputError(f"{path}: is {_with_article(kind)}, not a CT; give a slice of the CT, or its folder")
    own = header.text("SeriesInstanceUID")
    if chosen is None or chosen.startswith("/"):
        return own + (chosen or "")
    return chosen


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind.startswith(("RT", "MR", "SR")) or kind[:1] in "AEIOaeio" else f"a {kind}"


# ---- choosing the series


def _by_series(contents: FolderContents) -> list[tuple[str, list[Header]]]:
    """Series UID and files of every series, usable CT series first, then by number of files."""
    groups: dict[str, list[Header]] = {}
    for header in contents.headers:
        groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    return sorted(groups.items(), key=lambda g: (not _summary(*g).usable, -len(g[1]), g[0]))


def is_ct_slice(header: Header) -> bool:
    """Whether a file is a slice, or are the slices, of a CT; a localizer is none."""
    kind = header.text("SOPClassUID")
    is_ct = kind == CT_IMAGE or kind in ENHANCED_CT or (not kind and header.text("Modality") == "CT")
    return is_ct and not _is_localizer(header)


def _is_localizer(header: Header) -> bool:
    value = header.values.get("ImageType")
    parts = [value] if isinstance(value, str) else list(value or [])
    return any(str(part).strip().upper() in ("LOCALIZER", "SCOUT", "TOPOGRAM") for part in parts)


def _kind(headers: Sequence[Header]) -> str:
    """What a series is, in a few words; "CT" for one that can be read."""
    if any(is_ct_slice(h) for h in headers):
        modalities = {h.text("Modality") for h in headers if is_ct_slice(h)} - {"", "CT"}
        return "CT" if not modalities else f"{sorted(modalities)[0]} (stored as CT)"
    if all(_is_localizer(h) for h in headers):
        return "localizer"
    classes = sorted({h.text("SOPClassUID") for h in headers})
    modality = headers[0].text("Modality")
    if modality in ("", "CT"):
        return UID(classes[-1]).name.removesuffix(" Storage") if classes[-1] else "unknown kind"
    return modality


def _summary(uid: str, headers: Sequence[Header]) -> SeriesSummary:
    kind, first = _kind(headers), headers[0]
    description = first.text("SeriesDescription")
    return SeriesSummary(uid, first.text("Modality"), description, kind, len(headers), kind == "CT")


def _listed(summary: SeriesSummary) -> str:
    description = f'"{summary.description}", ' if summary.description else ""
    return f"{summary.kind} ({description}{_count(summary.n_files, 'file')}, UID {summary.series_uid or 'missing'})"


def _choose(contents: FolderContents, series_uid: str | None, warnings: list[str]) -> list[Header]:
    """The files of the one series to read."""
    folder = contents.path
    groups = _by_series(contents)
    summaries = [_summary(*g) for g in groups]
    listed = "; ".join(map(_listed, summaries))
    if series_uid is not None:
        for (uid, headers), summary in zip(groups, summaries, strict=True):
            if uid == series_uid:
                _refuse_unless_ct(folder, summary)
                return headers
        raise InputError(f"{folder}: holds no series {series_uid}; it holds: {listed}")
    usable = [headers for (_, headers), summary in zip(groups, summaries, strict=True) if summary.usable]
    if not usable:
        if len(summaries) == 1:
            _refuse_unless_ct(folder, summaries[0])
        raise InputError(f"{folder}: holds no CT series; it holds: {listed}")
    if len(usable) > 1:
        raise InputError(
            f"{folder}: holds {len(usable)} CT series; choose one by its series UID (--series): {listed}"
        )
    for summary in summaries:
        if not summary.usable:
            warnings.append(f"another series in the folder was left out: {_listed(summary)}")
    if contents.others:
        n = len(contents.others)
        warnings.append(f"{_count(n, 'file')} in the folder {'is' if n == 1 else 'are'} not DICOM: ignored")
    return usable[0]


def _refuse_unless_ct(folder: Path, summary: SeriesSummary) -> None:
    if summary.usable:
        return
    raise InputError(f"{folder}: holds no CT but {_listed(summary)}; give a CT series")


# ---- checking it


def _check_undamaged(contents: FolderContents, headers: Sequence[Header]) -> None:
    """Refuse when a damaged file is, or may be, a slice of the chosen series."""
    uid = headers[0].text("SeriesInstanceUID")
    for damaged in contents.damaged:
        if damaged.series_uid in ("", uid):
            raise InputError(f"{damaged.path}: {damaged.reason}")


def _without_localizers(headers: list[Header], warnings: list[str]) -> list[Header]:
    kept = [h for h in headers if is_ct_slice(h)]
    left_out = len(headers) - len(kept)
    if left_out:
        warnings.append(f"{_count(left_out, 'localizer or other image')} inside the CT series: ignored")
    return kept


def _check_readable(headers: Sequence[Header]) -> None:
    """Refuse truncated, multi-frame and colour files, and compressions that nothing here decodes."""
    for header in headers:
        path = header.path
        for keyword in ("Rows", "Columns", "BitsAllocated"):
            if not header.number(keyword):
                raise InputError(
                    f"{path}: {readable(keyword)} is missing: the file is not a complete CT image"
                )
        check_syntax(header.transfer_syntax, path)
        if (header.number("NumberOfFrames") or 1) > 1 and not is_enhanced(header):
            frames = header.text("NumberOfFrames")
            raise InputError(f"{path}: holds {frames} frames; export the CT as single-frame images")
        colour = header.text("PhotometricInterpretation")
        if (header.number("SamplesPerPixel") or 1) != 1 or not colour.startswith("MONOCHROME"):
            raise InputError(
                f"{path}: is not a greyscale image (Photometric Interpretation {colour or 'missing'}), so not a CT"
            )
        if header.frame == 0:
            check_complete(header)


def _check_same(headers: Sequence[Header]) -> None:
    """Refuse slices that cannot belong together: patient, frame of reference, matrix, pixel spacing."""
    for keyword in ("PatientID", "FrameOfReferenceUID", "Rows", "Columns"):
        values = Counter(h.text(keyword) for h in headers)
        if len(values) > 1:
            rarest = min(values, key=lambda v: values[v])
            path = next(h.path for h in headers if h.text(keyword) == rarest)
            raise InputError(
                f"{path}: its {readable(keyword)} differs from that of other slices of the series; they are not one "
                f"volume"
            )
    spacings = np.array([h.numbers("PixelSpacing", 2) for h in headers])
    bad = (spacings <= 0).any(axis=1)
    if bad.any():
        header = headers[int(np.argmax(bad))]
        raise InputError(f"{header.path}: Pixel Spacing {header.text('PixelSpacing')} is not positive")
    differ = np.abs(spacings - np.median(spacings, axis=0)).max(axis=1) > PIXEL_SPACING_TOLERANCE_MM
    if differ.any():
        path = headers[int(np.argmax(differ))].path
        raise InputError(f"{path}: its Pixel Spacing differs from that of other slices of the series")


def plane_of(header: Header) -> Plane:
    """Where a slice is, by its header; raises `InputError` when it does not say."""
    x, y, z = header.numbers("ImagePositionPatient", 3)
    a, b, c, d, e, f = header.numbers("ImageOrientationPatient", 6)
    frame = f" (frame {header.frame + 1})" if (header.number("NumberOfFrames") or 1) > 1 else ""
    return Plane((x, y, z), (a, b, c, d, e, f), header.path.name + frame)


def _without_duplicates(folder: Path, headers: list[Header], warnings: list[str]) -> list[Header]:
    """Drop copies of a slice; refuse different slices at one place."""
    planes = [plane_of(h) for h in headers]
    try:
        groups = same_position(planes)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    dropped: set[int] = set()
    for first, *others in groups:
        pixels = slice_hu(headers[first])
        for other in others:
            again = slice_hu(headers[other])
            moved = float(np.abs(np.subtract(planes[other].position, planes[first].position)).max())
            if moved > 0.1 or not np.array_equal(pixels, again):
                acquisitions = {headers[i].text("AcquisitionNumber") for i in (first, other)}
                why = " (of different acquisitions)" if len(acquisitions) > 1 else ""
                raise InputError(
                    f"{folder}: {planes[first].name} and {planes[other].name} are different slices{why} at the same "
                    f"place; keep only one volume in the series"
                )
            dropped.add(other)
    if dropped:
        warnings.append(f"{_count(len(dropped), 'duplicate slice')} with the same pixels: ignored")
    return [h for i, h in enumerate(headers) if i not in dropped]


def _note_oddities(headers: Sequence[Header], stack: Stack, warnings: list[str]) -> None:
    """Warnings about headers that are unusual but do not change the image."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        missing = sum(not h.text(keyword) for h in headers)
        if missing:
            warnings.append(
                f"{readable(keyword)} is missing in {_count(missing, 'slice')}: an RTSTRUCT cannot reference this CT "
                f"as it should"
            )
    uids = {(h.text("SOPInstanceUID"), h.frame) for h in headers if h.text("SOPInstanceUID")}
    if len(uids) < sum(bool(h.text("SOPInstanceUID")) for h in headers):
        warnings.append("several slices share one SOP Instance UID: an RTSTRUCT cannot distinguish them")
    if any(h.text("LossyImageCompression") == "01" or h.transfer_syntax in LOSSY_SYNTAXES for h in headers):
        warnings.append("the CT was compressed lossily")
    tilt = max((abs(h.number("GantryDetectorTilt") or 0) for h in headers), default=0)
    if tilt > TILT_NOTED_DEGREES:
        warnings.append(f"Gantry/Detector Tilt is {tilt:g} degrees, but the slices are not sheared")
    units = {h.text("RescaleType") for h in headers} - {"", "HU"}
    if units:
        warnings.append(f"Rescale Type is {', '.join(sorted(units))}, not HU")
    thickness = max((h.number("SliceThickness") or 0 for h in headers), default=0)
    if thickness > 0 and stack.slice_spacing_mm > THIN_SLICE_FACTOR * thickness:
        warnings.append(
            f"the slices are {thickness:g} mm thick but {stack.slice_spacing_mm:.4g} mm apart: slices may be missing "
            f"throughout"
        )


# ---- its DICOM side


def _series(headers: Sequence[Header]) -> CtSeries:
    first = headers[0]
    with pydicom_config.disable_value_validation(), python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(first.path, stop_before_pixels=True, force=True)
    return CtSeries(
        series_uid=first.text("SeriesInstanceUID"),
        study_uid=first.text("StudyInstanceUID"),
        frame_of_reference_uid=first.text("FrameOfReferenceUID"),
        description=first.text("SeriesDescription"),
        modality=first.text("Modality"),
        files=[h.path for h in headers],
        sop_instance_uids=[h.text("SOPInstanceUID") for h in headers],
        header=dataset,
        frame_numbers=[h.frame + 1 for h in headers] if is_enhanced(first) else [],
    )
