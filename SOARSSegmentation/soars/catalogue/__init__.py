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
    is_within,
    label_map,
    label_values,
    may_overlap,
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
    "is_within",
    "label_map",
    "label_values",
    "may_overlap",
    "partner",
    "resolve",
]
