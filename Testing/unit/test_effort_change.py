"""The change of an organ since its proposal, against shapes whose voxels are counted by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest

from soars.effort.change import OrganChange, organ_change
from soars.structures import tight_mask

EMPTY = tight_mask(np.zeros((0, 0, 0), dtype=bool))


def box(start: tuple[int, int, int], shape: tuple[int, int, int]):  # type: ignore[no-untyped-def]
    return tight_mask(np.ones(shape, dtype=bool), start)


def test_a_box_moved_by_one_voxel() -> None:
    # 4 x 5 x 6 moved along x: a face of 20 voxels comes in and one goes; Dice 2 * 100 / 240.
    change = organ_change(box((1, 1, 1), (4, 5, 6)), box((1, 1, 2), (4, 5, 6)), voxel_cc=0.002)
    assert change == OrganChange(20, 20, pytest.approx(200 / 240), pytest.approx(0.24))
    assert change.changed


def test_the_same_voxels_in_another_array_are_no_change() -> None:
    change = organ_change(box((1, 1, 1), (2, 2, 2)), box((1, 1, 1), (2, 2, 2)), voxel_cc=1.0)
    assert change == OrganChange(0, 0, 1.0, 8.0)
    assert not change.changed


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (EMPTY, EMPTY, OrganChange(0, 0, 1.0, 0.0)),
        (EMPTY, box((0, 0, 0), (1, 2, 3)), OrganChange(6, 0, 0.0, 6.0)),
        (box((0, 0, 0), (1, 2, 3)), EMPTY, OrganChange(0, 6, 0.0, 0.0)),
        (box((0, 0, 0), (2, 2, 2)), box((9, 9, 9), (2, 2, 2)), OrganChange(8, 8, 0.0, 8.0)),
        (box((0, 0, 0), (4, 4, 4)), box((1, 1, 1), (2, 2, 2)), OrganChange(0, 56, 16 / 72, 8.0)),
    ],
)
def test_empty_disjoint_and_nested_masks(before, after, expected: OrganChange) -> None:  # type: ignore[no-untyped-def]
    assert organ_change(before, after, voxel_cc=1.0) == expected


def test_random_masks_against_sets_of_voxels() -> None:
    chance = random.Random(3)
    for _ in range(50):
        sets = [
            {tuple(chance.randrange(6) for _ in range(3)) for _ in range(chance.randrange(40))}
            for _ in range(2)
        ]
        masks = []
        for voxels in sets:
            full = np.zeros((6, 6, 6), dtype=bool)
            for voxel in voxels:
                full[voxel] = True
            masks.append(tight_mask(full))
        change = organ_change(masks[0], masks[1], voxel_cc=0.5)
        assert change.voxels_added == len(sets[1] - sets[0])
        assert change.voxels_removed == len(sets[0] - sets[1])
        assert change.volume_cc == len(sets[1]) / 2
        if sets[0] or sets[1]:
            assert change.dsc == pytest.approx(2 * len(sets[0] & sets[1]) / (len(sets[0]) + len(sets[1])))
