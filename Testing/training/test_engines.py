"""The torch and the onnxruntime engine run the same network to the same masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import bundle_of

from soars.bundle.manifest import BranchSpec, Bundle
from soars.cascade.engine import EngineInfo, choose_engine, multiplications, open_engine
from soars.cascade.torch_engine import cpu_has_bf16, cuda_problem
from soars.errors import EngineError, InputError
from soars.networks.architecture import Architecture
from soars.networks.unet import UNet
from soars.systems.devices import torch_device
from soars_training.fitting.loop import training_device
from soars_training.release.export import export_network

LARGE = (32, 64, 128, 256, 320, 320)
ARCHITECTURE = Architecture.plain(3, 5, (8, 16, 24))


@pytest.fixture(scope="module", params=["softmax", "sigmoid"])
def bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Bundle:
    """A U-Net with random weights as safetensors and as ONNX, spread so that classes differ."""
    folder = tmp_path_factory.mktemp("engines")
    torch.manual_seed(0)
    network = UNet(ARCHITECTURE).eval()
    with torch.no_grad():
        network.head.weight *= 8
    export_network(network, folder, "b.safetensors", "b.onnx")
    names = ("Brainstem", "Cerebellum", "Eye_L", "Eye_R", "SpinalCord")[
        : 4 if request.param == "softmax" else 5
    ]
    files = {"safetensors": "b.safetensors", "onnx": "b.onnx"}
    spec = BranchSpec(
        "anchor", ("ct",), names, request.param, (3.0, 3.0, 3.0), (16, 32, 32), ARCHITECTURE, files
    )
    return bundle_of(folder, [spec])


@pytest.fixture(scope="module")
def window() -> np.ndarray:
    noise = torch.nn.functional.interpolate(
        torch.randn(1, 3, 5, 9, 9, generator=torch.Generator().manual_seed(1)),
        size=(16, 32, 32),
        mode="trilinear",
    )
    return noise.clamp(-1, 1).numpy()


def info(engine: str, precision: str) -> EngineInfo:
    return EngineInfo(engine, "cpu", precision, "test")


def test_float32_engines_agree_to_rounding(bundle: Bundle, window: np.ndarray) -> None:
    ours = open_engine(bundle, "anchor", info("torch", "fp32"), 1)
    theirs = open_engine(bundle, "anchor", info("onnxruntime", "fp32"), 1)
    np.testing.assert_allclose(ours.run(window), theirs.run(window), atol=2e-4)
    units = np.random.default_rng(0).uniform(30000, 60000, window.shape[2:]).astype(np.float32)
    a, b = (e.run_fixed(window, units) / units for e in (ours, theirs))
    assert a.shape == (5, 16, 32, 32)
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_no_convolution_on_a_cpu_takes_the_slow_way(bundle: Bundle, window: np.ndarray) -> None:
    engine = open_engine(bundle, "anchor", info("torch", "fp32"), 1)
    with torch.profiler.profile() as profile:
        engine.run(window)
    seen = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in seen and "aten::slow_conv3d_forward" not in seen


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor has no bfloat16 units")
def test_bfloat16_differs_only_where_classes_are_nearly_equal(bundle: Bundle, window: np.ndarray) -> None:
    exact = open_engine(bundle, "anchor", info("torch", "fp32"), 1).run(window)
    rough = open_engine(bundle, "anchor", info("torch", "bf16"), 1).run(window)
    assert rough.dtype == np.float32
    top = np.sort(exact, axis=0)
    clear = top[-1] - top[-2] > 0.05 * exact.std()
    assert clear.mean() > 0.8
    assert (exact.argmax(0) == rough.argmax(0))[clear].mean() > 0.999


def test_a_small_network_runs_in_float32_and_a_large_one_in_what_the_processor_has(bundle: Bundle) -> None:
    chosen = choose_engine(bundle, ["anchor"], device="cpu")
    assert (chosen.engine, chosen.device, chosen.precision) == (
        "onnxruntime",
        "cpu",
        "fp32",
    ) and chosen.reason
    chosen = choose_engine(bundle, ["anchor"], engine="torch", device="cpu")
    assert (chosen.engine, chosen.precision) == ("torch", "fp32")
    chosen = choose_engine(bundle, ["anchor"], device="cpu", many=True)
    assert (chosen.engine, chosen.precision) == ("torch", "fp32") and "many CTs" in chosen.reason
    chosen = choose_engine(bundle, ["anchor"], engine="onnxruntime", device="cpu", many=True)
    assert (chosen.engine, chosen.precision) == ("onnxruntime", "fp32")
    large = replace(bundle.branches["anchor"], architecture=Architecture.plain(3, 5, LARGE))
    chosen = choose_engine(replace(bundle, branches={"anchor": large}), ["anchor"], device="cpu")
    expected = ("torch", "bf16") if cpu_has_bf16() else ("onnxruntime", "fp32")
    assert (chosen.engine, chosen.precision) == expected


def test_multiplications_are_those_of_the_convolutions() -> None:
    """Counted by hooks on the torch network, for every kernel choice."""
    kernels = ("3d_k3", "2d_k5", "p3d_k3", "p3d_k5", "2d_k3")
    architecture = Architecture(2, 3, (4, 6, 8), ((1, 2, 2), (2, 2, 2)), kernels)
    total = 0

    def count(layer: torch.nn.Conv3d, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * output[0, 0].numel()

    network = UNet(architecture)
    for block in (*network.encoder, *network.decoder):
        for layer in block:
            if isinstance(layer, torch.nn.Conv3d):
                layer.register_forward_hook(count)
    network(torch.zeros(1, 2, 8, 16, 16))
    # Within 15 %: the two parts of a pseudo-3D block run at different strides, which the estimate does not follow.
    assert multiplications(architecture) == pytest.approx(total / (8 * 16 * 16), rel=0.15)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_cuda_is_refused_where_there_is_none(bundle: Bundle, engine: str) -> None:
    with pytest.raises(EngineError, match="cuda.*--device"):
        choose_engine(bundle, ["anchor"], engine=engine, device="cuda")


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that says it finds two graphics cards."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("soars.cascade.engine._torch_cuda_problem", cuda_problem)


@pytest.mark.parametrize(
    ("asked", "card"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_a_numbered_card_is_used(bundle: Bundle, two_cards: None, asked: str, card: str) -> None:
    assert choose_engine(bundle, ["anchor"], engine="torch", device=asked).device == card
    assert str(torch_device(asked)) == str(training_device(asked)) == card


def test_a_card_beyond_the_last_is_refused(bundle: Bundle, two_cards: None) -> None:
    words = "cuda:2.*2 CUDA devices, the last of them cuda:1; choose --device cpu or auto"
    with pytest.raises(EngineError, match=words):
        choose_engine(bundle, ["anchor"], engine="torch", device="cuda:2")
    with pytest.raises(EngineError, match=words):
        torch_device("cuda:2")
    with pytest.raises(InputError, match=words):
        training_device("cuda:2")
