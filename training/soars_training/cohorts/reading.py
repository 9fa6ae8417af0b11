"""From files to cases: names through the catalogue, geometry checked, and a list of what was left out and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars import catalogue
from soars.cells import write_table
from soars.ct.images import read_ct
from soars.ct.series import CtSeries
from soars.errors import InputError, SoarsError, UnknownOrganError
from soars.formats.labelmap import read_label_image
from soars.formats.reading import on_grid, read_structures
from soars.mr.images import read_mr
from soars.structures import Geometry, StructureSet
from soars.structures.labels import from_label_map
from soars_training.cohorts.layouts import CaseFiles
from soars_training.cohorts.prepare import MANDIBLE_HALVES, UNSPLIT_MANDIBLE, SourceCase, split_mandible

log = logging.getLogger(__name__)

IMPOSSIBLE = (0.2, 5.0)
"""A volume below the first number times the catalogue's usual minimum, or above the second times its maximum, cannot be
the organ."""


@dataclass
class LeftOut:
    """What cannot be used, as rows (case, organ or "" for the whole case, why). Warnings are logged at once, or kept in
    `unsaid` for who logs them later: those of another process would not be shown."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    quiet: bool = False
    unsaid: list[str] = field(default_factory=list)

    def add(self, case: str, organ: str, why: str) -> None:
        self.rows.append((case, organ, why))
        self.say(f"{case}{f' {organ}' if organ else ''}: left out: {why}")

    def note(self, case: str, what: str) -> None:
        """Something odd about a case, which is used."""
        self.rows.append((case, "", what))
        self.say(f"{case}: {what}")

    def say(self, words: str) -> None:
        """Something that nothing is left out for."""
        if self.quiet:
            self.unsaid.append(words)
        else:
            log.warning("%s", words)

    def write(self, path: Path) -> None:
        """Write the list as a CSV, even when nothing was left out."""
        write_table(path, ("case", "organ", "why"), self.rows)


def read_cases(files: Iterable[CaseFiles], left_out: LeftOut) -> Iterator[SourceCase]:
    """Read each case; what cannot be used is noted in `left_out`, and the rest goes on.

    Left out are cases that cannot be read, structures that the catalogue does not know, empty ones, and volumes that
    are impossible for the organ (see `IMPOSSIBLE`). Whatever remains of a case counts as annotated. A mandible in one
    piece is split at its midline as well, and an organ that was drawn in all of its parts only (the catalogue's
    `parts`; an eye in HaN-Seg, say) is their union as well.
    """
    for entry in files:
        if entry.problem:
            left_out.add(entry.name, "", entry.problem)
            continue
        try:
            ct = read_ct(entry.ct, entry.series)
            structures = _read(entry, Geometry.of(ct.image), ct.series)
            mr = read_mr(entry.mr, ct) if entry.mr else None
        except SoarsError as error:
            left_out.add(entry.name, "", str(error))
            continue
        for warning in ct.warnings:
            left_out.say(f"{entry.name}: the CT: {warning}")
        kept = _known(structures, entry.name, left_out)
        if not kept.names:
            left_out.add(entry.name, "", "no structure of it can be used")
            continue
        organs = frozenset(kept.names)
        yield SourceCase(entry.name, entry.split, ct.image, kept, organs, mr=mr, patient=entry.patient)


def _read(entry: CaseFiles, geometry: Geometry, series: CtSeries | None) -> StructureSet:
    if entry.structures is not None and entry.unseen is not None:
        _check_seen(entry.structures, entry.unseen)
    if entry.structures is not None and entry.labels:
        return _labelled(entry.structures, geometry, entry.labels.get)
    if entry.structures is not None:
        return read_structures(entry.structures, geometry, reference=series, catalogue_names=False)
    together = StructureSet(geometry)
    for organ, path in entry.masks.items():
        if path.name.endswith(".nii.gz"):  # one organ's mask, with no name but the file's
            single = _labelled(path, geometry, lambda _value, organ=organ: organ)  # type: ignore[misc]
        else:
            single = read_structures(path, geometry, catalogue_names=False)
        together.add_mask(organ, single.union(single.names))
    return together


def _check_seen(path: Path, unseen: int) -> None:
    """Raise `InputError` for a label map with voxels that nobody looked at: every organ would be taught as absent
    there."""
    image, _odd = read_label_image(path)
    share = float(np.mean(sitk.GetArrayViewFromImage(image) == unseen))
    if share:
        raise InputError(
            f"{path}: {share:.1%} of its voxels have the label {unseen} (ignore), and what is in them is not known"
        )


def _labelled(path: Path, geometry: Geometry, name_of: Callable[[int], str | None]) -> StructureSet:
    """The structures of an image whose values are named by the data set; values without a name are left out."""
    image, odd = read_label_image(path)
    drawn = {
        int(value): name_of(int(value)) for value in np.unique(sitk.GetArrayViewFromImage(image)) if value
    }
    named = from_label_map(image, {value: (name,) for value, name in drawn.items() if name is not None})
    placed = on_grid(named, geometry, path.name)
    for warning in (*(f"{path.name}: {text}" for text in odd), *placed.warnings):
        log.warning("%s", warning)
    return placed


def _known(structures: StructureSet, case: str, left_out: LeftOut) -> StructureSet:
    """The structures that can teach, under the catalogue's names."""
    kept, drawn = StructureSet(structures.geometry), set()
    # Of two structures that are one organ, the one with the catalogue's own name is taken.
    for theirs in sorted(structures.names, key=lambda name: name not in catalogue.CATALOGUE):
        try:
            organ = catalogue.resolve(theirs)
        except UnknownOrganError as error:
            left_out.add(case, theirs, str(error))
            continue
        volume_cc = structures.volume_cc(theirs)
        if volume_cc:
            drawn.add(organ.name)
        why = unusable(volume_cc, organ)
        if organ.name in kept:
            why = f"another structure is {organ.name} already"
        if why:
            left_out.add(case, organ.name, why)
            continue
        kept.add_mask(organ.name, structures.crop(theirs))
    if UNSPLIT_MANDIBLE in kept and not set(MANDIBLE_HALVES) & set(kept.names):
        mask = kept.full(UNSPLIT_MANDIBLE)
        for half, part in split_mandible(UNSPLIT_MANDIBLE, mask, kept.geometry).items():
            kept.add(half, part)
    for whole in catalogue.CATALOGUE.values():
        # One that was drawn itself and left out is not what its parts make up, and which is right nobody can tell.
        if whole.parts and whole.name not in drawn and all(part in kept for part in whole.parts):
            _join(kept, whole, case, left_out)
    return kept


def _join(kept: StructureSet, whole: catalogue.Oar, case: str, left_out: LeftOut) -> None:
    """Add the union of an organ's parts as the organ, if it can be that."""
    together = kept.union(whole.parts)
    why = unusable(together.voxels * kept.geometry.voxel_cc, whole)
    if why:
        left_out.add(case, whole.name, f"its parts {' and '.join(whole.parts)} together: {why}")
        return
    kept.add_mask(whole.name, together)


def unusable(volume_cc: float, organ: catalogue.Oar) -> str | None:
    """Why a structure of that volume cannot teach the organ; None where it can."""
    if volume_cc == 0:
        return "it has no voxel"
    if organ.usual_volume_cc:
        low, high = organ.usual_volume_cc
        if not IMPOSSIBLE[0] * low <= volume_cc <= IMPOSSIBLE[1] * high:
            return f"{volume_cc:.2g} cc is impossible; usual are {low:g} to {high:g} cc"
    return None
