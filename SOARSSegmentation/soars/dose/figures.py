"""Figures of a DVH by their usual names: V20, V20cc, D2%, D1cc, mean, max, min, median.

In AAPM's TG-263 V20Gy is at a dose, V95% at a percentage of the prescribed dose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from soars.dose.dvh import Dvh
from soars.errors import InputError

_NAMED = {
    "mean": "mean",
    "dmean": "mean",
    "max": "max",
    "dmax": "max",
    "min": "min",
    "dmin": "min",
    "median": "D50%",
}
_VOLUME = re.compile(r"v(\d+(?:\.\d+)?)(?:gy)?(?:\s*\[?(%|cc|cm3)\]?)?", re.IGNORECASE)
#: V95% is the volume with 95 % of the prescribed dose; V20Gy% and V20[%] are in percent of the organ.
_OF_PRESCRIPTION = re.compile(r"v\d+(?:\.\d+)?\s*%(?:\s*\[?(?:%|cc|cm3)\]?)?", re.IGNORECASE)
_DOSE = re.compile(r"d(\d+(?:\.\d+)?)\s*(%|cc|cm3)(?:\[?gy\]?)?", re.IGNORECASE)
_UNIT_NAMES = {"Gy": "gy", "%": "percent", "cc": "cc"}
KNOWN = "V20 or V20Gy[%] (percent of the organ), V20cc, D2%, D1cc, mean, max, min, median"


@dataclass(frozen=True)
class DvhFigure:
    """One figure: ``name`` as it is usually written, ``unit`` of its value ("Gy", "%" or "cc").

    ``kind`` is "mean", "max", "min", "dose_percent", "dose_cc", "volume_percent" or "volume_cc", ``amount`` the dose in
    Gy or the volume that the kind needs.
    """

    name: str
    kind: str
    amount: float
    unit: str

    def of(self, dvh: Dvh) -> float:
        """Its value; nan for an organ without a voxel."""
        if self.kind == "mean":
            return dvh.mean_gy
        if self.kind == "max":
            return dvh.max_gy
        if self.kind == "min":
            return dvh.min_gy
        if self.kind == "dose_percent":
            return dvh.hottest_percent(self.amount)
        if self.kind == "dose_cc":
            return dvh.hottest_cc(self.amount)
        percent = float(dvh.percent_receiving(self.amount))
        return percent if self.kind == "volume_percent" else percent / 100 * dvh.volume_cc

    @property
    def column(self) -> str:
        """For tables: the name with the unit of its value, such as ``V20_percent``, ``V20_cc``, ``D2percent_gy``."""
        name = self.name.removesuffix("cc") if self.kind == "volume_cc" else self.name.replace("%", "percent")
        return f"{name}_{_UNIT_NAMES[self.unit]}"


def parse_figure(text: str) -> DvhFigure:
    """A figure from its name, in any usual spelling. Raises `InputError` for one that is not known."""
    plain = text.strip()
    named = _NAMED.get(plain.lower())
    if named in ("mean", "max", "min"):
        return DvhFigure(named, named, 0.0, "Gy")
    plain = named or plain
    if _OF_PRESCRIPTION.fullmatch(plain):
        raise InputError(
            f"{text!r} is the volume that receives a percentage of the prescribed dose, which is not known here: give "
            "the dose in Gy, such as V20, V20Gy[%] or V20cc"
        )
    if found := _VOLUME.fullmatch(plain):
        amount, unit = float(found[1]), "%" if found[2] in (None, "%") else "cc"
        kind = "volume_percent" if unit == "%" else "volume_cc"
        return DvhFigure(f"V{amount:g}{'' if unit == '%' else 'cc'}", kind, amount, unit)
    if found := _DOSE.fullmatch(plain):
        amount, part = float(found[1]), "%" if found[2] == "%" else "cc"
        if part == "%" and amount > 100:
            raise InputError(f"{text!r}: a volume cannot exceed 100 % of the organ")
        return DvhFigure(f"D{amount:g}{part}", "dose_percent" if part == "%" else "dose_cc", amount, "Gy")
    raise InputError(f"{text!r} is not a known figure of a DVH; known are {KNOWN}")


def parse_figures(texts: Iterable[str]) -> tuple[DvhFigure, ...]:
    """Several, each once, in their order."""
    return tuple(dict.fromkeys(parse_figure(text) for text in texts if text.strip()))
