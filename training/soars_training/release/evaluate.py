"""DSC of a bundle over cases, through the very cascade that users run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from soars import catalogue
from soars.bundle.store import load_bundle
from soars.cells import HarmlessWriter
from soars.ct.images import CtScan
from soars.metrics import dice
from soars.run.segment import SegmentOptions, SegmentResult, segment
from soars.structures import Mask, StructureSet
from soars_training.cohorts.prepare import SourceCase, group_centre_mm


@dataclass(frozen=True)
class Score:
    """One organ of one case. `dsc` is nan where neither has a voxel; `centre_error_mm` is the distance between the
    detected and the true centre of a heat map's organs, nan where there is none."""

    case: str
    organ: str
    dsc: float
    centre_error_mm: float


def evaluate_bundle(
    bundle_name: str | Path,
    cases: Iterable[SourceCase],
    *,
    engine: str = "auto",
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
        result = segment(CtScan(case.ct, Path(case.name), None, []), bundle, SegmentOptions(engine=engine))
        for organ in bundle.organs:
            if organ in case.annotated and organ not in joined:
                value = dice(_mask(result.structures, (organ,)), _mask(case.structures, (organ,)))
                scores.append(Score(case.name, organ, value, _centre_error(result, case, organ)))
        for whole, parts in joins.items():
            if set(parts) <= case.annotated and set(parts) <= set(bundle.organs):
                value = dice(_mask(result.structures, parts), _mask(case.structures, parts))
                scores.append(Score(case.name, whole, value, float("nan")))
    return scores


def write_csv(scores: Iterable[Score], path: Path) -> None:
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", newline="") as stream:
        writer = HarmlessWriter(stream)
        writer.writerow(("case", "organ", "dsc", "centre_error_mm"))
        for s in scores:
            writer.writerow((s.case, s.organ, f"{s.dsc:.4f}", f"{s.centre_error_mm:.2f}"))
    os.replace(temporary, path)


def summary_table(scores: Iterable[Score]) -> str:
    """Markdown: per organ the number of cases, mean and lowest DSC, mean centre error; then the mean over organs."""
    by_organ: dict[str, list[Score]] = {}
    for score in scores:
        by_organ.setdefault(score.organ, []).append(score)
    lines = ["| organ | cases | mean DSC | lowest | centre error mm |", "|---|---|---|---|---|"]
    means, small, errors = [], [], []
    for organ, rows in by_organ.items():
        values = np.array([r.dsc for r in rows])
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        distances = np.array([r.centre_error_mm for r in rows])
        distances = distances[np.isfinite(distances)]
        means.append(values.mean())
        if catalogue.CATALOGUE[organ].stratum == "small_hard":
            small.append(values.mean())
            errors.extend(distances)
        shown = f"{distances.mean():.1f}" if len(distances) else ""
        lines.append(f"| {organ} | {len(values)} | {values.mean():.3f} | {values.min():.3f} | {shown} |")
    lines.append(f"| **mean of organs** | | **{np.mean(means):.3f}** | {np.min(means):.3f} | |")
    if small:
        lines.append(f"| **small and hard** | | **{np.mean(small):.3f}** | | {np.mean(errors):.1f} |")
    return "\n".join(lines)


def _mask(structures: StructureSet, organs: tuple[str, ...]) -> Mask:
    """The organs' voxels together, of those that are there."""
    return structures.union(organ for organ in organs if organ in structures)


def _centre_error(result: SegmentResult, case: SourceCase, organ: str) -> float:
    group = catalogue.CATALOGUE[organ].detection_group
    centres = {d.group: d.centre_mm for d in result.detections}
    truth = group_centre_mm(case.structures, group) if group in centres else None
    return float("nan") if truth is None else float(np.linalg.norm(np.asarray(centres[group]) - truth))
