"""The same patient scanned or stored otherwise, and how to bring masks made there back to the scan as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from soars.catalogue import partner
from soars.structures import EMPTY_MASK, Geometry, Mask, StructureSet, tight_mask
from soars.structures.box import Box
from soars.structures.mask import dice

AIR_HU = -1000.0
AROUND_VOXELS = 3
"""A mask is brought to another grid with so much around it."""
SOFT_VOXELS = 0.5
"""Standard deviation by which a mask's surface is smoothed before it is brought from one grid to another."""


@dataclass(frozen=True)
class Variation:
    """A scan that shows the same patient.

    Attributes:
        name: what was done.
        image: the scan, HU.
        original: the grid of the scan as it was.
        mirrored: whether right and left were exchanged, about the middle of the original grid's first axis.
    """

    name: str
    image: sitk.Image
    original: Geometry
    mirrored: bool = False

    def organ(self, name: str) -> str:
        """What the organ is called in this scan."""
        return (partner(name) or name) if self.mirrored else name

    def back(self, found: StructureSet, name: str) -> Mask:
        """The organ that is called `name` in the original, on its grid."""
        called = self.organ(name)
        if called not in found or found.is_empty(called):
            return EMPTY_MASK
        there = moved(found.crop(called), found.geometry, self.original)
        return self._turned(there) if self.mirrored else there

    def forth(self, usual: StructureSet, name: str) -> Mask:
        """The other way: an organ of the original on this scan's grid."""
        mask = usual.crop(name)
        return moved(self._turned(mask) if self.mirrored else mask, self.original, Geometry.of(self.image))

    def shows(self, box: Box) -> np.ndarray:
        """Which voxels of a box of the original this scan shows, bool [z, y, x]."""
        if self.mirrored:
            return np.ones(box.shape, bool)
        points = self.original.to_physical(np.moveaxis(np.indices(box.shape), 0, -1) + box.start)
        index, grid = Geometry.of(self.image).to_index(points), self.image.GetSize()[::-1]
        shown: np.ndarray = ((index > -0.5) & (index < np.array(grid) - 0.5)).all(axis=-1)
        return shown

    def _turned(self, mask: Mask) -> Mask:
        z, y, _ = mask.start
        return Mask((z, y, self.original.shape[2] - mask.stop[2]), mask.array[:, :, ::-1])


def moved(mask: Mask, grid: Geometry, other: Geometry) -> Mask:
    """A mask of one grid on another."""
    if mask.is_empty:
        return mask
    box = mask.bounds.grown(AROUND_VOXELS)
    here = grid.cropped(box.start, box.shape)
    index = other.to_index(here.corners())
    low, high = np.floor(index.min(axis=0)).astype(int), np.ceil(index.max(axis=0)).astype(int) + 1
    reached = Box.between(low, high) & other.box
    if reached.is_empty:
        return EMPTY_MASK
    image = here.place(sitk.GetImageFromArray(_soft(mask.within(box))))
    g = other.cropped(reached.start, reached.shape)
    there = sitk.Resample(
        image, g.size, sitk.Transform(), sitk.sitkLinear, g.origin, g.spacing, g.direction, 0.0
    )
    return tight_mask(sitk.GetArrayViewFromImage(there) > 0.5, reached.start)


def shifted(image: sitk.Image, voxels: tuple[int, int, int] = (7, 11, 3)) -> Variation:
    """The patient elsewhere in the array: air before, as many voxels (x, y, z) as are asked for."""
    return Variation("shifted", sitk.ConstantPad(image, voxels, (0, 0, 0), AIR_HU), Geometry.of(image))


def padded(image: sitk.Image, voxels: tuple[int, int, int] = (20, 20, 8)) -> Variation:
    """Air all around."""
    return Variation("padded", sitk.ConstantPad(image, voxels, voxels, AIR_HU), Geometry.of(image))


def cropped(image: sitk.Image, below_mm: float = 60.0) -> Variation:
    """So much less at the lower end, and in-plane no more than the patient with 10 mm around."""
    array = sitk.GetArrayViewFromImage(image)
    x, y, z = image.GetSpacing()
    first = round(below_mm / z)
    seen = (array[first:] > -300).any(axis=0)
    (y0, y1), (x0, x1) = ((np.flatnonzero(seen.any(axis=a))[[0, -1]]) for a in (1, 0))
    my, mx = round(10 / y), round(10 / x)
    y0, y1 = max(y0 - my, 0), min(y1 + my + 1, array.shape[1])
    x0, x1 = max(x0 - mx, 0), min(x1 + mx + 1, array.shape[2])
    return Variation("cropped", image[int(x0) : int(x1), int(y0) : int(y1), first:], Geometry.of(image))


def resampled(image: sitk.Image, share: float = 0.8) -> Variation:
    """On a grid of 0.8 of the spacing."""
    spacing = np.array(image.GetSpacing()) * share
    size = np.floor((np.array(image.GetSize()) - 1) / share).astype(int) + 1
    there = sitk.Resample(
        image, size.tolist(), sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing.tolist(),
        image.GetDirection(), AIR_HU,
    )  # fmt: skip
    return Variation(f"{share:g} of the spacing", there, Geometry.of(image))


def there_and_back(image: sitk.Image, share: float = 0.8) -> Variation:
    """Brought to a grid of 0.8 of the spacing and back: the blur of the two interpolations on an unchanged grid."""
    back = sitk.Resample(resampled(image, share).image, image, sitk.Transform(), sitk.sitkLinear, AIR_HU)
    return Variation(f"{share:g} and back", back, Geometry.of(image))


def mirrored(image: sitk.Image) -> Variation:
    """Right and left exchanged."""
    array = np.ascontiguousarray(sitk.GetArrayViewFromImage(image)[:, :, ::-1])
    other = sitk.GetImageFromArray(array)
    other.CopyInformation(image)
    return Variation("mirrored", other, Geometry.of(image), mirrored=True)


def feet_first(image: sitk.Image) -> Variation:
    """The same patient stored from head to feet and from left to right, in the same place."""
    return Variation("feet first", sitk.DICOMOrient(image, "RPI"), Geometry.of(image))


def without_couch(image: sitk.Image) -> Variation:
    """Only what hangs together with the largest piece of tissue, once opened by 5 mm in-plane, and 5 mm about it."""
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    spacing = image.GetSpacing()[::-1]
    tissue = np.stack([_opened(plane > -300, 5.0 / spacing[1]) for plane in array])
    pieces, count = scipy.ndimage.label(tissue)
    body = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax() if count else tissue
    body = np.stack([scipy.ndimage.binary_fill_holes(plane) for plane in body])
    near = scipy.ndimage.distance_transform_edt(~body, sampling=spacing) <= 5.0
    array[~near] = AIR_HU
    other = sitk.GetImageFromArray(array)
    other.CopyInformation(image)
    return Variation("without couch", other, Geometry.of(image))


VARIATIONS: tuple[Callable[[sitk.Image], Variation], ...] = (
    shifted,
    padded,
    cropped,
    resampled,
    mirrored,
    feet_first,
    without_couch,
)


LEAST_SEEN = 0.5
"""An organ of which the variation shows less has been cut off, and is another organ to the networks."""


def agreement(
    variation: Variation, usual: StructureSet, found: StructureSet
) -> dict[str, tuple[float, float]]:
    """For each organ of either: (DSC, the usual volume in cc), both in the part of the patient that both scans show.

    Organs that the variation cuts off (`LEAST_SEEN`) are left out.
    """
    names = [*usual.names, *(n for n in map(variation.organ, found.names) if n not in usual)]
    result = {}
    for name in names:
        whole = usual.crop(name) if name in usual else EMPTY_MASK
        there = variation.back(found, name)
        box = whole.bounds | there.bounds
        if box.is_empty:
            continue
        seen = variation.shows(box)
        both = [tight_mask(mask.within(box) & seen) for mask in (whole, there)]
        if both[0].voxels < LEAST_SEEN * whole.voxels or all(mask.is_empty for mask in both):
            continue
        result[name] = (dice(both[0], both[1]), both[0].voxels * usual.geometry.voxel_cc)
    return result


def grids_alone(variation: Variation, usual: StructureSet) -> dict[str, tuple[float, float]]:
    """`agreement` of the organs with themselves, brought to the variation's grid and back: what the two grids cost,
    whatever drew the organs."""
    there = StructureSet(Geometry.of(variation.image))
    for name in usual.names:
        there.add_mask(variation.organ(name), variation.forth(usual, name))
    return agreement(variation, usual, there)


def _soft(mask: np.ndarray) -> np.ndarray:
    """Above one half inside the mask, by how deep a voxel lies.

    To bring a ball of 7 cc from one grid to another costs its DSC 0.05 at 3 mm and 0.025 at 2 mm even so, since both
    grids round it: use small voxels, or compare with `grids_alone`.
    """
    depth = scipy.ndimage.distance_transform_edt(mask) - scipy.ndimage.distance_transform_edt(~mask)
    smooth: np.ndarray = scipy.ndimage.gaussian_filter(depth.astype(np.float32), SOFT_VOXELS)
    return 0.5 + 0.1 * smooth


def _opened(plane: np.ndarray, voxels: float) -> np.ndarray:
    inside = scipy.ndimage.distance_transform_edt(plane) > voxels
    return scipy.ndimage.distance_transform_edt(~inside) <= voxels if inside.any() else inside
