"""Reading a DICOM Segmentation (PS3.3 A.51, C.8.20), as dcmqi, OHIF, MONAI Label and highdicom write it.

Binary and fractional segmentations, and label maps. The file's frames are slices of some segment, in any order; slices
without a voxel are usually left out. They say where they lie, so no CT is needed. How far the slices are apart they say
by their places, too: a Slice Thickness is not a spacing (PS3.3 C.7.6.16.2.1), slices may overlap or leave gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from soars.ct.series import CtSeries
from soars.ct.stack import SIDEWAYS_LIMIT_MM, UNEVEN_LIMIT_MM
from soars.dicom.objects import (
    check_patient,
    damage_reported,
    other_series,
    plain,
    read_object,
    referenced_series,
)
from soars.dicom.provenance import generation_tag
from soars.errors import InputError
from soars.structures.mask import Mask, tight_mask, union
from soars.structures.model import Colour, Geometry, StructureInfo, StructureSet, as_colour
from soars.structures.naming import name_for

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
OFF_PLANE = 0.05
"""Frames may lie this far, in slices, from an even spacing: positions are decimal strings. Those of a CT that is read
although its slices are uneven lie farther off, each by up to `UNEVEN_LIMIT_MM`."""
MOST_OFF_PLANE = 0.4
"""And by no more than this, in slices: to which slice a frame belongs must be certain."""
SAME_PLACE = 0.01
"""Frames nearer than this, mm, are of one slice."""
MOST_APART = 3
"""Two slices alone may be this many times as far apart as they are thick; farther, slices between them are empty."""

D50 = np.array([0.96422, 1.0, 0.82521])
"""The white point of DICOM's CIELab, in XYZ."""
TO_RGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
"""From XYZ to linear sRGB."""


@dataclass(frozen=True)
class _Frame:
    """Where a frame lies, LPS mm: its first pixel's centre; and of which segment it is (0: of all, in a label map)."""

    index: int
    position: tuple[float, float, float]
    segment: int


@dataclass(frozen=True)
class _Plane:
    """What all frames share: direction of rows, of columns and of the normal, row and column spacing; between slices
    and thickness, 0 where the file does not say it (nor the thickness where it says the spacing)."""

    axes: npt.NDArray[np.float64]
    spacing: tuple[float, float]
    between: float
    thickness: float


def read_seg(
    path: Path | str,
    reference: CtSeries | None = None,
    *,
    grid: Geometry | None = None,
    any_frame: bool = False,
) -> StructureSet:
    """The segments of a DICOM SEG on the grid of its frames; names are its segments' labels.

    A voxel of a fractional segmentation belongs to the segment where the fraction is at least one half. With
    ``reference``, the CT's series, the file must be of the same patient and, unless ``any_frame``, in the same frame of
    reference; with the CT's ``grid``, too, a file that was made from this series and does not say how far its slices
    are apart has the CT's spacing. Raises `InputError`, with the file, when it is damaged, no segmentation, or its
    frames do not lie on one regular grid.
    """
    path = Path(path)
    with damage_reported(path):
        dataset = read_object(path)
        if dataset.get("SOPClassUID") not in (SEGMENTATION, LABEL_MAP):
            raise InputError(
                f"{path} is no DICOM segmentation but {UID(plain(dataset.get('SOPClassUID'))).name}"
            )
        if reference is not None:
            check_patient(path, dataset, reference.header)
            _check_frame_of_reference(path, dataset, reference, any_frame)
        frames, plane = _frames(path, dataset)
        ct = grid if reference is not None and _is_of(dataset, reference) else None
        geometry, slice_of, warnings = _grid(path, dataset, frames, plane, ct)
        masks: dict[int, list[Mask]] = {}
        for frame, pixels in zip(frames, _pixels(path, dataset, len(frames)), strict=True):
            for segment, inside in _segments_in(dataset, frame, pixels):
                mask = tight_mask(inside[None], (slice_of[frame.index], 0, 0))
                if not mask.is_empty:
                    masks.setdefault(segment, []).append(mask)
        structures = _structures(path, dataset, geometry, masks)
        if reference is not None:
            warnings += other_series(path, dataset, reference.series_uid)
        structures.warnings[:0] = warnings
        return structures


def _structures(
    path: Path, dataset: Dataset, geometry: Geometry, masks: dict[int, list[Mask]]
) -> StructureSet:
    out = StructureSet(geometry)
    known = set()
    labels = {plain(item.get("SegmentLabel")) for item in dataset.get("SegmentSequence") or []}
    for item in dataset.get("SegmentSequence") or []:
        number = int(item.SegmentNumber)
        if number == 0:  # a label map describes its background, too
            continue
        known.add(number)
        label = plain(item.get("SegmentLabel")) or f"Segment {number}"
        name = name_for(out, label, labels, f"{path.name}: two segments")
        info = StructureInfo(colour=_colour(item), tags=generation_tag(item.get("SegmentAlgorithmType")))
        out.add_mask(name, union(masks.get(number, [])), info)
    if not known:
        raise InputError(f"{path} has no segments")
    unknown = sorted(masks.keys() - known)
    if unknown:
        listed = ", ".join(map(str, unknown[:10]))
        out.warnings.append(
            f"{path.name}: voxels of segments that it does not describe were left out: {listed}"
        )
    return out


def _check_frame_of_reference(path: Path, dataset: Dataset, reference: CtSeries, any_frame: bool) -> None:
    own, of_ct = plain(dataset.get("FrameOfReferenceUID")), reference.frame_of_reference_uid
    if any_frame or (own and own == of_ct):
        return
    raise InputError(
        f"{path} belongs to another CT: its frame of reference is {own or 'not given'}, the CT's is "
        f"{of_ct or 'not given'}; where the two are known to agree, `soars convert --any-frame` reads it all the same"
    )


def _frames(path: Path, dataset: Dataset) -> tuple[list[_Frame], _Plane]:
    """Every frame with its place; `InputError` when they do not share one orientation and pixel spacing."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(dataset.get("NumberOfFrames") or 1)
    if len(groups) != count:
        raise InputError(
            f"{path} has {count} frames but says of {len(groups)} where they lie; export it again"
        )
    frames, planes = [], []
    for index, group in enumerate(groups):
        position = _macro(path, group, shared, "PlanePositionSequence").ImagePositionPatient
        orientation = _macro(path, group, shared, "PlaneOrientationSequence").ImageOrientationPatient
        measures = _macro(path, group, shared, "PixelMeasuresSequence")
        x, y, z = (float(v) for v in position)
        between = max(float(measures.get("SpacingBetweenSlices") or 0), 0.0)
        thickness = 0.0 if between else max(float(measures.get("SliceThickness") or 0), 0.0)
        planes.append((*map(float, orientation), *map(float, measures.PixelSpacing), between, thickness))
        frames.append(_Frame(index, (x, y, z), _segment_number(dataset, group, shared, path)))
    if not frames:
        raise InputError(f"{path} has no frames")
    all_planes = np.array(planes, dtype=np.float64)
    if all_planes.shape[1] != 10 or not np.isfinite(all_planes).all():
        raise InputError(f"{path} does not say how its frames lie; export it again")
    if np.abs(all_planes - all_planes[0]).max() > 1e-3:
        raise InputError(f"{path}: its frames do not share one orientation and pixel spacing")
    row, column = all_planes[0, :3], all_planes[0, 3:6]
    if (
        abs(row @ column) > 1e-3
        or abs(np.linalg.norm(row) - 1) > 1e-3
        or abs(np.linalg.norm(column) - 1) > 1e-3
    ):
        raise InputError(f"{path}: the axes of its frames are not perpendicular")
    axes = np.stack([row, column, np.cross(row, column)], axis=1)
    between_rows, between_columns, between, thickness = all_planes[0, 6:].tolist()
    if min(between_rows, between_columns) <= 0:
        raise InputError(f"{path}: its pixel spacing is not usable")
    return frames, _Plane(axes, (between_columns, between_rows), between, thickness)


def _macro(path: Path, group: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """A functional group of a frame, its own or that of all frames."""
    found = group.get(keyword) or shared.get(keyword)
    if not found:
        raise InputError(
            f"{path} does not say where its frames lie (it has no {keyword}); it cannot be placed"
        )
    return found[0]


def _segment_number(dataset: Dataset, group: Dataset, shared: Dataset, path: Path) -> int:
    if _is_label_map(dataset):
        return 0
    return int(_macro(path, group, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _is_label_map(dataset: Dataset) -> bool:
    return plain(dataset.get("SegmentationType")).upper() == "LABELMAP" or dataset.SOPClassUID == LABEL_MAP


def _is_of(dataset: Dataset, reference: CtSeries) -> bool:
    """Whether the file says that it was made from this series."""
    return reference.series_uid in referenced_series(dataset)


def _grid(
    path: Path, dataset: Dataset, frames: list[_Frame], plane: _Plane, ct: Geometry | None
) -> tuple[Geometry, dict[int, int], list[str]]:
    """The grid from the first to the last frame, the slice of each frame, and warnings."""
    positions = np.array([frame.position for frame in frames])
    normal = plane.axes[:, 2]
    along = positions @ normal
    sideways = positions - np.outer(along, normal)
    warnings = []
    origin = positions[int(np.argmin(along))]
    off_mm = float(np.linalg.norm(sideways - sideways[0], axis=1).max())
    if off_mm > OFF_PLANE * min(plane.spacing):
        if off_mm > SIDEWAYS_LIMIT_MM:
            raise InputError(f"{path}: its frames do not lie one above the other")
        origin = np.median(sideways, axis=0) + along.min() * normal
        warnings.append(
            f"{path.name}: its frames are shifted sideways against each other by up to {off_mm:.2f} mm"
        )
    of_ct = _step_of_ct(positions, normal, ct) if ct is not None else 0.0
    step = _step(along, plane, of_ct)
    if _off(along, step) > OFF_PLANE:
        step = _uneven_step(along, plane, of_ct)
        if not step:
            raise InputError(f"{path}: its frames are not evenly spaced; export it on a regular grid")
        off_mm = _off(along, step) * step
        warnings.append(
            f"{path.name}: its frames are not quite evenly spaced: up to {off_mm:.2f} mm from a regular "
            f"{step:.4g} mm grid"
        )
    number = np.rint((along - along.min()) / step).astype(int)
    size = (int(dataset.Columns), int(dataset.Rows), int(number.max()) + 1)
    x, y, z = origin.tolist()
    geometry = Geometry(size, (*plane.spacing, step), (x, y, z), tuple(plane.axes.ravel().tolist()))
    if 0 < plane.thickness < step / 1.5 and abs(step - of_ct) > OFF_PLANE * step:
        warnings.append(
            f"{path.name}: its slices are {plane.thickness:g} mm thick but {step:.4g} mm apart; each counts as far as "
            "halfway to the next"
        )
    return geometry, {frame.index: int(n) for frame, n in zip(frames, number, strict=True)}, warnings


def _step_of_ct(positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], ct: Geometry) -> float:
    """Millimetres from slice to slice of the CT; 0 where the frames do not lie on its slices."""
    across = np.array(ct.direction).reshape(3, 3)[:, 2]
    slices = ct.to_index(positions)[:, 0]
    on_them = abs(across @ normal) > 1 - 1e-4 and np.abs(slices - np.rint(slices)).max() <= OFF_PLANE
    return ct.spacing[2] if on_them else 0.0


def _step(along: npt.NDArray[np.float64], plane: _Plane, of_ct: float) -> float:
    """Millimetres from slice to slice: what the file says, or the CT, ``of_ct``, where the frames agree with it, else
    the least distance of frames.

    Their thickness is it where that explains the distances better: where the least, several times the thickness, is an
    exception or the only one. A CT of closer slices says nothing against frames as far apart as they are thick.
    """
    distances = np.diff(np.sort(along))
    distances = distances[distances > SAME_PLACE]
    if not len(distances):
        return plane.between or of_ct or plane.thickness or 1.0
    near = distances[distances < 1.5 * distances.min()]
    least, thickness = float(np.median(near)), plane.thickness
    usual = 2 * len(near) > len(distances) and (len(near) > 1 or least < (MOST_APART + 0.5) * thickness)
    steps = [plane.between]
    if abs(least - thickness) > OFF_PLANE * least:
        steps.append(of_ct)
    steps += [least, thickness] if usual or least < 1.5 * thickness else [thickness, least]
    step = next((step for step in steps if step > 0 and _fits(distances, step)), least)
    return _over_all(along, step)


def _uneven_step(along: npt.NDArray[np.float64], plane: _Plane, of_ct: float) -> float:
    """`_step` of frames of which each may lie `UNEVEN_LIMIT_MM` from its place, 0 when they lie farther off."""
    distances = np.diff(np.sort(along))
    distances = distances[distances > SAME_PLACE]
    near = distances[distances < 1.5 * distances.min()]
    for step in (plane.between, of_ct, float(np.median(near))):
        if 0 < step < 1.5 * distances.min():
            step = _over_all(along, step)
            if _off(along, step) <= min(2 * UNEVEN_LIMIT_MM / step, MOST_OFF_PLANE):
                return step
    return 0.0


def _over_all(along: npt.NDArray[np.float64], step: float) -> float:
    """The step from the first to the last frame, more exact than one rounded number."""
    slices = float(np.rint(np.diff(np.sort(along)) / step).sum())
    return float(along.max() - along.min()) / slices


def _off(along: npt.NDArray[np.float64], step: float) -> float:
    """How far, in slices, a frame lies from an even spacing."""
    at = (along - along.min()) / step
    return float(np.abs(at - np.rint(at)).max())


def _fits(distances: npt.NDArray[np.float64], step: float) -> bool:
    slices = distances / step
    return bool(np.abs(slices - np.rint(slices)).max() <= OFF_PLANE and slices.min() > 0.5)


def _pixels(path: Path, dataset: Dataset, count: int) -> Iterator[npt.NDArray[np.integer]]:
    """The stored values of the frames, one after the other, shape (rows, columns)."""
    from pydicom.pixels import iter_pixels

    rows, columns = int(dataset.Rows), int(dataset.Columns)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        try:
            yield from iter_pixels(dataset, raw=True)
        except (RuntimeError, NotImplementedError) as error:
            raise InputError(
                f"{path} is compressed as {syntax.name}, which is not read here; export it uncompressed"
            ) from error
        return
    bits = int(dataset.BitsAllocated)
    stored = np.frombuffer(dataset.get("PixelData") or b"", dtype=np.uint8)
    size = rows * columns
    if bits not in (1, 8, 16) or len(stored) * 8 < count * size * bits:
        raise InputError(f"{path} is cut short or damaged; copy or export it again")
    for index in range(count):
        first = index * size
        if bits == 1:  # packed without a gap between frames, the first pixel in the lowest bit (PS3.5 8.1.1)
            part = np.unpackbits(stored[first // 8 : (first + size + 7) // 8], bitorder="little")
            yield part[first % 8 : first % 8 + size].reshape(rows, columns)
        else:
            order = "<" if syntax.is_little_endian else ">"
            part = stored[first * bits // 8 : (first + size) * bits // 8].view(f"{order}u{bits // 8}")
            yield part.reshape(rows, columns)


def _segments_in(
    dataset: Dataset, frame: _Frame, pixels: npt.NDArray[np.integer]
) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """The segments of a frame with their voxels in it."""
    if frame.segment:
        least = 1.0
        if plain(dataset.get("SegmentationType")).upper() == "FRACTIONAL":
            least = int(dataset.get("MaximumFractionalValue") or 255) / 2
        yield frame.segment, pixels >= least
        return
    for value in np.unique(pixels).tolist():
        if value != 0:
            yield value, pixels == value


def _colour(item: Dataset) -> Colour | None:
    """RGB of the recommended CIELab colour (PS3.3 C.10.7.1.1; CIE 1976 with the white point D50, sRGB)."""
    lab = item.get("RecommendedDisplayCIELabValue")
    if lab is None or len(lab) != 3:
        return None
    lightness, a, b = lab[0] / 65535 * 100, lab[1] / 65535 * 255 - 128, lab[2] / 65535 * 255 - 128
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    xyz = D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip(TO_RGB @ xyz, 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return as_colour(np.rint(255 * rgb))
