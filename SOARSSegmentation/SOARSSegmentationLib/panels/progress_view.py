"""The progress of a run: one line a stage, with a bar for the one that is running."""

from __future__ import annotations

from typing import Any

import qt

from SOARSSegmentationLib.panels.parts import text_label
from SOARSSegmentationLib.run.stages import READ, WRITE, Stage, Stages
from SOARSSegmentationLib.translation import _


def stage_title(name: str) -> str:
    """A stage in words; that of a composite's source with the source's name before it."""
    source, _slash, own = name.rpartition("/")
    title = {
        READ: _("Reading the CT"),
        "anchor": _("Anchor organs"),
        "mid_level": _("Mid-level organs"),
        "detection": _("Finding the small organs"),
        "small_hard": _("Small and hard organs"),
        WRITE: _("Checking and writing"),
    }.get(own, own.replace("_", " "))
    return f"{source}: {title}" if source else title


class ProgressView:
    """Shows `Stages`; call `show` whenever they change."""

    def __init__(self) -> None:
        self.widget = qt.QWidget()
        self._grid = qt.QGridLayout(self.widget)
        self._grid.setContentsMargins(0, 2, 0, 2)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(2, 1)
        self._lines: list[tuple[Any, Any, Any, Any]] = []
        self._names: list[str] = []

    def show(self, stages: Stages) -> None:
        if self._names != [stage.name for stage in stages.all]:
            self._build(stages)
        for stage, (sign, title, bar, time) in zip(stages.all, self._lines, strict=True):
            self._fill(stage, sign, title, bar, time)

    def _build(self, stages: Stages) -> None:
        for line in self._lines:
            for widget in line:
                self._grid.removeWidget(widget)
                widget.setParent(None)
                widget.deleteLater()
        self._lines, self._names = [], [stage.name for stage in stages.all]
        for row, stage in enumerate(stages.all):
            sign, title, time, bar = (
                text_label(),
                text_label(stage_title(stage.name)),
                text_label(),
                qt.QProgressBar(),
            )
            sign.setFixedWidth(16)
            time.setFixedWidth(52)
            time.alignment = qt.Qt.AlignRight | qt.Qt.AlignVCenter
            bar.textVisible = False
            bar.setFixedHeight(8)
            for column, widget in enumerate((sign, title, bar, time)):
                self._grid.addWidget(widget, row, column)
            self._lines.append((sign, title, bar, time))

    def _fill(self, stage: Stage, sign: Any, title: Any, bar: Any, time: Any) -> None:
        sign.text = {"done": "\N{CHECK MARK}", "running": "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"}.get(
            stage.state, ""
        )
        title.enabled = stage.state != "to_come"
        time.text = _("{seconds:.1f} s").format(seconds=stage.seconds) if stage.state != "to_come" else ""
        # A maximum of 0 is Qt's way of saying that it is not known how much there is.
        unknown = stage.state == "running" and stage.share is None
        bar.maximum = 0 if unknown else 100
        if not unknown:
            bar.value = round(100 * (stage.share or 0.0))
