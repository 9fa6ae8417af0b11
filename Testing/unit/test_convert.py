"""``soars convert``: any kind of structure file into any other, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.dicom.write import write_ct_series
from soars.formats.reading import read_structures
from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry, StructureSet

Output = pytest.CaptureFixture[str]

OUTPUTS = ["out.dcm", "out.seg.nrrd", "out.nrrd", "out.nii.gz", "out"]


GRID = Geometry((20, 18, 8), (1.0, 1.5, 3.0), (-30.0, 12.0, 5.0))


def ct_image() -> sitk.Image:
    """A block of 1000 HU in air."""
    hu = np.full(GRID.shape, -1000, dtype=np.int16)
    hu[2:6, 4:14, 4:16] = 1000
    return GRID.place(sitk.GetImageFromArray(hu))


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """That image as a DICOM series."""
    write_ct_series(ct_image(), tmp_path / "ct", patient_id="p", patient_name="n")
    return tmp_path / "ct"


@pytest.fixture
def organs(tmp_path: Path) -> StructureSet:
    """Eye and lens, which overlap, and an empty organ, also as in.seg.nrrd."""
    structures = StructureSet(GRID)
    structures.add_crop("Eye_L", (1, 2, 3), np.ones((4, 5, 6), dtype=bool))
    structures.add_crop("Lens_L", (2, 1, 4), np.ones((1, 3, 3), dtype=bool))
    structures.add_crop("Pituitary", (0, 0, 0), np.zeros((1, 1, 1), dtype=bool))
    write_seg_nrrd(structures, tmp_path / "in.seg.nrrd")
    return structures


@pytest.mark.parametrize("first", OUTPUTS)
@pytest.mark.parametrize("second", OUTPUTS)
def test_every_kind_converts_to_every_other_without_loss(
    first: str, second: str, ct: Path, organs: StructureSet, tmp_path: Path, capsys: Output
) -> None:
    middle, last = tmp_path / "a" / first, tmp_path / "b" / second
    middle.parent.mkdir()
    last.parent.mkdir()
    assert main(["convert", str(tmp_path / "in.seg.nrrd"), str(middle), "--ct", str(ct)]) == 0
    assert main(["convert", str(middle), str(last), "--ct", str(ct)]) == 0
    out, err = capsys.readouterr()
    assert "3 structures (1 of them empty: Pituitary) written to" in out
    assert all("the CT covers only" in line for line in err.splitlines())  # it is that small
    read = read_structures(last, organs.geometry)
    assert set(read.names) == set(organs.names)
    for name in organs:
        assert read.crop(name).equals(organs.crop(name)), name


def refused(arguments: list[object], capsys: Output) -> str:
    assert main(["convert", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("soars: error: ") and err.count("\n") == 1
    return err


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_what_is_there_is_replaced_only_when_asked(
    organs: StructureSet, tmp_path: Path, capsys: Output
) -> None:
    target = tmp_path / "out.nii.gz"
    target.write_text("before")
    assert "--overwrite" in refused([tmp_path / "in.seg.nrrd", target], capsys)
    assert target.read_text() == "before"
    assert main(["convert", str(tmp_path / "in.seg.nrrd"), str(target), "--overwrite"]) == 0
    assert read_structures(target).names == organs.names


def test_bad_uses_say_what_to_do_and_write_nothing(
    organs: StructureSet, tmp_path: Path, capsys: Output
) -> None:
    source = tmp_path / "in.seg.nrrd"
    before = names(tmp_path)
    assert "--ct" in refused([source, tmp_path / "out.dcm"], capsys)
    assert "out.txt" in refused([source, tmp_path / "out.txt"], capsys)
    assert "absent" in refused([tmp_path / "absent", tmp_path / "out"], capsys)
    assert "is the input" in refused([source, source, "--overwrite"], capsys)
    assert "--ct" in refused([source, tmp_path / "out", "--series", "1.2"], capsys)
    assert "no folder" in refused([source, tmp_path / "absent" / "out.seg.nrrd"], capsys)
    assert names(tmp_path) == before


def test_an_rtstruct_references_a_dicom_ct_only(organs: StructureSet, tmp_path: Path, capsys: Output) -> None:
    sitk.WriteImage(ct_image(), str(tmp_path / "ct.nrrd"))
    arguments = [tmp_path / "in.seg.nrrd", tmp_path / "out.dcm", "--ct", tmp_path / "ct.nrrd"]
    assert "DICOM folder" in refused(arguments, capsys)


def test_a_damaged_input_is_named(organs: StructureSet, tmp_path: Path, capsys: Output) -> None:
    source = tmp_path / "in.seg.nrrd"
    source.write_bytes(source.read_bytes()[:-30])
    assert "in.seg.nrrd is cut short" in refused([source, tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()
