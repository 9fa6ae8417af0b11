"""What a person reads: the warnings that were gathered come with an error, and the same words come once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.bundle.store import load_bundle
from soars.cli import main
from soars.ct.images import CtScan, read_ct
from soars.dicom.write import write_ct_series
from soars.errors import CancelledError, InputError, keeping_warnings
from soars.formats import write_seg_nrrd
from soars.run.segment import segment
from soars.structures import Geometry, StructureSet


def head(slices: int, spacing: tuple[float, float, float]) -> sitk.Image:
    hu = np.full((slices, 48, 48), -1000, np.int16)
    hu[:, 8:40, 8:40], hu[:, 8:10, 8:40] = 40, 900
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing)
    return image


def test_an_error_brings_the_warnings_that_were_gathered_before_it() -> None:
    gathered = ["first"]
    with pytest.raises(InputError) as caught, keeping_warnings(gathered):
        gathered.append("second")
        raise InputError("wrong")
    assert caught.value.warnings == ("first", "second") and str(caught.value) == "wrong"
    with pytest.raises(CancelledError) as cancelled, keeping_warnings(gathered):
        raise CancelledError("cancelled")
    assert cancelled.value.warnings == ()


@pytest.mark.parametrize(("slices", "thickness"), [(3, 1.5), (5, 1.0), (9, 0.6)])
def test_a_scan_that_is_too_short_is_called_so(slices: int, thickness: float) -> None:
    scan = CtScan(head(slices, (4.0, 4.0, thickness)), Path("ct"), None, ["an earlier warning"])
    with pytest.raises(
        InputError, match=rf"covers only {slices * thickness:.3g} mm from head to foot"
    ) as caught:
        segment(scan, load_bundle("phantom"))
    assert "an earlier warning" in caught.value.warnings


def test_the_command_line_shows_them_before_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ct_series(head(3, (4.0, 4.0, 1.5)), tmp_path / "ct", patient_id="P", patient_name="P", seed=1)
    arguments = ["segment", str(tmp_path / "ct"), "--output", str(tmp_path / "out"), "--bundle", "phantom"]
    assert main([*arguments, "--progress", "none"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("soars: error: the scan covers only 4.5 mm from head to foot")
    assert [line for line in lines if "the CT covers only 192 x 192 x 4.5 mm" in line] == lines[:-1]


def test_a_misspelt_character_set_is_one_line_with_a_count(
    tmp_path: Path, ct_series: Callable[..., list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    """pydicom says it of every text of every slice."""
    ct_series(
        tmp_path / "ct", slices=20, edit=lambda ds, k: setattr(ds, "SpecificCharacterSet", "ISO_IR 1OO")
    )
    scan = read_ct(tmp_path / "ct")
    structures = StructureSet(Geometry.of(scan.image))
    structures.add_crop("Brainstem", (1, 2, 3), np.ones((2, 3, 4), bool))
    write_seg_nrrd(structures, tmp_path / "s.seg.nrrd")
    capsys.readouterr()
    command = [
        "convert",
        str(tmp_path / "s.seg.nrrd"),
        str(tmp_path / "rt.dcm"),
        "--ct",
        str(tmp_path / "ct"),
    ]
    assert main(command) == 0
    about = [line for line in capsys.readouterr().err.splitlines() if "ISO_IR 1OO" in line]
    assert len(about) == 1 and about[0].startswith("soars: warning: ") and about[0].endswith("times)")
    assert logging.getLogger("pydicom").propagate
