"""Options that several commands share, and the meaning of their values."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from soars.devices import EXPECTED, is_device
from soars.errors import InputError
from soars.files import Ours, check_output_file, refuse_inputs, replacing_files
from soars.networks.names import ENGINE_CHOICES
from soars.progress import MODES

Case = TypeVar("Case")


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--progress``."""
    parser.add_argument(
        "--progress",
        choices=MODES,
        default="auto",
        help="how to show progress: auto, a line for people on standard error (default); json, one JSON "
        'object a line on standard output, with a "heartbeat" stage while a step takes long; none',
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument(
        "--device",
        type=_device,
        metavar="{auto,cpu,cuda,cuda:N}",
        default="auto",
        help="auto uses a GPU if there is a usable one; cuda, or cuda:1 for the second, fails if it is not there "
        "(default: %(default)s)",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Where and with what the networks run."""
    add_device_option(parser)
    parser.add_argument(
        "--engine",
        choices=ENGINE_CHOICES,
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
        "--series",
        metavar="UID",
        help="which series, when the DICOM folder holds several CTs; UID/2 (or /2) for the second scan of a series",
    )


def add_processes_option(parser: argparse.ArgumentParser) -> None:
    """``--processes N``: at least 1; see `processes`."""
    parser.add_argument(
        "--processes",
        metavar="N",
        type=count_of("--processes"),
        help="processes to spread the work over (default: the number of processors)",
    )


def count_of(option: str) -> Callable[[str], int]:
    """The type of an option that takes a whole number of 1 or more."""

    def count(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise InputError(f"{option} must be a whole number of 1 or more, not {text}")
        return int(text)

    return count


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


def add_empty_option(parser: argparse.ArgumentParser) -> None:
    """``--empty not-annotated|absent``: what a structure without a voxel means in a reference."""
    parser.add_argument(
        "--empty",
        choices=("not-annotated", "absent"),
        default="not-annotated",
        help="what an empty structure of the reference means: not-annotated, nobody drew it, as in a clinic's "
        "template or a names file for a whole study; absent, the organ is known not to be there, so that "
        "a predicted one is wrong (default: %(default)s)",
    )


def add_leave_out_option(parser: argparse.ArgumentParser) -> None:
    """``--leave-out``: of many cases, those that cannot be used are reported, and the exit code is 2 at the end."""
    parser.add_argument(
        "--leave-out",
        action="store_true",
        help="of several cases, leave out those that cannot be read or compared instead of stopping at the first: the "
        "others are written, those are warnings, and the exit code is 2",
    )


def add_where_option(parser: argparse.ArgumentParser) -> None:
    """``--where CONDITION``, repeatable: which of many cases; see `chosen_cases`."""
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="of several cases, only those for which it holds; may be repeated, and then all must hold. KEY=VALUE "
        "(with * and ?), KEY!=VALUE, KEY<NUMBER, <=, >, >=, where KEY is case or, with --ct, a DICOM keyword of the "
        "CT: 'case=pt_2*', 'SliceThickness<=3'",
    )


def chosen_cases(
    cases: Sequence[Case], scan: Callable[[Case], tuple[str, Path | None, str | None]], where: Sequence[str]
) -> list[Case]:
    """The cases for which all conditions of ``--where`` hold. ``scan`` gives a case's name, CT (or None) and series.

    Raises `InputError` for a wrong condition, one about a CT that is not given, and when no case is left.
    """
    from soars.service.where import CASE, all_hold, check_keys, parse_condition

    conditions = [parse_condition(text) for text in where]
    check_keys(conditions, ())
    chosen = []
    for case in cases:
        name, ct, series = scan(case)
        if ct is None and any(condition.key != CASE for condition in conditions):
            raise InputError(f"--where looks at the header of a CT: give the CT of {name} with --ct")
        if all_hold(conditions, {CASE: name}, ct or Path(), series):
            chosen.append(case)
    if not chosen:
        raise InputError(f"--where leaves out all {len(cases)} cases")
    return chosen


def complain_of(left_out: Mapping[str, str], of: int) -> None:
    """Raise `InputError` when cases were left out, after everything else is written."""
    if left_out:
        raise InputError(f"{len(left_out)} of {of} cases were left out: {', '.join(left_out)}")


def add_overwrite_option(parser: argparse.ArgumentParser, what: str) -> None:
    """``--overwrite``; ``what`` it replaces, for the help."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def check_outputs(
    outputs: Sequence[tuple[Path | None, Ours]], *, inputs: Sequence[Path], overwrite: bool
) -> None:
    """The requested output files, each given with what recognises one that this program wrote.

    Raises `InputError` before the work when one cannot be written, is an input, is there already without
    ``overwrite``, or is a file that this program did not write, and when two have the same name.
    """
    given = {path: ours for path, ours in outputs if path is not None}
    refuse_inputs(given, inputs)
    for path, ours in given.items():
        check_output_file(path, overwrite=overwrite, ours=ours)
    named = sum(path is not None for path, _ in outputs)
    if len({os.path.realpath(path) for path in given}) < named:
        raise InputError("two outputs have the same name")


def _device(text: str) -> str:
    if not is_device(text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; choose {EXPECTED}")
    return text


def write_outputs(
    writers: Sequence[tuple[Path | None, Callable[[Path], object]]], *, overwrite: bool
) -> None:
    """Write the requested output files, each by its function, all of them or none."""
    given = [(path, write) for path, write in writers if path is not None]
    with replacing_files([path for path, _ in given], overwrite=overwrite) as files:
        for path, write in given:
            write(files[path])


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError("--organs names no organ; omit it for all")
    return names
