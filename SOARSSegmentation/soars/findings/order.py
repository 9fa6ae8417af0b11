"""The order in which to look at organs and findings: those that most need a look come first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from soars.catalogue import CATALOGUE
from soars.findings.finding import SEVERITIES, ExpectedDsc, Finding


def by_need(
    organs: Collection[str], findings: Iterable[Finding], expected: Mapping[str, ExpectedDsc]
) -> tuple[str, ...]:
    """The organs (TG-263 names), first those with the most severe finding, among these those of the lowest expected
    DSC; an organ without one comes after those that have one, in the catalogue's order."""
    worst = {organ: len(SEVERITIES) for organ in organs}
    for finding in findings:
        if finding.organ in worst:
            worst[finding.organ] = min(worst[finding.organ], SEVERITIES.index(finding.severity))
    place = {name: number for number, name in enumerate(CATALOGUE)}

    def need(organ: str) -> tuple[int, float, int]:
        dsc = expected[organ].value if organ in expected else 2.0
        return worst[organ], dsc, place.get(organ, len(place))

    return tuple(sorted(organs, key=need))


def in_order(findings: Iterable[Finding], order: Iterable[str]) -> tuple[Finding, ...]:
    """The findings by their organs' order, the most severe of an organ first."""
    place = {organ: number for number, organ in enumerate(order)}
    return tuple(
        sorted(findings, key=lambda f: (place.get(f.organ, len(place)), SEVERITIES.index(f.severity)))
    )
