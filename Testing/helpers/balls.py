"""A cascade that finds balls where it is told to: the command line without networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soars.bundle.manifest import BranchSpec, Bundle
from soars.cascade.engine import EngineInfo
from soars.ct.images import CtScan
from soars.findings.finding import CHECK, Finding, Where
from soars.networks.architecture import Architecture
from soars.progress import Reporter
from soars.run.segment import SegmentOptions, SegmentResult, wanted_organs
from soars.structures import Geometry, StructureSet

ORGANS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R")
FOUND = {"Brainstem": (0, 0, 10), "Parotid_L": (20, 0, 0), "Parotid_R": (-20, 0, 0)}
UNUSUAL = Finding(
    "Parotid_L",
    "volume",
    CHECK,
    "its volume of 2.1 cc is unusual",
    "Look at it.",
    Where(3, "left", (1.0, 2.0, 3.0)),
)
CARD = "# Card\n\n## Trained on\n\nTen balls.\n\n## What it cannot do\n\n- patients\n"


def a_bundle() -> Bundle:
    """A bundle of four anchors; without weights."""
    architecture = Architecture.plain(1, len(ORGANS) + 1, (4,))
    anchor = BranchSpec(
        "anchor", ("ct",), ORGANS, "softmax", (3, 3, 3), (8, 8, 8), architecture, {"onnx": "a.onnx"}
    )
    return Bundle(
        name="balls",
        version="1.0.0",
        format_version=1,
        folder=Path("balls"),
        description="Balls",
        licence="Apache-2.0",
        window_hu=(-500, 1000),
        branches={"anchor": anchor},
        voi_mm={},
        card=CARD,
        files={},
        sha256="cd" * 32,
    )


def fake_segment(ct: CtScan, bundle: Bundle, options: SegmentOptions, progress: Reporter) -> SegmentResult:
    """Three balls around the middle of the CT; the spinal cord is absent."""
    geometry = Geometry.of(ct.image)
    centre = geometry.corners().mean(axis=0)
    places = geometry.to_physical(np.stack(np.indices(geometry.shape), axis=-1))
    structures = StructureSet(geometry)
    wanted = wanted_organs(bundle, options.organs)
    for name, offset in FOUND.items():
        if name in wanted:
            structures.add(name, ((places - centre - offset) ** 2).sum(-1) <= 8**2)
    return SegmentResult(
        structures,
        absent={name: "outside the scan" for name in wanted if name not in FOUND},
        findings=(UNUSUAL,) if "Parotid_L" in wanted else (),
        look_order=wanted,
        warnings=[*ct.warnings, f"Parotid_L: {UNUSUAL.sentence()}"],
        engine=EngineInfo("onnxruntime 1", "cpu", "fp32", "the only one installed"),
        timings_s={"prepare": 0.5, "anchor": 1.5, "total": 2.0},
        sha256=bundle.sha256,
    )
