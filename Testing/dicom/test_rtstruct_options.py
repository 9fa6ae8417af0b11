"""RTSTRUCT as a site wants it: its own names, how each organ was made, without the patient's identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_standard import dicom_validator_errors
from pydicom.dataset import Dataset

from soars.cli import main
from soars.ct.series import CtSeries, read_series
from soars.dicom.provenance import GENERATION_TAG
from soars.dicom.rtstruct import read_roi_names, read_rtstruct, write_rtstruct
from soars.errors import InputError
from soars.formats.reading import read_structures
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd
from soars.structures import Geometry, StructureInfo, StructureSet

Edit = Callable[[Dataset, int], None]


@pytest.fixture
def a_ct(
    ct_series: Callable[..., list[Path]], tmp_path: Path
) -> Callable[..., tuple[StructureSet, CtSeries]]:
    """Three organs on a CT whose slices a test may edit."""

    def make(edit: Edit | None = None) -> tuple[StructureSet, CtSeries]:
        ct_series(tmp_path / "ct", edit=edit)
        image, series, _ = read_series(tmp_path / "ct")
        structures = StructureSet(Geometry.of(image))
        structures.add_crop("Parotid_L", (1, 2, 3), np.ones((2, 3, 4), dtype=bool))
        structures.add_crop("Brainstem", (2, 8, 9), np.ones((2, 3, 4), dtype=bool))
        structures.add_crop("Tumour", (2, 6, 6), np.ones((1, 1, 1), dtype=bool))
        return structures, series

    return make


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "names.csv"
    path.write_text(text, encoding="utf-8")
    return path


# --- names ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "organ,name\nParotid_L,Parotis li\nTumour,GTV\n",
        "Left Parotid,Parotis li\n\nTumour,GTV\n",
        "\ufefforgan;name\r\nParotid_L; Parotis li \r\nTumour;GTV\r\n",
    ],
)
def test_a_site_s_names(
    text: str, a_ct: Callable[..., tuple[StructureSet, CtSeries]], tmp_path: Path
) -> None:
    structures, series = a_ct()
    names = read_roi_names(table(tmp_path, text))
    assert names == {"Parotid_L": "Parotis li", "Tumour": "GTV"}
    write_rtstruct(structures, tmp_path / "rt.dcm", series, roi_names=names)
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["Parotis li", "Brainstem", "GTV"]
    # the code says what it is, whatever it is called
    code = dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert code.CodeValue == "45289007"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no names"),
        ("organ,name\n", "holds no names"),
        ("Parotid_L\n", "line 1: an organ and its name are needed"),
        ("Parotid_L,a,b\n", "line 1: an organ and its name are needed"),
        ("organ,name\nParotid_L,\n", "line 2: an organ and its name are needed"),
        ("Parotid_L,a\nLeft Parotid,b\n", "line 2: Parotid_L has a name already, 'a'"),
        ("Parotid_L,a\nParotid_R,a\n", "line 2: 'a' is the name of another organ"),
        ("Parotid_L," + "a" * 65 + "\n", "at most 64 printable characters"),
        ("Parotid_L,a\\b\n", "no backslash"),
    ],
)
def test_a_table_of_names_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_roi_names(table(tmp_path, text))
    assert "names.csv" in str(error.value)


def test_a_table_of_names_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_bytes(b"Parotid_L,\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_roi_names(tmp_path / "names.csv")
    with pytest.raises(InputError, match="cannot read"):
        read_roi_names(tmp_path / "absent.csv")


def test_two_structures_may_not_get_one_name(
    a_ct: Callable[..., tuple[StructureSet, CtSeries]], tmp_path: Path
) -> None:
    structures, series = a_ct()
    with pytest.raises(InputError, match="'Parotid_L' and 'Tumour' would both be called 'Tumour'"):
        write_rtstruct(structures, tmp_path / "rt.dcm", series, roi_names={"Parotid_L": "Tumour"})
    assert not (tmp_path / "rt.dcm").exists()


# --- how it was made -----------------------------------------------------------------------------------------
def test_how_an_organ_was_made_goes_with_it(
    a_ct: Callable[..., tuple[StructureSet, CtSeries]], tmp_path: Path
) -> None:
    structures, series = a_ct()
    structures.info["Brainstem"] = StructureInfo(tags={GENERATION_TAG: "SEMIAUTOMATIC"})
    structures.info["Tumour"] = StructureInfo(tags={GENERATION_TAG: "MANUAL"})
    write_seg_nrrd(structures, tmp_path / "s.seg.nrrd")
    write_rtstruct(read_seg_nrrd(tmp_path / "s.seg.nrrd"), tmp_path / "1.dcm", series)
    write_rtstruct(read_rtstruct(tmp_path / "1.dcm", structures.geometry), tmp_path / "2.dcm", series)
    for name in ("1.dcm", "2.dcm"):
        made = [
            roi.ROIGenerationAlgorithm for roi in pydicom.dcmread(tmp_path / name).StructureSetROISequence
        ]
        assert made == ["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]


# --- identity ------------------------------------------------------------------------------------------------
def identified(ds: Dataset, k: int) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.PatientID = "Müller^Änne", "secret-number"
    ds.PatientBirthDate, ds.PatientSex = "19500102", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID = "20190304", "101112", "S-55"
    ds.AccessionNumber, ds.ReferringPhysicianName = "A-77", "Doe^John"
    ds.StudyDescription = "HNO Müller"
    ds.InstitutionName = "Some Hospital"
    ds.add_new(0x00091001, "LO", "private text")


def values(dataset: Dataset) -> str:
    return "\n".join(str(element.value) for element in dataset.iterall() if element.VR != "SQ")


def test_patient_and_study_are_the_ct_s(
    a_ct: Callable[..., tuple[StructureSet, CtSeries]],
    dciodvfy: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    structures, series = a_ct(identified)
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    ct = pydicom.dcmread(series.files[0])
    for keyword in (
        "PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime StudyID "
        "AccessionNumber ReferringPhysicianName StudyDescription FrameOfReferenceUID"
    ).split():
        assert dataset[keyword].value == ct[keyword].value, keyword
    assert dataset.SpecificCharacterSet == "ISO_IR 100"  # not every planning system knows UTF-8
    assert dciodvfy(tmp_path / "rt.dcm") == "" and dicom_validator_errors(tmp_path / "rt.dcm") == []
    assert not [element for element in dataset.iterall() if element.tag.is_private]


def test_a_name_beyond_latin_1_is_kept(
    a_ct: Callable[..., tuple[StructureSet, CtSeries]], dciodvfy: Callable[[Path], str], tmp_path: Path
) -> None:
    structures, series = a_ct()
    structures.rename("Tumour", "腫瘍")
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    assert (dataset.SpecificCharacterSet, dataset.StructureSetROISequence[2].ROIName) == (
        "ISO_IR 192",
        "腫瘍",
    )
    assert dciodvfy(tmp_path / "rt.dcm") == ""
    assert read_rtstruct(tmp_path / "rt.dcm", structures.geometry, series).names[2] == "腫瘍"


def test_a_de_identified_file_says_nothing_of_the_patient(
    a_ct: Callable[..., tuple[StructureSet, CtSeries]],
    dciodvfy: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    structures, series = a_ct(identified)
    write_rtstruct(structures, tmp_path / "rt.dcm", series, pseudonym="case 12")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    text = values(dataset)
    for secret in (
        "Müller",
        "secret",
        "19500102",
        "20190304",
        "101112",
        "S-55",
        "A-77",
        "Doe",
        "HNO",
        "Hospital",
    ):
        assert secret not in text
    assert (str(dataset.PatientName), dataset.PatientID) == ("case 12", "case 12")
    assert (dataset.PatientIdentityRemoved, dataset.StructureSetDate) == ("YES", "")
    assert "InstanceCreationDate" not in dataset
    assert dciodvfy(tmp_path / "rt.dcm") == "" and dicom_validator_errors(tmp_path / "rt.dcm") == []
    # it still is this CT's
    assert read_rtstruct(tmp_path / "rt.dcm", structures.geometry, series).names == structures.names


def test_a_ct_that_was_de_identified_stays_so(
    a_ct: Callable[..., tuple[StructureSet, CtSeries]], tmp_path: Path
) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "by hand"

    structures, series = a_ct(edit)
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    assert (dataset.PatientIdentityRemoved, dataset.DeidentificationMethod) == ("YES", "by hand")


@pytest.mark.parametrize(
    ("keyword", "raw"),
    [
        ("StudyDate", b"04.03.2019"),
        ("StudyTime", b"25:61 o'clock "),
        ("AccessionNumber", b"longer than sixteen characters"),
        ("PatientBirthDate", b"unknown "),
        ("PatientSex", b"female, it seems so "),
        ("PatientSex", b"FEMALE"),
        ("StudyID", b"a\\b "),
    ],
)
def test_a_ct_s_value_that_is_not_valid_does_not_stop_the_file_nor_spoil_it(
    keyword: str,
    raw: bytes,
    a_ct: Callable[..., tuple[StructureSet, CtSeries]],
    dciodvfy: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    structures, series = a_ct()
    header = Dataset()
    header.update(series.header)
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    vr = pydicom.datadict.dictionary_VR(tag)
    raw_element = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(tag), vr, len(raw), raw, 0, False, True)
    header[pydicom.tag.Tag(tag)] = raw_element
    write_rtstruct(structures, tmp_path / "rt.dcm", replace(series, header=header))
    assert dciodvfy(tmp_path / "rt.dcm") == ""
    assert keyword in pydicom.dcmread(tmp_path / "rt.dcm")


# --- on the command line -------------------------------------------------------------------------------------
def test_convert_has_it_all(
    a_ct: Callable[..., tuple[StructureSet, CtSeries]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structures, series = a_ct(identified)
    write_rtstruct(structures, tmp_path / "rt.dcm", replace(series, frame_of_reference_uid="1.2.3.4.5.6"))
    command = ["convert", str(tmp_path / "rt.dcm"), str(tmp_path / "out.dcm"), "--ct", str(tmp_path / "ct")]
    assert main(command) == 2
    assert "--any-frame" in capsys.readouterr().err
    names = table(tmp_path, "Parotid_L,Parotis li\n")
    command += ["--any-frame", "--roi-names", str(names), "--pseudonym", "case 12"]
    assert main(command) == 0
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    assert dataset.FrameOfReferenceUID == series.frame_of_reference_uid
    assert [r.ROIName for r in dataset.StructureSetROISequence] == ["Parotis li", "Brainstem", "Tumour"]
    assert dataset.PatientID == "case 12" and "Müller" not in values(dataset)


def test_options_of_an_rtstruct_are_refused_for_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.seg.nrrd").write_bytes(b"")
    command = ["convert", str(tmp_path / "in.seg.nrrd"), str(tmp_path / "out.nrrd"), "--pseudonym", "a"]
    assert main(command) == 2
    assert "are for an RTSTRUCT" in capsys.readouterr().err


# --- what made the contours ------------------------------------------------------------------------------------
def test_the_model_that_proposed_an_organ_is_in_the_file(
    ct_series: Callable[..., list[Path]], tmp_path: Path, dciodvfy: Callable[[Path], str]
) -> None:
    """ROI Generation Description (3006,0038) for each ROI, and the whole hash in the Contributing Equipment Sequence
    (0018,A001); organs that nobody's model made say nothing. They come through a .seg.nrrd."""
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    structures = StructureSet(Geometry.of(image))
    models = {"Brainstem": ("starter 1.2", "ab" * 32), "Lens_L": ("other 2.0", "cd" * 32), "Parotid_L": None}
    for z, (organ, model) in enumerate(models.items()):
        tags = {"SOARS.bundle": model[0], "SOARS.bundle_sha256": model[1]} if model else {}
        structures.add_crop(organ, (z, 2, 3), np.ones((2, 3, 4), dtype=bool), StructureInfo(tags=tags))
    write_seg_nrrd(structures, tmp_path / "s.seg.nrrd")
    write_rtstruct(read_structures(tmp_path / "s.seg.nrrd"), tmp_path / "rt.dcm", series)
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    told = {roi.ROIName: roi.get("ROIGenerationDescription") for roi in dataset.StructureSetROISequence}
    assert told == {
        "Brainstem": f"starter 1.2, sha256 {'ab' * 8}",
        "Lens_L": f"other 2.0, sha256 {'cd' * 8}",
        "Parotid_L": None,
    }
    equipment = [
        (i.ManufacturerModelName, i.ContributionDescription) for i in dataset.ContributingEquipmentSequence
    ]
    assert [name for name, _ in equipment] == ["starter 1.2", "other 2.0"]
    assert "ab" * 32 in equipment[0][1] and "cd" * 32 in equipment[1][1]
    assert dciodvfy(tmp_path / "rt.dcm") == ""


def test_the_model_is_read_back_from_the_file(ct_series: Callable[..., list[Path]], tmp_path: Path) -> None:
    """Name, version and hash; where a program has dropped the equipment, the hash's first digits. Others' words on how
    they made an organ stay, and are written again."""
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    structures = StructureSet(Geometry.of(image))
    long_name = "a model with a very long name of more than 39 characters 1.2.3"
    tags = {
        "Brainstem": {"SOARS.bundle": "starter 1.2", "SOARS.bundle_sha256": "ab" * 32},
        "Lens_L": {
            "SOARS.bundle": long_name,
            "SOARS.bundle_sha256": "0f" * 32,
            GENERATION_TAG: "SEMIAUTOMATIC",
        },
        "Lens_R": {"SOARS.bundle": "no hash 1"},
        "Parotid_L": {"RTSTRUCT.ROIGenerationDescription": "Contour Pro 3.1"},
        "Parotid_R": {},
    }
    for z, (organ, own) in enumerate(tags.items()):
        structures.add_crop(organ, (z, 2, 3), np.ones((2, 3, 4), dtype=bool), StructureInfo(tags=own))
    path = tmp_path / "rt.dcm"
    for _ in range(2):  # there and back twice
        write_rtstruct(structures, path, series)
        structures = read_rtstruct(path, structures.geometry, series)
    read = {name: structures.info[name].tags for name in structures}
    for organ in ("Brainstem", "Lens_L", "Parotid_L"):
        assert read[organ].items() >= tags[organ].items()
    assert read["Lens_R"]["RTSTRUCT.ROIGenerationDescription"] == "no hash 1"
    assert set(read["Parotid_R"]) == {GENERATION_TAG}

    dataset = pydicom.dcmread(path)
    del dataset.ContributingEquipmentSequence
    dataset.save_as(path)
    info = read_rtstruct(path, structures.geometry, series).info
    assert info["Brainstem"].tags["SOARS.bundle"] == "starter 1.2"
    assert info["Brainstem"].tags["SOARS.bundle_sha256"] == "ab" * 8
    assert info["Lens_L"].tags["SOARS.bundle"] == long_name[:39]
