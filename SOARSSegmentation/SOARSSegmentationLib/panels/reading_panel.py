"""The study's section: a worklist, the next case, and what the reader says of the organ in hand. Widgets only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from soars.effort.records import SCORES
from SOARSSegmentationLib.panels.parts import Notice, escaped, section, small_label, text_label
from SOARSSegmentationLib.translation import _

SCORE_WORDS = {
    1: "unusable, redraw it",
    2: "major corrections",
    3: "minor corrections that matter",
    4: "minor corrections of style",
    5: "use as it is",
}


class ReadingPanel:
    """``on_judge(organ, score, reason, comment)`` hears what is said of an organ, also when the reader turns to another
    one before a text is complete; the others are buttons."""

    def __init__(
        self,
        on_open: Callable[[], None],
        on_next: Callable[[], None],
        on_judge: Callable[[str, int | None, str, str], None],
    ) -> None:
        self._on_judge = on_judge
        self._organ: str | None = None
        self.widget, layout = section(_("Study"))
        self.progress = small_label(_("Open the worklist that the study lead has given you."))
        layout.addWidget(self.progress)
        row = qt.QHBoxLayout()
        self.open = qt.QPushButton(_("Open worklist..."))
        self.next = qt.QPushButton(_("Next case"))
        self.next.enabled = False
        row.addWidget(self.open)
        row.addWidget(self.next, 1)
        layout.addLayout(row)

        self.judgement = qt.QWidget()
        lines = qt.QVBoxLayout(self.judgement)
        lines.setContentsMargins(0, 0, 0, 0)
        self.organ = text_label(rich=True)
        lines.addWidget(self.organ)
        scores = qt.QHBoxLayout()
        self.scores: dict[int, Any] = {}
        for score in SCORES:
            button = qt.QPushButton(str(score))
            button.checkable = True
            button.setMaximumWidth(36)
            button.toolTip = _(SCORE_WORDS[score])
            button.clicked.connect(lambda *_arguments, score=score: self._judge(score))
            scores.addWidget(button)
            self.scores[score] = button
        self.cannot = qt.QPushButton(_("Cannot judge"))
        self.cannot.toolTip = _("Write the reason into the line first")
        self.cannot.checkable = True
        self.cannot.clicked.connect(lambda *_arguments: self._judge(None))
        scores.addWidget(self.cannot, 1)
        lines.addLayout(scores)
        self.comment = qt.QLineEdit()
        self.comment.placeholderText = _("comment, or why it cannot be judged; no names")
        self.comment.setMaxLength(1000)
        self.comment.editingFinished.connect(self._commented)
        lines.addWidget(self.comment)
        self.judgement.visible = False
        layout.addWidget(self.judgement)

        self.notice = Notice()
        layout.addWidget(self.notice.widget)
        self.open.clicked.connect(lambda *_arguments: on_open())
        self.next.clicked.connect(lambda *_arguments: on_next())

    def show_progress(self, text: str, *, can_go_on: bool, waiting_for_finish: bool) -> None:
        """Progress of the worklist."""
        self.progress.text = text
        self.next.enabled = can_go_on
        self.open.enabled = not waiting_for_finish

    def show_organ(
        self,
        organ: str | None,
        label: str = "",
        score: int | None = None,
        reason: str | None = None,
        comment: str | None = None,
    ) -> None:
        """The organ in hand, its name for people, and what was said of it; None hides the row."""
        if organ != self._organ:
            self._keep_text()
        self._organ = organ
        self.judgement.visible = organ is not None
        if organ is None:
            return
        self.organ.text = f"<b>{escaped(label)}</b>"
        for value, button in self.scores.items():
            button.checked = value == score
        self.cannot.checked = reason is not None
        self.comment.text = reason or comment or ""

    def _judge(self, score: int | None) -> None:
        if self._organ is None:
            return
        text = self.comment.text.strip()
        self.comment.modified = False
        if score is None:
            self._on_judge(self._organ, None, text, "")
        else:
            self._on_judge(self._organ, score, "", text)

    def _keep_text(self) -> None:
        """A shortcut turns to another organ while the reader still writes: the line belongs to the one before."""
        if self.comment.modified:
            self._commented()

    def _commented(self) -> None:
        chosen = next((score for score, button in self.scores.items() if button.checked), None)
        text = self.comment.text.strip()
        if text and (chosen is not None or self.cannot.checked):
            self._judge(chosen)
        elif text and self.comment.modified and self._organ is not None:
            self.comment.modified = False
            self._on_judge(self._organ, None, "", text)
