"""The CT and the organs inside the page: small enough for one file, fast to unpack for the viewer's script.

A CT value becomes one of 256 levels, which are close where soft tissue and brain are distinguished and wide in air
and bone. Each axial slice is predicted from the voxels to the left and above, and the differences are deflated with run
lengths: 1.5 bits a voxel on a real head and neck, at 80 million voxels a second. An organ is the bits of its bounding
box on the CT's own voxels; the viewer draws the outlines of all three planes from them.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import SimpleITK as sitk
from numpy.typing import NDArray

from soars.report.record import OrganRecord
from soars.report.upright import AxialSlices
from soars.structures import Geometry, Mask, StructureSet

LEVELS_HU: NDArray[np.int16] = np.concatenate(
    [
        np.arange(-1000, -200, 20),
        np.arange(-200, -40, 4),
        np.arange(-40, 120, 2),
        np.arange(120, 320, 4),
        np.arange(320, 1470, 25),
    ]
).astype(np.int16)
"""The 256 HU values that the viewer can show: 2 HU apart in soft tissue, where brain is read at a width of 80."""

MOST_BYTES = 16_000_000
"""Bytes of the deflated slices; a third more as text. With pictures and organs the page stays below 25 MB."""

_LOWEST_HU, _HIGHEST_HU = -1024, 3071
_AIR_HU, _BODY_HU = -1000.0, -300
_FINEST_MM = 0.95
"""Pixels smaller than this are resampled to 1 mm."""
_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Embedded:
    """What the page holds for its viewer: ``scene``, JSON that cannot end a script element, and ``slices``, each
    axial slice from feet to head as a line of base64."""

    scene: str
    slices: str


def embed(
    image: sitk.Image, structures: StructureSet, organs: Sequence[OrganRecord], numbering: AxialSlices
) -> Embedded:
    """Pack an upright CT in HU, and the masks of `organs` that are among the structures of its grid.

    Args:
        image: as `soars.report.upright.upright` returns it.
        numbering: how its axial slices are numbered.
    """
    shown, slices = _fitting(_around_body(image, structures), MOST_BYTES)
    scene = {
        "image": _grid(Geometry.of(shown)),
        "masks": _grid(structures.geometry),
        "numbering": {"first": numbering.first_mm, "step": numbering.step_mm, "count": numbering.count},
        "levels": LEVELS_HU.tolist(),
        "organs": [_organ(organ, structures) for organ in organs],
    }
    return Embedded(script_json(scene), "\n".join(base64.b64encode(data).decode("ascii") for data in slices))


def script_json(value: Any) -> str:
    """JSON for a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _grid(geometry: Geometry) -> dict[str, Any]:
    return {"size": geometry.size, "spacing": geometry.spacing, "origin": geometry.origin}


def _organ(organ: OrganRecord, structures: StructureSet) -> dict[str, Any]:
    mask = structures.crop(organ.name)
    return {
        "name": organ.name,
        "label": organ.label,
        "colour": "#{:02x}{:02x}{:02x}".format(*organ.colour),
        "start": mask.start[::-1],
        "size": mask.shape[::-1],
        "centre": structures.geometry.to_physical(middle_voxel(mask)).tolist(),
        "bits": base64.b64encode(zlib.compress(np.packbits(mask.array).tobytes(), 9)).decode("ascii"),
    }


def middle_voxel(mask: Mask) -> NDArray[np.intp]:
    """The voxel (z, y, x) of a mask nearest the middle of its largest axial slice: in the organ, whatever its shape."""
    z = int(np.argmax(np.count_nonzero(mask.array, axis=(1, 2))))
    voxels = np.argwhere(mask.array[z])
    y, x = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    return np.array([z, y, x], np.intp) + np.array(mask.start, np.intp)


# The image


def _around_body(image: sitk.Image, structures: StructureSet) -> sitk.Image:
    """All axial slices, cut to the patient and the organs with a margin."""
    every = (2, 4, 4)
    array = sitk.GetArrayViewFromImage(image)[tuple(slice(None, None, n) for n in every)]
    labels, count = scipy.ndimage.label(array > _BODY_HU)
    boxes = []
    if count:
        body = scipy.ndimage.find_objects(labels)[int(np.argmax(np.bincount(labels.ravel())[1:]))]
        boxes.append([(s.start * n, s.stop * n) for s, n in zip(body, every, strict=True)])
    masks = (structures.crop(name) for name in structures if not structures.is_empty(name))
    boxes += [list(zip(mask.start, mask.stop, strict=True)) for mask in masks]
    if not boxes:
        return image
    x, y = (_span([box[axis] for box in boxes], image, 2 - axis) for axis in (2, 1))
    depth = image.GetSize()[2]
    # not image[x, y, :], which copies twice
    return sitk.RegionOfInterest(image, [x.stop - x.start, y.stop - y.start, depth], [x.start, y.start, 0])


def _span(spans: Sequence[tuple[int, int]], image: sitk.Image, axis: int) -> slice:
    margin = round(_MARGIN_MM / image.GetSpacing()[axis])
    low = min(start for start, _ in spans) - margin
    high = max(stop for _, stop in spans) + margin
    return slice(max(low, 0), min(high, image.GetSize()[axis]))


def _fitting(image: sitk.Image, most_bytes: int) -> tuple[sitk.Image, list[bytes]]:
    """The image with pixels of about a millimetre, or as much larger as it takes, and its packed slices."""
    x_mm, y_mm, _ = image.GetSpacing()
    pixel = (x_mm if x_mm >= _FINEST_MM else 1.0, y_mm if y_mm >= _FINEST_MM else 1.0)
    while True:
        shown = _with_pixels(image, pixel)
        slices = [pack(levels) for levels in _levels(shown)]
        total = sum(map(len, slices))
        if total <= most_bytes:
            return shown, slices
        larger = 1.02 * (total / most_bytes) ** 0.5
        pixel = (pixel[0] * larger, pixel[1] * larger)


def _with_pixels(image: sitk.Image, pixel_mm: tuple[float, float]) -> sitk.Image:
    """The same slices with other pixels, each the mean of what it covers or interpolated between voxels."""
    spacing = image.GetSpacing()
    if pixel_mm == spacing[:2]:
        return image
    factors = [max(1, int(new / old)) for new, old in zip(pixel_mm, spacing[:2], strict=True)]
    if max(factors) > 1:
        image = sitk.BinShrink(image, [*factors, 1])
    size, origin, spacing = image.GetSize(), image.GetOrigin(), image.GetSpacing()
    new_size = [max(1, int(size[a] * spacing[a] / pixel_mm[a])) for a in range(2)]
    new_origin = [origin[a] + (pixel_mm[a] - spacing[a]) / 2 for a in range(2)]
    return sitk.Resample(
        image,
        [*new_size, size[2]],
        sitk.Transform(),
        sitk.sitkLinear,
        [*new_origin, origin[2]],
        [*pixel_mm, spacing[2]],
        image.GetDirection(),
        _AIR_HU,
    )


def _levels(image: sitk.Image) -> list[NDArray[np.uint8]]:
    """The axial slices [row, column] of an image in HU, each voxel the number of its nearest level."""
    every_hu = np.arange(_LOWEST_HU, _HIGHEST_HU + 1)
    table = np.rint(np.interp(every_hu, LEVELS_HU, np.arange(256))).astype(np.uint8)
    array = sitk.GetArrayViewFromImage(image)
    return [table[np.rint(np.clip(hu, _LOWEST_HU, _HIGHEST_HU)).astype(np.intp) - _LOWEST_HU] for hu in array]


def pack(levels: NDArray[np.uint8]) -> bytes:
    """Deflate a slice [row, column] of levels, each less the mean of the one to its left and the one above."""
    left, above = np.zeros((2, *levels.shape), np.uint16)
    left[:, 1:] = levels[:, :-1]
    above[1:] = levels[:-1]
    differences = (levels - ((left + above) >> 1)).astype(np.uint8)
    deflater = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return deflater.compress(differences.tobytes()) + deflater.flush()
