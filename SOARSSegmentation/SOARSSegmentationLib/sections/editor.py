"""Slicer's own segment editor in a section of the window, and the differences between its versions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import slicer
import vtk

from SOARSSegmentationLib.panels.parts import Notice, section
from SOARSSegmentationLib.sections.section import Section
from SOARSSegmentationLib.translation import _

EDITOR_TAG = "SOARSSegmentation"
"""An editor node of our own. Editor widgets that share a node activate their effects at the same time, send each other
undo states, and clear each other's segment. Work in the stand-alone Segment Editor still counts: a session listens to
every editor node of the scene."""
EDITOR_CLASS = "vtkMRMLSegmentEditorNode"
DEFAULTS_ATTRIBUTE = "SOARS.defaults"
"""On an editor node that has got its defaults. A closed scene keeps the node, but resets its values and takes its
attributes."""
UNDO_STATES = 20


class EditorSection(Section):
    """``on_segment(segment_id)`` is called when another segment is selected, wherever that was done; ``on_redo()``
    before the redo button works."""

    def __init__(self, on_segment: Callable[[str], None], on_redo: Callable[[], None]) -> None:
        self._on_segment = on_segment
        self._node: Any = None
        self._tag: int | None = None
        self._segment_id = ""
        self._edited: Any = None
        self._volume: Any = None
        self._to_settle = False
        self.widget, layout = section(_("Segment editor"))
        self.notice = Notice()
        layout.addWidget(self.notice.widget)
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMaximumNumberOfUndoStates(UNDO_STATES)
        # The node before the scene, so that what the widget chooses by itself is kept in it.
        self._use_node()
        self.editor.setMRMLScene(slicer.mrmlScene)
        # The review table does what these do.
        for name in (
            *("segmentationNodeSelectorVisible", "switchToSegmentationsButtonVisible"),
            *("sourceVolumeNodeSelectorVisible", "referenceVolumeNodeSelectorVisible"),
            *("jumpToSelectedSegmentEnabled",),
        ):
            if hasattr(self.editor, name):  # the volume is the "reference volume" in the newest versions
                setattr(self.editor, name, False)
        for name in ("SegmentsTableView", "AddSegmentButton", "RemoveSegmentButton"):
            with contextlib.suppress(RuntimeError):
                slicer.util.findChild(self.editor, name).visible = False
        with contextlib.suppress(RuntimeError):
            slicer.util.findChild(self.editor, "RedoButton").pressed.connect(on_redo)
        layout.addWidget(self.editor)

    @property
    def node(self) -> Any:
        """The segment editor node, with its defaults; made again when it was taken out of the scene."""
        self._use_node()
        return self._node

    def edit(self, segmentation_node: Any, volume_node: Any) -> None:
        """Edit this segmentation (None: none) on this CT; of another one than before, nothing is in hand."""
        in_node = self.node.GetSegmentationNode()  # a scene that was read may have put another one there
        another = segmentation_node is not self._edited or segmentation_node is not in_node
        self._edited, self._volume = segmentation_node, volume_node
        self.editor.setSegmentationNode(segmentation_node)
        if segmentation_node is not None:
            if hasattr(self.editor, "setReferenceVolumeNode"):
                self.editor.setReferenceVolumeNode(volume_node)
            else:
                self.editor.setSourceVolumeNode(volume_node)
        if another:
            self._put_down()
            self._to_settle = slicer.mrmlScene.IsBatchProcessing()
        self.editor.enabled = segmentation_node is not None

    def select(self, segment_id: str) -> None:
        self.node.SetSelectedSegmentID(segment_id)

    def _put_down(self) -> None:
        """Slicer's widget selects the first segment, and a scene that was read brings a segment and an effect along:
        nothing is in hand until the reader turns to it."""
        self.editor.updateWidgetFromMRML()
        self.editor.setActiveEffect(None)
        self.select("")

    def save_for_undo(self) -> None:
        """What comes now can be taken back by the editor's undo."""
        self.editor.saveStateForUndo()

    def forget_undo_steps(self) -> None:
        """What was done up to now can no longer be taken back: an undo brings back the segments of that time, too, and
        takes away those that were added since."""
        self.editor.undoEnabled = True  # which Slicer's widget answers by forgetting

    # --- life ----------------------------------------------------------------------------------------------------
    def enter(self) -> None:
        self._use_node()
        self.editor.setupViewObservations()
        self.editor.installKeyboardShortcuts()
        self.editor.updateWidgetFromMRML()

    def leave(self) -> None:
        self.editor.setActiveEffect(None)
        self.editor.uninstallKeyboardShortcuts()
        self.editor.removeViewObservations()

    def scene_closes(self) -> None:
        self._forget_node()
        self._edited = self._volume = None
        self.editor.setSegmentationNode(None)
        self.editor.removeViewObservations()

    def scene_settles(self) -> None:
        """What was chosen while a scene was read, Slicer's widget takes up now."""
        if self._to_settle:
            self._to_settle = False
            segmentation_node, self._edited = self._edited, None
            self.edit(segmentation_node, self._volume)

    def close(self) -> None:
        self.editor.uninstallKeyboardShortcuts()
        self.editor.removeViewObservations()
        self._forget_node()
        self.editor.setSegmentationNode(None)
        self.editor.setMRMLSegmentEditorNode(None)

    def _use_node(self) -> None:
        node = slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, EDITOR_CLASS) or _new_node(slicer.mrmlScene)
        _set_defaults(slicer.mrmlScene, node)
        if node is self._node:
            return
        self._forget_node()
        self._node = node
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._node_modified)
        self.editor.setMRMLSegmentEditorNode(node)

    def _forget_node(self) -> None:
        if self._node is not None and self._tag is not None:
            self._node.RemoveObserver(self._tag)
        self._node = self._tag = None

    def _node_modified(self, node: Any, event: str) -> None:
        segment_id = node.GetSelectedSegmentID() or ""
        if segment_id != self._segment_id:
            self._segment_id = segment_id
            self._on_segment(segment_id)


def _new_node(mrml_scene: Any) -> Any:
    node = mrml_scene.CreateNodeByClass(EDITOR_CLASS)
    node.UnRegister(None)
    node.SetSingletonTag(EDITOR_TAG)
    return mrml_scene.AddNode(node)


def _set_defaults(mrml_scene: Any, node: Any) -> None:
    """Once for a new or reset node: painting one organ takes nothing from its neighbours, as organs may overlap. The
    user's own defaults, where there are any, are in the node already."""
    if node.GetAttribute(DEFAULTS_ATTRIBUTE) is not None:
        return
    if mrml_scene.GetDefaultNodeByClass(EDITOR_CLASS) is None:
        node.SetOverwriteMode(node.OverwriteNone)
    node.SetAttribute(DEFAULTS_ATTRIBUTE, "1")
