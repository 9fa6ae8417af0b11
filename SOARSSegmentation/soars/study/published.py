"""The papers' figures, shown beside a study's own: context, not targets, because data and readers differ.

Ye et al., Nature Communications 2022;13:6137 (revision effort, dose); Tang et al., Nature Machine Intelligence
2019;1:480-491 (reading times with and without UaNet).
"""

from __future__ import annotations

CATEGORIES_2022 = {"none": 729, "minor": 508, "moderate": 23, "major": 0}
"""Of 1260 organs: 30 patients, 42 organs, two readers who divided the organs."""
REVISE_MINUTES_2022 = 10.5
SCRATCH_MINUTES_2022 = 106.4
"""From scratch on 5 of the 30 patients."""
UANET_SCRATCH_MINUTES = (35.0, 33.0, 30.0, 38.0, 36.0, 34.0, 32.0, 33.0, 35.0, 30.0)
UANET_REVISE_MINUTES = (13.0, 11.0, 13.0, 20.0, 11.0, 12.0, 8.0, 14.0, 15.0, 14.0)
"""Ten patients, 28 organs, one reader; means 33.60 and 13.10, paired t = 21.68, p = 4.5e-9."""
DOSE_OVER_10_PERCENT_2022 = {"model": (25, 390), "human reader": (49, 390)}
DOSE_OVER_30_PERCENT_2022 = {"model": (0, 390), "human reader": (12, 390)}
"""Organs whose mean dose differs by more than that from the clinical contour's, of 13 organs in 30 patients."""
AGREEMENT_2022 = {
    "model": (0.82, 4.3, 0.6),
    "model, revised": (0.83, 3.9, 0.5),
    "human reader": (0.79, 6.1, 1.0),
}
"""DSC, HD and ASD (mm) against the clinical contours, as the text has them; its table 5 averages differ."""
