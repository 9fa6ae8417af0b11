"""Running a composite: each source for the organs it comes first for, then the next source for missing organs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from soars.bundle.integrity import read_checked
from soars.bundle.manifest import Bundle
from soars.cascade.engine import EngineInfo
from soars.cascade.preprocess import Body, find_body
from soars.cascade.sides import find_midline
from soars.catalogue import CATALOGUE
from soars.ct.images import CtScan
from soars.errors import BundleError, EngineError
from soars.findings.checks import check_contours
from soars.findings.finding import CHECK, Finding, Locator
from soars.progress import Progress, Reporter
from soars.structures import Geometry, StructureSet
from soars.systems.composite.overlaps import Settlement, settle_overlaps
from soars.systems.composite.plan import FILE, Plan, parse_plan
from soars.systems.identity import combined_sha256
from soars.systems.interface import Drawn, Needs, SegmentOptions, Source, System

NAME = "composite"
NOTED_SHARE = 0.1
"""Taking more than this share of an organ is worth a finding."""

Open = Callable[[str], System]
"""Loads a bundle by name or path and gives its system; raises `BundleError`."""


class CompositeSystem:
    """A composite bundle, ready to run; see `soars.systems.interface.System`."""

    name = NAME

    def __init__(self, bundle: Bundle, open_system: Open) -> None:
        self.bundle = bundle
        self.plan = _plan(bundle)
        self._open = open_system
        self._systems: dict[str, System] = {}

    @property
    def organs(self) -> tuple[str, ...]:
        return self.bundle.organs

    @property
    def sha256(self) -> str:
        """Of the bundle, and for each organ of the sources that can run here, in their order."""
        usable, _ = self._usable(self.organs)
        hashes = {organ: [self.source(short).sha256 for short in shorts] for organ, shorts in usable.items()}
        return combined_sha256([self.bundle.sha256, hashes])

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(dict.fromkeys(source for system in self._installed() for source in system.sources))

    @property
    def requirements(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one for system in self._installed() for one in system.requirements))

    def _installed(self) -> Iterator[System]:
        """Systems of the sources whose bundles are there; why others are not, is said where their organs are wanted."""
        for short in self.plan.sources:
            try:
                yield self.source(short)
            except BundleError:
                continue

    def source(self, short: str) -> System:
        """The system of a source; raises `BundleError` when its bundle cannot be loaded or is a composite itself."""
        if short not in self._systems:
            system = self._open(self.plan.sources[short])
            if system.name == NAME:
                raise BundleError(
                    f"bundle {self.bundle.name}: its source {short} is a composite; name its sources"
                )
            self._systems[short] = system
        return self._systems[short]

    def by_source(self, organs: Collection[str]) -> dict[System, tuple[str, ...]]:
        """The organs that each source comes first for; sources whose bundle cannot be loaded are left out."""
        found = {}
        for short, mine in self._first_in_line(organs).items():
            try:
                found[self.source(short)] = mine
            except BundleError:
                continue
        return found

    def needs(self, organs: Collection[str]) -> Needs:
        all_needs = [source.needs(mine) for source, mine in self.by_source(organs).items()]
        return Needs(
            next((needs.extra for needs in all_needs if needs.extra), ""),
            tuple(package for needs in all_needs for package in needs.missing_packages),
            tuple(weights for needs in all_needs for weights in needs.weights),
        )

    def problem(self, organs: Collection[str]) -> str | None:
        return self._problem(*self._usable(organs))

    def _problem(self, usable: dict[str, list[str]], reasons: dict[str, list[str]]) -> str | None:
        if any(usable.values()) and not (reasons and self.plan.missing == "fail"):
            return None
        return "; ".join(dict.fromkeys(reason for found in reasons.values() for reason in found))

    def draw(self, ct: CtScan, organs: tuple[str, ...], options: SegmentOptions, progress: Reporter) -> Drawn:
        waiting, reasons = self._usable(organs)
        problem = self._problem(waiting, reasons)
        if problem is not None:
            raise EngineError(problem)
        warnings = list(dict.fromkeys(reason for found in reasons.values() for reason in found))
        merged = _Merged(StructureSet(Geometry.of(ct.image)), warnings=warnings)
        while any(waiting.values()):
            short = next(names[0] for names in waiting.values() if names)
            mine = tuple(organ for organ, names in waiting.items() if names and names[0] == short)
            drawn = self.source(short).draw(ct, mine, options, _named(short, progress))
            merged.add(short, drawn)
            for organ in mine:
                waiting[organ] = [] if organ in drawn.structures else waiting[organ][1:]
        for organ in organs:
            if organ not in merged.structures:
                merged.absent.setdefault(organ, "; ".join(reasons.get(organ, ())))
        merged.settle([organ for organ in self.plan.organs if organ in organs])
        merged.check(find_body(ct.image))
        return merged.drawn()

    def _usable(self, organs: Collection[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """For each organ its sources that can run here; and for an organ that lacks some, why."""
        usable: dict[str, list[str]] = {}
        reasons: dict[str, list[str]] = {}
        for organ in organs:
            problems = {short: self._problem_of(short, (organ,)) for short in self.plan.organs[organ]}
            usable[organ] = [short for short, problem in problems.items() if problem is None]
            why = [problem for problem in problems.values() if problem is not None]
            if why:
                reasons[organ] = why
        return usable, reasons

    def _problem_of(self, short: str, organs: Collection[str]) -> str | None:
        try:
            return self.source(short).problem(organs)
        except BundleError as error:
            return str(error)

    def _first_in_line(self, organs: Collection[str]) -> dict[str, tuple[str, ...]]:
        first: dict[str, tuple[str, ...]] = {}
        for organ in organs:
            short = self.plan.organs[organ][0]
            first[short] = (*first.get(short, ()), organ)
        return first


@dataclass
class _Merged:
    """What the sources have given so far."""

    structures: StructureSet
    absent: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    parts: dict[str, Drawn] = field(default_factory=dict)
    short_of: dict[str, str] = field(default_factory=dict)

    def add(self, short: str, drawn: Drawn) -> None:
        self.parts[short] = drawn
        self.warnings += drawn.warnings
        for name in drawn.structures:
            self.structures.add_mask(name, drawn.structures.crop(name), drawn.structures.info.get(name))
            self.short_of[name] = short
            self.absent.pop(name, None)
        self.absent.update({n: why for n, why in drawn.absent.items() if n not in self.structures})
        self.findings = [f for f in self.findings if f.organ not in drawn.structures]
        self.findings += drawn.findings

    def _engine(self) -> EngineInfo:
        """That of the first source; where others had another, the reason names each."""
        engines = {short: part.engine for short, part in self.parts.items()}
        first = next(iter(engines.values()))
        if all(engine == first for engine in engines.values()):
            return first
        reasons = (
            f"{short} by {one.engine} on {one.device} ({one.reason})" for short, one in engines.items()
        )
        return replace(first, reason="; ".join(reasons))

    def settle(self, precedence: list[str]) -> None:
        expected = {name: one.value for name, one in self._of_sources("expected_dsc").items()}
        for settlement in settle_overlaps(self.structures, self.short_of, precedence, expected):
            if settlement.share > NOTED_SHARE:
                self.findings.append(_finding(settlement))
            if self.structures.is_empty(settlement.loser):
                self.structures.remove(settlement.loser)
                del self.short_of[settlement.loser]
                self.absent[settlement.loser] = _finding(settlement).text

    def _of_sources(self, what: Literal["expected_dsc", "confidence"]) -> dict[str, Any]:
        """By organ, what the source that drew it says of it."""
        return {
            name: value
            for short, part in self.parts.items()
            for name, value in getattr(part, what).items()
            if self.short_of.get(name) == short
        }

    def check(self, body: Body) -> None:
        """What only the combination shows: findings of a kind that an organ's own source did not report for it."""
        midline = find_midline(self.structures, body)
        locator = Locator(self.structures.geometry, midline.left_mm)
        known = {(finding.organ, finding.kind) for finding in self.findings}
        found = check_contours(self.structures, locator)
        self.findings += [finding for finding in found if (finding.organ, finding.kind) not in known]

    def drawn(self) -> Drawn:
        order = [name for name in CATALOGUE if name in self.structures]
        return Drawn(
            engine=self._engine(),
            structures=self.structures.subset(order),
            absent=self.absent,
            findings=self.findings,
            warnings=self.warnings,
            timings_s={
                f"{short}: {stage}": seconds
                for short, part in self.parts.items()
                for stage, seconds in part.timings_s.items()
            },
            confidence=self._of_sources("confidence"),
            expected_dsc=self._of_sources("expected_dsc"),
            detections=[d for part in self.parts.values() for d in part.detections],
            sources={name: self.parts[self.short_of[name]].sources[name] for name in order},
        )


def _finding(settlement: Settlement) -> Finding:
    winner = CATALOGUE[settlement.winner].label
    return Finding(
        settlement.loser,
        "overlap",
        CHECK,
        f"{100 * settlement.share:.0f} % of it was claimed by another model as {winner}, and given to that organ",
        "Look at the border between the two.",
    )


def _named(short: str, progress: Reporter) -> Reporter:
    """The source's progress, with the source's name before each stage: "starter/anchor"."""

    def report(step: Progress) -> None:
        progress(replace(step, stage=f"{short}/{step.stage}"))

    return report


def _plan(bundle: Bundle) -> Plan:
    if FILE not in bundle.files or bundle.settings:
        raise BundleError(f"bundle {bundle.name}: a composite has its {FILE} and no settings")
    plan = parse_plan(read_checked(bundle, FILE), f"bundle {bundle.name}: {FILE}")
    if set(plan.organs) != set(bundle.organs):
        differing = ", ".join(sorted(set(plan.organs) ^ set(bundle.organs)))
        raise BundleError(f"bundle {bundle.name}: {FILE} and the manifest do not agree about {differing}")
    return plan
