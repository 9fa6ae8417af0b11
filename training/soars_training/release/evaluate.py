"""How well a bundle does on labelled cases, measured through the same cascade that users run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.stats import rankdata, spearmanr
from tqdm import tqdm

from soars.bundle.store import load_bundle
from soars.catalogue import CATALOGUE
from soars.cells import write_table
from soars.ct.images import CtScan
from soars.metrics import dice
from soars.run.segment import SegmentOptions, SegmentResult, segment
from soars.structures import Mask, StructureSet
from soars_training.cohorts.leaks import TISSUE_HU, leaking_slices
from soars_training.cohorts.prepare import SourceCase, group_centre_mm

COLUMNS = (
    "case", "organ", "dsc", "centre_error_mm", "dsc_clean", "volume_cc", "reference_volume_cc", "expected_dsc",
)  # fmt: skip
LOW_DSC = 0.5
"""Contours below it are to be found among those of the lowest expected DSC."""
FIRST_SHARE = 0.2
"""The share of contours that a reader would look at first."""


@dataclass(frozen=True)
class Score:
    """One organ of one case.

    `dsc` is nan where neither has a voxel; `dsc_clean` leaves out the end slices in which the CT gives the organ away
    (see `soars_training.cohorts.leaks`). The volumes are what was found and what the reference has. Of an organ that
    was contoured on some slices only, these alone count in all of them. `centre_error_mm`
    is the distance between the detected and the true centre of a heat map's organs, nan where there is none;
    `expected_dsc` what a calibrated bundle said, the mean over the parts that are scored as one.
    """

    case: str
    organ: str
    dsc: float
    centre_error_mm: float = float("nan")
    dsc_clean: float = float("nan")
    volume_cc: float = float("nan")
    reference_volume_cc: float = float("nan")
    expected_dsc: float = float("nan")


def evaluate_bundle(
    bundle_name: str | Path,
    cases: Iterable[SourceCase],
    *,
    engine: str = "auto",
    device: str = "auto",
    joins: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Score]:
    """Segment every case and compare the organs that were annotated in it.

    `joins` scores several organs as one, named by the key (the mandible's halves, where the reference has one label).
    """
    bundle = load_bundle(bundle_name)
    joins = joins or {}
    joined = {part for parts in joins.values() for part in parts}
    scores = []
    for case in tqdm(cases, desc=f"evaluate {bundle.name}", unit="case"):
        result = segment(
            CtScan(case.ct, Path(case.name), None, []), bundle, SegmentOptions(engine=engine, device=device)
        )
        leaks = _leaking(case)
        for organ in bundle.organs:
            if organ in case.annotated and organ not in joined:
                scores.append(_score(result, case, organ, (organ,), leaks))
        for whole, parts in joins.items():
            if set(parts) <= case.annotated and set(parts) <= set(bundle.organs):
                scores.append(_score(result, case, whole, parts, leaks))
    return scores


def write_csv(scores: Iterable[Score], path: Path) -> None:
    """One row per case and organ, all or nothing."""
    write_table(
        path,
        COLUMNS,
        (
            (s.case, s.organ, f"{s.dsc:.4f}", f"{s.centre_error_mm:.2f}", f"{s.dsc_clean:.4f}")
            + (f"{s.volume_cc:.3f}", f"{s.reference_volume_cc:.3f}", f"{s.expected_dsc:.4f}")
            for s in scores
        ),
    )


def summary_table(scores: Iterable[Score]) -> str:
    """Markdown: per organ the number of cases, mean and lowest DSC, mean DSC without leaking slices, median of the
    volume found over the reference's, mean centre error; then the means over organs."""
    by_organ: dict[str, list[Score]] = {}
    for score in scores:
        by_organ.setdefault(score.organ, []).append(score)
    lines = [
        "| organ | cases | mean DSC | lowest | without leaking slices | volume ratio | centre error mm |",
        "|---|---|---|---|---|---|---|",
    ]
    means: list[float] = []
    clean: list[float] = []
    small: list[float] = []
    errors: list[float] = []
    for organ, rows in by_organ.items():
        values = _finite(r.dsc for r in rows)
        if not len(values):
            continue
        distances = _finite(r.centre_error_mm for r in rows)
        tidy = _finite(r.dsc_clean for r in rows)
        ratios = _finite(r.volume_cc / r.reference_volume_cc for r in rows if r.reference_volume_cc)
        means.append(values.mean())
        clean.append(tidy.mean() if len(tidy) else np.nan)
        if CATALOGUE[organ].stratum == "small_hard":
            small.append(values.mean())
            errors.extend(distances)
        cells = [
            organ,
            str(len(values)),
            f"{values.mean():.3f}",
            f"{values.min():.3f}",
            f"{clean[-1]:.3f}" if len(tidy) else "",
            f"{np.median(ratios):.2f}" if len(ratios) else "",
            f"{distances.mean():.1f}" if len(distances) else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    tidy_mean = f"{np.nanmean(clean):.3f}" if np.isfinite(clean).any() else ""
    lines.append(
        f"| **mean of organs** | | **{np.mean(means):.3f}** | {np.min(means):.3f} | {tidy_mean} | | |"
    )
    if small:
        lines.append(f"| **small and hard** | | **{np.mean(small):.3f}** | | | | {np.mean(errors):.1f} |")
    return "\n".join(lines)


def expectation_summary(scores: Iterable[Score]) -> str | None:
    """A sentence on how well the expected DSC orders the contours; `None` when fewer than three have one."""
    pairs = np.array([(s.expected_dsc, s.dsc) for s in scores if np.isfinite([s.expected_dsc, s.dsc]).all()])
    if len(pairs) < 3:
        return None
    expected, reached = pairs.T
    correlation = spearmanr(expected, reached).statistic
    low = reached < LOW_DSC
    lowest, highest = rankdata(expected, "min"), rankdata(expected, "max")
    # Contours with the same expected DSC come in any order: of those at the border, some count in part.
    first = np.clip((FIRST_SHARE * len(pairs) - lowest + 1) / (highest - lowest + 1), 0, 1)
    sentence = f"Expected and reached DSC of {len(pairs)} contours: rank correlation {correlation:.2f}"
    if low.any():
        sentence += (
            f"; the {FIRST_SHARE:.0%} with the lowest expected DSC hold {first[low].sum():.3g} of the "
            f"{low.sum()} below {LOW_DSC}"
        )
    return sentence + "."


def _finite(values: Iterable[float]) -> np.ndarray:
    found = np.array(list(values), float)
    return found[np.isfinite(found)]


def _score(
    result: SegmentResult, case: SourceCase, organ: str, parts: tuple[str, ...], leaks: np.ndarray
) -> Score:
    found, true = _mask(result.structures, parts), _mask(case.structures, parts)
    sparse = case.sparse.intersection(parts)
    if sparse:
        elsewhere = ~_contoured(case, sparse)
        found, true = _without(found, elsewhere), _without(true, elsewhere)
    voxel_cc = float(np.prod(case.structures.geometry.spacing)) / 1000
    return Score(
        case.name,
        organ,
        dice(found, true),
        _centre_error(result, case, organ) if parts == (organ,) and not sparse else float("nan"),
        dice(_without(found, leaks), _without(true, leaks)),
        int(found.array.sum()) * voxel_cc,
        int(true.array.sum()) * voxel_cc,
        float(np.mean([result.expected_dsc[part].value for part in parts]))
        if all(part in result.expected_dsc for part in parts)
        else float("nan"),
    )


def _leaking(case: SourceCase) -> np.ndarray:
    """bool [z] on the CT's own grid; none of a CT whose slices are not axial."""
    direction = np.asarray(case.ct.GetDirection()).reshape(3, 3)
    slices = case.ct.GetSize()[2]
    if not np.allclose(np.abs(direction), np.eye(3), atol=1e-3):
        return np.zeros(slices, bool)
    tissue = (sitk.GetArrayViewFromImage(case.ct) > TISSUE_HU).sum((1, 2))
    drawn = np.zeros(tissue.shape, int)
    whole = case.structures.union(case.structures.names)
    drawn[whole.start[0] : whole.start[0] + whole.array.shape[0]] = whole.array.sum((1, 2))
    return leaking_slices(tissue, drawn)


def _contoured(case: SourceCase, organs: Iterable[str]) -> np.ndarray:
    """bool [z]: the CT's slices in which all of these organs have voxels."""
    slices = np.ones(case.structures.geometry.shape[0], bool)
    for organ in organs:
        mask = case.structures.crop(organ)
        here = np.zeros_like(slices)
        here[mask.start[0] : mask.start[0] + mask.array.shape[0]] = mask.array.any(axis=(1, 2))
        slices &= here
    return slices


def _without(mask: Mask, leaks: np.ndarray) -> Mask:
    """The mask with these slices emptied."""
    inside = ~leaks[mask.start[0] : mask.start[0] + mask.array.shape[0]]
    return Mask(mask.start, mask.array & inside[:, None, None])


def _mask(structures: StructureSet, organs: tuple[str, ...]) -> Mask:
    """The union of the organs that are present."""
    return structures.union(organ for organ in organs if organ in structures)


def _centre_error(result: SegmentResult, case: SourceCase, organ: str) -> float:
    group = CATALOGUE[organ].detection_group
    centres = {d.group: d.centre_mm for d in result.detections}
    truth = group_centre_mm(case.structures, group) if group in centres else None
    return float("nan") if truth is None else float(np.linalg.norm(np.asarray(centres[group]) - truth))
