"""The catalogue of organs at risk: one table, `oars.csv`, from which every other list of organs is made.

The 42 OARs are those of the multi-institution SOARS study (Ye et al., Nature Communications 2022) in its three
strata: 9 anchor, 19 mid-level, 14 small and hard. The rest ("extra") are the hippocampi and the larynx core of
the first paper (Guo et al., CVPR 2020) and what the public data sets need. `resolve` finds an organ under the
spellings that planning systems and data sets use:

    resolve("LeftParotid") is resolve("PAROTID L") is resolve("parotid gland, lt") is CATALOGUE["Parotid_L"]
"""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from soars.errors import InputError, UnknownOrganError

STRATA = ("anchor", "mid_level", "small_hard", "extra")

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
        snomed_verified: the code was seen in a published mapping. Do not put another one into DICOM.
        colour: (red, green, blue), 0 to 255.
        tolerance_mm: tolerance of the surface DSC; None where none is published.
        tolerance_source: where it is from; None when there is none.
        tolerance_verified: the value was read from a file, not recalled: say so where it is used.
        usual_volume_cc: (low, high) in cubic centimetres, outside which a volume in an adult is worth a warning; wide
            plausibility limits set by this project, not a published norm.
        single_component: anatomy has it in one connected piece.
        parent: the organ in which it lies, whose mask it may overlap.
        parts: the organs that make it up, for comparing with sets that split it otherwise.
        detection_group: the heat map that finds it: "Ear_L" and "Ear_R" for cochlea and inner ear, else its own name.
        aliases: other spellings, with the side where the organ has one, those of the data sets included.
        note: what to know before using it; "" if nothing.
    """

    name: str
    listed_in_tg263: bool
    label: str
    stratum: str
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


def resolve(text: str) -> Oar:
    """The organ meant by a name in any known spelling.

    Case, separators, the order of the words, plurals and the place of the side ("L", "Lt", "Left", also run together
    with the rest) do not matter. Anything more, as in "PRV_Brainstem" or "Parotid_L-PTV", is another structure, and so
    is TG-263's "~Parotid_L", a part of the organ.

    Raises `UnknownOrganError`, with the nearest names, when there is no such organ, and when the side of a paired
    organ is missing or said both ways.
    """
    found = _find(text)
    if found is None:
        raise UnknownOrganError(text, _nearest(text))
    return CATALOGUE[found]


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
        stratum=row["stratum"],
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
    """The table's aliases; a paired organ's stand there without the side."""
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


# --- spellings --------------------------------------------------------------------------------------------------

_SIDE_WORDS = {
    **dict.fromkeys(("l", "lt", "lft", "left"), "left"),
    **dict.fromkeys(("r", "rt", "rgt", "right"), "right"),
}
_RUN_TOGETHER = {"left": ("l", "lt", "left"), "right": ("r", "rt", "right")}
"""What is recognised as a side without a separator before or after it."""
_BOTH_SIDES = frozenset({"both", "bilateral", "bilat", "total", "combined", "whole", "lr", "rl"})
"""Words that make a pair of a paired organ; such a name means no single organ, but tells what to offer."""

_Key = tuple[str | None, str | tuple[str, ...]]
"""(side, words run together) or (side, words in alphabetical order)"""


@dataclass(frozen=True)
class _Index:
    names: dict[_Key, str]
    """Every spelling's key -> the organ."""
    stems: dict[str, tuple[str, ...]]
    """Every spelling without its side, run together -> the organs of which it may be said."""


@cache
def _index() -> _Index:
    names: dict[_Key, str] = {}
    stems: dict[str, list[str]] = {}

    def add(key: _Key, name: str) -> None:
        if names.setdefault(key, name) != name:
            raise ValueError(f"oars.csv: {key} means both {names[key]} and {name}")

    for oar in CATALOGUE.values():
        for spelling in (oar.name, oar.label, *oar.aliases):
            for split in (_words(spelling), _words(_at_capitals(spelling))):
                side, words = _without_side(split)
                for form in (words, _singular(words)):
                    stem = "".join(form)
                    if side == oar.side:
                        add((side, stem), oar.name)
                        add((side, tuple(sorted(form))), oar.name)
                    elif not side:  # the side is part of a word, as in "TMJL"
                        add((None, stem), oar.name)
                    if side and side == oar.side:
                        for word in _RUN_TOGETHER[side]:
                            add((None, word + stem), oar.name)
                            add((None, stem + word), oar.name)
                    organs = stems.setdefault(stem, [])
                    if oar.name not in organs:
                        organs.append(oar.name)
    return _Index(names, {stem: tuple(organs) for stem, organs in stems.items()})


def _find(text: str) -> str | None:
    if "~" in text:  # TG-263: only a part of the organ is contoured
        return None
    names = _index().names
    for split in (_words(text), _words(_at_capitals(text))):
        side, words = _without_side(split)
        if not words or side == "both":
            continue
        for form in (words, _singular(words)):
            for key in ((side, "".join(form)), (side, tuple(sorted(form)))):
                if key in names:
                    return names[key]
    return None


def _nearest(text: str, count: int = 5) -> tuple[str, ...]:
    """The nearest names, best first: both sides of a paired organ when only the side is missing."""
    stems = _index().stems
    side, words = _without_side(_words(_at_capitals(text)))
    wanted = ["".join(form) for form in (words, _singular(words))]
    wanted += ["".join(word for word in _singular(words) if word not in _BOTH_SIDES)]
    for stem in wanted:
        if stem and stem in stems:
            return _on_side(stems[stem], side)
    close = difflib.get_close_matches(wanted[-1], stems, n=2 * count, cutoff=0.6)
    return _on_side(dict.fromkeys(name for stem in close for name in stems[stem]), side)[:count]


def _on_side(names: Iterable[str], side: str | None) -> tuple[str, ...]:
    """Without the organs of the other side; those without a side first when none is wanted."""
    other = {"left": "right", "right": "left"}.get(side or "")
    if other is None:
        return tuple(sorted(names, key=lambda name: CATALOGUE[name].side is not None))
    return tuple(name for name in names if CATALOGUE[name].side != other)


def _words(text: str) -> list[str]:
    """Lower-case words without accents; everything that is neither letter nor digit separates."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.findall(r"[^\W_]+", plain.lower())


def _at_capitals(text: str) -> str:
    """ "LeftParotid" -> "Left Parotid", "SMGLeft" -> "SMG Left"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)


def _without_side(words: list[str]) -> tuple[str | None, list[str]]:
    """The side that the words say ("left", "right", "both" when they contradict, or None), and the other words."""
    sides = {_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS}
    side = "both" if len(sides) > 1 else next(iter(sides), None)
    return side, [word for word in words if word not in _SIDE_WORDS]


def _singular(words: list[str]) -> list[str]:
    """Words without a plural s; one that always ends in s loses it too, in the table as in the question."""
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]
