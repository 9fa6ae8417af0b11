"""A network whose values are no numbers gives no contours, rather than organs that are said to be missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import SimpleITK as sitk
from tiny_bundle import patient, write_tiny_bundle

from soars.bundle.store import write_manifest
from soars.cli import main


def spoil(bundle: Path, value: float, *, only_in_air: bool) -> None:
    """Let the network give ``value``, everywhere or only where it sees air."""
    path = bundle / "anchor.onnx"
    model = onnx.load(str(path))
    graph, helper = model.graph, onnx.helper
    for node in graph.node:
        node.output[:] = ["clean" if name == "y" else name for name in node.output]
    odd = onnx.numpy_helper.from_array(np.array(value, np.float32), "odd")
    edge = onnx.numpy_helper.from_array(np.array(-0.9 if only_in_air else 2.0, np.float32), "edge")
    graph.initializer.extend([odd, edge])
    graph.node.extend(
        [
            helper.make_node("Less", ["x", "edge"], ["there"]),
            helper.make_node("Where", ["there", "odd", "clean"], ["y"]),
        ]
    )
    onnx.save(model, str(path))
    fields = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {k: v for k, v in fields.items() if k not in ("format_version", "card", "files")})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("only_in_air", [False, True], ids=["everywhere", "in air"])
def test_a_network_without_numbers_is_an_error_and_no_missing_organ(
    tmp_path: Path, value: float, only_in_air: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    spoil(bundle, value, only_in_air=only_in_air)
    sitk.WriteImage(patient().image, str(tmp_path / "ct.nrrd"))
    words = [
        "segment",
        tmp_path / "ct.nrrd",
        "--output",
        tmp_path / "out",
        "--bundle",
        bundle,
        "--device",
        "cpu",
    ]
    assert main(list(map(str, words))) == 2
    assert "anchor network gave values that are NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
