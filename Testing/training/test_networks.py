"""The P-HNN and the order of layers: what the papers describe, trained, exported and run alike by both engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import bundle_of
from torch import nn

from soars.bundle.manifest import BranchSpec, needed_format
from soars.cascade.engine import EngineInfo, multiplications, open_engine
from soars.errors import BundleError, InputError
from soars.networks.architecture import Architecture
from soars.networks.blocks import InstanceNorm
from soars.networks.build import build
from soars.networks.phnn import PHnn
from soars.networks.pointwise import Pointwise
from soars_training.fitting.losses import marginal_dice_ce
from soars_training.fitting.models import BranchModel, Model
from soars_training.fitting.options import FitOptions, FittedRun
from soars_training.fitting.presets import preset
from soars_training.fitting.start import start_from
from soars_training.fitting.state import TrainingState
from soars_training.release.export import export_network
from soars_training.windows.task import BranchTask

KINDS = [("phnn", "norm-act-conv"), ("phnn", "conv-norm-act"), ("unet", "norm-act-conv")]
FEATURES = (4, 6, 8)


def _network(kind: str, order: str, in_channels: int = 2) -> nn.Module:
    torch.manual_seed(1)
    network = build(Architecture.plain(in_channels, 3, FEATURES, kind, order))  # type: ignore[arg-type]
    network(torch.randn(4, in_channels, 8, 8, 8))  # so that batch norms have seen something
    return network.eval()


def test_side_outputs_are_added_up_from_the_finest_on() -> None:
    """With weights of zero each side output is its bias, and the sums are those of 1, 2, 4."""
    network = _network("phnn", "norm-act-conv")
    assert isinstance(network, PHnn)
    for n, side in enumerate(network.sides):
        nn.init.zeros_(side.weight)
        nn.init.constant_(side.bias, 2.0**n)
    sums = network.sums(torch.randn(1, 2, 8, 16, 8))
    assert [tuple(s.shape) for s in sums] == [(1, 3, 8, 16, 8)] * 3
    assert [s.unique().tolist() for s in sums] == [[1.0], [3.0], [7.0]]


def test_a_side_output_is_up_sampled_linearly_and_without_weights() -> None:
    """Of the middle level alone, a ramp stays the same ramp: coarse voxels lie at the centres of pairs of fine ones."""
    network = _network("phnn", "conv-norm-act")
    assert isinstance(network, PHnn)
    for side in network.sides:
        nn.init.zeros_(side.weight)
        nn.init.zeros_(side.bias)
    ramp = torch.arange(4.0).expand(1, FEATURES[1], 4, 4, 4)
    network.encoder[1] = _Always(ramp)
    network.encoder[2] = _Always(torch.zeros(1, FEATURES[2], 2, 2, 2))
    network.sides[1].weight.data[0, 0] = 1.0
    out = network(torch.zeros(1, 2, 8, 8, 8))[0, 0, 0, 0]
    np.testing.assert_allclose(out.detach(), [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)
    assert len(network.state_dict().keys() & {"up.0.weight"}) == 0


class _Always(nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _x: torch.Tensor) -> torch.Tensor:
        return self.value


def test_the_papers_order_is_batch_norm_relu_convolution() -> None:
    """Equation 6; the very first convolution has no ReLU before it. Two, two, three convolutions a block."""
    network = _network("phnn", "norm-act-conv")
    kinds = [[type(layer).__name__ for layer in block] for block in network.encoder]
    unit = ["BatchNorm3d", "ReLU", "Conv3d"]
    assert kinds == [["BatchNorm3d", "Conv3d", *unit], unit * 2, unit * 3]
    assert preset("paper", "anchor").order == "norm-act-conv"


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_both_engines_agree_with_the_training_network(kind: str, order: str, tmp_path: Path) -> None:
    network = _network(kind, order)
    export_network(network, tmp_path, "b.safetensors", "b.onnx")  # rounds the network's weights as well
    window = torch.randn(1, 2, 8, 16, 12, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = network(window)[0].numpy()
    files = {"safetensors": "b.safetensors", "onnx": "b.onnx"}
    spec = BranchSpec(
        "anchor", ("ct",), ("Brainstem", "SpinalCord"), "softmax", (3, 3, 3), (8, 16, 12), network.architecture,
        files, ((-500, 1000), (-160, 240)),
    )  # fmt: skip
    bundle = bundle_of(tmp_path, [spec])
    for engine in ("torch", "onnxruntime"):
        found = open_engine(bundle, "anchor", EngineInfo(engine, "cpu", "fp32", "test"), threads=1).run(
            window.numpy()
        )  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_they_belong_to_format_2_and_format_1_stays_what_it_was(kind: str, order: str) -> None:
    new = Architecture.plain(1, 3, FEATURES, kind, order).to_dict()  # type: ignore[arg-type]
    assert Architecture.from_dict(new).to_dict() == new
    assert needed_format({"branches": {"anchor": {"architecture": new}}}) == 2
    old = Architecture.plain(1, 3, FEATURES).to_dict()
    assert set(old) == {"type", "in_channels", "out_channels", "features", "strides", "blocks"}
    assert needed_format({"branches": {"anchor": {"architecture": old}}}) == 1


def test_unknown_words_are_refused() -> None:
    good = Architecture.plain(1, 3, FEATURES).to_dict()
    with pytest.raises(BundleError, match="unknown type 'resnet'; this version knows unet, phnn"):
        Architecture.from_dict(good | {"type": "resnet"})
    with pytest.raises(BundleError, match="unknown order 'act-conv'"):
        Architecture.from_dict(good | {"order": "act-conv"})
    with pytest.raises(BundleError, match="3 levels need 3 blocks, got 5"):
        Architecture.from_dict(good | {"type": "phnn"})


def test_multiplications_of_a_p_hnn_are_those_of_its_convolutions() -> None:
    architecture = Architecture(
        2, 3, FEATURES, ((1, 2, 2), (2, 2, 2)), ("3d_k3", "2d_k5", "p3d_k3"), "phnn", "norm-act-conv"
    )
    network, total = build(architecture), 0

    def count(layer: nn.Conv3d, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * output[0, 0].numel()

    for block in network.encoder:
        for layer in block:
            if isinstance(layer, nn.Conv3d):
                layer.register_forward_hook(count)
    network(torch.zeros(2, 2, 8, 16, 16))
    # Within 15 %: the two parts of a pseudo-3D unit differ in width, which the estimate does not follow.
    assert multiplications(architecture) == pytest.approx(total / (8 * 16 * 16), rel=0.15)


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_with_anchors_as_new_channels_a_network_first_answers_as_before(
    kind: str, order: str, tmp_path: Path
) -> None:
    """The start of a mid-level branch from the anchor's: the guide's channels begin without influence."""
    settings = {"network": kind, "order": order, "features": FEATURES, "patch": (8, 8, 8)}
    before = BranchTask("anchor", ("Brainstem", "SpinalCord"), ("ct",))
    options = FitOptions(before, **settings)  # type: ignore[arg-type]
    model = BranchModel(options)
    model.network.load_state_dict(_network(kind, order, 1).state_dict())
    state = TrainingState.new(options, model)
    state.save(tmp_path)
    run = FittedRun(
        branch="anchor", classes=before.classes, inputs=("ct",), anchors=(), spacing_mm=(3, 3, 3), patch=(8, 8, 8),
        windows_hu=before.windows_hu, voi_mm={}, architecture=options.architecture(), source="t", cases=1,
        held_out=(), validation={}, options=options.to_dict(), seconds=0.0,
    )  # fmt: skip
    run.save(tmp_path)
    after = BranchTask("mid_level", ("Brainstem", "SpinalCord"), ("ct", "anchor"), ("Larynx",))
    network = build(Architecture.plain(2, 3, FEATURES, kind, order)).eval()  # type: ignore[arg-type]
    start_from(network, tmp_path, after)
    ct, guide = torch.randn(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        same = model.network.eval()(ct)
        np.testing.assert_allclose(network(torch.cat((ct, guide), 1)), same, atol=1e-5)
    other = (
        build(Architecture.plain(2, 3, FEATURES))
        if kind == "phnn"
        else build(Architecture.plain(2, 3, FEATURES, "phnn"))
    )
    with pytest.raises(InputError, match="different layers"):
        start_from(other, tmp_path, after)


def test_averaged_weights_keep_the_statistics_that_belong_to_them() -> None:
    """A batch normalisation in evaluation must see the statistics of its own weights' features: averaged like them, by
    decay 0.5 from 0 to 1 in three steps 1 - 0.5 ** 3 = 0.875. The count of batches is the last one."""

    class Normed(Model):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm3d(1)

    model = Normed()
    options = FitOptions(
        BranchTask("anchor", ("Brainstem",), ("ct",)), features=FEATURES, patch=(8, 8, 8), ema=0.5
    )
    state = TrainingState.new(options, model)
    state.step = 1000
    with torch.no_grad():
        model.norm.running_mean.fill_(1.0)  # type: ignore[union-attr]
        model.norm.bias.fill_(1.0)
        model.norm.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    for _ in range(3):
        state.average()
    averaged = state.averaged.state_dict()
    assert float(averaged["norm.running_mean"]) == pytest.approx(0.875) == float(averaged["norm.bias"])
    assert int(averaged["norm.num_batches_tracked"]) == 7


def test_every_progressive_sum_is_trained() -> None:
    options = FitOptions(
        BranchTask("anchor", ("Brainstem",), ("ct",)), network="phnn", features=FEATURES, patch=(8, 8, 8)
    )
    model = BranchModel(options)
    outputs = model.outputs(torch.randn(1, 1, 8, 8, 8))
    assert len(outputs) == 3
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    labels[0, 2:5] = 1
    known, possible = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, 8, 8, 8, dtype=torch.bool)
    mean = model.loss_of(outputs, labels, known, possible, 0.0)
    alone = [marginal_dice_ce(o, labels, known, 0.0, possible).item() for o in outputs]
    assert mean.item() == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_norm_and_its_gradients_are_those_of_an_instance_norm_in_any_layout(samples: int) -> None:
    torch.manual_seed(2)
    values, back = (torch.randn(samples, 5, 4, 6, 7, dtype=torch.float64) for _ in range(2))
    expected = nn.InstanceNorm3d(5, affine=True).double()
    own = InstanceNorm(5).double()
    for weight in (expected.weight, expected.bias):
        nn.init.uniform_(weight)
    own.load_state_dict(expected.state_dict())
    found = []
    for norm, layout in (
        (expected, torch.contiguous_format),
        (own, torch.contiguous_format),
        (own, torch.channels_last_3d),
    ):
        norm.zero_grad()
        x = values.clone().contiguous(memory_format=layout).requires_grad_()
        y = norm(x)
        y.backward(back)
        with torch.no_grad():
            torch.testing.assert_close(norm(x), y)
        found.append((y, x.grad, norm.weight.grad, norm.bias.grad))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


@pytest.mark.parametrize("network", ["unet", "phnn"])
def test_every_convolution_of_one_voxel_is_the_safe_one(network: str) -> None:
    """torch's bfloat16 kernel writes beyond its memory for some shapes on processors with AMX; see `Pointwise`."""
    task = BranchTask("anchor", ("Brainstem", "SpinalCord"), ("ct",))
    model = BranchModel(FitOptions(task, network=network, features=(4, 6, 8)))  # type: ignore[arg-type]
    found = [m for m in model.modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (1, 1, 1)]
    assert len(found) == {"unet": 2, "phnn": 3}[network]
    assert all(isinstance(m, Pointwise) for m in found)


def test_the_shape_that_crashed_is_trained() -> None:
    """16 channels of 8 x 128 x 128 voxels under autocast, the process's death with torch's own kernel."""
    task = BranchTask("anchor", tuple(f"organ{n}" for n in range(9)), ("ct",))
    model = BranchModel(FitOptions(task, features=(16, 16), supervised=1))
    shape = (1, 8, 128, 128)
    labels, known = torch.zeros(shape, dtype=torch.uint8), torch.ones(1, 9, dtype=torch.bool)
    labels[:, 2:5] = 3
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss((torch.randn(1, *shape), labels, known, known.new_ones((1, 9, *shape[1:]))), 0.0)
    loss.backward()
    assert torch.isfinite(model.network.head.weight.grad).all()
