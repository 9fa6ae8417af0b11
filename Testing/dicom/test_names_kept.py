"""Names survive: patients' in the character sets of the world, and ROIs' that look like paths."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from soars.cli import main
from soars.ct.series import read_series
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.formats.maskfolder import write_mask_folder
from soars.formats.reading import read_structures
from soars.structures import Geometry, StructureSet

Write = Callable[..., list[Path]]

PATIENTS = {
    "ISO_IR 100": "Müller^Jörg",
    "ISO_IR 101": "Łukasz^Żółć",
    "ISO_IR 109": "Ħaż-Żebbuġ^Ġorġ",
    "ISO_IR 110": "Ķēniņš^Jānis",
    "ISO_IR 144": "Люкceмбypг^Иван",
    "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 126": "Διονυσιος^Νικος",
    "ISO_IR 138": "שרון^דבורה",
    "ISO_IR 148": "Çavuşoğlu^Şükrü",
    "ISO_IR 166": "สมชาย^ใจดี",
    "ISO_IR 192": "Wang^XiaoDong=王^小東",
    "GB18030": "Wang^XiaoDong=王^小东",
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
}
"""Specific Character Set (PS3.3 C.12.1.1.2) and a name that needs it; names after PS3.5, annexes H to K."""


@pytest.mark.parametrize("charset", PATIENTS)
def test_a_patients_name_is_the_same_in_the_rtstruct(tmp_path: Path, ct_series: Write, charset: str) -> None:
    name = PATIENTS[charset]

    def edit(ds: pydicom.Dataset, k: int) -> None:
        ds.SpecificCharacterSet = charset.split("\\")
        ds.PatientName = name

    ct_series(tmp_path / "ct", edit=edit)
    raw = pydicom.dcmread(tmp_path / "ct" / "slice_00.dcm")
    assert str(raw.PatientName) == name, "the CT itself holds the name"
    image, series, warnings = read_series(tmp_path / "ct")
    assert warnings == []
    structures = StructureSet(Geometry.of(image))
    structures.add_crop("Brainstem", (1, 2, 3), np.ones((2, 3, 4), dtype=bool))
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    found = pydicom.dcmread(tmp_path / "rt.dcm")
    assert str(found.PatientName) == name
    assert found.SpecificCharacterSet in ("ISO_IR 100", "ISO_IR 192")
    assert read_rtstruct(tmp_path / "rt.dcm", structures.geometry, series).names == ("Brainstem",)


PATH_LIKE = (
    "../../escape", "..", ".", "/absolute", "a/b", "C:/Users/x", "con", "aux.txt", "~", "name.nii.gz", ".hidden",
    "Parotis links", "трахея", "唾液腺", "100%", "a%2Fb", "PRV+5mm", "x" * 64,
    "COM1", "nul.txt", "Heart", "heart", "HEART", "腫瘍" * 32, "Ose\u0301fago", "a<b>|c?*", "naïve", "NAÏVE", "😀",
)  # fmt: skip


def test_rois_whose_names_look_like_paths_come_through_a_folder_of_masks_and_back(
    tmp_path: Path, ct_series: Write
) -> None:
    ct_series(tmp_path / "ct")
    image, series, _ = read_series(tmp_path / "ct")
    structures = StructureSet(Geometry.of(image))
    for k, name in enumerate(PATH_LIKE):
        structures.add_crop(name, (1 + k % 3, 2, 2 + k % 8), np.ones((1, 3, 2), dtype=bool))
    write_rtstruct(structures, tmp_path / "in.dcm", series)
    assert read_rtstruct(tmp_path / "in.dcm", structures.geometry, series).names == PATH_LIKE
    before = set(tmp_path.parent.rglob("*"))
    there = ["convert", str(tmp_path / "in.dcm"), str(tmp_path / "masks"), "--ct", str(tmp_path / "ct")]
    back = ["convert", str(tmp_path / "masks"), str(tmp_path / "out.dcm"), "--ct", str(tmp_path / "ct")]
    assert main(there) == 0 and main(back) == 0
    found = read_rtstruct(tmp_path / "out.dcm", structures.geometry, series)
    assert sorted(found.names) == sorted(PATH_LIKE)
    assert all(found.crop(name).equals(structures.crop(name)) for name in PATH_LIKE)
    new = {path for path in set(tmp_path.parent.rglob("*")) - before if path != tmp_path / "out.dcm"}
    assert all(path == tmp_path / "masks" or path.parent == tmp_path / "masks" for path in new)


def test_files_of_masks_can_be_copied_to_any_system(tmp_path: Path) -> None:
    """No two that are one on Windows or macOS, no device of Windows, none of its characters, 255 bytes at most."""
    structures = StructureSet(Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    for name in PATH_LIKE:
        structures.add(name, np.ones((4, 4, 4), dtype=bool))
    files = [path.name for path in write_mask_folder(structures, tmp_path / "masks")]
    assert len({unicodedata.normalize("NFC", file).casefold() for file in files}) == len(PATH_LIKE)
    assert all(len(file.encode()) <= 255 and not set(file) & set('<>:"/\\|?*') for file in files)
    assert not any(file.lower().split(".")[0] in ("con", "aux", "nul", "com1") for file in files)
    assert "唾液腺.nii.gz" in files


def test_a_name_too_long_for_a_file_is_cut_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    structures = StructureSet(Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    for name in ("Brainstem", "x" * 300, "x" * 301, "腫" * 100):
        structures.add(name, np.ones((4, 4, 4), dtype=bool))
    files = [path.name for path in write_mask_folder(structures, tmp_path / "masks")]
    assert len(set(files)) == 4 and [len(file.encode()) for file in files[1:]] == [255, 255, 253]
    assert files[3].startswith("腫" * 79 + "~") and caplog.text.count("too long for a file") == 3
    read = read_structures(tmp_path / "masks")
    assert len(read) == 4 and read.names[0] == "Brainstem"
