"""A layout for reviewing contours: the axial slice large, the other planes and the 3D view beside it."""

from __future__ import annotations

from typing import Any

import slicer

LAYOUT = 5042
"""A number that neither Slicer nor its script repository uses."""
_SLICE = """<view class="vtkMRMLSliceNode" singletontag="{name}">
<property name="orientation" action="default">{orientation}</property>
<property name="viewlabel" action="default">{label}</property>
<property name="viewcolor" action="default">{colour}</property></view>"""
_AXIAL = _SLICE.format(name="Red", orientation="Axial", label="R", colour="#F34A33")
_CORONAL = _SLICE.format(name="Green", orientation="Coronal", label="G", colour="#6EB04B")
_SAGITTAL = _SLICE.format(name="Yellow", orientation="Sagittal", label="Y", colour="#EDD54C")
_3D = """<view class="vtkMRMLViewNode" singletontag="1">
<property name="viewlabel" action="default">1</property></view>"""
DESCRIPTION = f"""<layout type="horizontal" split="true">
<item splitSize="680">{_AXIAL}</item>
<item splitSize="320"><layout type="vertical" split="true">
<item>{_CORONAL}</item><item>{_SAGITTAL}</item><item>{_3D}</item>
</layout></item></layout>"""


def register_layout() -> None:
    """Tell Slicer the layout. A scene keeps its number only: one that was saved with it has no views in a Slicer that
    does not know it."""
    manager = slicer.app.layoutManager()
    if manager is None:  # no main window
        return
    node = manager.layoutLogic().GetLayoutNode()
    if not node.IsLayoutDescription(LAYOUT):
        node.AddLayoutDescription(LAYOUT, DESCRIPTION)


class ReviewLayout:
    """Sets the layout while the module is shown; the previous one comes back unless the user has chosen another."""

    def __init__(self) -> None:
        self._before: int | None = None

    def show(self) -> None:
        manager = slicer.app.layoutManager()
        if manager is None:  # no main window
            return
        register_layout()
        node = manager.layoutLogic().GetLayoutNode()
        if manager.layout != LAYOUT:
            self._before = manager.layout
            manager.setLayout(LAYOUT)
            return
        if self._before is None:  # of a scene that was saved with it
            self._before = node.SlicerLayoutFourUpView
        # The manager does nothing where the number is set already; the node takes up a description that came later.
        node.SetViewArrangement(LAYOUT)

    def restore(self) -> None:
        manager: Any = slicer.app.layoutManager()
        if manager is not None and self._before is not None and manager.layout == LAYOUT:
            manager.setLayout(self._before)
        self._before = None
