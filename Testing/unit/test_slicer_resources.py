"""What is made for 3D Slicer from the catalogue is up to date, and has the shape that Slicer reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from slicerio.segmentation import terminology_entry_from_string

from soars.catalogue import CATALOGUE, SOARS42
from soars.catalogue import slicer_terms as slicer_resources
from soars.catalogue.slicer_terms import COLOUR_FILE, TERMINOLOGY_FILE, terminology_entry
from soars.errors import InputError

RESOURCES = Path(__file__).resolve().parents[2] / "SOARSSegmentation" / "Resources"

# segment-context-common-schema.json of dcmqi, which allows no other properties
CODE = {"CodingSchemeDesignator", "CodeValue", "CodeMeaning"}
OPTIONAL = {"recommendedDisplayRGBValue", "cid", "contextGroupName", "UMLSConceptUID", "SNOMEDCTConceptID"}


@pytest.mark.parametrize("name", sorted(slicer_resources.slicer_files()))
def test_the_files_in_the_repository_are_those_that_the_catalogue_makes(name: str) -> None:
    assert (RESOURCES / name).read_bytes() == slicer_resources.slicer_files()[name].encode(), (
        f"{name} is stale: run soars catalogue write-slicer SOARSSegmentation/Resources"
    )


def test_terminology_follows_the_schema() -> None:
    text = (RESOURCES / TERMINOLOGY_FILE).read_text(encoding="utf-8")
    assert "/segment-context-schema.json" in text[:400], "Slicer would not take it for a terminology"
    content = json.loads(text)
    assert set(content) == {"SegmentationCategoryTypeContextName", "@schema", "SegmentationCodes"}
    (category,) = content["SegmentationCodes"]["Category"]
    assert set(category) <= CODE | OPTIONAL | {"3dSlicerLabel", "showAnatomy", "Type"}
    assert category["showAnatomy"] is False
    for entry in (category, *category["Type"]):
        _check_code(entry)
    for entry in category["Type"]:
        assert set(entry) <= CODE | OPTIONAL | {"3dSlicerLabel", "Modifier"}
        _check_colour(entry)
        for side in entry.get("Modifier", ()):
            assert set(side) <= CODE | OPTIONAL
            _check_code(side)
            _check_colour(side)
    values = [entry["CodeValue"] for entry in category["Type"]]
    assert len(values) == len(set(values)), "one code under two meanings"


def _check_code(entry: dict[str, Any]) -> None:
    assert entry["CodingSchemeDesignator"] == "SCT"
    assert 6 <= len(entry["CodeValue"]) <= 16 and entry["CodeValue"].isdigit()  # DICOM's SH
    assert 0 < len(entry["CodeMeaning"]) <= 64  # DICOM's LO
    assert not set(entry["CodeMeaning"]) & set("~^\\")


def _check_colour(entry: dict[str, Any]) -> None:
    colour = entry["recommendedDisplayRGBValue"]
    assert len(colour) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in colour)


def test_every_organ_with_a_verified_code_can_be_chosen_with_its_side() -> None:
    content = json.loads((RESOURCES / TERMINOLOGY_FILE).read_text(encoding="utf-8"))
    (category,) = content["SegmentationCodes"]["Category"]
    choices = {
        (entry["CodeValue"], entry["CodeMeaning"], side["CodeValue"] if side else None)
        for entry in category["Type"]
        for side in (None, *entry.get("Modifier", ()))
    }
    for oar in CATALOGUE.values():
        choice = (oar.snomed_code, oar.snomed_meaning, oar.laterality_code)
        assert (choice in choices) == oar.snomed_verified, oar.name


def test_terminology_entry_of_a_segment_has_seven_parts() -> None:
    assert terminology_entry(CATALOGUE["Parotid_L"]) == (
        "SOARS head and neck organs at risk~SCT^123037004^Anatomical Structure~SCT^45289007^Parotid gland"
        "~SCT^7771000^Left~Anatomic codes - DICOM master list~^^~^^"
    )
    for oar in CATALOGUE.values():
        assert terminology_entry(oar).count("~") == 6


def test_another_program_reads_the_terminology_entry() -> None:
    read = terminology_entry_from_string(terminology_entry(CATALOGUE["Brainstem"]))
    assert read["category"] == ["SCT", "123037004", "Anatomical Structure"]
    assert read["type"] == ["SCT", "119238007", "Brain stem"]
    assert "typeModifier" not in read


def test_a_code_that_is_not_verified_is_not_given_away() -> None:
    for oar in CATALOGUE.values():
        if not oar.snomed_verified:
            entry = terminology_entry(oar)
            assert "SCT^85756007^Tissue~SCT^85756007^Tissue" in entry
            assert not oar.snomed_code or oar.snomed_code not in entry


def test_colour_table_has_the_columns_that_slicer_reads() -> None:
    # vtkMRMLColorTableStorageNode::ReadCsvFile: LabelValue is required, unknown columns are ignored in silence
    with (RESOURCES / COLOUR_FILE).open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    coded = [f"{part}_{kind}" for part in ("Category", "Type", "TypeModifier") for kind in ("CodingScheme",)]
    assert set(reader.fieldnames or ()) == {
        *("LabelValue", "Name", "Color_R", "Color_G", "Color_B", "Color_A"),
        *coded,
        *(column.replace("CodingScheme", kind) for column in coded for kind in ("CodeValue", "CodeMeaning")),
    }
    assert [row["Name"] for row in rows] == list(CATALOGUE)
    assert [int(row["LabelValue"]) for row in rows] == list(range(1, len(CATALOGUE) + 1))
    assert tuple(row["Name"] for row in rows[:42]) == SOARS42
    for row in rows:
        colour = tuple(int(row[f"Color_{channel}"]) for channel in "RGB")
        assert (colour, row["Color_A"]) == (CATALOGUE[row["Name"]].colour, "255")
        assert row["Category_CodeValue"] and row["Type_CodeValue"], "Slicer wants both or neither"


def test_writing_makes_the_folder_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    written = slicer_resources.write_resources(tmp_path / "new" / "Resources")
    assert [path.read_bytes() for path in written] == [
        text.encode() for text in slicer_resources.slicer_files().values()
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write into .*file"):
        slicer_resources.write_resources(tmp_path / "file")
