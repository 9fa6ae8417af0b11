"""The fast ways through a CT series give what pydicom and GDCM give, and leave to these whatever is not plain."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from soars.ct import dicom_files as files
from soars.ct import volume
from soars.ct.dicom_files import read_header
from soars.ct.series import read_series


def nested(ds: Dataset, k: int) -> None:
    """Sequences of undefined length, in one another, before the attributes that are needed."""
    inner, outer = Dataset(), Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3.4"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    ds.ReferencedStudySequence = Sequence([outer, Dataset()])
    for sequence in (ds["ReferencedStudySequence"], outer["PurposeOfReferenceCodeSequence"]):
        sequence.is_undefined_length = True
        for item in sequence.value:
            item.is_undefined_length_sequence_item = True


def implicit(ds: Dataset, k: int) -> None:
    nested(ds, k)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    ds.PixelPaddingValue = 3


def signed_padding(ds: Dataset, k: int) -> None:
    ds.PixelRepresentation = 1
    ds.PixelPaddingValue = -2000


def by_pydicom(path: Path, monkeypatch: pytest.MonkeyPatch) -> files.Header:
    with monkeypatch.context() as patch:
        patch.setattr(files, "quick_header", lambda path, wanted: None)
        return read_header(path)


@pytest.mark.parametrize("edit", [nested, implicit, signed_padding, lambda ds, k: None])
def test_the_quick_header_is_pydicoms(tmp_path, ct_series, edit, monkeypatch):
    path = ct_series(tmp_path, edit=edit)[2]
    quick = files.quick_header(path, files._WANTED)
    assert quick is not None
    same_headers(read_header(path), by_pydicom(path, monkeypatch))


def test_the_quick_header_of_real_files_is_pydicoms(shared, monkeypatch):
    paths = sorted((shared / "data" / "ct_hn").glob("*.dcm"))[::9]
    assert len(paths) > 5
    for path in paths:
        same_headers(read_header(path), by_pydicom(path, monkeypatch))


def same_headers(a: files.Header, b: files.Header) -> None:
    assert (a.transfer_syntax, a.pixels_at) == (b.transfer_syntax, b.pixels_at)
    for keyword in files._KEYWORDS:
        assert a.number(keyword) == b.number(keyword), keyword
        if keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            count = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}[keyword]
            assert a.numbers(keyword, count) == b.numbers(keyword, count)
        elif keyword == "ImageType":
            assert list(a.values[keyword]) == list(b.values[keyword])
        else:
            assert a.text(keyword) == b.text(keyword), keyword


@pytest.mark.parametrize(
    "edit",
    [
        lambda ds, k: ds.__setitem__(0x00280030, pydicom.DataElement(0x00280030, "LO", "wide")),
        lambda ds, k: (setattr(ds, "SpecificCharacterSet", "ISO_IR 100"), setattr(ds, "SeriesDescription", "Schädel")),
    ],
    ids=["another VR", "not ASCII"],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_pydicom(tmp_path, ct_series, edit):
    path = ct_series(tmp_path, edit=edit)[0]
    assert files.quick_header(path, files._WANTED) is None


def test_a_header_that_ends_early_is_left_to_pydicom(tmp_path, ct_series):
    whole = ct_series(tmp_path)[0].read_bytes()
    cut = tmp_path / "cut.dcm"
    for size in (0, 100, 131, 140, 300, 500, 700):
        cut.write_bytes(whole[:size])
        assert files.quick_header(cut, files._WANTED) is None


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("intercept", [-1024, 0, 100])
def test_values_are_those_that_gdcm_gives(tmp_path, ct_series, signed, bits, intercept, monkeypatch):
    """Every stored value of so many bits, and bits above them that mean nothing."""
    rng = np.random.default_rng(bits)
    low = -(1 << bits - 1) if signed else 0
    stored = rng.integers(low, low + (1 << bits), (6, 16, 20))

    def edit(ds: Dataset, k: int) -> None:
        ds.PixelRepresentation = int(signed)
        ds.BitsStored, ds.HighBit = bits, bits - 1
        ds.RescaleIntercept = str(intercept)
        ds.PixelData = stored[k].astype("<i2" if signed else "<u2").tobytes()

    ct_series(tmp_path, edit=edit)
    monkeypatch.setattr(volume, "check_range", lambda *_, **__: [])  # not all of them are HU
    fast, _, warnings = read_series(tmp_path)
    monkeypatch.setattr(volume, "_is_plain", lambda header, rescale: False)
    slow, _, same_warnings = read_series(tmp_path)
    assert warnings == same_warnings
    expected = np.clip(stored + intercept, -1024, 32767)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(fast), expected)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(slow), expected)


def test_one_slice_on_another_scale_is_told(tmp_path, ct_series):
    ct_series(tmp_path, edit=lambda ds, k: setattr(ds, "RescaleIntercept", "-1024" if k != 3 else "0"))
    _, _, warnings = read_series(tmp_path)
    assert any("slice_03.dcm) differs" in w for w in warnings), warnings


def test_two_scales_of_which_neither_prevails_are_told_and_one_for_each_slice_is_not(tmp_path, ct_series):
    def scale(tens):
        return lambda ds, k: setattr(ds, "RescaleIntercept", str(-1024 + tens[k]))

    ct_series(tmp_path / "two", edit=scale([0, 10, 0, 10, 0, 10]))
    assert any("differs" in warning for warning in read_series(tmp_path / "two")[2])
    ct_series(tmp_path / "each", edit=scale([0, 10, 20, 30, 40, 50]))
    assert not any("differs" in warning for warning in read_series(tmp_path / "each")[2])


def test_the_folder_is_not_kept_open(tmp_path, ct_series):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    ct_series(tmp_path / "ct")
    read_series(tmp_path / "ct")
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
