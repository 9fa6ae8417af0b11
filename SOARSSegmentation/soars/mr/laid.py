"""An MR laid onto a CT, as networks see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import SimpleITK as sitk

from soars.cascade.preprocess import Body, Grid, resample
from soars.mr.images import MrScan
from soars.mr.registration import MisfitError, Registration, Watch, register

CLIP_PERCENT = (0.5, 99.5)
CHANNELS = 2
"""What an MR adds to a network's input: its values, and where it has any."""
MOST_MOVED_MM = 40.0
"""Of an MR that was taken, or exported after a registration, in the CT's frame of reference: more than a head moves."""


@dataclass(frozen=True)
class LaidMr:
    """An MR with its place on a CT."""

    scan: MrScan
    found: Registration

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """The MR's values, float32 [z, y, x], and where it has any, bool [z, y, x], on a grid in the CT's space."""
        return on_grid(self.scan.image, self.found.transform, grid)

    def channels(self, grid: Grid, body: Body) -> np.ndarray:
        """float32 [2, z, y, x]: see `mr_channels`."""
        values, seen = self.on(grid)
        inside = (
            seen if body.already_masked else seen & (resample(body.mask, grid, outside=0, nearest=True) > 0)
        )
        return mr_channels(values, inside)


def lay_mr(
    mr: MrScan, ct: sitk.Image, body: Body, watch: Watch = lambda: None, frame_of_reference_uid: str = ""
) -> LaidMr:
    """Register an MR to the CT that it belongs to.

    Args:
        frame_of_reference_uid: the CT's, "" where it is not known.

    Raises as `soars.mr.registration.register` does, and `MisfitError` where both scans have one frame of reference but
    the MR was moved by more than `MOST_MOVED_MM`.
    """
    found = register(ct, body.mask, mr.image, watch)
    shared = frame_of_reference_uid and frame_of_reference_uid == mr.frame_of_reference_uid
    if shared and found.moved_mm > MOST_MOVED_MM:
        raise MisfitError(
            f"the registration moved the MR by {found.moved_mm:.0f} mm, though it has the CT's frame of reference, in "
            f"which it should lie in place: check that they show the same part of the same patient",
            found,
        )
    return LaidMr(mr, found)


def on_grid(mr: sitk.Image, transform: sitk.Transform, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """An MR on a grid that ``transform`` maps into its space: values, 0 beyond its field, and where it has any.

    Smoothed for coarser voxels as a CT is: along the MR's own axes, each by what the grid's spacing asks for.
    """
    smooth = sitk.Cast(mr, sitk.sitkFloat32)
    for axis, old in enumerate(mr.GetSpacing()):
        new = float(np.mean(grid.spacing_mm))
        if new > 1.2 * old and mr.GetSize()[axis] >= 4:
            sigma = float(np.sqrt(new**2 - old**2) / 2.355)
            smooth = sitk.RecursiveGaussian(
                smooth, sigma, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis
            )
    reference = sitk.Image(grid.size, sitk.sitkUInt8)
    reference.SetOrigin(grid.origin_mm)
    reference.SetSpacing(grid.spacing_mm)
    everywhere = sitk.Image(mr.GetSize(), sitk.sitkUInt8) + 1
    everywhere.CopyInformation(mr)
    values = sitk.Resample(smooth, reference, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    seen = sitk.Resample(everywhere, reference, transform, sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    return sitk.GetArrayFromImage(values), sitk.GetArrayFromImage(seen) > 0


def mr_channels(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What a network sees of an MR, float32 [2, z, y, x].

    The values inside, clipped to their percentiles 0.5 and 99.5 and brought to mean 0 and standard deviation 1, 0
    elsewhere; and 1 inside, 0 elsewhere. An MR has no unit, so its own values in the patient set the scale.

    Args:
        values: any unit, [z, y, x].
        inside: bool [z, y, x], where the MR shows the patient.
    """
    channels = np.zeros((CHANNELS, *values.shape), np.float32)
    if inside.any():
        there = values[inside]
        low, high = cast(tuple[float, float], np.percentile(there, CLIP_PERCENT))
        there = np.clip(there, low, high)
        channels[0][inside] = (there - there.mean()) / max(float(there.std()), 1e-6)
        channels[1][inside] = 1.0
    return channels
