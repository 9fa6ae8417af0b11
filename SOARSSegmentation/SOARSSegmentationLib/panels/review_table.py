"""The table of organs: the state of each, its size, how much it changed, how long it took, and what the checks
found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import qt

from soars.effort.review import ACCEPTED, IN_PROGRESS, NOT_REVIEWED
from soars.report.record import ABSENT
from SOARSSegmentationLib.panels.parts import plain_tip
from SOARSSegmentationLib.panels.review_words import (
    SEVERITY_COLOURS,
    STATE_SIGNS,
    finding_sign,
    finding_words,
    state_title,
    state_words,
    stratum_title,
)
from SOARSSegmentationLib.review.rows import Row, change_text, clock_text, volume_text
from SOARSSegmentationLib.translation import _

ORGAN, STATE, VOLUME, CHANGE, TIME, FINDING = range(6)
HEIGHT = 250
_NUMBERS = (VOLUME, CHANGE, TIME)
_WIDEST = {
    STATE: "",
    VOLUME: "888.8",
    CHANGE: "+88.8 \N{MINUS SIGN}88.8",
    TIME: "8:88:88",
    FINDING: "\N{WARNING SIGN} 88",
}
"""The text that sets a column's width, in the column's own font."""
_PADDING = 12
_ACCEPTED_COLOUR, _PROGRESS_COLOUR, _ABSENT_COLOUR = "#2e8b57", "#c77700", "#808080"
ALL, OPEN, WITH_FINDINGS = "all", "open", "findings"
"""Filters."""


class ReviewTable:
    """A tree with a branch for each stratum, or, sorted by need, without. ``on_select(organ)`` is called when the
    reader chooses a row, ``on_visible(organ, on)`` when they tick or clear it."""

    def __init__(self, on_select: Callable[[str], None], on_visible: Callable[[str, bool], None]) -> None:
        self._on_select = on_select
        self._on_visible = on_visible
        self._rows: dict[str, Row] = {}
        self._items: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self._shape: tuple[Any, ...] = ()
        self._showing = False
        self._filter, self._search, self._by_need = ALL, "", False
        self.widget = qt.QTreeWidget()
        self.widget.accessibleName = _("Organs under review")
        self.widget.setHeaderLabels(
            [
                *(_("Organ"), _("State"), _("cc"), _("\N{GREEK CAPITAL LETTER DELTA} cc"), _("Time")),
                _("Finding"),
            ]
        )
        self.widget.rootIsDecorated = False
        self.widget.indentation = 8
        self.widget.uniformRowHeights = True
        self.widget.alternatingRowColors = True
        self.widget.setMinimumHeight(HEIGHT)
        self._set_up_header()
        self.widget.currentItemChanged.connect(self._current_changed)
        self.widget.itemChanged.connect(self._item_changed)

    def _set_up_header(self) -> None:
        header, head = self.widget.header(), self.widget.headerItem()
        header.stretchLastSection = False
        header.minimumSectionSize = 16
        header.setSectionsClickable(True)
        header.setSectionResizeMode(ORGAN, qt.QHeaderView.Stretch)
        metrics = qt.QFontMetrics(self.widget.font)
        for column, text in _WIDEST.items():
            title = metrics.boundingRect(str(head.text(column))).width()
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)
            header.resizeSection(column, max(metrics.boundingRect(text).width(), title) + _PADDING)
        for column in _NUMBERS:
            head.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        head.setToolTip(ORGAN, _("Ticked organs are shown in the views"))
        states = (NOT_REVIEWED, IN_PROGRESS, ACCEPTED, ABSENT)
        head.setToolTip(STATE, "\n".join(f"{STATE_SIGNS[one]} {state_title(one)}" for one in states))
        head.setToolTip(VOLUME, _("Volume in cubic centimetres"))
        head.setToolTip(CHANGE, _("Added and removed since the proposal, in cubic centimetres"))
        head.setToolTip(TIME, _("Active time, in minutes and seconds"))
        head.setToolTip(FINDING, _("What the checks found, and how much; click to sort by it"))
        header.sectionClicked.connect(self._header_clicked)

    # --- showing -------------------------------------------------------------------------------------------------
    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows; rows already shown are updated in place, so that nothing jumps."""
        self._showing = True
        try:
            before, self._rows = self._rows, {row.organ: row for row in rows}
            shape = (self._by_need, *((row.organ, row.need if self._by_need else 0) for row in rows))
            if shape != self._shape:
                organ, before = self.organ, {}
                self._build(sorted(rows, key=lambda row: row.need) if self._by_need else rows)
                self._shape = shape
                self.widget.setCurrentItem(self._items.get(organ) if organ is not None else None)
            for row in rows:
                if row != before.get(row.organ):
                    self._fill(row, before.get(row.organ))
            self._show_counts(rows)
            self._hide()
        finally:
            self._showing = False

    def filter(self, which: str, search: str) -> None:
        """Show only rows of a filter (`ALL`, `OPEN`, `WITH_FINDINGS`) whose code or label has the text."""
        self._filter, self._search = which, search.strip().casefold()
        self._hide()

    def sort(self, by_need: bool) -> None:
        """Sort by what most needs a look, or by stratum."""
        self._by_need = by_need
        self.show(list(self._rows.values()))

    def show_time(self, organ: str, seconds: float) -> None:
        """Only the clock of one organ."""
        if organ in self._items:
            self._showing = True
            self._items[organ].setText(TIME, clock_text(seconds) if seconds >= 1 else "")
            self._showing = False

    def select(self, organ: str | None) -> None:
        """Show an organ as the current one without calling ``on_select``."""
        self._showing = True
        try:
            item = self._items.get(organ) if organ is not None else None
            self.widget.setCurrentItem(item)
            if item is not None:
                self.widget.scrollToItem(item)
        finally:
            self._showing = False

    # --- asking --------------------------------------------------------------------------------------------------
    @property
    def organ(self) -> str | None:
        """The organ of the row in hand."""
        item = self.widget.currentItem()
        organ = item.data(ORGAN, qt.Qt.UserRole) if item is not None else None
        return str(organ) if organ else None

    @property
    def by_need(self) -> bool:
        return self._by_need

    def row(self, organ: str | None) -> Row | None:
        return self._rows.get(organ) if organ is not None else None

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self._rows.values())

    @property
    def shown(self) -> tuple[str, ...]:
        """The organs that pass the filter, from top to bottom."""
        return tuple(organ for organ in self._items if self._passes(self._rows[organ]))

    def step(self, offset: int) -> str | None:
        """The organ ``step`` rows further among those shown; stops at the ends. None where there is none."""
        organs = self.shown
        if not organs:
            return None
        if self.organ not in organs:
            return organs[0 if offset > 0 else -1]
        return organs[min(max(organs.index(self.organ) + offset, 0), len(organs) - 1)]

    def first_open(self) -> str | None:
        """The first organ that nobody has looked at, else the first one; None for an empty table."""
        organs = list(self._items)
        untouched = (organ for organ in organs if self._rows[organ].state == NOT_REVIEWED)
        return next(untouched, organs[0] if organs else None)

    def next_open(self) -> str | None:
        """The next organ after the current one, wrapping round, that has not been accepted; None when all are."""
        organs = list(self._items)
        start = organs.index(self.organ) + 1 if self.organ in organs else 0
        for organ in organs[start:] + organs[:start]:
            if self._rows[organ].state in (NOT_REVIEWED, IN_PROGRESS):
                return organ
        return None

    # --- inside --------------------------------------------------------------------------------------------------
    def _passes(self, row: Row) -> bool:
        if self._search and self._search not in f"{row.organ} {row.label}".casefold():
            return False
        if self._filter == OPEN:
            return row.state in (NOT_REVIEWED, IN_PROGRESS)
        return self._filter != WITH_FINDINGS or bool(row.findings)

    def _hide(self) -> None:
        for organ, item in self._items.items():
            item.setHidden(not self._passes(self._rows[organ]))
        for stratum, group in self._groups.items():
            shown = (row for row in self._rows.values() if row.stratum == stratum and self._passes(row))
            group.setHidden(next(shown, None) is None)

    def _build(self, rows: Iterable[Row]) -> None:
        self.widget.clear()
        self._items, self._groups = {}, {}
        for row in rows:
            parent = self.widget if self._by_need else self._group(row.stratum)
            item = qt.QTreeWidgetItem(parent)
            # A code is for files, a label for people.
            item.setText(ORGAN, f"{row.label} ({row.organ})")
            item.setData(ORGAN, qt.Qt.UserRole, row.organ)
            item.setToolTip(ORGAN, plain_tip(f"{row.label} ({row.organ})"))
            item.setTextAlignment(STATE, qt.Qt.AlignCenter)
            item.setTextAlignment(FINDING, qt.Qt.AlignCenter)
            for column in _NUMBERS:
                item.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self._items[row.organ] = item

    def _group(self, stratum: str) -> Any:
        group = self._groups.get(stratum)
        if group is None:
            group = qt.QTreeWidgetItem(self.widget)
            group.setFlags(qt.Qt.ItemIsEnabled)
            font = self.widget.font
            font.setBold(True)
            group.setFont(ORGAN, font)
            group.setFirstColumnSpanned(True)
            group.setExpanded(True)
            self._groups[stratum] = group
        return group

    def _show_counts(self, rows: Sequence[Row]) -> None:
        for stratum, group in self._groups.items():
            own = [row for row in rows if row.stratum == stratum]
            accepted = sum(row.state == ACCEPTED for row in own)
            count = _("{accepted} of {number} accepted").format(accepted=accepted, number=len(own))
            group.setText(ORGAN, f"{stratum_title(stratum)}   {count}")

    def _fill(self, row: Row, before: Row | None) -> None:
        item = self._items[row.organ]
        if before is None or before.colour != row.colour:
            item.setIcon(ORGAN, _swatch(row.colour))
        if row.segment_id is not None:
            item.setCheckState(ORGAN, qt.Qt.Checked if row.visible else qt.Qt.Unchecked)
        item.setText(STATE, STATE_SIGNS[row.state])
        item.setToolTip(STATE, plain_tip(state_words(row)))
        item.setData(STATE, qt.Qt.AccessibleTextRole, state_words(row))
        item.setText(VOLUME, volume_text(row.volume_cc) if row.volume_cc else "")
        item.setText(CHANGE, change_text(row))
        item.setText(TIME, clock_text(row.active_s) if row.active_s >= 1 else "")
        item.setText(FINDING, finding_sign(row))
        item.setToolTip(FINDING, plain_tip(finding_words(row)))
        dsc = _("Dice with the proposal: {dsc:.3f}").format(dsc=row.dsc) if row.dsc is not None else ""
        item.setToolTip(CHANGE, dsc)
        self._colour(item, row)

    def _colour(self, item: Any, row: Row) -> None:
        """Only for text that differs from the usual, whose colour follows the application's style."""
        faint = _ABSENT_COLOUR if row.state == ABSENT else None
        severity = SEVERITY_COLOURS[row.severity] if row.severity is not None else None
        state = {ACCEPTED: _ACCEPTED_COLOUR, IN_PROGRESS: _PROGRESS_COLOUR}.get(row.state, faint)
        for column, colour in ((ORGAN, faint), (STATE, state), (FINDING, severity)):
            brush = qt.QBrush(qt.QColor(colour)) if colour is not None else None
            item.setData(column, qt.Qt.ForegroundRole, brush)

    def _current_changed(self, item: Any, before: Any = None) -> None:
        organ = self.organ
        if not self._showing and organ is not None:
            self._on_select(organ)

    def _item_changed(self, item: Any, column: int) -> None:
        organ = item.data(ORGAN, qt.Qt.UserRole)
        if not self._showing and column == ORGAN and organ:
            self._on_visible(str(organ), item.checkState(ORGAN) == qt.Qt.Checked)

    def _header_clicked(self, column: int) -> None:
        if column in (ORGAN, FINDING):
            self.sort(column == FINDING)


def _swatch(colour: tuple[int, int, int]) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*colour))
    return qt.QIcon(pixmap)
