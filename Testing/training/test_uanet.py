"""UaNet: what is positive, what negative and what unknown, its network, and that it learns."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from boxes_ct import ORGANS, SPACING_MM, box_cache, box_case

from soars.bundle.store import load_bundle
from soars.ct.images import CtScan
from soars.errors import BundleError
from soars.metrics import dice
from soars.networks.region_net import Features, RegionNet, Slices
from soars.networks.regions import STRIDE, RegionArchitecture
from soars.phantom import organ_boxes
from soars.run.segment import SegmentOptions, segment
from soars.systems.uanet import boxes
from soars.systems.uanet.detection import Detection, find_organs, kept_boxes, padded, proposals, union
from soars.systems.uanet.system import UaNetSystem
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase
from soars_training.systems.loop_system import whole_masks
from soars_training.systems.uanet.data import CropDataset, _crop_of
from soars_training.systems.uanet.elastic import Bend, affine, control_points
from soars_training.systems.uanet.losses import mask_loss
from soars_training.systems.uanet.model import UaNetModel
from soars_training.systems.uanet.system import UaNetTraining
from soars_training.systems.uanet.targets import POSITIVE, UnknownRegions, anchor_targets, sample_boxes
from soars_training.windows.augment import Augmentation, Window, random_window, sample

TINY = RegionArchitecture(
    2, (8, 8, 8, 8, 8), 16, 16, 2, (16, 16), 8, (6.0, 12.0), ((1.0, 1.0, 1.0), (1.0, 1.0, 2.0))
)
NOTHING_UNKNOWN = UnknownRegions(np.eye(3, 4), np.zeros((0, 2, 3)))


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


def test_margins_let_organs_find_an_anchor() -> None:
    """The laptop's anchors on the organs of four patients, on its voxels of 3 mm."""
    options = UaNetTraining().options("laptop", ORGANS)
    found = []
    for margin in (options.margin, (3.0, 3.0, 3.0)):
        best: list[float] = []
        for seed in range(4):
            ends = np.array(list(organ_boxes(seed).values()))[..., ::-1] / 3  # (z, y, x) in voxels
            ends -= ends.min((0, 1)) - STRIDE
            truth = np.concatenate((ends.mean(1), ends[:, 1] - ends[:, 0] + np.array(margin)), 1)
            shape = np.ceil(ends.max((0, 1)) / STRIDE).astype(int) + 1
            anchors = boxes.make_anchors(shape, options.bases, options.shapes)
            best += boxes.overlap(truth, anchors).max(1).tolist()
        found.append((float(np.mean(np.array(best) >= POSITIVE)), float(np.mean(np.array(best) < 0.3))))
    (half, little), (half_of_3, little_of_3) = found
    assert half > 0.35 > half_of_3 and little < 0.1 < little_of_3


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


def test_an_organ_lies_in_a_crop_where_all_of_it_sampled_lies() -> None:
    """Turned, scaled, mirrored and moved, also beyond the crop: as its mask in the whole scan in the same window."""
    rng = np.random.default_rng(5)
    mask = rng.random((9, 5, 7)) < 0.6
    case = CachedCase(
        "c", np.zeros((40, 44, 48), np.int16), (0, 0, 0), (3, 3, 3), {"Brainstem": ((14, 20, 30), mask)},
        frozenset({"Brainstem"}),
    )  # fmt: skip
    whole = case.full_mask("Brainstem")[None].astype(np.uint8)
    seen = 0
    for _ in range(60):
        strength = replace(Augmentation(), mirror=0.5)
        window = random_window(rng, (16, 24, 32), rng.uniform((0, 0, 0), (40, 44, 48)), strength, (3, 3, 3))
        expected = sample(whole, window, outside=0.0, nearest=True)[0] > 0.5
        found = _crop_of(case, "Brainstem", window)
        assert torch.equal(torch.zeros_like(expected) if found is None else found, expected)
        seen += bool(expected.any())
    assert 10 < seen < 60


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


def test_boxes_of_one_size_are_drawn_together_as_one_by_one() -> None:
    """The last layer is 1 x 1 x 1: an organ's logit is its own row of weights times the 8 channels, and its bias."""
    network = RegionNet(TINY).eval()
    pair = [(slice(0, 2), slice(1, 2), slice(0, 3)), (slice(1, 3), slice(0, 1), slice(1, 4))]
    seen: list[torch.Tensor] = []
    network.mask[-1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        features = network.encode(torch.randn(1, 1, 32, 16, 32))
        together = network.draw_alike(features, pair, [1, 0])
        weight, bias = network.mask_class.weight[:, :, 0, 0, 0], network.mask_class.bias
        assert bias is not None
        for n, (box, organ) in enumerate(zip(pair, (1, 0), strict=True)):
            alone = network.draw(features, box, organ)
            expected = sum(weight[organ, c] * seen[-1][0, c] for c in range(8)) + bias[organ]
            assert together[n].shape == (16, 8, 24)
            np.testing.assert_allclose(alone, expected, atol=1e-5)
            np.testing.assert_allclose(together[n], alone, atol=1e-5)


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


def test_a_small_organ_is_proposed_beside_hundreds_of_sure_anchors_of_a_large_one() -> None:
    anchors = boxes.make_anchors((10, 10, 10), TINY.bases, TINY.shapes)
    at = anchors[:, :3]
    logits = np.where(
        (at < 48).all(1), 5.0, -5.0
    )  # 6 x 6 x 6 voxels of the shared features, four anchors at each
    small = int(np.flatnonzero((at == 67.5).all(1))[0])
    logits[small] = 0.5
    codes = boxes.encode(np.array([[24.0, 24, 24, 40, 40, 40]]), anchors)
    codes[small] = 0
    found = proposals(logits, codes, anchors, (80, 80, 80))
    assert int((logits > 1).sum()) == 864
    np.testing.assert_allclose(found, [[24, 24, 24, 40, 40, 40], anchors[small]])


@pytest.mark.parametrize(("every", "starts"), [(False, [24]), (True, [0, 24])])
def test_an_organ_is_drawn_in_its_best_box_or_in_all(
    every: bool, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two boxes of an organ at either end of a scan; the last one is surer to be the organ, the first one a box."""
    network = RegionNet(TINY).eval()
    logits = np.full((4, 2, 2, 4), -9.0)  # voxels of the shared features, and anchors
    logits[0, 0, 0, 0], logits[3, 0, 0, 0] = 2, 1

    def propose(_shared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(logits.reshape(-1)), torch.zeros(64, 6)

    def classify(_shared: torch.Tensor, given: list[Slices]) -> tuple[torch.Tensor, torch.Tensor]:
        assert [b[0] for b in given] == [slice(0, 1), slice(3, 4)]
        return torch.tensor([[0.0, 4, 0], [0.0, 6, 0]]), torch.zeros(2, 3, 6)

    def draw(_features: Features, box: Slices, _organ: int) -> torch.Tensor:
        return torch.full([8 * (s.stop - s.start) for s in box], 3.0)

    for name, replacement in (("propose", propose), ("classify", classify), ("draw", draw)):
        monkeypatch.setattr(network, name, replacement)
    ct = np.full((32, 16, 16), -1, np.float32)
    found = find_organs(network, TINY, ORGANS, ct, ORGANS, lambda _done, _of: None, every)
    ((organ, (start, values)),) = found.items()
    assert organ == ORGANS[0] and values.shape[1:] == (8, 8)
    drawn = np.zeros(32)
    drawn[start[0] : start[0] + len(values)] = values[:, 0, 0]
    expected = np.zeros(32)
    for first in starts:
        expected[first : first + 8] = 1 / (1 + math.exp(-3))
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_what_is_drawn_in_a_box_lies_where_the_organ_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows the truth, on a scan whose sides are no multiples of 16: all comes back, to the voxel."""
    network, rng = RegionNet(TINY).eval(), np.random.default_rng(4)
    shape = (21, 35, 50)
    ct = np.where(rng.random(shape) < 0.5, 0.5, -1).astype(np.float32)
    truth = np.zeros((2, *shape), bool)
    truth[0, 2:13, 20:35, 30:50] = ct[2:13, 20:35, 30:50] > 0  # as far as the scan reaches
    truth[1, 5:20, 3:9, 0:11] = ct[5:20, 3:9, 0:11] > 0
    wanted = np.stack([box for mask in truth if (box := boxes.box_of_mask(mask)) is not None])

    def propose(shared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        anchors = boxes.make_anchors(shared.shape[2:], TINY.bases, TINY.shapes)
        logits, codes = torch.full((len(anchors),), -9.0), torch.zeros(len(anchors), 6)
        for k, box in enumerate(wanted):
            best = int(boxes.overlap(box[None], anchors)[0].argmax())
            logits[best] = 2.0 - k
            codes[best] = torch.from_numpy(boxes.encode(box[None], anchors[best : best + 1])[0])
        return logits, codes

    def draw(features: Features, box: Slices, organ: int) -> torch.Tensor:
        """The bright voxels of the image, in the organ's own box."""
        low, high = boxes.ends(wanted[organ : organ + 1])
        inside = torch.zeros(features.image.shape[2:], dtype=torch.bool)
        inside[tuple(slice(round(a + 0.5), round(b + 0.5)) for a, b in zip(low[0], high[0], strict=True))] = (
            True
        )
        part = tuple(slice(STRIDE * s.start, STRIDE * s.stop) for s in box)
        return torch.where((features.image[0, 0] > 0) & inside, 5.0, -5.0)[part]

    monkeypatch.setattr(network, "propose", propose)
    monkeypatch.setattr(network, "classify", lambda *_: (torch.eye(3)[1:] * 9, torch.zeros(2, 3, 6)))
    monkeypatch.setattr(network, "draw", draw)
    masks = whole_masks(find_organs(network, TINY, ORGANS, ct, ORGANS, lambda _done, _of: None), shape)
    for organ, mask in zip(ORGANS, truth, strict=True):
        np.testing.assert_array_equal(masks[organ], mask)


def test_a_union_has_the_larger_probability() -> None:
    a = ((0, 0, 0), np.full((2, 2, 2), 0.4, np.float32))
    b = ((1, 1, 1), np.full((2, 2, 2), 0.7, np.float32))
    start, values = union([a, b])
    assert start == (0, 0, 0) and values.shape == (3, 3, 3)
    assert values[0, 0, 0] == np.float32(0.4) and values[1, 1, 1] == values[2, 2, 2] == np.float32(0.7)
    assert values[2, 0, 0] == 0 and np.count_nonzero(values) == 8 + 8 - 1
    beyond = ((3, 0, 0), np.zeros((0, 2, 2), np.float32))
    assert union([a, beyond])[1].shape == (2, 2, 2) and union([beyond])[1].size == 0


def test_boxes_that_a_better_one_overlaps_by_half_are_left_out() -> None:
    """Cubes of 10 voxels, 3 and 9 voxels apart: they share 7 of 13, which is more than half, and 1 of 19."""
    detections = [
        Detection(np.array([z, 0, 0, 10, 10, 10.0]), score) for z, score in ((0, 0.9), (3, 0.8), (9, 0.7))
    ]
    assert [box[0] for box in kept_boxes(detections, every=True)] == [0, 9]
    assert [box[0] for box in kept_boxes(detections, every=False)] == [0]


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


@pytest.mark.parametrize("every_organ", [False, True])
@pytest.mark.parametrize("detected", [False, True])
def test_the_mask_head_waits_for_detection_or_does_not(every_organ: bool, detected: bool) -> None:
    """The box head calls everything the brainstem, which is there, or the parotid, which is not."""
    model = UaNetModel(TINY, boxes_from=0, masks_from=0, sampled=16, drawn=0, seed=1, every_organ=every_organ)
    block = np.ones((8, 8, 8), bool)
    case = CachedCase(
        "c", np.zeros((32, 32, 32), np.int16), (0, 0, 0), (3, 3, 3), {"Brainstem": ((8, 8, 8), block)},
        frozenset(ORGANS),
    )  # fmt: skip
    data = _dataset([case], ORGANS, (32, 32, 32))
    with torch.no_grad():
        model.net.box_class.weight.zero_()
        assert model.net.box_class.bias is not None
        model.net.box_class.bias.copy_(torch.tensor([0.0, 9.0, 0.0] if detected else [0.0, 0.0, 9.0]))
    model.begin(0, 1)
    model.loss(data.collate([data[0]]), 0.0).backward()
    assert (model.net.mask_class.weight.grad is not None) == (detected or every_organ)


def test_the_logarithm_lets_a_small_organ_pull_as_hard_as_a_large_one() -> None:
    """Of N voxels n are the organ's and all have the probability p: phi = 2 p n / (p N + n). By the quotient rule its
    voxels' logits together have the gradient 2 n p (1 - p) / (p N + n) times 1 - phi / 2, for -log(phi) over phi."""
    p, whole = 0.02, 4096
    pulls = {}
    for inside in (4, 2048):
        mask = torch.arange(whole) < inside
        for logarithm in (False, True):
            logits = torch.full((whole,), math.log(p / (1 - p)), requires_grad=True)
            mask_loss(torch.sigmoid(logits), mask, logarithm).backward()
            assert logits.grad is not None
            pulls[inside, logarithm] = -float(logits.grad[mask].sum())
            phi = 2 * p * inside / (p * whole + inside)
            own = 2 * p * (1 - p) * inside / (p * whole + inside) * (1 - phi / 2)
            assert pulls[inside, logarithm] == pytest.approx(own / phi if logarithm else own, rel=1e-3)
    assert pulls[2048, False] > 10 * pulls[4, False] and pulls[4, True] > 0.9 * pulls[2048, True]


def test_the_logarithm_of_nothing_is_finite() -> None:
    """A box that holds none of the organ has no gradient, and one where the network is sure of nothing a finite one."""
    for mask, value in ((torch.zeros(8, dtype=torch.bool), 0.0), (torch.ones(8, dtype=torch.bool), -300.0)):
        logits = torch.full((8,), value, requires_grad=True)
        loss = mask.any() * mask_loss(torch.sigmoid(logits), mask, True)
        loss.backward()
        assert torch.isfinite(loss) and logits.grad is not None and bool((logits.grad == 0).all())
    near = torch.full((8,), 9.0)
    everything = torch.ones(8, dtype=torch.bool)
    plain, logarithm = (mask_loss(torch.sigmoid(near), everything, given) for given in (False, True))
    assert float(logarithm) == pytest.approx(float(plain), rel=1e-3)


def test_at_the_start_hardly_a_voxel_is_an_organs() -> None:
    torch.manual_seed(0)
    model = UaNetModel(TINY, boxes_from=0, masks_from=0, sampled=16, drawn=0, seed=1)
    with torch.no_grad():
        features = model.net.encode(torch.randn(1, 1, 32, 32, 32))
        logits, _ = model.net.propose(features.shared)
        drawn = model.net.draw(features, (slice(0, 2),) * 3, 1)
    assert float(torch.sigmoid(logits).mean()) < 0.1 and float(torch.sigmoid(drawn).mean()) < 0.1


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


def test_whether_the_dense_layers_normalise_is_named_only_where_they_do() -> None:
    """So bundles of the authors' network are what earlier versions wrote and read."""
    laptop = UaNetTraining().options("laptop", ORGANS).architecture()
    assert laptop.normalised and RegionArchitecture.from_dict(laptop.to_dict()) == laptop
    assert "normalised" not in TINY.to_dict()
    with pytest.raises(BundleError, match="true or false"):
        RegionArchitecture.from_dict(TINY.to_dict() | {"normalised": 1})


@pytest.mark.parametrize("normalised", [False, True])
def test_normalised_dense_layers_outlive_the_first_steps_of_adam(normalised: bool) -> None:
    """Adam moves each weight by about the learning rate, so a value by that times the sum of its inputs: 2e-3 times
    4096 inputs of 1.5 in the mean are 12, where a fresh layer's values are around 1."""
    torch.manual_seed(0)
    net = RegionNet(replace(TINY, fused=64, pooled=4, dense=(64, 64), normalised=normalised))
    optimiser = torch.optim.Adam(net.dense.parameters(), 2e-3)
    inputs = 1.5 + torch.rand(48, 4096)
    for _ in range(20):
        optimiser.zero_grad()
        net.dense(inputs).sum().backward()
        optimiser.step()
    alive = int((net.dense(inputs) > 0).any(0).sum())
    assert alive >= 16 if normalised else alive == 0


def test_a_run_that_draws_every_box_says_so_to_its_bundle() -> None:
    options = UaNetTraining().options("laptop", ORGANS)
    assert "every_box" not in UaNetTraining().settings(options, SPACING_MM)
    every = UaNetTraining().settings(replace(options, every_box=True), SPACING_MM)
    assert every["every_box"] is True and set(every) >= set(UaNetSystem.setting_keys)


@pytest.mark.slow  # three heads learn one after the other: some ten seconds of one processor
def test_it_learns_a_case_and_draws_it_through_the_same_door(tmp_path: Path) -> None:
    """One case learned by heart: as a bundle, on the CT's own grid, through `segment`."""
    cache = box_cache(tmp_path / "cache", 1)
    still = json.dumps({f.name: 0.0 for f in fields(Augmentation)})
    tiny = [
        "crop=[32,32,32]", "widths=[8,8,16,16,16]", "fused=16", "hidden=16", "pooled=2", "dense=[16,16]", "mask=8",
        "bases=[8.0,12.0]", "shapes=[[1.0,1.0,1.0]]", "ema=0.9", "drawn=0", "boxes_from=0.05",
        "masks_from=0.08", "sampled=16", f"strength={still}",
    ]  # fmt: skip
    command = ["fit-system", "uanet", str(cache), str(tmp_path / "run"), "--steps", "250", "--device", "cpu"]
    given = ["--learning-rate", "0.005", "--threads", "1", *(f"--set={setting}" for setting in tiny)]
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
