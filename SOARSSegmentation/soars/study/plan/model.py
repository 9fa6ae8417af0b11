"""The study file, ``study.yaml``: the study's design, fixed before the first reader starts.

::

    schema: 1
    name: pilot-2026                 # letters, digits and . _ - only
    title: Revising contours in the neck
    seed: 20261125                   # of every random choice
    organs: SOARS42                  # a set of the catalogue, or a list of organs
    cases:                           # paths are relative to this file
      - {name: case-01, ct: cts/a, reference: clinical/a.dcm, dose: doses/a.dcm}
      - {name: case-02, ct: cts/b, phase: training}
    arms:
      - {name: soars, bundle: starter}                # segmented by `soars study prepare`
      - {name: atlas, contours: atlas}                # a folder with contours named after the cases
      - {name: manual, proposal: none, cases: 5}      # from scratch, on 5 cases drawn at random
    readers:
      - {name: R1, site: A, organs: [Brainstem, Eye_L]}
      - {name: R2, site: B}                           # all organs
    observers:                                        # existing contours, drawn without Slicer
      - {name: clinic, contours: observers}
    repeats: {cases: 3, arms: [soars]}                # read a second time, for intra-reader variation
    assignment: every arm                             # or: one arm
    balance: latin square                             # or: minimisation
    washout_days: 14
    idle_s: 30
    scores: true                                      # readers rate each organ from 1 to 5
    test: wilcoxon                                    # or paired t, mixed model: of the primary comparison
    non_inferiority: {figure: dsc, margin: 0.02}

The file is the lead's alone: it names the models behind the arms.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soars.catalogue import CATALOGUE, SETS, SOARS42, label_map, resolve
from soars.effort.records import PHASES
from soars.effort.timing import IDLE_S
from soars.errors import InputError
from soars.study.plan.fields import Fields
from soars.texts import LARGEST_YAML, parse_yaml, read_bytes

SCHEMA_VERSION = 1
STUDY_FILE = "study.yaml"
ASSIGNMENTS = ("every arm", "one arm")
BALANCES = ("latin square", "minimisation")
TESTS = ("wilcoxon", "paired t", "mixed model")
FIGURES = ("dsc", "surface_dsc", "hd95_mm", "asd_mm", "minutes")
"""Figures for which non-inferiority can be tested."""


@dataclass(frozen=True)
class Case:
    """A patient: pseudonym, CT, and where there are any the reference contours and the dose. A study of observers alone
    needs no CT."""

    name: str
    ct: Path | None
    reference: Path | None
    dose: Path | None
    phase: str


@dataclass(frozen=True)
class Arm:
    """What readers are given: contours of a ``bundle``, of a folder of ``contours``, or nothing (both None). ``cases``
    is how many cases, drawn at random, are read in it; None for all."""

    name: str
    bundle: str | None
    contours: Path | None
    cases: int | None

    @property
    def from_scratch(self) -> bool:
        return self.bundle is None and self.contours is None


@dataclass(frozen=True)
class Reader:
    """A person; ``organs`` is their part of the study's, in the study's order."""

    name: str
    organs: tuple[str, ...]
    site: str


@dataclass(frozen=True)
class Observer:
    """Contours drawn elsewhere, shown beside the readers' in tables of agreement."""

    name: str
    contours: Path


@dataclass(frozen=True)
class Margin:
    """Non-inferiority: the results of ``arm`` may be worse than those of ``than`` in ``figure`` by ``margin``."""

    figure: str
    margin: float


@dataclass(frozen=True)
class Plan:
    """A study as its file says; see the module's docstring."""

    name: str
    title: str
    seed: int
    organs: tuple[str, ...]
    cases: tuple[Case, ...]
    arms: tuple[Arm, ...]
    readers: tuple[Reader, ...]
    observers: tuple[Observer, ...]
    repeat_cases: int
    repeat_arms: tuple[str, ...]
    assignment: str
    balance: str
    washout_days: int
    idle_s: float
    scores: bool
    test: str
    non_inferiority: Margin | None
    sha256: str

    @property
    def main_cases(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.phase == "main")

    @property
    def training_cases(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.phase == "training")

    def case(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def read_plan(folder: Path) -> Plan:
    """The study file of a lead's folder, checked; `InputError` says what is wrong with it and where."""
    path = folder / STUDY_FILE
    try:
        data = read_bytes(path, LARGEST_YAML)
    except FileNotFoundError:
        raise InputError(f"there is no {path}: begin a study with `soars study new {folder}`") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    fields = Fields(_decoded(data, path), path.name)
    schema = fields.whole("schema", least=1)
    if schema > SCHEMA_VERSION:
        raise InputError(f"{path} was written for a newer version (schema {schema}): update SOARS")
    plan = _plan(fields, folder, hashlib.sha256(data).hexdigest())
    fields.end()
    _check(plan, path.name)
    return plan


def _decoded(data: bytes, path: Path) -> object:
    try:
        import yaml
    except ImportError as error:
        raise InputError(
            "study files need PyYAML, which is not installed: pip install 'soars-segmentation[study]'"
        ) from error
    try:
        return parse_yaml(data, _strict_loader(yaml))
    except ValueError as error:
        raise InputError(f"{path} is not YAML: {error}"[:400]) from None


def _strict_loader(yaml: Any) -> Any:
    """PyYAML's safe loader, except that a duplicate key is an error instead of the last one winning."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = Counter(str(self.construct_object(key, deep=deep)) for key, _ in node.value)
            twice = sorted(key for key, count in keys.items() if count > 1)
            if twice:
                raise yaml.YAMLError(f"{twice[0]} occurs twice{node.start_mark}")
            return super().construct_mapping(node, deep)

    return Loader


def _plan(fields: Fields, folder: Path, sha256: str) -> Plan:
    organs = _organs(fields, "organs", SOARS42)
    repeats = fields.part("repeats")
    repeat_cases, repeat_arms = 0, None
    if repeats is not None:
        repeat_cases, repeat_arms = repeats.whole("cases", least=1), repeats.texts("arms")
        repeats.end()
    arms = fields.each("arms", lambda f: _arm(f, folder), least=1)
    return Plan(
        name=fields.safe("name"),
        title=fields.text("title", ""),
        seed=fields.whole("seed"),
        organs=organs,
        cases=fields.each("cases", lambda f: _case(f, folder), least=1),
        arms=arms,
        readers=fields.each("readers", lambda f: _reader(f, organs)),
        observers=fields.each("observers", lambda f: Observer(f.safe("name"), folder / f.text("contours"))),
        repeat_cases=repeat_cases,
        repeat_arms=repeat_arms if repeat_arms is not None else tuple(arm.name for arm in arms),
        assignment=fields.choice("assignment", ASSIGNMENTS, "every arm"),
        balance=fields.choice("balance", BALANCES, "latin square"),
        washout_days=fields.whole("washout_days", 14),
        idle_s=fields.number("idle_s", IDLE_S),
        scores=fields.yes("scores", True),
        test=fields.choice("test", TESTS, "wilcoxon"),
        non_inferiority=_margin(fields.part("non_inferiority")),
        sha256=sha256,
    )


def _case(fields: Fields, folder: Path) -> Case:
    def optional(name: str) -> Path | None:
        text = fields.text(name, "")
        return folder / text if text else None

    return Case(
        fields.safe("name"),
        optional("ct"),
        optional("reference"),
        optional("dose"),
        fields.choice("phase", PHASES, "main"),
    )


def _arm(fields: Fields, folder: Path) -> Arm:
    name = fields.safe("name")
    bundle, contours, none = (fields.text(kind, "") for kind in ("bundle", "contours", "proposal"))
    if [bool(bundle), bool(contours), none == "none"].count(True) != 1 or none not in ("", "none"):
        raise InputError(
            f"{fields.where}: give one of bundle (a model), contours (a folder) or proposal: none (from scratch)"
        )
    # A bundle is a name that is installed, or a path beside the study file.
    if bundle and (folder / bundle).exists():
        bundle = str(folder / bundle)
    cases = fields.whole("cases", 0)
    return Arm(name, bundle or None, folder / contours if contours else None, cases or None)


def _reader(fields: Fields, organs: tuple[str, ...]) -> Reader:
    own = _organs(fields, "organs", organs)
    foreign = [organ for organ in own if organ not in organs]
    if foreign:
        raise InputError(f"{fields.where}: {', '.join(foreign)} is not among the study's organs")
    return Reader(fields.safe("name"), own, fields.text("site", ""))


def _organs(fields: Fields, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the catalogue, in its order; a single text may be the name of a set."""
    texts = fields.texts(name)
    if texts is None:
        return default
    if len(texts) == 1 and texts[0] == "SOARS42":
        return SOARS42
    if len(texts) == 1 and texts[0] in SETS:
        wanted = set(label_map(texts[0]).values())
    else:
        wanted = {resolve(text).name for text in texts}
    if not wanted:
        raise InputError(f"{fields.where}: {name} names no organ")
    return tuple(organ for organ in CATALOGUE if organ in wanted)


def _margin(fields: Fields | None) -> Margin | None:
    if fields is None:
        return None
    margin = Margin(fields.choice("figure", FIGURES), fields.number("margin"))
    fields.end()
    if margin.margin <= 0:
        raise InputError(f"{fields.where}: the margin must be above 0")
    return margin


def _check(plan: Plan, file: str) -> None:
    """Checks that involve several fields."""
    for what, names in (
        ("case", [case.name for case in plan.cases]),
        ("arm", [arm.name for arm in plan.arms]),
        ("reader", [*(r.name for r in plan.readers), *(o.name for o in plan.observers)]),
    ):
        # Names become file names, and not every system distinguishes capitals.
        twice = sorted({n for n in names if [m.lower() for m in names].count(n.lower()) > 1})
        if twice:
            raise InputError(f"{file}: the {what} {twice[0]} occurs twice")
    if not plan.readers and not plan.observers:
        raise InputError(f"{file}: a study needs readers or observers")
    without = [case.name for case in plan.cases if case.ct is None]
    if plan.readers and without:
        raise InputError(f"{file}: the case {without[0]} has no ct, and readers need one")
    if not plan.main_cases:
        raise InputError(f"{file}: every case is for training; at least one must be in the main phase")
    for arm in plan.arms:
        if arm.cases is not None and arm.cases > len(plan.main_cases):
            raise InputError(
                f"{file}: arm {arm.name} draws {arm.cases} cases, but there are {len(plan.main_cases)}"
            )
    unknown = sorted(set(plan.repeat_arms) - {arm.name for arm in plan.arms})
    if unknown:
        raise InputError(f"{file}: repeats: there is no arm {unknown[0]}")
    if plan.repeat_cases > len(plan.main_cases):
        raise InputError(
            f"{file}: repeats: {plan.repeat_cases} cases are to be repeated, but there are {len(plan.main_cases)}"
        )
