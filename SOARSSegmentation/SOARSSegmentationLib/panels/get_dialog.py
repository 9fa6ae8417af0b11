"""The question before models are downloaded: which, how large, from where and under which licence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

from SOARSSegmentationLib.panels.parts import line_edit, plain_tip, small_label, text_label
from SOARSSegmentationLib.run.models import Download
from SOARSSegmentationLib.translation import _


class GetDialog:
    """`open` it: whether the user wants the downloads; ``number`` is then the licence number, or ""."""

    def __init__(self, bundle: str, downloads: Sequence[Download], parent: Any = None) -> None:
        self.number = ""
        self.widget = qt.QDialog(parent)
        self.widget.windowTitle = _("Get the models of {name}").format(name=bundle)
        self.widget.resize(640, 420)
        layout = qt.QVBoxLayout(self.widget)
        known = [one.size_mb for one in downloads if one.size_mb is not None]
        text = _("{count} models would be downloaded, {size} MB").format(
            count=len(downloads), size=sum(known)
        )
        if len(known) < len(downloads):
            text += " " + _("and {count} whose size is not known").format(count=len(downloads) - len(known))
        text += ". " + _("Nothing of your patients is sent.")
        self.text = text_label(text)
        self.text.wordWrap = True
        layout.addWidget(self.text)
        self.table = qt.QTreeWidget()
        self.table.setHeaderLabels([_("Model"), _("Size"), _("Licence"), _("From")])
        self.table.rootIsDecorated = False
        for one in downloads:
            item = qt.QTreeWidgetItem(self.table)
            size = _("not known") if one.size_mb is None else _("{size} MB").format(size=one.size_mb)
            for column, cell in enumerate((one.name, size, one.licence, one.url)):
                item.setText(column, cell)
                item.setToolTip(column, plain_tip(cell))
        for column, width in enumerate((220, 70, 130)):
            self.table.setColumnWidth(column, width)
        layout.addWidget(self.table)
        self.line = line_edit(
            _("For research it is free: ask TotalSegmentator's publishers"), _("Licence number")
        )
        if any(one.needs_number for one in downloads):
            layout.addWidget(small_label(_("Without a licence number, models that need one are left out.")))
            layout.addWidget(self.line)
        self.buttons = qt.QDialogButtonBox()
        self.get = self.buttons.addButton(_("Download"), qt.QDialogButtonBox.AcceptRole)
        self.buttons.addButton(qt.QDialogButtonBox.Cancel)
        self.buttons.accepted.connect(self.widget.accept)
        self.buttons.rejected.connect(self.widget.reject)
        layout.addWidget(self.buttons)

    def open(self) -> bool:
        wanted = self.widget.exec_() == qt.QDialog.Accepted
        self.number = self.line.text.strip()
        self.widget.deleteLater()
        return bool(wanted)
