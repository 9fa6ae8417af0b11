"""The same patient scanned or stored otherwise, and how to bring masks made there back to the scan as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from soars.catalogue import partner
from soars.structures import Geometry, StructureSet

AIR_HU = -1000.0
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

    def back(self, found: StructureSet, name: str) -> np.ndarray:
        """The mask of the organ that is called `name` in the original, on its grid: bool [z, y, x]."""
        called = self.organ(name)
        if called not in found:
            return np.zeros(self.original.shape, bool)
        return self._resampled(_soft(found.full(called)), 0.0) > 0.5

    def seen(self) -> np.ndarray:
        """Which voxels of the original this scan shows, bool [z, y, x]."""
        return self._resampled(np.ones(self.image.GetSize()[::-1]), 0.0) > 0.5

    def _resampled(self, array: np.ndarray, outside: float) -> np.ndarray:
        image = sitk.GetImageFromArray(array.astype(np.float32))
        image.CopyInformation(self.image)
        g = self.original
        there = sitk.Resample(
            image, g.size, sitk.Transform(), sitk.sitkLinear, g.origin, g.spacing, g.direction, outside
        )
        found = sitk.GetArrayFromImage(there)
        return found[:, :, ::-1] if self.mirrored else found


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
    seen = variation.seen()
    names = [*usual.names, *(n for n in map(variation.organ, found.names) if n not in usual)]
    result = {}
    for name in names:
        whole = usual.full(name) if name in usual else np.zeros_like(seen)
        here, there = whole & seen, variation.back(found, name) & seen
        if here.sum() < LEAST_SEEN * whole.sum():
            continue
        total = int(here.sum()) + int(there.sum())
        if total:
            dsc = 2 * int((here & there).sum()) / total
            result[name] = (dsc, float(here.sum()) * usual.geometry.voxel_cc)
    return result


def _soft(mask: np.ndarray) -> np.ndarray:
    """Above one half inside the mask, by how deep a voxel lies.

    To bring a ball of 7 cc from one grid to another costs its DSC 0.05 at 3 mm and 0.025 at 2 mm even so, since both
    grids round it: use small voxels.
    """
    depth = scipy.ndimage.distance_transform_edt(mask) - scipy.ndimage.distance_transform_edt(~mask)
    smooth: np.ndarray = scipy.ndimage.gaussian_filter(depth.astype(np.float32), SOFT_VOXELS)
    return 0.5 + 0.1 * smooth


def _opened(plane: np.ndarray, voxels: float) -> np.ndarray:
    inside = scipy.ndimage.distance_transform_edt(plane) > voxels
    return scipy.ndimage.distance_transform_edt(~inside) <= voxels if inside.any() else inside
