"""A training run as one HTML file: what was trained, how well, on whom it does worst, and the curves and slices.

Nothing in it is fetched, and no script runs.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from soars.catalogue import CATALOGUE
from soars.files import replacing_file
from soars.networks.names import INPUTS
from soars.report.page import content_policy
from soars_training.fitting.options import FittedRun
from soars_training.fitting.state import CASES_FILE, DSC_FILE, read_log

PAGE_FILE = "report.html"
WORST = 3
"""So many patients are named for each organ, those with the lowest DSC."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #d8dee5; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; }
p.note { color: #56616d; }
"""


def write_page(folder: Path, picture: Path) -> Path:
    """Write `report.html` beside a finished run, with the picture in it; returns its path. Raises `InputError`."""
    run = FittedRun.load(folder)
    scores, cases = read_log(folder / DSC_FILE), read_log(folder / CASES_FILE)
    image = base64.b64encode(picture.read_bytes()).decode("ascii")
    body = [
        f"<h1>{escape(_title(run))}</h1>",
        _table((), [(escape(name), escape(value)) for name, value in _facts(run).items()]),
        "<h2>Held-out patients</h2>",
        _organs(run, scores, cases),
        "<h2>Curves and slices</h2>",
        "<p class='note'>The reader's contours are white, the network's orange.</p>"
        if run.task().softmax
        else "",
        f'<img alt="Loss and DSC over the steps, and slices of some patients" src="data:image/png;base64,{image}">',
        "<details><summary>All settings</summary>",
        _table((), [(escape(k), escape(str(v))) for k, v in sorted(run.options.items()) if k != "task"]),
        "</details>",
    ]
    policy = escape(content_policy(STYLE, []))
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(_title(run))}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    with replacing_file(folder / PAGE_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / PAGE_FILE


def _title(run: FittedRun) -> str:
    return f"Training run: {run.branch.replace('_', ' ')} branch on {run.source}"


def _facts(run: FittedRun) -> Mapping[str, str]:
    x, y, z = run.spacing_mm
    options, architecture = run.options, run.architecture
    sees = [name for name in INPUTS if name in run.inputs]
    facts = {
        "organs": ", ".join(run.classes),
        "cases": f"{run.cases} to learn from, {len(run.held_out)} patients held out",
        "sees": ", ".join(sees)
        + "; CT through "
        + " and ".join(f"{a:g} to {b:g} HU" for a, b in run.windows_hu),
        "voxels": f"{x:g} x {y:g} x {z:g} mm",
        "network": f"{architecture.network}, {'-'.join(map(str, architecture.features))} channels",
        "kernels": ", ".join(architecture.blocks),
        "training": f"{options['steps']} steps of {options['batch']} windows of {'x'.join(map(str, run.patch))} "
        f"voxels (z, y, x), {options['optimiser']} at {options['learning_rate']:g}, seed {options['seed']}",
        "time": f"{run.seconds / 60:.1f} minutes",
    }
    if run.voi_mm:  # a window of the small organs is their volume of interest
        facts["training"] = facts["training"].replace(
            f" of {'x'.join(map(str, run.patch))} voxels (z, y, x)", ""
        )
    return facts


def _organs(run: FittedRun, scores: Sequence[dict[str, str]], cases: Sequence[dict[str, str]]) -> str:
    """DSC at the last validation and at the best, and who has the lowest."""
    if not scores:
        why = (
            "were held out" if not run.held_out else "were scored: only the anchor and mid-level branches are"
        )
        return f"<p class='note'>No patients {why}.</p>"
    last = max(int(row["step"]) for row in scores)
    means: dict[int, list[float]] = {}
    for row in scores:
        means.setdefault(int(row["step"]), []).append(float(row["dsc"]))
    best = max(means, key=lambda step: (sum(means[step]) / len(means[step]), step))
    rows = []
    for organ in run.classes:
        mine = {int(row["step"]): float(row["dsc"]) for row in scores if row["organ"] == organ}
        if last not in mine:
            continue
        lowest = sorted((float(r["dsc"]), r["case"]) for r in cases if r["organ"] == organ)[:WORST]
        label = CATALOGUE[organ].label if organ in CATALOGUE else organ
        at_best = f"{mine[best]:.3f}" if best in mine else ""
        worst = ", ".join(f"{case} {dsc:.2f}" for dsc, case in lowest)
        rows.append((escape(label), f"{mine[last]:.3f}", at_best, escape(worst)))
    mean, at_best = (f"{sum(means[step]) / len(means[step]):.3f}" for step in (last, best))
    rows.append(("<b>mean of organs</b>", mean, at_best, ""))
    return _table(("organ", f"DSC at step {last}", f"at the best, step {best}", "lowest"), rows, (1, 2))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Cells are HTML already, the header is text."""
    head = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>" if header else ""
    lines = []
    for row in rows:
        cells = (
            f"<td class='number'>{cell}</td>" if column in numbers else f"<td>{cell}</td>"
            for column, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{head}{''.join(lines)}</table>"
