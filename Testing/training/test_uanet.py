"""UaNet: boxes against brute force, losses against their formulas, what is negative and what unknown, and learning."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from boxes_ct import ORGANS, SPACING_MM, box_cache, box_case
from torch.nn import functional

from soars.bundle.store import load_bundle
from soars.ct.images import CtScan
from soars.errors import BundleError
from soars.metrics import dice
from soars.networks.region_net import RegionNet
from soars.networks.regions import RegionArchitecture
from soars.run.segment import SegmentOptions, segment
from soars.systems.uanet import boxes
from soars.systems.uanet.detection import padded, proposals
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase
from soars_training.systems.uanet.data import CropDataset
from soars_training.systems.uanet.elastic import Bend, affine, control_points
from soars_training.systems.uanet.losses import (
    anchor_weights,
    class_loss,
    code_loss,
    focal_loss,
    mask_loss,
)
from soars_training.systems.uanet.model import UaNetModel
from soars_training.systems.uanet.system import UaNetTraining
from soars_training.systems.uanet.targets import UnknownRegions, anchor_targets, sample_boxes
from soars_training.windows.augment import Augmentation, Window

TINY = RegionArchitecture(
    2, (8, 8, 8, 8, 8), 16, 16, 2, (16, 16), 8, (6.0, 12.0), ((1.0, 1.0, 1.0), (1.0, 1.0, 2.0))
)
NOTHING_UNKNOWN = UnknownRegions(np.eye(3, 4), np.zeros((0, 2, 3)))


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


# --- positives, negatives, unknowns -----------------------------------------------------------------------------------


def test_anchors_are_positive_negative_or_neither() -> None:
    anchors = np.array(
        [[10.0, 10, 10, 8, 8, 8], [10, 10, 13, 8, 8, 8], [10, 10, 16, 8, 8, 8], [40, 40, 40, 8, 8, 8]]
    )
    truth = np.array([[10.0, 10, 10.5, 8, 8, 8], [40, 40, 45, 4, 4, 4]])
    shared = boxes.overlap(anchors, truth)
    assert shared[0, 0] > 0.5 and shared[1, 0] > 0.5 and 0.1 < shared[2, 0] < 0.5 and 0 < shared[3, 1] < 0.1
    labels, codes = anchor_targets(anchors, truth, NOTHING_UNKNOWN, np.random.default_rng(0))
    # The last anchor overlaps its box by less than a tenth, but no other overlaps it more.
    assert labels.tolist() == [1, 1, -1, 1]
    np.testing.assert_allclose(
        boxes.decode(codes[[0, 1, 3]], anchors[[0, 1, 3]]), truth[[0, 0, 1]], rtol=1e-5
    )
    alone, _ = anchor_targets(anchors, truth[:1], NOTHING_UNKNOWN, np.random.default_rng(0))
    assert alone.tolist() == [1, 1, -1, 0]
    none, _ = anchor_targets(anchors, np.zeros((0, 6)), NOTHING_UNKNOWN, np.random.default_rng(0))
    assert none.tolist() == [0] * 4


def test_where_an_unknown_organ_may_be_nothing_is_background() -> None:
    anchors = np.array([[10.0, 10, 10, 8, 8, 8], [40, 40, 40, 8, 8, 8]])
    shifted = np.eye(3, 4)
    shifted[:, 3] = 100  # the sample begins at voxel 100 of its case
    unknown = UnknownRegions(shifted, np.array([[[105.0] * 3, [115.0] * 3]]))
    labels, _ = anchor_targets(anchors, np.zeros((0, 6)), unknown, np.random.default_rng(0))
    assert labels.tolist() == [-1, 0]
    positions, owners = sample_boxes(anchors, np.zeros((0, 6)), unknown, 8, np.random.default_rng(0))
    assert (positions.tolist(), owners.tolist()) == ([1], [-1])


def test_the_box_head_sees_at_most_four_boxes_of_an_organ() -> None:
    truth = np.array([[20.0, 20, 20, 8, 8, 8]])
    near = np.repeat(truth, 10, 0) + np.linspace(0, 0.5, 10)[:, None] * np.array([1, 0, 0, 0, 0, 0])
    half = truth + np.array([[4.0, 0, 0, 0, 0, 0]])
    far = np.repeat(truth, 30, 0) + 40
    positions, owners = sample_boxes(
        np.concatenate((near, half, far)), truth, NOTHING_UNKNOWN, 12, np.random.default_rng(0)
    )
    assert owners.tolist() == [0] * 4 + [-1] * 8
    assert (positions[:4] < 10).all() and (positions[4:] > 10).all() and len(set(positions)) == 12


def test_a_case_that_lacks_an_organ_marks_where_it_may_be() -> None:
    """Six cases teach where the parotid lies from the brainstem; in the seventh nobody drew it."""
    block = np.ones((6, 6, 6), bool)
    masks = {"Brainstem": ((20, 20, 20), block), "Parotid_L": ((20, 20, 40), block)}
    air = np.full((64, 64, 64), -1000, np.int16)
    full = [CachedCase(f"c{n}", air, (0, 0, 0), SPACING_MM, masks, frozenset(ORGANS)) for n in range(6)]
    partly = CachedCase(
        "p", air, (0, 0, 0), SPACING_MM, {"Brainstem": masks["Brainstem"]}, frozenset({"Brainstem"})
    )
    data = _dataset([*full, partly])
    window = Window((64, 64, 64), np.array([31.5] * 3), np.eye(3), False)
    known, lacking = (data.cut(case, window, np.random.default_rng(0)) for case in (full[0], partly))
    assert known.organs.tolist() == [0, 1] and lacking.organs.tolist() == [0]
    assert known.boxes[1].tolist() == [22.5, 22.5, 42.5, 7, 8, 9]
    at_parotid = np.linalg.norm(data.anchors[:, :3] - [22.5, 22.5, 42.5], axis=1) < 6
    elsewhere = np.linalg.norm(data.anchors[:, :3] - [58, 58, 5], axis=1) < 6
    assert (lacking.labels.numpy()[at_parotid] != 0).all() and (known.labels.numpy()[at_parotid] == 1).any()
    assert (lacking.labels.numpy()[elsewhere] == 0).all() and elsewhere.any()


def test_a_mirrored_crop_names_the_other_side() -> None:
    masks = {"Parotid_L": ((4, 4, 10), np.ones((4, 4, 4), bool))}
    case = CachedCase(
        "c",
        np.zeros((16, 16, 16), np.int16),
        (0, 0, 0),
        (3, 3, 3),
        masks,
        frozenset({"Parotid_L", "Parotid_R"}),
    )
    data = _dataset([case], ("Parotid_L", "Parotid_R"), (16, 16, 16))
    window = Window((16, 16, 16), np.array([7.5] * 3), np.diag([1.0, 1.0, -1.0]), True)
    sample = data.cut(case, window, np.random.default_rng(0))
    assert sample.organs.tolist() == [1]
    assert bool(sample.masks[0, 4:8, 4:8, 2:6].all()) and int(sample.masks.sum()) == 64


def test_bending_moves_ct_and_mask_alike_and_by_a_few_voxels() -> None:
    """Uniform numbers (sd 3^-0.5) under a Gaussian of 30 voxels: sd 1000 / (3^0.5 x 2 pi^0.5 x 30) = 5.4 voxels."""
    moved = []
    y, x = torch.meshgrid(torch.arange(160) - 80, torch.arange(160) - 80, indexing="ij")
    ball = (y**2 + x**2 < 900).expand(1, 40, 160, 160)
    rows = y.float().expand(1, 40, 160, 160)
    for seed in range(10):
        bend = Bend(np.random.default_rng(seed), (40, 160, 160))
        moved.append(float(bend.apply(rows, outside=-1000, nearest=False)[0, 20, 80, 80]))
        sharp = bend.apply(ball, outside=0, nearest=True) > 0.5
        soft = bend.apply(ball, outside=0, nearest=False) > 0.5
        assert 0 < int((sharp ^ soft).sum()) < 0.1 * int(sharp.sum())
    assert 2 < float(np.std(moved)) < 10
    still = Bend(np.random.default_rng(0), (4, 8, 8))
    again = Bend(np.random.default_rng(0), (4, 8, 8))
    volume = torch.rand(1, 4, 8, 8)
    assert torch.equal(
        still.apply(volume, outside=0, nearest=False), again.apply(volume, outside=0, nearest=False)
    )


def test_an_affine_map_takes_three_points_where_they_belong() -> None:
    points = control_points((31, 61))
    assert points.tolist() == [
        [15 + 31 / 3, 30 + 31 / 3],
        [15 + 31 / 3, 30 - 31 / 3],
        [15 - 31 / 3, 30 - 31 / 3],
    ]
    moved = points + np.random.default_rng(0).uniform(-2, 2, (3, 2))
    np.testing.assert_allclose(affine(points, points, moved), moved, rtol=1e-5)
    # What lies midway between two points stays midway, and where nothing moves all else does not either.
    np.testing.assert_allclose(affine(points[:2].mean(0), points, moved), moved[:2].mean(0), rtol=1e-5)
    somewhere = np.random.default_rng(1).uniform(0, 30, (4, 5, 2))
    np.testing.assert_allclose(affine(somewhere, points, points), somewhere, rtol=1e-5)


def _dataset(
    cases: list[CachedCase], organs: tuple[str, ...] = ORGANS, crop: tuple[int, int, int] = (64, 64, 64)
) -> CropDataset:
    return CropDataset(
        cases, organs, TINY, crop=crop, margin=(1, 2, 3), window_hu=(-500, 1000),
        strength=Augmentation.none(), seed=1,
    )  # fmt: skip


# --- network and system -----------------------------------------------------------------------------------------------


def test_the_networks_parts_have_the_authors_sizes() -> None:
    paper = UaNetTraining().options("paper", tuple(f"organ{n}" for n in range(28)))
    network = RegionNet(paper.architecture()).eval()
    with torch.no_grad():
        features = network.encode(torch.zeros(1, 1, 32, 48, 16))
        logits, deltas = network.propose(features.shared)
        drawn = network.draw(features, (slice(0, 2), slice(1, 4), slice(1, 2)), 27)
    assert [tuple(f.shape[1:]) for f in features] == [
        (1, 32, 48, 16), (32, 16, 24, 8), (64, 8, 12, 4), (128, 4, 6, 2),
    ]  # fmt: skip
    assert logits.shape == (4 * 6 * 2 * 12,) and deltas.shape == (4 * 6 * 2 * 12, 6)
    first = network.dense[0]
    assert isinstance(first, torch.nn.Linear) and (first.in_features, first.out_features) == (27_648, 512)
    assert (network.box_class.out_features, network.box_deltas.out_features) == (29, 29 * 6)
    assert drawn.shape == (16, 24, 8)


def test_pooling_takes_the_largest_value_of_each_part_of_a_box() -> None:
    """Loops over voxels: of n along an axis, part i of two reaches from floor(i n / 2) to ceil((i + 1) n / 2)."""
    network, shared = (
        RegionNet(TINY),
        torch.randn((1, 16, 5, 7, 6), generator=torch.Generator().manual_seed(2)),
    )
    box = (slice(1, 4), slice(2, 7), slice(5, 6))
    seen: list[torch.Tensor] = []
    network.dense.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        scores, deltas = network.classify(shared, [box, (slice(0, 1),) * 3])
    assert scores.shape == (2, 3) and deltas.shape == (2, 3, 6)
    inside = shared[0].numpy()[(slice(None), *box)]
    expected = []
    for channel in inside:
        for part in itertools.product(range(2), repeat=3):
            ends = [(i * n // 2, -(-(i + 1) * n // 2)) for i, n in zip(part, channel.shape, strict=True)]
            voxels = itertools.product(*(range(a, b) for a, b in ends))
            expected.append(max(float(channel[voxel]) for voxel in voxels))
    np.testing.assert_array_equal(seen[0][0].numpy(), np.array(expected, np.float32))
    np.testing.assert_array_equal(seen[0][1].numpy(), np.repeat(shared[0, :, 0, 0, 0].numpy(), 8))


def test_a_logit_belongs_to_its_anchor() -> None:
    """Only one anchor of one voxel is above one half, and its box is where that anchor is."""
    network = RegionNet(TINY)
    with torch.no_grad():
        for head in (network.objectness, network.anchor_deltas):
            head.weight.zero_()
            assert head.bias is not None
            head.bias.zero_()
        assert network.objectness.bias is not None and network.anchor_deltas.bias is not None
        network.objectness.bias.copy_(torch.tensor([-1.0, -1, 1, -1]))
        network.anchor_deltas.bias[2 * 6 + 5] = 5 * math.log(2)
        logits, codes = network.propose(torch.zeros(1, 16, 1, 1, 2))
    anchors = boxes.make_anchors((1, 1, 2), TINY.bases, TINY.shapes)
    found = proposals(logits.numpy(), codes.numpy(), anchors, (100, 100, 100))
    assert logits.tolist() == [-1, -1, 1, -1] * 2
    # Anchor 2 is a cube of 12 voxels about 3.5; twice as wide, and cut at the image's border.
    np.testing.assert_allclose(found[0], [4.5, 4.5, 7.5, 10, 10, 16], rtol=1e-5)


def test_heads_begin_when_it_is_their_turn() -> None:
    model = UaNetModel(TINY, boxes_from=0.4, masks_from=0.45, sampled=16, drawn=0, seed=1)
    case = CachedCase(
        "c", np.zeros((32, 32, 32), np.int16), (0, 0, 0), (3, 3, 3),
        {"Brainstem": ((8, 8, 8), np.ones((8, 8, 8), bool))}, frozenset(ORGANS),
    )  # fmt: skip
    data = _dataset([case], ORGANS, (32, 32, 32))
    batch = data.collate([data[0]])
    with torch.no_grad():
        assert model.net.box_class.bias is not None
        model.net.box_class.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))  # everything is the brainstem
    touched = []
    for step in (39, 40, 45):
        model.zero_grad(set_to_none=True)
        model.begin(step, 100)
        model.loss(batch, 0.0).backward()
        heads = (model.net.proposal, model.net.dense, model.net.mask[0])
        touched.append([next(head.parameters()).grad is not None for head in heads])
    assert touched == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_ct_is_padded_with_air_to_multiples_of_sixteen() -> None:
    ct = np.zeros((15, 16, 17), np.float32)
    found = padded(ct)
    assert found.shape == (16, 16, 32) and found[:15, :, :17].sum() == 0 and (found[15] == -1).all()


@pytest.mark.parametrize(
    "change",
    [{"classes": 0}, {"widths": [8, 8]}, {"bases": []}, {"shapes": [[1, 1]]}, {"pooled": "6"}, {"x": 1}],
)
def test_a_description_that_makes_no_network_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="architecture"):
        RegionArchitecture.from_dict(TINY.to_dict() | change)


def test_a_description_survives_the_manifest() -> None:
    paper = UaNetTraining().options("paper", ORGANS).architecture()
    assert RegionArchitecture.from_dict(json.loads(json.dumps(paper.to_dict()))) == paper


@pytest.mark.slow  # three heads learn one after the other: some seven seconds of one processor
def test_it_learns_a_case_and_draws_it_through_the_same_door(tmp_path: Path) -> None:
    """One case learned by heart: as a bundle, on the CT's own grid, through `segment`."""
    cache = box_cache(tmp_path / "cache", 1)
    still = json.dumps({f.name: 0.0 for f in fields(Augmentation)})
    tiny = [
        "crop=[32,32,32]", "widths=[8,8,16,16,16]", "fused=16", "hidden=16", "pooled=2", "dense=[16,16]", "mask=8",
        "bases=[8.0,12.0]", "shapes=[[1.0,1.0,1.0]]", "ema=0.9", "drawn=0", "boxes_from=0.05",
        "masks_from=0.08", "sampled=16", f"strength={still}",
    ]  # fmt: skip
    command = ["fit-system", "uanet", str(cache), str(tmp_path / "run"), "--steps", "150", "--device", "cpu"]
    given = ["--learning-rate", "0.01", "--threads", "1", *(f"--set={setting}" for setting in tiny)]
    assert main([*command, *given]) == 0
    exported = [
        "export",
        str(tmp_path / "mine"),
        str(tmp_path / "run"),
        "--description",
        "x",
        "--licence",
        "CC0-1.0",
    ]
    assert main(exported) == 0
    case = box_case(0)
    bundle = load_bundle(tmp_path / "mine")
    result = segment(CtScan(case.ct, Path("ct")), bundle, SegmentOptions(device="cpu", threads=1))
    assert result.engine.engine == "torch" and {s.system for s in result.sources.values()} == {"uanet"}
    for organ in ORGANS:
        assert dice(result.structures.crop(organ), case.structures.crop(organ)) > 0.8
