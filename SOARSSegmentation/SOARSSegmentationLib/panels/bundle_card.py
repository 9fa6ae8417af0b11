"""What users should know about a model bundle before they use it: what it covers, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt

from soars.catalogue import SOARS42
from SOARSSegmentationLib.panels.parts import escaped, small_label
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    from soars.bundle.store import BundleEntry


def summary_of(entry: BundleEntry) -> str:
    """A bundle in two or three lines of rich text."""
    bundle = entry.bundle
    if bundle is None:
        return f"<b>{escaped(entry.name)}</b>: {escaped(entry.problem or '')}"
    covered = sum(organ in SOARS42 for organ in bundle.organs)
    facts = [
        f"<b>{escaped(bundle.name)} {escaped(bundle.version)}</b>",
        _("{covered} of {number} organs").format(covered=covered, number=len(SOARS42)),
        _("{megabytes:.1f} MB").format(megabytes=bundle.size_bytes / 1e6),
        escaped(bundle.licence),
    ]
    return " \N{MIDDLE DOT} ".join(facts) + "<br>" + escaped(bundle.description)


def section_of(card: str, title: str) -> str:
    """The text of a model card's section, "" when it has none.

    >>> section_of("# A\\n## Licence\\nCC0\\n## B\\n", "Licence")
    'CC0'
    """
    found = re.search(
        rf"^#+[ \t]+{re.escape(title)}[ \t#]*$(.*?)(?=^#+[ \t]|\Z)", card, re.MULTILINE | re.DOTALL
    )
    return found.group(1).strip() if found else ""


class BundleCard:
    """The summary below the selector, and a link to the whole card; ``on_open`` is called when it is clicked."""

    def __init__(self, on_open: Callable[[], None]) -> None:
        self.widget = small_label()
        self.widget.setTextFormat(qt.Qt.RichText)
        self.widget.setTextInteractionFlags(qt.Qt.TextBrowserInteraction)
        self.widget.linkActivated.connect(lambda *_arguments: on_open())

    def show(self, entry: BundleEntry | None) -> None:
        if entry is None:
            self.widget.text = _("No model is installed.")
            return
        link = f' <a href="card">{_("Model card")}</a>' if entry.bundle is not None else ""
        self.widget.text = summary_of(entry) + link


def card_dialog(entry: BundleEntry, parent: Any = None) -> Any:
    """A window with the whole model card, shown by its ``exec_``.

    The card is a stranger's text: it is shown as it is written, since rich text would load what it refers to (files of
    this computer, shares of others, pictures).
    """
    dialog = qt.QDialog(parent)
    dialog.windowTitle = _("Model card: {name}").format(name=entry.name)
    dialog.resize(720, 640)
    layout = qt.QVBoxLayout(dialog)
    text = qt.QPlainTextEdit()
    text.readOnly = True
    text.plainText = entry.bundle.card if entry.bundle is not None else entry.problem or ""
    layout.addWidget(text)
    buttons = qt.QDialogButtonBox()
    buttons.setStandardButtons(qt.QDialogButtonBox.Close)
    buttons.rejected.connect(dialog.reject)
    layout.addWidget(buttons)
    return dialog
