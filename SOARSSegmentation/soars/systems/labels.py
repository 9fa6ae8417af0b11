"""From a model's integer labels to organs of the catalogue.

Models that others publish give one label map. A label may be one organ, several labels may be one organ together
(nnU-Net's regions), and an organ that the catalogue keeps in halves may be one label: it is then cut at the patient's
midsagittal plane.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soars.cascade.preprocess import Body
from soars.cascade.sides import Midline, find_midline, left_of
from soars.catalogue import CATALOGUE
from soars.errors import BundleError
from soars.structures import Geometry, Mask, StructureSet, tight_mask


@dataclass(frozen=True)
class LabelRule:
    """Voxels with one of ``values`` are the structure that the model calls ``label``.

    ``organs``: the catalogue's name of it; or, for a structure that lies on both sides, the names of its left and its
    right half in this order.
    """

    label: str
    values: tuple[int, ...]
    organs: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The rule as a manifest stores it."""
        return {"label": self.label, "values": list(self.values), "organs": list(self.organs)}


Labelled = tuple[npt.NDArray[np.integer[Any]], Sequence[LabelRule]]
"""A label map [z, y, x] and what its values are."""


def parse_rules(entries: object, where: str) -> tuple[LabelRule, ...]:
    """Rules from a manifest's list of objects; raises `BundleError` naming the entry."""
    if not isinstance(entries, list) or not entries:
        raise BundleError(f"{where}: expected a list of labels with their organs")
    rules = tuple(_rule(entry, f"{where}[{i}]") for i, entry in enumerate(entries))
    organs = Counter(organ for rule in rules for organ in rule.organs)
    twice = sorted(organ for organ, count in organs.items() if count > 1)
    if twice:
        raise BundleError(f"{where}: more than one label gives {', '.join(twice)}")
    return rules


def _rule(entry: object, where: str) -> LabelRule:
    if not isinstance(entry, dict) or set(entry) != {"label", "values", "organs"}:
        raise BundleError(f"{where}: expected an object with label, values and organs")
    label, values, organs = entry["label"], entry["values"], entry["organs"]
    if not isinstance(label, str) or not label:
        raise BundleError(f"{where}.label: must be a text")
    if not isinstance(values, list) or not values or any(type(v) is not int or v < 1 for v in values):
        raise BundleError(f"{where}.values: expected whole numbers from 1 (0 is the background)")
    if not isinstance(organs, list) or not all(isinstance(organ, str) for organ in organs):
        raise BundleError(f"{where}.organs: expected one organ, or a left and a right half")
    check_organs(tuple(organs), f"{where}.organs")
    return LabelRule(label, tuple(values), tuple(organs))


def check_organs(organs: tuple[str, ...], where: str) -> None:
    """Raise `BundleError` unless this is one organ of the catalogue, or the two halves of one, left first."""
    unknown = [organ for organ in organs if organ not in CATALOGUE]
    if unknown:
        raise BundleError(f"{where}: {unknown[0]!r} is not an organ of the catalogue")
    sides = tuple(CATALOGUE[organ].side for organ in organs)
    if len(organs) != 1 and sides != ("left", "right"):
        raise BundleError(f"{where}: expected one organ, or a left and a right half, not {', '.join(organs)}")


def structures_from_labels(label_maps: Iterable[Labelled], geometry: Geometry, body: Body) -> StructureSet:
    """Organs from label maps [z, y, x] on the grid of ``geometry``; labels without a rule are left out.

    Whole structures come first: they determine the midsagittal plane that cuts the others into halves. An empty organ
    is not in the result.
    """
    masks = [found for labels, rules in label_maps for found in _masks(labels, rules)]
    out = StructureSet(geometry)
    for rule, mask in masks:
        if len(rule.organs) == 1 and not mask.is_empty:
            out.add_mask(rule.organs[0], mask)
    both = [(rule, mask) for rule, mask in masks if len(rule.organs) == 2 and not mask.is_empty]
    midline = find_midline(out, body, [_centre(geometry, mask) for _, mask in both])
    for rule, mask in both:
        for organ, half in zip(rule.organs, halves(mask, geometry, midline), strict=True):
            if not half.is_empty:
                out.add_mask(organ, half)
    return out


def halves(mask: Mask, geometry: Geometry, midline: Midline) -> tuple[Mask, Mask]:
    """The parts of a mask on the patient's left and right of the midsagittal plane."""
    left = left_of(geometry, mask, midline) >= 0
    return tight_mask(mask.array & left, mask.start), tight_mask(mask.array & ~left, mask.start)


def _centre(geometry: Geometry, mask: Mask) -> tuple[float, float, float]:
    """Centre of mass of a mask that is not empty, LPS mm."""
    x, y, z = geometry.to_physical(np.argwhere(mask.array).mean(axis=0) + mask.start)
    return float(x), float(y), float(z)


def _masks(labels: npt.NDArray[np.integer[Any]], rules: Sequence[LabelRule]) -> list[tuple[LabelRule, Mask]]:
    """Each rule's voxels, found in one pass over the box of all labels."""
    around = tight_mask(labels != 0)
    box = labels[around.slices]
    present = set(np.unique(box).tolist())
    found = []
    for rule in rules:
        values = [value for value in rule.values if value in present]
        mask = np.isin(box, values) if values else np.zeros((0, 0, 0), dtype=bool)
        found.append((rule, tight_mask(mask, around.start)))
    return found


def by_organ(rules: Iterable[LabelRule]) -> Mapping[str, LabelRule]:
    """Organ -> the rule that gives it."""
    return {organ: rule for rule in rules for organ in rule.organs}
