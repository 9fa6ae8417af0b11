"""The catalogue of organs at risk: `table` (what is known about each), `spelling` (which organ a name means) and
`slicer_terms` (Slicer's terminology and colour table, generated from it)."""

from soars.catalogue.spelling import find, resolve
from soars.catalogue.table import (
    CATALOGUE,
    LATERALITY,
    SETS,
    SOARS42,
    STRATA,
    STRATUM_TITLES,
    Oar,
    Stratum,
    by_stratum,
    label_map,
    label_values,
    partner,
)

__all__ = [
    "CATALOGUE",
    "LATERALITY",
    "SETS",
    "SOARS42",
    "STRATA",
    "STRATUM_TITLES",
    "Oar",
    "Stratum",
    "by_stratum",
    "find",
    "label_map",
    "label_values",
    "partner",
    "resolve",
]
