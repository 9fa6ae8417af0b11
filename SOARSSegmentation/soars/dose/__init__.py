"""The dose in organs: DVH, the figures read from it, and how much they change with the contour. docs/metrics.md
defines each number."""

from soars.dose.compare import DoseDifference, OrganDose, compare_dose, percent_difference, summarise
from soars.dose.dvh import Dvh, make_dvh, structure_dvh
from soars.dose.grid import Dose, read_dose
from soars.dose.sampling import DEFAULT_SAMPLING, SAMPLINGS, DoseSamples, sample_dose

__all__ = [
    "DEFAULT_SAMPLING",
    "SAMPLINGS",
    "Dose",
    "DoseDifference",
    "DoseSamples",
    "Dvh",
    "OrganDose",
    "compare_dose",
    "make_dvh",
    "percent_difference",
    "read_dose",
    "sample_dose",
    "structure_dvh",
    "summarise",
]
