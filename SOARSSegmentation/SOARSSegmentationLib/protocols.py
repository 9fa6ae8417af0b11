"""Named choices of organs: all, one stratum, and those that a user has saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from soars.catalogue import CATALOGUE, STRATA, by_stratum
from soars.errors import InputError
from SOARSSegmentationLib.translation import _

SETTING = "SOARSSegmentation/Protocols"
ALL = "all"


@dataclass(frozen=True)
class Protocol:
    """``key`` is what is remembered, ``title`` what is shown; ``organs`` is None for all that a bundle covers."""

    key: str
    title: str
    organs: tuple[str, ...] | None
    saved: bool = False

    def chosen(self, covered: Iterable[str]) -> tuple[str, ...] | None:
        """The organs to ask a bundle for that covers these; None for all of them. `InputError` when there is none."""
        if self.organs is None:
            return None
        there = set(covered)
        organs = tuple(organ for organ in self.organs if organ in there)
        if not organs:
            raise InputError(
                f"the bundle covers no organ of {self.title}: choose other organs or another bundle"
            )
        return organs


class Protocols:
    """All protocols, the saved ones in a setting, which ``get(key)`` and ``put(key, text)`` read and write."""

    def __init__(self, get: Callable[[str], str | None], put: Callable[[str, str], None]) -> None:
        self._get = get
        self._put = put

    def all(self) -> list[Protocol]:
        """Built-in protocols first, then saved ones by name."""
        titles = {"anchor": _("Anchor"), "mid_level": _("Mid-level"), "small_hard": _("Small and hard")}
        strata = [
            Protocol(stratum, titles[stratum], tuple(oar.name for oar in by_stratum(stratum)))
            for stratum in STRATA
            if stratum in titles
        ]
        saved = [Protocol(name, name, organs, True) for name, organs in sorted(self._saved().items())]
        return [Protocol(ALL, _("All organs"), None), *strata, *saved]

    def find(self, key: str) -> Protocol:
        """A protocol by its key; all organs when it is no longer there."""
        known = {protocol.key: protocol for protocol in self.all()}
        return known.get(key, known[ALL])

    def save(self, name: str, organs: Iterable[str]) -> Protocol:
        """Save a choice under a name, in place of an earlier one of that name. `InputError` when it cannot be."""
        name = " ".join(name.split())
        if not name or len(name) > 60:
            raise InputError("a protocol needs a name of at most 60 characters")
        if any(name.casefold() in (p.key, p.title.casefold()) for p in self.all() if not p.saved):
            raise InputError(f"{name} is the name of a protocol that is always there: choose another")
        wanted = set(organs)
        unknown = wanted - set(CATALOGUE)
        if unknown:
            raise InputError(f"the catalogue knows no {', '.join(sorted(unknown))}")
        if not wanted:
            raise InputError("a protocol needs at least one organ")
        chosen = tuple(organ for organ in CATALOGUE if organ in wanted)
        self._write({**self._saved(), name: chosen})
        return Protocol(name, name, chosen, True)

    def remove(self, name: str) -> None:
        """Forget a saved protocol."""
        self._write({key: organs for key, organs in self._saved().items() if key != name})

    def _saved(self) -> dict[str, tuple[str, ...]]:
        """Whatever can be read of the setting: one that another version has written, or that was edited by hand, must
        not stop anybody."""
        try:
            found = json.loads(self._get(SETTING) or "{}")
        except (ValueError, TypeError):
            return {}
        saved = {}
        for name, organs in found.items() if isinstance(found, dict) else ():
            known = [organ for organ in CATALOGUE if isinstance(organs, list) and organ in organs]
            if known:
                saved[str(name)] = tuple(known)
        return saved

    def _write(self, saved: dict[str, tuple[str, ...]]) -> None:
        self._put(
            SETTING, json.dumps({name: list(organs) for name, organs in saved.items()}, ensure_ascii=False)
        )
