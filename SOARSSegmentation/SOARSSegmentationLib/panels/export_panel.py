"""The last section: what can be written, and why something cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import qt

from SOARSSegmentationLib.panels.parts import Notice, plain_tip, section, sentence, small_label
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    from SOARSSegmentationLib.export.routes import Route


class ExportPanel:
    """A button for each route; ``on_export(key)`` is called when one is pressed."""

    def __init__(self, on_export: Callable[[str], None]) -> None:
        self._on_export = on_export
        self._buttons: dict[str, Any] = {}
        self.widget, layout = section(_("Export"))
        self._buttons_layout = qt.QVBoxLayout()
        layout.addLayout(self._buttons_layout)
        self.why_not = small_label()
        layout.addWidget(self.why_not)
        self.notice = Notice()
        layout.addWidget(self.notice.widget)

    def show(self, routes: Sequence[Route]) -> None:
        if list(self._buttons) != [route.key for route in routes]:
            self._build(routes)
        for route in routes:
            button = self._buttons[route.key]
            button.enabled = route.available
            button.toolTip = plain_tip(sentence(route.why_not or ""))
        reasons = list(dict.fromkeys(sentence(route.why_not) for route in routes if route.why_not))
        self.why_not.text = "\n".join(reasons)
        self.why_not.visible = bool(reasons)

    def button(self, key: str) -> Any:
        return self._buttons[key]

    def _build(self, routes: Sequence[Route]) -> None:
        for button in self._buttons.values():
            self._buttons_layout.removeWidget(button)
            button.setParent(None)
            button.deleteLater()
        self._buttons = {}
        for route in routes:
            button = qt.QPushButton(route.title)
            button.clicked.connect(lambda *_arguments, key=route.key: self._on_export(key))
            self._buttons_layout.addWidget(button)
            self._buttons[route.key] = button
