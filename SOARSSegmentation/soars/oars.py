"""The catalogue of organs at risk: one table, `oars.csv`, from which every other list of organs is made.

The 42 OARs are those of the multi-institution SOARS study (Ye et al., Nature Communications 2022) in its three strata:
9 anchor, 19 mid-level, 14 small and hard. The rest ("extra") are the first paper's hippocampi and larynx core and what
the public sets need. `resolve` finds an organ under the spellings that planning systems and data sets use:

    resolve("LeftParotid").name == resolve("PAROTID L").name == "Parotid_L"
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from soars.errors import InputError, UnknownOrganError

STRATA = ("anchor", "mid_level", "small_hard", "extra")
SETS = {
    "SOARS42": "soars42",
    "SOARS-CVPR": "soars_cvpr",
    "HaN-Seg": "han_seg",
    "PDDCA": "pddca",
    "DeepMind": "deepmind21",
    "UaNet": "uanet28",
    "OpenKBP": "openkbp",
}
"""The data sets whose labels are known, and their columns in the table."""

_SIDES = {"l": "left", "lt": "left", "left": "left", "r": "right", "rt": "right", "right": "right"}


@dataclass(frozen=True)
class Oar:
    """One organ at risk.

    Attributes:
        name: its name everywhere: the TG-263 name, or an extension in its style (`listed_in_tg263` tells).
        label: for people to read.
        stratum: "anchor", "mid_level", "small_hard", or "extra".
        side: "left", "right" or None.
        snomed_code, snomed_meaning: SNOMED CT concept; `snomed_verified`: seen in a published mapping.
        laterality_code, laterality_meaning: SNOMED CT modifier of a paired organ.
        colour: (red, green, blue), 0 to 255.
        tolerance_mm: surface-DSC tolerance (Nikolov et al., JMIR 2021), None where that paper has none.
        tolerance_verified: the value was read from a file, not recalled.
        usual_volume_cc: (low, high) outside which a volume is worth a warning; wide limits set by this project, not
            a published norm.
        single_component: anatomically one connected piece.
        parent: the organ it lies in, whose mask it may overlap.
        detection_group: small and hard organs only: the heat map that finds it.
        aliases: other spellings, without those of the data sets.
    """

    name: str
    label: str
    stratum: str
    side: str | None
    listed_in_tg263: bool
    snomed_code: str
    snomed_meaning: str
    snomed_verified: bool
    laterality_code: str | None
    laterality_meaning: str | None
    colour: tuple[int, int, int]
    tolerance_mm: float | None
    tolerance_verified: bool
    usual_volume_cc: tuple[float, float] | None
    single_component: bool
    parent: str | None
    detection_group: str | None
    aliases: tuple[str, ...]


def by_stratum(stratum: str) -> tuple[Oar, ...]:
    """The organs of a stratum, in the catalogue's order."""
    if stratum not in STRATA:
        raise InputError(f"unknown stratum {stratum!r}; the strata are {', '.join(STRATA)}")
    return tuple(o for o in CATALOGUE.values() if o.stratum == stratum)


def resolve(text: str) -> Oar:
    """The organ meant by a name in any known spelling, whatever its case, separators and place of the side.

    Raises `UnknownOrganError` with the nearest names when there is none, or when the side of a paired organ is missing.
    """
    name = _find(text)
    if name is None:
        raise UnknownOrganError(text, _nearest(text))
    return CATALOGUE[name]


def label_map(set_name: str) -> dict[str, str]:
    """A data set's label -> our name, for every structure of the set that the catalogue has."""
    return {label: name for label, _, name in _set_labels(set_name)}


def label_values(set_name: str) -> dict[int, str]:
    """A data set's integer label -> our name; empty for a set that publishes no integers."""
    return {int(value): name for _, value, name in _set_labels(set_name) if value}


def _read_rows() -> tuple[dict[str, str], ...]:
    with (Path(__file__).parent / "oars.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(csv.DictReader(stream))


def _organ(row: Mapping[str, str]) -> Oar:
    red, green, blue = (int(v) for v in row["colour"].split())
    volume = [float(v) for v in row["volume_cc"].split()]
    return Oar(
        name=row["name"],
        label=row["label"],
        stratum=row["stratum"],
        side=row["side"] or None,
        listed_in_tg263=row["tg263"] == "listed",
        snomed_code=row["snomed_code"],
        snomed_meaning=row["snomed_meaning"],
        snomed_verified=row["snomed_status"] == "verified",
        laterality_code=row["laterality_code"] or None,
        laterality_meaning=row["laterality_meaning"] or None,
        colour=(red, green, blue),
        tolerance_mm=float(row["tolerance_mm"]) if row["tolerance_mm"] else None,
        tolerance_verified=row["tolerance_status"] == "verified",
        usual_volume_cc=(volume[0], volume[1]) if volume else None,
        single_component=row["single_component"] == "yes",
        parent=row["parent"] or None,
        detection_group=row["detection_group"] or None,
        aliases=tuple(a for a in row["aliases"].split(";") if a),
    )


def _set_labels(set_name: str) -> Iterator[tuple[str, str, str]]:
    """(label, integer or "", our name) of each structure in a set."""
    if set_name not in SETS:
        raise InputError(f"unknown data set {set_name!r}; known sets: {', '.join(SETS)}")
    for row in _ROWS:
        if row[SETS[set_name]]:
            label, _, value = row[SETS[set_name]].partition("=")
            yield label, value, row["name"]


def _words(text: str) -> list[str]:
    """Lower-case words; one ends where a small letter meets a capital, so "LeftParotid" has two."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", text)]


def _key(words: list[str]) -> tuple[str, str | None]:
    """A spelling as (its words run together without the side, side); words that name both sides stay."""
    sides = {_SIDES[w] for w in words if w in _SIDES}
    if len(sides) != 1:
        return "".join(words), None
    return "".join(w for w in words if w not in _SIDES), sides.pop()


def _spellings(row: Mapping[str, str]) -> Iterator[str]:
    yield row["name"]
    yield row["label"]
    yield from (a for a in row["aliases"].split(";") if a)
    yield from (row[column].partition("=")[0] for column in SETS.values() if row[column])


@cache
def _index() -> dict[tuple[str, str | None], str]:
    """Key of every spelling -> name, with the words as they come and sorted ("gland parotid" is a parotid gland).

    The table's order decides where two organs share a spelling: the 42 come before the extra ones.
    """
    index: dict[tuple[str, str | None], str] = {}
    for row in _ROWS:
        for spelling in _spellings(row):
            words = _words(spelling)
            index.setdefault(_key(words), row["name"])
            index.setdefault(_key(sorted(words)), row["name"])
    return index


def _find(text: str) -> str | None:
    index = _index()
    for words in (_words(text), _words(text.lower())):
        for order in (words, sorted(words)):
            name = index.get(_key(order))
            if name is not None:
                return name
    # The side's word run together with the rest: "parotidleft". Single letters are not taken for a side here, or
    # "cochlear" would be the right cochlea.
    whole = "".join(_words(text.lower()))
    for side in ("left", "right"):
        for rest in (whole.removeprefix(side), whole.removesuffix(side)):
            if rest != whole and (rest, side) in index:
                return index[rest, side]
    return None


def _nearest(text: str) -> list[str]:
    """Names whose spellings are nearest; both sides of a paired organ when only the side is missing."""
    wanted, side = _key(_words(text))
    bases: dict[str, list[tuple[str | None, str]]] = {}
    for (base, its_side), name in _index().items():
        bases.setdefault(base, []).append((its_side, name))
    near = [wanted] if wanted in bases else difflib.get_close_matches(wanted, bases, n=3, cutoff=0.6)
    return list(dict.fromkeys(name for base in near for its_side, name in bases[base] if side in (None, its_side)))


_ROWS = _read_rows()

CATALOGUE: Mapping[str, Oar] = MappingProxyType({row["name"]: _organ(row) for row in _ROWS})
"""Every organ by name: anchor, mid-level, small and hard, then extra."""

SOARS42: tuple[str, ...] = tuple(o.name for o in CATALOGUE.values() if o.stratum != "extra")
"""Names of the 42 OARs, in the catalogue's order."""
