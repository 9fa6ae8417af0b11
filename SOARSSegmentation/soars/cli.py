"""``soars``: the command line, which is also what Slicer runs as a child process (``python -m soars.cli``).

Exit codes and errors are those of `soars.commands.program`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

import soars
from soars.commands import (
    bundle,
    catalogue,
    challenge,
    convert,
    demo,
    dose,
    evaluate,
    network,
    observers,
    segment,
    segment_all,
    serve,
    study,
)
from soars.commands.program import program_parser, run_program
from soars.supervise import supervised

COMMANDS: tuple[ModuleType, ...] = (
    segment,
    segment_all,
    challenge,
    serve,
    demo,
    convert,
    evaluate,
    observers,
    dose,
    study,
    network,
    bundle,
    catalogue,
)
"""Each has ``add_parser(subparsers)`` and ``run(args) -> int``, and imports heavy packages inside ``run``."""


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(
        "soars",
        soars.__version__,
        description="Segment organs at risk on head-and-neck planning CT. "
        "For research; not a medical device.",
    )
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    ``argv``: the arguments without the program's name. None means those of this process, which then runs only the
    command and may be split in two; see `soars.supervise`.
    """
    if argv is None:
        return supervised(lambda: run_program("soars", build_parser, _run, filtered=True))
    return run_program("soars", build_parser, _run, argv, filtered=True)


def _run(args: argparse.Namespace) -> int:
    module = next(m for m in COMMANDS if m.__name__.rsplit(".", 1)[-1].replace("_", "-") == args.command)
    return int(module.run(args))


if __name__ == "__main__":
    sys.exit(main())
