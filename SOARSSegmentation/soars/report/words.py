"""How the report writes places, volumes, lengths and times: as a clinician would in a note."""

from __future__ import annotations

from collections.abc import Sequence

_LETTERS = ("LR", "PA", "SI")
"""Letters for a positive and a negative place on the three LPS axes."""


def place(point_lps_mm: Sequence[float]) -> str:
    """A point in patient coordinates, e.g. ``L 23, P 5, S 120 mm``; distances are from the CT's origin of space."""
    return ", ".join(_on_axis(axis, value, 0) for axis, value in enumerate(point_lps_mm)) + " mm"


def place_on_axis(axis: int, position_mm: float) -> str:
    """A place on one LPS axis, as 3D Slicer writes the place of a slice, e.g. ``S 12.5 mm``."""
    return f"{_on_axis(axis, position_mm, 1)} mm"


def _on_axis(axis: int, value: float, decimals: int) -> str:
    positive, negative = _LETTERS[axis]
    rounded = round(value, decimals)
    return f"{positive if rounded >= 0 else negative} {abs(rounded):.{decimals}f}"


def volume_cc(volume: float) -> str:
    """A volume with its meaningful digits: 0.05, 1.20, 31.4, 1240."""
    if volume < 10:
        return f"{volume:.2f}"
    return f"{volume:.1f}" if volume < 100 else f"{volume:.0f}"


def length_mm(value: float) -> str:
    """A length in mm with at most two decimals: 3, 0.98, 2.5."""
    text = f"{value:.2f}"
    return text.rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """Seconds below 100, minutes and seconds from 100 on."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def listed(labels: Sequence[str]) -> str:
    """Labels in a sentence: the first as it is, the others without the initial capital (but TMJ stays TMJ)."""
    return ", ".join([labels[0], *(t[:1].lower() + t[1:] if t[1:2].islower() else t for t in labels[1:])])
