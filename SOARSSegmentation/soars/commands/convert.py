"""``soars convert``: structures from one kind of file to another."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from soars.commands.options import add_series_option
from soars.errors import CancelledError, InputError, SoarsError, keeping_warnings
from soars.files import check_output_file, refuse_inputs

if TYPE_CHECKING:
    from soars.dicom.patients import PatientFolder
    from soars.formats.registry import Format
    from soars.structures import StructureSet

log = logging.getLogger(__name__)

EACH = ("dcm", "seg.nrrd", "nrrd", "nii.gz", "mha", "masks")
"""Endings that ``--each`` can write; "masks" are folders."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="convert structures between RTSTRUCT, .seg.nrrd, label map and folder of masks",
        description="Convert structures. IN is recognised by its content: an RTSTRUCT, a DICOM segmentation, a "
        ".seg.nrrd of 3D Slicer, a label map (NRRD, NIfTI or MHA, whose values are named by a .json or .csv of the "
        "same name beside it or by nnU-Net's dataset.json), or a folder with one mask per organ. The ending of OUT "
        "says what to write: .dcm an RTSTRUCT, .seg.nrrd, one of .nrrd .nii.gz .nii .mha a label map with its .json, "
        "no ending a folder of masks. Organs get their TG-263 names where the catalogue knows them; overlapping organs "
        "and empty ones are kept. With --each, IN and OUT are folder trees of many patients.",
    )
    parser.add_argument("input", metavar="IN", type=Path, help="file or folder to read")
    parser.add_argument("output", metavar="OUT", type=Path, help="file or folder to write")
    parser.add_argument(
        "--ct",
        metavar="DIR",
        type=Path,
        help="the CT the structures belong to: needed to read an RTSTRUCT (for its grid) and to write one (a DICOM "
        "folder, which it will reference); other structures are put on its grid",
    )
    add_series_option(parser)
    parser.add_argument(
        "--any-frame",
        action="store_true",
        help="read an RTSTRUCT of another frame of reference than the CT's, or of none, as if it were the CT's",
    )
    parser.add_argument(
        "--roi-names",
        metavar="CSV",
        type=Path,
        help="names of ROIs in the RTSTRUCT to write, one line for each organ: organ,name",
    )
    parser.add_argument(
        "--pseudonym",
        metavar="TEXT",
        help="write a de-identified RTSTRUCT: this instead of the patient's name and ID, no dates; UIDs stay the CT's",
    )
    parser.add_argument(
        "--each",
        metavar="ENDING",
        choices=EACH,
        help="IN is a tree with one folder for each patient: convert every RTSTRUCT, DICOM segmentation and .seg.nrrd "
        "in it, with the CT beside it, into OUT/PATIENT/ (one of %(choices)s); a patient that fails does not stop the "
        "others",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def run(args: argparse.Namespace) -> int:
    """Convert; errors are `soars.errors.InputError`, and nothing is written then."""
    from soars.formats.table import format_to_write

    if args.each:
        return _run_each(args)
    source, target = args.input, args.output
    kind = format_to_write(target)
    _check_places(source, target, kind, args, args.ct)
    if args.series and not args.ct:
        raise InputError("--series chooses a series of the CT: give --ct as well")
    if not kind.needs_series and (args.roi_names or args.pseudonym is not None):
        raise InputError(f"--roi-names and --pseudonym are for an RTSTRUCT: {target} will be a {kind.name}")
    if kind.needs_series and args.ct is None:
        raise InputError(f"an RTSTRUCT ({target}) references a CT: give its DICOM folder with --ct")
    structures = _convert(source, target, kind, args.ct, args.series, args)
    print(f"{_counted(structures)} written to {target} as {kind.name}")
    return 0


def _convert(
    source: Path,
    target: Path,
    kind: Format,
    ct_path: Path | None,
    series_uid: str | None,
    args: argparse.Namespace,
) -> StructureSet:
    """Read one, write the other."""
    from soars.ct.images import read_ct
    from soars.formats.reading import read_structures
    from soars.formats.registry import WriteOptions
    from soars.structures import Geometry

    roi_names = _roi_names(args.roi_names)
    ct = read_ct(ct_path, series_uid) if ct_path else None
    if kind.needs_series and ct is not None and ct.series is None:
        raise InputError(
            f"an RTSTRUCT references DICOM images, which {ct_path} is not: give a DICOM folder as --ct"
        )
    with keeping_warnings(ct.warnings if ct else ()):
        structures = read_structures(
            source,
            Geometry.of(ct.image) if ct else None,
            reference=ct.series if ct else None,
            any_frame=args.any_frame,
        )
    for warning in ct.warnings if ct else ():
        log.warning("%s", warning)
    assert kind.write is not None
    kind.write(structures, target, WriteOptions(ct.series if ct else None, roi_names, args.pseudonym))
    return structures


def _counted(structures: StructureSet) -> str:
    empty = [name for name in structures if structures.is_empty(name)]
    note = f" ({len(empty)} of them empty: {', '.join(empty)})" if empty else ""
    return f"{len(structures)} structure{'s' * (len(structures) != 1)}{note}"


def _run_each(args: argparse.Namespace) -> int:
    """A tree of patients: one line each, and a summary."""
    from soars.dicom.patients import find_patients

    if args.ct or args.series:
        raise InputError("--each takes the CT that lies beside the structures: leave --ct and --series out")
    if args.each != "dcm" and (args.roi_names or args.pseudonym is not None):
        raise InputError("--roi-names and --pseudonym are for RTSTRUCTs: use them with --each dcm")
    if args.output.resolve().is_relative_to(args.input.resolve()):
        raise InputError(f"{args.output} lies in {args.input}: choose a folder outside the tree that is read")
    done = failed = 0
    for patient in find_patients(args.input):
        if patient.problem or not patient.structures:
            failed += 1
            problem = patient.problem or "no RTSTRUCT, DICOM segmentation or .seg.nrrd in it"
            print(f"{patient.name}: FAILED: {problem}", flush=True)
            continue
        for source, target in _targets(patient.structures, args.output / patient.name, args.each):
            try:
                result = f"{_counted(_convert_beside(patient, source, target, args))} -> {target}"
                done += 1
            except CancelledError:
                raise
            except SoarsError as error:
                result = f"FAILED: {error}"
                failed += 1
            print(f"{patient.name}: {source.relative_to(patient.folder)}: {result}", flush=True)
    print(f"{done} converted, {failed} failed")
    if failed:
        raise InputError(f"{failed} of {done + failed} could not be converted; each says why above")
    return 0


def _convert_beside(
    patient: PatientFolder, source: Path, target: Path, args: argparse.Namespace
) -> StructureSet:
    """One of a patient's, with the CT beside it; without one where voxels have a grid of their own and need no CT."""
    from soars.formats.table import format_of, format_to_write

    kind, found = format_to_write(target), format_of(source)
    folder: Path | None
    series_uid: str | None
    folder = series_uid = None
    if patient.series or kind.needs_series or found is None or not found.has_grid:
        folder, series_uid = patient.ct_of(source)
    made = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _check_places(source, target, kind, args, folder)
        return _convert(source, target, kind, folder, series_uid, args)
    finally:
        if made and not any(target.parent.iterdir()):
            target.parent.rmdir()


def _targets(sources: list[Path], folder: Path, ending: str) -> list[tuple[Path, Path]]:
    """Where each goes: its own name with the ending, numbered where two would be one."""
    from soars.formats.labelmap import image_stem

    out: list[tuple[Path, Path]] = []
    taken: set[str] = set()
    for source in sources:
        stem = image_stem(source)
        chosen, number = stem, 2
        while chosen in taken:
            chosen, number = f"{stem}_{number}", number + 1
        taken.add(chosen)
        out.append((source, folder / (chosen if ending == "masks" else f"{chosen}.{ending}")))
    return out


def _check_places(
    source: Path, target: Path, kind: Format, args: argparse.Namespace, ct: Path | None
) -> None:
    """Refuse, before anything is read, an output that cannot be written or must not be overwritten."""
    if not source.exists():
        raise InputError(f"there is no file or folder {source}")
    refuse_inputs([target, *kind.beside(target)], [source, *([ct] if ct else [])])
    if kind.is_folder:
        if target.exists() and not target.is_dir():
            raise InputError(f"{target} is a file; choose another folder for the masks")
        if target.is_dir() and any(target.iterdir()):
            if not args.overwrite:
                raise InputError(f"{target} is there already; add --overwrite to replace it")
            if not kind.may_replace(target):
                raise InputError(f"{target} holds more than masks; choose another folder")
        return
    for path in (target, *kind.beside(target)):
        ours = kind.may_replace if path == target else None
        check_output_file(path, overwrite=args.overwrite, ours=ours)


def _roi_names(table: Path | None) -> dict[str, str]:
    if table is None:
        return {}
    from soars.dicom.roi_names import read_roi_names

    return read_roi_names(table)
