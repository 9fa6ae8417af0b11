"""The dose in organs of many cases: each with its dose, its reference, and one or more substitutes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from soars.ct.images import IMAGE_SUFFIXES, read_ct
from soars.dose.compare import DoseDifference, OrganDose, compare_dose, percent_text
from soars.dose.dvh import Dvh
from soars.dose.grid import add_doses, read_dose, rtdoses_in
from soars.dose.sampling import DEFAULT_SAMPLING
from soars.errors import InputError
from soars.formats.labelmap import image_stem
from soars.formats.sources import structure_source
from soars.metrics.cases import CasePair, find_pairs, read_pair, without_undrawn
from soars.parallel import LeftOut, in_processes, or_left_out
from soars.progress import Progress, Reporter, ignore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DoseCase:
    """One case: its dose, and for each substitute (by name) the two sides."""

    case: str
    dose: Path
    pairs: tuple[tuple[str, CasePair], ...]


@dataclass(frozen=True)
class DoseOptions:
    """Which organs (all of the reference when None), how the dose is sampled (`soars.dose.sampling`), and the unit it
    is in where its file does not say ("Gy" or "cGy"). An empty structure of the reference is left out, or, with
    ``empty_is_absent``, compared as known to be absent. Without ``keep_dvhs`` the DVHs of the differences are empty:
    they are all samples of an organ, which of thousands of cases need not be in memory."""

    organs: tuple[str, ...] | None = None
    sampling: str = DEFAULT_SAMPLING
    unit: str | None = None
    empty_is_absent: bool = False
    keep_dvhs: bool = True


@dataclass(frozen=True, eq=False)
class CaseDose:
    """The differences of one case, substitute by substitute, and the warnings about its files."""

    case: str
    differences: tuple[DoseDifference, ...]
    warnings: tuple[str, ...] = ()


def find_dose_cases(
    dose: Path,
    reference: Path,
    substitutes: Sequence[Path],
    ct: Path | None = None,
    *,
    series: str | None = None,
    add: bool = False,
) -> list[DoseCase]:
    """Match one case's files, or folders of cases by name, as `soars.metrics.cases.find_pairs` does; for several
    cases, ``dose`` is a folder whose files, or folders with one RTDOSE, are named after them. With ``add``, the dose of
    a case is a folder, and all RTDOSEs in it count together.

    Raises `InputError` when something is missing, or a case lacks one of its sides.
    """
    if not dose.exists():
        raise InputError(f"there is no file or folder {dose}")
    found: dict[str, list[tuple[str, CasePair]]] = {}
    for name, substitute in zip(_names(substitutes), substitutes, strict=True):
        pairing = find_pairs(substitute, reference, ct, series=series)
        if pairing.without_prediction:
            log.warning("%s lacks %s, left out", substitute, ", ".join(pairing.without_prediction))
        for pair in pairing.pairs:
            found.setdefault(pair.case, []).append((name, pair))
    if add:
        if dose.is_file():
            raise InputError(f"{dose} is one dose: to add several, give their folder")
        folders = {case: dose if len(found) == 1 and rtdoses_in(dose) else dose / case for case in found}
        for folder in folders.values():
            if not folder.is_dir():
                raise InputError(f"there is no folder {folder} with doses to add")
        return [DoseCase(case, folders[case], tuple(pairs)) for case, pairs in found.items()]
    only = (dose if dose.is_file() else _dose_in(dose)) if len(found) == 1 else None
    if only is not None:
        ((case, pairs),) = found.items()
        return [DoseCase(case, only, tuple(pairs))]
    if dose.is_file():
        raise InputError(
            f"--dose {dose} is one file; for several cases give a folder of doses named after them"
        )
    return [
        DoseCase(case, _dose_of(case, dose, len(found) == 1), tuple(pairs)) for case, pairs in found.items()
    ]


def compare_case(case: DoseCase, options: DoseOptions = DoseOptions(), threads: int = 1) -> CaseDose:
    """Read one case and compare; raises `InputError` where reading does."""
    differences: list[DoseDifference] = []
    warnings: list[str] = []
    first = case.pairs[0][1]
    series = read_ct(first.ct, first.series).series if first.ct else None
    read = add_doses if case.dose.is_dir() else read_dose
    files = (
        structure_source(path, pair.names)
        for _, pair in case.pairs
        for path in (pair.reference, pair.prediction)
    )
    dose = read(case.dose, series, options.unit, [file for file in dict.fromkeys(files) if file is not None])
    warnings += dose.warnings
    for name, pair in case.pairs:
        substitute, reference = read_pair(pair, empty_is_absent=options.empty_is_absent)
        if not options.empty_is_absent:
            reference = without_undrawn(reference)
        organs = None
        if options.organs is not None:
            organs = [organ for organ in options.organs if organ in reference]
        differences += compare_dose(
            dose.image,
            reference,
            substitute,
            name=name,
            organs=organs,
            sampling=options.sampling,
            threads=threads,
        )
        warnings += [*reference.warnings, *substitute.warnings]
    warnings += [_beyond(d.organ, "the reference", d.reference_dose) for d in differences]
    warnings += [_beyond(d.organ, d.substitute, d.substitute_dose) for d in differences]
    if not options.keep_dvhs:
        none = Dvh.empty()
        differences = [replace(one, reference_dvh=none, substitute_dvh=none) for one in differences]
    return CaseDose(case.case, tuple(differences), tuple(dict.fromkeys(filter(None, warnings))))


def _beyond(organ: str, contour: str, dose: OrganDose) -> str:
    """What of a contour of an organ has no dose, as a warning; "" where all has."""
    if not dose.outside:
        return ""
    percent = percent_text(dose.outside)
    return f"{percent} of {organ} lies beyond the dose grid in {contour}, and counts as 0 Gy"


def compare_cases(
    cases: Sequence[DoseCase],
    options: DoseOptions = DoseOptions(),
    *,
    processes: int = 1,
    progress: Reporter = ignore,
    left_out: dict[str, str] | None = None,
) -> list[CaseDose]:
    """`compare_case` of every case, in their order, on ``processes`` processors; raises the first error, with the
    case, or, with ``left_out``, notes there by case why it was left out."""
    results: dict[int, CaseDose] = {}
    progress(Progress("dose", 0, len(cases)))
    work = partial(_named, options=options, threads=processes if len(cases) == 1 else 1)
    tried = partial(or_left_out, work) if left_out is not None else work
    for done, (index, result) in enumerate(in_processes(tried, cases, processes), start=1):
        if isinstance(result, LeftOut):
            assert left_out is not None
            left_out[cases[index].case] = result.why
            log.warning("left out: %s", result.why)
        else:
            results[index] = result
        progress(Progress("dose", done, len(cases), cases[index].case))
    return [results[index] for index in sorted(results)]


def _named(case: DoseCase, options: DoseOptions, threads: int) -> CaseDose:
    try:
        return compare_case(case, options, threads)
    except InputError as error:
        raise InputError(f"case {case.case}: {error}") from error


def _names(substitutes: Sequence[Path]) -> list[str]:
    """The names of the substitutes: the last part of their paths in which they differ."""
    if len({path.resolve() for path in substitutes}) < len(substitutes):
        raise InputError("the same --substitute is given twice")
    for parts in range(1, max((len(p.resolve().parts) for p in substitutes), default=1) + 1):
        names = ["/".join(p.resolve().parts[-parts:]) for p in substitutes]
        if len(set(names)) == len(names):
            break
    return names


def _dose_of(case: str, folder: Path, alone: bool) -> Path:
    """The dose that is named after a case; ``alone`` says that there is no other case, for which the others may be."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and case in (path.name, image_stem(path)):
            return path
        if path.is_dir() and path.name == case:
            found = _dose_in(path)
            if found is not None:
                return found
            _refuse_several(path)
    if alone:
        _refuse_several(folder)
    raise InputError(f"{folder} has no dose named after the case {case}")


def _refuse_several(folder: Path) -> None:
    if len(rtdoses_in(folder)) > 1:
        raise InputError(f"{folder} holds several RTDOSEs: leave one there, or add them with --sum")


def _dose_in(folder: Path) -> Path | None:
    """The one dose in a folder: its only RTDOSE, or its only image."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    doses = rtdoses_in(folder) or [p for p in files if p.name.lower().endswith(IMAGE_SUFFIXES)]
    return doses[0] if len(doses) == 1 else None
