"""What the review table shows about each organ, gathered from the segmentation, its proposal and the session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soars import catalogue
from soars.effort.review import NOT_REVIEWED
from soars.findings.finding import ExpectedDsc, Finding
from soars.findings.order import by_need, in_order
from soars.report.record import ABSENT
from SOARSSegmentationLib.scene.findings import found_of
from SOARSSegmentationLib.scene.segments import WARNING_TAG, segment_ids, tag_of
from SOARSSegmentationLib.views.visibility import is_visible

if TYPE_CHECKING:
    from soars.structures import Mask
    from SOARSSegmentationLib.session.editing import EditingSession


@dataclass(frozen=True)
class Row:
    """One organ. ``colour`` is 0 to 255; ``added_cc`` and ``removed_cc`` are against the proposal, None where nothing
    was compared; ``warning`` is a sentence, "" where nothing is odd. ``findings`` are the most severe first,
    ``need`` is the organ's place in the order in which to look at them, ``visible`` whether the views show it,
    ``covered`` whether the segmentation has a segment for it: a model's has none for an organ that it does not draw."""

    organ: str
    label: str
    stratum: str
    colour: tuple[int, int, int]
    segment_id: str | None
    state: str
    volume_cc: float
    added_cc: float | None = None
    removed_cc: float | None = None
    dsc: float | None = None
    active_s: float = 0.0
    warning: str = ""
    findings: tuple[Finding, ...] = ()
    expected: ExpectedDsc | None = None
    need: int = 0
    visible: bool = True
    covered: bool = True

    @property
    def severity(self) -> str | None:
        """Of its worst finding."""
        return self.findings[0].severity if self.findings else None


def rows_of(
    segmentation_node: Any,
    organs: Iterable[str],
    voxel_cc: float,
    *,
    session: EditingSession | None = None,
    masks: Mapping[str, Mask] | None = None,
    found: Found | None = None,
) -> list[Row]:
    """The rows of ``organs``, in the catalogue's order.

    ``segmentation_node`` may be None: then all are absent. Volumes and changes are the session's, or without one those
    of ``masks``, findings are those of ``found``; a voxel has ``voxel_cc`` cubic centimetres.
    """
    wanted = set(organs)
    ids = segment_ids(segmentation_node) if segmentation_node is not None else {}
    states = session.states() if session is not None else {}
    changes = session.changes() if session is not None else {}
    found = found or {}
    order = by_need(
        [oar for oar in catalogue.CATALOGUE if oar in wanted],
        [finding for findings, _expected in found.values() for finding in findings],
        {organ: expected for organ, (_findings, expected) in found.items() if expected is not None},
    )
    rows = []
    for oar in catalogue.CATALOGUE.values():
        if oar.name not in wanted:
            continue
        segment_id = ids.get(oar.name)
        segment = segmentation_node.GetSegmentation().GetSegment(segment_id) if segment_id else None
        colour = tuple(round(255 * c) for c in segment.GetColor()) if segment is not None else oar.colour
        mask = (masks or {}).get(oar.name)
        change = changes.get(oar.name)
        volume_cc = mask.voxels * voxel_cc if mask is not None else 0.0
        state = states.get(oar.name)
        if state is None:
            state = NOT_REVIEWED if volume_cc > 0 else ABSENT
        rows.append(
            Row(
                organ=oar.name,
                label=oar.label,
                stratum=oar.stratum,
                colour=colour,
                segment_id=segment_id,
                state=state,
                volume_cc=change.volume_cc if change is not None else volume_cc,
                added_cc=change.voxels_added * voxel_cc if change is not None else None,
                removed_cc=change.voxels_removed * voxel_cc if change is not None else None,
                dsc=change.dsc if change is not None else None,
                active_s=session.active_s(oar.name) if session is not None else 0.0,
                warning=tag_of(segment, WARNING_TAG) if segment is not None else "",
                findings=found[oar.name][0] if oar.name in found else (),
                expected=found[oar.name][1] if oar.name in found else None,
                need=order.index(oar.name),
                covered=segmentation_node is None or segment_id is not None,
                visible=segment_id is not None and is_visible(segmentation_node, segment_id),
            )
        )
    return rows


Found = Mapping[str, tuple[tuple[Finding, ...], ExpectedDsc | None]]


def found_in(segmentation_node: Any) -> Found:
    """What the run found about each organ, the most severe first. `InputError` when a segment's tag is damaged."""
    found = {}
    for organ, segment_id in segment_ids(segmentation_node).items():
        findings, expected = found_of(segmentation_node.GetSegmentation().GetSegment(segment_id))
        found[organ] = in_order(findings, [organ]), expected
    return found


def clock_text(seconds: float) -> str:
    """Minutes and seconds, with hours when there are any.

    >>> clock_text(62), clock_text(3605), clock_text(0)
    ('1:02', '1:00:05', '0:00')
    """
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def volume_text(cc: float) -> str:
    """Three significant digits, as far as they are meaningful.

    >>> [volume_text(v) for v in (0.0, 0.0834, 3.456, 45.67, 1234.5)]
    ['0', '0.08', '3.46', '45.7', '1234']
    """
    if cc == 0:
        return "0"
    return f"{cc:.2f}" if cc < 10 else f"{cc:.1f}" if cc < 100 else f"{cc:.0f}"


def change_text(row: Row) -> str:
    """What was added and removed in cc; "" when nothing was, or nothing was compared."""
    if not row.added_cc and not row.removed_cc:
        return ""
    parts = [
        f"{sign}{volume_text(cc)}"
        for sign, cc in (("+", row.added_cc or 0.0), ("\N{MINUS SIGN}", row.removed_cc or 0.0))
        if cc
    ]
    return " ".join(parts)
