"""What happens in the scene while a session runs: edits, undos, the organ and the effect of every segment editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import slicer
import vtk

from SOARSSegmentationLib.session.segment_events import SegmentEvents


class Listener(Protocol):
    """Receives what happens. A segment is given by its ID; None where there is none or it is not known which."""

    def edited(self, segment_id: str | None) -> None: ...

    def restored(self) -> None:
        """Undo or redo."""

    def segment_selected(self, segment_id: str | None) -> None: ...

    def effect_chosen(self, name: str | None) -> None: ...

    def scene_saving(self, on: bool) -> None: ...

    def ended(self, cause: str) -> None:
        """The scene closes, or the segmentation or its CT leaves it: "scene_closed" or "node_removed"."""


class SceneWatch:
    """Observes a segmentation, its CT, its scene, and every segment editor node in it (so work in the stand-alone
    Segment Editor module counts as well) from `start` to `stop`."""

    def __init__(self, segmentation_node: Any, volume_node: Any, listener: Listener) -> None:
        self._segmentation_node = segmentation_node
        self._volume_node = volume_node
        self._listener = listener
        self._observed: list[tuple[Any, int]] = []
        self._editors: dict[Any, tuple[str | None, str | None]] = {}
        self._events: SegmentEvents | None = None

    def start(self) -> None:
        """Start listening; the editors' current segments and effects are reported at once."""
        listener, scene = self._listener, self._segmentation_node.GetScene()
        segmentation = self._segmentation_node.GetSegmentation()
        self._events = SegmentEvents(segmentation, listener.edited, listener.restored)
        for event, callback in (
            (slicer.vtkMRMLScene.NodeAddedEvent, _with_node(self._node_added)),
            (slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, _with_node(self._node_leaves)),
            (slicer.vtkMRMLScene.StartCloseEvent, lambda caller, event: listener.ended("scene_closed")),
            (slicer.vtkMRMLScene.StartSaveEvent, lambda caller, event: listener.scene_saving(True)),
            (slicer.vtkMRMLScene.EndSaveEvent, lambda caller, event: listener.scene_saving(False)),
        ):
            self._observe(scene, event, callback)
        nodes = scene.GetNodesByClass("vtkMRMLSegmentEditorNode")
        nodes.UnRegister(None)
        for index in range(nodes.GetNumberOfItems()):
            self._node_added(nodes.GetItemAsObject(index))

    def flush(self) -> None:
        """Report an edit whose segment no event named; call it from time to time, and before an answer is needed."""
        if self._events is not None:
            self._events.flush()

    def stop(self) -> None:
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed = []
        self._editors = {}
        if self._events is not None:
            self._events.stop()

    def _observe(self, observed: Any, event: Any, callback: Callable[..., None]) -> None:
        self._observed.append((observed, observed.AddObserver(event, callback)))

    def _node_added(self, node: Any) -> None:
        if node is not None and node.IsA("vtkMRMLSegmentEditorNode") and node not in self._editors:
            self._editors[node] = (None, None)
            self._observe(
                node, vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._editor_modified(caller)
            )
            self._editor_modified(node)

    def _node_leaves(self, node: Any) -> None:
        if node is self._segmentation_node or node is self._volume_node:
            self._listener.ended("node_removed")
        elif node in self._editors:
            del self._editors[node]

    def _editor_modified(self, node: Any) -> None:
        """The event says only that something in the node was modified."""
        if node not in self._editors:
            return
        ours = node.GetSegmentationNode() is self._segmentation_node
        segment_id = (node.GetSelectedSegmentID() or None) if ours else None
        effect = (node.GetActiveEffectName() or None) if ours else None
        before, self._editors[node] = self._editors[node], (segment_id, effect)
        if segment_id != before[0]:
            self._listener.segment_selected(segment_id)
        if effect != before[1]:
            self._listener.effect_chosen(effect)


def _with_node(callback: Callable[[Any], None]) -> Callable[..., None]:
    def observer(_caller: Any, _event: str, node: Any = None) -> None:
        callback(node)

    observer.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    return observer
