"""Which organ a name means, in the spellings that planning systems and data sets use.

Case, separators and the way the side is written do not matter:

>>> [resolve(name).name for name in ("LeftParotid", "PAROTID L", "parotid gland, lt")]
['Parotid_L', 'Parotid_L', 'Parotid_L']
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from soars.catalogue.table import CATALOGUE, Oar
from soars.errors import UnknownOrganError


def resolve(text: str) -> Oar:
    """The organ meant by a name in any known spelling.

    Case, separators, the order of the words, plurals and the place of the side ("L", "Lt", "Left", also run together
    with the rest) do not matter. Anything more, as in "PRV_Brainstem" or "Parotid_L-PTV", is another structure, and so
    is TG-263's "~Parotid_L", a part of the organ.

    Raises `UnknownOrganError`, with the nearest names, when there is no such organ, and when the side of a paired
    organ is missing or contradictory.
    """
    found = find(text)
    if found is None:
        raise UnknownOrganError(text, _nearest(text))
    return found


def find(text: str) -> Oar | None:
    """As `resolve`, but None when there is no such organ, without the time that looking for the nearest names takes."""
    name = _find(text)
    return None if name is None else CATALOGUE[name]


_SIDE_WORDS = {
    **dict.fromkeys(("l", "lt", "lft", "left"), "left"),
    **dict.fromkeys(("r", "rt", "rgt", "right"), "right"),
}
_RUN_TOGETHER = {"left": ("l", "lt", "left"), "right": ("r", "rt", "right")}
"""What is recognised as a side without a separator before or after it."""
_BOTH_SIDES = frozenset({"both", "bilateral", "bilat", "total", "combined", "whole", "lr", "rl"})
"""Words that mean both organs of a pair; such a name means no single organ, but shows what to suggest."""

_Key = tuple[str | None, str | tuple[str, ...]]
"""(side, words run together) or (side, words in alphabetical order)"""


@dataclass(frozen=True)
class _Index:
    names: dict[_Key, str]
    """Every spelling's key -> the organ."""
    stems: dict[str, tuple[str, ...]]
    """Every spelling without its side, run together -> the organs that it may mean."""


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
    """The side that the words name ("left", "right", "both" when they contradict each other, or None), and the other
    words."""
    sides = {_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS}
    side = "both" if len(sides) > 1 else next(iter(sides), None)
    return side, [word for word in words if word not in _SIDE_WORDS]


def _singular(words: list[str]) -> list[str]:
    """Words without a plural s; one that always ends in s loses it too, in the table as in the question."""
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words]
