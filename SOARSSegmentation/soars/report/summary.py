"""A run in the terminal: its organs as a table, and where its files are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from soars.report.outputs import WHAT_IS_IN
from soars.report.record import ABSENT, NOT_COVERED, NOT_REQUESTED, PRESENT, OrganRecord, RunRecord
from soars.report.words import volume_cc


def organ_table(record: RunRecord, dice: Mapping[str, float] | None = None) -> str:
    """The organs that were looked for, one per line, those that most need a look first; the others are only counted.

    `dice` adds a column with DSC.
    """
    header = (
        ["organ", "name", "volume cc", "state"] + (["DSC"] if dice is not None else []) + ["look here first"]
    )
    rows = []
    for organ in in_look_order(record):
        row = [organ.label, organ.name, format_volume(organ), organ.state]
        if dice is not None:
            row.append(f"{dice[organ.name]:.2f}" if organ.name in dice else "")
        rows.append([*row, "; ".join(organ_notes(organ))])
    right = {2, 4} if dice is not None else {2}
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header) - 1)] + [len(header[-1])]
    lines = [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, ["-" * w for w in widths], *rows)
    ]
    lines = [line.rstrip() for line in lines]
    for state, text in ((NOT_COVERED, "not covered by the bundle"), (NOT_REQUESTED, "not asked for")):
        count = len(record.in_state(state))
        if count:
            lines.append(
                f"{count} organs {text} {record.bundle.name}" if state == NOT_COVERED else f"{count} {text}"
            )
    lines += [f"warning: {text}" for text in record.general_warnings]
    return "\n".join(lines)


def in_look_order(record: RunRecord) -> list[OrganRecord]:
    """The organs that were looked for, those that most need a look first."""
    place = {name: number for number, name in enumerate(record.look_order)}
    looked_for = [organ for organ in record.organs if organ.state in (PRESENT, ABSENT)]
    return sorted(looked_for, key=lambda organ: place.get(organ.name, len(place)))


def organ_notes(organ: OrganRecord) -> list[str]:
    """Why an organ is absent, and the warnings about it, each once."""
    reason = organ.reason if organ.state == ABSENT else ""
    return [text for text in (reason, *(w for w in organ.warnings if not reason or reason not in w)) if text]


def format_volume(organ: OrganRecord) -> str:
    """The volume in cc, or a dash where there is none."""
    if organ.state != PRESENT:
        return "-"
    return volume_cc(organ.volume_cc)


def output_paths(folder: Path, names: Iterable[str]) -> str:
    """The paths of the written files, and what each is for."""
    paths = {name: str(folder / name) for name in names}
    width = max((len(path) for path in paths.values()), default=0)
    return "\n".join(
        f"{path.ljust(width)}  {WHAT_IS_IN.get(name, '')}".rstrip() for name, path in paths.items()
    )
