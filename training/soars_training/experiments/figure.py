"""The picture of an ablation: DSC of every setting, by stratum."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soars.figures import new_figure, save_figure
from soars_training.experiments.statistics import cell, of_stratum
from soars_training.experiments.tables import LABELS, Results


def draw(results: Results, path: Path) -> None:
    """A panel a stratum: a bar a setting, its standard deviation over seeds, a dot a patient (the mean of its organs
    and seeds). `InputError` when matplotlib is not installed."""
    figure = new_figure(4.0 * len(results.strata), 0.6 * len(results.settings) + 1.6)
    panels = figure.subplots(1, len(results.strata), sharey=True, squeeze=False)[0]
    for panel, stratum in zip(panels, results.strata, strict=True):
        for at, setting in enumerate(results.settings):
            mine = [r for r in of_stratum(results.rows, stratum) if r.setting == setting]
            value = cell(mine, "dsc")
            if value is None:
                continue
            sd = 100 * value.sd if np.isfinite(value.sd) else 0
            panel.barh(at, 100 * value.mean, xerr=sd, color="#9ec5e8", error_kw={"elinewidth": 1.5})
            patients = {
                case: [100 * r.dsc for r in mine if r.case == case] for case in {r.case for r in mine}
            }
            means = [float(np.mean(values)) for values in patients.values()]
            panel.plot(means, [at] * len(means), ".", color="#30506e", markersize=3, alpha=0.6)
        panel.set_title(LABELS[stratum])
        panel.set_xlabel("DSC, %")
        panel.set_xlim(0, 100)
    panels[0].set_yticks(range(len(results.settings)), results.settings)
    panels[0].invert_yaxis()
    save_figure(figure, path)
