"""Reading an RTSTRUCT, whoever wrote it, and checking whether it belongs to a CT.

Contours become masks in `soars.dicom.contour_masks`; here is what the file says around them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from soars.ct.series import CtSeries
from soars.dicom.contour_masks import contours_to_mask
from soars.dicom.objects import check_patient, damage_reported, other_series, plain, read_object
from soars.dicom.provenance import generation_tags, models_in
from soars.errors import InputError
from soars.structures.model import Geometry, StructureInfo, StructureSet, as_colour
from soars.structures.naming import name_for

#: How many of the reasons that were gathered an error names.
MOST_REASONS = 3


@dataclass
class _Roi:
    """One ROI as its parts of the file say: items of the Contour Sequence, and tags with how it was made."""

    number: int
    name: str
    frame: str
    tags: dict[str, str]
    colour: tuple[int, ...] = ()
    contours: list[Dataset] = field(default_factory=list)


def read_rtstruct(
    path: Path | str,
    geometry: Geometry,
    reference: CtSeries | None = None,
    *,
    any_frame: bool = False,
) -> StructureSet:
    """The structures of an RTSTRUCT as masks on the CT's grid.

    A voxel is inside when its centre is inside an odd number of the ROI's contours on that slice (so an inner
    contour is a hole, and a keyhole too); see `soars.dicom.contour_masks` for what else occurs. A contour goes
    to the nearest slice, at most 0.4 slices away, which is a warning beyond rounding. Names are as in the file.

    Args:
        path: the file.
        geometry: the grid of the CT that the contours were drawn on.
        reference: that CT's series, to check that the file belongs to it: the patient's ID, unless one of the two
            was de-identified, and the frame of reference.
        any_frame: read contours of another frame of reference, or of none, as if it were the CT's.

    ROIs without contours are kept, empty; ROIs of one name are numbered. A contour or an ROI that cannot be used
    (points, open contours, not parallel to the slices, damaged numbers) is left out alone; this and anything unusual is
    in ``.warnings``. Raises `InputError`, with the file, when it is damaged, is not an RTSTRUCT, has no contours at
    all, belongs to another patient, to another frame of reference or to none, or lies wholly outside the CT.
    """
    path = Path(path)
    dataset = _read(path)
    out = StructureSet(geometry)
    with damage_reported(path):
        rois = _rois(path, dataset, out.warnings)
        drawn_by_rt_utils = plain(dataset.get("ManufacturerModelName")) == "rt-utils"
        if reference is not None:
            check_patient(path, dataset, reference.header)
            rois = _in_frame(path, dataset, rois, reference.frame_of_reference_uid, any_frame, out.warnings)
            out.warnings += other_series(path, dataset, reference.series_uid)
        elif not any_frame:
            _note_frames(path, rois, out.warnings)
    total = 0
    names = {roi.name for roi in rois}
    beside_mm: dict[str, float] = {}
    for roi in rois:
        name = name_for(out, roi.name, names, f"{path.name}: two ROIs")
        total += len(roi.contours)
        before = len(out.warnings)
        with damage_reported(path):
            mask = contours_to_mask(
                roi.contours,
                geometry,
                path,
                name,
                out.warnings,
                lines_inside=drawn_by_rt_utils,
                beside_mm=beside_mm,
            )
        if mask is None:
            reasons = [w.rpartition("left out: ")[2] for w in out.warnings[before:]]
            out.warnings[before:] = [f"{path.name}: the ROI {name!r} was left out: {'; '.join(reasons)}"]
            continue
        out.add_mask(name, mask, StructureInfo(colour=as_colour(roi.colour), tags=roi.tags))
    if beside_mm:
        off_mm = max(beside_mm.values())
        out.warnings.append(
            f"{path.name}: contours lie up to {off_mm:.2g} mm beside the slices of the CT and were put on the nearest, "
            f"in {len(beside_mm)} of {len(rois)} ROIs; check that this is the CT they were drawn on"
        )
    if not total:
        raise InputError(f"{path} has no contours" + _because(out.warnings))
    if all(out.is_empty(name) for name in out):
        raise InputError(
            f"{path}: no contour lies within the CT{_because(out.warnings)}; is it the CT they were drawn on?"
        )
    return out


def _because(warnings: list[str]) -> str:
    """The reasons that were gathered, a few of them, for an error."""
    if not warnings:
        return ""
    more = f"; and {len(warnings) - MOST_REASONS} more" if len(warnings) > MOST_REASONS else ""
    return f" ({'; '.join(warnings[-MOST_REASONS:])}{more})"


def _read(path: Path) -> Dataset:
    with damage_reported(path):
        dataset = read_object(path)
        kind = dataset.get("SOPClassUID")
        if kind != RTStructureSetStorage:
            raise InputError(
                f"{path} is not an RTSTRUCT but {getattr(kind, 'name', kind) or 'without a SOP class'}"
            )
        missing = [k for k in ("StructureSetROISequence", "ROIContourSequence") if not dataset.get(k)]
        if missing:
            raise InputError(f"{path} has no contours: it lacks {' and '.join(missing)}, or is cut short")
    return dataset


def _rois(path: Path, dataset: Dataset, warnings: list[str]) -> list[_Roi]:
    """The ROIs in the file's order, each with its contours. What is wrong with one costs that one."""
    rois: dict[int, _Roi] = {}
    doubtful: dict[int, list[str]] = {}
    models = models_in(dataset)
    for item in dataset.StructureSetROISequence:
        number = _number(item, "ROINumber")
        if number is None:
            name = plain(item.get("ROIName")) or "without a name"
            warnings.append(f"{path.name}: the ROI {name!r} was left out: it has no number that can be read")
            continue
        roi = _Roi(
            number,
            _name(item.get("ROIName"), number, path, warnings),
            plain(item.get("ReferencedFrameOfReferenceUID")),
            generation_tags(item, models),
        )
        if number in rois:
            doubtful.setdefault(number, [rois[number].name]).append(roi.name)
        rois[number] = roi
    _add_contours(path, dataset, rois, warnings)
    for number, names in doubtful.items():
        del rois[number]
        warnings.append(
            f"{path.name}: the ROIs {', '.join(map(repr, names))} were left out: all have the number {number}, so "
            f"whose the contours are is not known"
        )
    return list(rois.values())


def _add_contours(path: Path, dataset: Dataset, rois: dict[int, _Roi], warnings: list[str]) -> None:
    """Give every ROI its contours and its colour."""
    for item in dataset.ROIContourSequence:
        contours = list(item.get("ContourSequence") or [])
        if any(_in_disorder(part) for part in (item, *contours)):
            raise InputError(f"{path} is damaged among its contours; copy or export it again")
        count = f"{len(contours)} contour{'s' * (len(contours) != 1)}"
        number = _number(item, "ReferencedROINumber")
        if number is None:
            warnings.append(f"{path.name}: {count} without the number of an ROI were ignored")
            continue
        if number not in rois:
            warnings.append(f"{path.name}: there is no ROI of number {number}; its {count} were ignored")
            continue
        if (
            "ContourSequence" in item and not contours
        ):  # PS3.3 C.8.8.6: one or more items, or no sequence at all
            warnings.append(f"{path.name}: the list of contours of {rois[number].name!r} is there, but empty")
        rois[number].contours += contours
        rois[number].colour = _colour(item) or rois[number].colour


def _colour(item: Dataset) -> tuple[int, ...]:
    """ROI Display Color, () when it is missing or invalid."""
    try:
        colour = tuple(int(c) for c in item.get("ROIDisplayColor") or ())
    except (TypeError, ValueError):
        return ()
    return colour if len(colour) == 3 and all(0 <= c <= 255 for c in colour) else ()


def _in_disorder(item: Dataset) -> bool:
    """Whether an item holds an element that the standard does not know: a length or a tag before it was damaged, and
    pydicom, which goes on reading somewhere else, has lost what followed."""
    tags = item.keys()  # of a data set, which itself gives its elements
    return any(not (tag.is_private or tag.element == 0 or dictionary_has_tag(tag)) for tag in tags)


def _number(item: Dataset, keyword: str) -> int | None:
    """The number of an ROI, None when it is missing or invalid."""
    try:
        return int(item.get(keyword))
    except (TypeError, ValueError, OverflowError):
        return None


def _name(value: object, number: int, path: Path, warnings: list[str]) -> str:
    """An ROI's name without control characters; its number where it has none."""
    name = "".join(c for c in plain(value) if c.isprintable()).strip() or f"ROI {number}"
    if name != plain(value):
        warnings.append(
            f"{path.name}: the ROI of number {number} has no name that can be read; it is now {name!r}"
        )
    return name


def _note_frames(path: Path, rois: list[_Roi], warnings: list[str]) -> None:
    """Say which ROIs lie in which frame of reference, where there are several and the CT's is not known."""
    frames: dict[str, list[str]] = {}
    for roi in rois:
        if roi.contours:
            frames.setdefault(roi.frame, []).append(roi.name)
    if len(frames) > 1:
        listed = "; ".join(", ".join(map(repr, names)) for names in frames.values())
        warnings.append(
            f"{path.name}: its contours lie in {len(frames)} frames of reference ({listed}), of which one at most is "
            "the CT's; this CT does not say which: give its DICOM folder"
        )


def _in_frame(
    path: Path, dataset: Dataset, rois: list[_Roi], frame: str, any_frame: bool, warnings: list[str]
) -> list[_Roi]:
    """The ROIs whose contours are in the CT's frame of reference."""
    told = {
        plain(item.get("FrameOfReferenceUID"))
        for item in dataset.get("ReferencedFrameOfReferenceSequence") or []
    } | {plain(dataset.get("FrameOfReferenceUID"))}
    told.discard("")
    of_all = next(iter(told)) if len(told) == 1 else ""
    frames = {roi.number: roi.frame or of_all for roi in rois}
    kept = [roi for roi in rois if frame and frames[roi.number] == frame]
    if len(kept) == len(rois):
        return rois
    others = sorted({uid for uid in frames.values() if uid and uid != frame})
    if any_frame:
        of = (
            f"of another frame of reference ({', '.join(others)})"
            if others
            else "of no known frame of reference"
        )
        warnings.append(f"{path.name}: contours {of} were read as if it were the CT's, as asked")
        return rois
    if any(roi.contours for roi in kept):
        left = [roi.name for roi in rois if roi not in kept]
        warnings.append(
            f"{path.name}: left out, not in the CT's frame of reference: {', '.join(map(repr, left))}"
        )
        return kept
    advice = "where the two are known to agree, `soars convert --any-frame` reads it all the same"
    if not frame:
        raise InputError(
            f"{path}: the CT has no Frame of Reference UID, so whether the contours lie on it is not known; {advice}"
        )
    if not others:
        raise InputError(
            f"{path} has no frame of reference, so whether its contours lie on this CT is not known; {advice}"
        )
    raise InputError(
        f"{path} belongs to another CT: its frame of reference is {', '.join(others)}, the CT's is {frame}; {advice}"
    )
