"""The report of a study: one HTML page with its text, tables, figures and methods, and nothing from elsewhere."""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import soars
from soars.dose.cases import CaseDose
from soars.effort.review import NOT_REVIEWED
from soars.files import write_text
from soars.study.load import Opened
from soars.study.results.minutes import BY_READER
from soars.study.results.table import Table
from soars.study.sessions import Collection, Session

if TYPE_CHECKING:
    from soars.study.results.arms import ArmComparison
    from soars.study.results.summary import Analysis

_LONG = 24
"""A table of more rows is folded away."""
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2.2rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;font-size:13px;margin:.6rem 0}.wide{overflow-x:auto}
th,td{padding:.15rem .5rem;text-align:right;border-bottom:1px solid #e4e4e4;white-space:nowrap}
th{background:#f3f3f3;position:sticky;top:0}td:first-child,th:first-child,td.text{text-align:left}
tr.published td{background:#fbf6e6;font-style:italic}p.note{color:#555;font-size:13px;max-width:60rem}
img{max-width:100%;height:auto}figure{margin:1rem 0}figcaption{color:#555;font-size:13px}
.key{font-size:1.15rem;background:#eef5fb;padding:.7rem 1rem;border-left:4px solid #0072b2}
details{margin:.4rem 0}summary{cursor:pointer;font-weight:600}ul.problems{color:#8a1c1c}
@media print{details>*{display:block}th{position:static}}
"""
_CAPTIONS = {
    "effort": "Share of organs in each category of revision, by organ and stratum.",
    "minutes": "Active minutes per patient and arm; lines join a patient's of the same organs, bars are means.",
    "times": "Active time per organ and reader: median, quartiles, whiskers to 1.5 times their distance; a notch or "
    "thick line is the 95 % interval of the median.",
    "readers": "Two readers' minutes on the same patients (Bland-Altman): bias and limits of agreement with intervals.",
    "thresholds": "Mean minutes per patient at other idle thresholds.",
    "learning": "Active minutes over the sessions of the worklist.",
    "calendar": "When sessions took place; breaks are white.",
    "agreement": "Agreement with the reference contours: means over patients.",
    "model_against_people": "The proposal's surface DSC against the reference minus that of people.",
    "dose": "Differences in mean and maximum dose; dotted: 10 and 30 %.",
    "accuracy_dose": "Agreement of a contour with the reference against the dose difference it makes.",
    "dvh": "Dose-volume histograms of one patient, reference in black.",
}


_METHODS = """
Editing was recorded by SOARSSegmentation in an append-only log on a monotonic clock. Active time of an organ is the
time while it was selected, less what exceeds {idle:g} s in a stretch without an act, breaks, and time in which the
application computed. Minutes per patient are the sum over organs of the mean over the readers who read the organ. A
revision is none (no voxel differs from the proposal), minor (less than 60 s), moderate (60 to 180 s) or major (more
than 180 s). Arms were compared on what the same readers read in both, organ by organ and patient by patient (where no
reader read anything in both: on the organs that both have of a patient), by Wilcoxon's signed-rank test of matched
pairs (exact up to 50 pairs without ties), Student's paired t test, and a linear mixed model of log minutes (REML; arm
fixed, reader and case crossed random intercepts; t with degrees of freedom by counting levels); arms on different
patients by Mann and Whitney's U test, on the same organs. All tests are two-sided; p values are given raw and after
Holm. Savings have percentile bootstrap intervals over patients (4999 resamples), shares Wilson's, Cohen's dz those of
the non-central t, the Hodges-Lehmann shift those of the signed-rank test. Agreement of readers' times is ICC(A,1) of
McGraw and Wong and Bland and Altman's limits. Contours were compared by `soars evaluate` (distances as
google-deepmind/surface-distance defines them; HD is the maximum), with the consensus of the others by STAPLE, and
doses by `soars dose` at CT voxel centres.
"""


def write_page(path: Path, analysis: Analysis, names: Sequence[str], figures: Path) -> None:
    """Write the page; ``figures`` is the folder with the .png of the figures of these names."""
    write_text(path, render_page(analysis, names, figures))


def render_page(analysis: Analysis, names: Sequence[str], figures: Path) -> str:
    """The page as HTML."""
    opened, plan = analysis.opened, analysis.opened.plan
    title = (plan.title or plan.name) if plan is not None else opened.folder.resolve().name
    parts = [
        f"<h1>{escape(title)}</h1>",
        _overview(opened, analysis.collection),
        _key_results(analysis),
        "<h2>Figures</h2>",
        *[_figure(name, figures) for name in names],
        "<h2>Tables</h2>",
        "<p class=note>All tables are beside this page as CSV. Rows on yellow are published results of other data: "
        "context, not targets.</p>",
        *[_table(table) for table in analysis.tables],
        "<h2>Methods</h2>",
        f"<p>{escape(methods(opened))}</p>",
        "<h2>Sessions</h2>",
        _problems(analysis.collection),
        _dose_warnings(analysis.contours.doses),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def methods(opened: Opened) -> str:
    """The methods paragraph: how times, categories, agreement and tests were made, with versions."""
    plan = opened.plan
    sentences = [" ".join(_METHODS.format(idle=opened.expected.idle_s).split())]
    if plan is not None:
        sentences.append(
            f"The study file has SHA-256 {plan.sha256}; the primary comparison was fixed in it as {plan.test}, "
            f"sessions were assigned with seed {plan.seed} ({plan.assignment}, {plan.balance}, wash-out "
            f"{plan.washout_days} days)."
        )
    sentences.append(f"Versions: {', '.join(f'{name} {number}' for name, number in _versions())}.")
    return " ".join(sentences)


def _versions() -> list[tuple[str, str]]:
    found = [("SOARS", soars.__version__), ("Python", platform.python_version())]
    for name in ("numpy", "scipy", "statsmodels", "SimpleITK", "matplotlib"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # not installed, so not used: a figure or a test would have failed
            continue
    return found


def _overview(opened: Opened, collection: Collection) -> str:
    sessions = collection.sessions
    main = [s for s in sessions if s.rows and s.rows[0].phase == "main"]
    finished = [s for s in main if s.finished]
    readers = sorted({s.header.reader for s in main})
    cases = {s.header.case for s in main}
    text = (
        f"{len(finished)} finished sessions of the main phase by {len(readers)} readers on {len(cases)} patients; "
        f"{len(main) - len(finished)} not finished, {len(sessions) - len(main)} of training; "
        f"{len(collection.left_out)} left out, {sum(bool(s.problems) for s in sessions)} with violations of the "
        "protocol (at the end of this page)."
    )
    if opened.plan is not None and opened.plan.observers:
        text += f" {len(opened.plan.observers)} observers' contours stand beside them."
    return f"<p>{escape(text + _undone(finished))}</p>"


def _undone(finished: Sequence[Session]) -> str:
    """How many organs of finished sessions nobody turned to: they do not say that a contour was good."""
    rows = [row for session in finished for row in session.rows]
    absent = sum(not row.is_reading for row in rows)
    passed_by = sum(row.is_reading and row.state == NOT_REVIEWED for row in rows)
    text = ""
    if absent:
        text += f" {absent} times an organ was neither proposed nor drawn: these are left out of times and categories."
    if passed_by:
        text += (
            f" {passed_by} of {len(rows)} organs were never selected before their session was finished: they count as "
            "read in no time, and as not revised unless another organ's edit took voxels of them."
        )
    return text


def _key_results(analysis: Analysis) -> str:
    lines = []
    for one in analysis.comparisons:
        tests = ", ".join(f"{name} p {_p(p)}" for name, p in one.p.items())
        lines.append(
            f"<b>{escape(one.first)}</b> took {one.first_mean:.1f} min per patient against {one.second_mean:.1f} min "
            f"<b>{escape(one.second)}</b> on the {one.n} patients they have in common"
            f"{_left_out(one)}: "
            f"{100 * one.saving:.1f} % saved (95 % interval {100 * one.saving_low:.1f} to {100 * one.saving_high:.1f}; "
            f"{escape(tests)})."
        )
    categories = next((t for t in analysis.tables if t.name == "categories"), None)
    for row in categories.rows if categories is not None else ():
        if row[1] == "all":
            shares = [f"{float(str(v)):.1f} %" for v in row[8:12]]
            lines.append(
                f"Of {row[3]} organs in <b>{escape(str(row[0]))}</b>, {shares[0]} needed no revision, {shares[1]} a "
                f"minor, {shares[2]} a moderate and {shares[3]} a major one."
            )
    return f"<p class=key>{'<br>'.join(lines)}</p>" if lines else ""


def _left_out(one: ArmComparison) -> str:
    readers = "" if one.by == BY_READER else "organs paired whoever drew them"
    count = f"without {one.left_out} readings of an organ in one arm only" if one.left_out else ""
    said = ", ".join(text for text in (readers, count) if text)
    return f" ({said})" if said else ""


def _figure(name: str, folder: Path) -> str:
    data = base64.b64encode((folder / f"{name}.png").read_bytes()).decode("ascii")
    kind = max((key for key in _CAPTIONS if name.startswith(key)), key=len, default="")
    caption = f"{name}: {_CAPTIONS.get(kind, '')}"
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = [_row(row, "") for row in table.rows] + [_row(row, " class=published") for row in table.published]
    note = f"<p class=note>{escape(table.note)}</p>" if table.note else ""
    html = f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{note}"
    if len(table.rows) > _LONG:
        last = "".join(_row(row, "") for row in table.rows if "all" in row[:3])
        short = (
            f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{last}</tbody></table></div>"
            if last
            else ""
        )
        rest = f"<details><summary>all {len(table.rows)} rows</summary>{html}</details>"
        return f"<h3>{escape(table.title)}</h3>{short}{rest}"
    return f"<h3>{escape(table.title)}</h3>{html}"


def _row(row: Sequence[object], attributes: str) -> str:
    cells = "".join(
        f"<td{' class=text' if isinstance(value, str) else ''}>{escape(_shown(value))}</td>" for value in row
    )
    return f"<tr{attributes}>{cells}</tr>"


def _shown(value: object) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if value and abs(value) < 0.001:
            return f"{value:.1e}"
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return str(value)


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"


def _problems(collection: Collection) -> str:
    lines = [
        f"<li>{escape(session.name)}: {escape('; '.join(session.problems))}</li>"
        for session in collection.sessions
        if session.problems
    ]
    out = [
        f"<li>{escape(one.folder.name)}: left out: {escape(one.reason.replace(str(one.folder), one.folder.name))}</li>"
        for one in collection.left_out
    ]
    if not lines and not out:
        return "<p>Every session follows the protocol.</p>"
    return f"<ul class=problems>{''.join(out + lines)}</ul>"


def _dose_warnings(doses: Sequence[CaseDose]) -> str:
    """What is odd about doses and the contours they were read in; "" where nothing is."""
    lines = [
        f"<li>{escape(case.case)}: {escape(warning)}</li>" for case in doses for warning in case.warnings
    ]
    return f"<h2>Doses</h2><ul class=problems>{''.join(lines)}</ul>" if lines else ""
