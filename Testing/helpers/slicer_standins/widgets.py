"""Stand-ins for the widgets of CTK and of Slicer: the few that the window uses, with the calls it makes.

The segment editor's has no effects of its own, but the real ``vtkSlicerSegmentEditorLogic``: tests paint by it.
"""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any

import shiboken6
import slicer
from PySide6 import QtCore, QtWidgets


class ctkCollapsibleButton(QtWidgets.QWidget):
    contentsCollapsed = QtCore.Signal(bool)
    HEADER = 24

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        # As ctkCollapsibleButton: what it would like to have is the least it takes.
        self.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Preferred)
        self._text, self._collapsed = "", False
        self._header = QtWidgets.QPushButton(self)
        self._header.setStyleSheet(
            "QPushButton { text-align: left; padding: 3px 6px; border: 1px solid palette(mid);"
            " background: palette(button); }"
        )
        self._header.clicked.connect(lambda: self._set_collapsed(not self._collapsed))
        self.setContentsMargins(0, self.HEADER, 0, 0)

    def _get_text(self) -> str:
        return self._text

    def _set_text(self, text: str) -> None:
        self._text = text
        self._header.setText(("\u25b8 " if self._collapsed else "\u25be ") + text)

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self._set_text(self._text)
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and child is not self._header:
                child.setVisible(not collapsed)
        self.setMaximumHeight(self.HEADER if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)

    text = property(_get_text, _set_text)
    collapsed = property(_get_collapsed, _set_collapsed)

    def resizeEvent(self, event: Any) -> None:
        self._header.setGeometry(0, 0, event.size().width(), self.HEADER)
        super().resizeEvent(event)


class qMRMLWidget(QtWidgets.QWidget):
    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlScene(self) -> Any:
        return getattr(self, "_scene", None)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """The nodes of a class in the scene, kept up to date, and None."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.nodeTypes: Any = ()
        self.addEnabled = self.removeEnabled = self.editEnabled = self.renameEnabled = True
        self.noneEnabled = self.showHidden = False
        self.showChildNodeTypes = True
        self.noneDisplay = "None"
        self._scene: Any = None
        self._nodes: list[Any] = []
        self._tags: list[int] = []
        self._shown: Any = None
        self.currentIndexChanged.connect(self._changed)

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._tags = [scene.AddObserver(event, lambda caller, event: self._fill()) for event in events]
            self._fill()

    def currentNode(self) -> Any:
        index = self.currentIndex
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentIndex(self._nodes.index(node) if node in self._nodes else -1)
        self._changed()

    def _fill(self) -> None:
        node = self.currentNode()
        found: list[Any] = [None] if self.noneEnabled else []
        for kind in self.nodeTypes:
            nodes = self._scene.GetNodesByClass(kind)
            nodes.UnRegister(None)
            found += [nodes.GetItemAsObject(i) for i in range(nodes.GetNumberOfItems())]
        found = [
            n
            for n in found
            if n is None
            or (
                not n.GetHideFromEditors() and (self.showChildNodeTypes or n.GetClassName() in self.nodeTypes)
            )
        ]
        self.blockSignals(True)
        self._nodes = found
        self.clear()
        self.addItems([n.GetName() if n is not None else self.noneDisplay for n in found])
        self.setCurrentIndex(found.index(node) if node in found else (0 if found else -1))
        self.blockSignals(False)
        self._changed()

    def _changed(self, *arguments: Any) -> None:
        node = self.currentNode()
        if node is not self._shown:
            self._shown = node
            self.currentNodeChanged.emit(node)


class qMRMLSegmentEditorWidget(qMRMLWidget):
    EFFECTS = ("None", "Paint", "Draw", "Erase", "Level tracing", "Grow", "Fill", "Margin", "Smoothing", "Scissors",
               "Islands", "Logical")  # fmt: skip

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.segmentationNodeSelectorVisible = self.switchToSegmentationsButtonVisible = True
        self.sourceVolumeNodeSelectorVisible = self.jumpToSelectedSegmentEnabled = True
        self.shortcuts_installed = self.views_observed = False
        self._node: Any = None
        self._tag = 0
        self._shown: Any = None
        self.history = slicer.vtkSegmentationHistory()
        self.hand = slicer.vtkSlicerSegmentEditorLogic()
        self.hand.SetSegmentationHistory(self.history)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        table = QtWidgets.QTableWidget(3, 3)
        table.setObjectName("SegmentsTableView")
        table.setFixedHeight(120)
        layout.addWidget(table)
        row = QtWidgets.QHBoxLayout()
        layout.addLayout(row)
        grid = QtWidgets.QGridLayout()
        grid.setSpacing(2)
        row.addLayout(grid)
        for number, name in enumerate(self.EFFECTS):
            button = QtWidgets.QToolButton()
            button.setText(name)
            button.setCheckable(True)
            button.setAutoExclusive(True)
            button.setFixedWidth(86)
            button.clicked.connect(lambda _=False, name=name: self.setActiveEffectByName(name))
            grid.addWidget(button, number // 2, number % 2)
        for column, (name, act) in enumerate((("Undo", self.undo), ("Redo", self.redo))):
            button = QtWidgets.QToolButton()
            button.setText(name)
            button.setObjectName(f"{name}Button")
            button.setFixedWidth(86)
            button.clicked.connect(act)
            grid.addWidget(button, len(self.EFFECTS) // 2, column)
        options = QtWidgets.QGroupBox("Options of the effect")
        row.addWidget(options, 1)
        QtWidgets.QVBoxLayout(options).addWidget(
            QtWidgets.QLabel(
                "Slicer's own segment editor is here.\n(Stand-in: the real one needs\nthe application.)"
            )
        )

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self.mrmlScene():
            return
        super().setMRMLScene(scene)
        self.hand.SetMRMLScene(scene)
        self.updateWidgetFromMRML()
        update = _while_there(self.updateWidgetFromMRML)
        for event in (scene.EndCloseEvent, scene.EndBatchProcessEvent):
            scene.AddObserver(event, update)

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        if node is self._node:
            return
        if self._node is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        self.hand.SetSegmentEditorNode(node)
        if node is not None:
            self._tag = node.AddObserver("ModifiedEvent", _while_there(self.updateWidgetFromMRML))
            self.updateWidgetFromMRML()

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        """As the real one: the effect goes with another segmentation; the node's own one is none."""
        if self.hand.GetSegmentationNode() is node:
            return
        self.hand.SetSegmentationNode(node)
        self.setActiveEffect(None)

    def updateWidgetFromMRML(self) -> None:
        """As the real one: not while the scene is closed or filled, and where another segmentation is found in the
        node, its first segment is selected."""
        scene = self.mrmlScene()
        if scene is None or scene.IsClosing() or scene.IsBatchProcessing() or self._node is None:
            return
        segmentation_node = self.hand.GetSegmentationNode()
        if segmentation_node is self._shown:
            return
        self._shown = segmentation_node
        self.history.SetSegmentation(segmentation_node.GetSegmentation() if segmentation_node else None)
        if segmentation_node is not None and segmentation_node.GetSegmentation().GetNumberOfSegments():
            self._node.SetSelectedSegmentID(segmentation_node.GetSegmentation().GetNthSegmentID(0))

    def segmentationNode(self) -> Any:
        return self.hand.GetSegmentationNode()

    def setSourceVolumeNode(self, node: Any) -> None:
        self.hand.SetSourceVolumeNode(node)

    def setMaximumNumberOfUndoStates(self, number: int) -> None:
        self.hand.SetMaximumNumberOfUndoStates(number)

    def _set_undo_enabled(self, on: bool) -> None:
        """As the real one, which forgets all states when undo is switched on, even if it was on."""
        if on:
            self.hand.ClearUndoState()

    undoEnabled = property(lambda self: True, _set_undo_enabled)

    def setActiveEffect(self, effect: Any) -> None:
        assert effect is None
        self.setActiveEffectByName("")

    def setActiveEffectByName(self, name: str) -> None:
        if self._node is not None:
            self._node.SetActiveEffectName("" if name == "None" else name)

    def saveStateForUndo(self) -> None:
        self.hand.SaveStateForUndo()

    def undo(self, *arguments: Any) -> None:
        self.hand.Undo()

    def redo(self, *arguments: Any) -> None:
        self.hand.Redo()

    def setupViewObservations(self) -> None:
        self.views_observed = True

    def removeViewObservations(self) -> None:
        self.views_observed = False

    def installKeyboardShortcuts(self) -> None:
        self.shortcuts_installed = True

    def uninstallKeyboardShortcuts(self) -> None:
        self.shortcuts_installed = False


def _while_there(method: Any) -> Any:
    """An observer that calls a widget's method, and neither keeps the widget nor outlives it."""
    reference = weakref.WeakMethod(method)

    def observe(*_arguments: Any) -> None:
        called = reference()
        if called is not None and shiboken6.isValid(called.__self__):
            called()

    return observe


SLICER_WIDGETS = (qMRMLWidget, qMRMLNodeComboBox, qMRMLSegmentEditorWidget)


def make_ctk() -> ModuleType:
    ctk = ModuleType("ctk")
    ctk.ctkCollapsibleButton = ctkCollapsibleButton  # type: ignore[attr-defined]
    return ctk
