"""Which organ each label of an nnU-Net model is: by its name, or by a table that a person has corrected.

The table is a CSV file with the columns ``label`` and ``organ``. An organ is a name in any spelling of the catalogue;
two joined by ``+`` are the left and the right half of a structure that is cut at the patient's middle; an empty cell
leaves the label out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soars.catalogue import CATALOGUE, resolve
from soars.cells import HarmlessWriter, original
from soars.errors import BundleError, UnknownOrganError
from soars.systems.labels import LabelRule, check_organs
from soars.texts import read_table

_LARGEST_TABLE = 1 << 20


@dataclass(frozen=True)
class Proposed:
    """Rules for the labels that have one, and the labels that have none with the reason."""

    rules: tuple[LabelRule, ...]
    left_out: Mapping[str, str]


def by_name(labels: Mapping[str, tuple[int, ...]]) -> Proposed:
    """Rules for labels whose names the catalogue knows; raises `BundleError` when two mean one organ."""
    rules, left_out = [], {}
    for label, values in labels.items():
        try:
            organ = resolve(label)
        except UnknownOrganError as error:
            left_out[label] = str(error)
            continue
        rules.append(LabelRule(label, values, _halves(organ.name) or (organ.name,)))
    return Proposed(_unique(rules, "by their names"), left_out)


def by_table(labels: Mapping[str, tuple[int, ...]], path: Path) -> Proposed:
    """Rules from a table; raises `BundleError` naming the line that is wrong, or a label that is not in the table."""
    table = _read(path)
    unknown = [label for label in table if label not in labels]
    if unknown:
        raise BundleError(f"{path}: the model has no label {unknown[0]!r}; it has {', '.join(labels)}")
    missing = [label for label in labels if label not in table]
    if missing:
        raise BundleError(
            f"{path}: has no line for the label {missing[0]!r}; leave its organ empty to leave it out"
        )
    rules = [LabelRule(label, labels[label], organs) for label, organs in table.items() if organs]
    left_out = {label: "left out by the table" for label, organs in table.items() if not organs}
    return Proposed(_unique(rules, f"in {path}"), left_out)


def table_text(proposed: Proposed) -> str:
    """The table of these rules, to be corrected by hand."""
    out = io.StringIO()
    writer = HarmlessWriter(out, lineterminator="\n")
    writer.writerow(("label", "organ"))
    writer.writerows((rule.label, "+".join(rule.organs)) for rule in proposed.rules)
    writer.writerows((label, "") for label in proposed.left_out)
    return out.getvalue()


def _halves(name: str) -> tuple[str, str] | None:
    """The left and right part of an organ that the catalogue also has whole ("Bone_Mandible")."""
    parts = CATALOGUE[name].parts
    if len(parts) == 2 and [CATALOGUE[part].side for part in parts] == ["left", "right"]:
        return parts[0], parts[1]
    return None


def _unique(rules: list[LabelRule], where: str) -> tuple[LabelRule, ...]:
    owner: dict[str, str] = {}
    for rule in rules:
        for organ in rule.organs:
            if organ in owner:
                raise BundleError(
                    f"the labels {owner[organ]!r} and {rule.label!r} both mean {organ} {where}; give a table "
                    "(--map) in which one of them has another organ or none"
                )
            owner[organ] = rule.label
    if not rules:
        raise BundleError(f"no label is an organ of the catalogue {where}; give a table (--map)")
    return tuple(rules)


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        reader = csv.DictReader(read_table(path, _LARGEST_TABLE))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if reader.fieldnames is None or [name.strip() for name in reader.fieldnames] != ["label", "organ"]:
        raise BundleError(f"{path}: the first line must be: label,organ")
    table: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(reader, start=2):
        label, cell = original((row["label"] or "").strip()), (row["organ"] or "").strip()
        if not label:
            raise BundleError(f"{path}, line {number}: there is no label")
        if label in table:
            raise BundleError(f"{path}, line {number}: {label!r} occurs twice")
        try:
            organs = tuple(resolve(name).name for name in cell.split("+")) if cell else ()
        except UnknownOrganError as error:
            raise BundleError(f"{path}, line {number}: {error}") from error
        if len(organs) == 1:
            organs = _halves(organs[0]) or organs
        if organs:
            check_organs(organs, f"{path}, line {number}")
        table[label] = organs
    return table
