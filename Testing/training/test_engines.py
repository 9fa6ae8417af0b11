"""The torch and the onnxruntime engine run the same network to the same masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import bundle_of

from soars.cascade.engine import EngineInfo, choose_engine, open_engine
from soars.cascade.torch_engine import cpu_has_bf16
from soars.errors import BundleError, EngineError
from soars.manifest import BranchSpec, Bundle
from soars.networks.architecture import UNetArchitecture
from soars.networks.unet import UNet

ARCHITECTURE = UNetArchitecture.plain(3, 5, (8, 16, 24))


@pytest.fixture(scope="module", params=["softmax", "sigmoid"])
def bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Bundle:
    """A U-Net with random weights as safetensors and as ONNX, spread so that classes differ."""
    folder = tmp_path_factory.mktemp("engines")
    torch.manual_seed(0)
    network = UNet(ARCHITECTURE).eval()
    with torch.no_grad():
        network.head.weight *= 8
    save_file(network.state_dict(), folder / "b.safetensors")
    dynamic = {"x": {0: "b", 2: "z", 3: "y", 4: "x"}, "y": {0: "b", 2: "z", 3: "y", 4: "x"}}
    torch.onnx.export(
        network, (torch.zeros(1, 3, 8, 8, 8),), folder / "b.onnx", input_names=["x"], output_names=["y"],
        dynamic_axes=dynamic, opset_version=18, dynamo=False,
    )  # fmt: skip
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
    unit = 60000
    a, b = (e.run_fixed(window, unit).astype(float) / unit for e in (ours, theirs))
    assert a.shape == (5, 16, 32, 32)
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor has no bfloat16 units")
def test_bfloat16_differs_only_where_classes_are_nearly_equal(bundle: Bundle, window: np.ndarray) -> None:
    exact = open_engine(bundle, "anchor", info("torch", "fp32"), 1).run(window)
    rough = open_engine(bundle, "anchor", info("torch", "bf16"), 1).run(window)
    assert rough.dtype == np.float32
    top = np.sort(exact, axis=0)
    clear = top[-1] - top[-2] > 0.05 * exact.std()
    assert clear.mean() > 0.8
    assert (exact.argmax(0) == rough.argmax(0))[clear].mean() > 0.999


def test_the_choice_is_explained(bundle: Bundle) -> None:
    chosen = choose_engine(bundle, ["anchor"], device="cpu")
    assert chosen.device == "cpu" and chosen.reason
    assert (chosen.engine == "torch") == cpu_has_bf16()
    assert choose_engine(bundle, ["anchor"], engine="torch", device="cpu").engine == "torch"
    assert choose_engine(bundle, ["anchor"], engine="onnxruntime", device="cpu").engine == "onnxruntime"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_cuda_is_refused_where_there_is_none(bundle: Bundle, engine: str) -> None:
    with pytest.raises(EngineError, match="cuda.*--device"):
        choose_engine(bundle, ["anchor"], engine=engine, device="cuda")


def test_weights_of_another_network_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = UNet(UNetArchitecture.plain(3, 5, (8, 16, 32)))
    save_file(other.state_dict(), tmp_path / "b.safetensors")
    (tmp_path / "b.onnx").write_bytes(b"not a network")
    wrong = bundle_of(tmp_path, list(bundle.branches.values()))
    with pytest.raises(BundleError, match="not those of branch anchor"):
        open_engine(wrong, "anchor", info("torch", "fp32"))
    with pytest.raises(BundleError, match="cannot load"):
        open_engine(wrong, "anchor", info("onnxruntime", "fp32"))
    (tmp_path / "b.safetensors").write_bytes(b"not weights")
    with pytest.raises(BundleError, match="not a readable safetensors"):
        open_engine(wrong, "anchor", info("torch", "fp32"))
