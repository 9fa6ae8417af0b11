"""Windows cover the grid, probabilities are averaged, and masks come back to the CT in the right place."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.bundle.manifest import BranchSpec
from soars.cascade.activations import fixed_point
from soars.cascade.layout import (
    CLOSE_STRIDE,
    STRIDE,
    centred,
    stride_for,
    window_corners,
    window_shape,
    window_weights,
)
from soars.cascade.placement import place_sigmoid, place_softmax
from soars.cascade.preprocess import Grid
from soars.cascade.windows import AIR, CtChannel, Exchange, Foreground, ProbabilityMap, slide
from soars.networks.architecture import Architecture
from soars.structures import Geometry


def spec_of(
    channels: int, classes: int, patch: tuple[int, int, int], activation: str = "softmax"
) -> BranchSpec:
    architecture = Architecture.plain(channels, classes + (activation == "softmax"), (4, 4, 4))
    names = tuple(f"class{i}" for i in range(classes))
    return BranchSpec("anchor", ("ct",), names, activation, (1.0, 1.0, 1.0), patch, architecture, {})


class Recorder:
    """An engine that notes the windows it is shown and answers with the first input channel as a probability."""

    def __init__(self, classes: int = 1, noise: float = 0.0) -> None:
        self.classes, self.noise, self.windows = classes, noise, []
        self.rng = np.random.default_rng(0)

    def run(self, window: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        self.windows.append(window)
        p = np.clip(window[0, :1] + self.rng.normal(0, self.noise, window.shape[2:]), 0, 1)
        parts = np.concatenate([(1 - p) * units, *[p / self.classes * units] * self.classes])
        return (parts + 0.5).astype(np.uint16)


def grid_of(shape: tuple[int, int, int]) -> Grid:
    return Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), shape[::-1])


def no_step(done: int, of: int) -> None:
    pass


def covered(
    corners: list[tuple[int, int, int]], window: tuple[int, int, int], shape: tuple[int, ...]
) -> np.ndarray:
    seen = np.zeros(shape, int)
    for corner in corners:
        seen[tuple(slice(max(a, 0), a + w) for a, w in zip(corner, window, strict=True))] += 1
    return seen


def neck_and_shoulders(shape: tuple[int, int, int] = (90, 60, 140)) -> np.ndarray:
    body = np.zeros(shape, bool)
    body[45:, 10:50, 50:90] = True
    body[:45, 5:55, 2:138] = True
    return body


@pytest.mark.parametrize("window", [(16, 16, 16), (32, 48, 48), (64, 64, 64), (96, 64, 160)])
@pytest.mark.parametrize("stride", [0.25, 0.375, 0.5, 0.75])
def test_windows_cover_the_body(window: tuple[int, int, int], stride: float) -> None:
    body = neck_and_shoulders()
    corners = window_corners(body, window, stride)
    assert len(set(corners)) == len(corners)
    seen = covered(corners, window, body.shape)
    assert (seen[body] >= 1).all()
    for corner in corners:
        assert body[tuple(slice(max(a, 0), a + w) for a, w in zip(corner, window, strict=True))].any()


@pytest.mark.parametrize("extent", [64, 65, 96, 97, 128, 200, 333])
def test_windows_over_a_solid_block_are_a_stride_apart_and_no_more_than_it_takes(extent: int) -> None:
    for axis in range(3):
        shape = [64, 64, 64]
        shape[axis] = extent
        corners = window_corners(np.ones(shape, bool), (64, 64, 64), 0.5)
        along = sorted({corner[axis] for corner in corners})
        assert along[0] <= 0 and along[-1] + 64 >= extent and set(np.diff(along)) <= {32}
        # One less would not do: all but a whole step at each end are needed.
        assert along[0] > -32 and along[-1] + 64 < extent + 32


def test_shoulders_cost_no_window_at_the_head() -> None:
    corners = window_corners(neck_and_shoulders(), (32, 64, 64), 0.5)
    assert sorted({x for z, _, x in corners if z == 58}) == [22, 54], (
        "to both sides of the neck's middle (70)"
    )
    assert len({x for z, _, x in corners if z < 45 - 32}) > 2
    assert window_corners(np.zeros((90, 60, 140), bool), (32, 64, 64), 0.5) == []


def test_windows_follow_the_patient_wherever_it_lies_on_the_grid() -> None:
    """Air around the patient, and more or less of the chest below, move no window."""
    window = (32, 48, 48)
    body, middle = neck_and_shoulders(), (90, 30, 70)
    corners = window_corners(body, window, 0.5, middle)
    assert corners == window_corners(body, window, 0.5), "the middle of the body, when no other is named"
    padded = np.pad(body, ((0, 7), (60, 70), (51, 80)))
    moved = window_corners(padded, window, 0.5, (90, 90, 121))
    assert moved == [(z, y + 60, x + 51) for z, y, x in corners]
    longer = np.concatenate([np.repeat(body[:1], 37, axis=0), body])
    assert {(z - 37, y, x) for z, y, x in window_corners(longer, window, 0.5, (127, 30, 70))} > set(corners)


def test_a_shoulder_cut_off_or_a_couch_moves_no_window() -> None:
    window, middle = (32, 48, 48), (90, 30, 70)
    corners = set(window_corners(neck_and_shoulders(), window, 0.5, middle))
    narrow = neck_and_shoulders()
    narrow[:, :, 110:] = False
    assert set(window_corners(narrow, window, 0.5, middle)) < corners
    couch = neck_and_shoulders()
    couch[:, 58:, 3:] = True
    assert set(window_corners(couch, window, 0.5, middle)) >= corners


def test_one_window_stands_in_the_middle_where_that_takes_fewer() -> None:
    """230 mm: two windows of 192 mm a 72 mm apart, one of 256, three (not four) of 128 that are 64 apart."""
    assert not centred(64, 0.375, 115.0, 3.0)
    assert centred(128, 0.5, 115.0, 2.0)
    assert centred(128, 0.5, 115.0, 1.0)
    corners = window_corners(np.ones((8, 230, 230), bool), (8, 128, 128), 0.5, (8, 115, 115), (True, False))
    assert sorted({y for _, y, _ in corners}) == [-13, 51, 115]
    assert sorted({x for _, _, x in corners}) == [-45, 19, 83, 147]


def test_what_lies_far_to_the_side_gets_no_window() -> None:
    """Shoulders: windows for 160 mm to either side, and background beyond what they cover."""
    ct = np.full((8, 24, 500), 0.9, np.float32)
    engine = Recorder()
    result = slide(engine, spec_of(1, 1, (8, 16, 64)), grid_of(ct.shape), [CtChannel(ct)], no_step)
    seen = result.labels()[4, 12] == 1
    assert seen[90:410].all() and not seen[:50].any() and not seen[450:].any()


def test_the_mirror_image_gets_the_mirrored_windows() -> None:
    window, width = (32, 64, 48), 140
    body = neck_and_shoulders()
    body[:20, 20:30, 120:] = False
    corners = window_corners(body, window, 0.375, (90, 30, 68))
    mirrored = window_corners(np.ascontiguousarray(body[:, :, ::-1]), window, 0.375, (90, 30, width - 68))
    assert {(z, y, width - x - window[2]) for z, y, x in mirrored} == set(corners)


class Lopsided(Recorder):
    """A network that prefers one side: the first class is the CT, fainter towards the window's end."""

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        self.windows.append(window)
        p = window[0, :1] * np.linspace(1, 0.2, window.shape[4], dtype=np.float32)
        return (np.concatenate([(1 - p) * units, 0.7 * p * units, 0.3 * p * units]) + 0.5).astype(np.uint16)


def test_a_mirrored_patient_gets_the_mirrored_organs_of_a_network_that_is_not_symmetrical() -> None:
    """Exactly, apart from the rounding: with left and right exchanged."""
    ct = np.random.default_rng(5).uniform(0, 1, (20, 30, 56)).astype(np.float32)
    exchange = Exchange((0,), (0, 2, 1))
    spec, grid = spec_of(1, 2, (16, 16, 16)), grid_of(ct.shape)
    here = slide(Lopsided(), spec, grid, [CtChannel(ct)], no_step, (20, 15, 28), exchange).values.astype(int)
    turned = np.ascontiguousarray(ct[:, :, ::-1])
    there = slide(Lopsided(), spec, grid, [CtChannel(turned)], no_step, (20, 15, 28), exchange).values
    assert np.abs(here - there[[0, 2, 1], :, :, ::-1].astype(int)).max() <= 8
    plain = slide(Lopsided(), spec, grid, [CtChannel(turned)], no_step, (20, 15, 28)).values
    assert np.abs(here - plain[[0, 2, 1], :, :, ::-1].astype(int)).max() > 5000, "which is not so by itself"


def test_a_windows_weight_falls_towards_its_rim_and_never_to_nothing() -> None:
    weights = window_weights((16, 32, 64))
    assert weights.min() > 0 and weights.max() == pytest.approx(1, abs=0.1)
    sd = 0.125 * 64
    assert weights[8, 16, 32 + 8] / weights[8, 16, 32] == pytest.approx(
        math.exp(-(8.5**2 - 0.5**2) / (2 * sd**2)), rel=1e-5
    )


def test_a_small_network_gets_closer_windows() -> None:
    assert stride_for(spec_of(1, 1, (64, 64, 64))) == CLOSE_STRIDE < STRIDE
    large = Architecture.plain(1, 43, (32, 64, 128, 256, 320, 320))
    spec = BranchSpec("anchor", ("ct",), ("a",), "softmax", (1.0, 1.0, 1.0), (64, 64, 64), large, {})
    assert stride_for(spec) == STRIDE
    assert stride_for(replace(spec, stride=0.25)) == 0.25, "the bundle's own wish comes first"


def test_a_short_axis_gets_a_window_of_a_multiple_of_the_divisor() -> None:
    assert window_shape((10, 33, 500), spec_of(1, 1, (64, 64, 64))) == (12, 36, 64)


def test_averaged_probabilities_are_those_of_the_windows() -> None:
    rng = np.random.default_rng(3)
    ct = rng.uniform(0, 1, (30, 50, 41)).astype(np.float32)
    result = slide(Recorder(), spec_of(1, 1, (16, 16, 16)), grid_of(ct.shape), [CtChannel(ct)], no_step)
    np.testing.assert_allclose(result.probability(1), ct, atol=2e-3)
    np.testing.assert_allclose(result.probability(0), 1 - ct, atol=2e-3)
    np.testing.assert_allclose(result.values.sum(axis=0) / result.unit, 1, atol=2e-3)
    np.testing.assert_array_equal(result.labels() == 1, result.values[1] > result.values[0])


class Rimless(Recorder):
    """A network that knows nothing in the outer quarter of its window: there is an organ, and it says there is none."""

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        middle = np.zeros_like(window)
        middle[:, :, 4:-4, 4:-4, 4:-4] = 1
        return super().run_fixed(window * middle, units)


def test_no_windows_border_shows_where_networks_know_nothing_at_their_rim() -> None:
    """An organ is whole although each window sees it only in its middle: plain averaging notches it at the borders."""
    ct = np.full((60, 60, 60), 0.9, np.float32)
    result = slide(Rimless(), spec_of(1, 1, (16, 16, 16)), grid_of(ct.shape), [CtChannel(ct)], no_step)
    assert (result.labels()[8:-8, 8:-8, 8:-8] == 1).all()


def test_windows_that_differ_are_averaged_without_a_step_between_neighbours() -> None:
    """Windows that each say something else over all of their box: the sum goes from one to the next in small steps."""

    class Opinionated(Recorder):
        def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
            return super().run_fixed(np.full_like(window, self.rng.uniform(0, 1)), units)

    ct = np.full((64, 64, 192), 0.5, np.float32)
    result = slide(Opinionated(), spec_of(1, 1, (64, 64, 64)), grid_of(ct.shape), [CtChannel(ct)], no_step)
    line = result.probability(1)[32, 32]
    assert np.ptp(line) > 0.1 and np.abs(np.diff(line)).max() < 0.15 * np.ptp(line)


def test_windows_without_body_are_skipped_and_are_background() -> None:
    ct = np.full((16, 16, 64), AIR, np.float32)
    ct[:, :, :10] = 0.3
    engine = Recorder()
    result = slide(engine, spec_of(1, 1, (16, 16, 16)), grid_of(ct.shape), [CtChannel(ct)], no_step)
    assert len(engine.windows) == 2, "beside the middle of the body, to the left and to the right"
    assert all((window > AIR).any() for window in engine.windows)
    assert (result.probability(0)[:, :, 20:] == 1).all() and (result.labels()[:, :, 20:] == 0).all()


def test_what_a_network_sees_in_air_far_from_the_body_is_background() -> None:
    class Everywhere(Recorder):
        def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
            return super().run_fixed(np.ones_like(window), units)

    ct = np.full((16, 16, 64), AIR, np.float32)
    ct[:, :, :10] = 0.3
    ct[4:8, 4:8, 4:8] = AIR  # an airway
    result = slide(Everywhere(), spec_of(1, 1, (16, 16, 64)), grid_of(ct.shape), [CtChannel(ct)], no_step)
    organ = result.labels() == 1
    assert organ[:, :, :22].all() and not organ[:, :, 22:].any()  # the grid's voxels are 1 mm
    assert (result.probability(0)[:, :, 22:] == 1).all()


def test_a_small_volume_has_air_and_no_organ_beside_it_and_goes_on_as_in_a_mirror_beyond_its_ends() -> None:
    engine = Recorder()
    ct = np.full((5, 7, 9), 0.25, np.float32) + np.arange(5, dtype=np.float32)[:, None, None] / 16
    guide = ProbabilityMap(grid_of(ct.shape), np.full((2, *ct.shape), 100, np.uint16), 200, True)
    result = slide(
        engine, spec_of(2, 1, (64, 64, 64)), grid_of(ct.shape), [CtChannel(ct), Foreground(guide)], no_step
    )
    corners = window_corners(ct > AIR, (8, 8, 12), CLOSE_STRIDE)
    assert len(corners) == len(engine.windows) > 0
    for channel, volume, outside in ((0, ct, AIR), (1, np.full(ct.shape, 0.5), 0.0)):
        wide = np.full((40, 40, 40), outside, np.float32)
        for slice_number in range(40):
            turned = abs(slice_number - 16) % 8  # 0 1 2 3 4 3 2 1 0 ... about the first slice
            wide[slice_number, 16:23, 16:25] = volume[min(turned, 8 - turned)]
        for (z, y, x), window in zip(corners, engine.windows, strict=True):
            expected = wide[16 + z : 24 + z, 16 + y : 24 + y, 16 + x : 28 + x]
            np.testing.assert_array_equal(window[0, channel], expected)
    np.testing.assert_allclose(result.probability(1), ct, atol=1e-4)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "heatmap"])
def test_fixed_point_is_the_activation(activation: str) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (4, 2, 3, 5)).astype(np.float32)
    units = np.random.default_rng(2).uniform(2047, 65000, logits.shape[1:]).astype(np.float32)
    e = np.exp(logits.astype(float))
    expected = {
        "softmax": e / e.sum(0), "sigmoid": 1 / (1 + 1 / e), "heatmap": np.clip(logits, 0, 1)
    }[activation]  # fmt: skip
    np.testing.assert_allclose(
        fixed_point(logits.copy(), activation, units) / units, expected, atol=0.5001 / 2047
    )


@pytest.mark.parametrize("direction", ["LPS", "RAI", "PIR", "oblique"])
def test_a_ramp_comes_back_in_the_same_place(direction: str) -> None:
    """A probability rising along x crosses 1/2 at x = 10.3 mm, whatever the CT's orientation and spacing."""
    grid = Grid((-20.0, -15.0, -12.0), (3.0, 3.0, 4.0), (20, 12, 9))
    x = np.arange(20) * 3.0 - 20.0
    p = np.broadcast_to(np.clip(0.5 + (x - 10.3) / 60, 0, 1), grid.shape)
    sums = np.rint(np.stack([1 - p, p]) * 60000).astype(np.uint16)
    map = ProbabilityMap(grid, sums, 60000, True)
    image = sitk.Image(50, 30, 25, sitk.sitkInt16)
    image.SetSpacing((0.7, 0.9, 1.1))
    image.SetOrigin((-5.0, -13.0, -11.0))
    if direction == "oblique":
        angle = math.radians(9)
        c, s = math.cos(angle), math.sin(angle)
        image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    else:
        image = sitk.DICOMOrient(image, direction)
    geometry = Geometry.of(image)
    start, mask = place_softmax(map, ("organ",), geometry, ("organ",))["organ"]
    full = np.zeros(geometry.shape, bool)
    full[tuple(slice(a, a + n) for a, n in zip(start, mask.shape, strict=True))] = mask
    index = np.stack(np.meshgrid(*map_range(geometry.shape), indexing="ij"), -1)
    points = geometry.to_physical(index)
    reach = (points >= np.array(grid.origin_mm) - 0.01) & (
        points <= grid.index_to_points(np.array(grid.shape) - 1) + 0.01
    )
    known = reach.all(-1) & (np.abs(points[..., 0] - 10.3) > 0.01)
    assert known.sum() > 10000
    np.testing.assert_array_equal(full[known], (points[..., 0] > 10.3)[known])


def map_range(shape: tuple[int, int, int]) -> list[np.ndarray]:
    return [np.arange(n) for n in shape]


@pytest.mark.parametrize("radius", [6.0, 15.0])
def test_a_sphere_keeps_centre_and_volume(radius: float) -> None:
    """From a 3 mm grid to a 1 x 1 x 2.5 mm CT: centre within 0.1 mm, volume within 5 % (the field is 2 mm soft)."""
    centre = np.array([1.7, -2.2, 3.1])
    grid = Grid((-40.0, -38.0, -35.0), (3.0, 3.0, 3.0), (27, 26, 24))
    z, y, x = np.meshgrid(*map_range(grid.shape), indexing="ij")
    distance = np.linalg.norm(grid.index_to_points(np.stack([z, y, x], -1)) - centre, axis=-1)
    p = 1 / (1 + np.exp((distance - radius) / 2.0))
    sums = np.rint(np.stack([1 - p, p]) * 65535).astype(np.uint16)
    geometry = Geometry((80, 78, 30), (1.0, 1.0, 2.5), (-40.0, -39.0, -36.0))
    map = ProbabilityMap(grid, sums, 65535, True)
    sigmoid = ProbabilityMap(grid, sums, 65535, False)
    both = place_softmax(map, ("organ",), geometry, ("organ",))["organ"], place_sigmoid(sigmoid, 1, geometry)
    for found in both:
        assert found is not None
        start, mask = found
        points = geometry.to_physical(np.argwhere(mask) + start)
        np.testing.assert_allclose(points.mean(axis=0), centre, atol=0.1)
        assert mask.sum() * 2.5 == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.05)


def test_only_what_is_asked_for_is_returned_and_it_is_the_same() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1, (6, 9, 10, 11)).astype(np.float32)
    logits = 3 * np.stack(
        [
            sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(c), 1.0))
            for c in logits
        ]
    )
    grid = grid_of((9, 10, 11))
    map = ProbabilityMap(
        grid, fixed_point(logits, "softmax", np.full(grid.shape, 65535, np.float32)), 65535, True
    )
    geometry = Geometry((22, 20, 18), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0))
    names = tuple("abcde")
    everything = place_softmax(map, names, geometry, names)
    some = place_softmax(map, names, geometry, ("b", "d"))
    assert set(some) == {"b", "d"}
    for name, (start, mask) in some.items():
        assert start == everything[name][0]
        np.testing.assert_array_equal(mask, everything[name][1])
    total = np.zeros(geometry.shape, int)
    for start, mask in everything.values():
        total[tuple(slice(a, a + n) for a, n in zip(start, mask.shape, strict=True))] += mask
    assert total.max() == 1, "no voxel has two organs of one softmax"


def test_memory_stays_bounded_with_43_classes() -> None:
    """43 classes everywhere on a 160 x 160 x 80 CT: far below a float32 volume a class (350 MB)."""
    grid = Grid((0.0, 0.0, 0.0), (3.0, 3.0, 3.0), (60, 60, 60))
    logits = np.random.default_rng(0).normal(0, 1, (43, 60, 60, 60)).astype(np.float32)
    values = fixed_point(logits, "softmax", np.full(grid.shape, 65535, np.float32))
    map = ProbabilityMap(grid, values, 65535, True)
    geometry = Geometry((160, 160, 80), (1.1, 1.1, 2.2), (0.0, 0.0, 0.0))
    tracemalloc.start()
    total = sum(
        int(mask.sum())
        for _, mask in place_softmax(map, [f"c{i}" for i in range(42)], geometry, {"c3"}).values()
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 0 and peak < 90e6


def test_a_cancel_stops_between_windows() -> None:
    def step(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    engine = Recorder()
    ct = np.zeros((40, 40, 40), np.float32)
    with pytest.raises(KeyboardInterrupt):
        slide(engine, spec_of(1, 1, (16, 16, 16)), grid_of(ct.shape), [CtChannel(ct)], step)
    assert len(engine.windows) == 2


def test_the_module_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, soars.run.segment; assert not {'torch', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
