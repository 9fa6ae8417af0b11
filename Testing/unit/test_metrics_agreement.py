"""The metrics equal those of the programs whose definitions they name, on random shapes and on two observers'
contours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from peers import medpy_figures, monai_figures, surface_distance_figures
from scipy import ndimage

from soars.formats.reading import read_structures
from soars.metrics import Tolerance, score_masks, surface_distances, surface_overlap
from soars.metrics.marching import CORNERS, element_areas
from soars.structures import Geometry, StructureSet
from soars.structures.model import Mask, tight_mask

SPACINGS = ((1.0, 1.0, 1.0), (2.5, 0.9766, 0.9766), (3.0, 1.0, 0.5), (0.7, 0.8, 1.9))
TOLERANCES = (0.9766, 1.0, 2.5)
OBSERVER_CASES, EMPTY_ORGANS = 6, 4

Pair = tuple[np.ndarray, np.ndarray]


def _pairs(count: int, seed: int = 0) -> Iterator[Pair]:
    """Pairs of masks of all kinds: smooth, rough, boxes, sheets, specks, touching the border, far apart, equal,
    empty."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        shape = tuple(int(n) for n in rng.integers(3, 22, 3))
        first = _shape(rng, shape, number % 6)
        way = int(rng.integers(4))
        if way == 0:
            second = _shape(rng, shape, int(rng.integers(6)))
        elif way == 1:
            second = np.roll(first, rng.integers(-2, 3, 3), axis=(0, 1, 2))
        elif way == 2:
            second = ndimage.binary_dilation(first)
        else:
            second = first ^ (rng.random(shape) < 0.03)
        if number % 50 == 48:
            second = np.zeros(shape, bool)
        if number % 50 == 49:
            second = first.copy()
        yield first, second


def _shape(rng: np.random.Generator, shape: tuple[int, ...], kind: int) -> np.ndarray:
    out = np.zeros(shape, bool)
    if kind == 0:  # smooth and irregular
        field = ndimage.gaussian_filter(rng.random(shape), 1.5)
        out = field > np.quantile(field, 0.7)
    elif kind == 1:
        out = rng.random(shape) < 0.3
    elif kind == 2:
        low = [int(rng.integers(n)) for n in shape]
        out[tuple(slice(a, a + int(rng.integers(1, 9))) for a in low)] = True
    elif kind == 3:
        out[:, int(rng.integers(shape[1]))] = rng.random((shape[0], shape[2])) < 0.9
    elif kind == 4:
        out[tuple(int(rng.integers(n)) for n in shape)] = True
    else:
        z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
        c = [rng.uniform(0, n) for n in shape]
        out = (z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 < rng.uniform(2, 60)
    if not out.any():
        out[0, 0, 0] = True
    return out


def _figures(
    prediction: np.ndarray | Mask,
    reference: np.ndarray | Mask,
    spacing: tuple[float, float, float],
    tolerance: float,
    definition: str,
) -> dict[str, float]:
    masks = [m if isinstance(m, Mask) else tight_mask(m) for m in (prediction, reference)]
    size = np.max([m.stop for m in masks], axis=0)
    geometry = Geometry((int(size[2]), int(size[1]), int(size[0])), spacing[::-1], (0, 0, 0))
    score = score_masks(*masks, geometry, tolerance=Tolerance(tolerance, "the test"), definition=definition)
    overlap = surface_overlap(surface_distances(*masks, spacing, definition), tolerance)
    found = {name: value for name, value in vars(score).items() if isinstance(value, float)}
    return {**found, "overlap_of_prediction": overlap[0], "overlap_of_reference": overlap[1]}


def _assert_equal(ours: dict[str, float], theirs: dict[str, float], what: object) -> None:
    differ = {
        name: (ours[name], value)
        for name, value in theirs.items()
        if ours[name] != pytest.approx(value, abs=1e-6, rel=1e-6, nan_ok=True)
    }
    assert not differ, f"{what}: ours and theirs {differ}"


def test_areas_of_all_neighbourhoods_are_those_of_surface_distance() -> None:
    peer = pytest.importorskip("surface_distance.lookup_tables")
    kernel = np.array(peer.ENCODE_NEIGHBOURHOOD_3D_KERNEL).reshape(2, 2, 2)
    place = [sum(int(kernel[CORNERS[i]]) for i in range(8) if code >> i & 1) for code in range(256)]
    for spacing in (*SPACINGS, (0.3, 0.7, 4.0)):
        theirs = peer.create_table_neighbour_code_to_surface_area(spacing)[place]
        np.testing.assert_allclose(element_areas(spacing), theirs, rtol=1e-12)


def test_200_random_shapes_as_surface_distance() -> None:
    for number, (prediction, reference) in enumerate(_pairs(200)):
        spacing, tolerance = SPACINGS[number % 4], TOLERANCES[number % 3]
        theirs = surface_distance_figures(prediction, reference, spacing, tolerance)
        ours = _figures(prediction, reference, spacing, tolerance, "surface-distance")
        _assert_equal(ours, theirs, f"shape {number}")


def test_200_random_shapes_as_monai() -> None:
    for number, (prediction, reference) in enumerate(_pairs(200, seed=1)):
        if not reference.any():
            continue  # MONAI gives nan and warns
        spacing, tolerance = SPACINGS[number % 4], TOLERANCES[number % 3]
        theirs = monai_figures(prediction, reference, spacing, tolerance)
        _assert_equal(_figures(prediction, reference, spacing, tolerance, "monai"), theirs, f"shape {number}")


def test_200_random_shapes_as_medpy() -> None:
    for number, (prediction, reference) in enumerate(_pairs(200, seed=2)):
        if not reference.any():
            continue  # medpy refuses
        spacing = SPACINGS[number % 4]
        theirs = medpy_figures(prediction, reference, spacing)
        _assert_equal(_figures(prediction, reference, spacing, 1.0, "medpy"), theirs, f"shape {number}")


# --- two observers ------------------------------------------------------------------------------------------------


def _observers(shared: Path) -> Iterator[tuple[str, StructureSet, StructureSet]]:
    folder = shared / "data" / "observers"
    if not folder.is_dir():
        pytest.skip("../shared/data/observers is not here")
    cases = sorted(p.name for p in (folder / "oncologist").iterdir())
    assert len(cases) == OBSERVER_CASES
    for case in cases:
        reference = read_structures(folder / "oncologist" / case / "segmentations")
        yield case, read_structures(folder / "radiographer" / case / "segmentations"), reference


@pytest.mark.slow
@pytest.mark.parametrize("definition", ["surface-distance", "monai", "medpy"])
def test_two_observers_as_the_named_program(shared: Path, definition: str) -> None:
    compared = empty = 0
    for case, radiographer, oncologist in _observers(shared):
        spacing = (oncologist.geometry.spacing[2], *oncologist.geometry.spacing[1::-1])
        assert set(radiographer) == set(oncologist) and len(oncologist) == 21
        for organ in oncologist:
            a, b = radiographer.crop(organ), oncologist.crop(organ)
            if (a.is_empty and b.is_empty) or (
                definition != "surface-distance" and (a.is_empty or b.is_empty)
            ):
                empty += 1  # where neither has it, surface-distance says that they are infinitely far apart
                continue
            # air around both: a crop whose border touches an organ is another organ to some of the programs
            low = np.minimum(a.start, b.start) - 2
            shape = np.maximum(a.stop, b.stop) + 2 - low
            prediction, reference = a.box(low.tolist(), shape), b.box(low.tolist(), shape)
            if definition == "surface-distance":
                theirs = surface_distance_figures(prediction, reference, spacing, 2.5)
            elif definition == "monai":
                theirs = monai_figures(prediction, reference, spacing, 2.5)
            else:
                theirs = medpy_figures(prediction, reference, spacing)
            _assert_equal(_figures(a, b, spacing, 2.5, definition), theirs, f"{case} {organ}")
            compared += 1
    assert compared + empty == OBSERVER_CASES * 21 and empty <= EMPTY_ORGANS
