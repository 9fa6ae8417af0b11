"""What every engine that runs a network keeps to, whatever library it is built on (`soars.cascade.engine.Engine`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from tiny_networks import bundle_of

from soars.bundle.manifest import BranchSpec, Bundle
from soars.cascade.engine import WEIGHTS, Engine, EngineInfo, open_engine
from soars.cascade.preprocess import Grid
from soars.cascade.torch_engine import NetworkEngine
from soars.cascade.windows import CtChannel, slide
from soars.errors import BundleError, CancelledError, EngineError, SoarsError
from soars.networks.architecture import Architecture
from soars.networks.unet import UNet
from soars_training.release.export import export_network

ENGINES = ("torch", "onnxruntime", "live")
"""Those that users choose, and the one that scores a network while it is trained."""
ACTIVATIONS = {"anchor": "softmax", "small_hard": "sigmoid", "detection": "heatmap"}
CLASSES = {
    "anchor": ("Brainstem", "SpinalCord"),
    "small_hard": ("Lens_L", "Lens_R", "Pituitary"),
    "detection": ("Lens_L", "Lens_R", "Pituitary"),
}
ARCHITECTURE = Architecture.plain(2, 3, (4, 8))
SHAPE = (16, 24, 20)

Open = Callable[..., Engine]


@pytest.fixture(scope="module")
def network() -> UNet:
    """Random weights, spread so that the classes differ."""
    torch.manual_seed(3)
    network = UNet(ARCHITECTURE).eval().requires_grad_(False)
    network.head.weight *= 4
    return network


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, network: UNet) -> Bundle:
    """One network as three branches, so that every activation is met, in the files that training writes."""
    folder = tmp_path_factory.mktemp("promises")
    export_network(
        network, folder, "b.safetensors", "b.onnx"
    )  # rounds the network's weights to half precision
    files = {"safetensors": "b.safetensors", "onnx": "b.onnx"}
    specs = [
        BranchSpec(
            name, ("ct",), CLASSES[name], activation, (3.0, 3.0, 3.0), (16, 16, 16), ARCHITECTURE, files
        )
        for name, activation in ACTIVATIONS.items()
    ]
    return bundle_of(folder, specs)


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest, bundle: Bundle, network: UNet) -> Iterator[Open]:
    """Opens the engine on a branch; torch's threads, which are the process's, are put back."""
    before = torch.get_num_threads()

    def open_it(branch: str = "anchor", threads: int | None = 1, of: Bundle = bundle, **more: Any) -> Engine:
        if request.param == "live":
            torch.set_num_threads(threads or before)
            return NetworkEngine(network, of.branches[branch], torch.device("cpu"), torch.float32)
        return open_engine(of, branch, EngineInfo(request.param, "cpu", "fp32", "test"), threads, **more)

    yield open_it
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def window() -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(1, 2, *SHAPE))
    return np.clip(scipy.ndimage.gaussian_filter(noise, (0, 0, 2, 2, 2)) * 4, -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def logits(bundle: Bundle, network: UNet, window: np.ndarray) -> np.ndarray:
    """The network in double precision, float64 [3, z, y, x]."""
    exact = UNet(ARCHITECTURE).double().eval()
    exact.load_state_dict(network.state_dict())
    with torch.no_grad():
        return exact(torch.from_numpy(window).double())[0].numpy()


def test_every_engine_that_can_be_chosen_is_here() -> None:
    assert set(WEIGHTS) < set(ENGINES)


def test_gives_the_networks_own_values(opened: Open, window: np.ndarray, logits: np.ndarray) -> None:
    found = opened().run(window)
    assert found.dtype == np.float32 and found.shape == (3, *SHAPE)
    assert logits.std() > 1, "something to be wrong about"
    np.testing.assert_allclose(found, logits, atol=1e-3)


@pytest.mark.parametrize("branch", ACTIVATIONS)
def test_fixed_point_is_the_activation_times_the_units(
    opened: Open, branch: str, window: np.ndarray, logits: np.ndarray
) -> None:
    units = np.random.default_rng(0).uniform(20_000, 65_000, SHAPE).astype(np.float32)
    values = {
        "softmax": scipy.special.softmax(logits, axis=0),
        "sigmoid": scipy.special.expit(logits),
        "heatmap": np.clip(logits, 0, 1),
    }[ACTIVATIONS[branch]]
    found = opened(branch).run_fixed(window, units)
    assert found.dtype == np.uint16 and found.shape == (3, *SHAPE)
    assert np.abs(found - values * units).max() < 0.5 + 65_000 * 2e-4  # to the rounding of float32 logits


def test_leaves_what_it_is_given_alone_and_says_the_same_again(opened: Open, window: np.ndarray) -> None:
    engine = opened()
    mine, units = window.copy(), np.full(SHAPE, 60_000, np.float32)
    first, fixed = engine.run(mine), engine.run_fixed(mine, units)
    kept, kept_fixed = first.copy(), fixed.copy()
    assert np.array_equal(mine, window) and (units == 60_000).all()
    engine.run(window[:, :, ::-1]), engine.run_fixed(window[:, :, ::-1], units)
    assert np.array_equal(first, kept) and np.array_equal(fixed, kept_fixed), "results are the caller's"
    assert np.array_equal(engine.run(window), first) and np.array_equal(
        engine.run_fixed(window, units), fixed
    )


def test_takes_a_part_of_a_larger_array(opened: Open, window: np.ndarray) -> None:
    large = np.zeros((1, 2, 30, 30, 30), np.float64)
    part = large[:, :, 3:19, 2:26, 5:25]
    part[...] = window
    engine = opened()
    assert np.array_equal(engine.run(part), engine.run(window))


def test_a_shifted_input_gives_a_shifted_output(opened: Open) -> None:
    """By the network's own step. Something small far from the border, so that neither the zeros beyond it nor the
    norm's mean and variance change."""
    thing = np.random.default_rng(2).normal(size=(2, 4, 4, 4)).astype(np.float32)
    step, reach = np.array(ARCHITECTURE.divisor), 12
    inputs = np.zeros((2, 1, 2, 40, 40, 40), np.float32)
    for n in (0, 1):
        z, y, x = 17 + n * step
        inputs[n, 0, :, z : z + 4, y : y + 4, x : x + 4] = thing
    first, second = (opened().run(one) for one in inputs)
    a, b, c = step
    before = first[:, reach : -reach - a, reach : -reach - b, reach : -reach - c]
    after = second[:, reach + a : -reach, reach + b : -reach, reach + c : -reach]
    assert np.abs(first[:, 12, 12, 12] - first[:, 19, 19, 19]).max() > 0.1, "the thing is seen"
    # Sums of float32 in another order: a few units in the sixth digit.
    np.testing.assert_allclose(after, before, rtol=5e-5, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_an_error_not_an_empty_scan(
    opened: Open, window: np.ndarray, value: float
) -> None:
    engine = opened()
    broken = window.copy()
    broken[0, 1, 3, 4, 5] = value
    for run in (engine.run, lambda w: engine.run_fixed(w, np.ones(SHAPE, np.float32))):
        with pytest.raises(
            EngineError, match="anchor network gave values that are NaN or infinite on cpu in fp32"
        ):
            run(broken)
    assert np.isfinite(engine.run(window)).all(), "it can be used again"


@pytest.mark.parametrize(
    "shape",
    [(1, 3, *SHAPE), (1, 1, *SHAPE), (1, 2, 15, 24, 20), (1, 2, 16, 24, 19), (2, *SHAPE)],
    ids=["a channel too many", "a channel too few", "odd z", "odd x", "no batch"],
)
def test_an_input_that_does_not_fit_is_an_error(opened: Open, shape: tuple[int, ...]) -> None:
    engine = opened()
    window = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with pytest.raises(SoarsError) as caught:
        engine.run(window)
    assert "anchor" in str(caught.value) or "b.onnx" in str(caught.value)


@pytest.mark.parametrize("threads", [1, 2])
def test_takes_the_threads_it_is_given(opened: Open, window: np.ndarray, threads: int) -> None:
    engine = opened(threads=threads)
    session = getattr(engine, "_session", None)
    options = session._session.get_session_options() if session else None
    assert threads == (options.intra_op_num_threads if options else torch.get_num_threads())
    np.testing.assert_allclose(engine.run(window), opened(threads=3 - threads).run(window), atol=1e-4)


def test_a_cancel_ends_between_two_windows(opened: Open, bundle: Bundle) -> None:
    """The cascade checks before every window: no more than one runs after the request."""
    engine, ran = opened(), []

    class Counting:
        def run(self, window: np.ndarray) -> np.ndarray:
            return engine.run(window)

        def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
            ran.append(window.shape)
            return engine.run_fixed(window, units)

    def step(done: int, of: int) -> None:
        assert of > 3
        if done == 2:
            raise CancelledError("cancelled; nothing was written")

    ct = np.zeros((32, 32, 32), np.float32)
    sources = [CtChannel(ct), CtChannel(ct)]
    grid = Grid((0.0, 0.0, 0.0), (3.0, 3.0, 3.0), (32, 32, 32))
    with pytest.raises(CancelledError):
        slide(Counting(), bundle.branches["anchor"], grid, sources, step)
    assert ran == [(1, 2, 16, 16, 16)] * 2


def _other_weights(folder: Path) -> Bundle:
    """Weights of another network: other features as safetensors, another number of channels as ONNX."""
    save_file(UNet(Architecture.plain(2, 3, (4, 16))).state_dict(), folder / "b.safetensors")
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 5, "z", "y", "x"]) for name in ("x", "y")
    ]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", value[:1], value[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "b.onnx"
    )
    return _with(folder)


def _no_weights(folder: Path) -> Bundle:
    for name in ("b.safetensors", "b.onnx"):
        (folder / name).write_bytes(b"not weights")
    return _with(folder)


def _with(folder: Path) -> Bundle:
    files = {"safetensors": "b.safetensors", "onnx": "b.onnx"}
    spec = BranchSpec(
        "anchor", ("ct",), CLASSES["anchor"], "softmax", (3.0, 3.0, 3.0), (16, 16, 16), ARCHITECTURE, files
    )
    return bundle_of(folder, [spec])


@pytest.mark.parametrize("engine", WEIGHTS)
@pytest.mark.parametrize("damage", [_other_weights, _no_weights])
def test_weights_that_do_not_fit_are_refused_with_the_files_name(
    engine: str, damage: Callable[[Path], Bundle], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"b\.(safetensors|onnx): "):
        open_engine(damage(tmp_path), "anchor", EngineInfo(engine, "cpu", "fp32", "test"), 1)


@pytest.mark.parametrize("engine", WEIGHTS)
def test_changed_weights_are_refused(engine: str, bundle: Bundle, tmp_path: Path) -> None:
    for name in ("b.safetensors", "b.onnx"):
        data = bytearray((bundle.folder / name).read_bytes())
        (tmp_path / name).write_bytes(data)
    copy = _with(tmp_path)
    for name in ("b.safetensors", "b.onnx"):
        data = bytearray((tmp_path / name).read_bytes())
        data[-1] ^= 1
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleError, match="differs|changed|manifest"):
        open_engine(copy, "anchor", EngineInfo(engine, "cpu", "fp32", "test"), 1)
