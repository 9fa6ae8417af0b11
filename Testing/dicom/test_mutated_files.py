"""Mutated files of every kind that is read: a message or the undamaged file's result, never a traceback or a hang, and
never a different result without a message.

A few mutations of each kind run with the other tests. The full count, 2000 and more in all, takes about ten minutes:

    python -m pytest Testing/dicom/test_mutated_files.py --mutations 2000
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import time
import warnings as python_warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from effort_logs import HandClock, recorder_at
from mutations import mutated
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from soars.ct.images import read_ct
from soars.ct.series import CtSeries, read_series
from soars.dicom.roi_names import read_roi_names
from soars.dicom.rtdose import read_rtdose
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.dicom.write import write_ct_series, write_rtdose
from soars.dose.constraints import read_constraints
from soars.effort.change import OrganChange
from soars.effort.log import read_log
from soars.errors import SoarsError
from soars.formats import write_seg_nrrd
from soars.formats.reading import read_structures
from soars.structures import Geometry, StructureSet

LONGEST_S = 30.0
#: Values that a file is free to have: with another valid one it is another file, not a damaged one.
FREE = {
    "PixelData", "ContourData", "ROIName", "ROIDisplayColor", "ROIGenerationAlgorithm", "ROIDescription",
    "RescaleIntercept", "RescaleSlope", "DoseGridScaling", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "GridFrameOffsetVector", "PixelPaddingValue", "PixelRepresentation", "SpecificCharacterSet",
    "SegmentLabel", "RecommendedDisplayCIELabValue",
}  # fmt: skip
#: What decides a result besides.
RELEVANT = FREE | {
    "SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit",
    "SamplesPerPixel", "PhotometricInterpretation", "DoseUnits", "DoseType", "ContourSequence", "ROIContourSequence",
    "StructureSetROISequence", "ReferencedROINumber", "ROINumber", "ContourGeometricType", "NumberOfContourPoints",
    "FrameOfReferenceUID", "ReferencedFrameOfReferenceUID", "TransferSyntaxUID", "SegmentSequence", "SegmentNumber",
    "ReferencedSegmentNumber", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "SegmentIdentificationSequence",
    "SegmentationType", "MaximumFractionalValue",
}  # fmt: skip
NRRD_FREE = {"space origin", "space directions", "name", "id"}
NRRD_STRUCTURE = {"type", "dimension", "space", "sizes", "encoding", "endian", "layer", "labelvalue", "lines"}
SAME_MM = 0.05
MITK_LABELS = "org.mitk.multilabel.segmentation.labelgroups"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``seed`` runs from 0; the count is shared among the kinds."""
    if "seed" in metafunc.fixturenames:
        count = max(1, int(metafunc.config.getoption("--mutations")) // len(KINDS))
        metafunc.parametrize("seed", range(count))


@dataclass(frozen=True)
class Study:
    """One small file of each kind, and what they hold."""

    folder: Path
    geometry: Geometry
    files: dict[str, Path]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    hu = np.full((7, 24, 28), -1000, np.int16)
    hu[:, 3:21, 3:25] = 40
    hu[:, 10:14, 20:24] = 900
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((2.0, 2.0, 3.0))
    write_ct_series(image, folder / "ct", patient_id="P1", patient_name="Test", seed=3)
    ct, series, _ = read_series(folder / "ct")
    geometry = Geometry.of(ct)
    structures = StructureSet(geometry)
    for name, box in (("Brainstem", np.s_[1:6, 6:12, 6:14]), ("Parotid_L", np.s_[2:5, 8:15, 16:22])):
        mask = np.zeros(hu.shape, bool)
        mask[box] = True
        structures.add(name, mask)
    write_rtstruct(structures, folder / "rtstruct.dcm", series)
    write_seg_nrrd(structures, folder / "organs.seg.nrrd")
    z, y, x = np.indices(hu.shape)
    dose = sitk.GetImageFromArray((1.0 * x + 0.5 * y + 2.0 * z).astype(np.float32))
    dose.CopyInformation(ct)
    write_rtdose(dose, folder / "dose.dcm", series)
    labels = (structures.full("Brainstem") + 2 * structures.full("Parotid_L")).astype(np.uint8)
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    nifti = nibabel.Nifti1Image(labels.transpose(2, 1, 0), affine)
    nifti.set_qform(affine, 1)  # said twice, so that one that is damaged contradicts the other
    nifti.set_sform(affine, 1)
    nibabel.save(nifti, folder / "labels.nii")
    nibabel.save(nifti, folder / "packed.nii.gz")
    names = json.dumps({"labels": {"1": "Brainstem", "2": "Parotid_L"}})
    for name in ("labels", "packed"):
        (folder / f"{name}.json").write_text(names)
    mitk = sitk.GetImageFromArray(labels)
    mitk.CopyInformation(ct)
    named = [{"labels": [{"name": n, "value": v} for v, n in enumerate(("Brainstem", "Parotid_L"), start=1)]}]
    mitk.SetMetaData(MITK_LABELS, json.dumps(named))
    sitk.WriteImage(mitk, str(folder / "mitk.nrrd"), useCompression=True)
    (folder / "names.csv").write_text("organ,name\nParotid_L,OAR Parotis li\nBrainstem,OAR Hirnstamm\n")
    (folder / "limits.csv").write_text("organ,figure,limit\nParotid_L,mean,<26\nBrainstem,D1cc,<=54 Gy\n")
    write_seg(folder / "seg.dcm", structures, series)
    log = folder / "log.jsonl"
    write_log(log)
    files = {
        "ct": sorted((folder / "ct").iterdir())[3],
        "rtstruct": folder / "rtstruct.dcm",
        "dose": folder / "dose.dcm",
        "SEG": folder / "seg.dcm",
        "seg.nrrd": folder / "organs.seg.nrrd",
        "MITK": folder / "mitk.nrrd",
        "nifti": folder / "labels.nii",
        "nifti.gz": folder / "packed.nii.gz",
        "list": folder / "names.csv",
        "constraints": folder / "limits.csv",
        "label names": folder / "labels.json",
        "log": log,
    }
    return Study(folder, geometry, files)


def write_seg(path: Path, structures: StructureSet, series: CtSeries) -> None:
    """By highdicom."""
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Brain,
            algorithm_type="MANUAL",
        )
        for number, name in enumerate(structures, start=1)
    ]
    made = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in series.files],
        pixel_array=np.stack([structures.full(name) for name in structures], axis=-1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid="1.2.88.3",
        series_number=7,
        sop_instance_uid="1.2.88.4",
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    made.save_as(path)


def write_log(path: Path) -> None:
    clock = HandClock()
    recorder = recorder_at(path, clock)
    change = OrganChange(200, 100, 0.98, 4.5)
    for organ in ("Brainstem", "Parotid_L"):
        for act in (recorder.select, recorder.edit, lambda organ: recorder.accept(organ, change)):
            clock.step(1.5)
            act(organ)
    recorder.end()


# --- reading each kind, into something that can be compared ------------------------------------------------------
Result = tuple[dict[str, Any], list[str]]


def read_as_ct(path: Path, study: Study) -> Result:
    folder = path.parent / "series"
    shutil.copytree(study.folder / "ct", folder)
    shutil.copyfile(path, folder / study.files["ct"].name)
    scan = read_ct(folder)
    return {
        "voxels": sitk.GetArrayFromImage(scan.image),
        "places": Geometry.of(scan.image).corners(),
    }, scan.warnings


def _of_structures(structures: StructureSet) -> Result:
    found: dict[str, Any] = {name: structures.full(name) for name in structures}
    found["places"] = structures.geometry.corners()
    return found, structures.warnings


def read_as_rtstruct(path: Path, study: Study) -> Result:
    return _of_structures(read_rtstruct(path, study.geometry))


def read_as_dose(path: Path, study: Study) -> Result:
    dose = read_rtdose(path)
    return {
        "voxels": sitk.GetArrayFromImage(dose.image),
        "places": Geometry.of(dose.image).corners(),
    }, dose.warnings


def read_as_structures(path: Path, study: Study) -> Result:
    names = study.files["label names"]
    if path.name.endswith((".nii", ".nii.gz")):
        shutil.copyfile(names, path.with_name(path.name.partition(".")[0] + ".json"))
    return _of_structures(read_structures(path))


def read_as_list(path: Path, study: Study) -> Result:
    return {"names": read_roi_names(path)}, []


def read_as_constraints(path: Path, study: Study) -> Result:
    return {"constraints": read_constraints(path)}, []


def read_as_label_names(path: Path, study: Study) -> Result:
    image = path.with_name("labels.nii")
    shutil.copyfile(study.files["nifti"], image)
    path.replace(path.with_name("labels.json"))
    return _of_structures(read_structures(image))


def read_as_log(path: Path, study: Study) -> Result:
    log = read_log(path)
    said = [*log.warnings, *([] if log.complete else ["the session did not end"])]
    return {"events": log.events, "header": log.header}, said


KINDS: dict[str, tuple[str, Callable[[Path, Study], Result]]] = {
    "ct": ("slice.dcm", read_as_ct),
    "rtstruct": ("rtstruct.dcm", read_as_rtstruct),
    "dose": ("dose.dcm", read_as_dose),
    "SEG": ("seg.dcm", read_as_structures),
    "seg.nrrd": ("organs.seg.nrrd", read_as_structures),
    "MITK": ("mitk.nrrd", read_as_structures),
    "nifti": ("labels.nii", read_as_structures),
    "nifti.gz": ("packed.nii.gz", read_as_structures),
    "list": ("names.csv", read_as_list),
    "constraints": ("limits.csv", read_as_constraints),
    "label names": ("names.json", read_as_label_names),
    "log": ("log.jsonl", read_as_log),
}
HEADER_BYTES = {"nifti": 352}
PIXELS = ("ct", "dose", "SEG")
TEXTS = {"list", "constraints", "label names"}
"""Tables that people write by hand: with other words they are other tables, and only how they fail is looked at."""


@pytest.fixture(scope="module")
def undamaged(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What each file gives as long as it is whole, its own warnings included."""
    found = {}
    for kind, (name, read) in KINDS.items():
        path = tmp_path_factory.mktemp("whole") / name
        shutil.copyfile(study.files[kind], path)
        found[kind] = read(path, study)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file(
    study: Study,
    undamaged: dict[str, Result],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    seed: int,
) -> None:
    name, read = KINDS[kind]
    wanted, usual = undamaged[kind]
    whole = study.files[kind].read_bytes()
    reach = HEADER_BYTES.get(kind) or (whole.rfind(b"\xe0\x7f\x10\x00") if kind in PIXELS else None)
    damaged, what = mutated(whole, seed, reach)
    path = tmp_path / name
    path.write_bytes(damaged)
    start = time.monotonic()
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # as the command line does: nobody sees them
            found, warnings = read(path, study)
    except SoarsError as error:
        assert str(error) and "\n" not in str(error), what
        return
    finally:
        assert time.monotonic() - start < LONGEST_S, what
    told = set(warnings) - set(usual) or caplog.records
    if not told and kind not in TEXTS:
        assert same(found, wanted) or is_another_file(kind, whole, damaged), what


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if found.keys() != wanted.keys():
        return False
    for key, value in wanted.items():
        if key == "places":
            if np.abs(found[key] - value).max() > SAME_MM:
                return False
        elif isinstance(value, np.ndarray):
            if not np.array_equal(found[key], value):
                return False
        elif found[key] != value:
            return False
    return True


def is_another_file(kind: str, whole: bytes, damaged: bytes) -> bool:
    """Whether the damage only put other valid values where a file is free to have any: nothing in it could tell."""
    if kind in ("rtstruct", *PIXELS):
        return differing(parsed(whole), parsed(damaged)) & RELEVANT <= FREE
    if kind == "nifti":  # its plain voxels, its scale, and which of the two transforms count
        return any(whole[part] != damaged[part] for part in (np.s_[352:], np.s_[112:120], np.s_[252:256]))
    if kind == "seg.nrrd":
        return differing_fields(whole, damaged) <= {
            "space origin",
            "space directions",
            "name",
            "id",
            "color",
            "tags",
        }
    if kind == "MITK":
        fields, places = differing_fields(whole, damaged), {"space origin", "space directions"}
        renamed = mitk_names(whole) != mitk_names(damaged)
        return fields <= places | {MITK_LABELS} and (renamed or bool(fields & places))
    return False


def mitk_names(content: bytes) -> list[str]:
    return re.findall(r'"name": "(.*?)", "value"', content.partition(b"\n\n")[0].decode("latin-1"))


def parsed(content: bytes) -> dict[tuple[Any, ...], Any]:
    """Every value of a DICOM file by its place."""
    with pydicom_config.disable_value_validation(), python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content), force=True)
        return dict(_values(dataset, ()))


def _values(dataset: Dataset, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except NotImplementedError:  # a VR that is none
            yield (*place, str(tag)), "no value"
            continue
        here = (*place, element.keyword or str(element.tag))
        if element.VR == "SQ":
            yield here, len(element.value)
            for n, item in enumerate(element.value):
                yield from _values(item, (*here, n))
        else:
            yield here, str(element.value)


def differing(whole: dict[tuple[Any, ...], Any], damaged: dict[tuple[Any, ...], Any]) -> set[str]:
    """Keywords of values that differ, are gone, or are new."""
    found = {place[-1] for place in whole.keys() & damaged.keys() if whole[place] != damaged[place]}
    return found | {place[-1] for place in whole.keys() ^ damaged.keys()}


def differing_fields(whole: bytes, damaged: bytes) -> set[str]:
    """Fields of a NRRD header that differ, those of segments without their numbers; the voxels have a checksum."""
    texts = [content.partition(b"\n\n")[0].decode("latin-1").splitlines() for content in (whole, damaged)]
    if len(texts[0]) != len(texts[1]):
        return {"lines"}
    lines = [line for pair in zip(*texts, strict=True) if pair[0] != pair[1] for line in pair]
    return {line.partition(":")[0].rpartition("_")[2].lower() for line in lines}


def test_what_is_compressed_has_a_checksum(study: Study) -> None:
    """What `is_another_file` rests on for .seg.nrrd and .nii.gz: no voxel can change unnoticed."""
    voxels = study.files["seg.nrrd"].read_bytes().partition(b"\n\n")[2]
    for packed in (voxels, study.files["nifti.gz"].read_bytes()):
        raw = bytearray(packed)
        raw[len(raw) // 2] ^= 1
        with pytest.raises(Exception, match="CRC|invalid|incorrect|distance|code"):
            gzip.decompress(bytes(raw))


def test_a_seg_nrrd_that_goes_on_after_its_voxels_is_damaged(study: Study, tmp_path: Path) -> None:
    """Bits flipped in a compressed stream can make it longer; its checksum, at the end, is looked at all the same."""
    head, _, packed = study.files["seg.nrrd"].read_bytes().partition(b"\n\n")
    longer = gzip.compress(gzip.decompress(packed) + b"\x01")
    (tmp_path / "longer.seg.nrrd").write_bytes(head + b"\n\n" + longer[:-8] + bytes(8))
    with pytest.raises(SoarsError, match="damaged"):
        read_structures(tmp_path / "longer.seg.nrrd")
