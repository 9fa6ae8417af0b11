"""The proposal and the result of a session, written beside its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soars.effort.log import PROPOSAL_FILE, RESULT_FILE
from soars.errors import SoarsError
from SOARSSegmentationLib.scene import seg_file

if TYPE_CHECKING:
    from soars.structures import Geometry, Mask

SAVING_SHARE = 20
"""The result is saved again when the last saving took at most this fraction of the time since."""


class Saving:
    """The files of one session in ``folder``, of ``organs`` on the CT's ``geometry``.

    ``problem`` says why the last file could not be written, None when it was.
    """

    def __init__(
        self, folder: Path, organs: Iterable[str], geometry: Geometry, segmentation_node: Any
    ) -> None:
        self.problem: str | None = None
        self._folder = folder
        self._organs = tuple(organs)
        self._geometry = geometry
        self._segmentation_node = segmentation_node
        self._took_ns = 0
        self._saved_at_ns: int | None = None

    def due(self, now_ns: int) -> bool:
        """Whether it is time to save the result again, given how long the reader has to wait for it."""
        return self._saved_at_ns is None or now_ns - self._saved_at_ns >= SAVING_SHARE * self._took_ns

    def took(self, began_ns: int, ended_ns: int) -> None:
        """Note that the result was saved, and how long the reader waited."""
        self._saved_at_ns, self._took_ns = ended_ns, ended_ns - began_ns

    def has_proposal(self) -> bool:
        return (self._folder / PROPOSAL_FILE).exists()

    def save_proposal(self, masks: Mapping[str, Mask], *, untouched: bool) -> bool:
        """Save the proposal; returns whether it was written. ``untouched``: the segmentation is still the proposal."""
        return self._save(masks, PROPOSAL_FILE, as_in_scene=untouched)

    def save_result(self, masks: Mapping[str, Mask]) -> bool:
        """Whether it was written."""
        return self._save(masks, RESULT_FILE, as_in_scene=True)

    def _save(self, masks: Mapping[str, Mask], name: str, *, as_in_scene: bool) -> bool:
        from soars.formats.segnrrd import write_seg_nrrd
        from soars.structures import StructureSet

        structures = StructureSet(self._geometry)
        try:
            for organ in self._organs:
                if organ in masks:
                    structures.add_mask(organ, masks[organ])
            write_seg_nrrd(structures, self._folder / name)
        except (
            ModuleNotFoundError
        ):  # our writer's packages are not installed: use Slicer's own, slower writer
            if not as_in_scene:
                self.problem = "the proposal could not be saved beside the log: it is kept in the scene only"
                return False
            seg_file.write_by_slicer(self._segmentation_node, self._folder / name)
        except (SoarsError, ValueError) as error:
            self.problem = str(error)
            return False
        self.problem = None
        return True
