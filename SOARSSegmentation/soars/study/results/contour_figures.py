"""Figures of contours and doses: agreement of sets, model against people, dose differences, accuracy against dose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from soars.dose.cases import CaseDose
from soars.figures import new_figure
from soars.study.results.agreement import REFERENCE, Scored
from soars.study.results.figures import COLOURS, MARKERS, SMALL, WIDTH_IN, plain_numbers, quiet
from soars.study.results.table import in_catalogue_order, mean_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BAND = 0.05
"""DeepMind's study (003) takes a surface DSC within 5 points of the human reader's as no different."""
_FIGURES = (("dsc", "DSC"), ("hd95_mm", "HD95 (mm)"), ("asd_mm", "ASD (mm)"))


def agreement_by_set(scored: Sequence[Scored]) -> Figure:
    """Mean DSC, HD95 and ASD per organ against the reference, a marker a set."""
    mine = [s for s in scored if s.second == REFERENCE]
    sets, organs = list(dict.fromkeys(s.first for s in mine)), in_catalogue_order(s.organ for s in mine)
    figure = new_figure(WIDTH_IN, 1.0 + 0.16 * max(len(organs), 3))
    axes = figure.subplots(1, len(_FIGURES), sharey=True)
    for axis, (field, title) in zip(axes, _FIGURES, strict=True):
        for index, name in enumerate(sets):
            means = [
                mean_of(float(getattr(s.score, field)) for s in mine if s.first == name and s.organ == organ)
                for organ in organs
            ]
            axis.plot(means, range(len(organs)), MARKERS[index % 8], color=COLOURS[index % 8], markersize=3.5)
        axis.set_xlabel(title, fontsize=SMALL + 1)
        quiet(axis)
    axes[0].set_yticks(range(len(organs)), organs, fontsize=SMALL)
    axes[0].set_ylim(len(organs) - 0.4, -0.6)
    _legend(figure, axes[0], sets)
    return figure


def model_against_people_figure(differences: Mapping[str, Sequence[float]]) -> Figure:
    """Box per organ of the model's surface DSC minus the people's, with the band of 5 points (003); notches are the
    95 % intervals of the medians."""
    organs = in_catalogue_order(differences)
    figure = new_figure(WIDTH_IN, 0.9 + 0.17 * max(len(organs), 3))
    axis = figure.subplots()
    axis.axvspan(-BAND, BAND, color="#999999", alpha=0.25, linewidth=0)
    axis.axvline(0, color="black", linewidth=0.6)
    values = [list(differences[organ]) for organ in organs]
    axis.boxplot(
        values,
        orientation="horizontal",
        positions=range(len(organs)),
        widths=0.6,
        notch=min((len(v) for v in values), default=0) >= 10,
        patch_artist=True,
        showfliers=False,
        manage_ticks=False,
        boxprops={"facecolor": COLOURS[4], "linewidth": 0.5},
        medianprops={"color": "black"},
    )
    for place, row in enumerate(values):
        axis.plot(row, [place] * len(row), ".", color="black", markersize=2, alpha=0.6)
    axis.set_yticks(range(len(organs)), organs, fontsize=SMALL)
    axis.set_ylim(len(organs) - 0.4, -0.6)
    axis.set_xlabel("surface DSC of the proposal minus that of people; grey: within 0.05", fontsize=SMALL + 1)
    quiet(axis)
    return figure


def dose_scatter(cases: Sequence[CaseDose]) -> Figure:
    """Absolute differences in mean and maximum dose per organ, a marker a set (000, figure 5c)."""
    found = [d for case in cases for d in case.differences]
    sets, organs = (
        list(dict.fromkeys(d.substitute for d in found)),
        in_catalogue_order(d.organ for d in found),
    )
    figure = new_figure(WIDTH_IN, 1.0 + 0.16 * max(len(organs), 3))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (field, title) in zip(
        axes, (("mean_percent", "|difference in mean dose| (%)"), ("max_percent", "|difference in maximum dose| (%)")),
        strict=True,
    ):  # fmt: skip
        for index, name in enumerate(sets):
            points = [
                (
                    abs(float(getattr(d, field))),
                    organs.index(d.organ) + (index - (len(sets) - 1) / 2) * 0.6 / len(sets),
                )
                for d in found
                if d.substitute == name and math.isfinite(getattr(d, field))
            ]
            axis.plot(
                [x for x, _ in points], [y for _, y in points], MARKERS[index % 8], color=COLOURS[index % 8],
                markersize=2.8, markerfacecolor="none" if MARKERS[index % 8] in "o^sDv" else None,
            )  # fmt: skip
        for limit in (10, 30):
            axis.axvline(limit, color="black", linewidth=0.6, linestyle=":")
        axis.set_xlabel(title, fontsize=SMALL + 1)
        axis.set_xscale("symlog", linthresh=1)
        _percent_ticks(axis.xaxis)
        axis.set_xlim(left=0)
        quiet(axis)
    axes[0].set_yticks(range(len(organs)), organs, fontsize=SMALL)
    axes[0].set_ylim(len(organs) - 0.4, -0.6)
    _legend(figure, axes[0], sets)
    return figure


def accuracy_against_dose(scored: Sequence[Scored], cases: Sequence[CaseDose]) -> Figure:
    """Agreement of a contour with the reference against the dose difference that it makes, an organ of a case a point
    (000, supplement)."""
    doses = {(d.substitute, case.case, d.organ): d for case in cases for d in case.differences}
    sets = list(dict.fromkeys(name for name, _, _ in doses))
    figure = new_figure(WIDTH_IN, 3.9)
    axes = figure.subplots(2, len(_FIGURES), sharey="row", sharex="col")
    for row, (field, label) in enumerate(
        (("mean_percent", "|mean dose| (%)"), ("max_percent", "|max dose| (%)"))
    ):
        for column, (figure_of, title) in enumerate(_FIGURES):
            axis = axes[row, column]
            for index, name in enumerate(sets):
                points = np.array(
                    [
                        (float(getattr(s.score, figure_of)), abs(float(getattr(doses[key], field))))
                        for s in scored
                        if s.second == REFERENCE
                        and s.first == name
                        and (key := (name, s.case, s.organ)) in doses
                    ]
                ).reshape(-1, 2)
                points = points[np.isfinite(points).all(axis=1)]
                axis.plot(
                    points[:, 0],
                    points[:, 1],
                    MARKERS[index % 8],
                    color=COLOURS[index % 8],
                    markersize=2.2,
                    alpha=0.7,
                )
            axis.set_yscale("symlog", linthresh=1)
            _percent_ticks(axis.yaxis)
            axis.set_ylim(bottom=0)
            if row:
                axis.set_xlabel(title, fontsize=SMALL + 1)
            if not column:
                axis.set_ylabel(label, fontsize=SMALL + 1)
            quiet(axis)
    _legend(figure, axes[0, 0], sets)
    return figure


def _percent_ticks(axis: Axis) -> None:
    """Of a scale that is linear up to 1: decades alone would leave most axes with a single number."""
    from matplotlib.ticker import FixedLocator

    axis.set_major_locator(FixedLocator([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]))
    plain_numbers(axis)


def _legend(figure: Figure, axis: Axes, names: Sequence[str]) -> None:
    handles = [axis.plot([], [], MARKERS[i % 8], color=COLOURS[i % 8])[0] for i in range(len(names))]
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=SMALL)
