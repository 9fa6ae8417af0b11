"""``soars bundle import-nnunet``, ``get`` and ``needs``: models published by others, and what they need."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soars.commands.options import add_organs_option, add_progress_option, organ_names
from soars.errors import EngineError, InputError
from soars.progress import reporting

if TYPE_CHECKING:
    from soars.systems.interface import Weights
    from soars.systems.nnunet.labels import Proposed


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_import(actions)
    _add_get(actions)
    _add_needs(actions)


def _add_import(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "import-nnunet",
        help="make a bundle of a trained nnU-Net v2 model folder",
        description="Make a bundle of a trained nnU-Net v2 model and install it. Labels become organs of the catalogue "
        "by their names, or by a table that --write-map writes and you correct: label,organ, where LEFT+RIGHT cuts a "
        "structure at the patient's middle and an empty organ leaves the label out.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder with plans.json")
    parser.add_argument("--map", metavar="FILE", type=Path, help="table of labels and organs (CSV)")
    parser.add_argument(
        "--write-map", metavar="FILE", type=Path, help="write the table for this model and stop"
    )
    parser.add_argument("--name", help="the bundle's name (default: the data set's)")
    parser.add_argument("--model-version", default="1", metavar="TEXT", help="default: %(default)s")
    parser.add_argument(
        "--licence", default="not stated", help="of the weights, as their publisher states it"
    )
    parser.add_argument("--card", metavar="FILE", type=Path, help="a model card of your own (Markdown)")
    parser.add_argument("--folds", metavar="A,B", help="only these folds (default: all trained ones)")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="also read a checkpoint that could run code; only for one whose origin you trust",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an imported bundle of the same name"
    )
    add_progress_option(parser)


def _add_get(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "get",
        help="download the weights that a bundle's models need",
        description="Show what a bundle's models would download, from where and under which licence, and download it "
        "after confirmation. No other command downloads weights.",
    )
    parser.add_argument("bundle", metavar="NAME|PATH", help="an installed bundle, a folder or a .zip")
    add_organs_option(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--licence-number", metavar="NUMBER", help="for models that need one; stored by their package"
    )
    add_progress_option(parser)


def _add_needs(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "needs",
        help="show what a bundle's models need on this machine",
        description="Show which organs of a bundle can be drawn now, and what the others lack: packages, and weights "
        "with their licences. Contacts nobody, unless sizes are asked for.",
    )
    parser.add_argument("bundle", metavar="NAME|PATH", help="an installed bundle, a folder or a .zip")
    add_organs_option(parser)
    parser.add_argument("--sizes", action="store_true", help="ask the servers how large missing weights are")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def import_nnunet(args: argparse.Namespace) -> int:
    """Import a model folder, or write its table; errors are `soars.errors.BundleError`."""
    from soars.systems.nnunet.importing import ImportOptions, import_model
    from soars.systems.nnunet.labels import by_name, by_table, table_text
    from soars.systems.nnunet.model_folder import read_model_folder

    folds = [fold.strip() for fold in args.folds.split(",")] if args.folds else None
    model = read_model_folder(args.folder, folds)
    if args.write_map is not None:
        _write_map(args.write_map, table_text(by_name(model.labels)))
        return 0
    proposed = by_table(model.labels, args.map) if args.map else by_name(model.labels)
    options = ImportOptions(
        name=args.name or str(model.plans.get("dataset_name") or model.folder.parent.name),
        version=args.model_version,
        licence=args.licence,
        card=args.card,
        trust=args.trust_checkpoint,
        overwrite=args.overwrite,
    )
    with reporting(args.progress) as report:
        bundle = import_model(model, proposed, options, report)
    if args.progress != "json":
        print(f"imported {bundle.name} ({len(bundle.organs)} organs) into {bundle.folder}")
        print(_labels_text(proposed))
    return 0


def needs(args: argparse.Namespace) -> int:
    """Show a bundle's state; errors are `soars.errors.SoarsError`."""
    from soars.bundle.store import load_bundle
    from soars.run.segment import wanted_organs
    from soars.systems.registry import system_of
    from soars.systems.state import state_of

    bundle = load_bundle(args.bundle)
    organs = wanted_organs(bundle, organ_names(args.organs))
    state = state_of(system_of(bundle), organs, sizes=args.sizes)
    if args.json:
        print(json.dumps({"bundle": bundle.name, **state.to_dict()}))
        return 0
    print(f"{bundle.name}: {len(state.ready)} of {len(organs)} organs can be drawn here now")
    for problem in dict.fromkeys(state.why_not.values()):
        lacking = [organ for organ, why in state.why_not.items() if why == problem]
        print(f"\n{', '.join(lacking)}:\n  {problem}")
    missing = [weights for weights in state.weights if not weights.present]
    if missing:
        sizes = [state.sizes.get(weights.name) for weights in missing] if args.sizes else None
        print("\n" + _weights_text(missing, sizes))
    return 0


def get(args: argparse.Namespace) -> int:
    """Download what is missing, after showing it and asking; errors are `soars.errors.SoarsError`."""
    from soars.bundle.store import load_bundle
    from soars.run.segment import wanted_organs
    from soars.systems.download import fetch_weights, size_of
    from soars.systems.registry import system_of

    bundle = load_bundle(args.bundle)
    system = system_of(bundle)
    organs = wanted_organs(bundle, organ_names(args.organs))
    needs = system.needs(organs)
    if needs.missing_packages:
        raise EngineError(
            f"install {', '.join(needs.missing_packages)} first: pip install 'soars-segmentation[{needs.extra}]'"
        )
    missing = needs.missing_weights
    if not missing and not args.licence_number:
        print(f"{bundle.name}: nothing to download, its weights are on this machine")
        return 0
    print(_weights_text(missing, [size_of(weights) for weights in missing]))
    if any(weights.needs_number for weights in missing) and not args.licence_number:
        print(
            "models marked with * need a licence number: --licence-number NUMBER; without it they are left out"
        )
    if not args.yes and not _agrees():
        print("nothing was downloaded")
        return 0
    with reporting(args.progress) as report:
        fetch_weights(system, organs, args.licence_number, report)
    left = system.needs(organs).missing_weights
    print(f"{bundle.name}: {len(missing) - len(left)} models downloaded, {len(left)} still missing")
    return 0


def _write_map(path: Path, text: str) -> None:
    from soars.files import replacing_file

    if path.exists():
        raise InputError(f"{path} is there already; choose another name for --write-map")
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {path}; correct it and import with --map {path}")


def _labels_text(proposed: Proposed) -> str:
    lines = [f"  {rule.label}: {', '.join(rule.organs)}" for rule in proposed.rules]
    lines += [f"  {label}: left out ({why})" for label, why in proposed.left_out.items()]
    return "\n".join(lines)


def _weights_text(missing: Sequence[Weights], sizes: Sequence[int | None] | None) -> str:
    """``sizes`` in bytes, as far as they are known; None where nobody asked."""
    lines = ["to be downloaded:"]
    for i, weights in enumerate(missing):
        mark = "*" if weights.needs_number else " "
        facts = [weights.licence]
        if sizes is not None:
            size = sizes[i]
            facts.insert(0, "size not known" if size is None else f"{size / 1e6:.0f} MB")
        lines.append(f" {mark} {weights.name}  {', '.join(facts)}\n     from {weights.url}")
    return "\n".join(lines)


def _agrees() -> bool:
    """Whether the user at the terminal says yes; raises `InputError` where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise InputError("there is no terminal to ask on; add --yes to download")
    return input("download? [y/N] ").strip().lower() in ("y", "yes")
