"""The CT and its organs on a grid along the patient's axes, which is how a person reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from soars.structures import Geometry, StructureSet

_TILTED_DEG = 0.05
"""Up to this angle, 0.2 mm at the rim of a head, an image counts as lying along the patient's axes."""
_AIR_HU = -1000.0


@dataclass(frozen=True)
class AxialSlices:
    """The axial slices of a CT, numbered from 1 in the order in which the CT stores them.

    Attributes:
        first_mm: place of slice 1 on the patient's axis from feet to head.
        step_mm: from one slice to the next; negative when slice 1 is nearest the head.
        count: how many slices there are.
    """

    first_mm: float
    step_mm: float
    count: int

    @classmethod
    def of(cls, image: sitk.Image) -> AxialSlices:
        """The numbering of an image that is not tilted; its axis along the body need not be the third."""
        direction = np.reshape(image.GetDirection(), (3, 3))
        column = int(np.argmax(np.abs(direction[2])))
        step = float(image.GetSpacing()[column]) * (1.0 if direction[2, column] > 0 else -1.0)
        return cls(float(image.GetOrigin()[2]), step, int(image.GetSize()[column]))

    def number(self, z_mm: float) -> int:
        """The number of the slice nearest to a place; the first or last one's beyond the scan."""
        return min(max(round((z_mm - self.first_mm) / self.step_mm) + 1, 1), self.count)

    def words(self, z_mm: float) -> str:
        return f"slice {self.number(z_mm)} of {self.count}"


def upright(image: sitk.Image, structures: StructureSet) -> tuple[sitk.Image, StructureSet, AxialSlices]:
    """Both with the axes x to the patient's left, y to the back and z to the head, and how slices are numbered.

    An image whose axes are the patient's in another order or sense is turned, voxel for voxel; the slices keep the
    numbers that they have in the CT. A tilted one is resampled linearly onto an upright grid of its own spacing.
    """
    turned = _turned(image)
    if _tilt_deg(turned) > _TILTED_DEG:
        grid = _upright_grid(turned)
        resampled = sitk.Resample(
            turned,
            grid.size,
            sitk.Transform(),
            sitk.sitkLinear,
            grid.origin,
            grid.spacing,
            grid.direction,
            _AIR_HU,
        )
        return resampled, structures.resample(grid), AxialSlices.of(resampled)
    organs = structures.resample(Geometry.of(turned), nearest=True)
    upright_exactly = tuple(np.eye(3).ravel().tolist())
    if turned.GetDirection() != upright_exactly:
        turned = sitk.Image(turned)  # the CT itself keeps its direction
        turned.SetDirection(upright_exactly)
    return turned, organs.on(Geometry.of(turned)), AxialSlices.of(image)


def _turned(image: sitk.Image) -> sitk.Image:
    """The image with its axes in the order and sense nearest to LPS, as `sitk.DICOMOrient` gives it, which copies an
    image twice also when there is nothing to turn: too much for a CT of some gigabytes. Then it is the image itself."""
    direction = np.reshape(image.GetDirection(), (3, 3))
    wanted = sitk.DICOMOrientImageFilter()
    wanted.SetDesiredCoordinateOrientation("LPS")
    corner = sitk.Image(2, 2, 2, sitk.sitkUInt8)
    corner.SetDirection(direction.ravel().tolist())
    wanted.Execute(corner)
    order, flips = wanted.GetPermuteOrder(), wanted.GetFlipAxes()
    turned = image if tuple(order) == (0, 1, 2) else sitk.PermuteAxes(image, order)
    return sitk.Flip(turned, flips) if any(flips) else turned


def _tilt_deg(image: sitk.Image) -> float:
    """The largest angle, in degrees, between an axis of the image and the patient's axis that it follows."""
    along = np.diag(np.reshape(image.GetDirection(), (3, 3)))
    return float(np.degrees(np.arccos(np.clip(along, -1, 1))).max())


def _upright_grid(image: sitk.Image) -> Geometry:
    """The smallest grid along the patient's axes, with the image's spacing, that holds all of its voxels."""
    corners = Geometry.of(image).corners()
    low, high = corners.min(axis=0), corners.max(axis=0)
    spacing = image.GetSpacing()
    x, y, z = (int(np.ceil((b - a) / s - 1e-6)) + 1 for a, b, s in zip(low, high, spacing, strict=True))
    return Geometry((x, y, z), spacing, (float(low[0]), float(low[1]), float(low[2])))
