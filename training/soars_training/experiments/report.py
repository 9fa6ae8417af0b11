"""The picture of a training run: how loss and DSC went, and what the network draws in patients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.figures import new_figure, save_figure
from soars_training.cohorts.cache import CacheIndex, IndexEntry
from soars_training.experiments.scores import Trained
from soars_training.fitting.options import FittedRun
from soars_training.fitting.state import DSC_FILE, LOSS_FILE, read_log
from soars_training.windows.loaded import LoadedCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT_FILE = "report.png"
PATIENTS, SLICES = 3, 3
SHOWN_HU = (-160.0, 240.0)


def write_report(cache: Path, folder: Path, guide: Path | None = None, device: str = "auto") -> Path:
    """Write `report.png` beside a finished run; returns its path. `InputError` when matplotlib is not installed.

    Of an anchor or mid-level branch, three slices of each of three held-out patients are shown (of patients that it
    has learned from, and says so, when none were held out): the reader's contour in white, the network's in colour.
    """
    run = FittedRun.load(folder)
    examples = _examples(cache, folder, run, guide, device) if run.task().softmax else []
    figure = new_figure(4.0 * SLICES, 3.2 + 3.4 * len(examples))
    rows = 1 + len(examples)
    grid = figure.add_gridspec(rows, 2 * SLICES)
    _losses(figure.add_subplot(grid[0, :SLICES]), read_log(folder / LOSS_FILE))
    _scores(figure.add_subplot(grid[0, SLICES:]), read_log(folder / DSC_FILE))
    held = set(run.held_out)
    for row, (case, labels) in enumerate(examples, start=1):
        what = "held out" if case.data.name in held else "learned from"
        for column, z in enumerate(slices_to_show(case.target[0], SLICES)):
            panel = figure.add_subplot(grid[row, 2 * column : 2 * column + 2])
            _slice(panel, case, labels, z)
            panel.set_title(f"{case.data.name} ({what}), slice {z}", fontsize=8)
    save_figure(figure, folder / REPORT_FILE)
    return folder / REPORT_FILE


def slices_to_show(labels: np.ndarray, count: int) -> list[int]:
    """Slices spread over the extent of what is labelled in [z, y, x], the whole scan's where nothing is."""
    there = np.flatnonzero(labels.any(axis=(1, 2)))
    low, high = (there[0], there[-1]) if len(there) else (0, len(labels) - 1)
    return [round(low + (high - low) * (k + 1) / (count + 1)) for k in range(count)]


def _examples(
    cache: Path, folder: Path, run: FittedRun, guide: Path | None, device: str
) -> list[tuple[LoadedCase, np.ndarray]]:
    entries = [e for e in CacheIndex.load(cache).cases if set(e.annotated) & set(run.classes)]
    chosen = [e for e in entries if e.patient in run.held_out] or entries
    maps = Trained.load(folder, device).maps(cache, _spread(chosen), guide)
    return [(case, found.labels()) for case, found in maps]


def _spread(entries: list[IndexEntry]) -> list[IndexEntry]:
    """At most `PATIENTS` of them, evenly spread."""
    places = np.unique(np.linspace(0, len(entries) - 1, min(PATIENTS, len(entries))).round().astype(int))
    return [entries[int(i)] for i in places]


def _losses(panel: Axes, rows: list[dict[str, str]]) -> None:
    panel.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], color="#30506e")
    panel.set_xlabel("step")
    panel.set_ylabel("loss")
    panel.set_title("loss, mean over some steps")


def _scores(panel: Axes, rows: list[dict[str, str]]) -> None:
    organs = list(dict.fromkeys(r["organ"] for r in rows))
    for organ in organs:
        mine = [r for r in rows if r["organ"] == organ]
        panel.plot(
            [int(r["step"]) for r in mine], [float(r["dsc"]) for r in mine], ".-", label=organ, linewidth=1
        )
    panel.set_xlabel("step")
    panel.set_ylim(0, 1)
    panel.set_title("DSC of held-out patients" if organs else "no patients were held out")
    if organs:
        panel.legend(fontsize=6, ncols=1 + len(organs) // 12, loc="lower right")


def _slice(panel: Axes, case: LoadedCase, labels: np.ndarray, z: int) -> None:
    low, high = SHOWN_HU
    x, y, _ = case.data.spacing_mm
    picture: Any = np.clip(case.data.ct_hu[z], low, high)
    panel.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=y / x)
    for values, colours in ((case.target[0][z], "white"), (labels[z], "#ff9b3d")):
        for value in np.unique(values[values > 0]):
            panel.contour(values == value, levels=[0.5], colors=colours, linewidths=0.8)
    panel.set_axis_off()
