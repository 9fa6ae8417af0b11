"""The losses teach only what somebody annotated; values from closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss

from soars.errors import InputError
from soars_training.fitting.losses import marginal_dice_ce, masked_dice_bce, masked_heatmap_l2
from soars_training.fitting.options import FitOptions
from soars_training.windows.task import BranchTask


def _logits(*channels: float, shape: tuple[int, int, int] = (2, 2, 2)) -> torch.Tensor:
    return torch.tensor(channels)[None, :, None, None, None].repeat(1, 1, *shape)


def test_with_everything_annotated_the_loss_is_weighted_cross_entropy_plus_monai_dice() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, 7)
    labels = torch.randint(0, 4, (2, 5, 6, 7))
    loss = marginal_dice_ce(logits, labels, torch.ones(2, 3, dtype=torch.bool))
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5)
    counts = torch.bincount(labels.ravel(), minlength=4)
    weight = (counts.max() / counts).sqrt()
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weight) + dice(
        logits, labels[:, None]
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_probability_of_an_unannotated_organ_counts_as_background() -> None:
    # softmax of (ln 1, ln 2, ln 5) = 1/8, 2/8, 5/8; class 2 unknown -> background is 6/8, everywhere background.
    logits = _logits(math.log(1), math.log(2), math.log(5))
    labels = torch.zeros(1, 2, 2, 2, dtype=torch.long)
    loss = marginal_dice_ce(logits, labels, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(-math.log(6 / 8), abs=1e-5)


def test_an_unannotated_organ_gets_no_gradient_against_the_background() -> None:
    logits = _logits(0.0, 0.0, 0.0).requires_grad_()
    labels = torch.zeros(1, 2, 2, 2, dtype=torch.long)
    marginal_dice_ce(logits, labels, torch.tensor([[True, False]])).backward()
    assert logits.grad is not None
    background, known, unknown = logits.grad[0].sum((1, 2, 3))
    assert known > 0  # pushed down: it was looked for and is not there
    assert background.item() == pytest.approx(unknown.item())  # the two are one class here
    assert unknown < 0


def test_sigmoid_loss_ignores_unknown_channels() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(1, 3, 4, 4, 4), torch.randint(0, 2, (1, 3, 4, 4, 4))
    known = torch.tensor([[True, False, True]])
    changed = logits.clone()
    changed[:, 1] += 100
    assert masked_dice_bce(logits, masks, known).item() == pytest.approx(
        masked_dice_bce(changed, masks, known).item()
    )


def test_a_perfect_sigmoid_answer_costs_nothing() -> None:
    masks = torch.zeros(1, 2, 4, 4, 4)
    masks[:, :, 1:3] = 1
    assert masked_dice_bce((masks - 0.5) * 200, masks, torch.ones(1, 2, dtype=torch.bool)).item() < 1e-4


def test_heatmap_loss_is_the_weighted_squared_distance_of_known_maps() -> None:
    target = torch.zeros(1, 2, 1, 1, 2)
    target[0, 0, 0, 0, 0] = 1
    output = torch.zeros_like(target)
    output[0, 1] = 7  # unknown: whatever it says costs nothing
    loss = masked_heatmap_l2(output, target, torch.tensor([[True, False]]), peak_weight=30)
    assert loss.item() == pytest.approx((1 + 30) / 2)


def test_a_peak_in_the_wrong_place_costs_as_much_as_one_that_is_missed() -> None:
    target, nothing = torch.zeros(1, 1, 1, 1, 4), torch.zeros(1, 1, 1, 1, 4)
    target[..., 0] = 1
    elsewhere = target.flip(-1)
    known = torch.ones(1, 1, dtype=torch.bool)
    missed = masked_heatmap_l2(nothing, target, known).item()
    assert masked_heatmap_l2(elsewhere, target, known).item() == pytest.approx(2 * missed)
    assert masked_heatmap_l2(target + elsewhere, target, known).item() == pytest.approx(missed)


def test_without_balance_every_voxel_weighs_alike() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 2, 5, 6, 7), torch.zeros(1, 5, 6, 7, dtype=torch.long)
    labels[:, 0, 0, :3] = 1
    everything = torch.ones(1, 1, dtype=torch.bool)
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5)
    expected = torch.nn.functional.cross_entropy(logits, labels) + dice(logits, labels[:, None])
    assert marginal_dice_ce(logits, labels, everything, 0.0).item() == pytest.approx(
        expected.item(), abs=1e-5
    )
    assert marginal_dice_ce(logits, labels, everything).item() != pytest.approx(expected.item(), abs=1e-2)


@pytest.mark.parametrize(("balance", "share"), [(0.5, 0.5), (0.3, 0.3), (0.1, 0.25), (0.0, 0.25)])
def test_voxels_of_a_small_organ_make_up_their_share_of_the_cross_entropy(
    balance: float, share: float
) -> None:
    # 16 of 64 voxels: a quarter, if nothing more is asked for.
    logits, masks = torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)
    logits[:, :, 0], masks[:, :, 0] = 2.0, 1.0
    organ, rest = math.log1p(math.exp(-2)), math.log(2)
    sigmoid = 1 / (1 + math.exp(-2))
    dice = 2 * 16 * sigmoid / (16 * sigmoid + 48 / 2 + 16)
    loss = masked_dice_bce(logits, masks, torch.ones(1, 1, dtype=torch.bool), balance)
    assert loss.item() == pytest.approx(share * organ + (1 - share) * rest + 1 - dice, abs=1e-5)


def test_an_organ_that_is_not_there_or_fills_the_volume_costs_the_plain_mean() -> None:
    logits, everything = torch.full((1, 2, 4, 4, 4), 1.0), torch.ones(1, 2, dtype=torch.bool)
    masks = torch.zeros(1, 2, 4, 4, 4)
    masks[:, 1] = 1.0
    sigmoid = 1 / (1 + math.exp(-1))
    bce = (math.log1p(math.exp(1)) + math.log1p(math.exp(-1))) / 2
    expected = bce + 1 - 2 * sigmoid / (sigmoid + 1)
    assert masked_dice_bce(logits, masks, everything).item() == pytest.approx(expected, abs=1e-5)


def test_a_part_of_a_small_organ_that_is_called_background_is_pulled_back() -> None:
    # Two of an organ's four voxels of 4000 are found, the others are sure to be background. Dice pulls at these no more
    # (the sigmoid is flat there), and the plain mean of all voxels would with 0.0005.
    logits, masks = torch.full((1, 1, 10, 20, 20), -12.0), torch.zeros(1, 1, 10, 20, 20)
    masks[0, 0, 0, 0, :4], logits[0, 0, 0, 0, :2] = 1.0, 12.0
    logits.requires_grad_()
    masked_dice_bce(logits, masks, torch.ones(1, 1, dtype=torch.bool)).backward()
    assert logits.grad is not None
    assert -logits.grad[0, 0, 0, 0, 2:4].sum().item() == pytest.approx(0.25, abs=1e-3)


def test_the_voxel_that_is_furthest_off_still_has_a_gradient() -> None:
    # p of the true class is e^-60, far below what a clamp at 1e-6 would see: d CE / d logit is still p - 1 = -1.
    logits = torch.tensor([60.0, 0.0]).reshape(1, 2, 1, 1, 1).requires_grad_()
    labels = torch.ones(1, 1, 1, 1, dtype=torch.long)
    marginal_dice_ce(logits, labels, torch.ones(1, 1, dtype=torch.bool), 0.0).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1].item() == pytest.approx(-1.0, abs=1e-4)


def test_outside_its_usual_region_an_unannotated_organ_is_wrong() -> None:
    # softmax (1/8, 2/8, 5/8), class 2 unknown. Where it may be, background is 6/8; elsewhere its 1/8 alone.
    logits = _logits(math.log(1), math.log(2), math.log(5), shape=(1, 1, 2))
    possible = torch.tensor([[True, True], [True, False]]).reshape(1, 2, 1, 1, 2)
    labels = torch.zeros(1, 1, 1, 2, dtype=torch.long)
    loss = marginal_dice_ce(logits, labels, torch.tensor([[True, False]]), possible=possible)
    assert loss.item() == pytest.approx(-(math.log(6 / 8) + math.log(1 / 8)) / 2, abs=1e-5)


def test_the_papers_loss_is_dice_alone() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 4, 4, 4))
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5)
    loss = marginal_dice_ce(logits, labels, torch.ones(2, 2, dtype=torch.bool), dice_only=True)
    assert loss.item() == pytest.approx(dice(logits, labels[:, None]).item(), abs=1e-6)
    sigmoid = DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)
    masks = torch.randint(0, 2, (1, 2, 4, 4, 4))
    own = masked_dice_bce(logits[:1, :2], masks, torch.ones(1, 2, dtype=torch.bool), dice_only=True)
    assert own.item() == pytest.approx(sigmoid(logits[:1, :2], masks).item(), abs=1e-6)


@pytest.mark.parametrize("balance", [-0.1, 1.0, 2.0, math.nan])
def test_a_share_that_leaves_nothing_for_the_background_is_refused(balance: float) -> None:
    task = BranchTask("small_hard", ("Lens_L", "Lens_R"), ("ct",))
    with pytest.raises(InputError, match=r"--balance .*: of small_hard it is the share of the loss"):
        FitOptions(steps=1, batch=1, learning_rate=1e-3, task=task, balance=balance).check()
