"""Box plots of scores, one box per organ. matplotlib is imported only when a picture is requested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soars.catalogue import CATALOGUE
from soars.figures import new_figure, save_figure, stratum_tint
from soars.metrics.evaluate import CaseScores
from soars.metrics.scores import COMPARED, EXTRA, MISSING, OrganScore
from soars.metrics.summary import stratum_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (("dsc", "DSC"), ("hd95_mm", "HD95 (mm)"), ("surface_dsc", "surface DSC"))


def plot_scores(cases: Sequence[CaseScores], path: Path, definition: str) -> None:
    """Draw DSC, HD95 and surface DSC per organ (median, quartiles, whiskers to 1.5 times the interquartile range,
    every case a dot) into a .png, .svg or .pdf file, all or nothing. The number of cases in which an organ was
    missing or extra is beside its name."""
    organs = [name for name in CATALOGUE if _of(cases, name)]
    organs += sorted({s.organ for case in cases for s in case.scores} - set(CATALOGUE))
    organs = [name for name in organs if any(s.state in (COMPARED, MISSING, EXTRA) for s in _of(cases, name))]
    figure = new_figure(width=13, height=1.4 + 0.27 * max(len(organs), 3))
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for axis, (name, title) in zip(axes, PANELS, strict=True):
        _panel(axis, [[getattr(s, name) for s in _of(cases, organ)] for organ in organs], organs)
        axis.set_title(title)
        if not name.endswith("_mm"):
            axis.set_xlim(-0.03, 1.03)
        else:
            axis.set_xlim(left=0)
    labels = []
    for organ in organs:
        states = [s.state for s in _of(cases, organ)]
        counts = [f"{states.count(state)} {state}" for state in (MISSING, EXTRA) if state in states]
        labels.append(f"{organ} ({', '.join(counts)})" if counts else organ)
    axes[0].set_yticks(range(len(organs)), labels)
    axes[0].invert_yaxis()
    figure.suptitle(
        f"{len(cases)} case{'s' * (len(cases) != 1)}; distances by the definition of {definition}", fontsize=9
    )
    save_figure(figure, path)


def _of(cases: Sequence[CaseScores], organ: str) -> list[OrganScore]:
    return [score for case in cases for score in case.scores if score.organ == organ]


def _panel(axis: Axes, values: Sequence[Sequence[float]], organs: Sequence[str]) -> None:
    finite = [[v for v in row if np.isfinite(v)] for row in values]
    boxes = axis.boxplot(
        finite,
        orientation="horizontal",
        positions=range(len(organs)),
        widths=0.6,
        patch_artist=True,
        showfliers=False,
        medianprops={"color": "black"},
    )
    for box, organ in zip(boxes["boxes"], organs, strict=True):
        box.set_facecolor(stratum_tint(stratum_of(organ)))
        box.set_alpha(0.55)
    for row, points in enumerate(finite):
        axis.plot(points, [row] * len(points), "o", markersize=2.2, color="black", alpha=0.5)
    axis.grid(axis="x", alpha=0.3)
