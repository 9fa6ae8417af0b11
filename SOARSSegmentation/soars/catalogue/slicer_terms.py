"""What 3D Slicer needs from the catalogue: terminology entries, a terminology file and a colour table.

The files in `SOARSSegmentation/Resources/`, which are installed with the module, are written from `oars.csv` by
``soars catalogue write-slicer SOARSSegmentation/Resources``; a test fails when they are stale. Only verified
codes are written: an organ without one is Slicer's generic "Tissue", and its name says what it is.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from soars.catalogue import CATALOGUE, Oar
from soars.errors import InputError

CONTEXT_NAME = "SOARS head and neck organs at risk"
REGION_CONTEXT_NAME = "Anatomic codes - DICOM master list"
TERMINOLOGY_FILE = "SOARS.term.json"
COLOUR_FILE = "SOARS_ColorTable.csv"

Code = tuple[str, str, str]
"""Coding scheme, value, meaning."""

ANATOMICAL_STRUCTURE: Code = ("SCT", "123037004", "Anatomical Structure")
TISSUE: Code = ("SCT", "85756007", "Tissue")
NO_CODE: Code = ("", "", "")


def terminology_entry(oar: Oar) -> str:
    """The string of Slicer's segment tag "TerminologyEntry", as `vtkSegment` and .seg.nrrd hold it.

    Seven parts joined by "~": context, category, type, type modifier (the side), region context, region and
    region modifier (both empty); each code is scheme^value^meaning (Slicer, vtkSlicerTerminologiesModuleLogic,
    SerializeTerminologyEntry).
    """
    category, type_, modifier = _codes(oar)
    codes = ("^".join(code) for code in (category, type_, modifier))
    return "~".join((CONTEXT_NAME, *codes, REGION_CONTEXT_NAME, "^^", "^^"))


def terminology_json() -> str:
    """Slicer's terminology file: one type per code, left and right as its modifiers.

    Schema: segment-context-schema.json of dcmqi. Organs that share a code (the halves of the eye and the eye) are one
    type, in the first one's colour; those without a verified code are left out.
    """
    types: dict[Code, dict[str, Any]] = {}
    for oar in CATALOGUE.values():
        category, type_, modifier = _codes(oar)
        if category != ANATOMICAL_STRUCTURE:
            continue
        colour = {"recommendedDisplayRGBValue": list(oar.colour)}
        entry = types.setdefault(type_, _json_code(type_) | colour)
        if modifier != NO_CODE:
            sides = entry.setdefault("Modifier", [])
            if modifier[1] not in {side["CodeValue"] for side in sides}:
                sides.append(_json_code(modifier) | colour)
    category_entry = _json_code(ANATOMICAL_STRUCTURE) | {"showAnatomy": False, "Type": list(types.values())}
    content = {
        "SegmentationCategoryTypeContextName": CONTEXT_NAME,
        # Slicer looks for this address in the first 400 characters
        "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#",
        "SegmentationCodes": {"Category": [category_entry]},
    }
    return json.dumps(content, indent=2) + "\n"


def colour_table() -> str:
    """Slicer's CSV colour table (5.8 and newer): label value, name, colour, terminology.

    Label values are the organ's place in the catalogue, 1 to 42 for the 42 OARs.
    """
    columns = ["LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A"]
    for part in ("Category", "Type", "TypeModifier"):
        columns += [f"{part}_CodingScheme", f"{part}_CodeValue", f"{part}_CodeMeaning"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for value, oar in enumerate(CATALOGUE.values(), start=1):
        writer.writerow((value, oar.name, *oar.colour, 255, *(cell for code in _codes(oar) for cell in code)))
    return text.getvalue()


def slicer_files() -> dict[str, str]:
    """File name -> text of everything that `write_resources` writes."""
    return {TERMINOLOGY_FILE: terminology_json(), COLOUR_FILE: colour_table()}


def write_resources(folder: Path) -> list[Path]:
    """Write all files into `folder`, which is made if it does not exist; returns their paths.

    Raises `InputError` when they cannot be written.
    """
    from soars.files import replacing_file

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    for name, text in slicer_files().items():
        with replacing_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        written.append(folder / name)
    return written


def _codes(oar: Oar) -> tuple[Code, Code, Code]:
    """(category, type, type modifier) of an organ."""
    side = NO_CODE
    if oar.laterality_code and oar.laterality_meaning:
        side = ("SCT", oar.laterality_code, oar.laterality_meaning)
    if not oar.snomed_verified:
        return TISSUE, TISSUE, side
    return ANATOMICAL_STRUCTURE, ("SCT", oar.snomed_code, oar.snomed_meaning), side


def _json_code(code: Code) -> dict[str, Any]:
    return dict(zip(("CodingSchemeDesignator", "CodeValue", "CodeMeaning"), code, strict=True))
