"""The picture of a search: how the share of every kernel went, block by block."""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from soars.figures import new_figure, save_figure
from soars.texts import read_json
from soars_training.search.search import SEARCH_FILE

log = logging.getLogger(__name__)

FIGURE_FILE = "search.png"
COLUMNS = 3


def draw_if_possible(folder: Path) -> None:
    """Write `search.png` beside a finished search's `search.json`, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        log.info(
            "no picture of the search: matplotlib is not installed (pip install 'soars-segmentation[study]')"
        )
        return
    draw(read_json(folder / SEARCH_FILE), folder / FIGURE_FILE)


def draw(search: dict[str, Any], path: Path) -> None:
    """A panel a block: the kernels' shares over the steps; the one that was chosen is in the title."""
    history = search["history"]
    steps = [note["step"] for note in history]
    shares = np.array([note["shares"] for note in history])  # [time, block, kernel]
    blocks = search["blocks"]
    rows = math.ceil(len(blocks) / COLUMNS)
    figure = new_figure(3.2 * COLUMNS, 2.4 * rows)
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for number, (panel, chosen) in enumerate(zip(panels, blocks, strict=False)):
        for kernel, values in zip(search["kernels"], shares[:, number].T, strict=True):
            panel.plot(steps, values, label=kernel, linewidth=2.5 if kernel == chosen else 1)
        panel.set_title(f"block {number + 1}: {chosen}", fontsize=9)
        panel.set_xlabel("step")
        panel.set_ylabel("share")
    for panel in panels[len(blocks) :]:
        panel.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    save_figure(figure, path)
