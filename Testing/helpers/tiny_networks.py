"""Hand-built networks, bundles and scans for which the right answer is known in closed form.

The patient is an ellipsoid of soft tissue (0 HU) in air with spheres of other HU in it; the "networks" are ONNX graphs
that look at HU (and at the guiding channels) alone, so an organ is exactly the sphere of its HU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import SimpleITK as sitk
from onnx import TensorProto, helper, numpy_helper

from soars.bundle.integrity import sha256_of
from soars.bundle.manifest import BranchSpec, Bundle, FileEntry
from soars.ct.images import CtScan
from soars.networks.architecture import Architecture

WINDOW_HU = (-500.0, 1000.0)
TISSUE_HU, AIR_HU = 0.0, -1000.0


@dataclass(frozen=True)
class Sphere:
    """A sphere in LPS mm."""

    centre_mm: tuple[float, float, float]
    radius_mm: float
    hu: float


def scan_of(
    spheres: Sequence[Sphere],
    *,
    size: tuple[int, int, int] = (80, 70, 50),
    spacing: tuple[float, float, float] = (2.0, 2.0, 3.0),
    origin: tuple[float, float, float] = (-79.0, -69.0, -73.5),
    half_axes_mm: tuple[float, float, float] = (70.0, 66.0, 300.0),
    supersampling: int = 3,
) -> CtScan:
    """A head-first axial CT of the patient: an elliptic cylinder around the origin, with partial volume."""
    n = supersampling
    x, y, z = (
        o + (np.arange(s * n) - (n - 1) / 2) * d / n for o, s, d in zip(origin, size, spacing, strict=True)
    )
    a, b, c = half_axes_mm
    hu = np.empty((size[2], size[1], size[0]), np.float32)
    for k in range(size[2]):
        zz = z[k * n : (k + 1) * n, None, None]
        fine = np.where((x / a) ** 2 + (y[:, None] / b) ** 2 + (zz / c) ** 2 <= 1, TISSUE_HU, AIR_HU)
        for s in spheres:
            cx, cy, cz = s.centre_mm
            inside = (x - cx) ** 2 + (y[:, None] - cy) ** 2 + (zz - cz) ** 2 <= s.radius_mm**2
            fine = np.where(inside, s.hu, fine)
        hu[k] = fine.reshape(n, size[1], n, size[0], n).mean(axis=(0, 2, 4))
    image = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return CtScan(image, Path("sphere patient"))


def scaled(hu: float) -> float:
    """HU as the networks see them."""
    low, high = WINDOW_HU
    return 2 * (np.clip(hu, low, high) - low) / (high - low) - 1


@dataclass(frozen=True)
class Band:
    """A class that is there where |HU - `hu`| < `half_width`, but not where one of the `not_in` channels is."""

    hu: float
    half_width: float
    not_in: tuple[int, ...] = ()


def band_network(path: Path, bands: Sequence[Band], in_channels: int, *, background: bool) -> None:
    """Logits 0 for the background and ``120 (half_width - |HU - hu|)`` on the networks' scale for each class."""
    low, high = WINDOW_HU
    guides = np.zeros((len(bands), in_channels, 1, 1, 1), np.float32)
    for k, band in enumerate(bands):
        for channel in band.not_in:
            guides[k, channel] = -400.0
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "axis"], ["ct"]),
        helper.make_node("Sub", ["ct", "hu"], ["d"]),
        helper.make_node("Abs", ["d"], ["a"]),
        helper.make_node("Sub", ["width", "a"], ["b"]),
        helper.make_node("Mul", ["b", "gain"], ["bands"]),
        helper.make_node("Conv", ["x", "guides"], ["away"]),
        helper.make_node("Add", ["bands", "away"], ["classes"]),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "axis": np.array([1]),
        "hu": np.array([scaled(b.hu) for b in bands], np.float32).reshape(1, -1, 1, 1, 1),
        "width": np.array([2 * b.half_width / (high - low) for b in bands], np.float32).reshape(1, -1, 1, 1, 1),
        "gain": np.array(120.0, np.float32), "guides": guides,
    }  # fmt: skip
    if background:
        nodes.append(helper.make_node("Mul", ["ct", "none"], ["nothing"]))
        nodes.append(helper.make_node("Concat", ["nothing", "classes"], ["y"], axis=1))
        constants["none"] = np.array(0.0, np.float32)
    else:
        nodes[-1].output[0] = "y"
    _save(path, nodes, constants, in_channels, len(bands) + background)


def blob_network(path: Path, bands: Sequence[Band], in_channels: int, width: int = 5) -> None:
    """Heat maps: 1 inside a class's band, blurred by a box of `width` voxels, so that a sphere peaks at its centre."""
    low, high = WINDOW_HU
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "axis"], ["ct"]),
        helper.make_node("Sub", ["ct", "hu"], ["d"]),
        helper.make_node("Abs", ["d"], ["a"]),
        helper.make_node("Less", ["a", "width"], ["inside"]),
        helper.make_node("Cast", ["inside"], ["map"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["map"], ["y"], kernel_shape=[width] * 3, pads=[width // 2] * 6),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "axis": np.array([1]),
        "hu": np.array([scaled(b.hu) for b in bands], np.float32).reshape(1, -1, 1, 1, 1),
        "width": np.array([2 * b.half_width / (high - low) for b in bands], np.float32).reshape(1, -1, 1, 1, 1),
    }  # fmt: skip
    _save(path, nodes, constants, in_channels, len(bands))


def branch(
    folder: Path,
    name: str,
    bands: Mapping[str, Band],
    *,
    inputs: tuple[str, ...] = ("ct",),
    channels: int = 1,
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0),
    patch: tuple[int, int, int] = (32, 48, 48),
    activation: str = "softmax",
) -> BranchSpec:
    """Write the network of a branch that finds each class by its band and describe it."""
    file = f"{name}.onnx"
    if activation == "heatmap":
        blob_network(folder / file, list(bands.values()), channels)
    else:
        band_network(folder / file, list(bands.values()), channels, background=activation == "softmax")
    outputs = len(bands) + (activation == "softmax")
    architecture = Architecture.plain(channels, outputs, (4, 4))
    return BranchSpec(name, inputs, tuple(bands), activation, spacing_mm, patch, architecture, {"onnx": file})


def bundle_of(
    folder: Path,
    branches: Sequence[BranchSpec],
    voi_mm: Mapping[str, tuple[float, float, float]] | None = None,
) -> Bundle:
    """A bundle as `load_bundle` would give it, without going through a manifest."""
    names = [file for b in branches for file in b.files.values()]
    files = {n: FileEntry(sha256_of(folder / n), (folder / n).stat().st_size) for n in names}
    return Bundle(
        name="tiny", version="1", format_version=1, folder=folder, description="hand-built", licence="none",
        window_hu=WINDOW_HU, branches={b.name: b for b in branches}, voi_mm=voi_mm or {}, card="", files=files,
        sha256="",
    )  # fmt: skip


def turned(scan: CtScan, name: str) -> CtScan:
    """The same patient in the same place, stored in another orientation (e.g. "RAS", "PIR")."""
    return replace(scan, image=sitk.DICOMOrient(scan.image, name))


def _save(
    path: Path, nodes: list, constants: Mapping[str, np.ndarray], in_channels: int, out_channels: int
) -> None:
    shape_in, shape_out = ["b", in_channels, "z", "y", "x"], ["b", out_channels, "z", "y", "x"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape_out)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
