"""dicom-validator's check of a file, with the tables of the DICOM standard that highdicom carries.

dicom-validator fetches the standard from dicom.nema.org, which neither a build machine nor a hospital may reach.
highdicom's wheel holds the same tables (modules of each IOD, attributes of each module with their types), made from
the standard by Innolitics; they are put into dicom-validator's form here. They say no conditions of types 1C and 2C,
so attributes of these types may be there or not; dciodvfy, which the tests run beside it, knows the conditions.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import tag_for_keyword

#: SOP classes that are checked; the tables of all of them would take seconds to build.
SOP_CLASSES = {
    "CT Image": "1.2.840.10008.5.1.4.1.1.2",
    "RT Dose": "1.2.840.10008.5.1.4.1.1.481.2",
    "RT Structure Set": "1.2.840.10008.5.1.4.1.1.481.3",
}


def dicom_validator_errors(path: Path) -> list[str]:
    """What dicom-validator has to say against a file, one line for each attribute; empty when nothing."""
    pytest.importorskip("dicom_validator", reason="pip install dicom-validator to check with it")
    from dicom_validator.validator.dicom_file_validator import DicomFileValidator

    (result,) = DicomFileValidator(_standard(), log_level=logging.CRITICAL).validate(path).values()
    found = [
        f"{module}: {tag} {error.code.name}"
        for module, errors in result.module_errors.items()
        for tag, error in errors.items()
    ]
    return found if found or result.status.name == "Passed" else [result.status.name]


@lru_cache(maxsize=1)
def _standard() -> Any:
    """dicom-validator's `DicomInfo` of `SOP_CLASSES`."""
    pytest.importorskip("highdicom", reason="pip install highdicom, whose tables of the standard are used")
    from dicom_validator.validator.dicom_info import DicomInfo

    tables = files("highdicom") / "_standard"
    iods, of_class, attributes = (
        json.loads((tables / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("iod_module_map", "sop_class_iod_map", "module_attribute_map")
    )
    of_iod = {
        uid: {"title": name, "group_macros": {}, "modules": {
            module["key"]: {"ref": module["key"], "use": module["usage"]} for module in iods[of_class[uid]]
        }}
        for name, uid in SOP_CLASSES.items()
    }  # fmt: skip
    used = {key for iod in of_iod.values() for key in iod["modules"]}
    modules = {key: _module(attributes.get(key, [])) for key in used}
    return DicomInfo(dictionary=_Dictionary(), iods=of_iod, modules=modules)


def _module(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes with their paths, as a tree of tags."""
    tree: dict[str, Any] = {}
    for attribute in attributes:
        if tag_for_keyword(attribute["keyword"]) is None:
            continue  # of a repeating group: an overlay's, which have no one tag
        level = tree
        for parent in attribute["path"]:
            level = level.setdefault(_tag(parent), {"name": parent, "type": "3"}).setdefault("items", {})
        entry = level.setdefault(_tag(attribute["keyword"]), {})
        entry |= {"name": attribute["keyword"], "type": attribute["type"]}
    return tree


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None, f"pydicom does not know the attribute {keyword}"
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _Dictionary(dict):  # type: ignore[type-arg]
    """dicom-validator asks its dictionary for names only, in messages that are not used here."""

    def __missing__(self, key: str) -> dict[str, str]:
        return {"name": key, "vr": "", "vm": "", "prop": ""}
