"""The container interface of the HaN-Seg challenge (Podobnik et al., Radiother Oncol 2024, and its public template):
CTs and MRs in two folders, for each pair one label map with the challenge's values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from soars.bundle.manifest import Bundle
from soars.cascade.preprocess import find_body
from soars.catalogue import CATALOGUE, label_values
from soars.ct.image_file import IMAGE_SUFFIXES, is_image_name
from soars.ct.images import CtScan, read_ct
from soars.errors import InputError
from soars.files import check_output_file, staged_folder, write_json
from soars.formats.imagefiles import write_image
from soars.mr.images import read_mr
from soars.mr.laid import LaidMr, lay_mr
from soars.progress import Progress, Reporter
from soars.run.segment import SegmentOptions, segment
from soars.structures import StructureSet

CT_FOLDER, MR_FOLDER, OUTPUT_FOLDER = "images/ct", "images/t1-mri", "images/head_neck_oar"
RESULTS = "results.json"
VALUES = label_values("HaN-Seg")


@dataclass(frozen=True)
class Pair:
    """A CT, the MR of the same patient, and the name of the label map."""

    ct: Path
    mr: Path

    @property
    def output(self) -> str:
        """The CT's name, as the challenge's template changes it: `case_01_IMG_CT.mha` -> `case_01_IMG_seg.mha`."""
        return self.ct.name.replace("_CT", "_seg")


def find_pairs(folder: Path) -> list[Pair]:
    """The CTs below ``folder`` and their MRs, paired in the order of their names, as the challenge's template does.

    Raises `InputError` when there is none, or when a CT has no MR.
    """
    cts, mrs = _images(folder / CT_FOLDER), _images(folder / MR_FOLDER)
    if len(cts) != len(mrs):
        raise InputError(
            f"{folder}: {len(cts)} images in {CT_FOLDER} and {len(mrs)} in {MR_FOLDER}; expected pairs"
        )
    return [Pair(ct, mr) for ct, mr in zip(cts, mrs, strict=True)]


def covered(organs: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """The challenge's value -> those of the organs that make it up: the organ itself, or else its parts."""
    there = set(organs)
    found = {}
    for value, name in sorted(VALUES.items()):
        parts = (name,) if name in there else tuple(p for p in CATALOGUE[name].parts if p in there)
        if parts:
            found[value] = parts
    return found


def challenge_labels(structures: StructureSet) -> sitk.Image:
    """The label map on the CT's own grid, uint8, 0 for none of the 30; where organs overlap the smaller one counts."""
    labels = np.zeros(structures.geometry.shape, np.uint8)
    masks = {value: structures.union(parts) for value, parts in covered(structures.names).items()}
    for value, mask in sorted(masks.items(), key=lambda item: -item[1].voxels):
        labels[mask.slices][mask.array] = value
    return structures.geometry.place(sitk.GetImageFromArray(labels))


def run_challenge(
    source: Path,
    output: Path,
    bundle: Bundle,
    options: SegmentOptions,
    report: Reporter,
    *,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Contour every pair in ``source`` and write label maps and `RESULTS` into ``output``: all label maps, or none.

    An MR that cannot be used leaves its CT to be contoured alone: a challenge counts every case. The entry of the case
    says so in its ``error_messages``, which are returned and written. Raises `InputError` for a CT that cannot be used
    and for a bundle that draws none of the challenge's organs, and as `segment` does.
    """
    pairs = find_pairs(source)
    organs = [organ for parts in covered(bundle.organs).values() for organ in parts]
    if not organs:
        raise InputError(f"the model bundle {bundle.name} draws none of the organs of HaN-Seg")
    options = replace(options, organs=tuple(organs))
    results = []
    names = [pair.output for pair in pairs]
    if len(set(names)) < len(names):
        raise InputError(f"{source / CT_FOLDER}: two images of one name")
    if output.is_dir():
        check_output_file(output / RESULTS, overwrite=overwrite)
    with staged_folder(output / OUTPUT_FOLDER, names, overwrite=overwrite) as folder:
        for done, pair in enumerate(pairs):
            report(Progress("case", done, len(pairs), pair.ct.name))
            ct = read_ct(pair.ct)
            laid, problem = _laid(pair.mr, ct) if bundle.takes_mr else (None, "")
            found = segment(ct, bundle, replace(options, mr=laid), report)
            write_image(challenge_labels(found.structures), folder / pair.output)
            results.append(_entry(pair, [problem] if problem else []))
    write_json(output / RESULTS, results)
    return results


def _laid(path: Path, ct: CtScan) -> tuple[LaidMr | None, str]:
    """The MR on the CT, or None and why it is left out."""
    try:
        return lay_mr(read_mr(path, ct), ct.image, find_body(ct.image)), ""
    except InputError as error:
        return None, f"contoured on the CT alone: {error}"


def _entry(pair: Pair, messages: list[str]) -> dict[str, Any]:
    """What the challenge's template says of a case."""
    return {
        "outputs": [{"type": "metaio_image", "filename": pair.output}],
        "inputs": [
            {"type": "metaio_ct_image", "filename": pair.ct.name},
            {"type": "metaio_mrt1_image", "filename": pair.mr.name},
        ],
        "error_messages": messages,
    }


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    found = sorted(path for path in folder.iterdir() if path.is_file() and is_image_name(path))
    if not found:
        raise InputError(f"{folder}: holds no image file ({', '.join(IMAGE_SUFFIXES)})")
    return found
