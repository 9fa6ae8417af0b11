"""Which files belong together: two files, two folders of masks, or two folders of cases, matched by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soars.ct.images import read_ct
from soars.errors import InputError
from soars.formats.labelmap import IMAGE_SUFFIXES, image_stem
from soars.formats.reading import is_dicom, read_structures
from soars.metrics.parts import join_parts
from soars.structures import Geometry, StructureSet

_SEG = ".seg.nrrd"


@dataclass(frozen=True)
class CasePair:
    """One case: where its two sides are, and the CT they lie on, where that is needed or given."""

    case: str
    prediction: Path
    reference: Path
    ct: Path | None = None


@dataclass(frozen=True)
class Pairing:
    """The cases that both sides have, and the names of those that only one has."""

    pairs: tuple[CasePair, ...]
    without_prediction: tuple[str, ...] = ()
    without_reference: tuple[str, ...] = ()


def find_pairs(prediction: Path, reference: Path, ct: Path | None = None) -> Pairing:
    """Pair the cases of two sides.

    A side is one case when it is a file, a folder of masks, or a folder that leads to just one of these (as what
    `soars segment` writes); else it is a folder of cases, each a file or folder named after the case. ``ct`` is
    the CT of the one case, or a folder of CTs, each a folder or file named after its case.

    Raises `InputError` when a side is missing or cannot be understood, when one side is a case and the other holds
    several, or no name is on both sides.
    """
    for path in (prediction, reference, *([ct] if ct else [])):
        if not path.exists():
            raise InputError(f"there is no file or folder {path}")
    alone = [structure_source(path) for path in (prediction, reference)]
    if alone[0] is not None and alone[1] is not None:
        return Pairing((CasePair(_case_name(reference, alone[1]), alone[0], alone[1], ct),))
    for path, other in ((prediction, reference), (reference, prediction)):
        if not path.is_dir():
            raise InputError(
                f"{path} is one case, but {other} is not: give two cases, or two folders of cases"
            )
    found = [_cases(path) for path in (prediction, reference)]
    common = [case for case in found[1] if case in found[0]]
    if not common:
        raise InputError(
            f"no case of {prediction} ({_few(found[0])}) has the name of a case of {reference} ({_few(found[1])})"
        )
    return Pairing(
        tuple(CasePair(case, found[0][case], found[1][case], _ct_of(case, ct)) for case in common),
        tuple(case for case in found[1] if case not in found[0]),
        tuple(case for case in found[0] if case not in found[1]),
    )


def read_pair(pair: CasePair) -> tuple[StructureSet, StructureSet]:
    """The prediction and the reference of a case, both on the reference's grid (the CT's for an RTSTRUCT, or the other
    side's where no CT is given). An organ that one side has in parts is joined. What was odd is in their ``warnings``.
    """
    prediction, reference = _read(pair)
    join_parts(prediction, reference)
    join_parts(reference, prediction)
    return prediction, reference


def structure_source(path: Path) -> Path | None:
    """The file or folder of masks that holds the structures of this one case; None for a folder of several cases,
    or of none."""
    if not path.is_dir():
        return path
    visible = [p for p in sorted(path.iterdir()) if not p.name.startswith(".")]
    files = [p for p in visible if p.is_file()]
    segmentations = [p for p in files if p.name.lower().endswith(_SEG)]
    if segmentations:
        return segmentations[0] if len(segmentations) == 1 else None
    images = [p for p in files if p.name.lower().endswith(IMAGE_SUFFIXES)]
    named = [p for p in images if _names_beside(p)]
    if named:
        return named[0] if len(images) == 1 else None
    if images:
        return path
    dicom = [p for p in files if p.suffix.lower() in (".dcm", "") and is_dicom(p)]
    if dicom:
        return dicom[0] if len(dicom) == 1 else None
    folders = [p for p in visible if p.is_dir()]
    return structure_source(folders[0]) if len(folders) == 1 else None


def _read(pair: CasePair) -> tuple[StructureSet, StructureSet]:
    scan = read_ct(pair.ct) if pair.ct else None
    grid = Geometry.of(scan.image) if scan else None
    series = scan.series if scan else None
    if grid is None and _has_no_grid(pair.reference):
        if _has_no_grid(pair.prediction):
            raise InputError(
                f"{pair.prediction} and {pair.reference} hold contours but no voxel grid: give the CT with --ct"
            )
        prediction = read_structures(pair.prediction)
        return prediction, read_structures(pair.reference, prediction.geometry)
    reference = read_structures(pair.reference, grid, reference=series)
    return read_structures(pair.prediction, reference.geometry, reference=series), reference


def _cases(folder: Path) -> dict[str, Path]:
    """Case -> where its structures are."""
    cases: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        is_structures = path.name.lower().endswith(IMAGE_SUFFIXES) or is_dicom(path)
        source = structure_source(path) if path.is_dir() else path if is_structures else None
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


def _has_no_grid(source: Path) -> bool:
    return source.is_file() and is_dicom(source)


def _names_beside(image: Path) -> bool:
    stem = image.with_name(image_stem(image))
    return any(stem.with_name(stem.name + ending).is_file() for ending in (".json", ".csv"))


def _case_name(path: Path, source: Path) -> str:
    return path.name if path.is_dir() else image_stem(source)


def _few(names: dict[str, Path]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")
