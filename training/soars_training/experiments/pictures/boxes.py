"""Box plots of a comparison: by organ, a box a setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soars.catalogue import CATALOGUE
from soars.figures import new_figure, save_figure
from soars_training.experiments.scores import OrganRow
from soars_training.experiments.tables import Results

PANELS = {"dsc": ("DSC, %", 100.0), "hd95_mm": ("HD95, mm", 1.0)}
TINTS = (
    "#9ec5e8",
    "#f2b880",
    "#a8d5a2",
    "#d9a5c7",
    "#c9c9c9",
    "#e8e08a",
    "#8fb8b5",
    "#c3b1e1",
    "#f4a6a6",
    "#b5b5e8",
)


def draw_boxes(results: Results, path: Path) -> None:
    """Median, quartiles, whiskers to 1.5 interquartile ranges; a patient counts with the mean over the seeds that found
    the organ. `InputError` when matplotlib is not installed."""
    organs = [o for o in CATALOGUE if any(row.organ == o for row in results.rows)]
    width = 0.8 / len(results.settings)
    figure = new_figure(max(6.0, 0.25 * len(organs) * len(results.settings) + 2.0), 7.0)
    panels = figure.subplots(len(PANELS), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (measure, (title, factor)) in zip(panels, PANELS.items(), strict=True):
        for k, setting in enumerate(results.settings):
            at = np.arange(len(organs)) - 0.4 + width * (k + 0.5)
            mine = [row for row in results.rows if row.setting == setting]
            boxes = panel.boxplot(
                [factor * patients(mine, organ, measure) for organ in organs],
                positions=at.tolist(),
                widths=0.9 * width,
                manage_ticks=False,
                patch_artist=True,
                medianprops={"color": "black"},
                flierprops={"markersize": 3},
            )
            for box in boxes["boxes"]:
                box.set_facecolor(TINTS[k % len(TINTS)])
            panel.bar([0], [0], color=TINTS[k % len(TINTS)], label=setting)
        panel.set_ylabel(title)
        panel.grid(axis="y", alpha=0.3)
    panels[0].legend(fontsize=8, ncols=len(results.settings))
    panels[-1].set_xticks(range(len(organs)), organs, rotation=60, ha="right")
    save_figure(figure, path)


def patients(rows: Sequence[OrganRow], organ: str, measure: str) -> np.ndarray:
    """A value a patient: the mean over seeds of what is finite; patients without any are left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        value = float(getattr(row, measure))
        if row.organ == organ and np.isfinite(value):
            found.setdefault(row.case, []).append(value)
    return np.array([np.mean(values) for _, values in sorted(found.items())], float)
