"""The settings of a comparison ranked as the HaN-Seg challenge ranks methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from soars.errors import InputError
from soars.metrics.evaluate import CaseScores
from soars.metrics.rules import han_seg_rule
from soars.metrics.scores import COMPARED, MISSING, OrganScore
from soars.study.ranking import rank_methods, ranking_text
from soars_training.experiments.scores import OrganRow

NAN = float("nan")


def ranking(rows: Sequence[OrganRow]) -> str:
    """Markdown; a sentence where there is nothing to rank.

    A case and organ counts once, with its mean over the seeds, an organ that a seed has missed as the challenge has it.
    """
    try:
        return f"```\n{ranking_text(rank_methods(over_seeds(rows)))}\n```"
    except InputError as error:
        return f"No ranking: {error}."


def over_seeds(rows: Sequence[OrganRow]) -> dict[str, list[CaseScores]]:
    """Setting -> its scores, each the mean over seeds. Raises `InputError` where no organ was found at all."""
    runs: dict[str, dict[str, list[OrganScore]]] = {}
    for row in rows:
        runs.setdefault(f"{row.setting}\n{row.seed}", {}).setdefault(row.case, []).append(_score(row))
    filled = han_seg_rule(
        {
            run: [CaseScores(case, tuple(scores)) for case, scores in cases.items()]
            for run, cases in runs.items()
        }
    )
    values: dict[str, dict[str, dict[str, list[OrganScore]]]] = {}
    for run, cases in filled.items():
        of_setting = values.setdefault(run.split("\n")[0], {})
        for case in cases:
            for score in case.scores:
                of_setting.setdefault(case.case, {}).setdefault(score.organ, []).append(score)
    return {
        setting: [_mean(case, organs) for case, organs in cases.items()] for setting, cases in values.items()
    }


def _mean(case: str, organs: Mapping[str, Sequence[OrganScore]]) -> CaseScores:
    return CaseScores(
        case,
        tuple(
            _organ_score(
                organ,
                COMPARED,
                float(np.mean([s.dsc for s in scores])),
                float(np.mean([s.hd_mm for s in scores])),
                float(np.mean([s.hd95_mm for s in scores])),
            )
            for organ, scores in organs.items()
        ),
    )


def _score(row: OrganRow) -> OrganScore:
    state = COMPARED if np.isfinite(row.hd_mm) else MISSING
    return _organ_score(row.organ, state, row.dsc, row.hd_mm, row.hd95_mm)


def _organ_score(organ: str, state: str, dsc: float, hd_mm: float, hd95_mm: float) -> OrganScore:
    """A score of which nothing else is known."""
    return OrganScore(
        organ, state, "", dsc, hd_mm, hd95_mm, NAN, NAN, NAN, NAN, None, None, NAN, NAN, NAN, NAN, NAN, NAN,
        (NAN, NAN, NAN),
    )  # fmt: skip
