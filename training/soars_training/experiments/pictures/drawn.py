"""What the settings of a comparison have drawn in the same patients: kept when they are scored, and shown side by side
on the same slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.catalogue import CATALOGUE
from soars.figures import new_figure, save_figure
from soars.structures import tight_mask
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, read_case, write_case

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = "drawn"
PATIENTS, SLICES = 2, 2
"""So many of the held-out patients are shown, on so many slices each."""
WINDOW_HU = (-160.0, 240.0)


def shown(test: Sequence[IndexEntry]) -> list[IndexEntry]:
    """Those of the held-out whole scans that are kept and shown."""
    return [entry for entry in test if entry.group is None][:PATIENTS]


@dataclass
class Drawn:
    """The masks of the patients that are shown, as they are scored; those of small organs have grids of their own and
    are not kept."""

    names: frozenset[str]
    cases: dict[str, CachedCase] = field(default_factory=dict)

    @staticmethod
    def of(test: Sequence[IndexEntry]) -> Drawn:
        return Drawn(frozenset(entry.name for entry in shown(test)))

    def add(self, case: CachedCase, organ: str, mask: np.ndarray) -> None:
        """A mask bool [z, y, x] on the case's grid."""
        if case.name not in self.names:
            return
        kept = self.cases.get(case.name) or replace(case, masks={}, annotated=frozenset(), mr=None)
        tight = tight_mask(mask)
        found = {} if tight.is_empty else {organ: (tight.start, np.asarray(tight.array))}
        self.cases[case.name] = replace(kept, masks={**kept.masks, **found})

    def save(self, folder: Path) -> None:
        """A file a patient."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, case in self.cases.items():
            write_case(folder / f"{name}.npz", case)


def draw_contours(folder: Path, settings: Iterable[str], path: Path) -> bool:
    """A row a slice, a column a setting: the setting's contours as lines, the reference as dots of the same colour.

    ``folder`` is an ablation's. Whether there was anything to show. `InputError` when matplotlib is not installed.
    """
    index = CacheIndex.load(folder / "cache")
    rows: list[tuple[CachedCase, int]] = []
    for entry in shown(index.of_split("test")):
        if Path(entry.file).exists():
            case = read_case(Path(entry.file))
            rows += [(case, z) for z in _slices(case)]
    columns = [s for s in settings if list((folder / DRAWN / s).glob("*.npz"))]
    if not rows or not columns:
        return False
    figure = new_figure(2.6 * len(columns), 2.6 * len(rows))
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (case, z) in zip(panels, rows, strict=True):
        for panel, setting in zip(line, columns, strict=True):
            file = folder / DRAWN / setting / f"{case.name}.npz"
            _panel(panel, case, read_case(file) if file.exists() else None, z)
        line[0].set_ylabel(f"{case.name}, slice {z + 1}", fontsize=7)
    for panel, setting in zip(panels[0], columns, strict=True):
        panel.set_title(setting, fontsize=9)
    save_figure(figure, path)
    return True


def _slices(case: CachedCase) -> list[int]:
    """The slices that show most organs, one of each part of the scan that has any."""
    counts = np.zeros(case.ct_hu.shape[0], int)
    for (z, _, _), crop in case.masks.values():
        counts[z : z + crop.shape[0]] += crop.any((1, 2))
    there = np.flatnonzero(counts)
    return [int(part[np.argmax(counts[part])]) for part in np.array_split(there, SLICES) if len(part)]


def _panel(panel: Axes, case: CachedCase, drawn: CachedCase | None, z: int) -> None:
    low, high = WINDOW_HU
    panel.imshow(case.ct_hu[z], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    for organ in case.masks:
        colour = tuple(channel / 255 for channel in CATALOGUE[organ].colour)
        kept: dict[str, Any] = {"colors": [colour], "linewidths": 0.9}
        _outline(panel, case, organ, z, kept | {"linestyles": "dotted"})
        if drawn is not None:
            _outline(panel, drawn, organ, z, kept)
    panel.set_xticks([])
    panel.set_yticks([])


def _outline(panel: Axes, case: CachedCase, organ: str, z: int, style: dict[str, Any]) -> None:
    if organ in case.masks:
        plane = case.full_mask(organ)[z]
        if plane.any():
            panel.contour(plane, levels=[0.5], **style)
