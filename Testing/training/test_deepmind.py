"""DeepMind's U-Net: what a slice is drawn from, what the loss counts, how slices are warped, and that it learns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from boxes_ct import ORGANS, box_cache, box_case
from torch.nn import functional

from soars.bundle.store import load_bundle
from soars.ct.images import CtScan
from soars.errors import BundleError
from soars.metrics import dice
from soars.networks.pointwise import Pointwise
from soars.networks.slice_net import SliceNet
from soars.networks.slices import CONTEXT, SliceArchitecture
from soars.run.segment import SegmentOptions, segment
from soars.systems.deepmind.slabs import REACH, probabilities, square
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, read_case, write_case
from soars_training.systems.deepmind.data import SlabDataset
from soars_training.systems.deepmind.loss import organ_loss, top_k_loss
from soars_training.systems.deepmind.system import DeepMindTraining
from soars_training.systems.deepmind.warp import PlaneAugmentation, random_warp
from soars_training.systems.interface import SystemRun
from soars_training.windows.task import scaled_ct

TINY = SliceArchitecture(2, 32, (8, 8, 8, 8, 16), (4, 4, 4, 4, 4), 16)


@pytest.fixture(scope="module")
def network() -> SliceNet:
    torch.manual_seed(0)
    return SliceNet(TINY).eval()


def _ct(slices: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((1, 1, slices, 32, 32), generator=torch.Generator().manual_seed(seed))


def test_a_slice_is_drawn_from_exactly_21(network: SliceNet) -> None:
    """Of 25 slices five are drawn; the middle one sees ten to either side, and not the eleventh."""
    ct = _ct(25)
    with torch.no_grad():
        before = network(ct)
        assert before.shape == (1, 2, 5, 32, 32)
        for away in range(13):
            for sign in (-1, 1):
                if 0 <= 12 + sign * away < 25:
                    changed = ct.clone()
                    changed[:, :, 12 + sign * away] += 1
                    differs = not torch.equal(network(changed)[:, :, 2], before[:, :, 2])
                    assert differs == (away <= 10), (sign, away)


def test_slices_drawn_together_are_those_drawn_one_by_one(network: SliceNet) -> None:
    ct = _ct(CONTEXT + 3)
    with torch.no_grad():
        together = network(ct)
        single = torch.cat([network(ct[:, :, z : z + CONTEXT]) for z in range(4)], 2)
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_a_pointwise_convolution_is_float32_on_a_processor_and_the_usual_one() -> None:
    torch.manual_seed(0)
    ours = Pointwise(3, 5, (1, 2, 2))
    x = torch.randn(1, 3, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(x.bfloat16())
    usual = functional.conv3d(x.bfloat16().float(), ours.weight, ours.bias, (1, 2, 2))
    assert found.dtype == torch.float32 and torch.equal(found, usual)


def test_the_papers_network_has_seven_blocks_and_a_fully_connected_bottom() -> None:
    options = DeepMindTraining().options("paper", ORGANS)
    architecture = options.architecture()
    assert (CONTEXT, len(architecture.channels), architecture.size) == (21, 7, 512)
    with torch.device("meta"):
        bottom = SliceNet(architecture).bottom
    # 512 / 2^7 = 4 rows and columns of 256 channels: 4096 -> 1024 -> 4096, with biases.
    assert sum(p.numel() for p in bottom.parameters()) == 4096 * 1024 + 1024 + 1024 * 4096 + 4096
    assert (options.steps, options.batch, options.learning_rate, options.slab) == (120_000, 32, 1e-4, 1)
    assert [round(share * options.steps) for share, _ in options.stairs] == [24_000, 60_000, 108_000, 114_000]


@pytest.mark.parametrize(
    "change",
    [
        {"lost": [4, 4, 4, 4, 2]},
        {"lost": [4, 4, 4, 4]},
        {"size": 48},
        {"channels": [8, 8, 8, 8, 0]},
        {"hidden": 1e9},
        {"colour": 1},
    ],
)
def test_a_description_that_makes_no_network_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="architecture"):
        SliceArchitecture.from_dict(TINY.to_dict() | change)


@pytest.mark.parametrize("shape", [(5, 32, 32), (9, 20, 41), (1, 50, 30)])
def test_a_whole_ct_is_drawn_slice_by_slice(shape: tuple[int, int, int], network: SliceNet) -> None:
    ct = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def run(slab: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.sigmoid(network(torch.from_numpy(slab)[None, None]))[0].numpy()

    found = probabilities(run, ct, 2, 32, 4, lambda _done, _of: None)
    # The plain way: the CT in a large block of air, cut slice by slice.
    air = np.full((shape[0] + 20, 100, 100), -1, np.float32)
    top, left = 30, 30
    air[10 : 10 + shape[0], top : top + shape[1], left : left + shape[2]] = ct
    y, x = top + (shape[1] - 32) // 2, left + (shape[2] - 32) // 2
    for z in range(shape[0]):
        np.testing.assert_allclose(
            found[:, z], run(air[z : z + CONTEXT, y : y + 32, x : x + 32])[:, 0], atol=2e-3
        )


def test_the_loss_is_the_mean_of_the_worst_pixels() -> None:
    """Ten pixels of background: cross-entropy ln(1 + e^x). A fifth of them is the two largest."""
    logits = torch.tensor([0.0, 1, 2, 3, -1, -2, -3, 0.5, 0.2, 0.1]).reshape(1, 1, 1, 2, 5)
    masks, known = torch.zeros_like(logits), torch.ones((1, 1, 1), dtype=torch.bool)
    expected = (math.log1p(math.exp(3)) + math.log1p(math.exp(2))) / 2
    assert float(top_k_loss(logits, masks, known, 0.2)) == pytest.approx(expected, rel=1e-6)
    everything = sum(math.log1p(math.exp(v)) for v in logits.flatten().tolist()) / 10
    assert float(top_k_loss(logits, masks, known, 1.0)) == pytest.approx(everything, rel=1e-6)


def test_small_and_large_organs_pull_alike() -> None:
    """At p = 0.02 everywhere, -log of a Dice 2 p m / (p n + m) of m among n pixels; its pull on the organ's own pixels
    is, summed, p (1 - p) m (1 / (p m) - 1 / (p n + m)), so about 1 - p whatever m is."""
    p, n = 0.02, 64 * 64
    sizes = 5, 500
    logits = torch.full((1, 2, 1, 64, 64), math.log(p / (1 - p)), requires_grad=True)
    masks = torch.zeros(logits.shape)
    for k, m in enumerate(sizes):
        masks[0, k].view(-1)[:m] = 1
    loss = organ_loss(logits, masks, torch.ones((1, 2, 1), dtype=torch.bool))
    dice = [2 * p * m / (p * n + m) for m in sizes]
    assert float(loss.detach()) == pytest.approx(-sum(map(math.log, dice)) / 2, rel=1e-4)
    loss.backward()
    assert logits.grad is not None
    for k, m in enumerate(sizes):
        pull = -float(logits.grad[0, k].view(-1)[:m].sum())
        assert pull == pytest.approx(p * (1 - p) * m * (1 / (p * m) - 1 / (p * n + m)) / 2, rel=1e-3)
        assert pull > 0.4


def test_an_organ_that_is_not_there_has_no_dice() -> None:
    logits = torch.zeros((1, 1, 2, 4, 4), requires_grad=True)
    known = torch.ones((1, 1, 2), dtype=torch.bool)
    assert float(organ_loss(logits, torch.zeros(logits.shape), known).detach()) == 0


@pytest.mark.parametrize("loss_of", [partial(top_k_loss, share=0.5), organ_loss])
def test_what_is_not_labelled_has_no_gradient(loss_of: Callable[..., torch.Tensor]) -> None:
    logits = torch.zeros((1, 2, 3, 4, 4), requires_grad=True)
    masks = torch.ones(logits.shape)
    known = torch.tensor([[[True, False, False], [False, False, True]]])
    loss = loss_of(logits, masks, known)
    # Cross-entropy of p = 1/2, and -log of the Dice of p = 1/2 with 1, 2 (1/2) / (1/2 + 1).
    assert float(loss.detach()) == pytest.approx(math.log(2 if loss_of is not organ_loss else 1.5), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum((3, 4))[0] > 0
    assert torch.equal(touched, known[0])
    nothing = loss_of(logits, masks, torch.zeros_like(known))
    assert float(nothing.detach()) == 0 and nothing.requires_grad


def test_a_warp_without_strength_is_the_middle_square() -> None:
    planes = torch.arange(2 * 10 * 12.0).reshape(2, 10, 12)
    warp = random_warp(np.random.default_rng(0), 6, (4.5, 5.5), (3, 3), PlaneAugmentation.none())
    for nearest in (True, False):
        torch.testing.assert_close(
            warp.sample(planes, outside=-1000, nearest=nearest), planes[:, 2:8, 3:9], rtol=0, atol=1e-3
        )
    wide = random_warp(np.random.default_rng(0), 20, (4.5, 5.5), (3, 3), PlaneAugmentation.none())
    found = wide.sample(planes, outside=-1000, nearest=False)
    assert bool((found[:, :4] == -1000).all())


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 9, 8), (3, 8, 11), (3, 5, 7)])
def test_an_unwarped_slab_is_what_inference_sees(shape: tuple[int, int, int]) -> None:
    """Also where rows or columns are odd, or fewer than the network's: to the voxel, CT and mask alike."""
    hu = np.random.default_rng(0).integers(-400, 900, shape).astype(np.int16)
    whole = (hu > 0).astype(bool)
    case = CachedCase(
        "c", hu, (0, 0, 0), (3, 3, 3), {"Brainstem": ((0, 0, 0), whole)}, frozenset({"Brainstem"})
    )
    sample = _dataset([case], ("Brainstem",), PlaneAugmentation.none(), 3).cut(
        case, 0, np.random.default_rng(0)
    )
    seen = square(scaled_ct(hu, (-500, 1000)), 8)
    np.testing.assert_allclose(sample.ct[0, REACH : REACH + 3].numpy(), seen, atol=1e-4)
    zero = scaled_ct(np.zeros((1, 1, 1), np.int16), (-500, 1000)).item()
    np.testing.assert_array_equal(sample.masks[0].numpy(), seen > zero + 1e-6)


def test_turning_keeps_lengths_in_mm_and_scaling_changes_them() -> None:
    """On pixels of 1 x 2 mm neighbours stay 1 and 2 mm apart when turned, and are 1 / scale apart when scaled."""
    rng = np.random.default_rng(3)
    turned = PlaneAugmentation(0, 30, 0, 0, 0, 0, 100, 0)
    field = random_warp(rng, 8, (10, 10), (1, 2), turned).source_yx * np.array([1, 2])
    assert np.linalg.norm(field[1, 0] - field[0, 0]) == pytest.approx(1, rel=1e-5)
    assert np.linalg.norm(field[0, 1] - field[0, 0]) == pytest.approx(2, rel=1e-5)
    scaled = PlaneAugmentation(0, 0, 0.2, 0, 0, 0, 100, 0)
    sizes = []
    for seed in range(50):
        grid = random_warp(np.random.default_rng(seed), 8, (10, 10), (1, 1), scaled).source_yx
        sizes.append(1 / float(np.linalg.norm(grid[1, 0] - grid[0, 0])))
    assert 0.8 <= min(sizes) < 0.85 and 1.15 < max(sizes) <= 1.2


def test_bending_has_the_spread_of_cubic_b_splines() -> None:
    """A random coefficient of sd 5 mm at every knot: at a knot sd = 5 (1 + 16 + 1) / 36 = 2.5 mm (tensor product)."""
    strength = PlaneAugmentation(0, 0, 0, 0, 0, 5, 20, 0)
    plain = random_warp(np.random.default_rng(0), 41, (20, 20), (1, 1), PlaneAugmentation.none()).source_yx
    moved = [
        (random_warp(np.random.default_rng(s), 41, (20, 20), (1, 1), strength).source_yx - plain)[20, 20]
        for s in range(800)
    ]
    assert float(np.std(moved)) == pytest.approx(2.5, rel=0.08)


def test_a_mirrored_slab_has_left_and_right_exchanged() -> None:
    hu = np.zeros((3, 8, 8), np.int16)
    masks = {
        "Parotid_L": ((1, 2, 5), np.ones((1, 2, 2), bool)),
        "Parotid_R": ((1, 2, 1), np.ones((1, 3, 2), bool)),
    }
    case = CachedCase("c", hu, (0, 0, 0), (3, 3, 3), masks, frozenset({"Parotid_L", "Parotid_R"}))
    mirrored = PlaneAugmentation(0, 0, 0, 0, 1, 0, 100, 0)
    data = _dataset([case], ("Parotid_L", "Parotid_R"), mirrored)
    sample = data.cut(case, 1, np.random.default_rng(0))
    # Mirrored, the right gland (2 x 3 pixels) lies where the left one was and is called left.
    assert sample.masks.sum((1, 2, 3)).tolist() == [6, 4]
    assert bool(sample.masks[0, 0, 2:5, 5:7].all())
    alone = _dataset([case], ("Parotid_L",), mirrored)
    assert bool(alone.cut(case, 1, np.random.default_rng(0)).masks[0, 0, 2:4, 5:7].all())


def test_slices_without_a_label_are_unknown(tmp_path: Path) -> None:
    """An organ drawn on two slices of five, another on all, a third nowhere; beyond the scan there is only air."""
    mask = ((1, 0, 0), np.ones((2, 2, 2), bool))
    case = CachedCase(
        "c", np.zeros((5, 8, 8), np.int16), (0, 0, 0), (3, 3, 3), {"Brainstem": mask, "SpinalCord": mask},
        frozenset({"SpinalCord"}), {"Brainstem": np.array([False, True, True, False, False])},
    )  # fmt: skip
    write_case(tmp_path / "c.npz", case)
    organs = ("Brainstem", "SpinalCord", "Parotid_L")
    data = _dataset([read_case(tmp_path / "c.npz")], organs, PlaneAugmentation.none(), slab=7)
    sample = data.cut(data.cases[0], -1, np.random.default_rng(0))
    assert sample.known.tolist() == [
        [True, False, True, True, False, False, True],
        [True] * 7,
        [True, False, False, False, False, False, True],
    ]
    assert sample.masks.sum((2, 3)).tolist() == [[0, 0, 4, 4, 0, 0, 0], [0, 0, 4, 4, 0, 0, 0], [0] * 7]
    assert sample.ct.shape == (1, 27, 8, 8)


def _dataset(
    cases: list[CachedCase], organs: tuple[str, ...], strength: PlaneAugmentation, slab: int = 1
) -> SlabDataset:
    return SlabDataset(
        cases, organs, size=8, slab=slab, window_hu=(-500, 1000), strength=strength, foreground=1, seed=1
    )


def test_it_learns_a_case_and_draws_it_through_the_same_door(tmp_path: Path) -> None:
    """One case learned by heart: DSC on the working grid, then as a bundle, on the CT's own grid, through `segment`."""
    cache = box_cache(tmp_path / "cache", 1)
    still = json.dumps({f.name: 0.0 for f in fields(PlaneAugmentation) if f.name != "control_mm"})
    tiny = ["size=32", "channels=[8,8,16,16,16]", "hidden=32", "ema=0.9", "foreground=1", f"plane={still}"]
    command = [
        "fit-system",
        "deepmind",
        str(cache),
        str(tmp_path / "run"),
        "--steps",
        "50",
        "--device",
        "cpu",
    ]
    given = ["--learning-rate", "0.01", "--threads", "1", *(f"--set={setting}" for setting in tiny)]
    assert main([*command, *given]) == 0
    assert SystemRun.load(tmp_path / "run").options["plane"]["control_mm"] == 100
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
    assert result.engine.engine == "torch" and {s.system for s in result.sources.values()} == {"deepmind"}
    other = segment(
        CtScan(case.ct, Path("ct")), bundle, SegmentOptions(device="cpu", engine="onnxruntime", threads=1)
    )
    assert other.engine.engine == "onnxruntime"
    for organ in ORGANS:
        assert dice(other.structures.crop(organ), result.structures.crop(organ)) > 0.999
        assert dice(result.structures.crop(organ), case.structures.crop(organ)) > 0.8
