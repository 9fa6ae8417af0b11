"""Pictures of contours on a CT: each plane as one inline SVG.

The CT slice is an 8-bit PNG inside the SVG and the contours are paths over it, so that they stay sharp when
enlarged or printed and name themselves under the pointer. Planes are axis-aligned in patient space (LPS) whatever
the orientation of the image, and shown in the radiological convention: the patient's right on the left, head up,
and in sagittal planes anterior on the left.
"""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import scipy
import SimpleITK as sitk
from numpy.typing import NDArray

from soars.report.isolines import isolines
from soars.report.planes import AXIS, Plane
from soars.structures import Geometry, StructureSet

WINDOW_HU = (-160.0, 240.0)
"""Width 400, level 40: the usual soft-tissue window for the head and neck."""

_SIDES = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}
"""Letters at the left, right, upper and lower edge."""

_AIR_HU = -1000.0
_BODY_HU = -300.0
_MARGIN_MM = 10.0
_MOST_MM = 280.0
"""A picture is not larger than this unless the organs are: with shoulders and chest the organs would be small."""


@dataclass(frozen=True)
class Picture:
    """One plane as SVG text; ``organs`` are those whose contours are in it; ``size_mm`` (width, height)."""

    plane: Plane
    svg: str
    organs: tuple[str, ...]
    size_mm: tuple[float, float]


@dataclass(frozen=True)
class Style:
    """How an organ is drawn: its readable label and its colour."""

    label: str
    colour: tuple[int, int, int]

    @property
    def css_colour(self) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


def draw(
    image: sitk.Image,
    structures: StructureSet,
    plane: Plane,
    styles: Mapping[str, Style],
    *,
    title: str,
    close_up_of: Iterable[str] = (),
    mark_lps_mm: Sequence[float] | None = None,
    pixel_mm: float = 0.9,
) -> Picture:
    """Draw the contours of the organs in `styles` on one plane of the CT.

    Args:
        image: the CT in HU, of any orientation.
        title: what the picture shows, for people who cannot see it.
        close_up_of: when given, the picture is cropped to these organs, otherwise to the body.
        mark_lps_mm: a place to ring; a close-up shows it, too.
        pixel_mm: size of the picture's pixels, the same in both directions whatever the voxels are.
    """
    close_up_of = tuple(close_up_of)
    outlines = {name: _outlines(structures, name, plane) for name in styles if name in structures}
    outlines = {name: lines for name, lines in outlines.items() if lines}
    box = _image_box(image, plane)
    mark = _on_picture(mark_lps_mm, plane.view) if mark_lps_mm is not None else None
    if close_up_of:
        wanted = [line for name in close_up_of for line in outlines.get(name, [])]
        wanted = (
            [*wanted, mark[np.newaxis]]
            if mark is not None
            else wanted or list(itertools.chain.from_iterable(outlines.values()))
        )
        box = _close_up_box(wanted, box) if wanted else box
        pixels = _ct_pixels(image, plane, box, pixel_mm)
    else:
        pixels = _ct_pixels(image, plane, box, pixel_mm)
        box, pixels = _crop_to_body(
            pixels, box, pixel_mm, list(itertools.chain.from_iterable(outlines.values()))
        )
    left, top, width, height = box[0], box[2], box[1] - box[0], box[3] - box[2]

    names = sorted(outlines, key=lambda name: -sum(_length(line) for line in outlines[name]))
    paths = "".join(
        f'<path d="{_path(outlines[name], left, top)}" fill="{styles[name].css_colour}" '
        f'stroke="{styles[name].css_colour}"><title>{escape(styles[name].label)}</title></path>'
        for name in names
    )
    visible = tuple(name for name in names if any(_inside(line, box) for line in outlines[name]))
    svg = (
        f'<svg viewBox="0 0 {width:.1f} {height:.1f}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>"
        f'<image width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{base64.b64encode(png(pixels)).decode("ascii")}"/>'
        f'<svg class="contours" width="{width:.1f}" height="{height:.1f}">{paths}</svg>'
        f"{_ring(mark - (left, top)) if mark is not None else ''}"
        f"{_letters(plane.view, width, height)}{_scale_bar(width, height)}</svg>"
    )
    return Picture(plane, svg, visible, (width, height))


Box = tuple[float, float, float, float]
"""Left, right, top and bottom of a picture in mm, on the axes that `_picture_axes` gives."""


def _picture_axes(view: str) -> tuple[tuple[int, float], tuple[int, float]]:
    """LPS axis and sign of the picture's columns (to the right) and rows (downwards)."""
    return {
        "axial": ((0, 1.0), (1, 1.0)),
        "coronal": ((0, 1.0), (2, -1.0)),
        "sagittal": ((1, 1.0), (2, -1.0)),
    }[view]


def _on_picture(point_lps_mm: Sequence[float], view: str) -> NDArray[np.float64]:
    (column, column_sign), (row, row_sign) = _picture_axes(view)
    return np.array([point_lps_mm[column] * column_sign, point_lps_mm[row] * row_sign])


def _image_box(image: sitk.Image, plane: Plane) -> Box:
    corners = Geometry.of(image).corners()
    (column, column_sign), (row, row_sign) = _picture_axes(plane.view)
    across, down = corners[:, column] * column_sign, corners[:, row] * row_sign
    return float(across.min()), float(across.max()), float(down.min()), float(down.max())


def _grid(plane: Plane, box: Box, pixel_mm: float) -> sitk.ResampleImageFilter:
    """A resampler onto the one-slice LPS grid that covers `box`."""
    (column, _column_sign), (row, row_sign) = _picture_axes(plane.view)
    left, right, top, bottom = box
    size, origin = [1, 1, 1], [0.0, 0.0, 0.0]
    size[column] = max(2, round((right - left) / pixel_mm))
    size[row] = max(2, round((bottom - top) / pixel_mm))
    origin[column] = left + pixel_mm / 2
    origin[row] = top + pixel_mm / 2 if row_sign > 0 else -(top + pixel_mm * (size[row] - 0.5))
    origin[AXIS[plane.view]] = plane.position_mm
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(size)
    resampler.SetOutputOrigin(origin)
    resampler.SetOutputSpacing([pixel_mm] * 3)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetNumberOfThreads(1)
    return resampler


def _resample(resampler: sitk.ResampleImageFilter, image: sitk.Image, view: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = sitk.GetArrayFromImage(resampler.Execute(image))
    flat = np.squeeze(array, axis=2 - AXIS[view])
    return flat if view == "axial" else flat[::-1]


def _ct_pixels(image: sitk.Image, plane: Plane, box: Box, pixel_mm: float) -> NDArray[np.float32]:
    resampler = _grid(plane, box, pixel_mm)
    resampler.SetDefaultPixelValue(_AIR_HU)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    return _resample(resampler, image, plane.view)


def _outlines(structures: StructureSet, name: str, plane: Plane) -> list[NDArray[np.float64]]:
    """The organ's outlines in the plane, each an array [n, 2] of picture coordinates (across, down) in mm."""
    mask = structures.crop(name)
    if mask.is_empty:
        return []
    start, shape = [s - 1 for s in mask.start], [n + 2 for n in mask.shape]
    around = structures.geometry.cropped(start, shape)
    across = around.corners()[:, AXIS[plane.view]]
    if not across.min() <= plane.position_mm <= across.max():
        return []
    image = around.place(sitk.GetImageFromArray(np.pad(mask.array, 1).astype(np.float32)))
    box = _image_box(image, plane)
    pixel_mm = max(0.35, 0.7 * min(structures.geometry.spacing))
    box = (box[0] - pixel_mm, box[1] + pixel_mm, box[2] - pixel_mm, box[3] + pixel_mm)
    resampler = _grid(plane, box, pixel_mm)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    lines = isolines(_resample(resampler, image, plane.view), 0.5)
    corner = np.array([box[0] + pixel_mm / 2, box[2] + pixel_mm / 2])
    return [_simplify(line * pixel_mm + corner) for line in lines]


def _simplify(line: NDArray[np.float64], tolerance_mm: float = 0.08) -> NDArray[np.float64]:
    """Drop points that lie on the straight line between their neighbours."""
    for _ in range(3):
        if len(line) < 8:
            break
        before, at, after = line[:-2:2], line[1:-1:2], line[2::2]
        chord = after - before
        away = np.abs(chord[:, 0] * (at - before)[:, 1] - chord[:, 1] * (at - before)[:, 0])
        keep = np.ones(len(line), bool)
        keep[1:-1:2] = away > tolerance_mm * np.maximum(np.hypot(*chord.T), 1e-9)
        line = line[keep]
    return line


def _crop_to_body(
    pixels: NDArray[np.float32], box: Box, pixel_mm: float, lines: list[NDArray[np.float64]]
) -> tuple[Box, NDArray[np.float32]]:
    """Crop the picture to the largest object in it that is not air, and to the organs."""
    limits = np.array([pixels.shape[1], pixels.shape[0]])
    labels, count = scipy.ndimage.label(scipy.ndimage.binary_opening(pixels > _BODY_HU, iterations=2))
    low, high = np.zeros(2), limits.astype(float)
    if count:
        down, across = scipy.ndimage.find_objects(labels)[int(np.argmax(np.bincount(labels.ravel())[1:]))]
        low, high = np.array([across.start, down.start], float), np.array([across.stop, down.stop], float)
    if lines:
        points = (np.concatenate(lines) - (box[0], box[2])) / pixel_mm
        first, last = points.min(axis=0), points.max(axis=0)
        reach = np.maximum(_MOST_MM / pixel_mm - (last - first), 0) / 2
        low, high = (
            np.minimum(np.maximum(low, first - reach), first),
            np.maximum(np.minimum(high, last + reach), last),
        )
    margin = _MARGIN_MM / pixel_mm
    x0, y0 = np.maximum(np.floor(low - margin), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high + margin), limits).astype(int)
    edges = box[0] + x0 * pixel_mm, box[0] + x1 * pixel_mm, box[2] + y0 * pixel_mm, box[2] + y1 * pixel_mm
    return edges, pixels[y0:y1, x0:x1]


def _close_up_box(
    lines: list[NDArray[np.float64]], limits: Box, margin_mm: float = 18.0, least_mm: float = 70.0
) -> Box:
    points = np.concatenate(lines)
    low, high = points.min(axis=0) - margin_mm, points.max(axis=0) + margin_mm
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, least_mm / 2)
    low, high = middle - half, middle + half
    return (
        max(float(low[0]), limits[0]),
        min(float(high[0]), limits[1]),
        max(float(low[1]), limits[2]),
        min(float(high[1]), limits[3]),
    )


# SVG and PNG


def png(hu: NDArray[np.float32], window_hu: tuple[float, float] = WINDOW_HU) -> bytes:
    """A slice [row, column] in HU as an 8-bit PNG, in 64 greys: enough for the eye, half the bytes."""
    low, high = window_hu
    grey = np.clip((hu - low) / (high - low), 0, 1)
    values = np.rint(np.rint(grey * 63) * (255 / 63)).astype(np.uint8)
    rows, columns = values.shape
    lines = np.zeros((rows, columns + 1), np.uint8)
    lines[:, 1:] = values
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _path(lines: list[NDArray[np.float64]], left: float, top: float) -> str:
    """Closed outlines in tenths of a millimetre, relative coordinates."""
    parts = []
    for line in lines:
        points = np.rint((line - (left, top)) * 10).astype(int)
        steps = np.diff(points, axis=0)
        steps = steps[np.any(steps != 0, axis=1)]
        parts.append(
            f"M{points[0, 0] / 10:g} {points[0, 1] / 10:g}l"
            + " ".join(f"{dx / 10:g} {dy / 10:g}" for dx, dy in steps)
            + "z"
        )
    return "".join(parts).replace(" 0.", " .").replace("-0.", "-.")


def _letters(view: str, width: float, height: float) -> str:
    size = 0.04 * max(width, height)
    left, right, upper, lower = _SIDES[view]
    places = (
        (left, size * 0.75, height / 2),
        (right, width - size * 0.75, height / 2),
        (upper, width / 2, size * 0.8),
        (lower, width / 2, height - size * 0.8),
    )
    return (
        f'<g class="letters" font-size="{size:.1f}">'
        + "".join(f'<text x="{x:.1f}" y="{y:.1f}">{letter}</text>' for letter, x, y in places)
        + "</g>"
    )


def _ring(at: NDArray[np.float64], radius_mm: float = 6.0) -> str:
    return f'<circle class="mark" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius_mm:g}"/>'


def _scale_bar(width: float, height: float) -> str:
    length = 50 if width >= 110 else 10
    size = 0.03 * max(width, height)
    x, y, tick = size, height - size, 0.4 * size
    bar = f"M{x:.1f} {y - tick:.1f}v{tick:.1f}h{length}v{-tick:.1f}"
    return (
        f'<g class="scale"><path class="edge" d="{bar}"/><path d="{bar}"/>'
        f'<text x="{x + length / 2:.1f}" y="{y - 1.5 * tick:.1f}" font-size="{size:.1f}">'
        f"{length // 10} cm</text></g>"
    )


def _length(line: NDArray[np.float64]) -> float:
    return float(np.hypot(*np.diff(line, axis=0, append=line[:1]).T).sum())


def _inside(line: NDArray[np.float64], box: Box) -> bool:
    return bool(
        np.any((line[:, 0] > box[0]) & (line[:, 0] < box[1]) & (line[:, 1] > box[2]) & (line[:, 1] < box[3]))
    )
