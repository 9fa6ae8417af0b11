"""Making a bundle of an nnU-Net model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soars.bundle.install import import_bundle
from soars.bundle.manifest import Bundle
from soars.bundle.store import LARGEST_CARD, write_manifest
from soars.catalogue import CATALOGUE
from soars.errors import BundleError
from soars.progress import Progress, Reporter, ignore
from soars.staging import TemporaryFolder
from soars.systems.nnunet.checkpoint import read_checkpoint, unique_tensors
from soars.systems.nnunet.labels import Proposed
from soars.systems.nnunet.model_folder import DATASET, PLANS, ModelFolder
from soars.texts import read_text

SYSTEM = "nnunet"


@dataclass(frozen=True)
class ImportOptions:
    """What the bundle says about itself.

    Attributes:
        name: the bundle's; letters, digits and ._- only.
        version: the model's.
        licence: of the weights, as their publisher states it.
        card: a model card of the importer's own; one that says what is known is written when None.
        trust: also read checkpoints that could run code.
        overwrite: replace an installed bundle of the same name.
        trainer: nnU-Net's trainer that builds the model's network, where one that does not come with nnU-Net trained
            it; as the checkpoints say when None.
        spacing_mm: of the working grid (x, y, z) that the model learned from, as `soars-train prepare` makes it: the
            patient without couch and air; None for a model that learned from CTs as they are.
    """

    name: str
    version: str = "1"
    licence: str = "not stated"
    card: Path | None = None
    trust: bool = False
    overwrite: bool = False
    trainer: str | None = None
    spacing_mm: tuple[float, float, float] | None = None


def import_model(
    model: ModelFolder, proposed: Proposed, options: ImportOptions, progress: Reporter = ignore
) -> Bundle:
    """Write the model as a bundle and install it for this user, whole or not at all.

    Raises `BundleError` when folds disagree, a checkpoint is refused, or the bundle cannot be installed.
    """
    with TemporaryFolder() as work:
        folder = work / options.name
        folder.mkdir()
        settings = _write_weights(model, folder, options, progress)
        settings["labels"] = [rule.to_dict() for rule in proposed.rules]
        settings["orientation"] = model.orientation
        if options.spacing_mm is not None:
            settings["spacing_mm"] = list(options.spacing_mm)
        shutil.copyfile(model.folder / PLANS, folder / PLANS)
        shutil.copyfile(model.folder / DATASET, folder / DATASET)
        (folder / "card.md").write_text(_card(model, proposed, options), encoding="utf-8")
        organs = {organ for rule in proposed.rules for organ in rule.organs}
        fields = {
            "name": options.name,
            "version": options.version,
            "description": f"nnU-Net model {model.folder.parent.name}, {settings['configuration']}, "
            f"{len(settings['folds'])} of its folds",
            "licence": options.licence,
            "system": SYSTEM,
            "organs": [name for name in CATALOGUE if name in organs],
            "settings": settings,
        }
        write_manifest(folder, fields)
        return import_bundle(folder, overwrite=options.overwrite)


def _write_weights(
    model: ModelFolder, folder: Path, options: ImportOptions, progress: Reporter
) -> dict[str, Any]:
    """Write each fold's weights; returns what the folds have in common, as the manifest's settings."""
    from safetensors.torch import save_file

    common: dict[str, Any] = {}
    files = {}
    for i, (fold, path) in enumerate(model.checkpoints.items()):
        progress(Progress("import", i, len(model.checkpoints), f"reading fold {fold}"))
        checkpoint = read_checkpoint(path, trust=options.trust)
        described = {
            "trainer": options.trainer or checkpoint.trainer,
            "configuration": checkpoint.configuration,
            "mirroring_axes": list(checkpoint.mirroring_axes),
        }
        if common and described != common:
            raise BundleError(
                f"{path}: was trained differently from the other folds ({described} against {common})"
            )
        common = described
        files[fold] = f"fold_{fold}.safetensors"
        save_file(unique_tensors(checkpoint.weights), folder / files[fold])
    _check_configuration(model.plans, str(common["configuration"]))
    return {**common, "folds": files}


def _check_configuration(plans: Mapping[str, Any], name: str) -> None:
    configuration = plans["configurations"].get(name)
    if configuration is None:
        raise BundleError(f"the checkpoints are of the configuration {name!r}, which the plans do not have")
    if configuration.get("previous_stage"):
        raise BundleError(
            f"the configuration {name!r} refines the result of {configuration['previous_stage']!r}; only models of one "
            "stage can be imported"
        )


def _card(model: ModelFolder, proposed: Proposed, options: ImportOptions) -> str:
    if options.card is not None:
        try:
            return read_text(options.card, LARGEST_CARD)
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{options.card}: cannot be read as UTF-8 text ({error})") from error
    cases = model.dataset.get("numTraining")
    count = f"{cases} cases of" if isinstance(cases, int) else "cases of"
    title = json.dumps(
        str(model.dataset.get("name") or model.plans.get("dataset_name") or "an unnamed data set")
    )
    organs = "\n".join(f"- {rule.label}: {', '.join(rule.organs)}" for rule in proposed.rules)
    left_out = ", ".join(proposed.left_out) or "none"
    return f"""# {options.name}

An nnU-Net v2 model, imported with `soars bundle import-nnunet`.

## Trained on
{count} {title}, as the model's dataset.json says. Scanners, sites and annotators are not recorded there; ask its
publisher.

## Licence
{options.licence}

## Figures
None were measured here. To measure them on cases with reference contours: `soars evaluate PREDICTIONS REFERENCES`.

## What it cannot do
It draws only these structures, by its own data set's definitions, which may differ from the consensus guideline's:

{organs}

Labels that were left out: {left_out}.

## Research use only
Not a medical device. Every contour must be reviewed by a qualified person.
"""
