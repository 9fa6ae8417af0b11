"""Scenes that are closed, opened and imported while the module is there: Slicer keeps the nodes that are only once in a
scene (the segment editor's, the module's parameters, the layout), resets them, and writes the file's values into them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")

CHANGE = 3


# --- overwriting -------------------------------------------------------------------------------------------------
def test_in_a_scene_after_another_painting_still_takes_nothing_from_a_neighbour(visit: Any) -> None:
    node = visit.window.editor.node
    assert node.GetOverwriteMode() == node.OverwriteNone
    slicer.mrmlScene.Clear(0)
    assert slicer.mrmlScene.GetSingletonNode("SOARSSegmentation", node.GetClassName()) is node
    assert node.GetOverwriteMode() == node.OverwriteNone, "before anybody asks the section for it"
    visit.ct = visit.application.core.add_ct(visit.structures.geometry, name="Next CT")
    visit.propose()
    visit.start()
    visit.click("Brainstem")
    visit.paint(np.s_[6:8, 6:8, 10:14])  # 8 of its own voxels, 8 of the parotid
    visit.click("Eye_L")
    assert visit.cell("Brainstem", CHANGE) == "+0.02"
    assert visit.cell("Parotid_L", CHANGE) == ""


def test_a_choice_of_the_reader_holds_until_the_scene_is_closed(visit: Any) -> None:
    node = visit.window.editor.node
    node.SetOverwriteMode(node.OverwriteVisibleSegments)
    visit.propose()
    visit.widget.exit()
    visit.widget.enter()
    assert visit.window.editor.node.GetOverwriteMode() == node.OverwriteVisibleSegments
    slicer.mrmlScene.Clear(0)
    assert node.GetOverwriteMode() == node.OverwriteNone


def test_the_users_own_default_of_overwriting_holds_in_the_next_scene_too(visit: Any) -> None:
    node = visit.window.editor.node
    usual = slicer.mrmlScene.CreateNodeByClass(node.GetClassName())
    usual.UnRegister(None)
    usual.SetOverwriteMode(usual.OverwriteVisibleSegments)
    slicer.mrmlScene.AddDefaultNode(usual)
    slicer.mrmlScene.Clear(0)
    assert visit.window.editor.node.GetOverwriteMode() == usual.OverwriteVisibleSegments
