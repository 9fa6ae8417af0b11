"""`soars-train`: prepare a cache, fit the branches, export a bundle, evaluate it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from soars.errors import SoarsError
from soars_training.commands import (
    calibrate,
    crossval,
    evaluate,
    export,
    finetune,
    fit,
    guide,
    plan,
    prepare,
    search,
)

DESCRIPTION = """Train SOARS models. The order of work:
  soars-train prepare work/cache --openkbp DIR          (or --phantoms N, or --list CASES.json)
  soars-train plan work/cache                           (organs, odd cases, volumes of interest)
  soars-train fit work/cache work/anchor --branch anchor --organs Brainstem,SpinalCord
  soars-train guide work/cache work/anchor work/guide   (anchor probabilities for the other branches)
  soars-train fit work/cache work/mid --branch mid_level --organs Parotid_L,Parotid_R --guide work/guide
  soars-train finetune work/cache work/anchor work/mid work/both
  soars-train export mine work/both/anchor work/both/mid_level --card card.md --licence MIT --description "..."
  soars-train calibrate mine work/calibrated/mine --openkbp DIR --held-out pt_1,pt_2,...
  soars-train evaluate mine --openkbp DIR --csv dsc.csv
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 bad input, 130 interrupted)."""
    parser = argparse.ArgumentParser(
        "soars-train", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    every = (prepare, plan, search, fit, crossval, guide, finetune, export, calibrate, evaluate)
    for command in every:
        command.add(commands)
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


if __name__ == "__main__":
    sys.exit(main())
