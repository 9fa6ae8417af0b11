"""Pairing files: two files, two folders of masks, or two folders of cases, matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from soars.catalogue import CATALOGUE
from soars.ct.images import read_ct
from soars.errors import InputError
from soars.formats.labelmap import image_stem
from soars.formats.labelnames import names_for_all
from soars.formats.reading import on_grid, read_as_stored
from soars.formats.registry import ReadOptions
from soars.formats.sources import is_case_file, structure_source
from soars.formats.table import format_of
from soars.structures import Geometry, StructureSet
from soars.structures.naming import use_catalogue_names


@dataclass(frozen=True)
class CasePair:
    """One case: where its two sides are; the CT they lie on, where that is needed or given; a file that names the
    values of label maps that have no names of their own; and which series the CT is, in a folder of several."""

    case: str
    prediction: Path
    reference: Path
    ct: Path | None = None
    names: Path | None = None
    series: str | None = None


@dataclass(frozen=True)
class Pairing:
    """The cases that both sides have, and the names of those that only one has."""

    pairs: tuple[CasePair, ...]
    without_prediction: tuple[str, ...] = ()
    without_reference: tuple[str, ...] = ()


def find_pairs(
    prediction: Path, reference: Path, ct: Path | None = None, *, series: str | None = None
) -> Pairing:
    """Pair the cases of two sides.

    A side is one case when it is a file, a folder of masks, or a folder that leads to just one of these (as what
    `soars segment` writes); else it is a folder of cases, each a file or folder named after the case. ``ct`` is
    the CT of the one case, or a folder of CTs, each a folder or file named after its case;
    ``series`` chooses among the series of a CT's folder (`soars.ct.images.read_ct`).

    Raises `InputError` when a side is missing or cannot be understood, when one side is a case and the other holds
    several, or no name is on both sides.
    """
    for path in (prediction, reference, *([ct] if ct else [])):
        if not path.exists():
            raise InputError(f"there is no file or folder {path}")
    if series and ct is None:
        raise InputError("a series is chosen among those of a CT: give the CT with --ct, too")
    names = shared_names(reference) or shared_names(prediction)
    alone = [structure_source(path, names) for path in (prediction, reference)]
    if alone[0] is not None and alone[1] is not None:
        return Pairing((CasePair(_case_name(reference, alone[1]), alone[0], alone[1], ct, names, series),))
    for path, other in ((prediction, reference), (reference, prediction)):
        if not path.is_dir():
            raise InputError(
                f"{path} is one case, but {other} is not: give two cases, or two folders of cases"
            )
    found = [cases_in(path, names) for path in (prediction, reference)]
    common = [case for case in found[1] if case in found[0]]
    if not common:
        raise InputError(
            f"no case of {prediction} ({_few(found[0])}) has the name of a case of {reference} ({_few(found[1])})"
        )
    return Pairing(
        tuple(
            CasePair(case, found[0][case], found[1][case], _ct_of(case, ct), names, series) for case in common
        ),
        tuple(case for case in found[1] if case not in found[0]),
        tuple(case for case in found[0] if case not in found[1]),
    )


def read_pair(pair: CasePair, *, empty_is_absent: bool = False) -> tuple[StructureSet, StructureSet]:
    """The prediction and the reference of a case on one grid: the reference's (the CT's for an RTSTRUCT, or the other
    side's where no CT is given), extended to cover both. An organ that one side has in parts is joined; one
    of whose parts the reference has no voxel is not, unless that says that the part is absent. Anything unusual is in
    their ``warnings``."""
    reference, prediction = read_on_one_grid(
        (pair.reference, pair.prediction), pair.ct, names=pair.names, series=pair.series
    )
    join_parts(prediction, reference)
    join_parts(reference, prediction, drawn_only=not empty_is_absent)
    return prediction, reference


def without_undrawn(reference: StructureSet) -> StructureSet:
    """A reference without its empty structures: nobody drew them, so nothing can be compared with them. ``warnings``
    names them."""
    undrawn = [name for name in reference if reference.is_empty(name)]
    if not undrawn:
        return reference
    out = reference.subset(name for name in reference if not reference.is_empty(name))
    out.warnings.append(f"not annotated in the reference, where they have no voxel: {', '.join(undrawn)}")
    return out


def read_on_one_grid(
    paths: Sequence[Path], ct: Path | None = None, *, names: Path | None = None, series: str | None = None
) -> list[StructureSet]:
    """The structures of several files on one grid that covers all, so that none is cut off: the CT's, or the first
    file's, or that of the first that has one, extended as far as the others reach."""
    scan = read_ct(ct, series) if ct else None
    options = ReadOptions(
        Geometry.of(scan.image) if scan else None, scan.series if scan else None, names=names
    )
    if options.geometry is None:
        grids = [path for path in paths if _has_grid(path)]
        if not grids:
            listed = " and ".join(map(str, paths))
            raise InputError(f"{listed} hold contours but no voxel grid: give the CT with --ct")
        if len(grids) < len(paths):
            options = replace(options, geometry=read_as_stored(grids[0], options).geometry)
    read = [read_as_stored(path, options) for path in paths]
    base = options.geometry or read[0].geometry
    common = base.covering(*(s.geometry for s in read if not s.geometry.same_as(base)))
    sides = [on_grid(structures, common, path.name) for structures, path in zip(read, paths, strict=True)]
    for structures in sides:
        use_catalogue_names(structures)
    return sides


def shared_names(path: Path) -> Path | None:
    """The file that names the values of all label maps of a side (nnU-Net's), which the other side may lack."""
    return names_for_all(path if path.is_dir() else path.parent)


def cases_in(folder: Path, names: Path | None) -> dict[str, Path]:
    """Case -> where its structures are, of a folder of cases; also of one that holds just one. Raises `InputError` for
    a folder without any, and when two are called the same."""
    cases: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        source = structure_source(path, names) if path.is_dir() else path if is_case_file(path) else None
        if source is None:
            continue
        name = path.name if path.is_dir() else image_stem(path)
        if name in cases:
            raise InputError(
                f"{folder} has the case {name} twice: {cases[name].name} and {path.name}; remove one"
            )
        cases[name] = source
    if not cases:
        raise InputError(
            f"{folder} holds neither structures nor cases: files (.seg.nrrd, RTSTRUCT, label maps with names) or "
            "folders of masks, named after the cases, are needed"
        )
    return cases


def _ct_of(case: str, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise InputError(
            f"--ct {folder} is one file; for several cases give a folder of CTs named after them"
        )
    for path in sorted(folder.iterdir()):
        if path.name == case or (path.is_file() and image_stem(path) == case):
            return path
    raise InputError(f"{folder} has no CT named after the case {case}")


def _has_grid(source: Path) -> bool:
    found = format_of(source)
    return found is None or found.has_grid


def _case_name(path: Path, source: Path) -> str:
    return path.name if path.is_dir() else image_stem(source)


def _few(names: dict[str, Path]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")


def join_parts(structures: StructureSet, other: StructureSet, *, drawn_only: bool = False) -> None:
    """Add, in place, every organ of the catalogue that only ``other`` has and that all of its parts here make up; with
    ``drawn_only`` parts without a voxel make up nothing, since nobody drew them.

    Parts that ``other`` does not have are then removed: there is nothing to compare them with. Each organ that was
    joined is listed in ``structures.warnings``.
    """
    for whole in CATALOGUE.values():
        if not whole.parts or whole.name in structures or whole.name not in other:
            continue
        missing = [part for part in whole.parts if part not in structures or structures.is_empty(part)]
        if drawn_only and missing and any(part not in missing for part in whole.parts):
            structures.warnings.append(f"{whole.name} was not joined: {', '.join(missing)} has no voxel")
        elif all(part in structures for part in whole.parts):
            structures.add_mask(whole.name, structures.union(whole.parts))
            structures.warnings.append(f"{whole.name} was joined from {', '.join(whole.parts)}")
            for part in whole.parts:
                if part not in other:
                    structures.remove(part)
