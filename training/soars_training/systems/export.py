"""From a finished run of a system to a model bundle of format 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from soars.bundle.store import Bundle, read_bundle, write_manifest
from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars_training.release.card import card_text, measured_figures
from soars_training.release.export import BundleFacts, refused_beyond_half, require_alike, staged_bundle
from soars_training.systems.interface import SystemRun
from soars_training.systems.registry import training_system


def export_system(folders: Sequence[Path], output: Path, facts: BundleFacts) -> Bundle:
    """Write a bundle folder from a finished run, or from several whose networks are to vote; nothing is left behind
    when it fails.

    Raises `InputError` when a run is not finished, when runs differ in more than their patients, steps and seeds, when
    an engine does not draw with the bundle as the network does that was trained, or `output` exists.
    """
    runs = [SystemRun.load(folder) for folder in folders]
    run, system = runs[0], training_system(runs[0].system)
    for folder, other in zip(folders, runs, strict=True):
        if (other.system, other.organs, other.settings) != (run.system, run.organs, run.settings):
            raise InputError(
                f"{folder}: differs from {folders[0]} in system, organs or network, so they cannot vote"
            )
    settings, names = run.settings, [system.weights]
    with staged_bundle(output, facts) as work:
        if len(runs) == 1:
            system.write_weights(run, folders[0], work)
        else:
            names = [f"{run.system}_{k}.safetensors" for k in range(1, len(runs) + 1)]
            for folder, name in zip(folders, names, strict=True):
                system.write_member(folder, work / name)
            # Several networks vote in torch only: a bundle has at most one graph.
            settings = {k: v for k, v in settings.items() if k != "onnx"}
            settings |= {"weights": names[0], "members": names[1:]}
        write_manifest(
            work,
            {**facts.fields(), "system": run.system, "organs": list(run.organs), "settings": settings},
        )
        bundle = read_bundle(work)
        for folder, name in zip(folders, names, strict=True):
            with refused_beyond_half(str(folder)):
                for engine, found, wanted in system.compared(run, folder, bundle, name):
                    require_alike(str(folder), engine, found, wanted)
    return read_bundle(output)


def system_card(name: str, description: str, licence: str, runs: Sequence[SystemRun]) -> str:
    """The model card of a system's bundle, filled in from its runs (Markdown)."""
    run = runs[0]
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
    facts = [trained_on]
    if len(runs) > 1:
        facts.append(
            f"{len(runs)} such networks vote, trained with seeds {', '.join(str(r.options['seed']) for r in runs)}; a "
            "voxel is kept when at least half of them agree. The figures are those of the first network alone: "
            "patients that it has not seen may have taught another."
        )
    return card_text(name, description, licence, facts, figures=figures, limits=limits)
