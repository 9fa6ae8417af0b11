"""From a CT in any orientation to network input: the one place where this happens, for training and for inference.

Everything a network sees lies on an axis-aligned grid in patient space (LPS, identity direction), so a feet-first,
flipped or oblique scan gives the same input as a head-first axial one, and left stays left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from soars.cascade.couch import patient_of
from soars.errors import InputError

AIR_HU = -1000.0
BODY_THRESHOLD_HU = -350.0
BODY_GRID_MM = 3.0
BODY_MARGIN_MM = 6.0
MIN_BODY_CC = 200.0
HEAD_MM = 100.0
"""So much of the patient below the crown shows where the middle is: in a scan of a whole head, its rigid part."""
CROWN_CM2 = 40.0
"""The crown is where a cross-section reaches this: far from noise, and close to where it grows fastest."""
ABOVE_CROWN_MM = 12.0
"""The topmost windows reach so far beyond the crown, to the end of the hair."""
HIGHEST_HU = 3071.0
"""The end of the usual scale. Scanners with an extended one give metal up to ten times as much; interpolated, it would
cover what lies beside it, and blacken what lies beyond."""
MASKED_SHARE = 0.6
"""A larger share of the air has one and the same value only where somebody has set it."""
SLAB_VOXELS = 1 << 26
"""Voxels of an image that are resampled together; as float32 a quarter of a gigabyte, and some copies of it."""
#: No head and neck is shorter than this.
LEAST_LENGTH_MM = 50.0


@dataclass(frozen=True)
class Grid:
    """An axis-aligned sampling grid in LPS: `origin_mm` is the centre of voxel (0, 0, 0); all tuples are (x, y, z)."""

    origin_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape (z, y, x)."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def centre_mm(self) -> np.ndarray:
        return np.asarray(self.origin_mm) + (np.asarray(self.size) - 1) * np.asarray(self.spacing_mm) / 2

    def image(self, array: np.ndarray) -> sitk.Image:
        """The array [z, y, x] as a SimpleITK image on this grid (a copy)."""
        image = sitk.GetImageFromArray(array)
        image.SetOrigin(self.origin_mm)
        image.SetSpacing(self.spacing_mm)
        return image

    def points_to_index(self, points_mm: np.ndarray) -> np.ndarray:
        """Continuous (z, y, x) indices of points [n, 3] given as (x, y, z) LPS mm."""
        index = (np.asarray(points_mm, float) - self.origin_mm) / self.spacing_mm
        return index[..., ::-1]

    def index_to_points(self, index_zyx: np.ndarray) -> np.ndarray:
        """LPS mm (x, y, z) of continuous (z, y, x) indices [..., 3]."""
        return np.asarray(index_zyx, float)[..., ::-1] * self.spacing_mm + self.origin_mm

    @staticmethod
    def of(origin_mm: Iterable[float], spacing_mm: Iterable[float], size: Iterable[int]) -> Grid:
        """A grid from anything that holds three numbers, arrays included."""
        ox, oy, oz = map(float, origin_mm)
        sx, sy, sz = map(float, spacing_mm)
        nx, ny, nz = map(int, size)
        return Grid((ox, oy, oz), (sx, sy, sz), (nx, ny, nz))

    @staticmethod
    def covering(lo_mm: np.ndarray, hi_mm: np.ndarray, spacing_mm: tuple[float, float, float]) -> Grid:
        """The smallest grid of that spacing whose voxels cover the box [lo, hi], centred on it."""
        lo, hi, spacing = (np.asarray(v, float) for v in (lo_mm, hi_mm, spacing_mm))
        size = np.maximum(np.ceil((hi - lo) / spacing - 1e-6).astype(int), 1)
        return Grid.of((lo + hi) / 2 - (size - 1) * spacing / 2, spacing, size)

    @staticmethod
    def around(
        centre_mm: np.ndarray,
        extent_mm: tuple[float, float, float],
        spacing_mm: tuple[float, float, float],
        divisor: tuple[int, int, int] = (1, 1, 1),
    ) -> Grid:
        """A grid centred on a point, at least `extent_mm` wide; its shape is a multiple of `divisor` (z, y, x)."""
        spacing = np.asarray(spacing_mm, float)
        step = np.asarray(divisor[::-1])
        size = np.ceil(np.ceil(np.asarray(extent_mm) / spacing - 1e-6) / step).astype(int) * step
        return Grid.of(np.asarray(centre_mm, float) - (size - 1) * spacing / 2, spacing, size)

    def slabs(self, count: int) -> list[Grid]:
        """The grid cut along z into so many parts, about equally thick."""
        ends = np.linspace(0, self.size[2], count + 1).astype(int)
        x, y, z = self.origin_mm
        return [
            Grid(
                (x, y, z + int(a) * self.spacing_mm[2]),
                self.spacing_mm,
                (self.size[0], self.size[1], int(b - a)),
            )
            for a, b in itertools.pairwise(ends)
        ]


@dataclass(frozen=True)
class Body:
    """The patient without couch and air.

    Attributes:
        mask: where the patient is, on a coarse LPS grid.
        lo_mm, hi_mm: the bounding box, LPS mm.
        already_masked: whether somebody has set the air already; the mask is everywhere then.
        head_mm: from where grids and windows are laid out, LPS mm: the middle of the upper `HEAD_MM` of the
            patient, and the height of the crown.
        box: of the scan's voxels, first one and size (x, y, z) of what holds tissue; all of them when None.
    """

    mask: sitk.Image
    lo_mm: np.ndarray
    hi_mm: np.ndarray
    already_masked: bool
    head_mm: np.ndarray
    box: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None

    def tissue(self, image: sitk.Image, grid: Grid) -> sitk.Image:
        """The scan without the slices of air around it, which would blur into the ends of the patient.

        Its end slices are repeated for half a voxel of the grid: where a scan ends within the patient, the grid's last
        voxels may have their centres just beyond, and would be patient or air by chance.
        """
        scan = _on_usual_scale(
            image if self.box is None else sitk.RegionOfInterest(image, self.box[1], self.box[0])
        )
        along = np.reshape(image.GetDirection(), (3, 3))[2]
        axis = int(np.argmax(np.abs(along)))
        more = [0, 0, 0]
        more[axis] = math.ceil(grid.spacing_mm[2] / 2 / image.GetSpacing()[axis])
        return sitk.ZeroFluxNeumannPad(scan, more, more)

    def grid(self, spacing_mm: tuple[float, float, float]) -> Grid:
        """The working grid of that spacing over the body's bounding box.

        Its voxels lie about `head_mm`, half a voxel to either side: what is cut off elsewhere, or lies beside the
        patient, moves none of them, and a mirrored patient gets the mirrored grid.
        """
        spacing = np.asarray(spacing_mm, float)
        first = np.floor((self.lo_mm - self.head_mm) / spacing + 1e-6)
        last = np.maximum(np.ceil((self.hi_mm - self.head_mm) / spacing - 1e-6), first + 1)
        return Grid.of(self.head_mm + (first + 0.5) * spacing, spacing, last - first)

    def middle(self, grid: Grid) -> tuple[int, int, int]:
        """`middle_of_head` of this patient on a grid that `grid` made."""
        return middle_of_head(self.head_mm, grid)


def middle_of_head(head_mm: np.ndarray, grid: Grid) -> tuple[int, int, int]:
    """The first voxels (z, y, x) beyond a `Body.head_mm` on a grid of that body, along z with `ABOVE_CROWN_MM`."""
    z, y, x = np.rint(grid.points_to_index(head_mm) + 0.5).astype(int).tolist()
    return z + round(ABOVE_CROWN_MM / grid.spacing_mm[2]), y, x


def extent_mm(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest LPS coordinate (x, y, z) that any voxel of the image covers, whatever its direction."""
    size = np.asarray(image.GetSize(), float)
    corners = [
        image.TransformContinuousIndexToPhysicalPoint(
            [float(-0.5 + c * s) for c, s in zip(corner, size, strict=True)]
        )
        for corner in np.ndindex(2, 2, 2)
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)


def resample(
    image: sitk.Image, grid: Grid, *, outside: float, nearest: bool = False, smooth: bool = True
) -> np.ndarray:
    """The image on the grid as an array [z, y, x].

    Cubic B-splines in float32, whose blur is the same wherever a point lies between the voxels (`blur`); before
    reducing the resolution the image is smoothed to the new voxel size, so that a 1 mm scan on a 3 mm grid looks like a
    3 mm scan. A large image is taken in slabs, so that memory does not grow with it.
    `nearest` is for labels and keeps the type; without `smooth` values are interpolated linearly (for masks that are
    thresholded afterwards: smoothing would shrink what is convex).
    """
    slabs = 1 if nearest else min(grid.size[2], -(-image.GetNumberOfPixels() // SLAB_VOXELS))
    parts = [
        _resample_slab(image, part, outside=outside, nearest=nearest, smooth=smooth)
        for part in grid.slabs(slabs)
    ]
    return parts[0] if slabs == 1 else np.concatenate(parts)


def _resample_slab(
    image: sitk.Image, grid: Grid, *, outside: float, nearest: bool, smooth: bool
) -> np.ndarray:
    moving = image if nearest else sitk.Cast(_cropped_to(image, grid), sitk.sitkFloat32)
    if smooth and not nearest:
        moving = _smoothed_for(moving, grid)
    filt = sitk.ResampleImageFilter()
    filt.SetSize(grid.size)
    filt.SetOutputOrigin(grid.origin_mm)
    filt.SetOutputSpacing(grid.spacing_mm)
    smoothly = sitk.sitkBSplineResamplerOrder3 if smooth else sitk.sitkLinear
    filt.SetInterpolator(sitk.sitkNearestNeighbor if nearest else smoothly)
    filt.SetDefaultPixelValue(float(outside))
    return sitk.GetArrayFromImage(filt.Execute(moving))


def find_body(image: sitk.Image) -> Body:
    """Find the patient in a CT (HU): the largest object above -350 HU, the couch left out (`soars.cascade.couch`) and
    thin bridges cut.

    Everything is laid out from where the tissue is, not from the scan's corner: a patient who lies elsewhere in the
    field of view, or with more air around, is found as the same voxels.

    A scan that somebody has already masked (constant outside the patient, as the OpenKBP set) is kept whole: there
    is no couch to remove, and organs may stand alone in it.

    Raises `InputError` when nothing the size of a head is found.
    """
    box = _tissue_box(image)
    if box is None:
        raise _no_patient(image)
    scan = _on_usual_scale(sitk.RegionOfInterest(image, box[1], box[0]))
    tissue = extent_mm(scan)
    coarse = Grid.covering(tissue[0] - BODY_GRID_MM, tissue[1] + BODY_GRID_MM, (BODY_GRID_MM,) * 3)
    hu = resample(scan, coarse, outside=AIR_HU)
    solid = hu > BODY_THRESHOLD_HU
    air = hu[~scipy.ndimage.maximum_filter(solid, 7)]  # beyond the reach of smoothing
    already_masked = air.size > 0 and float(np.mean(abs(air - np.median(air)) <= 1.0)) > MASKED_SHARE
    patient = patient_of(solid, hu, BODY_GRID_MM)
    mask = solid if already_masked else patient
    if not mask.any() or mask.sum() * BODY_GRID_MM**3 / 1000 < MIN_BODY_CC:
        raise _no_patient(image)
    where = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in (2, 1, 0)]
    box_lo = np.array([w[0] - 0.5 for w in where]) * BODY_GRID_MM + coarse.origin_mm - BODY_MARGIN_MM
    box_hi = np.array([w[-1] + 0.5 for w in where]) * BODY_GRID_MM + coarse.origin_mm + BODY_MARGIN_MM
    # By the same rule whether or not somebody has taken the couch away; of organs that stand alone, by all.
    head = _head_mm(hu, patient if patient.any() else mask, coarse, tissue[1][2])
    if already_masked:
        mask = np.ones_like(mask)
    return Body(
        mask=coarse.image(mask.astype(np.uint8)),
        lo_mm=np.maximum(box_lo, tissue[0]),
        hi_mm=np.minimum(box_hi, tissue[1]),
        already_masked=already_masked,
        head_mm=head,
        box=box,
    )


def _head_mm(hu: np.ndarray, mask: np.ndarray, grid: Grid, end_mm: float) -> np.ndarray:
    """`Body.head_mm`; `end_mm` is where the tissue ends, which is the crown when the scan begins below it.

    Voxels count by how much tissue they hold, and the crown lies between slices, so that neither depends on where the
    voxels happen to lie.
    """
    tissue = np.clip((hu - AIR_HU) / -AIR_HU, 0, 1) * mask
    areas_cm2 = tissue.sum(axis=(1, 2)) * BODY_GRID_MM**2 / 100
    wide = np.flatnonzero(areas_cm2 >= CROWN_CM2)
    top = int(wide[-1]) if len(wide) else int(np.flatnonzero(areas_cm2)[-1])
    crown = end_mm
    if len(wide) and top + 1 < len(areas_cm2) and areas_cm2[top + 1] < CROWN_CM2:
        beyond = (areas_cm2[top] - CROWN_CM2) / (areas_cm2[top] - areas_cm2[top + 1])
        crown = min(grid.origin_mm[2] + (top + beyond) * BODY_GRID_MM, end_mm)
    z = grid.origin_mm[2] + np.arange(grid.size[2]) * BODY_GRID_MM
    # A slice counts by how much of it lies within the head.
    share = np.clip((z - crown + HEAD_MM) / BODY_GRID_MM + 0.5, 0, 1)
    weights = tissue * share[:, None, None]
    along_y, along_x = weights.sum(axis=(0, 2)), weights.sum(axis=(0, 1))
    y = np.average(grid.origin_mm[1] + np.arange(grid.size[1]) * BODY_GRID_MM, weights=along_y)
    x = np.average(grid.origin_mm[0] + np.arange(grid.size[0]) * BODY_GRID_MM, weights=along_x)
    return np.array([x, y, crown])


def _no_patient(image: sitk.Image) -> InputError:
    lo, hi = extent_mm(image)
    if hi[2] - lo[2] < LEAST_LENGTH_MM:
        return InputError(
            f"the scan covers only {hi[2] - lo[2]:.3g} mm from head to foot: a CT of a head and neck is needed"
        )
    return InputError(
        "no patient found in the scan (nothing of the size of a head above -350 HU); "
        "is this a CT in Hounsfield units?"
    )


def _tissue_box(image: sitk.Image) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """First voxel and size (x, y, z) of the box of all voxels above -350 HU, the couch's too; None without any."""
    array = sitk.GetArrayViewFromImage(image)
    seen = [np.zeros(n, bool) for n in array.shape]
    for z, plane in enumerate(array):
        tissue = plane > BODY_THRESHOLD_HU
        if tissue.any():
            seen[0][z] = True
            seen[1] |= tissue.any(axis=1)
            seen[2] |= tissue.any(axis=0)
    if not seen[0].any():
        return None
    (z0, z1), (y0, y1), (x0, x1) = ((int(at[0]), int(at[-1]) + 1) for at in map(np.flatnonzero, seen))
    return (x0, y0, z0), (x1 - x0, y1 - y0, z1 - z0)


def _on_usual_scale(image: sitk.Image) -> sitk.Image:
    """The CT without what lies above `HIGHEST_HU`."""
    if sitk.GetArrayViewFromImage(image).max() <= HIGHEST_HU:
        return image
    return sitk.Clamp(image, upperBound=HIGHEST_HU)


def patient_hu(image: sitk.Image, body: Body, grid: Grid) -> np.ndarray:
    """The CT on the grid, float32 HU [z, y, x], air outside the body."""
    hu = resample(body.tissue(image, grid), grid, outside=AIR_HU)
    if not body.already_masked:
        hu[resample(body.mask, grid, outside=0, nearest=True) == 0] = AIR_HU
    return hu


def whole_hu(hu: np.ndarray) -> np.ndarray:
    """HU as training caches keep them: whole numbers from -1024 to 3071, int16."""
    return np.clip(np.rint(hu), -1024, HIGHEST_HU).astype(np.int16)


def network_input(
    image: sitk.Image, body: Body, grid: Grid, windows_hu: Sequence[tuple[float, float]]
) -> np.ndarray:
    """The CT's channels on the grid, float32 [window, z, y, x]: air outside the body, clipped to each window and scaled
    to [-1, 1]."""
    hu = patient_hu(image, body, grid)
    channels = np.empty((len(windows_hu), *hu.shape), np.float32)
    for channel, (low, high) in zip(channels, windows_hu, strict=True):
        channel[...] = (np.clip(hu, low, high) - low) * np.float32(2 / (high - low)) - 1
    return channels


def _cropped_to(image: sitk.Image, grid: Grid) -> sitk.Image:
    """The part of the image that the grid's interpolation can touch, to save time and memory."""
    half = np.asarray(grid.spacing_mm) * 2 + np.max(image.GetSpacing()) * 2
    lo = np.asarray(grid.origin_mm) - half
    hi = np.asarray(grid.origin_mm) + (np.asarray(grid.size) - 1) * grid.spacing_mm + half
    corners = np.array(
        [
            image.TransformPhysicalPointToContinuousIndex([(lo, hi)[b][a] for a, b in enumerate(c)])
            for c in np.ndindex(2, 2, 2)
        ]
    )
    size = np.asarray(image.GetSize())
    start = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, size - 1)
    stop = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, start + 1, size)
    return sitk.RegionOfInterest(image, [int(v) for v in stop - start], [int(v) for v in start])


def blur(old_mm: float, new_mm: float) -> float:
    """Variance, in voxels squared, of the blur along an axis from voxels of `old_mm` to a grid of `new_mm`.

    Linear interpolation at a share t between two voxels has t (1 - t), which is 1/6 on average; yet the same patient
    must not look sharp where a grid meets the voxels and blurred where it does not. So 1/6 is what every point gets.
    On a coarser grid the variance of a Gaussian is added whose FWHM makes up the difference.
    """
    return 1 / 6 + max(0.0, (new_mm / old_mm) ** 2 - 1) / (8 * np.log(2))


def _smoothed_for(image: sitk.Image, grid: Grid) -> sitk.Image:
    """The coefficients of B-splines that give the image with the `blur` of each of its axes.

    Cubic B-splines have a variance of 1/3 voxel squared of their own; the coefficients are sharpened or smoothed by the
    difference.
    """
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    target = np.abs(direction).T @ np.asarray(grid.spacing_mm)  # the grid's spacing along each image axis
    array = sitk.GetArrayViewFromImage(image)
    for axis, (new, old) in enumerate(zip(target, image.GetSpacing(), strict=True)):
        weights = _weights(blur(old, new) - 1 / 3)
        array = scipy.ndimage.correlate1d(array, weights, 2 - axis, mode="nearest")
    smoothed = sitk.GetImageFromArray(array)
    smoothed.CopyInformation(image)
    return smoothed


def _weights(variance: float) -> np.ndarray:
    """Symmetric weights that add up to 1, of that variance in voxels squared: the more, the closer to a Gaussian's.
    Those of a negative variance sharpen."""
    times = max(1, int(np.ceil(2 * variance)))
    share = variance / times / 2
    weights = np.ones(1)
    for _ in range(times):
        weights = np.convolve(weights, (share, 1 - 2 * share, share))
    return weights
