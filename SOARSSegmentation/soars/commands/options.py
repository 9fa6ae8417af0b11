"""Options that several commands share, and what their values mean. No command owns them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from soars.errors import InputError
from soars.progress import MODES


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--progress``."""
    parser.add_argument(
        "--progress",
        choices=MODES,
        default="auto",
        help="how to show progress: auto, a line for people on standard error (default); json, one JSON "
        'object a line on standard output, with a "heartbeat" stage while a step takes long; none',
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Where and with what the networks run."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU when there is a usable one; cuda fails when there is none (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "onnxruntime"),
        default="auto",
        help="what runs the networks (default: %(default)s)",
    )


def add_organs_option(parser: argparse.ArgumentParser) -> None:
    """``--organs A,B``: a tuple of names as they were typed, or None; see `organ_names`."""
    parser.add_argument(
        "--organs", metavar="A,B", type=_names, help="only these organs, in any spelling the catalogue knows"
    )


def add_series_option(parser: argparse.ArgumentParser) -> None:
    """``--series UID``, of a CT."""
    parser.add_argument(
        "--series", metavar="UID", help="which series, when the DICOM folder holds several CTs"
    )


def add_processes_option(parser: argparse.ArgumentParser) -> None:
    """``--processes N``: at least 1; see `processes`."""
    parser.add_argument(
        "--processes",
        metavar="N",
        type=_count,
        help="cases at the same time (default: the processors there are)",
    )


def organ_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The value of ``--organs`` as names of the catalogue; None when the option was left out."""
    if names is None:
        return None
    from soars.catalogue import resolve

    return tuple(dict.fromkeys(resolve(name).name for name in names))


def processes(asked: int | None) -> int:
    """The value of ``--processes``, or the processors that this process may use."""
    if asked is not None:
        return asked
    from soars.parallel import available_processors

    return available_processors()


def check_outputs(*paths: Path | None) -> None:
    """Raise `InputError` before the work when an output cannot be written or two have the same name."""
    given = [path for path in paths if path is not None]
    for path in given:
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    if len({os.path.realpath(path) for path in given}) < len(given):
        raise InputError("two outputs have the same name")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError("--organs: no organ is named; leave it out for all")
    return names


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise InputError(f"--processes must be a whole number of 1 or more, not {text}")
    return count
