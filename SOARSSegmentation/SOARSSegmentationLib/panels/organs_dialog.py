"""The dialog in which organs are chosen one by one, and the choice saved under a name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import qt

from soars.catalogue import SOARS42, STRATA, by_stratum
from soars.errors import SoarsError
from SOARSSegmentationLib.panels.parts import Notice, sentence, text_label
from SOARSSegmentationLib.panels.review_words import stratum_title
from SOARSSegmentationLib.protocols import Protocol, Protocols
from SOARSSegmentationLib.translation import _


class OrgansDialog:
    """`open` it; `protocol` is then what was saved, None when the dialog was left otherwise."""

    def __init__(
        self, protocols: Protocols, start: Protocol, covered: Iterable[str], parent: Any = None
    ) -> None:
        """``start`` is ticked at first; organs that the bundle does not cover are shown as such."""
        self._protocols = protocols
        self.protocol: Protocol | None = None
        self.widget = qt.QDialog(parent)
        self.widget.windowTitle = _("Organs")
        self.widget.resize(540, 660)
        layout = qt.QVBoxLayout(self.widget)
        self.tree = qt.QTreeWidget()
        self.tree.headerHidden = True
        self._items: dict[str, Any] = {}
        self._fill(set(SOARS42 if start.organs is None else start.organs), set(covered))
        layout.addWidget(self.tree)
        row = qt.QHBoxLayout()
        layout.addLayout(row)
        row.addWidget(text_label(_("Name:")))
        self.name = qt.QLineEdit(start.title if start.saved else "")
        self.name.placeholderText = _("for example: larynx protocol")
        row.addWidget(self.name)
        self.notice = Notice()
        layout.addWidget(self.notice.widget)
        buttons = qt.QDialogButtonBox()
        buttons.setStandardButtons(qt.QDialogButtonBox.Save | qt.QDialogButtonBox.Cancel)
        buttons.accepted.connect(self.save)
        buttons.rejected.connect(self.widget.reject)
        layout.addWidget(buttons)
        self.tree.itemChanged.connect(lambda *_arguments: self.notice.clear())

    def open(self) -> Protocol | None:
        self.widget.exec_()
        self.widget.deleteLater()
        return self.protocol

    def save(self, *_arguments: Any) -> None:
        try:
            self.protocol = self._protocols.save(self.name.text, self.ticked())
        except SoarsError as error:
            self.notice.say("error", sentence(str(error)))
            return
        self.widget.accept()

    def ticked(self) -> tuple[str, ...]:
        return tuple(organ for organ, item in self._items.items() if item.checkState(0) == qt.Qt.Checked)

    def tick(self, organs: Iterable[str]) -> None:
        wanted = set(organs)
        for organ, item in self._items.items():
            item.setCheckState(0, qt.Qt.Checked if organ in wanted else qt.Qt.Unchecked)

    def _fill(self, ticked: set[str], covered: set[str]) -> None:
        for stratum in STRATA:
            own = [oar for oar in by_stratum(stratum) if oar.name in SOARS42]
            if not own:
                continue
            group = qt.QTreeWidgetItem(self.tree)
            group.setText(0, stratum_title(stratum))
            group.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsAutoTristate)
            for oar in own:
                item = qt.QTreeWidgetItem(group)
                known = "" if oar.name in covered else "   " + _("(not in this model)")
                item.setText(0, f"{oar.name}   {oar.label}{known}")
                item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
                item.setCheckState(0, qt.Qt.Checked if oar.name in ticked else qt.Qt.Unchecked)
                self._items[oar.name] = item
            group.setExpanded(True)
