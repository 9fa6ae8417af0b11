"""Training windows show the case as it is: geometry, labels, sides and guides stay in step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from soars.cascade.sides import mirrored_channels
from soars.errors import InputError
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, read_case, write_case
from soars_training.windows.augment import (
    Augmentation,
    Window,
    add_couch,
    augment_hu,
    random_window,
    sample,
)
from soars_training.windows.dataset import WindowDataset
from soars_training.windows.loaded import GUIDE_SUFFIX
from soars_training.windows.task import BranchTask

PAROTIDS = ("Parotid_L", "Parotid_R")
SIZE = (20, 24, 28)
MIRRORED = replace(Augmentation.none(), mirror=1.0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """One case: left parotid (20 HU) at high x, right parotid (60 HU) at low x, in water; and its guide."""
    hu = np.zeros(SIZE, np.int16)
    boxes = {"Parotid_R": ((8, 10, 4), (6, 6, 6)), "Parotid_L": ((8, 10, 18), (6, 6, 6))}
    masks = {}
    for organ, (start, shape) in boxes.items():
        where = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        hu[where] = {"Parotid_L": 20, "Parotid_R": 60}[organ]
        masks[organ] = (start, np.ones(shape, bool))
    case = CachedCase("a", hu, (0, 0, 0), (3, 3, 3), masks, frozenset(PAROTIDS))
    write_case(tmp_path / "a.npz", case)
    index = CacheIndex((3, 3, 3), "test", [IndexEntry("a", "a.npz", "train", PAROTIDS)])
    index.save(tmp_path)
    guide = np.stack([case.full_mask("Eye_L"), case.full_mask("Parotid_R")]).astype(np.uint8) * 255
    np.savez(tmp_path / f"a{GUIDE_SUFFIX}", anchors=np.array(["Eye_L", "Eye_R"]), probabilities=guide)
    return tmp_path


def _dataset(cache: Path, task: BranchTask, strength: Augmentation) -> WindowDataset:
    return WindowDataset(
        cache,
        task,
        (16, 16, 24),
        CacheIndex.load(cache).of_split("train"),
        seed=1,
        strength=strength,
        guide_folder=cache,
    )


def test_a_case_comes_back_as_written(cache: Path) -> None:
    case = read_case(cache / "a.npz")
    assert case.annotated == frozenset(PAROTIDS)
    assert case.full_mask("Parotid_L").sum() == 216
    assert case.full_mask("Parotid_L")[8, 10, 18] and not case.full_mask("Parotid_L")[8, 10, 17]
    np.testing.assert_array_equal(np.unique(case.label_map(PAROTIDS)), [0, 1, 2])


def test_an_organ_that_was_drawn_on_some_slices_only_is_no_label(cache: Path) -> None:
    """The cascade holds it for unknown; a label there would be all that the loss hears of it."""
    case = read_case(cache / "a.npz")
    drawn = {"Parotid_L": case.full_mask("Parotid_L").any((1, 2))}
    partly = replace(case, annotated=frozenset({"Parotid_R"}), slices=drawn)
    np.testing.assert_array_equal(np.unique(partly.label_map(PAROTIDS)), [0, 2])
    np.testing.assert_array_equal(partly.label_map(PAROTIDS) == 2, case.full_mask("Parotid_R"))


def test_a_damaged_case_is_named(cache: Path) -> None:
    data = (cache / "a.npz").read_bytes()
    (cache / "a.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.npz: damaged training case"):
        read_case(cache / "a.npz")


def test_a_folder_without_cache_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="soars-train prepare"):
        CacheIndex.load(tmp_path)


def test_a_plain_window_is_the_volume_itself() -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, (1, 30, 31, 32)).astype(np.int16)
    window = random_window(rng, (5, 7, 9), np.array([10.0, 11.0, 12.0]), Augmentation.none())
    found = sample(volume, window, outside=-1000, nearest=False)[0].numpy()
    np.testing.assert_allclose(found, volume[0, 8:13, 8:15, 8:17], atol=0.05)


def test_outside_the_scan_is_air() -> None:
    window = random_window(
        np.random.default_rng(0), (3, 3, 3), np.array([0.0, 0.0, 0.0]), Augmentation.none()
    )
    found = sample(np.zeros((1, 5, 5, 5), np.int16), window, outside=-1000, nearest=False)[0].numpy()
    assert found[0, 0, 0] == -1000 and found[2, 2, 2] == 0


def test_a_ramp_stays_a_ramp_under_rotation_and_scaling() -> None:
    z, y, x = np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij")
    ramps = np.stack([z, y, x]).astype(np.float32)
    centre = np.array([20.0, 19.0, 21.0])
    window = random_window(np.random.default_rng(3), (9, 9, 9), centre, Augmentation(mirror=1.0))
    found = sample(ramps, window, outside=0, nearest=False).numpy()
    offsets = np.stack(np.meshgrid(*[np.arange(9.0) - 4] * 3, indexing="ij"))
    expected = np.einsum("ij,jzyx->izyx", window.matrix, offsets) + centre[:, None, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_mirrored_windows_keep_left_and_right_apart(cache: Path) -> None:
    data = _dataset(cache, BranchTask("mid_level", PAROTIDS, ("ct",)), MIRRORED)
    drawn = data.draw(np.random.default_rng(0))
    ct, labels = drawn.inputs[0].numpy(), drawn.target.numpy()
    assert (labels == 1).any() and (labels == 2).any()
    # After mirroring the organ on the left is the one that was on the right, and must be called left.
    assert np.argwhere(labels == 1)[:, 2].mean() > np.argwhere(labels == 2)[:, 2].mean()
    hu = (ct + 1) * 750 - 500
    assert np.median(hu[labels == 1]) == pytest.approx(60, abs=1)
    assert np.median(hu[labels == 2]) == pytest.approx(20, abs=1)


def test_mirroring_is_off_when_an_organ_lacks_its_partner(cache: Path) -> None:
    data = _dataset(cache, BranchTask("mid_level", ("Parotid_L",), ("ct",)), Augmentation(mirror=1.0))
    assert data.strength.mirror == 0


def test_the_guide_is_mirrored_with_the_window(cache: Path) -> None:
    task = BranchTask("mid_level", PAROTIDS, ("ct", "anchor"), ("Eye_L", "Eye_R"))
    drawn = _dataset(cache, task, MIRRORED).draw(np.random.default_rng(0))
    left, right = drawn.inputs[1].numpy(), drawn.inputs[2].numpy()
    organ = drawn.target.numpy() == 1
    # The target is the nearest voxel, the guide is interpolated. The window may lie half a voxel off on every axis:
    # then a cube of six voxels holds five full layers and half a one along each, (5.5 / 6)^3 = 0.77 on average.
    assert not right.any() and left[organ].mean() > 0.76 and left[~organ].mean() < 0.05


def test_a_missing_guide_says_what_to_run(cache: Path) -> None:
    (cache / f"a{GUIDE_SUFFIX}").unlink()
    with pytest.raises(InputError, match="soars-train guide"):
        _dataset(
            cache,
            BranchTask("mid_level", PAROTIDS, ("ct", "anchor"), ("Eye_L", "Eye_R")),
            Augmentation.none(),
        )


def test_heat_maps_peak_at_the_organs_centre_with_the_papers_width(tmp_path: Path) -> None:
    masks = {"Pituitary": ((10, 12, 14), np.ones((1, 1, 1), bool))}
    case = CachedCase(
        "p", np.zeros((30, 30, 30), np.int16), (0, 0, 0), (3, 3, 3), masks, frozenset({"Pituitary"})
    )
    write_case(tmp_path / "p.npz", case)
    CacheIndex((3, 3, 3), "test", [IndexEntry("p", "p.npz", "train", ("Pituitary",))]).save(tmp_path)
    data = _dataset(tmp_path, BranchTask("detection", ("Pituitary",), ("ct",)), Augmentation.none())
    window = random_window(
        np.random.default_rng(0), (21, 21, 21), np.array([10.0, 12.0, 14.0]), Augmentation.none()
    )
    heat = data.cut(data.cases[0], window, np.random.default_rng(0)).target[0].numpy()
    assert np.unravel_index(heat.argmax(), heat.shape) == (10, 10, 10)
    assert heat[10, 10, 10] == pytest.approx(1)
    assert heat[10, 10, 14] == pytest.approx(np.exp(-(12.0**2) / (2 * 8.0**2)), rel=1e-5)


def test_a_volume_of_interest_without_an_organ_of_the_task_is_left_out(tmp_path: Path) -> None:
    """Contours are known of the whole patient, also of organs that a volume does not reach."""
    organs, ct = ("Lens_L", "Pituitary"), np.zeros((8, 8, 8), np.int16)
    index = CacheIndex((1, 1, 1), "test")
    for organ in organs:
        masks = {organ: ((3, 3, 3), np.ones((2, 2, 2), bool))}
        write_case(
            tmp_path / f"{organ}.npz",
            CachedCase(f"p.{organ}", ct, (0, 0, 0), (1, 1, 1), masks, frozenset(organs)),
        )
        index.cases.append(IndexEntry(f"p.{organ}", f"{organ}.npz", "train", organs, organ))
    index.save(tmp_path)
    for asked in (organs, ("Pituitary",)):
        data = _dataset(tmp_path, BranchTask("small_hard", asked, ("ct",)), Augmentation.none())
        assert sorted(case.group for case in data.cases) == sorted(asked)


def test_channels_of_mirror_images() -> None:
    assert mirrored_channels(("Eye_L", "Brainstem", "Eye_R", "Lens_L")) == [2, 1, 0, 3]


def test_cases_that_annotate_nothing_of_the_branch_are_refused(cache: Path) -> None:
    with pytest.raises(InputError, match="annotates any of Brainstem"):
        _dataset(cache, BranchTask("anchor", ("Brainstem",), ("ct",)), Augmentation.none())


def test_a_turned_window_is_rigid_in_millimetres() -> None:
    # Slices of 4 mm, pixels of 1 mm: the offsets, in mm, of a turned window's voxels keep their lengths and angles.
    spacing = np.array([4.0, 1.0, 1.0])
    turned = replace(Augmentation.none(), rotation_degrees=30.0)
    window = random_window(np.random.default_rng(5), (9, 9, 9), np.zeros(3), turned, spacing)
    in_mm = np.diag(spacing) @ window.matrix @ np.diag(1 / spacing)
    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)
    assert not np.allclose(window.matrix, np.eye(3), atol=0.05)


def test_a_window_is_known_by_its_number(cache: Path) -> None:
    task = BranchTask("mid_level", PAROTIDS, ("ct",))
    one, other = (_dataset(cache, task, Augmentation()) for _ in range(2))
    late = one[1000]
    for n in (3, 1000):  # drawn in another order, by another data set
        assert torch.equal(one[n].inputs, other[n].inputs) and torch.equal(one[n].target, other[n].target)
    assert torch.equal(late.inputs, other[1000].inputs)
    assert not torch.equal(one[3].inputs, one[4].inputs)


def test_each_window_of_the_ct_is_a_channel_of_the_same_voxels(cache: Path) -> None:
    task = BranchTask("mid_level", PAROTIDS, ("ct",), windows_hu=((-500, 1000), (-160, 240)))
    wide, narrow = _dataset(cache, task, Augmentation.none())[0].inputs.numpy()
    # -1..1 stands for 1500 HU in the one and 400 HU in the other.
    np.testing.assert_allclose((wide + 1) * 750 - 500, (narrow + 1) * 200 - 160, atol=1e-3)


def test_a_rarely_annotated_organ_is_seen_as_often_as_the_others(tmp_path: Path) -> None:
    entries = []
    for n in range(20):
        organs = ("Brainstem", "Esophagus") if n == 0 else ("Brainstem",)
        masks = {organ: ((4 + 8 * k, 10, 10), np.ones((2, 2, 2), bool)) for k, organ in enumerate(organs)}
        case = CachedCase(f"c{n}", np.zeros(SIZE, np.int16), (0, 0, 0), (3, 3, 3), masks, frozenset(organs))
        write_case(tmp_path / f"c{n}.npz", case)
        entries.append(IndexEntry(f"c{n}", f"c{n}.npz", "train", organs))
    CacheIndex((3, 3, 3), "test", entries).save(tmp_path)
    data = WindowDataset(
        tmp_path, BranchTask("anchor", ("Brainstem", "Esophagus"), ("ct",)), (8, 8, 8), entries,
        seed=1, strength=Augmentation.none(), foreground=1.0,
    )  # fmt: skip
    share = np.mean([bool(data[n].known[1]) for n in range(400)])
    # Half of the windows are drawn for the oesophagus, all from its one case; of the other half 1 in 20: 0.525.
    assert share == pytest.approx(0.525, abs=0.08)


def test_a_couch_stands_in_the_air_behind_the_patient_alone() -> None:
    hu = torch.full((1, 8, 20, 8), -1000.0)
    hu[:, :, :10] = 30.0
    window = Window((8, 20, 8), np.array([3.5, 9.5, 3.5]), np.eye(3), False)
    for seed in range(10):
        seen = add_couch(
            np.random.default_rng(seed), hu, window, 9.0, replace(Augmentation.none(), couch=1.0)
        )
        assert torch.equal(seen[:, :, :10], hu[:, :, :10])
        rows = (seen[0, 0, :, 0] > -1000).nonzero()[:, 0]
        assert rows.max() >= 10 and rows.max() < 10 + 2 + 5  # at most 2 voxels away and 5 thick


def test_beyond_the_end_of_a_shorter_scan_there_is_air_and_no_organ(cache: Path) -> None:
    data = _dataset(cache, BranchTask("mid_level", PAROTIDS, ("ct",)), replace(Augmentation.none(), cut=1.0))
    for n in range(20):
        drawn = data[n]
        gone = (drawn.inputs[0] == -1).all(dim=2).all(dim=1)
        assert gone.any() and not gone.all()
        assert not drawn.target[gone].any()


def test_detail_is_added_and_taken_away_but_flat_tissue_and_air_stay() -> None:
    hu = torch.full((1, 9, 9, 9), 40.0)
    hu[:, :, :3] = -1000.0
    hu[0, 6, 6, 6] = 140.0
    sharper = replace(Augmentation.none(), sharpness=1.0)
    peaks = []
    for seed in range(8):
        seen = augment_hu(np.random.default_rng(seed), hu, sharper)
        assert torch.equal(seen[:, :, :3], hu[:, :, :3])
        assert seen[0, 2, 6, 2].item() == pytest.approx(40.0, abs=1e-3)
        peaks.append(seen[0, 6, 6, 6].item())
    # (1 2 1)/4 along three axes keeps 1/8 of a single voxel: 100 HU more or less by up to 87.5.
    assert min(peaks) < 140 < max(peaks) and max(abs(p - 140) for p in peaks) <= 87.6
