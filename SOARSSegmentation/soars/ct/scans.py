"""A DICOM series that holds more than one scan: phases, reconstructions or acquisitions that interleave.

Alternating slices of two kernels make a stack that is perfectly regular but meaningless. So slices are separated by the
attributes that scanners write, before they are put in order. Acquisitions that follow each other along the patient
(step and shoot) are one scan; those with a stretch of the patient between them, such as head and pelvis, are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soars.ct.dicom_files import Header, readable
from soars.ct.stack import LEAST_SLICES, MISSING_SLICE_FACTOR, SAME_POSITION_MM
from soars.errors import InputError

#: Attributes that distinguish the scans of one series, the most distinctive first.
KEYS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "AcquisitionNumber",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "EchoNumbers",
    "ConvolutionKernel",
    "FilterType",
    "KVP",
    "ContrastBolusAgent",
    "ImageType",
    "SliceThickness",
    "ReconstructionDiameter",
    "PixelSpacing",
    "SeriesDescription",
)


#: Acquisitions this far from each other are scans of different parts of the patient; less may be slices that were lost.
APART_MM = 30.0


_Range = tuple[float, float, float]


@dataclass(frozen=True)
class Scan:
    """One scan of a series: its slices, and in what it differs from the others ("Convolution Kernel H30s")."""

    headers: tuple[Header, ...]
    differs_in: tuple[str, ...] = ()

    def describe(self) -> str:
        places = _along(self.headers)
        where = f", {places.min():g} to {places.max():g} mm" if places is not None else ""
        return f"{', '.join(self.differs_in)} ({len(self.headers)} slices{where})"


def separate(headers: Sequence[Header]) -> list[Scan]:
    """The scans of a series, in the order of what they differ in; one when they are not distinguished."""
    for keyword in KEYS:
        groups: dict[str, list[Header]] = {}
        for header in headers:
            groups.setdefault(_shown(header, keyword), []).append(header)
        if len(groups) > 1 and _are_several(list(groups.values())):
            scans: list[Scan] = []
            for value in sorted(groups, key=_natural):
                told = f"{readable(keyword)} {value or 'missing'}"
                scans += [Scan(scan.headers, (told, *scan.differs_in)) for scan in separate(groups[value])]
            return scans
    return [Scan(tuple(headers))]


def chosen_scan(
    folder: Path,
    headers: Sequence[Header],
    number: int | None,
    warnings: list[str],
    option: str = "--series",
) -> list[Header]:
    """The slices of scan ``number`` (from 1), or of the only one; ``option`` is how it is chosen, for messages.

    Raises `InputError`, listing them, when the series holds several and none is chosen.
    """
    scans = separate(headers)
    listed = "; ".join(f"{n}: {scan.describe()}" for n, scan in enumerate(scans, 1))
    if number is None:
        if len(scans) == 1:
            return list(headers)
        uid = headers[0].text("SeriesInstanceUID")
        ranges = sorted(found for scan in scans if (found := _range(scan.headers)) is not None)
        where = "at the same place" if _overlap(ranges) else "of different parts of the patient"
        raise InputError(
            f"{folder}: the series holds {len(scans)} scans {where}; choose one by its number "
            f"({option} {uid}/NUMBER): {listed}"
        )
    if not 1 <= number <= len(scans):
        raise InputError(
            f"{folder}: the series holds {len(scans)} scan{'s' * (len(scans) > 1)}, so there is no number {number}"
            + (f"; there are {listed}" if len(scans) > 1 else "")
        )
    if len(scans) > 1:
        warnings.append(
            f"of {len(scans)} scans in the series number {number} was read: {scans[number - 1].describe()}"
        )
    return list(scans[number - 1].headers)


def split_choice(series: str | None, option: str = "--series") -> tuple[str | None, int | None]:
    """``UID/2`` as UID and number; the UID may be left out where there is one series only."""
    if series is None or "/" not in series:
        return series, None
    uid, _, number = series.rpartition("/")
    if not number.isdecimal():
        raise InputError(f"{option} {series}: the number of a scan must follow the slash, such as {uid}/1")
    return uid or None, int(number)


def _are_several(groups: Sequence[Sequence[Header]]) -> bool:
    """Whether each group is a stack of its own, and at least two cover the same stretch of the patient or lie apart."""
    ranges = [_range(group) for group in groups]
    known = sorted(found for found in ranges if found is not None)
    if len(known) < len(groups):
        return False
    ends = np.maximum.accumulate([end for _, end, _ in known])
    apart = any(start - end > APART_MM for (start, _, _), end in zip(known[1:], ends, strict=False))
    return apart or _overlap(known)


def _overlap(ranges: Sequence[_Range]) -> bool:
    """Of stacks in the order of their beginnings."""
    return any(
        min(a[1], b[1]) - b[0] > 0.5 * min(a[2], b[2]) for n, a in enumerate(ranges) for b in ranges[n + 1 :]
    )


def _range(group: Sequence[Header]) -> _Range | None:
    """Where a stack of slices begins and ends, and their distance, mm; None when they are not one regular stack."""
    along = _along(group)
    if along is None:
        return None
    places = np.sort(along)
    places = places[np.diff(places, prepend=-np.inf) > SAME_POSITION_MM]
    if len(places) < LEAST_SLICES:
        return None
    steps = np.diff(places)
    if steps.max() > MISSING_SLICE_FACTOR * np.median(steps):
        return None
    return float(places[0]), float(places[-1]), float(np.median(steps))


def _along(headers: Sequence[Header]) -> np.ndarray | None:
    """Places of slices along the first one's normal, mm; None where a header does not say."""
    try:
        row, column = np.reshape(headers[0].numbers("ImageOrientationPatient", 6), (2, 3))
        positions = np.array([h.numbers("ImagePositionPatient", 3) for h in headers])
    except InputError:
        return None
    return np.asarray(positions @ np.cross(row, column))


def _shown(header: Header, keyword: str) -> str:
    """The value as text; numbers alike whether they are written 120, 120.0 or 120.00001."""
    value = header.values.get(keyword)
    parts = (
        list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [header.text(keyword)]
    )
    return "\\".join(_number(str(part).strip()) for part in parts)


def _number(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def _natural(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
