"""Cases reach the cache where they lie in the patient, with what was annotated and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cascade.preprocess import Grid
from soars.errors import InputError
from soars.structures import Geometry, StructureSet
from soars_training.cohorts.cache import CacheIndex, read_case
from soars_training.cohorts.prepare import (
    SourceCase,
    listed_cases,
    mask_on_grid,
    openkbp_cases,
    preprocess,
    split_at_midline,
    whole_region,
    write_voi_cache,
    write_volume_cache,
)

SPACING = (4.0, 4.0, 3.0)
SHAPE = (40, 50, 60)


def _ball(geometry: Geometry, centre_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)
    return np.linalg.norm(geometry.to_physical(index) - centre_mm, axis=-1) <= radius_mm


@pytest.fixture
def openkbp(tmp_path: Path) -> Path:
    """One patient in the OpenKBP layout: a water head with a brainstem ball and a mandible arch; no cord annotated."""
    folder = tmp_path / "openkbp"
    (folder / "train-pats").mkdir(parents=True)
    hu = np.full(SHAPE, -1000, np.int16)
    ct = sitk.GetImageFromArray(hu)
    ct.SetSpacing(SPACING)
    geometry = Geometry.of(ct)
    hu[_ball(geometry, np.array([118.0, 98.0, 60.0]), 75)] = 0
    ct = geometry.place(sitk.GetImageFromArray(hu))
    labels = np.zeros(SHAPE, np.uint8)
    labels[_ball(geometry, np.array([118.0, 120.0, 70.0]), 15)] = 1
    labels[20, 15:25, 15:18] = labels[20, 15:25, 42:45] = labels[20, 13:15, 15:45] = 3
    sitk.WriteImage(ct, str(folder / "train-pats" / "pt_1_ct.nii.gz"))
    sitk.WriteImage(
        geometry.place(sitk.GetImageFromArray(labels)), str(folder / "train-pats" / "pt_1_oars.nii.gz")
    )
    facts = {"annotated": ["Brainstem", "Mandible"], "spacing": list(SPACING), "size": list(SHAPE[::-1])}
    labels_of = {"Brainstem": 1, "SpinalCord": 2, "Mandible": 3}
    (folder / "cases.json").write_text(json.dumps({"labels": labels_of, "cases": {"train-pats/pt_1": facts}}))
    return folder


def test_openkbp_cases_are_cached_with_their_annotations(openkbp: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    write_volume_cache(openkbp_cases(openkbp), cache, (3.0, 3.0, 3.0), "OpenKBP")
    index = CacheIndex.load(cache)
    assert [c.annotated for c in index.cases] == [("Bone_Mandible_L", "Bone_Mandible_R", "Brainstem")]
    case = read_case(cache / index.cases[0].file)
    grid = Grid.of(case.origin_mm, case.spacing_mm, case.ct_hu.shape[::-1])
    centre = grid.index_to_points(np.argwhere(case.full_mask("Brainstem")).mean(0))
    np.testing.assert_allclose(centre, [118, 120, 70], atol=1.0)
    volume_cc = case.full_mask("Brainstem").sum() * 27 / 1000
    assert volume_cc == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.04)  # a ball of 4 x 4 x 3 mm voxels
    left, right = (np.argwhere(case.full_mask(f"Bone_Mandible_{s}")).mean(0) for s in "LR")
    assert left[2] > right[2] + 15  # LPS: the patient's left is at higher x


def test_a_folder_that_is_not_openkbp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no cases\.json"):
        next(openkbp_cases(tmp_path))


@pytest.mark.parametrize("turned_degrees", [0, 15, -15])
def test_a_mandible_is_split_at_its_own_midline(turned_degrees: float) -> None:
    mask = np.zeros((6, 60, 80), bool)
    angle = np.deg2rad(turned_degrees)
    truth = {}
    for side in (-1, 1):
        for t in np.linspace(0, 1, 400):
            x, y = side * 25 * np.sqrt(t), 30 * t - 15
            px, py = np.cos(angle) * x - np.sin(angle) * y + 40, np.sin(angle) * x + np.cos(angle) * y + 30
            voxel = (round(py), round(px))
            mask[:, voxel[0], voxel[1]] = True
            truth[voxel] = side
    left, right = split_at_midline(mask, Geometry((80, 60, 6), (1.0, 1.0, 3.0), (0.0, 0.0, 0.0)))
    assert not (left & right).any() and ((left | right) == mask).all()
    wrong = sum(left[0, y, x] != (side > 0) for (y, x), side in truth.items())
    assert wrong / len(truth) < 0.08


def test_an_organ_too_small_for_the_grid_is_unknown_and_not_absent() -> None:
    """A ball of 2 mm between eight voxels of 4 mm, whose centres are 3.5 mm away; one that lies beyond is absent."""
    ct = Geometry((40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    structures = StructureSet(ct)
    for organ, centre in (
        ("Cochlea_L", (18, 18, 18)),
        ("Pituitary", (18, 18, 36)),
        ("Brainstem", (12, 20, 20)),
    ):
        structures.add(organ, _ball(ct, np.array(centre, float), 9 if organ == "Brainstem" else 2))
    image = ct.place(sitk.GetImageFromArray(np.zeros(ct.shape, np.int16)))
    case = SourceCase("a", "train", image, structures, frozenset(structures.names))
    cached = preprocess(case, Grid((0.0, 0.0, 0.0), (4.0, 4.0, 4.0), (10, 10, 8)), whole_region(image), "a")
    assert set(cached.masks) == {"Brainstem"} and cached.annotated == {"Brainstem", "Pituitary"}


@pytest.mark.parametrize("direction", [np.diag([1.0, 1, 1]), np.diag([-1.0, -1, 1]), np.eye(3)[[2, 0, 1]]])
def test_a_mask_is_placed_by_its_physical_position(direction: np.ndarray) -> None:
    geometry = Geometry((40, 44, 48), (1.0, 1.2, 1.5), (10.0, -20.0, 5.0), tuple(direction.ravel()))
    centre = geometry.to_physical(np.array([24.0, 22.0, 20.0]))
    structures = StructureSet(geometry)
    structures.add("Pituitary", _ball(geometry, centre, 9))
    grid = Grid.around(centre, (40.0, 40.0, 40.0), (2.0, 2.0, 2.0))
    placed = mask_on_grid(geometry, structures.crop("Pituitary"), grid)
    assert placed is not None
    start, crop = placed
    found = grid.index_to_points((np.argwhere(crop) + start).mean(0))
    np.testing.assert_allclose(found, centre, atol=0.3)
    assert crop.sum() * 8 == pytest.approx(
        4 / 3 * np.pi * 9**3, rel=0.08
    )  # interpolation rounds small balls off


def test_a_mask_outside_the_grid_is_no_mask() -> None:
    geometry = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    structures = StructureSet(geometry)
    structures.add("Pituitary", np.ones((10, 10, 10), bool))
    far = Grid.around(np.array([200.0, 0, 0]), (20.0, 20.0, 20.0), (2.0, 2.0, 2.0))
    assert mask_on_grid(geometry, structures.crop("Pituitary"), far) is None


def test_own_cases_may_use_any_spelling(openkbp: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    labels = sitk.ReadImage(str(openkbp / "train-pats" / "pt_1_oars.nii.gz"))
    sitk.WriteImage(sitk.Cast(labels == 1, sitk.sitkUInt8), str(masks / "brain stem.nii.gz"))
    entry = {"name": "a", "ct": "openkbp/train-pats/pt_1_ct.nii.gz", "structures": "masks"}
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [entry]}))
    (case,) = listed_cases(tmp_path / "cases.json")
    assert case.annotated == {"Brainstem"}
    assert case.structures.voxels("Brainstem") == int(sitk.GetArrayFromImage(labels == 1).sum())


def test_vois_are_cut_about_the_organ(openkbp: Path, tmp_path: Path) -> None:
    (case,) = openkbp_cases(openkbp)
    geometry = case.structures.geometry
    case.structures.add("Pituitary", _ball(geometry, np.array([118.0, 90.0, 75.0]), 7))
    cache = tmp_path / "voi"
    index = write_voi_cache([case], cache, (1.0, 1.0, 1.0), {"Pituitary": (24.0, 24.0, 24.0)}, "test")
    assert [c.group for c in index.cases] == ["Pituitary"]
    crop = read_case(cache / index.cases[0].file)
    assert crop.ct_hu.shape == (56, 56, 56)
    np.testing.assert_allclose(np.argwhere(crop.full_mask("Pituitary")).mean(0), [27.5] * 3, atol=1.0)


@pytest.mark.parametrize("offset_mm", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_mask_does_not_grow_where_the_two_grids_fit_each_other(offset_mm: float) -> None:
    """Every second point of the new grid lies exactly between two voxels of the old one, by the offset. Interpolating
    between voxels of h mm moves the surface of a ball inwards by h^2 / 6 r."""
    geometry = Geometry(SHAPE[::-1], SPACING, (0.0, 0.0, 0.0))
    ball = _ball(geometry, np.array([118.0, 120.0, 70.0]), 15)
    structures = StructureSet(geometry)
    structures.add("Brainstem", ball)
    corner = np.array([43.0, 23.0, 0.0]) + offset_mm
    placed = mask_on_grid(
        geometry, structures.crop("Brainstem"), Grid.of(corner, (3.0, 3.0, 3.0), (51, 51, 40))
    )
    assert placed is not None
    inwards_mm = np.mean(np.square(SPACING)) / (6 * 15)
    expected = ball.sum() * np.prod(SPACING) * (1 - 3 * inwards_mm / 15)
    assert placed[1].sum() * 27 == pytest.approx(expected, rel=0.03)


def test_a_cache_is_written_whole_or_not_at_all(openkbp: Path, tmp_path: Path) -> None:
    def breaks() -> Iterator[SourceCase]:
        yield from openkbp_cases(openkbp)
        raise InputError("the second case is damaged")

    with pytest.raises(InputError, match="the second case is damaged"):
        write_volume_cache(breaks(), tmp_path / "cache", (6.0, 6.0, 6.0), "test")
    assert list(tmp_path.iterdir()) == [openkbp]
