"""Slicer's layout manager, as far as a layout is asked for and set, on the real layout logic and its node.

It does what ``qMRMLLayoutManager`` does: the layout is the node's view arrangement; the one that is set already is not
set again, and for one that is not registered comes the conventional one.
"""

from __future__ import annotations

from typing import Any

import slicer


class LayoutManager:
    """``close`` it before the scene goes."""

    def __init__(self, scene: Any) -> None:
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self.setLayout(self.node.SlicerLayoutFourUpView)

    @property
    def node(self) -> Any:
        return self._logic.GetLayoutNode()

    def layoutLogic(self) -> Any:
        return self._logic

    def setLayout(self, number: int) -> None:
        if self.layout == number:
            return
        known = self.node.IsLayoutDescription(number)
        self.node.SetViewArrangement(number if known else self.node.SlicerLayoutConventionalView)

    @property
    def layout(self) -> int:
        return int(self.node.GetViewArrangement())

    @layout.setter
    def layout(self, number: int) -> None:
        self.setLayout(number)

    def planes(self) -> dict[str, str]:
        """The slice views that are shown, and their orientations."""
        nodes = self._logic.GetViewNodes()
        views = [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
        return {one.GetLayoutName(): one.GetOrientation() for one in views if one.IsA("vtkMRMLSliceNode")}

    def close(self) -> None:
        self._logic.SetMRMLScene(None)
