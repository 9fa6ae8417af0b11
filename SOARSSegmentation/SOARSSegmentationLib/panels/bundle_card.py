"""What users should know about a model bundle before they use it: what it covers, and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt

from soars.bundle.manifest import CASCADE
from soars.catalogue import SOARS42
from SOARSSegmentationLib.panels.parts import escaped, small_label
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    from soars.bundle.store import Bundle, BundleEntry
    from SOARSSegmentationLib.run.models import State


def summary_of(entry: BundleEntry) -> str:
    """A bundle in two or three lines of rich text."""
    bundle = entry.bundle
    if bundle is None:
        return f"<b>{escaped(entry.name)}</b>: {escaped(entry.problem or '')}"
    covered = sum(organ in SOARS42 for organ in bundle.organs)
    facts = [
        f"<b>{escaped(bundle.name)} {escaped(bundle.version)}</b>",
        _("{covered} of {number} organs").format(covered=covered, number=len(SOARS42)),
        escaped(bundle.licence),
    ]
    if bundle.system == CASCADE:  # others may have their weights elsewhere
        facts.insert(2, _("{megabytes:.1f} MB").format(megabytes=bundle.size_bytes / 1e6))
    return " \N{MIDDLE DOT} ".join(facts) + "<br>" + escaped(bundle.description)


def readiness_of(bundle: Bundle, state: State | None) -> str:
    """How much of a bundle can be drawn here now, as rich text with the link "get" where the rest can be had; "" where
    that is all, and where it is not known."""
    if state is None or not state.why_not:
        return ""
    text = _("Ready on this computer: {ready} of {number} organs.").format(
        ready=len(state.ready), number=len(bundle.organs)
    )
    if state.downloads:
        known = [one.size_mb for one in state.downloads if one.size_mb is not None]
        size = _(" ({size} MB)").format(size=sum(known)) if len(known) == len(state.downloads) else ""
        text += " " + _("{count} models can be downloaded{size}.").format(
            count=len(state.downloads), size=size
        )
    if state.packages:
        names = ", ".join(one.partition(">=")[0] for one in state.packages)
        text += " " + _("Missing packages: {names}.").format(names=names)
    if state.downloads or state.packages:
        return escaped(text) + f' <a href="get">{_("Get it...")}</a>'
    return escaped(text)


def uncovered_of(bundle: Bundle) -> str:
    """The organs of the 42 that a bundle does not draw, as rich text with the link "scratch"; "" where it draws all."""
    left = [organ for organ in SOARS42 if organ not in bundle.organs]
    if not left:
        return ""
    text = _("Not in this model ({count}): {organs}.").format(count=len(left), organs=", ".join(left))
    return escaped(text) + f' <a href="scratch">{_("Draw from scratch")}</a>'


class BundleCard:
    """The summary below the selector. ``on_link`` hears of clicks on its links "card", "get" and "scratch"."""

    def __init__(self, on_link: Callable[[str], None]) -> None:
        self.widget = small_label(rich=True)
        self.widget.setTextInteractionFlags(qt.Qt.TextBrowserInteraction)
        self.widget.linkActivated.connect(lambda link="", *_arguments: on_link(str(link)))

    def show(self, entry: BundleEntry | None, state: State | None = None) -> None:
        """``state`` is None where it is not known what the bundle lacks."""
        if entry is None:
            self.widget.text = _("No model is installed.")
            return
        lines = [summary_of(entry)]
        if entry.bundle is not None:
            lines[0] += f' <a href="card">{_("Model card")}</a>'
            lines += [readiness_of(entry.bundle, state), uncovered_of(entry.bundle)]
        self.widget.text = "<br>".join(line for line in lines if line)


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
