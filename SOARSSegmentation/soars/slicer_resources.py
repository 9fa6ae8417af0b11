"""What 3D Slicer needs to know of the catalogue: terminology entries, a terminology file and a colour table.

The files in `Resources/` are written from `oars.csv` by ``soars catalogue write-slicer Resources``; a test fails when
they are stale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from soars.oars import CATALOGUE, Oar

CONTEXT_NAME = "SOARS head and neck OARs"
TERMINOLOGY_FILE = "SOARS.term.json"
COLOUR_FILE = "SOARS_ColorTable.csv"
CATEGORY = ("123037004", "Anatomical Structure")


def terminology_entry(oar: Oar) -> str:
    """The seven-part string of Slicer's segment terminology tag.

    Context, category, type, type modifier, anatomic context, anatomic region and its modifier, joined by "~"; each
    code is scheme^value^meaning (Slicer, vtkSlicerTerminologiesModuleLogic).
    """
    category = f"SCT^{CATEGORY[0]}^{CATEGORY[1]}"
    type_ = f"SCT^{oar.snomed_code}^{oar.snomed_meaning}"
    modifier = f"SCT^{oar.laterality_code}^{oar.laterality_meaning}" if oar.laterality_code else "^^"
    return f"{CONTEXT_NAME}~{category}~{type_}~{modifier}~Anatomic codes - DICOM master list~^^~^^"


def terminology_json() -> str:
    """Slicer's SegmentationCategoryTypeContext JSON: one type a structure, left and right as its modifiers."""
    types: dict[str, dict[str, Any]] = {}
    for oar in CATALOGUE.values():
        entry = types.setdefault(f"{oar.snomed_code} {oar.snomed_meaning}", _code(oar.snomed_code, oar.snomed_meaning))
        look = {"recommendedDisplayRGBValue": list(oar.colour)}
        if oar.laterality_code and oar.laterality_meaning:
            modifier = _code(oar.laterality_code, oar.laterality_meaning) | look
            if modifier["CodeValue"] not in {m["CodeValue"] for m in entry.setdefault("Modifier", [])}:
                entry["Modifier"].append(modifier)
        else:
            entry.setdefault("recommendedDisplayRGBValue", look["recommendedDisplayRGBValue"])
    for entry in types.values():
        entry.setdefault("recommendedDisplayRGBValue", (entry.get("Modifier") or [{}])[0].get("recommendedDisplayRGBValue"))
    content = {
        "SegmentationCategoryTypeContextName": CONTEXT_NAME,
        "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/segment-context-schema.json#",
        "SegmentationCodes": {
            "Category": [_code(*CATEGORY) | {"showAnatomy": True, "Type": list(types.values())}]
        },
    }
    return json.dumps(content, indent=1) + "\n"


def colour_table() -> str:
    """Slicer's CSV colour table (5.8 and newer), with each colour's terminology."""
    columns = ["LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A"]
    for part in ("Category", "Type", "TypeModifier"):
        columns += [f"{part}_CodingSchemeDesignator", f"{part}_CodeValue", f"{part}_CodeMeaning"]
    lines = [",".join(columns)]
    for value, oar in enumerate(CATALOGUE.values(), start=1):
        side = ("SCT", oar.laterality_code, oar.laterality_meaning) if oar.laterality_code else ("", "", "")
        cells = [str(value), oar.name, *map(str, oar.colour), "255", "SCT", *CATEGORY]
        cells += ["SCT", oar.snomed_code, oar.snomed_meaning, *map(str, side)]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def write_resources(folder: Path) -> list[Path]:
    """Write both files into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in ((TERMINOLOGY_FILE, terminology_json()), (COLOUR_FILE, colour_table())):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
        written.append(folder / name)
    return written


def _code(value: str, meaning: str) -> dict[str, Any]:
    return {"CodingSchemeDesignator": "SCT", "CodeValue": value, "CodeMeaning": meaning}
