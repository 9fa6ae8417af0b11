"""The table of organs: what each one's state is, how large, how much changed, how long it took, and what is odd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt

from soars.effort.review import ACCEPTED, IN_PROGRESS, NOT_REVIEWED
from soars.report.record import ABSENT
from SOARSSegmentationLib.review.rows import Row, change_text, clock_text, volume_text
from SOARSSegmentationLib.translation import _

ORGAN, STATE, VOLUME, CHANGE, TIME, WARNING = range(6)
HEIGHT = 250
_COLUMN_WIDTHS = {STATE: 112, VOLUME: 42, CHANGE: 76, TIME: 42, WARNING: 20}
_NUMBERS = (VOLUME, CHANGE, TIME)
_ACCEPTED_COLOUR, _PROGRESS_COLOUR, _WARNING_COLOUR = "#2e8b57", "#c77700", "#d08000"


def stratum_title(stratum: str) -> str:
    """A stratum in words."""
    return {
        "anchor": _("Anchor organs"),
        "mid_level": _("Mid-level organs"),
        "small_hard": _("Small and hard organs"),
        "extra": _("Other organs"),
    }[stratum]


def state_title(state: str) -> str:
    """A state in words, with a sign that tells it from the others without colour."""
    return {
        NOT_REVIEWED: "\N{WHITE CIRCLE} " + _("not reviewed"),
        IN_PROGRESS: "\N{CIRCLE WITH LEFT HALF BLACK} " + _("in progress"),
        ACCEPTED: "\N{CHECK MARK} " + _("accepted"),
        ABSENT: "\N{EN DASH} " + _("absent"),
    }[state]


class ReviewTable:
    """A tree with a branch for each stratum; ``on_select(organ)`` is called when the reader chooses a row."""

    def __init__(self, on_select: Callable[[str], None]) -> None:
        self._on_select = on_select
        self._rows: list[Row] = []
        self._items: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self._showing = False
        self.widget = qt.QTreeWidget()
        self.widget.setHeaderLabels(
            [_("Organ"), _("State"), _("cc"), _("\N{GREEK CAPITAL LETTER DELTA} cc"), _("Time"), ""]
        )
        self.widget.rootIsDecorated = False
        self.widget.indentation = 8
        self.widget.uniformRowHeights = True
        self.widget.alternatingRowColors = True
        self.widget.setMinimumHeight(HEIGHT)
        header = self.widget.header()
        header.stretchLastSection = False
        header.minimumSectionSize = 16
        header.setSectionResizeMode(ORGAN, qt.QHeaderView.Stretch)
        for column, width in _COLUMN_WIDTHS.items():
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)
            header.resizeSection(column, width)
        head = self.widget.headerItem()
        for column in _NUMBERS:
            head.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        head.setToolTip(VOLUME, _("Volume in cubic centimetres"))
        head.setToolTip(CHANGE, _("Added and removed since the proposal, in cubic centimetres"))
        head.setToolTip(TIME, _("Active time, in minutes and seconds"))
        self.widget.currentItemChanged.connect(self._current_changed)

    # --- showing -------------------------------------------------------------------------------------------------
    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows; what is shown already is only brought up to date, so that nothing jumps."""
        self._showing = True
        try:
            if [row.organ for row in rows] != list(self._items):
                self._build(rows)
            for row in rows:
                self._fill(row)
            self._rows = list(rows)
            for stratum, group in self._groups.items():
                own = [row for row in rows if row.stratum == stratum]
                accepted = sum(row.state == ACCEPTED for row in own)
                count = _("{accepted} of {number} accepted").format(accepted=accepted, number=len(own))
                group.setText(ORGAN, f"{stratum_title(stratum)}   {count}")
        finally:
            self._showing = False

    def show_time(self, organ: str, seconds: float) -> None:
        """Only the clock of one organ."""
        if organ in self._items:
            self._items[organ].setText(TIME, clock_text(seconds) if seconds >= 1 else "")

    def select(self, organ: str | None) -> None:
        """Show an organ as the one in hand, without telling ``on_select``."""
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

    def row(self, organ: str | None) -> Row | None:
        return next((row for row in self._rows if row.organ == organ), None)

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self._rows)

    def step(self, offset: int) -> str | None:
        """The organ that many rows further, in the order of the table; stays at its ends. None of an empty table."""
        organs = list(self._items)
        if not organs:
            return None
        if self.organ is None:
            return organs[0 if offset > 0 else -1]
        return organs[min(max(organs.index(self.organ) + offset, 0), len(organs) - 1)]

    def first_open(self) -> str | None:
        """The first organ that nobody has looked at; where there is none, the first. None of an empty table."""
        organs = [row.organ for row in self._rows]
        untouched = (row.organ for row in self._rows if row.state == NOT_REVIEWED)
        return next(untouched, organs[0] if organs else None)

    def next_open(self) -> str | None:
        """The next organ after the one in hand, round the end, that has not been accepted; None when all are."""
        organs = [row.organ for row in self._rows]
        start = organs.index(self.organ) + 1 if self.organ in organs else 0
        for organ in organs[start:] + organs[:start]:
            row = self.row(organ)
            if row is not None and row.state in (NOT_REVIEWED, IN_PROGRESS):
                return organ
        return None

    # --- inside --------------------------------------------------------------------------------------------------
    def _build(self, rows: Sequence[Row]) -> None:
        self.widget.clear()
        self._items, self._groups, self._rows = {}, {}, []
        for row in rows:
            group = self._groups.get(row.stratum)
            if group is None:
                group = qt.QTreeWidgetItem(self.widget)
                group.setFlags(qt.Qt.ItemIsEnabled)
                font = self.widget.font
                font.setBold(True)
                group.setFont(ORGAN, font)
                group.setFirstColumnSpanned(True)
                group.setExpanded(True)
                self._groups[row.stratum] = group
            item = qt.QTreeWidgetItem(group)
            item.setText(ORGAN, row.organ)
            item.setData(ORGAN, qt.Qt.UserRole, row.organ)
            item.setTextAlignment(WARNING, qt.Qt.AlignCenter)
            for column in _NUMBERS:
                item.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self._items[row.organ] = item

    def _fill(self, row: Row) -> None:
        item = self._items[row.organ]
        before = self.row(row.organ)
        if before == row:
            return
        if before is None or before.colour != row.colour:
            item.setIcon(ORGAN, _swatch(row.colour))
        item.setText(STATE, state_title(row.state))
        item.setText(VOLUME, volume_text(row.volume_cc) if row.volume_cc else "")
        item.setText(CHANGE, change_text(row))
        item.setText(TIME, clock_text(row.active_s) if row.active_s >= 1 else "")
        item.setText(WARNING, "\N{WARNING SIGN}" if row.warning else "")
        item.setToolTip(ORGAN, row.label)
        item.setToolTip(WARNING, row.warning)
        dsc = _("Dice with the proposal: {dsc:.3f}").format(dsc=row.dsc) if row.dsc is not None else ""
        item.setToolTip(CHANGE, dsc)
        usual = self.widget.palette.color(qt.QPalette.Active, qt.QPalette.Text)
        faint = self.widget.palette.color(qt.QPalette.Disabled, qt.QPalette.Text)
        colours = {
            ACCEPTED: qt.QColor(_ACCEPTED_COLOUR),
            IN_PROGRESS: qt.QColor(_PROGRESS_COLOUR),
            ABSENT: faint,
        }
        item.setForeground(STATE, qt.QBrush(colours.get(row.state, usual)))
        item.setForeground(ORGAN, qt.QBrush(faint if row.state == ABSENT else usual))
        item.setForeground(WARNING, qt.QBrush(qt.QColor(_WARNING_COLOUR)))

    def _current_changed(self, item: Any, before: Any = None) -> None:
        organ = self.organ
        if not self._showing and organ is not None:
            self._on_select(organ)


def _swatch(colour: tuple[int, int, int]) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*colour))
    return qt.QIcon(pixmap)
