"""Every kind of bad CT ends `soars segment` with exit code 2 and one line, and leaves nothing behind.

What each message must say is tested where the reading is (`test_series.py`, `test_images.py`); here the whole command
runs, with a cascade that needs no networks. What is merely odd ends well, and its warning is in the run's record.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import balls
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.run import case

Files = list[Path]
Writer = Callable[..., Files]


@pytest.fixture(autouse=True)
def cascade(monkeypatch):
    monkeypatch.setattr("soars.bundle.store.load_bundle", lambda name: balls.a_bundle())
    monkeypatch.setattr(case, "segment", balls.fake_segment)


def setter(only: int | None = None, **values):
    """Sets attributes of one slice, or of all."""

    def edit(ds, k):
        if only is None or k == only:
            for keyword, value in values.items():
                setattr(ds, keyword, value)

    return edit


def as_kind(sop_class: str, modality: str):
    def edit(ds, k):
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
        ds.Modality = modality

    return edit


def several_series(write: Writer, folder: Path) -> None:
    write(folder, prefix="a")
    write(folder, prefix="b", series_uid="1.2.3.2")


def missing_slice(write: Writer, folder: Path) -> None:
    write(folder)[2].unlink()


def different_duplicates(write: Writer, folder: Path) -> None:
    write(folder, prefix="a")
    write(folder, prefix="b", edit=lambda ds, k: setattr(ds, "PixelData", bytes(reversed(ds.PixelData))))


def uneven(write: Writer, folder: Path) -> None:
    write(folder, edit=setter(3, ImagePositionPatient=[-10, -20, 40]))


def tilted(write: Writer, folder: Path) -> None:
    write(folder, edit=setter(ImageOrientationPatient=[1, 0, 0, 0, 0.965926, -0.258819]))


def mixed_orientation(write: Writer, folder: Path) -> None:
    write(folder, edit=setter(5, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]))


def localizers_only(write: Writer, folder: Path) -> None:
    write(folder, edit=setter(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))


def mr(write: Writer, folder: Path) -> None:
    write(folder, edit=as_kind(pydicom.uid.MRImageStorage, "MR"))


def rtstruct_only(write: Writer, folder: Path) -> None:
    write(folder, slices=1, edit=as_kind(pydicom.uid.RTStructureSetStorage, "RTSTRUCT"))


def enhanced(write: Writer, folder: Path) -> None:
    write(folder, slices=1, edit=as_kind(pydicom.uid.EnhancedCTImageStorage, "CT"))


def unknown_compression(write: Writer, folder: Path) -> None:
    def edit(ds, k):
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        ds.PixelData = pydicom.encaps.encapsulate([b"\0" * 16])

    write(folder, edit=edit)


def no_rescale_and_no_hu(write: Writer, folder: Path) -> None:
    def edit(ds, k):
        del ds.RescaleSlope, ds.RescaleIntercept

    write(folder, edit=edit)


def broken_compressed_pixels(write: Writer, folder: Path) -> None:
    """JPEG 2000 that ends after its first marker: the decoder below GDCM prints its own complaint."""

    def edit(ds, k):
        ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(200)])

    write(folder, edit=edit)


def colour(write: Writer, folder: Path) -> None:
    write(folder, edit=setter(PhotometricInterpretation="RGB"))


def single_slice(write: Writer, folder: Path) -> None:
    write(folder, slices=1)


def no_position(write: Writer, folder: Path) -> None:
    write(folder, edit=setter(4, ImagePositionPatient=None))


def cut_off_in_pixels(write: Writer, folder: Path) -> None:
    path = write(folder)[3]
    path.write_bytes(path.read_bytes()[:-100])


def cut_off_in_header(write: Writer, folder: Path) -> None:
    path = write(folder)[3]
    path.write_bytes(path.read_bytes()[:500])


def zero_bytes(write: Writer, folder: Path) -> None:
    write(folder)[3].write_bytes(b"")


def empty_folder(write: Writer, folder: Path) -> None:
    folder.mkdir()


def nothing(write: Writer, folder: Path) -> None:
    pass


def no_dicom(write: Writer, folder: Path) -> None:
    folder.mkdir()
    (folder / "letter.txt").write_text("Dear colleague")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (several_series, "2 CT series"),
        (missing_slice, "1 slice missing"),
        (different_duplicates, "at the same place"),
        (uneven, "unevenly spaced"),
        (tilted, "gantry was tilted"),
        (mixed_orientation, "different orientations"),
        (localizers_only, "localizer"),
        (mr, "MR"),
        (rtstruct_only, "RTSTRUCT"),
        (enhanced, "places for 0 of them"),
        (unknown_compression, "is compressed as"),
        (broken_compressed_pixels, "cannot be decoded"),
        (no_rescale_and_no_hu, "not Hounsfield units"),
        (colour, "not a greyscale image"),
        (single_slice, "only 1 slice"),
        (no_position, "Image Position (Patient) is missing"),
        (cut_off_in_pixels, "cut off"),
        (cut_off_in_header, "cut off"),
        (zero_bytes, "0 bytes"),
        (empty_folder, "empty"),
        (nothing, "no such file or folder"),
        (no_dicom, "no DICOM image"),
    ],
)
def test_a_bad_dicom_folder_is_refused(tmp_path, ct_series, capfd, make, said):
    make(ct_series, tmp_path / "ct")
    refused(tmp_path / "ct", tmp_path, said, capfd)


def refused(ct: Path, tmp_path: Path, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert (
        main(["segment", str(ct), "--output", str(tmp_path / "results" / "out"), "--progress", "none"]) == 2
    )
    out, err = capfd.readouterr()
    assert out == ""
    *warnings, error = err.splitlines()
    assert error.startswith("soars: error: ") and all(
        line.startswith("soars: warning: ") for line in warnings
    ), err
    assert said in err and str(ct) in err, err
    assert "Secret" not in err and "secret" not in err
    assert sorted(tmp_path.rglob("*")) == before


def volume(**kwargs) -> sitk.Image:
    """A block of tissue with bone in air, 80 x 80 x 64 mm."""
    values = np.full((16, 40, 40), -1000, np.int16)
    values[2:14, 4:36, 4:36] = 40
    values[4:12, 16:24, 16:24] = 800
    image = sitk.GetImageFromArray(kwargs.get("values", values))
    image.SetSpacing(kwargs.get("spacing", (2.0, 2.0, 4.0)))
    return image


def picture() -> sitk.Image:
    return volume(values=np.arange(16 * 1600, dtype=np.int64).reshape(16, 40, 40).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "image", "said"),
    [
        ("picture.nrrd", picture, "not Hounsfield units"),
        ("two.nii.gz", lambda: sitk.JoinSeries(volume(), volume()), "4 dimensions"),
        ("vector.nrrd", lambda: sitk.Compose(volume(), volume()), "2 values per voxel"),
        ("flat.mha", lambda: volume()[:, :, 4], "2 dimensions"),
        ("slice.nrrd", lambda: volume()[:, :, 4:5], "single slice"),
        ("metres.nii.gz", lambda: volume(spacing=(0.002, 0.002, 0.004)), "another unit"),
    ],
)
def test_a_bad_image_file_is_refused(tmp_path, capfd, name, image, said):
    sitk.WriteImage(image(), str(tmp_path / name))
    refused(tmp_path / name, tmp_path, said, capfd)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nii", "ct.nii.gz", "ct.mha", "ct.dcm", "ct"])
@pytest.mark.parametrize("content", [b"", b"neither an image nor DICOM" * 40])
def test_a_file_that_is_none_is_refused(tmp_path, capfd, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, tmp_path, "", capfd)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_a_truncated_image_file_is_refused(tmp_path, capfd, suffix):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(volume(), str(path))
    path.write_bytes(path.read_bytes()[:-50])
    refused(path, tmp_path, "cut off", capfd)


def test_a_real_process_gives_the_same_line_and_code(tmp_path, ct_series):
    """The shipped bundle is needed for nothing here: the folder is checked before anything else."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(Path(case.__file__).parents[1])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "soars.cli",
            "segment",
            str(tmp_path / "nowhere"),
            "--output",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"soars: error: {tmp_path / 'nowhere'}: there is no such file or folder\n"
    assert list(tmp_path.iterdir()) == []


# ---- what is merely odd reaches the record


def big(write: Writer, folder: Path, **options) -> Files:
    """The same block as `volume`, as 16 DICOM slices of 36 x 32 mm."""
    return write(folder, slices=16, hu=sitk.GetArrayFromImage(volume()), **options)


def with_localizer(write: Writer, folder: Path) -> None:
    big(write, folder)
    write(
        folder, prefix="scout", series_uid="1.2.3.2", slices=1, edit=setter(ImageType=["A", "B", "LOCALIZER"])
    )


def with_copy(write: Writer, folder: Path) -> None:
    shutil.copy(big(write, folder)[3], folder / "copy.dcm")


def with_jitter(write: Writer, folder: Path) -> None:
    big(write, folder, edit=setter(3, ImagePositionPatient=[-10, -20, 39.1]))


def without_rescale(write: Writer, folder: Path) -> None:
    def edit(ds, k):
        del ds.RescaleSlope, ds.RescaleIntercept

    big(write, folder, intercept=0, dtype="<i2", edit=edit)


def with_notes(write: Writer, folder: Path) -> None:
    big(write, folder)
    (folder / "notes.txt").write_text("for the physicist")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (with_localizer, "localizer"),
        (with_copy, "1 duplicate slice"),
        (with_jitter, "not quite evenly spaced"),
        (without_rescale, "no Rescale Slope and Intercept"),
        (with_notes, "not DICOM"),
    ],
)
def test_what_is_odd_is_in_the_record(tmp_path, ct_series, make, said):
    make(ct_series, tmp_path / "ct")
    out = tmp_path / "out"
    assert main(["segment", str(tmp_path / "ct"), "--output", str(out), "--progress", "none"]) == 0
    warnings = json.loads((out / "run.json").read_text())["warnings"]
    assert [w for w in warnings if said in w], warnings
    assert said in (out / "report.html").read_text()


def test_one_of_several_series_can_be_chosen(tmp_path, ct_series):
    several_series(lambda folder, **options: big(ct_series, folder, **options), tmp_path / "ct")
    out = tmp_path / "out"
    assert main(["segment", str(tmp_path / "ct"), "--output", str(out), "--series", "1.2.3.2"]) == 0
    rtstruct = pydicom.dcmread(out / "rtstruct.dcm")
    frame = rtstruct.ReferencedFrameOfReferenceSequence[0]
    assert frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.2"
