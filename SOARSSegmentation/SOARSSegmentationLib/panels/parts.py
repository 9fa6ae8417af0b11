"""Parts that the window's sections are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from SOARSSegmentationLib.translation import _

_NARROW = 60
"""Pixels, which a field keeps in the narrowest panel."""
_COLOURS = {"error": "#c0392b", "warning": "#d08000", "done": "#2e8b57", "note": "#5b7fa6"}


def sentence(text: str) -> str:
    """An error's text as a sentence: errors of the core begin small, because ``soars: error:`` stands before them.

    >>> sentence("the disk is full")
    'The disk is full.'
    """
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def escaped(text: str) -> str:
    """Text for a label of rich text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def section(title: str) -> tuple[Any, Any]:
    """A section that can be folded, and the vertical layout of what is in it.

    Everything lies in one child, because folding and unfolding shows and hides a section's children regardless of their
    state.
    """
    button = ctk.ctkCollapsibleButton()
    button.text = title
    outer = qt.QVBoxLayout(button)
    outer.setContentsMargins(0, 0, 0, 0)
    body = qt.QWidget()
    outer.addWidget(body)
    layout = qt.QVBoxLayout(body)
    layout.setContentsMargins(6, 4, 6, 4)
    layout.setSpacing(5)
    return button, layout


def plain_tip(text: str) -> str:
    """Text of others for a tool tip, which would be taken for rich text if a tag were in it."""
    return text.replace("<", "<\N{ZERO WIDTH SPACE}")


def text_label(text: str = "", *, rich: bool = False) -> Any:
    """A label. Unless told, Qt guesses whether a text is rich, and rich text loads what it refers to: names and
    messages may be a stranger's."""
    label = qt.QLabel()
    label.setTextFormat(qt.Qt.RichText if rich else qt.Qt.PlainText)
    label.text = text
    return label


def small_label(text: str = "", *, rich: bool = False) -> Any:
    """A label of smaller, fainter text that wraps."""
    label = text_label(text, rich=rich)
    label.wordWrap = True
    label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
    font = label.font
    font.setPointSizeF(max(7.0, font.pointSizeF() * 0.9))
    label.font = font
    return label


def narrow_combo_box() -> Any:
    """A selector that does not make the panel as wide as its longest text."""
    box = qt.QComboBox()
    box.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
    box.minimumContentsLength = 10
    return box


def node_selector(kind: str, none: str, tip: str) -> Any:
    """A selector of the scene's nodes of exactly this class, which does not widen the panel; ``none`` says what no
    node means."""
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = [kind]
    box.showChildNodeTypes = False
    box.addEnabled = False
    box.removeEnabled = False
    box.noneEnabled = True
    box.noneDisplay = none
    box.toolTip = tip
    box.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
    box.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
    box.setMinimumWidth(_NARROW)
    box.setMRMLScene(slicer.mrmlScene)
    return box


def line_edit(tip: str, placeholder: str = "") -> Any:
    """A line edit that takes the space available and demands none."""
    line = qt.QLineEdit()
    line.toolTip = tip
    line.placeholderText = placeholder
    line.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
    line.setMinimumWidth(_NARROW)
    return line


class Notice:
    """A frame with a sentence (``text``), details on request, and buttons; hidden while there is nothing to say."""

    def __init__(self) -> None:
        self.widget = qt.QFrame()
        self.widget.objectName = "SoarsNotice"
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(10, 6, 6, 6)
        self.label = text_label()
        self.label.wordWrap = True
        self.label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        layout.addWidget(self.label)
        self._details = qt.QPlainTextEdit()
        self._details.readOnly = True
        self._details.setMaximumHeight(110)
        self._details.setLineWrapMode(qt.QPlainTextEdit.NoWrap)
        layout.addWidget(self._details)
        row = qt.QHBoxLayout()
        layout.addLayout(row)
        self.details_button = qt.QPushButton(_("Details"))
        self.details_button.checkable = True
        self.details_button.toggled.connect(self._show_details)
        self.copy_button = qt.QPushButton(_("Copy report"))
        self.copy_button.toolTip = _("Copy all that is needed to look into this; it names no patient.")
        self.copy_button.clicked.connect(self._copy)
        self.action_button = qt.QPushButton()
        self.action_button.clicked.connect(self._act)
        for button in (self.details_button, self.copy_button, self.action_button):
            row.addWidget(button)
        row.addStretch(1)
        self._report = ""
        self._action: Callable[[], None] | None = None
        self.text = ""
        self.clear()

    def say(
        self,
        kind: str,
        text: str,
        *,
        details: str = "",
        report: str = "",
        action: tuple[str, Callable[[], None]] | None = None,
    ) -> None:
        """``kind`` is "error", "warning", "done" or "note"; ``action`` is a button's text and what it does."""
        colour = _COLOURS[kind]
        self.widget.setStyleSheet(
            f"#SoarsNotice {{ border: 1px solid {colour}; border-left: 4px solid {colour}; border-radius: 2px; }}"
        )
        self.text = self.label.text = text
        self._details.plainText = details
        self.details_button.checked = False
        self.details_button.visible = bool(details)
        self.copy_button.visible = bool(report)
        self.copy_button.text = _("Copy report")
        self._report = report
        self._action = action[1] if action is not None else None
        self.action_button.text = action[0] if action is not None else ""
        self.action_button.visible = action is not None
        self._show_details(False)
        self.widget.visible = True

    def clear(self) -> None:
        self._action = None
        self.text = ""
        self.widget.visible = False

    def _show_details(self, on: bool) -> None:
        self._details.visible = bool(on)

    def _copy(self, *_arguments: Any) -> None:
        slicer.app.clipboard().setText(self._report)
        self.copy_button.text = _("Copied")

    def _act(self, *_arguments: Any) -> None:
        if self._action is not None:
            self._action()
