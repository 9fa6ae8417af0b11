"""How a structure was made, in RTSTRUCT and SEG: by which model, by what other program, and whether edited since.

A model's name and the first digits of its SHA-256 are the ROI Generation Description (PS3.3 C.8.8.5), its whole hash is
in the Contributing Equipment Sequence (C.12.1.1.5): years later the file still says what made it. In a structure's tags
it is what .seg.nrrd files keep, too. Other programs' descriptions are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from soars import __version__
from soars.dicom.objects import plain
from soars.structures.model import StructureInfo

MANUFACTURER = "SOARSSegmentation"
#: The tag of a structure (`StructureInfo.tags`) that says how it was made, and what it may say.
GENERATION_TAG = "RTSTRUCT.ROIGenerationAlgorithm"
GENERATION_ALGORITHMS = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")
#: The tag with another program's words on how it made the structure.
DESCRIPTION_TAG = "RTSTRUCT.ROIGenerationDescription"
#: The tags that say which model bundle made a structure ("name version"), and its SHA-256.
MODEL_TAG, MODEL_HASH_TAG = "SOARS.bundle", "SOARS.bundle_sha256"
_DIGITS = 16
_LONGEST, _LONGEST_NAME = 64, 64 - len(", sha256 ") - _DIGITS
"""Of a Long String (PS3.5 6.2), and of a model's name before its hash."""
_DESCRIPTION = re.compile(rf"(?P<name>.+), sha256 (?P<sha256>[0-9a-f]{{{_DIGITS}}})")
_CONTRIBUTION = re.compile(
    r"Contours proposed by the model bundle (?P<name>.+), sha256 (?P<sha256>[0-9a-f]{64})"
)


def dicom_text(value: str, length: int = _LONGEST) -> str:
    """Fit for DICOM: no backslash, which separates values, no line ends, and not too long."""
    return "".join(c if c.isprintable() else " " for c in value.replace("\\", "/")).strip()[:length]


def code_item(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = dicom_text(meaning)
    return item


def generation_algorithm(info: StructureInfo) -> str:
    """Which of `GENERATION_ALGORITHMS` made a structure, AUTOMATIC where its tags do not say."""
    algorithm = str(info.tags.get(GENERATION_TAG, "")).upper()
    return algorithm if algorithm in GENERATION_ALGORITHMS else "AUTOMATIC"


def generation_tag(stated: object) -> dict[str, str]:
    """The tag for a file's ROI Generation Algorithm or Segment Algorithm Type; none for anything else."""
    algorithm = plain(stated).upper()
    return {GENERATION_TAG: algorithm} if algorithm in GENERATION_ALGORITHMS else {}


def describe_generation(roi: Dataset, info: StructureInfo) -> None:
    """Write into an item of the Structure Set ROI Sequence how its structure was made."""
    # never empty, though DICOM allows it: planning systems have refused such files
    roi.ROIGenerationAlgorithm = generation_algorithm(info)
    description = info.tags.get(DESCRIPTION_TAG, "")
    if model := _model(info):
        name, sha256 = model
        description = f"{dicom_text(name, _LONGEST_NAME)}, sha256 {sha256[:_DIGITS]}" if sha256 else name
    if description.strip():
        roi.ROIGenerationDescription = dicom_text(description)


def add_models(dataset: Dataset, infos: Iterable[StructureInfo]) -> None:
    """One item of the Contributing Equipment Sequence for every model that proposed contours, with its whole hash."""
    items = []
    for name, sha256 in dict.fromkeys(filter(None, map(_model, infos))):
        item = Dataset()
        item.PurposeOfReferenceCodeSequence = DicomSequence(
            [code_item("109102", "Processing Equipment", "DCM")]
        )
        item.Manufacturer = MANUFACTURER
        item.ManufacturerModelName = dicom_text(name)
        item.SoftwareVersions = __version__
        item.ContributionDescription = dicom_text(
            f"Contours proposed by the model bundle {name}, sha256 {sha256}", 1024
        )
        items.append(item)
    if items:
        dataset.ContributingEquipmentSequence = DicomSequence(items)


def models_in(dataset: Dataset) -> dict[str, str]:
    """SHA-256 -> name of the models that a file says proposed its contours."""
    items = dataset.get("ContributingEquipmentSequence") or []
    found = (_CONTRIBUTION.fullmatch(plain(item.get("ContributionDescription"))) for item in items)
    return {match["sha256"]: match["name"] for match in found if match}


def generation_tags(roi: Dataset, models: dict[str, str]) -> dict[str, str]:
    """The tags for what an item of the Structure Set ROI Sequence says; ``models`` of `models_in`.

    Of a model whose item of the equipment is gone, as planning systems drop it, the first digits of the hash are left.
    """
    tags = generation_tag(roi.get("ROIGenerationAlgorithm"))
    description = dicom_text(plain(roi.get("ROIGenerationDescription")))
    match = _DESCRIPTION.fullmatch(description)
    if match is None:
        return tags | ({DESCRIPTION_TAG: description} if description else {})
    for sha256, name in models.items():
        if sha256.startswith(match["sha256"]) and name.startswith(match["name"]):
            return tags | {MODEL_TAG: name, MODEL_HASH_TAG: sha256}
    return tags | {MODEL_TAG: match["name"], MODEL_HASH_TAG: match["sha256"]}


def _model(info: StructureInfo) -> tuple[str, str] | None:
    """Name with version, and SHA-256, of the model bundle that proposed a structure; None when none did."""
    name = info.tags.get(MODEL_TAG, "").strip()
    return (name, info.tags.get(MODEL_HASH_TAG, "").strip()) if name else None
