"""UaNet's boxes against brute force, and its losses against their formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from boxes_ct import ORGANS
from torch.nn import functional

from soars.systems.uanet import boxes
from soars_training.systems.uanet.losses import (
    anchor_weights,
    class_loss,
    code_loss,
    focal_loss,
    mask_loss,
)
from soars_training.systems.uanet.system import UaNetTraining


def _random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Boxes of whole voxels in an image of 24 voxels."""
    low = rng.integers(0, 14, (n, 3))
    side = rng.integers(1, 10, (n, 3))
    return np.concatenate((low + (side - 1) / 2, side), 1)


def _voxels(box: np.ndarray) -> np.ndarray:
    mask = np.zeros((24, 24, 24), bool)
    low = np.rint(box[:3] - (box[3:] - 1) / 2).astype(int)
    mask[tuple(slice(a, a + int(n)) for a, n in zip(low, box[3:], strict=True))] = True
    return mask


# --- boxes ------------------------------------------------------------------------------------------------------------


def test_codes_lead_there_and_back() -> None:
    rng = np.random.default_rng(0)
    anchors, targets = _random_boxes(rng, 50), _random_boxes(rng, 50)
    codes = boxes.encode(targets, anchors)
    np.testing.assert_allclose(boxes.decode(codes, anchors), targets, rtol=1e-6)
    # By hand: 2 of 8 voxels along is 10 x 0.25, twice as wide is 5 ln 2.
    one = boxes.encode(np.array([[6.0, 4, 4, 8, 16, 8]]), np.array([[4.0, 4, 4, 8, 8, 8]]))
    np.testing.assert_allclose(one, [[2.5, 0, 0, 0, 5 * math.log(2), 0]], atol=1e-12)


def test_overlap_is_that_of_the_voxels() -> None:
    rng = np.random.default_rng(1)
    some, others = _random_boxes(rng, 25), _random_boxes(rng, 20)
    found = boxes.overlap(some, others)
    for i, j in itertools.product(range(25), range(20)):
        a, b = _voxels(some[i]), _voxels(others[j])
        assert found[i, j] == pytest.approx((a & b).sum() / (a | b).sum(), abs=1e-9)
    assert (found > 0).sum() > 50
    np.testing.assert_allclose(np.diag(boxes.overlap(some, some)), 1)
    # Mirrored and shifted boxes overlap as much.
    moved = [np.concatenate((100 - b[:, :3], b[:, 3:]), 1) for b in (some, others)]
    np.testing.assert_allclose(boxes.overlap(*moved), found, atol=1e-12)


def test_suppression_keeps_what_brute_force_keeps() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        some = _random_boxes(rng, 40)
        scores = rng.permutation(40) / 40
        kept: list[int] = []
        for i in sorted(range(40), key=lambda i: -scores[i]):
            pairs = [(_voxels(some[i]), _voxels(some[j])) for j in kept]
            if all((a & b).sum() / (a | b).sum() <= 0.3 for a, b in pairs):
                kept.append(i)
        assert boxes.suppress(some, scores, 0.3).tolist() == kept
    assert boxes.suppress(np.zeros((0, 6)), np.zeros(0), 0.5).tolist() == []


def test_a_box_fits_its_mask_and_is_clipped_to_the_image() -> None:
    mask = np.zeros((10, 12, 14), bool)
    mask[2:5, 3:9, 13:] = True
    box = boxes.box_of_mask(mask)
    assert box is not None and box.tolist() == [3, 5.5, 13, 3, 6, 1]
    wider = boxes.box_of_mask(mask, (4, 8, 8))
    assert wider is not None and wider[3:].tolist() == [7, 14, 9]
    assert boxes.box_of_mask(np.zeros((2, 2, 2), bool)) is None
    clipped = boxes.clip(np.array([wider, [50.0, 5, 5, 3, 3, 3]]), mask.shape)
    # From -0.5 to 6.5, -0.5 to 11.5, 8.5 to 13.5; what lies outside becomes a voxel at the border.
    np.testing.assert_allclose(clipped[0], [3, 5.5, 11, 7, 12, 5])
    np.testing.assert_allclose(clipped[1], [9, 5, 5, 1, 3, 3])


def test_there_are_twelve_anchors_at_every_eighth_voxel() -> None:
    paper = UaNetTraining().options("paper", ORGANS).architecture()
    anchors = boxes.make_anchors((20, 30, 30), paper.bases, paper.shapes)
    assert paper.anchors == 12 and anchors.shape == (20 * 30 * 30 * 12, 6)
    assert anchors[0, :3].tolist() == [3.5] * 3
    assert anchors[12, :3].tolist() == [3.5, 3.5, 11.5]
    expected = {(b, b * h, b * w) for b in (7, 15, 30, 50) for h, w in ((2.5, 2.5), (2.5, 5), (5, 2.5))}
    assert {tuple(size) for size in anchors[:12, 3:].tolist()} == expected


@pytest.mark.parametrize("size", [0.5, 1, 7.9, 8, 8.1, 23])
def test_a_box_covers_its_voxels_on_the_shared_features(size: float) -> None:
    for centre in np.linspace(0, 63, 40):
        low, high = centre - size / 2 + 0.5, centre + size / 2 + 0.5
        (found, *_) = boxes.on_map(np.array([centre, 20, 20, size, 4, 4]), (8, 8, 8))
        assert 0 <= found.start < found.stop <= 8
        assert found.start * 8 <= max(low, 0) and (found.stop * 8 >= min(high, 64) or found.stop == 8)
        assert found.stop - found.start <= math.ceil(size / 8) + 1


# --- losses -----------------------------------------------------------------------------------------------------------


def test_the_focal_loss_is_its_formula() -> None:
    logits = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    target, weight = torch.tensor([1, 0, 0]), torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    p = [1 / (1 + math.exp(-v)) for v in (0.3, -1.2)]
    expected = ((1 - p[0]) ** 2 * -math.log(p[0]) + 0.5 * p[1] ** 2 * -math.log(1 - p[1])) / 1.5
    loss = focal_loss(logits, target, weight)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-9)
    loss.backward()
    # With the factor held constant, the gradient is w (1 - p_t)^2 (p - y) / sum(w).
    by_hand = [(1 - p[0]) ** 2 * (p[0] - 1) / 1.5, 0.5 * p[1] ** 2 * p[1] / 1.5, 0.0]
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), by_hand, rtol=1e-9)


def test_negatives_together_weigh_as_much_as_positives() -> None:
    weights = anchor_weights(torch.tensor([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, -1]))
    assert weights.tolist() == [1, 1, *([0.25] * 8), 0]
    assert anchor_weights(torch.tensor([0, 0, 0, 0, -1])).tolist() == [0.25] * 4 + [0]


def test_codes_are_compared_by_smooth_l1() -> None:
    found = torch.tensor([[0.5, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, -3.0]])
    # 0.5 x 0.25 = 0.125; 2 - 0.5 = 1.5; 3 - 0.5 = 2.5; each a mean over two boxes.
    assert float(code_loss(found, torch.zeros(2, 6))) == pytest.approx((0.125 + 1.5 + 2.5) / 2)
    assert float(code_loss(torch.zeros(0, 6), torch.zeros(0, 6))) == 0


def test_rare_classes_weigh_more() -> None:
    logits = torch.tensor([[0.2, 1.0, -1.0], [0.7, 0.1, 0.3], [0.5, 0.5, 0.5], [0.0, 0.0, 2.0]])
    target = torch.tensor([0, 0, 0, 2])
    # N / n = 4/3, 4 (none: taken as one), 4: scaled to sum to 1.
    weight = np.array([4 / 3, 4, 4]) / (4 / 3 + 4 + 4)
    each = functional.cross_entropy(logits, target, reduction="none").numpy()
    expected = (each * weight[target]).sum() / weight[target].sum()
    assert float(class_loss(logits, target)) == pytest.approx(expected, rel=1e-5)


def test_the_mask_loss_is_one_minus_dice() -> None:
    mask = torch.tensor([1.0, 1, 0, 0])
    # Half of the organ and nothing else: Dice 2 x 1 / (1 + 2).
    assert float(mask_loss(torch.tensor([1.0, 0, 0, 0]), mask)) == pytest.approx(1 - 2 / 3, abs=1e-4)
    assert float(mask_loss(mask, mask)) == pytest.approx(0, abs=1e-4)
    assert float(mask_loss(1 - mask, mask)) == pytest.approx(1, abs=1e-4)
