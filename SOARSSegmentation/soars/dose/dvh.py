"""Dose-volume histograms and the figures read from them::

    samples = sample_dose(dose.image, structures.geometry, structures.crop("Parotid_L"))
    dvh = make_dvh(samples)
    dvh.mean_gy, dvh.max_gy, dvh.hottest_cc(0.03), dvh.hottest_percent(95), dvh.percent_receiving(26)

Everything is read from the samples themselves, sorted, not from bins: no figure depends on a bin's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.dose.sampling import DEFAULT_SAMPLING, DoseSamples, sample_dose
from soars.errors import InputError
from soars.structures.model import StructureSet

Floats = npt.NDArray[np.float64]
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Dvh:
    """The dose of one organ: samples in Gy in ascending order, each standing for ``sample_cc``; ``outside`` is the
    share of the organ beyond the dose grid, counted with 0 Gy. All figures of an empty organ are nan, its volume
    0."""

    gy: npt.NDArray[np.float32]
    sample_cc: float
    outside: float = 0.0

    @classmethod
    def empty(cls) -> Dvh:
        """Of an organ without a voxel."""
        return cls(np.zeros(0, np.float32), 1.0)

    @property
    def volume_cc(self) -> float:
        return len(self.gy) * self.sample_cc

    @property
    def mean_gy(self) -> float:
        return float(self.gy.mean(dtype=np.float64)) if len(self.gy) else float("nan")

    @property
    def max_gy(self) -> float:
        """The highest sample; a single voxel decides it, so `hottest_cc` of 0.03 cc belongs beside it."""
        return float(self.gy[-1]) if len(self.gy) else float("nan")

    @property
    def min_gy(self) -> float:
        """The lowest sample."""
        return float(self.gy[0]) if len(self.gy) else float("nan")

    def hottest_cc(self, volume_cc: float) -> float:
        """D(volume): the highest dose that at least ``volume_cc`` receives, e.g. D0.03cc; the lowest dose of an
        organ that is smaller than that."""
        return self._of_hottest(volume_cc / self.sample_cc)

    def hottest_percent(self, percent: float) -> float:
        """D(percent): the highest dose that at least this share of the organ receives, e.g. D95, D2, D50 (the
        median)."""
        return self._of_hottest(percent / 100 * len(self.gy))

    def percent_receiving(self, gy: float | npt.ArrayLike) -> Floats:
        """V(dose): percent of the organ that receives at least ``gy``, for one dose or an array of them."""
        if not len(self.gy):
            return np.full(np.shape(gy), np.nan)
        below = np.searchsorted(self.gy, np.asarray(gy, dtype=np.float32), side="left")
        return np.asarray(100 * (1 - below / len(self.gy)))

    def unbounded(self) -> Dvh:
        """The DVH if the part beyond the dose grid had a dose above every other. Figures of the dose that this part
        really has lie between those of this DVH, which counts it as 0 Gy, and those of that one."""
        count = round(self.outside * len(self.gy))
        first = int(np.searchsorted(self.gy, 0.0))
        known = np.delete(self.gy, slice(first, first + count))
        return Dvh(np.append(known, np.full(count, np.inf, np.float32)), self.sample_cc, self.outside)

    def cumulative(self, bin_gy: float = 0.1) -> tuple[Floats, Floats]:
        """Doses from 0 to beyond the maximum in steps of ``bin_gy``, and the percent that receives at least
        each."""
        doses = self._edges(bin_gy)
        return doses, self.percent_receiving(doses)

    def _edges(self, bin_gy: float) -> Floats:
        if not bin_gy > 0:
            raise InputError(f"the width of a dose bin must be above 0 Gy, not {bin_gy:g}")
        top = self.max_gy if len(self.gy) else 0.0
        return np.asarray(np.arange(int(top / bin_gy) + 2) * bin_gy, dtype=np.float64)

    def _of_hottest(self, samples: float) -> float:
        if not len(self.gy):
            return float("nan")
        count = min(max(ceil(samples - _ROUNDING), 1), len(self.gy))
        return float(self.gy[-count])


def make_dvh(samples: DoseSamples) -> Dvh:
    """The DVH of dose samples in any order."""
    return Dvh(np.sort(samples.gy), samples.sample_cc, samples.outside)


def structure_dvh(
    dose: sitk.Image, structures: StructureSet, organ: str, sampling: str = DEFAULT_SAMPLING
) -> Dvh:
    """The DVH of one structure; ``dose`` is an image in Gy (LPS mm) on any grid."""
    return make_dvh(sample_dose(dose, structures.geometry, structures.crop(organ), sampling))
