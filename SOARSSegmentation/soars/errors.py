"""Errors a user can understand: every message says what was wrong, with what, and what to do.

The command line prints ``soars: error: <message>`` and ends with the error's ``exit_code``; anything that is not a
`SoarsError` is a fault of ours (exit code 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "BundleError",
    "CancelledError",
    "EngineError",
    "InputError",
    "SoarsError",
    "UnknownOrganError",
    "keeping_warnings",
]


class SoarsError(Exception):
    """Base of all errors that are reported to the user in one sentence.

    ``warnings`` are those given before the error: often the reason for it.
    """

    exit_code = 2
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The message on one line, whatever text a library contributed to it."""
        return " ".join(super().__str__().splitlines())


@contextmanager
def keeping_warnings(warnings: Sequence[str]) -> Iterator[None]:
    """Attach the warnings gathered so far to an error that leaves the block."""
    try:
        yield
    except SoarsError as error:
        if not isinstance(error, CancelledError):
            error.warnings = (*warnings, *error.warnings)
        raise


class InputError(SoarsError):
    """A CT, another file or an argument cannot be used."""


class UnknownOrganError(InputError):
    """A name that the catalogue of OARs does not know.

    Attributes: ``name``, the text as given; ``suggestions``, the nearest known names, best first.
    """

    def __init__(self, name: str, suggestions: Sequence[str] = ()) -> None:
        self.name = name
        self.suggestions = tuple(suggestions)
        hint = f"; did you mean {', '.join(self.suggestions)}?" if self.suggestions else ""
        super().__init__(f"unknown organ {name!r}{hint}")


class BundleError(SoarsError):
    """A model bundle is damaged, incomplete, or made for a newer version."""


class EngineError(SoarsError):
    """The chosen inference engine or device cannot be used on this machine."""


class CancelledError(SoarsError):
    """The user cancelled the work; nothing was written."""

    exit_code = 130
