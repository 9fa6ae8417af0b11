"""The files of a CT series: compressed, damaged, misplaced, and what a reader leaves untold."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless
from series_reading import hu_of, only_warning, refused, shifted

from soars.ct.images import read_ct
from soars.ct.series import read_series

# ---- compression


def compress_rle(path: Path) -> None:
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)


def compressor(program: str, *options: str):
    def compress(path: Path) -> None:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is not installed: apt-get install dcmtk")
        done = subprocess.run(
            [found, *options, str(path), str(path) + ".new"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        Path(str(path) + ".new").replace(path)

    return compress


@pytest.mark.parametrize(
    ("compress", "syntax"),
    [
        (compress_rle, "1.2.840.10008.1.2.5"),
        (compressor("dcmcrle"), "1.2.840.10008.1.2.5"),
        (compressor("dcmcjpeg", "+e1"), "1.2.840.10008.1.2.4.70"),
        (compressor("dcmcjpeg", "+el"), "1.2.840.10008.1.2.4.57"),
        (compressor("dcmcjpls", "+el"), "1.2.840.10008.1.2.4.80"),
        (compressor("dcmconv", "+tb"), "1.2.840.10008.1.2.2"),
        (compressor("dcmconv", "+ti"), "1.2.840.10008.1.2"),
        (compressor("dcmconv", "+td"), "1.2.840.10008.1.2.1.99"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["<u2", "<i2"])
def test_every_lossless_transfer_syntax_gives_the_same_voxels(
    tmp_path, ct_series, ramp, compress, syntax, dtype
):
    for path in ct_series(tmp_path, dtype=dtype):
        compress(path)
        assert pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
    image, _, warnings = read_series(tmp_path)
    assert warnings == []
    np.testing.assert_array_equal(hu_of(image), ramp())


def test_a_compression_that_is_not_read_is_named(tmp_path, ct_series):
    def htj2k(ds, k):
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        ds.PixelData = pydicom.encaps.encapsulate([b"\0" * 16])

    ct_series(tmp_path, edit=htj2k)
    refused(tmp_path, "slice_00.dcm", "High-Throughput JPEG 2000", "export it uncompressed")


def test_broken_compressed_pixels_are_refused_by_file(tmp_path, ct_series):
    files = ct_series(tmp_path)
    ds = pydicom.dcmread(files[3])
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 this is no JPEG"])
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    ds["PixelData"].VR = "OB"
    ds.save_as(files[3])
    refused(tmp_path, "slice_03.dcm", "cannot be decoded")


# ---- damaged files and folders


@pytest.mark.parametrize("encoded", [False, True])
def test_a_file_cut_off_in_its_pixels_is_refused(tmp_path, ct_series, encoded):
    files = ct_series(tmp_path)
    if encoded:
        compress_rle(files[3])
    raw = files[3].read_bytes()
    for lost in (1, 40, 200):
        files[3].write_bytes(raw[:-lost])
        refused(tmp_path, "slice_03.dcm", "cut off")


def test_a_file_cut_off_anywhere_in_its_header_is_refused(tmp_path, ct_series):
    files = ct_series(tmp_path)
    raw = files[3].read_bytes()
    pixels = raw.index(b"\xe0\x7f\x10\x00")
    for length in (140, 160, 300, 500, 700, pixels - 3, pixels, pixels + 4, pixels + 11, pixels + 12):
        files[3].write_bytes(raw[:length])
        refused(tmp_path, "slice_03.dcm")


def test_an_empty_file_is_refused_when_it_was_a_slice_and_ignored_otherwise(tmp_path, ct_series, ramp):
    files = ct_series(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "list.csv").write_text("a,b\n")
    np.testing.assert_array_equal(hu_of(only_warning(tmp_path, "2 files", "not DICOM")), ramp())
    files[3].write_bytes(b"")
    refused(tmp_path, "slice_03.dcm", "0 bytes")


def test_a_damaged_file_of_another_series_does_not_matter(tmp_path, ct_series, ramp):
    ct_series(tmp_path, prefix="a")
    other = ct_series(tmp_path, prefix="b", series_uid="1.2.3.2")
    other[0].write_bytes(other[0].read_bytes()[:-100])
    np.testing.assert_array_equal(hu_of(read_series(tmp_path, "1.2.3.1")[0]), ramp())


def test_folders_without_dicom_say_so(tmp_path):
    refused(tmp_path, str(tmp_path), "empty")
    (tmp_path / "notes.txt").write_text("no image")
    refused(tmp_path, "no DICOM image", "1 other file")
    refused(tmp_path / "nowhere", "no such folder")


def test_a_series_in_a_folder_below_is_found(tmp_path, ct_series, ramp):
    ct_series(tmp_path / "STUDY" / "SERIES")
    (tmp_path / "DICOMDIR.txt").write_text("x")
    image, series, _ = read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(image), ramp())
    assert series.files[0] == tmp_path / "STUDY" / "SERIES" / "slice_00.dcm"


def test_files_without_preamble_are_read(tmp_path, ct_series, ramp):
    """Old exports begin with the first element of the dataset."""
    for path in ct_series(tmp_path):
        ds = pydicom.dcmread(path)
        del ds.file_meta
        ds.preamble = None
        pydicom.dcmwrite(path, ds, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[:2] == b"\x08\x00"
    image, _, _ = read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(image), ramp())


def test_missing_uids_are_noted(tmp_path, ct_series):
    ct_series(tmp_path, edit=lambda ds, k: setattr(ds, "FrameOfReferenceUID", None))
    only_warning(tmp_path, "Frame of Reference UID is missing in 6 slices", "RTSTRUCT")


def test_reading_is_quiet(tmp_path, ct_series, capfd, caplog, recwarn):
    """Nothing on standard output or error, from ITK's side either: the command line owns both."""
    files = ct_series(tmp_path, edit=shifted(3, 0.1))
    raw = files[0].read_bytes()
    files[0].write_bytes(raw.replace(b"1.2.3.1.1\0", b"1.2.3.1.x\0"))  # a UID that is none
    with caplog.at_level(logging.WARNING):
        read_series(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [w for w in recwarn if "pydicom" in str(w.filename)] == []


def test_nothing_about_the_patient_leaves_with_the_ct(tmp_path, ct_series):
    ct_series(tmp_path)
    ct = read_ct(tmp_path)
    told = str(ct.warnings) + ct.series.description
    assert "Secret" not in told and "secret" not in told
    assert ct.series.series_uid == "1.2.3.1"
