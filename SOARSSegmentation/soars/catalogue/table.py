"""The catalogue of organs at risk: one table, `oars.csv`, from which every other list of organs is made.

The 42 OARs are those of the multi-institution SOARS study (Ye et al., Nature Communications 2022) in its three
strata: 9 anchor, 19 mid-level, 14 small and hard. The rest ("extra") are the hippocampi and the larynx core of
the first paper (Guo et al., CVPR 2020) and what the public data sets need.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from soars.errors import InputError

Stratum = Literal["anchor", "mid_level", "small_hard", "extra"]
STRATA: tuple[Stratum, ...] = get_args(Stratum)
STRATUM_TITLES: Mapping[str, str] = MappingProxyType(
    {"anchor": "anchor", "mid_level": "mid-level", "small_hard": "small and hard", "extra": "other"}
)
"""The strata in tables and figures."""

SETS: Mapping[str, str] = MappingProxyType(
    {
        "SOARS42": "soars42",
        "SOARS-CVPR": "soars_cvpr",
        "HaN-Seg": "han_seg",
        "PDDCA": "pddca",
        "DeepMind": "deepmind",
        "UaNet": "uanet",
        "OpenKBP": "openkbp",
    }
)
"""The data sets whose labels are known, and their columns in the table: the 42 as the later and as the first SOARS
paper spells them, HaN-Seg (30), PDDCA of MICCAI 2015 (9), DeepMind (21), UaNet (28), OpenKBP (7)."""

LATERALITY = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}
"""SNOMED CT's modifiers of a paired organ."""


@dataclass(frozen=True)
class Oar:
    """One organ at risk.

    Attributes:
        name: its name everywhere, at most 16 characters: TG-263's (2017-08-15), or an extension in its style.
        listed_in_tg263: False for an extension.
        label: for people to read.
        stratum: "anchor", "mid_level", "small_hard" or "extra".
        side: "left", "right" or None.
        snomed_code, snomed_meaning: SNOMED CT concept; both empty where no code fits.
        snomed_verified: the code was seen in a published mapping. Never write an unverified one to DICOM.
        colour: (red, green, blue), 0 to 255.
        tolerance_mm: tolerance of the surface DSC; None where none is published.
        tolerance_source: where the tolerance comes from; None when there is none.
        tolerance_verified: the value was read from a file; if False it was recalled: say so where it is used.
        usual_volume_cc: (low, high) in cubic centimetres, outside which a volume in an adult is worth a warning; wide
            plausibility limits set by this project, not a published norm.
        single_component: in anatomy it is one connected piece.
        parent: the organ in which it lies, whose mask it may overlap.
        parts: the organs that make it up, for comparison with sets that split it differently.
        detection_group: the heat map that finds it: "Ear_L" and "Ear_R" for cochlea and inner ear, else its own name.
        aliases: other spellings, with the side where the organ has one, those of the data sets included.
        note: what to know before using it; "" if there is nothing.
    """

    name: str
    listed_in_tg263: bool
    label: str
    stratum: Stratum
    side: str | None
    snomed_code: str
    snomed_meaning: str
    snomed_verified: bool
    colour: tuple[int, int, int]
    tolerance_mm: float | None
    tolerance_source: str | None
    tolerance_verified: bool
    usual_volume_cc: tuple[float, float] | None
    single_component: bool
    parent: str | None
    parts: tuple[str, ...]
    detection_group: str
    aliases: tuple[str, ...]
    note: str

    @property
    def laterality_code(self) -> str | None:
        """SNOMED CT code of the side; None for an organ without one."""
        return LATERALITY[self.side][0] if self.side else None

    @property
    def laterality_meaning(self) -> str | None:
        """ "Left", "Right" or None."""
        return LATERALITY[self.side][1] if self.side else None


def by_stratum(stratum: str) -> tuple[Oar, ...]:
    """The organs of a stratum, in the catalogue's order."""
    if stratum not in STRATA:
        raise InputError(f"unknown stratum {stratum!r}; the strata are {', '.join(STRATA)}")
    return tuple(oar for oar in CATALOGUE.values() if oar.stratum == stratum)


def label_map(set_name: str) -> dict[str, str]:
    """Every label of a data set, as the set spells it -> our name.

    The name stands beside the set's own: "UaNet", "UaNet28" and "uanet" are the same.
    """
    return {label: name for label, _, name in _set_labels(set_name)}


def label_values(set_name: str) -> dict[int, str]:
    """Integer label -> our name; empty for a set that publishes no integers (all but HaN-Seg and OpenKBP)."""
    return {int(value): name for _, value, name in _set_labels(set_name) if value}


# --- the table --------------------------------------------------------------------------------------------------


def _read_table() -> tuple[dict[str, str], ...]:
    with (Path(__file__).parent / "oars.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(csv.DictReader(stream))


def _organ(row: Mapping[str, str]) -> Oar:
    red, green, blue = (int(v) for v in row["colour"].split())
    volume = [float(v) for v in row["usual_volume_cc"].split()]
    return Oar(
        name=row["name"],
        listed_in_tg263=row["name_status"] == "TG-263",
        label=row["label"],
        stratum=STRATA[STRATA.index(row["stratum"])],
        side=row["side"] or None,
        snomed_code=row["snomed_code"],
        snomed_meaning=row["snomed_meaning"],
        snomed_verified=row["snomed_status"] == "verified",
        colour=(red, green, blue),
        tolerance_mm=float(row["tolerance_mm"]) if row["tolerance_mm"] else None,
        tolerance_source=row["tolerance_source"] or None,
        tolerance_verified=row["tolerance_status"] == "verified",
        usual_volume_cc=(volume[0], volume[1]) if volume else None,
        single_component=row["single_component"] == "yes",
        parent=row["parent"] or None,
        parts=_list(row["parts"]),
        detection_group=row["detection_group"] or row["name"],
        aliases=tuple(dict.fromkeys((*_sided(row), *_set_spellings(row)))),
        note=row["note"],
    )


def _list(cell: str) -> tuple[str, ...]:
    return tuple(part for part in cell.split(";") if part)


def _sided(row: Mapping[str, str]) -> Iterator[str]:
    """The table's aliases; those of a paired organ are listed without the side."""
    for alias in _list(row["aliases"]):
        yield f"{alias} {row['side']}" if row["side"] else alias


def _set_spellings(row: Mapping[str, str]) -> list[str]:
    return [row[column].partition("=")[0] for column in SETS.values() if row[column]]


_TABLE = _read_table()

CATALOGUE: Mapping[str, Oar] = MappingProxyType({row["name"]: _organ(row) for row in _TABLE})
"""Every organ by name: anchor, mid-level, small and hard, then extra."""

SOARS42: tuple[str, ...] = tuple(oar.name for oar in CATALOGUE.values() if oar.stratum != "extra")
"""Names of the 42 OARs, in the catalogue's order."""


def _set_labels(set_name: str) -> Iterator[tuple[str, str, str]]:
    """(label, integer or "", our name) of each structure of a set."""

    def plain(name: str) -> str:
        return re.sub(r"[\W_]|\d+$", "", name.lower())

    column = {plain(name): column for name, column in SETS.items()}.get(plain(set_name))
    if column is None:
        raise InputError(f"unknown data set {set_name!r}; known sets: {', '.join(SETS)}")
    for row in _TABLE:
        if row[column]:
            label, _, value = row[column].partition("=")
            yield label, value, row["name"]


def partner(organ: str) -> str | None:
    """The same organ on the other side; None for an organ without a side, or one that the catalogue does not have."""
    oar = CATALOGUE.get(organ)
    if oar is None or oar.side is None:
        return None
    for other in CATALOGUE.values():
        if _is_partner(oar, other):
            return other.name
    return None


_TOLD_APART = frozenset({"Brain"})
"""What lies in these shares no voxel with what else lies in them. Elsewhere guidelines draw one in another, as the lens
in the anterior segment of the eye and the arytenoid in the supraglottic larynx."""


def is_within(organ: str, other: str) -> bool:
    """Whether an organ lies in another one, or is a part of it: a hippocampus in its temporal lobe and in the brain."""
    parent = CATALOGUE[organ].parent
    return organ in CATALOGUE[other].parts or (
        parent is not None and (parent == other or is_within(parent, other))
    )


def may_overlap(organ: str, other: str) -> bool:
    """Whether two organs may share voxels: one lies in the other, or both in one whose organs are not told apart."""
    parent = CATALOGUE[organ].parent
    return (
        is_within(organ, other)
        or is_within(other, organ)
        or (parent is not None and parent == CATALOGUE[other].parent and parent not in _TOLD_APART)
    )


def _is_partner(a: Oar, b: Oar) -> bool:
    return b.side is not None and b.side != a.side and _stem(b) == _stem(a)


def _stem(oar: Oar) -> str:
    """The name without its side, which TG-263 writes as the last word: ``Parotid_L``, or glued to others:
    ``Eye_AL``."""
    head, _, tail = oar.name.rpartition("_")
    return f"{head}_{tail[:-1]}"
