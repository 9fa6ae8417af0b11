"""All checks of a set of contours, each for one kind of fault, in one list of findings."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from soars.catalogue import CATALOGUE, may_overlap
from soars.findings.crowd import Crowd
from soars.findings.finding import CHECK, SERIOUS, ExpectedDsc, Finding, Locator
from soars.findings.norms import Norms, norm_findings, usual_findings
from soars.findings.notch import notch_findings
from soars.findings.pairs import pair_findings
from soars.findings.scan_edge import cut_by_scan
from soars.findings.shape import LONG_ORGANS, shape_findings
from soars.structures import StructureSet

OVERLAP_SHARE, OVERLAP_SERIOUS = 0.05, 0.3
"""Shares of the smaller organ from which an overlap is worth a finding, and from which one is probably wrong."""

BEYOND_MM = 5.0
"""An organ that lies in another has its middle no farther from the box about that one."""
POOR_DSC = 0.6
"""Contours with a lower expected DSC are worth a finding."""


def check_contours(structures: StructureSet, locator: Locator, norms: Norms | None = None) -> list[Finding]:
    """Findings about contours: on their own, relative to each other, and, with `norms`, relative to the cohort.

    The organs are the catalogue's; empty ones are skipped. An organ that the scan cuts off is not judged by its
    volume, its place or its other half.
    """
    present = structures.subset(name for name in structures.names if not structures.is_empty(name))
    edges = {name: cut_by_scan(present, name, locator) for name in present.names}
    cut = {name: edge for name, edge in edges.items() if edge is not None}
    whole = present.subset(name for name in present.names if name not in cut)
    found = [finding for name, finding in cut.items() if name not in LONG_ORGANS]
    crowd = Crowd(present)
    for name in present.names:
        shape = list(shape_findings(present, name, locator, crowd))
        found.extend(shape)
        if all(finding.kind != "flat_face" for finding in shape):
            found.extend(notch_findings(present, name, locator, crowd))
    found.extend(pair_findings(whole, locator, norms))
    found.extend(overlap_findings(present, locator, crowd))
    by_norms = list(norm_findings(whole, norms, locator)) if norms is not None else []
    found.extend(by_norms)
    placed = {finding.organ for finding in by_norms if finding.kind == "place"}
    found.extend(finding for finding in outside_findings(whole, locator) if finding.organ not in placed)
    told = {finding.organ for finding in by_norms if finding.kind == "volume"}
    judged = [name for name in present.names if name not in told and (name not in cut or name in LONG_ORGANS)]
    found.extend(usual_findings(present.subset(judged), locator, goes_on=cut))
    return found


def unsure_findings(
    structures: StructureSet, expected: Mapping[str, ExpectedDsc], locator: Locator
) -> Iterator[Finding]:
    """Organs whose contours are expected to be poor."""
    for name, dsc in expected.items():
        if dsc.value < POOR_DSC:
            mask = structures.crop(name)
            yield Finding(
                name,
                "confidence",
                CHECK,
                f"the network is uncertain: contours like this one reached a DSC of {dsc.text()}",
                "Look at its whole border, slice by slice.",
                locator.in_mask(mask.array, mask.start),
            )


def outside_findings(structures: StructureSet, locator: Locator) -> Iterator[Finding]:
    """Organs that lie outside the one that anatomy has them in, as a lens outside its eye; none of them is empty."""
    geometry = structures.geometry
    for name in structures.names:
        parent = CATALOGUE[name].parent
        if parent is None or parent not in structures or name in LONG_ORGANS:
            continue
        centre, box = np.asarray(structures.centre_of_mass(name)), structures.crop(parent).bounds
        index = geometry.to_index(centre)
        voxels = np.maximum(np.subtract(box.start, 0.5) - index, index - np.subtract(box.stop, 0.5))
        away = float(np.linalg.norm(np.maximum(voxels, 0) * geometry.spacing[::-1]))
        if away > BEYOND_MM:
            text = (
                f"it lies {away:.0f} mm outside the {CATALOGUE[parent].label.lower()}, in which it should be"
            )
            advice = "Check whether this is the organ, or a similar structure."
            yield Finding(name, "place", SERIOUS, text, advice, locator.at_point(centre))


def alone_findings(structures: StructureSet, absent: Collection[str], locator: Locator) -> Iterator[Finding]:
    """Organs that were found although the one in which anatomy has them is absent; none of them is empty."""
    for name in structures.names:
        parent = CATALOGUE[name].parent
        if parent is not None and parent in absent:
            text = f"it was found, but not the {CATALOGUE[parent].label.lower()} in which it lies"
            advice = "Check whether the patient has it: both may be missing, or outside the scan."
            centre = np.asarray(structures.centre_of_mass(name))
            yield Finding(name, "place", CHECK, text, advice, locator.at_point(centre))


def overlap_findings(structures: StructureSet, locator: Locator, crowd: Crowd) -> Iterator[Finding]:
    """Organs that share voxels although anatomy has none in the other; the smaller one of two bears the finding.

    None of the structures is empty.
    """
    sizes = {name: structures.voxels(name) for name in structures.names}
    shared = {name: crowd.shared(name) for name in structures.names}
    for first, second in itertools.combinations(sizes, 2):
        if may_overlap(first, second) or not (shared[first] and shared[second]):
            continue
        mask, other = structures.crop(first), structures.crop(second)
        common = mask.array & other.box(mask.start, mask.shape)
        small, large = sorted((first, second), key=sizes.__getitem__)
        share = np.count_nonzero(common) / sizes[small]
        if share < OVERLAP_SHARE:
            continue
        yield Finding(
            small,
            "overlap",
            SERIOUS if share >= OVERLAP_SERIOUS else CHECK,
            f"{100 * share:.0f} % of it is {CATALOGUE[large].label.lower()} too",
            "Decide which of the two the place belongs to, and remove it from the other.",
            locator.in_mask(common, mask.start),
        )
