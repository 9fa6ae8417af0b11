"""`soars-train`: prepare a cache, fit the branches, export a bundle, evaluate it."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from soars import catalogue
from soars.errors import InputError, SoarsError

DESCRIPTION = """Train SOARS models. The order of work:
  soars-train prepare work/cache --openkbp DIR          (or --phantoms N, or --list CASES.json)
  soars-train fit work/cache work/anchor --branch anchor --organs Brainstem,SpinalCord
  soars-train guide work/cache work/anchor work/guide   (anchor probabilities for the other branches)
  soars-train fit work/cache work/mid --branch mid_level --organs Parotid_L,Parotid_R --guide work/guide
  soars-train export mine work/anchor work/mid --card card.md --licence MIT --description "..."
  soars-train evaluate mine --openkbp DIR --csv dsc.csv
"""

OPENKBP_SPLITS = {"train": "train-pats", "validation": "validation-pats"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 bad input)."""
    parser = argparse.ArgumentParser(
        "soars-train", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_prepare, _add_fit, _add_guide, _add_export, _add_evaluate):
        add(commands)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        args.run(args)
    except SoarsError as error:
        if args.debug:
            raise
        print(f"soars-train: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _add_source(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--openkbp", type=Path, metavar="DIR", help="OpenKBP folder (cases.json, *_ct.nii.gz, *_oars.nii.gz)"
    )
    source.add_argument("--list", type=Path, metavar="FILE", help="JSON list of your own cases")
    source.add_argument("--phantoms", type=int, metavar="N", help="make N phantoms")
    parser.add_argument(
        "--first-seed", type=int, default=1000, help="seed of the first phantom (default 1000)"
    )


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("prepare", help="preprocess cases into a training cache")
    parser.add_argument("cache", type=Path, help="the cache folder to write")
    _add_source(parser)
    parser.add_argument("--spacing", default="3", help="voxel size in mm, one number or x,y,z (default 3)")
    parser.add_argument(
        "--voi", type=Path, metavar="FILE", help="JSON, heat-map group -> [x, y, z] mm: cache these VOIs"
    )
    parser.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> None:
    from soars_training import phantoms, prepare

    spacing = _floats(args.spacing, "--spacing")
    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        if args.voi:
            phantoms.write_phantom_vois(seeds, args.cache, spacing, _read_vois(args.voi))
        else:
            cases = phantoms.phantom_cases(seeds, spacing)
            prepare.write_volume_cache(cases, args.cache, spacing, "phantom", len(seeds))
        return
    cases = (
        prepare.openkbp_cases(args.openkbp, [OPENKBP_SPLITS["train"]])
        if args.openkbp
        else prepare.listed_cases(args.list)
    )
    source = "OpenKBP" if args.openkbp else args.list.stem
    if args.voi:
        prepare.write_voi_cache(cases, args.cache, spacing, _read_vois(args.voi), source)
    else:
        prepare.write_volume_cache(cases, args.cache, spacing, source)


def _add_fit(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("fit", help="train one branch")
    parser.add_argument("cache", type=Path)
    parser.add_argument(
        "output", type=Path, help="folder for the checkpoint, its run.json and the loss curve"
    )
    parser.add_argument("--branch", required=True, choices=("anchor", "mid_level", "detection", "small_hard"))
    parser.add_argument("--organs", help="comma-separated names; default: all of the branch's stratum")
    parser.add_argument(
        "--guide", type=Path, help="folder written by soars-train guide (anchor probabilities as input)"
    )
    parser.add_argument("--voi", type=Path, metavar="FILE", help="JSON of VOI extents (small_hard)")
    parser.add_argument(
        "--heatmap", action="store_true", help="small_hard: also see the heat map's crop (CVPR 2020)"
    )
    parser.add_argument("--features", default="16,32,64,64,64", help="channels per level, finest first")
    parser.add_argument("--patch", default="64,64,64", help="training and inference window z,y,x in voxels")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--init", type=Path, metavar="RUN", help="start from a finished run of a network with the same layers"
    )
    parser.add_argument(
        "--augmentation", type=float, default=1.0, help="times the usual strengths; 0 for none (default 1)"
    )
    parser.add_argument(
        "--balance", type=float, default=0.5, help="power of rarity that classes weigh by (default 0.5)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.set_defaults(run=_fit)


def _fit(args: argparse.Namespace) -> None:
    from soars_training.dataset import BranchTask
    from soars_training.fit import FitOptions, fit
    from soars_training.guide import guide_anchors

    organs = _organs(args.organs, args.branch)
    classes = tuple(dict.fromkeys(catalogue.CATALOGUE[o].detection_group or o for o in organs))
    inputs = ("ct", *(("anchor",) if args.guide else ()), *(("heatmap",) if args.heatmap else ()))
    task = BranchTask(
        branch=args.branch,
        classes=classes if args.branch == "detection" else organs,
        inputs=inputs,
        anchors=guide_anchors(args.guide) if args.guide else (),
    )
    if args.branch == "small_hard" and not args.voi:
        raise InputError("small_hard needs --voi, the same file the cache was prepared with")
    options = FitOptions(
        task,
        features=_numbers(args.features, "--features"),
        patch=_numbers(args.patch, "--patch"),  # type: ignore[arg-type]
        voi_mm=_read_vois(args.voi) if args.voi else None,
        steps=args.steps,
        batch=args.batch,
        learning_rate=args.learning_rate,
        seed=args.seed,
        accelerator=args.device,
        threads=args.threads,
        init=args.init,
        augmentation=args.augmentation,
        balance=args.balance,
        train_split=_train_split(args.cache),
    )
    run = fit(args.cache, args.output, options, args.guide)
    print(
        f"{run.branch}: {run.cases} cases, {run.steps} steps in {run.seconds / 60:.1f} min -> {args.output}"
    )


def _add_guide(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "guide", help="compute the frozen anchor branch's probabilities for every cached case"
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("anchor", type=Path, help="the anchor branch's run folder")
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(run=_guide)


def _guide(args: argparse.Namespace) -> None:
    from soars_training.guide import write_guides

    write_guides(args.cache, args.anchor, args.output, args.device)


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("export", help="make a model bundle of finished runs")
    parser.add_argument("bundle", type=Path, help="the bundle folder to write; its name is the bundle's name")
    parser.add_argument("runs", type=Path, nargs="+", help="one run folder a branch")
    parser.add_argument("--card", type=Path, required=True, help="the model card (Markdown)")
    parser.add_argument("--description", required=True)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--version", default="1.0.0")
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> None:
    from soars_training.export import BundleFacts, export_bundle

    try:
        card = args.card.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{args.card}: the model card cannot be read ({error.strerror})") from error
    facts = BundleFacts(args.bundle.name, args.version, args.description, args.licence, card)
    bundle = export_bundle(args.runs, args.bundle, facts)
    size = f"{bundle.size_bytes / 1e6:.1f} MB"
    print(f"{bundle.name} {bundle.version}: {len(bundle.organs)} organs, {size} -> {args.bundle}")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("evaluate", help="DSC per organ of a bundle, through the whole cascade")
    parser.add_argument("bundle", help="bundle name or folder")
    _add_source(parser)
    parser.add_argument("--spacing", default="1,1,3", help="phantoms: CT spacing x,y,z in mm (default 1,1,3)")
    parser.add_argument("--engine", choices=("auto", "torch", "onnxruntime"), default="auto")
    parser.add_argument(
        "--join", action="append", default=[], metavar="WHOLE=PART,PART", help="score parts as one"
    )
    parser.add_argument("--csv", type=Path, help="write case, organ, dsc, centre_error_mm")
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> None:
    from soars_training import phantoms, prepare
    from soars_training.evaluate import evaluate_bundle, summary_table, write_csv

    if args.phantoms:
        seeds = range(args.first_seed, args.first_seed + args.phantoms)
        cases = phantoms.phantom_cases(seeds, _floats(args.spacing, "--spacing"), "head_neck")
    elif args.openkbp:
        cases = prepare.openkbp_cases(args.openkbp, [OPENKBP_SPLITS["validation"]])
    else:
        cases = prepare.listed_cases(args.list)
    joins = dict(_join(text) for text in args.join)
    rows = evaluate_bundle(args.bundle, cases, engine=args.engine, joins=joins)
    if args.csv:
        write_csv(rows, args.csv)
    print(summary_table(rows))


def _organs(text: str | None, branch: str) -> tuple[str, ...]:
    if text:
        return tuple(catalogue.resolve(name).name for name in text.split(","))
    return tuple(o.name for o in catalogue.by_stratum("small_hard" if branch == "detection" else branch))


def _train_split(cache: Path) -> str:
    from soars_training.cache import CacheIndex

    splits = {case.split for case in CacheIndex.load(cache).cases}
    return next((s for s in ("train", OPENKBP_SPLITS["train"]) if s in splits), "train")


def _read_vois(path: Path | None) -> dict[str, tuple[float, float, float]]:
    if path is None:
        return {}
    try:
        return {
            str(k): (float(x), float(y), float(z)) for k, (x, y, z) in json.loads(path.read_text()).items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON of VOI extents, group -> [x, y, z] in mm ({error})") from error


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(v) for v in text.split(","))
    except ValueError as error:
        raise InputError(f"{option}: expected whole numbers separated by commas, got {text!r}") from error


def _floats(text: str, option: str) -> tuple[float, float, float]:
    try:
        values = [float(v) for v in text.split(",")]
        x, y, z = values * 3 if len(values) == 1 else values
    except ValueError as error:
        raise InputError(f"{option}: expected a number, or three as x,y,z, got {text!r}") from error
    return x, y, z


def _join(text: str) -> tuple[str, tuple[str, ...]]:
    whole, _, parts = text.partition("=")
    if not parts:
        raise InputError(f"--join: expected WHOLE=PART,PART, got {text!r}")
    return catalogue.resolve(whole).name, tuple(catalogue.resolve(p).name for p in parts.split(","))


if __name__ == "__main__":
    sys.exit(main())
