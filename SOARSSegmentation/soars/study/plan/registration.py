"""The pre-registration sheet: what a study will do, printed from its file before reading starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import soars
from soars.effort.timing import MAJOR_ABOVE_S, MINOR_BELOW_S
from soars.study.plan.assign import Assignment, imbalance
from soars.study.plan.model import Plan

_TESTS = {
    "wilcoxon": "Wilcoxon's signed-rank test of matched pairs (case by case, readers' mean)",
    "paired t": "Student's t test of matched pairs (case by case, readers' mean)",
    "mixed model": "linear mixed model of log minutes; arm fixed, reader and case crossed random effects",
}


def registration_sheet(plan: Plan, sessions: Mapping[str, Sequence[Assignment]]) -> str:
    """The sheet as Markdown. It names arms but no model: it may be published before the study ends."""
    parts = [
        f"# {plan.title or plan.name}: pre-registration",
        f"Study `{plan.name}`, study file SHA-256 `{plan.sha256}`, seed {plan.seed}, SOARS {soars.__version__}.",
        "## Question and primary comparison",
        "Active minutes per patient, compared between arms on the organs and patients that the same readers read in "
        "both (where no reader reads anything in both, that both arms have), by "
        f"{_TESTS[plan.test]}, two-sided, at 5 %. All other comparisons are secondary; their p values are "
        "reported raw and corrected after Holm.",
        _non_inferiority(plan),
        "## Patients",
        f"{len(plan.main_cases)} for the study and {len(plan.training_cases)} for training; "
        f"{sum(case.reference is not None for case in plan.cases)} have reference contours, "
        f"{sum(case.dose is not None for case in plan.cases)} a planned dose.",
        "## Arms",
        *_arms(plan),
        "## Readers",
        *[
            f"- `{reader.name}`{f' at {reader.site}' if reader.site else ''}: {len(reader.organs)} organs, "
            f"{len(sessions[reader.name])} sessions"
            for reader in plan.readers
        ],
        *[f"- `{observer.name}`: contours drawn elsewhere" for observer in plan.observers],
        "## Assignment and order",
        *_order(plan, sessions),
        "## Time",
        f"Active time is counted with an idle threshold of {plan.idle_s:g} s, fixed in advance; the report shows how "
        "results depend on it. A revision is none (no voxel differs from the proposal), minor (less than "
        f"{MINOR_BELOW_S:g} s of active time), moderate ({MINOR_BELOW_S:g} to {MAJOR_ABOVE_S:g} s) or major (more "
        f"than {MAJOR_ABOVE_S:g} s).",
        "## Organs",
        ", ".join(plan.organs),
    ]
    return "\n\n".join(part for part in _joined_lists(parts) if part) + "\n"


def _joined_lists(parts: Sequence[str]) -> list[str]:
    """Items of a list stand in lines below each other."""
    joined: list[str] = []
    for part in parts:
        if part.startswith("- ") and joined and joined[-1].startswith("- "):
            joined[-1] += "\n" + part
        else:
            joined.append(part)
    return joined


def _non_inferiority(plan: Plan) -> str:
    if plan.non_inferiority is None:
        return ""
    figure, margin = plan.non_inferiority.figure, plan.non_inferiority.margin
    missing = (
        " Organs count that have a distance in both arms; it is not shown for an arm that alone misses one."
    )
    return (
        f"Non-inferiority in `{figure}` with a margin of {margin:g}: shown when the 95 % confidence interval of the "
        "mean paired difference lies wholly on the better side of the margin."
        + (missing if figure in ("hd95_mm", "asd_mm") else "")
    )


def _arms(plan: Plan) -> list[str]:
    return [
        f"- `{arm.name}`: {'from scratch' if arm.from_scratch else 'revising a proposal'}, "
        + (f"{arm.cases} patients drawn at random" if arm.cases else "all patients")
        for arm in plan.arms
    ]


def _order(plan: Plan, sessions: Mapping[str, Sequence[Assignment]]) -> list[str]:
    everything = [one for each in sessions.values() for one in each]
    counts = Counter(one.period for one in everything if one.phase == "main")
    lines = [
        f"Each reader reads each patient in {plan.assignment.replace('every arm', 'every arm they are in')}, balanced "
        f"by {plan.balance}; between two readings of a patient by a reader lie at least {plan.washout_days} days. "
        "Readers see the next case only, and neither the arm's name nor the model's.",
        f"Sessions by period: {', '.join(f'{n} in period {p}' for p, n in sorted(counts.items()))}. Within a reader "
        f"and period two arms differ by at most {imbalance(everything)} sessions.",
    ]
    if plan.repeat_cases:
        lines.append(
            f"{plan.repeat_cases} patients are read again in {', '.join(plan.repeat_arms)}, for intra-reader variation."
        )
    return lines
