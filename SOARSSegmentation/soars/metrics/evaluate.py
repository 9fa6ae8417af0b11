"""Many cases: each pair of sides read and compared, several at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.metrics.cases import CasePair, read_pair, without_undrawn
from soars.metrics.distances import DEFAULT_DEFINITION
from soars.metrics.scores import OrganScore, score_structures
from soars.metrics.tolerances import Tolerance
from soars.parallel import LeftOut, in_processes, or_left_out
from soars.progress import Progress, Reporter, ignore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateOptions:
    """What to compare and how. ``organs`` None means all, ``tolerances`` None the catalogue's. An empty structure of
    the reference counts as not annotated, or, with ``empty_is_absent``, as known to be absent."""

    organs: tuple[str, ...] | None = None
    tolerances: dict[str, Tolerance] | None = None
    definition: str = DEFAULT_DEFINITION
    empty_is_absent: bool = False


@dataclass(frozen=True)
class CaseScores:
    """The scores of one case, in the catalogue's order, and the warnings about its files."""

    case: str
    scores: tuple[OrganScore, ...]
    warnings: tuple[str, ...] = field(default=())


def evaluate_case(
    pair: CasePair, options: EvaluateOptions = EvaluateOptions(), threads: int = 1
) -> CaseScores:
    """Read and compare one case; raises `InputError` where reading does."""
    prediction, reference = read_pair(pair, empty_is_absent=options.empty_is_absent)
    if not options.empty_is_absent:
        reference = without_undrawn(reference)
    found = dict.fromkeys((*reference, *prediction))
    wanted = options.organs if options.organs is not None else tuple(found)
    order = list(CATALOGUE)
    names = sorted(
        (n for n in wanted if n in found), key=lambda n: order.index(n) if n in CATALOGUE else len(order)
    )
    scores = score_structures(
        prediction,
        reference,
        organs=names,
        tolerances=options.tolerances,
        definition=options.definition,
        threads=threads,
    )
    return CaseScores(pair.case, tuple(scores), (*reference.warnings, *prediction.warnings))


def evaluate_cases(
    pairs: Sequence[CasePair],
    options: EvaluateOptions = EvaluateOptions(),
    *,
    processes: int = 1,
    progress: Reporter = ignore,
    left_out: dict[str, str] | None = None,
) -> list[CaseScores]:
    """`evaluate_case` of every pair, in their order, on ``processes`` processors; raises the first error, naming
    the case, or, with ``left_out``, notes there by case why it was left out."""
    results: dict[int, CaseScores] = {}
    progress(Progress("evaluate", 0, len(pairs)))
    work = partial(_named, options=options, threads=processes if len(pairs) == 1 else 1)
    tried = partial(or_left_out, work) if left_out is not None else work
    for done, (index, result) in enumerate(in_processes(tried, pairs, processes), start=1):
        if isinstance(result, LeftOut):
            assert left_out is not None
            left_out[pairs[index].case] = result.why
            log.warning("left out: %s", result.why)
        else:
            results[index] = result
            for warning in result.warnings:
                log.warning("%s: %s", result.case, warning)
        progress(Progress("evaluate", done, len(pairs), pairs[index].case))
    return [results[index] for index in sorted(results)]


def _named(pair: CasePair, options: EvaluateOptions, threads: int) -> CaseScores:
    try:
        return evaluate_case(pair, options, threads)
    except InputError as error:
        raise InputError(f"case {pair.case}: {error}") from error
