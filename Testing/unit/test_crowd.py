"""Which voxels belong to other organs, against the organs' full masks."""

from __future__ import annotations

import numpy as np
import pytest

from soars.findings.crowd import Crowd
from soars.structures import Geometry, StructureSet
from soars.structures.box import Box

GEOMETRY = Geometry((30, 20, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
NAMES = ("Eye_L", "Lens_L", "Brainstem", "Parotid_L")
"""The lens is a part of the eye."""


@pytest.fixture
def organs() -> StructureSet:
    rng = np.random.default_rng(3)
    found = StructureSet(GEOMETRY)
    for name in NAMES:
        mask = np.zeros(GEOMETRY.shape, bool)
        z, y, x = (int(rng.integers(0, n // 2)) for n in GEOMETRY.shape)
        part = mask[z : z + 5, y : y + 10, x : x + 15]
        part[...] = rng.random(part.shape) < 0.5
        found.add(name, mask)
    found.add("Larynx", np.zeros(GEOMETRY.shape, bool))
    return found


@pytest.mark.parametrize(
    ("start", "shape"), [((0, 0, 0), (10, 20, 30)), ((-3, -2, 20), (9, 40, 25)), ((3, 4, 5), (2, 3, 4))]
)
def test_others_are_the_other_masks_without_parts_and_wholes(
    organs: StructureSet, start: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    box = Box.at(start, shape)
    crowd = Crowd(organs)
    for name in NAMES:
        apart = {name} | ({"Eye_L", "Lens_L"} if name in ("Eye_L", "Lens_L") else set())
        wide = np.zeros([n + 100 for n in GEOMETRY.shape], bool)
        for other in NAMES:
            if other not in apart:
                wide[50:60, 50:70, 50:80] |= organs.full(other)
        wanted = wide[tuple(slice(50 + s, 50 + s + n) for s, n in zip(start, shape, strict=True))]
        np.testing.assert_array_equal(crowd.others(name, box), wanted)


def test_shared_counts_the_voxels_that_another_organ_has_too(organs: StructureSet) -> None:
    for name in NAMES:
        elsewhere = np.any([organs.full(n) for n in NAMES if n != name], axis=0)
        assert Crowd(organs).shared(name) == int((organs.full(name) & elsewhere).sum())


def test_nobody_is_no_crowd() -> None:
    nobody = StructureSet(GEOMETRY)
    assert not Crowd(nobody).others("Eye_L", Box.at((0, 0, 0), (3, 3, 3))).any()
