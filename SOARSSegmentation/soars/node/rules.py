"""Which series a rule is for: conditions on DICOM attributes and on how the series came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from soars.ct.dicom_files import read_dataset
from soars.errors import InputError
from soars.service.where import Condition, parse_condition

CALLED, CALLING, ARCHIVE = "called", "calling", "archive"
"""Keys beside DICOM's: the AE titles of the association that brought the series, or the archive it was fetched from."""

Conditions = Mapping[str, tuple[Condition, ...]]
"""By key, the alternatives of which one must hold, and exclusions (``!=``), all of which must."""

LOOKED_AT = 15
"""Images of a series whose headers are read for its rule."""
_OPERATORS = ("!=", "<=", ">=", "<", ">")


def read_conditions(when: Mapping[str, tuple[str, ...]]) -> Conditions:
    """Conditions as a rule has them: ``Modality: CT``, ``BodyPartExamined: [HEAD*, NECK]``, ``SliceThickness: <=3``.

    Raises `InputError` for a key that is no keyword of DICOM: it would never hold.
    """
    return {key: tuple(_condition(key, text) for text in texts) for key, texts in when.items()}


def holds(conditions: Conditions, values: Mapping[str, str], *, unknown: bool = False) -> bool:
    """Whether all conditions hold; ``unknown`` is the answer for keys that are not among the values."""
    return all(
        _one_holds(alternatives, values[key]) if key in values else unknown
        for key, alternatives in conditions.items()
    )


def _one_holds(alternatives: tuple[Condition, ...], value: str) -> bool:
    wanted = [one for one in alternatives if one.operator != "!="]
    kept = all(one.holds(value) for one in alternatives if one.operator == "!=")
    return kept and (not wanted or any(one.holds(value) for one in wanted))


def values_of(dataset: Dataset, keys: set[str]) -> dict[str, str]:
    """The values of DICOM keywords, "" where there is none, several joined by a backslash."""
    found = {}
    for key in keys - {CALLED, CALLING, ARCHIVE}:
        value = dataset.get(key)
        several = value is not None and not isinstance(value, str) and hasattr(value, "__iter__")
        parts = list(value) if several else [value]
        found[key] = "\\".join("" if part is None else str(part) for part in parts)
    return found


def values_of_most(paths: Sequence[Path], keys: set[str]) -> dict[str, str]:
    """The values that most of a series' images have, of `LOOKED_AT` of them: a localizer among the slices, or a damaged
    image, decides nothing. Raises as `header_of` when no image can be read."""
    step = max(1, len(paths) // LOOKED_AT)
    found: list[dict[str, str]] = []
    problem: Exception | None = None
    for path in paths[::step][:LOOKED_AT]:
        try:
            found.append(values_of(header_of(path, keys), keys))
        except Exception as error:  # whatever the parser raises over a damaged file
            problem = error
    if not found and problem is not None:
        raise problem
    # of several that are as frequent, the one that the order of the images does not choose
    return {key: _most_frequent([values[key] for values in found]) for key in (found[0] if found else ())}


def _most_frequent(values: Sequence[str]) -> str:
    counts = Counter(values)
    return max(sorted(counts), key=lambda value: counts[value])


def header_of(path: Path, keys: set[str]) -> Dataset:
    """The attributes of a file; raises what pydicom raises over damaged data, and `InputError`."""
    tags = [key for key in sorted(keys) if tag_for_keyword(key) is not None]
    return read_dataset(path, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", *tags])


def _condition(key: str, text: str) -> Condition:
    if key not in (CALLED, CALLING, ARCHIVE) and tag_for_keyword(key) is None:
        raise InputError(
            f"when.{key}: is neither {CALLED}, {CALLING}, {ARCHIVE} nor a DICOM keyword such as StudyDescription"
        )
    compared = text.startswith(_OPERATORS)
    try:
        return parse_condition(f"{key}{text}" if compared else f"{key}={text}")
    except InputError as error:
        raise InputError(f"when: {str(error).removeprefix('--where ')}") from error
