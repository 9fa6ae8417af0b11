"""What a missing organ counts in a comparison of methods: the rule of the HaN-Seg challenge, as an option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from soars.errors import InputError
from soars.metrics.evaluate import CaseScores
from soars.metrics.scores import MISSING, OrganScore

READINGS = ("case", "organ")
"""Whose worst HD95 a missing organ gets; the challenge's text ("for that particular organ") can be read either way."""


def han_seg_rule(
    methods: Mapping[str, Sequence[CaseScores]], reading: str = "case"
) -> dict[str, list[CaseScores]]:
    """An organ that a method misses gets DSC 0 and the worst HD95 of the compared methods for this organ: of this
    case, or, with the reading "organ", of any case.

    Where no method has the organ in that case, the worst of the organ in any case, and where no method ever has
    it, of any organ, takes its place. Only HD95 changes; the other distances stay infinite, for the challenge has
    no rule for them, and the state stays "missing". So scores that were filled before may be given again. Source:
    HaN-Seg challenge (Podobnik et al., Radiother Oncol 2024), han-seg2023.grand-challenge.org.

    Args:
        methods: name of a method -> its cases.
        reading: one of `READINGS`.

    Raises `InputError` when no method has any organ, and for an unknown reading.
    """
    if reading not in READINGS:
        raise InputError(
            f"unknown reading {reading!r} of the challenge's rule; there are {', '.join(READINGS)}"
        )
    by_case: dict[tuple[str, str], float] = {}
    by_organ: dict[str, float] = {}
    for cases in methods.values():
        for case in cases:
            for score in case.scores:
                if score.state != MISSING and np.isfinite(score.hd95_mm):
                    key = (case.case, score.organ)
                    by_case[key] = max(by_case.get(key, 0.0), score.hd95_mm)
                    by_organ[score.organ] = max(by_organ.get(score.organ, 0.0), score.hd95_mm)
    if not by_organ:
        raise InputError("no method has any organ that could be compared")

    def filled(case: str, score: OrganScore) -> OrganScore:
        if score.state != MISSING:
            return score
        worst = by_organ.get(score.organ, max(by_organ.values()))
        if reading == "case":
            worst = by_case.get((case, score.organ), worst)
        return replace(score, dsc=0.0, hd95_mm=worst)

    return {
        name: [replace(case, scores=tuple(filled(case.case, s) for s in case.scores)) for case in cases]
        for name, cases in methods.items()
    }
