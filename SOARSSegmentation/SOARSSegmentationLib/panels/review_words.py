"""States, strata and findings in words."""

from __future__ import annotations

from soars.effort.review import ACCEPTED, IN_PROGRESS, NOT_REVIEWED
from soars.findings.finding import CHECK, NOTE, SERIOUS, Finding
from soars.report.record import ABSENT
from SOARSSegmentationLib.panels.parts import escaped, sentence
from SOARSSegmentationLib.review.rows import Row
from SOARSSegmentationLib.translation import _

SEVERITY_COLOURS = {SERIOUS: "#c0392b", CHECK: "#c77700", NOTE: "#5b7fa6"}
_SIGNS = {SERIOUS: "\N{DOUBLE EXCLAMATION MARK}", CHECK: "\N{WARNING SIGN}", NOTE: "\N{BULLET}"}


def stratum_title(stratum: str) -> str:
    return {
        "anchor": _("Anchor organs"),
        "mid_level": _("Mid-level organs"),
        "small_hard": _("Small and hard organs"),
        "extra": _("Other organs"),
    }[stratum]


STATE_SIGNS = {
    NOT_REVIEWED: "\N{WHITE CIRCLE}",
    IN_PROGRESS: "\N{CIRCLE WITH LEFT HALF BLACK}",
    ACCEPTED: "\N{CHECK MARK}",
    ABSENT: "\N{EN DASH}",
}
"""They differ even without colour, and leave space for the organ's name."""


def state_title(state: str) -> str:
    return {
        NOT_REVIEWED: _("not reviewed"),
        IN_PROGRESS: _("in progress"),
        ACCEPTED: _("accepted"),
        ABSENT: _("absent"),
    }[state]


def state_words(row: Row) -> str:
    """An organ's state; of one that the model does not draw, what is left to do."""
    return state_title(row.state) if row.covered else _("not in the model: to be drawn from scratch")


def severity_title(severity: str) -> str:
    return {SERIOUS: _("probably wrong"), CHECK: _("to be checked"), NOTE: _("worth knowing")}[severity]


def finding_sign(row: Row) -> str:
    """The worst finding's sign, and how many there are; "" where there is none."""
    if row.severity is None:
        return ""
    return _SIGNS[row.severity] + (f" {len(row.findings)}" if len(row.findings) > 1 else "")


def finding_words(row: Row) -> str:
    """Each finding with what to do, one per line; other warnings where there is no finding."""
    lines = [
        f"{severity_title(one.severity)}: {sentence(one.sentence())} {one.advice}" for one in row.findings
    ]
    return "\n".join(lines) or sentence(row.warning)


def described(row: Row, finding: Finding | None) -> str:
    """The current organ in rich text: its name, its expected quality, and the finding that the views show, or else its
    worst."""
    text = f"<b>{escaped(row.label)}</b>"
    if row.expected is not None:
        text += " \N{MIDDLE DOT} " + _("expected Dice {dsc}").format(dsc=row.expected.text())
    shown = finding or (row.findings[0] if row.findings else None)
    if shown is not None:
        text += (
            f'<br><span style="color: {SEVERITY_COLOURS[shown.severity]}">{_SIGNS[shown.severity]} '
            f"{escaped(sentence(shown.sentence()))}</span> {escaped(shown.advice)}"
        )
    elif not row.covered:
        text += f"<br>{escaped(sentence(state_words(row)))}"
    elif row.warning:
        text += f"<br>{escaped(sentence(row.warning))}"
    return text
