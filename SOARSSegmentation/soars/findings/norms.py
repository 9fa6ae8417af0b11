"""What is usual in the patients that a bundle was trained on: volumes, and where organs lie relative to each other."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from soars.catalogue import CATALOGUE
from soars.findings.finding import CHECK, SERIOUS, Finding, Locator
from soars.findings.shape import LONG_ORGANS
from soars.structures import StructureSet

FAR_SD, SERIOUS_SD = 3.0, 5.0
"""Standard deviations from the cohort's mean that are worth a finding, and that are probably wrong."""
LEAST_SD_LOG, LEAST_SD_MM = 0.15, 4.0
"""Least spread assumed for a cohort: contours differ by this much from one reader to the next."""
LEAST_PATIENTS = 10


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation, one or three numbers each, over so many patients."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    patients: int


@dataclass(frozen=True)
class Norms:
    """The cohort's table.

    Attributes:
        volume: organ -> natural logarithm of its volume in cc.
        place: (organ, other) -> from the other's centre to the organ's, (x, y, z) LPS mm.
    """

    volume: Mapping[str, Spread]
    place: Mapping[tuple[str, str], Spread]

    def to_dict(self) -> dict[str, Any]:
        """As a bundle stores it; `from_dict` reads it."""
        places: dict[str, dict[str, Any]] = {}
        for (organ, other), spread in self.place.items():
            places.setdefault(organ, {})[other] = _spread_to_list(spread)
        return {"volume": {name: _spread_to_list(s) for name, s in self.volume.items()}, "place": places}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Norms:
        """Raises `KeyError`, `TypeError` or `ValueError` for what `to_dict` does not write."""
        return Norms(
            {name: _spread_of(row, 1) for name, row in data["volume"].items()},
            {
                (organ, other): _spread_of(row, 3)
                for organ, rows in data["place"].items()
                for other, row in rows.items()
            },
        )


def usual_findings(
    structures: StructureSet, locator: Locator, goes_on: Collection[str] = ()
) -> Iterator[Finding]:
    """Organs whose volume is outside the catalogue's wide limits of plausibility; of those that go on beyond the scan
    any part may be in it, so that they may only be too large."""
    for name in structures.names:
        usual, volume = CATALOGUE[name].usual_volume_cc, structures.volume_cc(name)
        if usual is None or usual[0] <= volume <= usual[1] or (volume < usual[0] and name in goes_on):
            continue
        low, high = usual
        yield _volume_finding(
            structures,
            locator,
            (name, CHECK, volume > high),
            f"{volume:.3g} cc, where {low:g} to {high:g} cc are usual",
        )


def norm_findings(structures: StructureSet, norms: Norms, locator: Locator) -> Iterator[Finding]:
    """Organs whose volume or place is far from the cohort's; those that go on beyond the scan are not judged."""
    names = [n for n in structures.names if not structures.is_empty(n) and n not in LONG_ORGANS]
    centres = {name: np.asarray(structures.centre_of_mass(name)) for name in names}
    for name in names:
        yield from _volume(structures, name, norms, locator)
        yield from _place(name, centres, norms, locator)


def volume_off(structures: StructureSet, name: str, norms: Norms) -> float | None:
    """By how many standard deviations an organ is larger than in the cohort; None where there is no norm."""
    spread = norms.volume.get(name)
    if spread is None or spread.patients < LEAST_PATIENTS or name in LONG_ORGANS:
        return None
    volume = structures.volume_cc(name)
    return float((np.log(volume) - spread.mean[0]) / max(spread.sd[0], LEAST_SD_LOG))


def place_off(name: str, centres: Mapping[str, np.ndarray], norms: Norms) -> tuple[float, float]:
    """By how many standard deviations an organ is not in its place, and by how many mm; (0, 0) without norms.

    It is off when it lies far from its place to three in four of the others that it can be compared with.
    """
    shifts = []
    for other, centre in centres.items():
        spread = norms.place.get((name, other))
        if spread is None or spread.patients < LEAST_PATIENTS:
            continue
        shift = centres[name] - centre - spread.mean
        sd = np.maximum(spread.sd, LEAST_SD_MM)
        shifts.append((float(np.abs(shift / sd).max()), shift))
    if len(shifts) < 2:
        return 0.0, 0.0
    off = float(np.quantile([s for s, _ in shifts], 0.25, method="lower"))
    return off, float(np.linalg.norm(np.median([shift for _, shift in shifts], axis=0)))


def _volume(structures: StructureSet, name: str, norms: Norms, locator: Locator) -> Iterator[Finding]:
    off = volume_off(structures, name, norms)
    if off is None or abs(off) < FAR_SD:
        return
    volume = structures.volume_cc(name)
    severity = SERIOUS if abs(off) >= SERIOUS_SD else CHECK
    usual = float(np.exp(norms.volume[name].mean[0]))
    yield _volume_finding(
        structures,
        locator,
        (name, severity, off > 0),
        f"{volume:.3g} cc, where patients like those of training have {usual:.3g} cc",
    )


def _volume_finding(
    structures: StructureSet, locator: Locator, what: tuple[str, str, bool], figures: str
) -> Finding:
    """`what`: the organ, the severity, and whether it is too large (else too small)."""
    name, severity, large = what
    mask = structures.crop(name)
    return Finding(
        name,
        "volume",
        severity,
        f"it is unusually {'large' if large else 'small'}: {figures}",
        f"Check in all slices whether the contour holds {'more' if large else 'less'} than the organ.",
        locator.in_mask(mask.array, mask.start),
    )


def _place(name: str, centres: Mapping[str, np.ndarray], norms: Norms, locator: Locator) -> Iterator[Finding]:
    off, away = place_off(name, centres, norms)
    if off < FAR_SD:
        return
    yield Finding(
        name,
        "place",
        SERIOUS if off >= SERIOUS_SD else CHECK,
        f"it lies about {away:.0f} mm from where it is expected relative to the other organs",
        "Check whether this is the organ, or a similar structure.",
        locator.at_point(centres[name]),
    )


def pairs_of(names: list[str]) -> Iterator[tuple[str, str]]:
    """Ordered pairs of organs that a place is told for; those that go on beyond a scan have no middle."""
    usable = [name for name in names if name not in LONG_ORGANS]
    yield from itertools.permutations(usable, 2)


def _spread_to_list(spread: Spread) -> list[Any]:
    return [[round(v, 4) for v in spread.mean], [round(v, 4) for v in spread.sd], spread.patients]


def _spread_of(row: Any, length: int) -> Spread:
    mean, sd, patients = row
    if len(mean) != length or len(sd) != length or not np.isfinite([*mean, *sd]).all() or min(sd) < 0:
        raise ValueError(f"expected {length} means and standard deviations, got {row!r}")
    return Spread(tuple(map(float, mean)), tuple(map(float, sd)), int(patients))
