"""The review of one segmentation: its organs, the current one, and what a reader does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from soars.effort.review import ACCEPTED
from SOARSSegmentationLib.review.rows import Found, Row, found_in, rows_of
from SOARSSegmentationLib.scene import outlines, proposal
from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.reading import organ_mask, structures_of
from SOARSSegmentationLib.scene.segments import segment_ids
from SOARSSegmentationLib.views import slices, visibility
from SOARSSegmentationLib.views.presets import WindowPresets

if TYPE_CHECKING:
    from soars.findings.finding import Finding
    from soars.structures import Mask
    from SOARSSegmentationLib.session.editing import EditingSession


class Editor(Protocol):
    """The segment editor, as far as a review drives it."""

    def select(self, segment_id: str) -> None: ...

    def save_for_undo(self) -> None: ...


class ReviewControl:
    """Shows nothing itself. ``session()`` gives the running session, else the last one, or None; ``on_changed()`` is
    called when another organ becomes current or its voxels have changed."""

    def __init__(
        self,
        editor: Editor,
        session: Callable[[], EditingSession | None],
        on_changed: Callable[[], None],
    ) -> None:
        self._editor = editor
        self._session = session
        self._on_changed = on_changed
        self._node: Any = None
        self._volume: Any = None
        self._organs: tuple[str, ...] = ()
        self._masks: Mapping[str, Mask] = {}
        self._proposed: proposal.Proposal | None = None
        self._found: Found = {}
        self._selecting = False
        self.organ: str | None = None
        self.finding: Finding | None = None
        self.outlined = self.solo = False
        self.presets = WindowPresets()

    # --- what is reviewed ----------------------------------------------------------------------------------------
    def take(self, segmentation_node: Any, volume_node: Any, organs: Iterable[str]) -> None:
        """Review these organs of a segmentation (None: nothing) on its CT; no organ is in hand then.

        `SoarsError` when its voxels or its proposal cannot be read: then they are not shown.
        """
        before = self._node
        if before is not None and before is not segmentation_node and before.GetScene() is not None:
            outlines.remove_outlines(before)
        self._node, self._volume, self._organs = segmentation_node, volume_node, tuple(organs)
        self._masks, self._proposed, self._found = {}, None, {}
        self.organ, self.finding = None, None
        self.outlined = self.solo = False
        self.presets.forget()
        if segmentation_node is not None and volume_node is not None:
            self._proposed = proposal.proposal_of(segmentation_node, volume_node)
            found = structures_of(segmentation_node, None, volume_node)
            self._masks = {name: found.crop(name) for name in found}
            self._found = found_in(segmentation_node)

    def list_organs(self, organs: Iterable[str]) -> None:
        """Review these organs of the same segmentation; those of a session stay."""
        self._organs = tuple(organs)

    def rows(self) -> list[Row]:
        """What is known of each organ, in the catalogue's order."""
        session = self._own_session()
        if self._node is None or self._volume is None or self._volume.GetImageData() is None:
            return []
        organs = session.header.organs if session is not None else self._organs
        voxel_cc = grid_of(self._volume).voxel_cc
        return rows_of(self._node, organs, voxel_cc, session=session, masks=self._masks, found=self._found)

    @property
    def reviewing(self) -> bool:
        """Whether a session runs on the segmentation."""
        return self._running_session() is not None

    @property
    def has_proposal(self) -> bool:
        """Of the organ in hand."""
        return self.organ is not None and self._proposed is not None and self.organ in self._proposed

    # --- what a reader does --------------------------------------------------------------------------------------
    def select(self, organ: str, finding: Finding | None = None) -> None:
        """Turn to an organ: its segment in the editor, its clock, its outline, and the views, which go to the place
        of the ``finding`` if there is one."""
        if self._selecting or self._node is None:
            return
        self._selecting = True
        try:
            segment_id = segment_ids(self._node).get(organ)
            session = self._running_session()
            if session is not None:
                session.select(segment_id)
            self._editor.select(segment_id or "")
            self.organ, self.finding = organ, finding
            self._draw_outline()
            self._show_solo(segment_id)
            self.presets.use(organ, self._volume)
            if finding is not None and finding.where is not None:
                slices.centre_views(self._volume, slices.point_of(finding.where.point_mm))
            else:
                self._centre_on(organ, segment_id)
        finally:
            self._selecting = False
        self._on_changed()

    def selected_in_editor(self, segment_id: str) -> None:
        """A segment was selected in the editor, by the reader or by code."""
        if self._selecting or self._node is None:
            return
        ids = segment_ids(self._node)
        organ = next((organ for organ, one in ids.items() if one == segment_id), None)
        if organ != self.organ:
            self.organ, self.finding = organ, None
            self._draw_outline()
            self._on_changed()

    def accept(self) -> bool:
        """Accept the current organ, or withdraw its acceptance; returns whether it is now accepted."""
        session, organ = self._running_session(), self.organ
        if session is None or organ is None:
            return False
        if session.states().get(organ) == ACCEPTED:
            session.reopen(organ)
            self.select(organ)
            return False
        session.accept(organ)
        return True

    def next_finding(self) -> bool:
        """Go to the next finding, organs in order of need, wrapping round; returns whether there is one."""
        rows = sorted(self.rows(), key=lambda row: row.need)
        findings = [finding for row in rows if row.segment_id is not None for finding in row.findings]
        if not findings:
            return False
        at = next((n for n, one in enumerate(findings) if one == self.finding), None)
        following = findings[(at + 1) % len(findings)] if at is not None else findings[0]
        self.select(following.organ, following)
        return True

    def set_visible(self, organ: str, on: bool) -> None:
        """In all views."""
        segment_id = segment_ids(self._node).get(organ) if self._node is not None else None
        if segment_id is not None:
            visibility.set_visible(self._node, segment_id, on)
            self._on_changed()

    def show_solo(self, on: bool) -> None:
        """Show only the current organ, and each that becomes current; or all again."""
        self.solo = on
        if self._node is None:
            return
        if on:
            self._show_solo(segment_ids(self._node).get(self.organ or ""))
        else:
            visibility.show_all(self._node)
        self._on_changed()

    def show_outline(self, on: bool) -> None:
        """Show or hide the proposal of the current organ, and of each that becomes current."""
        self.outlined = on
        self._draw_outline()

    def restore(self) -> bool:
        """Restore the current organ's proposal, which the editor's undo takes back; returns whether there is one."""
        if self._node is None or self.organ is None:
            return False
        self._editor.save_for_undo()
        proposal.restore(self._node, self.organ, self._proposed)
        self._on_changed()
        return True

    # --- inside --------------------------------------------------------------------------------------------------
    def _own_session(self) -> EditingSession | None:
        """Segments of different segmentations have the same IDs, the organs' names: only a session on this one."""
        session = self._session()
        return session if session is not None and session.segmentation_node is self._node else None

    def _running_session(self) -> EditingSession | None:
        session = self._own_session()
        return session if session is not None and session.running else None

    def _draw_outline(self) -> None:
        if self._node is None:
            return
        for other in outlines.outlined(self._node):
            outlines.show_outline(self._node, other, False)
        if self.outlined and self.has_proposal and self.organ is not None:
            outlines.show_outline(self._node, self.organ, True, self._proposed)

    def _show_solo(self, segment_id: str | None) -> None:
        if self.solo and segment_id is not None:
            visibility.show_only(self._node, segment_id)

    def _centre_on(self, organ: str, segment_id: str | None) -> None:
        mask = self._proposed.masks.get(organ) if self._proposed is not None else None
        if (mask is None or mask.is_empty) and segment_id is not None:
            mask = organ_mask(self._node, segment_id, self._volume)
        point = slices.centre_of(mask, self._volume) if mask is not None else None
        if point is not None:
            slices.centre_views(self._volume, point)
