"""From a finished run of a system to a model bundle of format 2."""

from __future__ import annotations

from pathlib import Path

from soars.bundle.store import Bundle, read_bundle, write_manifest
from soars.catalogue import CATALOGUE
from soars_training.release.card import card_text, measured_figures
from soars_training.release.export import BundleFacts, staged_bundle
from soars_training.systems.interface import SystemRun
from soars_training.systems.registry import training_system


def export_system(run_folder: Path, output: Path, facts: BundleFacts) -> Bundle:
    """Write a bundle folder from a finished run; nothing is left behind when it fails.

    Raises `InputError` when the run is not finished, or `output` exists.
    """
    run = SystemRun.load(run_folder)
    with staged_bundle(output, facts) as work:
        training_system(run.system).write_weights(run, run_folder, work)
        write_manifest(
            work,
            {
                **facts.fields(),
                "system": run.system,
                "organs": list(run.organs),
                "settings": run.settings,
            },
        )
    return read_bundle(output)


def system_card(name: str, description: str, licence: str, run: SystemRun) -> str:
    """The model card of a system's bundle, filled in from its run (Markdown)."""
    organs = ", ".join(CATALOGUE[organ].label.lower() for organ in run.organs)
    x, y, z = run.spacing_mm
    options = run.options
    trained_on = (
        f"{run.cases} cases of {run.source} on a grid of {x:g} x {y:g} x {z:g} mm; {organs}. {run.summary} "
        f"{run.parameters} parameters; {options['steps']} steps of {options['batch']} samples in "
        f"{run.seconds / 60:.0f} minutes, {options['optimiser']}, learning rate {options['learning_rate']:g}, seed "
        f"{options['seed']}. An organ that was not contoured in a case is unknown there, not taught as absent."
    )
    limits = (
        f"Nothing but these {len(run.organs)} organs.",
        f"Borders are good to a voxel of {max(run.spacing_mm):g} mm at best.",
        "The organs' extents follow the habits of those who contoured the cases above.",
        "Patients, scanners and positions unlike those above have not been tried.",
    )
    figures = measured_figures(list(run.validation.items()), len(run.held_out), "soars-train fit-system")
    return card_text(name, description, licence, [trained_on], figures=figures, limits=limits)
