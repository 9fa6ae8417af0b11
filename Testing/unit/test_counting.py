"""Counts and neighbourhoods of bool arrays, against numpy and scipy."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
import scipy

from soars.findings.counting import counts, dilated


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    return np.random.default_rng(1).random((7, 300, 11)) < 0.3


@pytest.mark.parametrize("axes", list(chain.from_iterable(combinations(range(3), n) for n in (1, 2, 3))))
def test_counts_are_numpy_sums(array: np.ndarray, axes: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(counts(array, axes), array.sum(axis=axes))


def test_counts_do_not_overflow_along_the_longest_axes() -> None:
    full = np.ones((2, 40_000, 2), bool)
    np.testing.assert_array_equal(counts(full, 1), np.full((2, 2), 40_000))
    np.testing.assert_array_equal(counts(full, (0, 1)), np.full(2, 80_000))
    assert counts(full[:, ::2], 1).tolist() == [[20_000, 20_000]] * 2, "a view with gaps"


@pytest.mark.parametrize("reach", [(0, 0, 0), (1, 0, 2), (2, 2, 2), (9, 1, 0)])
def test_dilation_is_a_maximum_filter(array: np.ndarray, reach: tuple[int, int, int]) -> None:
    size = [2 * n + 1 for n in reach]
    wanted = scipy.ndimage.maximum_filter(array, size, mode="constant")
    before = array.copy()
    np.testing.assert_array_equal(dilated(array, reach), wanted)
    np.testing.assert_array_equal(array, before)
