"""The model card of a bundle, filled in from its runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from soars.catalogue import CATALOGUE
from soars.networks.names import NetworkKind
from soars_training.fitting.options import FittedRun

NETWORK_NAMES: dict[NetworkKind, str] = {"unet": "U-Net", "phnn": "P-HNN"}


def card_of(name: str, description: str, licence: str, runs: Sequence[FittedRun]) -> str:
    """The card of a cascade's bundle, filled in from its runs (Markdown)."""
    return card_text(
        name, description, licence, map(_trained_on, runs), figures=_figures(runs), limits=_limits(runs)
    )


def card_text(
    name: str,
    description: str,
    licence: str,
    trained_on: Iterable[str],
    *,
    figures: Iterable[str],
    limits: Iterable[str],
) -> str:
    """Markdown with every section that a bundle needs; its makers add what only they know."""
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{description}.".replace("..", "."),
            "",
            "## Trained on",
            "",
            *trained_on,
            "",
            "## Licence",
            "",
            f"Weights: {licence}.",
            "",
            "## Figures",
            "",
            *figures,
            "",
            "## What it cannot do",
            "",
            *(f"- {line}" for line in limits),
            "",
            "## Research use only",
            "",
            "Not a medical device. Every contour is to be reviewed and corrected by a qualified person before any use.",
            "",
        ]
    )


def _trained_on(run: FittedRun) -> str:
    options = run.options
    organs = ", ".join(_label(organ) for organ in run.classes)
    windows = " and ".join(f"{low:g} to {high:g} HU" for low, high in run.windows_hu)
    x, y, z = run.spacing_mm
    return (
        f"- {run.branch}: {run.cases} cases of {run.source}; {organs}. A {NETWORK_NAMES[run.architecture.network]} of "
        f"{_channels(run)} channels at "
        f"{x:g} x {y:g} x {z:g} mm sees the CT through {windows}. {options['steps']} steps of {options['batch']} "
        f"windows in {run.seconds / 60:.0f} minutes, {options['optimiser']}, learning rate "
        f"{options['learning_rate']:g}, seed {options['seed']}. An organ that was not contoured in a case is "
        "left out of the loss there, not taught as background."
    )


def _figures(runs: Sequence[FittedRun]) -> list[str]:
    figures = [(organ, dsc) for run in runs for organ, dsc in run.validation.items()]
    return measured_figures(figures, max((len(run.held_out) for run in runs), default=0), "soars-train fit")


def measured_figures(figures: Sequence[tuple[str, float]], patients: int, command: str) -> list[str]:
    """The lines of the card's figures: (organ, mean DSC) of so many held-out patients, as the command measured them."""
    if not figures:
        return [f"None measured: `{command}` was run without `--held-out`."]
    lines = [
        f"Mean Dice similarity coefficient of {patients} patients that were held out, on the working grid, as "
        f"`{command} --held-out` measured it at the last step:",
        "",
        "| organ | mean DSC |",
        "|---|---|",
    ]
    lines += [f"| {organ} | {dsc:.3f} |" for organ, dsc in figures]
    return [*lines, f"| **mean of organs** | **{sum(dsc for _, dsc in figures) / len(figures):.3f}** |"]


def _limits(runs: Sequence[FittedRun]) -> list[str]:
    organs = [organ for run in runs if run.branch != "detection" for organ in run.classes]
    coarsest = max(max(run.spacing_mm) for run in runs)
    return [
        f"Nothing but these {len(organs)} organs.",
        f"Borders are good to a voxel of {coarsest:g} mm at best.",
        "The organs' extents follow the habits of those who contoured the cases above.",
        "Patients, scanners and positions unlike those above have not been tried.",
    ]


def _channels(run: FittedRun) -> str:
    return "-".join(str(width) for width in run.architecture.features)


def _label(name: str) -> str:
    return CATALOGUE[name].label.lower() if name in CATALOGUE else name
