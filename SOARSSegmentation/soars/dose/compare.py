"""How much an organ's dose changes when its contour is replaced: what errors of the contour mean for the plan.

The dose distribution stays as planned; only the contour it is read in changes. Differences are those of Ye
et al. (Nature Communications 2022;13:6137), equation 6 for the mean and 7 for the maximum dose, in percent of the
reference's:

    100 (D_substitute - D_reference) / D_reference

signed here, and without their sign in the study.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from soars.dose.dvh import Dvh, structure_dvh
from soars.dose.sampling import DEFAULT_SAMPLING
from soars.errors import InputError
from soars.progress import Progress, Reporter, ignore
from soars.structures.model import StructureSet

COMPARED, MISSING, EXTRA, BOTH_EMPTY = "compared", "missing", "extra", "both empty"
HOTTEST_CC = 0.03
"""D0.03cc stands beside the maximum: a single voxel is moved by the choice of sampling."""
NOTED_PERCENT = (10.0, 30.0)
"""The study counts the organs whose dose differs by more than these."""


@dataclass(frozen=True)
class OrganDose:
    """Figures of one DVH; nan without a voxel. ``outside`` is the share of the organ beyond the dose grid."""

    volume_cc: float
    mean_gy: float
    max_gy: float
    d003cc_gy: float
    outside: float


@dataclass(frozen=True, eq=False)
class DoseDifference:
    """One organ with the reference's contour and with a substitute's.

    Attributes:
        organ, substitute: its name, and what the other contour is called.
        state: "compared", "missing" (no voxel in the substitute), "extra" (none in the reference) or "both empty".
        mean_percent, max_percent, d003cc_percent: signed differences in percent of the reference's dose; nan where
            a side is empty or the reference's dose is zero.
        reference_dvh, substitute_dvh: the DVHs themselves.
    """

    organ: str
    substitute: str
    state: str
    reference_dose: OrganDose
    substitute_dose: OrganDose
    reference_dvh: Dvh
    substitute_dvh: Dvh

    @property
    def mean_percent(self) -> float:
        return percent_difference(self.substitute_dose.mean_gy, self.reference_dose.mean_gy)

    @property
    def max_percent(self) -> float:
        return percent_difference(self.substitute_dose.max_gy, self.reference_dose.max_gy)

    @property
    def d003cc_percent(self) -> float:
        return percent_difference(self.substitute_dose.d003cc_gy, self.reference_dose.d003cc_gy)


@dataclass(frozen=True)
class DifferenceSummary:
    """Of one figure over organs: how many could be compared, mean and standard deviation of the signed and mean of
    the absolute difference in percent, and the share of organs (in percent) beyond each of `NOTED_PERCENT`."""

    compared: int
    mean: float
    sd: float
    mean_absolute: float
    share_over: tuple[float, ...]


def percent_difference(substitute: float, reference: float) -> float:
    """Equation 6 or 7, signed; nan when the reference is zero or a side is nan."""
    return 100 * (substitute - reference) / reference if reference > 0 else float("nan")


def percent_text(share: float) -> str:
    """A share (0 to 1) in percent, with two digits where it is small: never "0 %" of something."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def organ_dose(dvh: Dvh) -> OrganDose:
    return OrganDose(dvh.volume_cc, dvh.mean_gy, dvh.max_gy, dvh.hottest_cc(HOTTEST_CC), dvh.outside)


def compare_dose(
    dose: sitk.Image,
    reference: StructureSet,
    substitute: StructureSet,
    *,
    name: str = "substitute",
    organs: Iterable[str] | None = None,
    sampling: str = DEFAULT_SAMPLING,
    threads: int = 1,
    progress: Reporter = ignore,
) -> list[DoseDifference]:
    """The dose (image in Gy) of every structure of the reference, with its own contour and the substitute's.

    The two sets may lie on different grids; each is sampled on its own. Structures that the reference does not
    have are left out. Raises `InputError` for an organ that neither has.
    """
    names = list(organs) if organs is not None else list(reference)
    unknown = [organ for organ in names if organ not in reference]
    if unknown:
        raise InputError(f"the reference has no {', '.join(unknown)}; it has {', '.join(reference)}")

    def compare(organ: str) -> DoseDifference:
        wanted = structure_dvh(dose, reference, organ, sampling)
        found = structure_dvh(dose, substitute, organ, sampling) if organ in substitute else Dvh.empty()
        return DoseDifference(
            organ, name, _state(wanted, found), organ_dose(wanted), organ_dose(found), wanted, found
        )

    results = []
    with ThreadPoolExecutor(max_workers=max(threads, 1)) as pool:
        for done, result in enumerate(pool.map(compare, names), start=1):
            results.append(result)
            progress(Progress("dose", done, len(names), result.organ))
    return results


def summarise(percents: Sequence[float]) -> DifferenceSummary:
    """Over signed differences in percent; nan ones, which could not be compared, are left out of all but the
    count."""
    values = np.array([v for v in percents if np.isfinite(v)])
    if not len(values):
        nan = float("nan")
        return DifferenceSummary(0, nan, nan, nan, tuple(nan for _ in NOTED_PERCENT))
    size = np.abs(values)
    return DifferenceSummary(
        len(values),
        float(values.mean()),
        float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        float(size.mean()),
        tuple(float(100 * (size > limit).mean()) for limit in NOTED_PERCENT),
    )


def _state(reference: Dvh, substitute: Dvh) -> str:
    if not len(substitute.gy):
        return MISSING if len(reference.gy) else BOTH_EMPTY
    return COMPARED if len(reference.gy) else EXTRA
