"""What every program of this project does around its commands, `soars` and `soars-train` alike.

Exit codes: 0 done; 2 bad usage or bad input, with one line ``NAME: error: ...`` on standard error; 1 a fault of
ours; 130 cancelled (Ctrl-C, SIGTERM, or the reader of the output has gone). Nothing half-written is left behind.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from soars.errors import InputError, SoarsError
from soars.places import keep_matplotlib_in_cache, user_data
from soars.staging import PREFIX, REPORTED, announce, by_own_names, written
from soars.supervise import CANCELLED, cancelled_message, interrupted_once
from soars.words import plain, plain_output


class Parser(argparse.ArgumentParser):
    """Reports a usage error like any other bad input, and knows options by their full names only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def program_parser(name: str, version: str, **texts: Any) -> Parser:
    """The parser of a whole program, with ``--version`` and ``--debug``; ``texts`` as for `argparse`."""
    parser = Parser(prog=name, **texts)
    parser.add_argument("--version", action="version", version=f"{name} {version}")
    parser.add_argument(
        "--debug", action="store_true", help="log everything and show the traceback of an error"
    )
    return parser


def run_program(
    name: str,
    build_parser: Callable[[], argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
    *,
    filtered: bool = False,
    talks: str | None = None,
    console: type[logging.StreamHandler] = logging.StreamHandler,
) -> int:
    """Parse ``argv`` (without the program's name; the process's own when None), run the command, and return the exit
    code. Every error ends in one line on standard error.

    ``filtered``: control characters, which names in untrusted files may hold, are removed from printed text; not for
    programs whose libraries draw progress bars with them. ``talks``: the package whose logs are for people from INFO
    on, which is printed as it is. ``console``: what writes logs to standard error.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    _use_utf8()
    with plain_output() if filtered else nullcontext():
        logs = _Logs(name, console(sys.stderr), "--debug" in argv, talks)
        return _run_to_the_end(name, build_parser, run, argv, logs)


def _run_to_the_end(
    name: str,
    build_parser: Callable[[], argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str],
    logs: _Logs,
) -> int:
    interrupted: list[int] = []
    written.clear()
    try:
        with interrupted_once(interrupted), _warnings_for_people(logs), _outliving_its_reader():
            with suppress(RuntimeError):  # there is no home folder
                keep_matplotlib_in_cache()
            parser = build_parser()
            _complete_subparsers(parser)
            code = run(parser.parse_args(argv))
            sys.stdout.flush()
            return code
    except SystemExit as end:  # --help and --version
        return end.code if isinstance(end.code, int) else 0
    except (Exception, KeyboardInterrupt) as error:  # every fault ends in one line and an exit code
        # An import or native code may turn an interruption into an error of its own.
        return report_fault(name, KeyboardInterrupt() if interrupted else error, logs.debug)
    finally:
        _flush_stdout()


def report_fault(name: str, error: BaseException, debug: bool) -> int:
    """Report on standard error what went wrong, in one line, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        code, message = CANCELLED, cancelled_message(written)
    elif isinstance(error, BrokenPipeError):
        code, message = CANCELLED, "cancelled: the program that reads the output has gone away"
    elif isinstance(error, SoarsError):
        code, message = error.exit_code, str(error)
    elif isinstance(error, FileNotFoundError) and "temporary directory" in str(error.strerror):
        code, message = InputError.exit_code, _NO_TEMPORARY
    elif isinstance(error, OSError) and error.errno in _OS_ERRORS:
        file = f" {error.filename}" if error.filename is not None else " a file"
        code, message = InputError.exit_code, _OS_ERRORS[error.errno].format(file=file) + _setting(error)
    elif isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))
    ):
        code, message = InputError.exit_code, "not enough memory; close other programs or use a smaller CT"
    else:
        hint = "" if debug else "; run it again with --debug for the traceback, and please report it"
        print(_one_line(f"{name}: internal error: {type(error).__name__}: {error}{hint}"), file=sys.stderr)
        return 1
    if isinstance(error, SoarsError):  # earlier warnings are often the reason
        for warning in dict.fromkeys(error.warnings):
            print(_one_line(f"{name}: warning: {warning}"), file=sys.stderr)
    print(_one_line(f"{name}: error: {message}"), file=sys.stderr)
    announce(REPORTED)
    return code


_FULL = (
    "cannot write{file}: the disk is full, or your quota is used up; free some space or choose another place"
)
_FORBIDDEN = "no permission to read or write{file}; change its permissions or choose another place"
_OS_ERRORS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "cannot write{file}: it is on a read-only disk; choose another place",
    errno.ENAMETOOLONG: "cannot use{file}: the name is too long; choose a shorter one",
}


_NO_MEMORY = re.compile("[Ff]ailed to allocate memory|bad_alloc|[Nn]ot enough memory|can't allocate memory")
"""How SimpleITK, C++ and torch report, as a RuntimeError, that there is no memory left."""
_NO_TEMPORARY = "no folder for temporary files is writable; set TMPDIR to one that is"


def _setting(error: OSError) -> str:
    """Which setting moves the file that an error is about; "" when none does."""
    try:
        if error.filename is None:
            return ""
        if str(error.filename).startswith(f"{Path(tempfile.gettempdir()) / PREFIX}"):
            return "; TMPDIR names another place for temporary files"
        in_home = Path(error.filename).is_relative_to(user_data().parent)
    except (RuntimeError, TypeError):  # there is no home folder, or the name is a number
        return ""
    return "; XDG_DATA_HOME names another place for this user's data" if in_home else ""


def _one_line(text: str) -> str:
    return plain(" ".join(by_own_names(text).splitlines()))


def _complete_subparsers(parser: argparse.ArgumentParser) -> None:
    """Give every command, and every action of one, what all of them have.

    That is ``--debug`` after the command, too (SUPPRESS keeps a subparser from resetting one given before it), and in
    ``--help`` what it does: the line of the list that it stands in, unless it has a longer description.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {listed.dest: listed.help or "" for listed in action._choices_actions}
            for name, sub in action.choices.items():
                line = lines.get(name, "")
                if sub.description is None and line:
                    sub.description = f"{line[0].upper()}{line[1:]}."
                sub.add_argument(
                    "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
                )
                _complete_subparsers(sub)


class _Outliving:
    """Standard output that outlives its reader: what `head` no longer reads is dropped, and the work continues.

    ``watched`` is the stream itself, for code that has to notice that the reader has gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self.watched = stream
        self._gone = False

    def write(self, text: str) -> int:
        self._unless_gone(lambda: self.watched.write(text))
        return len(text)

    def flush(self) -> None:
        self._unless_gone(self.watched.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watched, name)

    def _unless_gone(self, act: Callable[[], object]) -> None:
        if self._gone:
            return
        try:
            act()
        except BrokenPipeError:
            self._gone = True


@contextmanager
def _outliving_its_reader() -> Iterator[None]:
    stream = sys.stdout
    sys.stdout = cast(TextIO, _Outliving(stream))
    try:
        yield
    finally:
        sys.stdout = stream


def _use_utf8() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _flush_stdout() -> None:
    """Keep the interpreter from failing when, at exit, it flushes a standard output that nobody reads."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class _Logs:
    """Whose logs are shown, and by what; see `run_program`."""

    program: str
    handler: logging.Handler
    debug: bool
    talks: str | None

    def shows(self, record: logging.LogRecord) -> bool:
        talks = self.talks is not None and record.name.partition(".")[0] == self.talks
        return self.debug or record.levelno >= (logging.INFO if talks else logging.WARNING)


@contextmanager
def _warnings_for_people(logs: _Logs) -> Iterator[None]:
    """Logs go to standard error as ``NAME: warning: ...``; libraries' Python warnings only with --debug.

    pydicom repeats a warning for every slice: each is shown once, with its count, when the block ends.
    """
    handler, debug = logs.handler, logs.debug
    handler.setFormatter(_Formatter(logs.program, plainly=not debug))
    handler.addFilter(logs.shows)
    root, own = logging.getLogger(), logging.getLogger("soars")
    loggers = [own, *([logging.getLogger(logs.talks)] if logs.talks else [])]
    levels = [logger.level for logger in loggers]
    root.addHandler(handler)
    pydicom, gathered = logging.getLogger("pydicom"), _Gathered()
    for logger in loggers if debug else loggers[1:]:
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        pydicom.addHandler(gathered)
        pydicom.propagate = False
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        pydicom.removeHandler(gathered)
        pydicom.propagate = True
        for message, count in gathered.counts.items():
            own.warning("%s%s", message, f" ({count} times)" if count > 1 else "")
        root.removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Gathered(logging.Handler):
    """Counts equal messages instead of writing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.getMessage()] += 1


class _Formatter(logging.Formatter):
    """``NAME: warning: ...``; INFO, ``plainly``, as it is."""

    def __init__(self, program: str, *, plainly: bool) -> None:
        super().__init__()
        self._program, self._plainly = program, plainly

    def format(self, record: logging.LogRecord) -> str:
        if self._plainly and record.levelno == logging.INFO:
            return super().format(record)
        return f"{self._program}: {record.levelname.lower()}: {super().format(record)}"
