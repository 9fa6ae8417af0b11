"""What is made from the catalogue lies where the module finds it, and Slicer's core reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer

from soars.catalogue import CATALOGUE
from soars.catalogue.slicer_terms import COLOUR_FILE
from SOARSSegmentationLib.scene import terminology


def test_slicer_loads_the_terminology_once(tmp_path: Path) -> None:
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    assert not terminology.load_terminology(logic, tmp_path)  # not there
    assert terminology.load_terminology(logic) and terminology.load_terminology(logic)
    assert logic.IsTerminologyContextLoaded(terminology.CONTEXT_NAME)


def test_slicer_loads_the_colour_table(core: Any) -> None:
    logic = slicer.vtkSlicerColorLogic()
    logic.SetMRMLApplicationLogic(core.application)
    logic.SetMRMLScene(core.scene)
    node = logic.LoadColorFile(str(terminology.RESOURCES / COLOUR_FILE), "SOARS organs at risk")
    for value, oar in enumerate(CATALOGUE.values(), start=1):
        rgba = [0.0] * 4
        assert node.GetColorName(value) == oar.name and node.GetColor(value, rgba)
        assert [round(255 * c) for c in rgba[:3]] == list(oar.colour)
    logic.SetMRMLScene(None)
