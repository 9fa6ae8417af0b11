"""The third section: the table of organs, the organ in hand, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt

from soars.effort.review import ACCEPTED
from SOARSSegmentationLib import shortcuts
from SOARSSegmentationLib.panels.parts import Notice, escaped, section, sentence
from SOARSSegmentationLib.panels.review_table import ReviewTable
from SOARSSegmentationLib.review.rows import Row
from SOARSSegmentationLib.translation import _


class ReviewPanel:
    """Widgets only; the callbacks hear the table and the buttons."""

    def __init__(
        self,
        on_select: Callable[[str], None],
        on_accept: Callable[[], None],
        on_outline: Callable[[bool], None],
        on_restore: Callable[[], None],
    ) -> None:
        self._on_select = on_select
        self.widget, layout = section(_("Review"))
        self.notice = Notice()
        layout.addWidget(self.notice.widget)
        self.table = ReviewTable(on_select)
        layout.addWidget(self.table.widget)
        self.in_hand = qt.QLabel()
        self.in_hand.wordWrap = True
        layout.addWidget(self.in_hand)
        row = qt.QHBoxLayout()
        layout.addLayout(row)
        self.previous = qt.QPushButton("\N{BLACK LEFT-POINTING SMALL TRIANGLE} " + _("Previous"))
        self.accept = qt.QPushButton()
        self.next = qt.QPushButton(_("Next") + " \N{BLACK RIGHT-POINTING SMALL TRIANGLE}")
        for button, key in (
            (self.previous, shortcuts.PREVIOUS),
            (self.accept, ""),
            (self.next, shortcuts.NEXT),
        ):
            button.setMinimumHeight(28)
            button.toolTip = key
            row.addWidget(button, 2 if button is self.accept else 1)
        row = qt.QHBoxLayout()
        layout.addLayout(row)
        self.outline = qt.QCheckBox(_("Outline of the proposal"))
        self.outline.toolTip = _("Show what was proposed for this organ as a pale line in the slice views")
        self.restore = qt.QPushButton(_("Restore the proposal"))
        self.restore.toolTip = _("Make this organ what was proposed again; Undo takes it back")
        row.addWidget(self.outline)
        row.addStretch(1)
        row.addWidget(self.restore)
        self.previous.clicked.connect(lambda *_arguments: self.step(-1))
        self.next.clicked.connect(lambda *_arguments: self.step(1))
        self.accept.clicked.connect(lambda *_arguments: on_accept())
        self.outline.toggled.connect(lambda on: on_outline(bool(on)))
        self.restore.clicked.connect(lambda *_arguments: on_restore())

    def show(self, rows: Sequence[Row], organ: str | None, *, reviewing: bool, has_proposal: bool) -> None:
        """``organ`` is the one in hand; ``reviewing``: a session is running, so organs can be accepted."""
        self.table.show(rows)
        if self.table.organ != organ:
            self.table.select(organ)
        row = self.table.row(organ)
        for button in (self.previous, self.next):
            button.enabled = bool(rows)
        accepted = row is not None and row.state == ACCEPTED
        self.accept.text = _("Reopen") if accepted else "\N{CHECK MARK} " + _("Accept")
        self.accept.enabled = reviewing and row is not None
        if not reviewing:
            self.accept.toolTip = _("Start a session to accept organs")
        elif accepted:
            self.accept.toolTip = _("Take the acceptance back ({key})").format(key=shortcuts.ACCEPT)
        else:
            self.accept.toolTip = _("Accept this organ and go on to the next one ({key})").format(
                key=shortcuts.ACCEPT
            )
        self.outline.enabled = self.restore.enabled = has_proposal and row is not None
        self._describe(row)

    def step(self, offset: int) -> None:
        """Go on to the next (1) or previous (-1) organ."""
        organ = self.table.step(offset)
        if organ is not None:
            self._on_select(organ)

    def _describe(self, row: Row | None) -> None:
        if row is None:
            self.in_hand.text = _("Click an organ to go to it.") if self.table.rows else ""
            return
        text = f"<b>{escaped(row.label)}</b>"
        if row.warning:
            text += f' <span style="color: #d08000">\N{WARNING SIGN} {escaped(sentence(row.warning))}</span>'
        self.in_hand.text = text
