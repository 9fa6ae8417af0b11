"""What a TotalSegmentator bundle says: which task gives which organs, under which licence, by which definition."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from soars.bundle.manifest import Bundle
from soars.errors import BundleError
from soars.systems.labels import LabelRule, parse_rules


@dataclass(frozen=True)
class Task:
    """One of TotalSegmentator's tasks.

    Attributes:
        name: as the package calls it.
        licence: of its weights.
        needs_number: a licence number must have been entered.
        fast: it has a coarse mode of 3 mm, which is used on a CPU.
        rules: its classes; a rule of several values names the classes joined by ``+``.
        definitions: organ -> how it differs from the consensus guideline's.
    """

    name: str
    licence: str
    needs_number: bool
    fast: bool
    rules: tuple[LabelRule, ...]
    definitions: Mapping[str, str]

    @property
    def organs(self) -> tuple[str, ...]:
        return tuple(organ for rule in self.rules for organ in rule.organs)

    def classes(self, organs: Collection[str]) -> list[str]:
        """Names of the classes that these organs are made of."""
        rules = [rule for rule in self.rules if set(rule.organs) & set(organs)]
        return [name for rule in rules for name in rule.label.split("+")]


def parse_tasks(bundle: Bundle) -> tuple[Task, ...]:
    """The bundle's tasks, checked; raises `BundleError` naming what is wrong."""
    where = f"bundle {bundle.name}: settings"
    if set(bundle.settings) != {"tasks"} or not isinstance(bundle.settings["tasks"], dict):
        raise BundleError(f"{where}: expected tasks, and nothing else")
    tasks = tuple(
        _task(name, entry, f"{where}.tasks.{name}") for name, entry in bundle.settings["tasks"].items()
    )
    organs = [organ for task in tasks for organ in task.organs]
    if sorted(organs) != sorted(bundle.organs):
        raise BundleError(f"{where}.tasks: must give each of the manifest's organs, once, and no others")
    return tasks


def _task(name: str, entry: Any, where: str) -> Task:
    keys = {"licence": str, "needs_number": bool, "fast": bool, "labels": list, "definitions": dict}
    if not isinstance(entry, dict) or set(entry) != set(keys):
        raise BundleError(f"{where}: expected {', '.join(keys)}")
    wrong = [key for key, kind in keys.items() if not isinstance(entry[key], kind)]
    if wrong:
        raise BundleError(f"{where}.{wrong[0]}: has the wrong type")
    rules = parse_rules(entry["labels"], f"{where}.labels")
    for rule in rules:
        if len(rule.label.split("+")) != len(rule.values):
            raise BundleError(f"{where}.labels: {rule.label!r} needs as many values as class names")
    definitions = entry["definitions"]
    given = {organ for rule in rules for organ in rule.organs}
    if not set(definitions) <= given or not all(isinstance(text, str) for text in definitions.values()):
        raise BundleError(f"{where}.definitions: must be texts about the task's own organs")
    return Task(name, entry["licence"], entry["needs_number"], entry["fast"], rules, definitions)
