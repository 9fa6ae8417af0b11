"""Reading and checking an MR: a DICOM folder or a NRRD, NIfTI or MHA file, as a float32 `SimpleITK.Image`.

An MR has no unit; its values are kept as they are, but for NaN and infinite ones. It is read more strictly than a CT:
what cannot be placed, or belongs to another patient, is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.uid import UID

from soars.ct.decode import stored_frames
from soars.ct.dicom_files import Header, is_dicom, read_dataset, read_header, scan_folder
from soars.ct.image_file import IMAGE_SUFFIXES, is_image_name, read_image_file
from soars.ct.images import CtScan
from soars.ct.series import plane_of
from soars.ct.stack import regular_stack
from soars.errors import InputError, keeping_warnings

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
LEAST_SLICES = 8
"""With fewer slices an MR is a localizer, and three of them can be laid onto any neck."""
LEAST_EXTENT_MM = 60.0
"""A head or neck does not fit in less."""


@dataclass(frozen=True)
class MrScan:
    """An MR that can be registered.

    Attributes:
        image: float32, LPS mm.
        path: where it came from.
        description: the series' description; "" for other files.
        frame_of_reference_uid: "" where it is not known.
        warnings: anything unusual.
    """

    image: sitk.Image
    path: Path
    description: str = ""
    frame_of_reference_uid: str = ""
    warnings: tuple[str, ...] = field(default=())


def read_mr(path: Path | str, ct: CtScan | None = None, series_uid: str | None = None) -> MrScan:
    """Read an MR from a DICOM folder, from one of its files, or from a NRRD, NIfTI or MHA file.

    Args:
        ct: the CT that it belongs to; an MR whose DICOM files name another patient is refused.
        series_uid: chooses among several MR series.

    Raises `InputError` with one sentence that names the file or folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_file() and is_image_name(path):
        if series_uid is not None:
            raise InputError(f"{path}: a series UID can be chosen in a DICOM folder only")
        image, warnings = read_image_file(path, "an MR")
        with keeping_warnings(warnings):
            image = _checked(sitk.Cast(image, sitk.sitkFloat32), path)
        return MrScan(image, path, warnings=tuple(warnings))
    if path.is_file():
        if not is_dicom(path):
            raise InputError(
                f"{path}: is not an MR; give a DICOM folder or a file ending in {', '.join(IMAGE_SUFFIXES)}"
            )
        return _read_dicom(path.parent, ct, series_uid or read_header(path).text("SeriesInstanceUID") or None)
    return _read_dicom(path, ct, series_uid)


def _read_dicom(folder: Path, ct: CtScan | None, series_uid: str | None) -> MrScan:
    contents = scan_folder(folder)
    groups: dict[str, list[Header]] = {}
    for header in contents.headers:
        if header.text("SOPClassUID") == MR_IMAGE:
            groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if not groups:
        kinds = sorted({UID(h.text("SOPClassUID")).name for h in contents.headers})
        raise InputError(f"{folder}: holds no MR series; it holds: {', '.join(kinds) or 'no DICOM images'}")
    listed = "; ".join(
        f'"{headers[0].text("SeriesDescription")}" ({len(headers)} files, UID {uid})'
        for uid, headers in groups.items()
    )
    if series_uid is None and len(groups) > 1:
        raise InputError(
            f"{folder}: holds {len(groups)} MR series; choose one by its series UID (--mr-series): {listed}"
        )
    if series_uid is not None and series_uid not in groups:
        raise InputError(f"{folder}: holds no MR series {series_uid}; it holds: {listed}")
    chosen = series_uid or next(iter(groups))
    headers = groups[chosen]
    damaged = next((d for d in contents.damaged if d.series_uid in ("", chosen)), None)
    if damaged is not None:
        raise InputError(f"{damaged.path}: {damaged.reason}")
    _check_patient(headers, ct, folder)
    if len(headers) < LEAST_SLICES:
        raise _too_few(folder, len(headers))
    try:
        stack = regular_stack([plane_of(h) for h in headers])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    headers = [headers[i] for i in stack.order]
    if len({(h.text("Rows"), h.text("Columns"), h.text("PixelSpacing")) for h in headers}) > 1:
        raise InputError(
            f"{folder}: the slices of the MR differ in size or Pixel Spacing; export one scan alone"
        )
    values = np.stack([_slice(h) for h in headers])
    image = sitk.GetImageFromArray(values)
    between_rows, between_columns = headers[0].numbers("PixelSpacing", 2)
    image.SetSpacing((between_columns, between_rows, stack.slice_spacing_mm))
    image.SetOrigin(stack.origin)
    image.SetDirection(stack.direction)
    return MrScan(
        _checked(image, folder),
        folder,
        headers[0].text("SeriesDescription"),
        headers[0].text("FrameOfReferenceUID"),
        stack.warnings,
    )


def _slice(header: Header) -> np.ndarray:
    """One slice, float32 [y, x], its own slope and intercept applied: scanners scale MR slice by slice."""
    frames = stored_frames(read_dataset(header.path), header.path)
    if len(frames) != 1:
        raise InputError(f"{header.path}: holds {len(frames)} frames; export the MR as one file per slice")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    values = frames[0].astype(np.float32) * np.float32(1 if slope is None else slope)
    return values + np.float32(intercept or 0)


def _check_patient(headers: Sequence[Header], ct: CtScan | None, folder: Path) -> None:
    """Refuse an MR of somebody else: contours of one patient guided by another's anatomy would look plausible."""
    if ct is None or ct.series is None:
        return
    mine, theirs = str(ct.series.header.get("PatientID") or "").strip(), headers[0].text("PatientID")
    if mine and theirs and mine != theirs:
        raise InputError(f"{folder}: the MR is of another patient than the CT: their Patient IDs differ")


def _checked(image: sitk.Image, path: Path) -> sitk.Image:
    """The image, refused where it is no volume of a head or neck; NaN and infinite values become 0."""
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise InputError(f"{path}: its voxel spacing is not usable")
    if size.min() < LEAST_SLICES:
        raise _too_few(path, int(size.min()))
    extent = size * spacing
    if extent.min() < LEAST_EXTENT_MM:
        shown = " x ".join(f"{v:.3g}" for v in extent)
        raise InputError(
            f"{path}: the MR covers only {shown} mm, too little to be laid onto a CT; "
            f"{LEAST_EXTENT_MM:g} mm are needed each way"
        )
    values = sitk.GetArrayFromImage(image)
    finite = np.isfinite(values)
    if not finite.any() or values[finite].min() == values[finite].max():
        raise InputError(f"{path}: every voxel of the MR has the same value, or none")
    if finite.all():
        return image
    cleaned = sitk.GetImageFromArray(np.where(finite, values, np.float32(0)))
    cleaned.CopyInformation(image)
    return cleaned


def _too_few(path: Path, slices: int) -> InputError:
    return InputError(
        f"{path}: the MR has {slices} slices; at least {LEAST_SLICES} are needed to lay it onto a CT"
    )
