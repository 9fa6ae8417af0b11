"""Left and right taken for each other: an organ of a pair that lies where the reference has its partner."""

from __future__ import annotations

import math

from soars.catalogue import CATALOGUE, Oar
from soars.structures.model import StructureSet


def partner(organ: str) -> str | None:
    """The same organ on the other side; None for one without a side, or that the catalogue does not have."""
    oar = CATALOGUE.get(organ)
    if oar is None or oar.side is None:
        return None
    for other in CATALOGUE.values():
        if _is_partner(oar, other):
            return other.name
    return None


def on_other_side(organ: str, prediction: StructureSet, reference: StructureSet) -> bool:
    """Whether the predicted organ's centre of mass is nearer to the reference's partner than to the reference's
    organ.

    Only where the reference has both sides: nothing is guessed from the patient's midline.
    """
    other = partner(organ)
    if other is None or organ not in prediction or organ not in reference or other not in reference:
        return False
    centre = prediction.centre_of_mass(organ)
    own, opposite = reference.centre_of_mass(organ), reference.centre_of_mass(other)
    if centre is None or own is None or opposite is None:
        return False
    return math.dist(centre, opposite) < math.dist(centre, own)


def _is_partner(a: Oar, b: Oar) -> bool:
    return b.side is not None and b.side != a.side and _stem(b) == _stem(a)


def _stem(oar: Oar) -> str:
    """The name without its side, which TG-263 writes as the last word: ``Parotid_L``, or glued to others:
    ``Eye_AL``."""
    head, _, tail = oar.name.rpartition("_")
    return f"{head}_{tail[:-1]}"
