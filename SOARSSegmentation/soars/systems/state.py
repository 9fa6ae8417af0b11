"""What a bundle's models need on this machine, and which organs can be drawn now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from soars.systems.download import size_of
from soars.systems.interface import System, Weights


@dataclass(frozen=True)
class State:
    """Of a system and the organs asked for.

    Attributes:
        ready: organs that can be drawn now.
        why_not: each other organ -> why it cannot be drawn, in one sentence that says what to do.
        missing_packages: distributions that are not installed, with their floors.
        weights: everything that a system fetches itself, what is there and what is not.
        sizes: size in bytes of each of ``weights`` that is missing, as far as its server says; only when asked for.
    """

    ready: tuple[str, ...]
    why_not: Mapping[str, str]
    missing_packages: tuple[str, ...]
    weights: tuple[Weights, ...]
    sizes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for ``soars bundle needs --json``."""
        return asdict(self)


def state_of(system: System, organs: Collection[str], *, sizes: bool = False) -> State:
    """Look what is there. Contacts the servers of missing weights only with ``sizes``."""
    problems = {organ: system.problem((organ,)) for organ in organs}
    needs = system.needs(organs)
    known = {w.name: size_of(w) for w in needs.missing_weights} if sizes else {}
    return State(
        ready=tuple(organ for organ, problem in problems.items() if problem is None),
        why_not={organ: problem for organ, problem in problems.items() if problem is not None},
        missing_packages=needs.missing_packages,
        weights=needs.weights,
        sizes={name: size for name, size in known.items() if size is not None},
    )
