"""Rigid registration of an MR to a CT of the same patient, and whether its result can be believed.

Rigid registration and early fusion are what the winners of the HaN-Seg challenge did (Podobnik et al., Radiother Oncol
2024), whose text gives no details. Here: Mattes' mutual information at three resolutions. The two scans need share
nothing but a part of the patient: field of view, voxels, orientation and frame of reference may all differ, so the
start is searched for along the patient instead of being taken from the headers alone. Nothing is drawn at random: the
same scans give the same result, up to the rounding of sums over threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from soars.errors import InputError

SPACING_MM = 2.0
"""The CT is registered on voxels of this size: finer ones make the result no better than a third of a millimetre."""
BINS = 32
SHARE = 0.2
"""Of the voxels that the mutual information is estimated from at the finest resolution; all at the coarser ones, where
samples are so few that their noise stops the optimiser."""
STEP_MM = 20.0
"""The start is searched along the patient in steps of this length."""
STARTS = 3
"""So many of the best starts are followed."""
SMOOTHING_MM = {4: 3.0, 2: 1.5, 1: 0.0}
FIRST_STEP_MM = {4: 6.0, 2: 1.0, 1: 0.5}
"""By how many times the voxels are coarser than `SPACING_MM`."""
CT_RANGE_HU = (-200.0, 300.0)
"""Beyond it lies what an MR does not tell apart: air on one side, bone on the other."""
LEAST_SHARED_CC = 150.0
"""Less of the patient in both scans is not enough to tell a good fit from a chance one."""
MOST_ROTATION_DEGREES = 40.0
LEAST_INFORMATION = 0.12
"""Mutual information (nats, where both scans see the patient) below which the MR shows something else than the CT."""
ASIDE_MM, LEAST_GAIN = 25.0, 1.3
"""An MR that fits does so in one place: moved aside by so much, it must explain so many times less."""

SOFT_HU, MOST_ALIKE = (-150.0, 250.0), 0.9
"""Where fat, muscle and vessels are. Values that rise with the CT's there by so high a correlation are a CT's: in a
T1-weighted MR fat is brightest, and where it is suppressed noise and uneven coils leave less."""
FEWEST_PAIRS = 1000

Watch = Callable[[], None]
"""Called now and then; raises to stop."""


@dataclass(frozen=True)
class Registration:
    """Where the MR lies.

    Attributes:
        transform: maps a point of the CT to the MR's (LPS mm), as resampling the MR onto the CT needs.
        moved_mm: how far the middle of what both scans see was moved.
        rotated_degrees: the angle of the rotation.
        information: mutual information after the fit (nats).
        shared_cc: how much of the patient lies in both scans.
    """

    transform: sitk.Transform
    moved_mm: float
    rotated_degrees: float
    information: float
    shared_cc: float


class MisfitError(InputError):
    """An MR that was laid onto a CT, and does not fit there.

    Attributes: ``found``, where it was laid; ``picture``, a PNG that shows it, where somebody has drawn one.
    """

    picture: bytes = b""

    def __init__(self, message: str, found: Registration) -> None:
        self.found = found
        super().__init__(message)


def register(ct: sitk.Image, body: sitk.Image, mr: sitk.Image, watch: Watch = lambda: None) -> Registration:
    """Find the rigid motion that lays an MR onto a CT.

    Args:
        ct: HU.
        body: 1 where the patient is, in the CT's space.
        mr: any values.
        watch: called at every step of the optimiser.

    Raises `InputError` when the two scans share too little of the patient or the "MR" is a CT, `MisfitError` when the
    result is not plausible, or explains too little: an MR of another body part, say.
    """
    fixed = _isotropic(ct)
    inside = sitk.Resample(body, fixed, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    fixed = sitk.Mask(sitk.Clamp(fixed, sitk.sitkFloat32, *CT_RANGE_HU), inside, CT_RANGE_HU[0])
    moving = _clipped(mr)
    starts = sorted(
        (_information(fixed, inside, moving, start), n, start)
        for n, start in enumerate(_starts(inside, moving))
    )[-STARTS:]
    fits = []
    for _, n, start in starts:
        watch()
        coarse = _fit(fixed, inside, moving, start, (4,), watch)
        fits.append((_information(fixed, inside, moving, coarse), n, coarse))
    best = max(fits)[2]
    for finer in ((2,), (1,)):
        best = _fit(fixed, inside, moving, best, finer, watch)
    return _checked(fixed, inside, moving, best)


def _isotropic(image: sitk.Image) -> sitk.Image:
    """The image on voxels of `SPACING_MM` in its own orientation, smoothed for them."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    for axis in np.flatnonzero(spacing < SPACING_MM / 1.2).tolist():
        if size[axis] >= 4:
            image = sitk.RecursiveGaussian(
                image, SPACING_MM / 2.355, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis
            )
    new = np.maximum(np.round(size * spacing / SPACING_MM), 1).astype(int)
    out = sitk.ResampleImageFilter()
    out.SetSize(new.tolist())
    out.SetOutputSpacing([SPACING_MM] * 3)
    out.SetOutputDirection(image.GetDirection())
    shift = (np.full(3, SPACING_MM) - spacing) / 2
    out.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint((shift / spacing).tolist()))
    out.SetDefaultPixelValue(CT_RANGE_HU[0])
    return out.Execute(image)


def _clipped(mr: sitk.Image) -> sitk.Image:
    """The MR without its brightest and darkest half percent, which a few vessels and artefacts make up."""
    values = sitk.GetArrayViewFromImage(mr)
    low, high = np.percentile(values, (0.5, 99.5)).tolist()
    return sitk.Clamp(sitk.Cast(mr, sitk.sitkFloat32), sitk.sitkFloat32, low, high)


def _starts(inside: sitk.Image, moving: sitk.Image) -> list[sitk.Euler3DTransform]:
    """Where to begin: as the headers have it, and the two patients' middles upon each other at every height."""
    patient = np.argwhere(sitk.GetArrayViewFromImage(inside))[:, ::-1]
    points = np.array(
        [inside.TransformIndexToPhysicalPoint(p.tolist()) for p in patient[:: max(1, len(patient) // 4000)]]
    )
    middle = _middle_of(moving)
    starts = [_moved(np.zeros(3), middle)]
    low, high = points[:, 2].min(), points[:, 2].max()
    for height in np.arange(low + STEP_MM, high, STEP_MM):
        near = points[np.abs(points[:, 2] - height) < 1.5 * STEP_MM]
        if len(near) > 20:
            at = np.array([*near[:, :2].mean(axis=0), height])
            starts.append(_moved(middle - at, at))
    return starts


def _middle_of(moving: sitk.Image) -> np.ndarray:
    """The centre of mass of what is bright, LPS mm."""
    values = sitk.GetArrayViewFromImage(moving)
    bright = values > values.min() + 0.2 * (values.max() - values.min())
    index = np.argwhere(bright).mean(axis=0)[::-1] if bright.any() else np.array(moving.GetSize()) / 2
    return np.array(moving.TransformContinuousIndexToPhysicalPoint(index.tolist()))


def _moved(by_mm: np.ndarray, centre_mm: np.ndarray) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(centre_mm.tolist())
    transform.SetTranslation(by_mm.tolist())
    return transform


def _fit(
    fixed: sitk.Image,
    inside: sitk.Image,
    moving: sitk.Image,
    start: sitk.Transform,
    shrink: tuple[int],
    watch: Watch,
) -> sitk.Transform:
    """The best motion near a start, from coarse to fine."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    if shrink == (1,):
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(SHARE)
    method.SetMetricFixedMask(inside)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(list(shrink))
    method.SetSmoothingSigmasPerLevel([SMOOTHING_MM[s] for s in shrink])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=FIRST_STEP_MM[shrink[0]], minStep=0.02, numberOfIterations=300, relaxationFactor=0.85
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    stopped: list[BaseException] = []

    def each() -> None:
        try:
            watch()
        except BaseException as error:  # raised again below: an exception cannot cross the optimiser
            stopped.append(error)
            method.StopRegistration()

    method.AddCommand(sitk.sitkIterationEvent, each)
    try:
        found = method.Execute(fixed, moving)
    except RuntimeError:
        return start  # all samples left the MR: this start leads nowhere
    if stopped:
        raise stopped[0]
    return sitk.Euler3DTransform(sitk.CompositeTransform(found).GetBackTransform())


def _pairs(
    fixed: sitk.Image, inside: sitk.Image, moving: sitk.Image, transform: sitk.Transform, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values of CT and MR at the patient's voxels that both scans see, every so many voxels along each axis."""
    grid = sitk.Shrink(inside, [every] * 3)
    nothing = float(np.float32(-1e30))
    laid = sitk.GetArrayFromImage(
        sitk.Resample(moving, grid, transform, sitk.sitkLinear, nothing, sitk.sitkFloat32)
    )
    hu = sitk.GetArrayFromImage(sitk.Resample(fixed, grid, sitk.Transform(), sitk.sitkLinear, CT_RANGE_HU[0]))
    both = (sitk.GetArrayViewFromImage(grid) > 0) & (laid > nothing / 2)
    return hu[both], laid[both]


def _information(
    fixed: sitk.Image, inside: sitk.Image, moving: sitk.Image, transform: sitk.Transform, every: int = 3
) -> float:
    """Mutual information in nats where both scans see the patient, lowered where that is little of either."""
    hu, laid = _pairs(fixed, inside, moving, transform, every)
    shared = len(hu) * (SPACING_MM * every) ** 3 / 1000
    if shared < LEAST_SHARED_CC:
        return -1.0 + shared / LEAST_SHARED_CC
    counts, _, _ = np.histogram2d(hu, laid, bins=32)
    joint = counts / counts.sum()
    alone = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / alone[there])).sum())


def _checked(
    fixed: sitk.Image, inside: sitk.Image, moving: sitk.Image, transform: sitk.Transform
) -> Registration:
    hu, values = _pairs(fixed, inside, moving, transform, 2)
    shared = len(hu) * (2 * SPACING_MM) ** 3 / 1000
    if shared < LEAST_SHARED_CC:
        raise InputError(
            f"the MR and the CT have only {shared:.0f} cc of the patient in common, {LEAST_SHARED_CC:g} are needed: do "
            "they show the same part of the body?"
        )
    if _is_ct(hu, values):
        raise InputError(
            "the MR is a CT, perhaps the CT itself: where the one has higher values the other has, too; choose the MR"
        )
    rotation = np.array(sitk.Euler3DTransform(transform).GetMatrix()).reshape(3, 3)
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
    information = _information(fixed, inside, moving, transform, 2)
    middle = _shared_middle(moving, transform)
    moved = float(np.linalg.norm(np.array(transform.TransformPoint(middle.tolist())) - middle))
    found = Registration(transform, moved, degrees, information, shared)
    if degrees > MOST_ROTATION_DEGREES:
        raise MisfitError(
            f"the registration turned the MR by {degrees:.0f} degrees, which no positioning does: check that MR and CT "
            "show the same part of the same patient",
            found,
        )
    aside = max(_information(fixed, inside, moving, one, 2) for one in _aside(transform))
    if information < LEAST_INFORMATION or information < LEAST_GAIN * aside:
        raise MisfitError(
            f"the MR fits the CT nowhere (mutual information {information:.2f}, and {max(aside, 0):.2f} when moved by "
            f"{ASIDE_MM:g} mm): check that they show the same part of the same patient",
            found,
        )
    return found


def _is_ct(hu: np.ndarray, values: np.ndarray) -> bool:
    """Whether values of an "MR" are those of a CT, at voxels where the CT has these HU."""
    soft = (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    if soft.sum() < FEWEST_PAIRS or not (np.ptp(hu[soft]) and np.ptp(values[soft])):
        return False
    return float(np.corrcoef(hu[soft], values[soft])[0, 1]) > MOST_ALIKE


def _aside(transform: sitk.Transform) -> list[sitk.Euler3DTransform]:
    """The motion, and then a shift to either side along each axis."""
    moved = []
    for axis, sign in itertools.product(range(3), (-1, 1)):
        one = sitk.Euler3DTransform(transform)
        by = np.array(one.GetTranslation())
        by[axis] += sign * ASIDE_MM
        one.SetTranslation(by.tolist())
        moved.append(one)
    return moved


def _shared_middle(moving: sitk.Image, transform: sitk.Transform) -> np.ndarray:
    """The middle of the MR's field, as a point of the CT."""
    corners = [
        moving.TransformIndexToPhysicalPoint(
            [int(c * (n - 1)) for c, n in zip(k, moving.GetSize(), strict=True)]
        )
        for k in itertools.product((0, 1), repeat=3)
    ]
    return np.array(transform.GetInverse().TransformPoint(np.mean(corners, axis=0).tolist()))
