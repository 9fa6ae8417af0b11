"""Pictures of doses: DVHs of one case, or box plots of the differences of several. matplotlib is imported when
asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soars.dose.cases import CaseDose
from soars.dose.compare import NOTED_PERCENT, DoseDifference
from soars.dose.dvh import Dvh
from soars.dose.tables import DVH_BIN_GY, in_catalogue_order
from soars.figures import new_figure, save_figure, stratum_tint
from soars.metrics.summary import stratum_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d")
_COLUMNS = 5
_MOST_IN_TITLE = 3
"""The differences of more substitutes would run into the next panel's title."""


def plot_doses(cases: Sequence[CaseDose], path: Path, volume: str = "percent") -> None:
    """One case: cumulative DVHs, a panel an organ, the volume in "percent" or "cc". Several: box plots of the
    differences in mean and maximum dose."""
    if len(cases) == 1:
        plot_dvhs(cases[0], path, volume)
    else:
        plot_differences(cases, path)


def plot_dvhs(case: CaseDose, path: Path, volume: str = "percent") -> None:
    """Draw the cumulative DVHs of the reference (black) and of each substitute, one panel an organ, all on one dose
    axis. Volumes in percent share their axis too; those in cc are each organ's own."""
    organs = [
        organ
        for organ in in_catalogue_order(d.organ for d in case.differences)
        if any(
            d.organ == organ and len(d.reference_dvh.gy) + len(d.substitute_dvh.gy) for d in case.differences
        )
    ]
    columns = min(_COLUMNS, max(len(organs), 1))
    rows = max(-(-len(organs) // columns), 1)
    figure = new_figure(width=2.6 * columns + 0.6, height=2.1 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=volume == "percent")
    highest = max((_highest(d) for d in case.differences), default=1.0)
    substitutes = list(dict.fromkeys(d.substitute for d in case.differences))
    for place, axis in enumerate(axes.flat):
        if place >= len(organs):
            axis.set_visible(False)
            continue
        mine = [d for d in case.differences if d.organ == organs[place]]
        _dvh_panel(axis, mine, substitutes, volume)
        axis.set_xlim(0, highest)
        if place + columns >= len(organs):  # nothing stands below: the shared axis shows its numbers here
            axis.tick_params(labelbottom=True)
    handles = [figure.axes[0].plot([], [], color="black", linewidth=1.3)[0]]
    handles += [
        figure.axes[0].plot([], [], color=_COLOURS[i % len(_COLOURS)])[0] for i in range(len(substitutes))
    ]
    figure.legend(handles, ["reference", *substitutes], loc="outside upper center", ncols=4, fontsize=8)
    figure.supxlabel("dose (Gy)", fontsize=9)
    unit = "%" if volume == "percent" else "cc"
    figure.supylabel(f"volume at or above the dose ({unit})", fontsize=9)
    save_figure(figure, path)


def plot_differences(cases: Sequence[CaseDose], path: Path) -> None:
    """Draw the signed differences in mean and maximum dose per organ, over cases and substitutes; lines mark 10
    and 30 %."""
    found = [d for case in cases for d in case.differences]
    organs = in_catalogue_order(d.organ for d in found)
    figure = new_figure(width=11, height=1.4 + 0.27 * max(len(organs), 3))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, title) in zip(
        axes, (("mean_percent", "mean dose"), ("max_percent", "maximum dose")), strict=True
    ):
        values = [[getattr(d, name) for d in found if d.organ == organ] for organ in organs]
        _difference_panel(axis, values, organs)
        axis.set_title(f"difference in {title} (%)")
    axes[0].set_yticks(range(len(organs)), organs)
    axes[0].invert_yaxis()
    figure.suptitle(f"{len(cases)} cases", fontsize=9)
    save_figure(figure, path)


def _highest(difference: DoseDifference) -> float:
    doses = (difference.reference_dose.max_gy, difference.substitute_dose.max_gy)
    return 1.02 * max((dose for dose in doses if np.isfinite(dose)), default=1.0)


def _dvh_panel(
    axis: Axes, differences: Sequence[DoseDifference], substitutes: Sequence[str], volume: str
) -> None:
    def draw(dvh: Dvh, colour: str, width: float) -> None:
        doses, percent = dvh.cumulative(DVH_BIN_GY)
        axis.plot(
            doses,
            percent if volume == "percent" else percent / 100 * dvh.volume_cc,
            color=colour,
            linewidth=width,
        )

    referenced = len(differences[0].reference_dvh.gy) > 0
    if referenced:
        draw(differences[0].reference_dvh, "black", 1.3)
    noted = []
    for d in differences:
        if len(d.substitute_dvh.gy):
            draw(d.substitute_dvh, _COLOURS[substitutes.index(d.substitute) % len(_COLOURS)], 1.0)
        noted.append(f"{d.mean_percent:+.1f} %" if np.isfinite(d.mean_percent) else d.state)
    told = f"mean {', '.join(noted)}" if referenced else "not in the reference"
    if referenced and len(noted) > _MOST_IN_TITLE:
        told = ""
    axis.set_title(f"{differences[0].organ}\n{told}", fontsize=7.5)
    axis.set_ylim(bottom=0)
    if volume == "percent":
        axis.set_ylim(0, 102)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)


def _difference_panel(axis: Axes, values: Sequence[Sequence[float]], organs: Sequence[str]) -> None:
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
    for limit in NOTED_PERCENT:
        for sign in (-1, 1):
            axis.axvline(sign * limit, color="black", linewidth=0.6, linestyle=":")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.grid(axis="x", alpha=0.3)
