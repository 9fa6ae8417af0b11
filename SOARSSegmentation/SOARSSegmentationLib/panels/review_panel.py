"""The third section: the table of organs, the current organ, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import qt

from soars.effort.review import ACCEPTED
from soars.findings.finding import Finding
from SOARSSegmentationLib import shortcuts
from SOARSSegmentationLib.panels.parts import Notice, line_edit, narrow_combo_box, section, text_label
from SOARSSegmentationLib.panels.review_table import ALL, OPEN, WITH_FINDINGS, ReviewTable
from SOARSSegmentationLib.panels.review_words import described
from SOARSSegmentationLib.review.rows import Row
from SOARSSegmentationLib.translation import _


class Reviewer(Protocol):
    """Who is called by the table and the buttons."""

    def select(self, organ: str) -> None: ...

    def set_visible(self, organ: str, on: bool) -> None: ...

    def accept(self) -> None: ...

    def next_finding(self) -> None: ...

    def show_solo(self, on: bool) -> None: ...

    def show_outline(self, on: bool) -> None: ...

    def use_presets(self, on: bool) -> None: ...

    def restore(self) -> None: ...


class ReviewPanel:
    """Widgets only."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer
        self.widget, layout = section(_("Review"))
        self.notice = Notice()
        layout.addWidget(self.notice.widget)
        layout.addLayout(self._filters())
        self.table = ReviewTable(reviewer.select, reviewer.set_visible)
        layout.addWidget(self.table.widget)
        self.in_hand = text_label(rich=True)
        self.in_hand.wordWrap = True
        self.in_hand.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        layout.addWidget(self.in_hand)
        layout.addLayout(self._steps())
        layout.addLayout(self._looks())
        layout.addLayout(self._changes())

    # --- building ------------------------------------------------------------------------------------------------
    def _filters(self) -> Any:
        row = qt.QHBoxLayout()
        self.search = line_edit(_("Show only organs whose name has this text"), _("Search"))
        self.search.clearButtonEnabled = True
        self.search.accessibleName = _("Search for an organ")
        self.filter = narrow_combo_box()
        self.filter.accessibleName = _("Which organs are listed")
        for title, key in (
            (_("All organs"), ALL),
            (_("Not accepted"), OPEN),
            (_("With findings"), WITH_FINDINGS),
        ):
            self.filter.addItem(title, key)
        row.addWidget(self.search, 1)
        row.addWidget(self.filter, 1)
        self.search.textChanged.connect(self._filter_changed)
        self.filter.currentIndexChanged.connect(self._filter_changed)
        return row

    def _steps(self) -> Any:
        row = qt.QHBoxLayout()
        self.previous = qt.QPushButton("\N{BLACK LEFT-POINTING SMALL TRIANGLE}")
        self.previous.accessibleName = _("Previous organ")
        self.accept = qt.QPushButton()
        self.next = qt.QPushButton("\N{BLACK RIGHT-POINTING SMALL TRIANGLE}")
        self.next.accessibleName = _("Next organ")
        self.finding = qt.QPushButton(_("Next finding"))
        self.finding.toolTip = _("Go to the place of the next finding, the most severe first ({key})").format(
            key=shortcuts.FINDING
        )
        tip = _("{what} ({key})")
        self.previous.toolTip = tip.format(what=_("Previous organ"), key=shortcuts.PREVIOUS)
        self.next.toolTip = tip.format(what=_("Next organ"), key=shortcuts.NEXT)
        for button, share in ((self.previous, 1), (self.accept, 3), (self.next, 1), (self.finding, 3)):
            button.setMinimumHeight(28)
            button.setMinimumWidth(30)
            row.addWidget(button, share)
        self.previous.clicked.connect(lambda *_arguments: self.step(-1))
        self.next.clicked.connect(lambda *_arguments: self.step(1))
        self.accept.clicked.connect(lambda *_arguments: self._reviewer.accept())
        self.finding.clicked.connect(lambda *_arguments: self._reviewer.next_finding())
        return row

    def _looks(self) -> Any:
        row = qt.QHBoxLayout()
        self.solo = qt.QCheckBox(_("Only this organ"))
        self.solo.toolTip = _("Show only the current organ in the views, and each that becomes current")
        self.show_all = qt.QPushButton(_("Show all"))
        self.presets = qt.QCheckBox(_("Window by organ"))
        self.presets.toolTip = _("Bone, soft tissue or brain, whichever shows the organ's border best")
        self.presets.checked = True
        for widget in (self.solo, self.show_all, self.presets):
            row.addWidget(widget)
        row.addStretch(1)
        self.solo.toggled.connect(lambda on: self._reviewer.show_solo(bool(on)))
        self.show_all.clicked.connect(lambda *_arguments: self._show_all())
        self.presets.toggled.connect(lambda on: self._reviewer.use_presets(bool(on)))
        return row

    def _changes(self) -> Any:
        row = qt.QHBoxLayout()
        self.outline = qt.QCheckBox(_("Outline of the proposal"))
        self.outline.toolTip = _("Show what was proposed for this organ as a pale line in the slice views")
        self.restore = qt.QPushButton(_("Restore the proposal"))
        self.restore.toolTip = _("Restore this organ's proposal; Undo takes it back")
        row.addWidget(self.outline)
        row.addStretch(1)
        row.addWidget(self.restore)
        self.outline.toggled.connect(lambda on: self._reviewer.show_outline(bool(on)))
        self.restore.clicked.connect(lambda *_arguments: self._reviewer.restore())
        return row

    # --- showing -------------------------------------------------------------------------------------------------
    def show(
        self,
        rows: Sequence[Row],
        organ: str | None,
        finding: Finding | None = None,
        *,
        reviewing: bool,
        has_proposal: bool,
    ) -> None:
        """``organ`` is the current one, ``finding`` the one that the views show; ``reviewing``: a session runs on them,
        so organs can be accepted."""
        self.table.show(rows)
        if self.table.organ != organ:
            self.table.select(organ)
        row = self.table.row(organ)
        for button in (self.previous, self.next, self.solo, self.show_all):
            button.enabled = bool(rows)
        self.finding.enabled = any(one.findings for one in rows)
        accepted = row is not None and row.state == ACCEPTED
        self.accept.text = _("Reopen") if accepted else "\N{CHECK MARK} " + _("Accept")
        self.accept.enabled = reviewing and row is not None
        if not reviewing:
            self.accept.toolTip = _("Start a session to accept organs")
        elif accepted:
            self.accept.toolTip = _("Withdraw the acceptance ({key})").format(key=shortcuts.ACCEPT)
        else:
            self.accept.toolTip = _("Accept this organ and go on to the next one ({key})").format(
                key=shortcuts.ACCEPT
            )
        self.outline.enabled = self.restore.enabled = has_proposal and row is not None
        nothing = _("Click an organ to go to it.") if rows else ""
        self.in_hand.text = described(row, finding) if row is not None else nothing

    def step(self, offset: int) -> None:
        """Go on to the next (1) or previous (-1) organ."""
        organ = self.table.step(offset)
        if organ is not None:
            self._reviewer.select(organ)

    def _show_all(self) -> None:
        if self.solo.checked:
            self.solo.checked = False  # which shows all
        else:
            self._reviewer.show_solo(False)

    def _filter_changed(self, *_arguments: Any) -> None:
        self.table.filter(str(self.filter.currentData), self.search.text)
