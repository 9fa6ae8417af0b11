"""``soars``: the command line, which is also what Slicer runs as a child process (``python -m soars.cli``).

Exit codes: 0 done; 2 bad usage or bad input, with one line ``soars: error: ...`` on standard error; 1 a fault
of ours; 130 cancelled (Ctrl-C, SIGTERM, or the reader of the output has gone). Nothing half-written is left
behind.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, ModuleType
from typing import Any, NoReturn

import soars
from soars.commands import bundle, catalogue, convert, demo, dose, evaluate, network, segment
from soars.errors import InputError, SoarsError

COMMANDS: tuple[ModuleType, ...] = (segment, demo, convert, evaluate, dose, network, bundle, catalogue)
"""Each has ``add_parser(subparsers)`` and ``run(args) -> int``, and imports what is heavy inside ``run``."""

CANCELLED = 130


class _Parser(argparse.ArgumentParser):
    """Reports a usage error like any other bad input, and knows options by their full names only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="soars",
        description="Segment organs at risk on head-and-neck planning CT. "
        "For research; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"soars {soars.__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="log everything and show the traceback of an error"
    )
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(subparsers)
    _accept_debug_everywhere(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` without the program's name."""
    argv = sys.argv[1:] if argv is None else list(argv)
    _use_utf8()
    debug = "--debug" in argv
    try:
        with _terminate_like_interrupt(), _warnings_for_people(debug):
            args = build_parser().parse_args(argv)
            code: int = _module(args.command).run(args)
            sys.stdout.flush()
            return code
    except SystemExit as end:  # --help and --version
        return end.code if isinstance(end.code, int) else 0
    except (Exception, KeyboardInterrupt) as error:  # every fault ends in one line and an exit code
        return _report(error, debug)
    finally:
        _flush_stdout()


def _report(error: BaseException, debug: bool) -> int:
    """Say on standard error what went wrong, in one line, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        code, message = CANCELLED, "cancelled"
    elif isinstance(error, BrokenPipeError):
        code, message = CANCELLED, "cancelled: the program that reads the output has gone away"
    elif isinstance(error, SoarsError):
        code, message = error.exit_code, str(error)
    elif isinstance(error, OSError) and error.errno in _OS_ERRORS:
        file = f" {error.filename}" if error.filename is not None else " a file"
        code, message = InputError.exit_code, _OS_ERRORS[error.errno].format(file=file)
    elif isinstance(error, MemoryError):
        code, message = InputError.exit_code, "not enough memory; close other programs or use a smaller CT"
    else:
        hint = "" if debug else "; run it again with --debug for the traceback, and please report it"
        print(_one_line(f"soars: internal error: {type(error).__name__}: {error}{hint}"), file=sys.stderr)
        return 1
    print(_one_line(f"soars: error: {message}"), file=sys.stderr)
    return code


_FULL = "cannot write{file}: the disk is full, or your share of it; free some space or choose another place"
_FORBIDDEN = "no permission to read or write{file}; change its permissions or choose another place"
_OS_ERRORS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "cannot write{file}: it is on a read-only disk; choose another place",
    errno.ENAMETOOLONG: "cannot use{file}: the name is too long; choose a shorter one",
}


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _module(command: str) -> ModuleType:
    return next(m for m in COMMANDS if m.__name__.rsplit(".", 1)[-1] == command)


def _accept_debug_everywhere(parser: argparse.ArgumentParser) -> None:
    """``--debug`` also after the command; SUPPRESS keeps a subparser from undoing what was said before it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                sub.add_argument(
                    "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
                )
                _accept_debug_everywhere(sub)


def _use_utf8() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _flush_stdout() -> None:
    """Keep the interpreter from failing when it flushes, at its end, a standard output that nobody reads."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _warnings_for_people(debug: bool) -> Iterator[None]:
    """Logs go to standard error as ``soars: warning: ...``; libraries' Python warnings only with --debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    root, own = logging.getLogger(), logging.getLogger("soars")
    level = own.level
    root.addHandler(handler)
    if debug:
        own.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
        own.setLevel(level)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"soars: {record.levelname.lower()}: {super().format(record)}"


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM (and Ctrl-Break on Windows) raise KeyboardInterrupt, once, so that all clean-up runs."""

    def cancel(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {}
    try:
        for name in ("SIGTERM", "SIGBREAK"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                before[number] = signal.signal(number, cancel)
    except ValueError:
        pass  # not the main thread: whoever called us handles signals
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
