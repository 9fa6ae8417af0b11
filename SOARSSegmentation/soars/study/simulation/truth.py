"""What is built into a simulated study: shares of the categories of revision, minutes per patient, readers' speed.

The published study (Ye et al., Nature Communications 2022) had 58 % of organs without, 40 % with minor, 2 % with
moderate and none with major revision, 10.5 minutes per patient revising and 106.4 from scratch: these are the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from soars.effort.timing import CATEGORIES
from soars.errors import InputError

_RANGE_S = {"none": (2.0, 20.0), "minor": (6.0, 59.0), "moderate": (61.0, 179.0), "major": (181.0, 600.0)}
"""Range of active times of an organ in each category."""
_USUAL_S = {"none": 5.0, "minor": 24.0, "moderate": 95.0, "major": 240.0}
_SPREAD = 0.35
"""Standard deviation of log times within a category; and of scratch times between organs."""


@dataclass(frozen=True)
class Truth:
    """Attributes:
    shares: of the categories, in the order of `soars.effort.timing.CATEGORIES`; they add up to 1.
    revise_minutes, scratch_minutes: active minutes per patient, mean over patients and readers.
    reader_ratio: how many times as long the last reader takes as the first (the others lie between).
    skill: share of the slices of an edited organ that a reader makes like the reference.
    case_spread: standard deviation of log times between patients.
    """

    shares: tuple[float, ...] = (0.58, 0.40, 0.02, 0.0)
    revise_minutes: float = 10.5
    scratch_minutes: float = 106.4
    reader_ratio: float = 1.0
    skill: float = 0.8
    case_spread: float = 0.15

    def __post_init__(self) -> None:
        if len(self.shares) != len(CATEGORIES) or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise InputError("the shares of none, minor, moderate and major revisions must add up to 1")
        if min(self.revise_minutes, self.scratch_minutes, self.reader_ratio) <= 0:
            raise InputError("minutes and the readers' ratio must be above 0")
        if not 0 <= self.skill <= 1:
            raise InputError("the skill must be between 0 and 1")


@dataclass(frozen=True)
class OrganWork:
    """What a reader does with one organ: the category it will fall into ("" from scratch) and its active seconds."""

    category: str
    active_s: float


@dataclass(frozen=True)
class SessionWork:
    """What a reader does in one session, organ by organ."""

    organs: Mapping[str, OrganWork] = field(default_factory=dict)

    @property
    def active_s(self) -> float:
        return sum(work.active_s for work in self.organs.values())


def reader_speeds(readers: int, ratio: float) -> list[float]:
    """Factors on times, evenly spread in their logarithms, whose mean is 1."""
    steps = np.linspace(0, np.log(ratio), readers) if readers > 1 else np.zeros(1)
    factors = np.exp(steps)
    return [float(f) for f in factors / factors.mean()]


def draw_revising(
    truth: Truth,
    sessions: Sequence[tuple[str, int, int]],
    organs: Sequence[str],
    speeds: Sequence[float],
    seed: int,
) -> dict[tuple[str, int, int], SessionWork]:
    """The work of all revising sessions, (kind, reader, case).

    Each reader gets the categories in the true shares, as exactly as whole numbers allow, shuffled; the times within
    their categories are scaled until the mean session has the truth's minutes.
    """
    rng = np.random.default_rng([seed, 1])
    dealt: dict[tuple[str, int, int], list[str]] = {}
    for reader in sorted({key[1] for key in sessions}):
        own = [key for key in sessions if key[1] == reader]
        deck = _deck(truth.shares, len(own) * len(organs))
        shuffled = [deck[i] for i in rng.permutation(len(deck))]
        for n, key in enumerate(own):
            dealt[key] = shuffled[n * len(organs) : (n + 1) * len(organs)]
    keys = list(dealt)
    categories = np.array([dealt[key] for key in keys])
    usual = np.vectorize(_USUAL_S.__getitem__)(categories)
    cases = {
        case: float(np.exp(rng.normal(0, truth.case_spread))) for case in sorted({key[2] for key in keys})
    }
    factor = np.array([[cases[key[2]] * speeds[key[1]]] for key in keys])
    times = usual * factor * np.exp(rng.normal(0, _SPREAD, categories.shape))
    low, high = (np.vectorize(lambda c, i=i: _RANGE_S[c][i])(categories) for i in (0, 1))
    times = _scaled_within(times, low, high, 60 * truth.revise_minutes * len(keys))
    return {
        key: SessionWork(
            {organ: OrganWork(str(c), float(t)) for organ, c, t in zip(organs, row, line, strict=True)}
        )
        for key, row, line in zip(keys, categories, times, strict=True)
    }


def draw_scratch(
    truth: Truth,
    sessions: Sequence[tuple[str, int, int]],
    organs: Sequence[str],
    speeds: Sequence[float],
    seed: int,
) -> dict[tuple[str, int, int], SessionWork]:
    """The work of all sessions from scratch, scaled until the mean session has the truth's minutes."""
    rng = np.random.default_rng([seed, 2])
    if not sessions:
        return {}
    usual = np.exp(rng.normal(0, _SPREAD, len(organs)))
    cases = {
        case: float(np.exp(rng.normal(0, truth.case_spread))) for case in sorted({key[2] for key in sessions})
    }
    times = np.array(
        [
            usual * cases[key[2]] * speeds[key[1]] * np.exp(rng.normal(0, _SPREAD / 2, len(organs)))
            for key in sessions
        ]
    )
    times *= 60 * truth.scratch_minutes * len(sessions) / times.sum()
    return {
        key: SessionWork({organ: OrganWork("", float(t)) for organ, t in zip(organs, line, strict=True)})
        for key, line in zip(sessions, times, strict=True)
    }


def _deck(shares: Sequence[float], count: int) -> list[str]:
    """``count`` categories in these shares, by largest remainders."""
    exact = np.array(shares) * count
    whole = np.floor(exact).astype(int)
    for index in np.argsort(-(exact - whole), kind="stable")[: count - int(whole.sum())]:
        whole[index] += 1
    return [name for name, n in zip(CATEGORIES, whole, strict=True) for _ in range(n)]


def _scaled_within(times: np.ndarray, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """Times multiplied by one factor and clipped to their ranges, so that they add up to ``total`` seconds."""
    if not float(low.sum()) <= total <= float(high.sum()):
        raise InputError(
            f"{total / 60 / len(times):.1f} minutes a patient cannot be had with these shares: between "
            f"{low.sum() / 60 / len(times):.1f} and {high.sum() / 60 / len(times):.1f}"
        )
    least, most = 1e-4, 1e4
    for _ in range(200):
        middle = float(np.sqrt(least * most))
        if np.clip(times * middle, low, high).sum() < total:
            least = middle
        else:
            most = middle
    return np.asarray(np.clip(times * most, low, high))
