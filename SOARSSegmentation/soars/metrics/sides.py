"""Left and right swapped: an organ of a pair that lies where the reference has its partner."""

from __future__ import annotations

import math

from soars.catalogue import partner
from soars.structures.model import StructureSet


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
