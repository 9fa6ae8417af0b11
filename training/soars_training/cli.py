"""`soars-train`: prepare a cache, fit the branches, export a bundle, evaluate it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence

import soars
from soars.commands.program import program_parser, run_program
from soars.supervise import supervised
from soars_training.commands import (
    ablate,
    calibrate,
    crossval,
    distil,
    evaluate,
    export,
    finetune,
    fit,
    fit_system,
    guide,
    plan,
    prepare,
    search,
)

NAME = "soars-train"
DESCRIPTION = """Train SOARS models. The order of work:
  soars-train distil CTS work/cohort --bundle monday    (where no reference contours are at hand)
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


COMMANDS = (
    distil,
    prepare,
    plan,
    search,
    fit,
    fit_system,
    crossval,
    ablate,
    guide,
    finetune,
    export,
    calibrate,
    evaluate,
)
"""Each has ``add(subparsers)``, which sets ``run`` of the arguments."""


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(
        NAME,
        soars.__version__,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


@contextlib.contextmanager
def _quiet_unless_first() -> Iterator[None]:
    """Of several processes that torchrun has started, the first one alone speaks."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    logging.getLogger().setLevel(logging.ERROR)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, see `soars.commands.program`; as of `soars`, the command is run in a
    child process where ``argv`` is None."""

    def work() -> int:
        return run_program(NAME, build_parser, _run, argv, talks="soars_training", console=_AboveTheBar)

    return supervised(work, NAME) if argv is None else work()


def _run(args: argparse.Namespace) -> int:
    with _quiet_unless_first():
        args.run(args)
    return 0


class _AboveTheBar(logging.StreamHandler):
    """Writes to standard error without landing in the middle of a progress bar, which moves down a line instead."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=self.stream)


if __name__ == "__main__":
    sys.exit(main())
