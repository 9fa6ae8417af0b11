"""Figures of reading times: revision effort, minutes, readers, thresholds, learning and the calendar of sessions.

Colours are of Okabe and Ito's palette and differ in lightness as well, so that they hold for colour-blind readers
and in print; text is 7 points or more at the width of two journal columns (17 cm).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.catalogue import STRATUM_TITLES
from soars.effort.timing import CATEGORIES
from soars.figures import new_figure
from soars.study.comparisons import bland_altman
from soars.study.results.effort import arms_of, category_counts
from soars.study.results.minutes import SessionTime, patient_minutes, session_times
from soars.study.results.table import in_catalogue_order, mean_of, strata_of
from soars.study.rows import THRESHOLDS_S, OrganRow
from soars.study.sessions import Session

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 6.7
"""Two columns of a journal."""
CATEGORY_COLOURS = {"none": "#d9d9d9", "minor": "#56b4e9", "moderate": "#e69f00", "major": "#b2182b"}
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000")
MARKERS = ("o", "x", "^", "s", "+", "D", "v", "*")
SMALL = 7
FEWEST_FOR_INTERVAL = 10
"""With fewer values, the interval of a median is no more than a guess."""
TALLEST_IN = 20.0
MOST_IN_LEGEND = 12
"""With more readers than colours, a legend is useless and leaves no space for the figure."""


def revision_effort(rows: Sequence[OrganRow], arm: str) -> Figure:
    """Shares of the categories per organ in three panels, one a stratum (000, figure 4)."""
    mine = [row for row in rows if row.arm == arm and row.category]
    strata = strata_of([row.organ for row in mine])
    tallest = max((len(organs) for _, organs in strata), default=1)
    figure = new_figure(WIDTH_IN, 1.1 + 0.17 * (tallest + 1))
    axes = figure.subplots(1, max(len(strata), 1), squeeze=False)[0]
    for axis, (stratum, organs) in zip(axes, strata, strict=True):
        groups = [(organ, [row for row in mine if row.organ == organ]) for organ in organs]
        groups.append(("all", [row for row in mine if row.organ in organs]))
        _stacked(axis, groups)
        axis.set_title(STRATUM_TITLES[stratum], fontsize=SMALL + 1)
        axis.set_ylim(tallest + 0.6, -0.6)
    handles = [axes[0].barh([0], [0], color=CATEGORY_COLOURS[name]) for name in CATEGORIES]
    labels = ["no revision", "minor (< 1 min)", "moderate (1-3 min)", "major (> 3 min)"]
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=SMALL)
    figure.supxlabel(f"share of organs (%), {arm}", fontsize=SMALL + 1)
    return figure


def _stacked(axis: Axes, groups: Sequence[tuple[str, Sequence[OrganRow]]]) -> None:
    left = np.zeros(len(groups))
    counts = [category_counts(rows) for _, rows in groups]
    totals = np.array([max(sum(count.values()), 1) for count in counts])
    for name in CATEGORIES:
        share = 100 * np.array([count[name] for count in counts]) / totals
        axis.barh(
            range(len(groups)),
            share,
            left=left,
            color=CATEGORY_COLOURS[name],
            edgecolor="white",
            linewidth=0.3,
        )
        left += share
    axis.set_yticks(range(len(groups)), [name for name, _ in groups], fontsize=SMALL)
    axis.set_xlim(0, 100)
    quiet(axis)


def minutes_by_arm(rows: Sequence[OrganRow]) -> Figure:
    """Minutes of every patient in every arm, the same patient joined by a line where the organs are the same too; the
    bar is the mean."""
    minutes = patient_minutes(rows)
    arms = arms_of(rows)
    organs: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        organs.setdefault((row.arm, row.case), set()).add(row.organ)
    figure = new_figure(max(2.6, 1.1 + 0.9 * len(arms)), 3.0)
    axis = figure.subplots()
    for case in sorted({case for arm in arms for case in minutes[arm]}):
        places = [i for i, arm in enumerate(arms) if case in minutes[arm]]
        values = [minutes[arms[i]][case] for i in places]
        axis.plot(places, values, "o", color="#7f7f7f", markersize=2.5, alpha=0.6)
        for i, j in pairwise(range(len(places))):
            if organs[arms[places[i]], case] == organs[arms[places[j]], case]:
                ends = [places[i], places[j]], [values[i], values[j]]
                axis.plot(*ends, "-", color="#7f7f7f", linewidth=0.6, alpha=0.6)
    for place, arm in enumerate(arms):
        mean = mean_of(minutes[arm].values())
        axis.plot(
            [place - 0.25, place + 0.25], [mean, mean], color=COLOURS[place % len(COLOURS)], linewidth=3
        )
        axis.annotate(
            f"{mean:.1f}", (place + 0.28, mean), fontsize=SMALL + 1, va="center", annotation_clip=False
        )
    axis.set_xticks(
        range(len(arms)), [f"{arm}\n(n = {len(minutes[arm])})" for arm in arms], fontsize=SMALL + 1
    )
    axis.set_xlim(-0.5, len(arms) - 0.3)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("active minutes per patient", fontsize=SMALL + 1)
    quiet(axis)
    return figure


def times_by_organ(rows: Sequence[OrganRow], arm: str) -> Figure:
    """Active seconds per organ, a box a reader; the notch, or the thick line where it would not fit, is the 95 %
    interval of the median (003)."""
    mine = [row for row in rows if row.arm == arm]
    readers = sorted({row.reader for row in mine})
    organs = in_catalogue_order(row.organ for row in mine)
    figure = new_figure(WIDTH_IN, 1.1 + min(0.11 * max(len(readers), 2) * max(len(organs), 2), TALLEST_IN))
    axis = figure.subplots()
    step = 0.8 / max(len(readers), 1)
    for index, reader in enumerate(readers):
        values = [[max(r.active_s, 0.1) for r in mine if (r.reader, r.organ) == (reader, o)] for o in organs]
        there = [(place, v) for place, v in enumerate(values) if v]
        places = [place + (index - (len(readers) - 1) / 2) * step for place, _ in there]
        _boxes(axis, [v for _, v in there], places, 0.85 * step, COLOURS[index % len(COLOURS)])
    axis.set_yticks(range(len(organs)), organs, fontsize=SMALL)
    axis.set_ylim(len(organs) - 0.4, -0.6)
    axis.set_xscale("log")
    plain_numbers(axis.xaxis)
    for limit in (60, 180):
        axis.axvline(limit, color="black", linewidth=0.6, linestyle=":")
    axis.set_xlabel(f"active time per organ (s), {arm}; dotted: 1 and 3 min", fontsize=SMALL + 1)
    handles = [axis.plot([], [], "s", color=COLOURS[i % len(COLOURS)])[0] for i in range(len(readers))]
    if len(readers) <= MOST_IN_LEGEND:
        figure.legend(handles, readers, loc="outside upper center", ncols=6, fontsize=SMALL)
    quiet(axis)
    return figure


def _boxes(
    axis: Axes, values: Sequence[Sequence[float]], places: Sequence[float], width: float, colour: str
) -> None:
    """Boxes on a logarithmic axis. A notch is left out where it would reach beyond its box: it would fold over."""
    for own, place in zip(values, places, strict=True):
        low, high = median_interval(own)
        notched = (
            len(own) >= FEWEST_FOR_INTERVAL
            and np.percentile(own, 25) <= low
            and high <= np.percentile(own, 75)
        )
        axis.boxplot(
            [own],
            orientation="horizontal",
            positions=[place],
            widths=width,
            notch=bool(notched),
            conf_intervals=[(low, high)] if notched else None,
            patch_artist=True,
            showfliers=False,
            manage_ticks=False,
            medianprops={"color": "black", "linewidth": 0.8},
            whiskerprops={"linewidth": 0.5},
            capprops={"linewidth": 0.5},
            boxprops={"linewidth": 0.5, "facecolor": colour, "alpha": 0.65},
        )
        if not notched and len(own) >= FEWEST_FOR_INTERVAL:
            axis.plot([low, high], [place, place], color="black", linewidth=1.6, solid_capstyle="butt")


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median of positive values, 1.57 interquartile ranges of their logarithms over the root of n
    to each side (McGill, Tukey and Larsen, Am Stat 1978;32:12-16)."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    low, median, high = np.percentile(logs, (25, 50, 75))
    half = 1.57 * (high - low) / math.sqrt(len(logs))
    return float(np.exp(median - half)), float(np.exp(median + half))


def plain_numbers(axis: Any) -> None:
    """1, 10, 100 instead of powers of ten along a logarithmic axis, over less than two decades 1, 2, 5, 10; no small
    labels between."""
    from matplotlib.ticker import LogLocator

    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and low > 0 and high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _place: f"{value:g}")
    axis.set_minor_formatter(lambda value, _place: "")


def threshold_sensitivity(rows: Sequence[OrganRow]) -> Figure:
    """Mean minutes per patient of each arm over the idle threshold."""
    figure = new_figure(3.3, 2.6)
    axis = figure.subplots()
    labels = ["none" if math.isinf(t) else f"{t:g}" for t in THRESHOLDS_S]
    for index, arm in enumerate(arms_of(rows)):
        means = [mean_of(patient_minutes(rows, t)[arm].values()) for t in THRESHOLDS_S]
        axis.plot(
            range(len(labels)),
            means,
            marker=MARKERS[index % 8],
            color=COLOURS[index % 8],
            markersize=4,
            label=arm,
        )
    axis.set_xticks(range(len(labels)), labels, fontsize=SMALL)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("idle threshold (s)", fontsize=SMALL + 1)
    axis.set_ylabel("mean minutes per patient", fontsize=SMALL + 1)
    axis.legend(fontsize=SMALL, loc="center right")
    quiet(axis)
    return figure


def learning(rows: Sequence[OrganRow]) -> Figure:
    """Minutes of a session over its number in the worklist: a colour a reader, a marker an arm."""
    figure = new_figure(WIDTH_IN, 2.6)
    axis = figure.subplots()
    times = session_times(rows)
    readers, arms = sorted({s.reader for s in times}), arms_of(rows)
    for r, reader in enumerate(readers):
        for a, arm in enumerate(arms):
            mine = sorted((s for s in times if (s.reader, s.arm) == (reader, arm)), key=lambda s: s.sequence)
            axis.plot(
                [s.sequence for s in mine],
                [s.minutes for s in mine],
                MARKERS[a % 8],
                color=COLOURS[r % 8],
                markersize=3.5,
                label=f"{reader}, {arm}",
            )
    axis.set_yscale("log")
    plain_numbers(axis.yaxis)
    axis.set_xlabel("session of the worklist", fontsize=SMALL + 1)
    axis.set_ylabel("active minutes", fontsize=SMALL + 1)
    if len(readers) * len(arms) <= MOST_IN_LEGEND:
        figure.legend(loc="outside upper center", ncols=6, fontsize=SMALL)
    quiet(axis)
    return figure


def calendar(sessions: Sequence[Session]) -> Figure:
    """When sessions took place: a bar from start to end of each, breaks in white, over the days of the study
    (Gantt)."""
    readers = sorted({s.header.reader for s in sessions})
    arms = sorted({s.rows[0].arm for s in sessions if s.rows})
    figure = new_figure(WIDTH_IN, 0.9 + min(1.3 * max(len(readers), 1), TALLEST_IN))
    axes = figure.subplots(max(len(readers), 1), 1, sharex=True, squeeze=False)[:, 0]
    first = min((_moment(s.header.started_utc) for s in sessions), default=None)
    for axis, reader in zip(axes, readers, strict=True):
        for session in sessions:
            if session.header.reader == reader and first is not None and session.rows:
                _bar(axis, session, first, COLOURS[arms.index(session.rows[0].arm) % 8])
        axis.set_ylim(24, 0)
        axis.set_yticks(range(0, 25, 6), [f"{h}:00" for h in range(0, 25, 6)], fontsize=SMALL)
        axis.set_ylabel(reader, fontsize=SMALL + 1)
        quiet(axis)
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("day of the study (UTC)", fontsize=SMALL + 1)
    handles = [axes[0].bar([0], [0], color=COLOURS[i % 8]) for i in range(len(arms))]
    figure.legend(handles, arms, loc="outside upper center", ncols=6, fontsize=SMALL)
    return figure


def _bar(axis: Axes, session: Session, first: datetime, colour: str) -> None:
    began, ended = _moment(session.header.started_utc), _moment(session.ended_utc)
    day = (began.date() - first.date()).days
    hour = began.hour + began.minute / 60 + began.second / 3600
    length = (ended - began).total_seconds() / 3600
    axis.bar(day, min(length, 24 - hour), bottom=hour, width=0.85, color=colour, linewidth=0)
    for pause in session.pauses:
        axis.bar(
            day,
            (pause.end_s - pause.begin_s) / 3600,
            bottom=hour + pause.begin_s / 3600,
            width=0.85,
            color="white",
        )


def reader_agreement(rows: Sequence[OrganRow], arm: str, first: str, second: str) -> Figure | None:
    """Bland-Altman plot of two readers' minutes on the patients both read in an arm; None with fewer than three."""
    a, b = (_by_case(session_times(rows), reader, arm) for reader in (first, second))
    common = sorted(set(a) & set(b))
    if len(common) < 3:
        return None
    x, y = np.array([a[c] for c in common]), np.array([b[c] for c in common])
    found = bland_altman(list(x), list(y))
    figure = new_figure(3.3, 2.6)
    axis = figure.subplots()
    axis.plot((x + y) / 2, x - y, "o", color=COLOURS[0], markersize=3.5)
    for effect, style in ((found.bias, "-"), (found.lower, "--"), (found.upper, "--")):
        axis.axhline(effect.value, color="black", linewidth=0.8, linestyle=style)
        axis.axhspan(effect.low, effect.high, color="#999999", alpha=0.2, linewidth=0)
    axis.set_xlabel(f"mean of {first} and {second} (min), {arm}", fontsize=SMALL + 1)
    axis.set_ylabel(f"{first} - {second} (min)", fontsize=SMALL + 1)
    quiet(axis)
    return figure


def _by_case(times: Iterable[SessionTime], reader: str, arm: str) -> dict[str, float]:
    return {s.case: s.minutes for s in times if s.reader == reader and s.arm == arm}


def _moment(text: str) -> datetime:
    return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")


def quiet(axis: Axes) -> None:
    """Small ticks, a pale grid, no frame above and to the right."""
    axis.tick_params(labelsize=SMALL, length=2)
    axis.grid(axis="both", alpha=0.25, linewidth=0.4)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
