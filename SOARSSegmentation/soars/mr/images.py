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
from soars.ct.dicom_files import FolderContents, Header, is_dicom, read_dataset, read_header, scan_folder
from soars.ct.image_file import IMAGE_SUFFIXES, is_image_name, read_image_file
from soars.ct.images import CtScan
from soars.ct.scans import chosen_scan, split_choice
from soars.ct.series import plane_of
from soars.ct.stack import regular_stack, same_position
from soars.errors import InputError, keeping_warnings

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
OPTION = "--mr-series"
"""By which a series is chosen on the command line."""
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
        series_uid: chooses among several MR series; "UID/2" the second echo or phase of one that holds several.

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


def _read_dicom(folder: Path, ct: CtScan | None, series: str | None) -> MrScan:
    contents = scan_folder(folder)
    uid, number = split_choice(series, OPTION)
    chosen, headers = _chosen_series(contents, folder, uid)
    damaged = next((d for d in contents.damaged if d.series_uid in ("", chosen)), None)
    if damaged is not None:
        raise InputError(f"{damaged.path}: {damaged.reason}")
    _check_patient(headers, ct, folder)
    warnings: list[str] = []
    try:
        headers = _one_volume(folder, headers, number, warnings)
        if len(headers) < LEAST_SLICES:
            raise _too_few(folder, len(headers))
        stack = regular_stack([plane_of(h) for h in headers])
    except InputError as error:
        raise InputError(str(error) if str(folder) in str(error) else f"{folder}: {error}") from None
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
        (*warnings, *stack.warnings),
    )


def _chosen_series(contents: FolderContents, folder: Path, uid: str | None) -> tuple[str, list[Header]]:
    """The UID of the MR series, the only one or that which is asked for, and its slices."""
    groups: dict[str, list[Header]] = {}
    for header in contents.headers:
        if header.text("SOPClassUID") == MR_IMAGE:
            groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if not groups:
        kinds = sorted({UID(h.text("SOPClassUID")).name for h in contents.headers})
        raise InputError(f"{folder}: holds no MR series; it holds: {', '.join(kinds) or 'no DICOM images'}")
    listed = "; ".join(
        f'"{headers[0].text("SeriesDescription")}" ({len(headers)} files, UID {one})'
        for one, headers in groups.items()
    )
    if uid is None and len(groups) > 1:
        raise InputError(
            f"{folder}: holds {len(groups)} MR series; choose one by its series UID ({OPTION}): {listed}"
        )
    if uid is not None and uid not in groups:
        raise InputError(f"{folder}: holds no MR series {uid}; it holds: {listed}")
    chosen = uid or next(iter(groups))
    return chosen, groups[chosen]


def _one_volume(folder: Path, headers: list[Header], number: int | None, warnings: list[str]) -> list[Header]:
    """The slices of one echo or phase: of that number where the series holds several, and none twice.

    Only slices at the same places tell that there are several. What differs between an MR's slices otherwise, such as
    their acquisition or trigger time, is no sign: they are often taken in turn.
    """
    if number is not None or same_position([plane_of(h) for h in headers]):
        headers = chosen_scan(folder, headers, number, warnings, OPTION)
    dropped: set[int] = set()
    for first, *others in same_position([plane_of(h) for h in headers]):
        values = _slice(headers[first])
        for other in others:
            if not np.array_equal(values, _slice(headers[other])):
                raise InputError(
                    f"{folder}: {headers[first].path.name} and {headers[other].path.name} are different slices of the "
                    "MR at the same place; export one echo or phase as a series of its own"
                )
            dropped.add(other)
    if dropped:
        warnings.append(f"{len(dropped)} slices of the MR are there twice; one of each was taken")
    return [h for i, h in enumerate(headers) if i not in dropped]


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
