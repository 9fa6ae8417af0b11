"""300 damaged files through the command line: cut short, an element taken away, a value replaced.

Each gives either the result of the whole file, or a message; never a traceback, an endless wait, or another result in
silence. The damage is drawn from fixed seeds.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import config as pydicom_config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from soars.cli import main
from soars.ct.series import read_series
from soars.dicom.rtstruct import write_rtstruct
from soars.dicom.write import write_ct_series, write_rtdose
from soars.formats.segnrrd import read_seg_nrrd
from soars.structures import Geometry, StructureSet

FILES = 100
"""Of each kind."""
LONGEST_S = 10.0
VALUES = ("", "x", "-1", "0", "999999", "1.2.3", "1e400", "nan")
FREE = {
    "ROIName", "ROIDisplayColor", "ROIGenerationAlgorithm",
    # The patient's own position and the CT's values: another one is as good a value, and nothing else tells of it.
    "PatientPosition", "RescaleIntercept", "RescaleSlope", "DoseGridScaling", "WindowCenter", "WindowWidth",
}  # fmt: skip
"""Values that a file is free to have: replaced by another valid one, it is another file, not a damaged one."""


@dataclass(frozen=True)
class Study:
    ct: Path
    rtstruct: Path
    dose: Path


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
    structures = StructureSet(Geometry.of(ct))
    for name, box in (("Brainstem", np.s_[1:6, 6:12, 6:14]), ("Parotid_L", np.s_[2:5, 8:15, 16:22])):
        mask = np.zeros(hu.shape, bool)
        mask[box] = True
        structures.add(name, mask)
    write_rtstruct(structures, folder / "rtstruct.dcm", series)
    z, y, x = np.indices(hu.shape)
    dose = sitk.GetImageFromArray((1.0 * x + 0.5 * y + 2.0 * z).astype(np.float32))
    dose.CopyInformation(ct)
    write_rtdose(dose, folder / "dose.dcm", series)
    return Study(folder / "ct", folder / "rtstruct.dcm", folder / "dose.dcm")


# --- damage -------------------------------------------------------------------------------------------------------
def elements(dataset: Dataset) -> Iterator[tuple[Dataset, DataElement]]:
    for element in dataset:
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)


def damage(source: Path, target: Path, seed: int) -> str:
    """Write a damaged copy; returns what was done."""
    rng = random.Random(seed)
    kind = ("cut", "removed", "replaced")[seed % 3]
    content = source.read_bytes()
    if kind == "cut":
        length = rng.randrange(len(content))
        target.write_bytes(content[:length])
        return f"cut at {length} of {len(content)}"
    dataset = pydicom.dcmread(source)
    owner, element = rng.choice(list(elements(dataset)))
    if kind == "removed":
        del owner[element.tag]
        what = f"{element.keyword} removed"
    else:
        value = rng.choice(VALUES)
        what = f"{element.keyword} replaced by {value!r}"
        with pydicom_config.disable_value_validation():
            if element.VR == "SQ":
                owner[element.tag].value = []
            elif element.VR in ("US", "SS", "UL", "SL", "FL", "FD"):
                owner[element.tag].value = rng.randrange(1000)
                what = f"{element.keyword} replaced by {owner[element.tag].value}"
            elif element.VR in ("OW", "OB"):
                owner[element.tag].value = rng.randbytes(2 * rng.randrange(50))
            else:
                _put_text(owner, element, value)
    with pydicom_config.disable_value_validation():
        try:
            dataset.save_as(target)
        except (
            Exception
        ):  # what pydicom does not write can still be on a disk, but not by this way: cut it instead
            target.write_bytes(content[: len(content) // 2])
            what = "cut in the middle"
    return what


def _put_text(owner: Dataset, element: DataElement, value: str) -> None:
    """A text value as it would be in the file, also where it is no number."""
    raw = value.encode() + b" " * (len(value) % 2)
    owner[element.tag] = pydicom.dataelem.RawDataElement(
        element.tag, element.VR, len(raw), raw, 0, owner.is_implicit_VR or False, True
    )


# --- what a command makes of it -----------------------------------------------------------------------------------
def outcome(capsys: pytest.CaptureFixture[str], what: str, arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output and what was said; never a traceback, never long."""
    capsys.readouterr()
    start = time.monotonic()
    code = main(arguments)
    taken = time.monotonic() - start
    out, err = capsys.readouterr()
    assert code in (0, 2), f"{what}: exit code {code}: {err}"
    assert "Traceback" not in err and "internal error" not in err, f"{what}: {err}"
    assert taken < LONGEST_S, f"{what}: {taken:.1f} s"
    if code == 2:
        assert err.count("soars: error: ") == 1, f"{what}: {err}"
    return code, out, err


def free(what: str) -> bool:
    return what.split()[0] in FREE


@pytest.mark.parametrize("seed", range(FILES))
def test_a_damaged_rtstruct(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    what = damage(study.rtstruct, tmp_path / "damaged.dcm", seed)
    out = tmp_path / "out.seg.nrrd"
    code, _, said = outcome(
        capsys, what, ["convert", str(tmp_path / "damaged.dcm"), str(out), "--ct", str(study.ct)]
    )
    assert out.exists() == (code == 0), what
    if code == 0 and not said and not free(what):
        main(["convert", str(study.rtstruct), str(tmp_path / "whole.seg.nrrd"), "--ct", str(study.ct)])
        whole, found = read_seg_nrrd(tmp_path / "whole.seg.nrrd"), read_seg_nrrd(out)
        assert found.names == whole.names, what
        assert all(found.crop(name).equals(whole.crop(name)) for name in whole), what


@pytest.mark.parametrize("seed", range(1000, 1000 + FILES))
def test_a_damaged_slice_of_a_ct(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    folder = tmp_path / "ct"
    shutil.copytree(study.ct, folder)
    victim = sorted(folder.iterdir())[seed % 7]
    what = damage(victim, victim, seed)
    out = tmp_path / "out.seg.nrrd"
    code, _, said = outcome(capsys, what, ["convert", str(study.rtstruct), str(out), "--ct", str(folder)])
    assert out.exists() == (code == 0), what
    if code == 0 and not said and not free(what):
        image, _, _ = read_series(folder)
        whole, _, _ = read_series(study.ct)
        assert Geometry.of(image).same_as(Geometry.of(whole)), what
        np.testing.assert_array_equal(
            sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(whole), what
        )


@pytest.mark.parametrize("seed", range(2000, 2000 + FILES))
def test_a_damaged_dose(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    what = damage(study.dose, tmp_path / "damaged.dcm", seed)

    def table(path: Path) -> tuple[int, str, str]:
        names = [
            "--reference",
            str(study.rtstruct),
            "--substitute",
            str(study.rtstruct),
            "--ct",
            str(study.ct),
            "--csv",
            str(tmp_path / f"{path.stem}.csv"),
        ]
        return outcome(capsys, what, ["dose", "--dose", str(path), *names, "--progress", "none"])

    code, _, said = table(tmp_path / "damaged.dcm")
    assert (tmp_path / "damaged.csv").exists() == (code == 0), what
    if code == 0 and not said and not free(what):
        table(study.dose)
        assert (tmp_path / "damaged.csv").read_text() == (tmp_path / "dose.csv").read_text(), what


def test_a_damaged_file_in_a_process_of_its_own(study: Study, tmp_path: Path) -> None:
    """As a user starts it: what was odd, one error, exit code 2, nothing left behind."""
    (tmp_path / "cut.dcm").write_bytes(study.rtstruct.read_bytes()[:-300])
    command = [sys.executable, "-m", "soars.cli", "convert", "cut.dcm", "out.seg.nrrd", "--ct", str(study.ct)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    *before, error = result.stderr.splitlines()
    assert error.startswith("soars: error: ") and all(line.startswith("soars: warning: ") for line in before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.dcm"]
