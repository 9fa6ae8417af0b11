"""An MR beside the CT: read, refused, and laid onto the CT where the phantom's own motion says it belongs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from mr_files import dicom_mr, noise_mr

from soars.cascade.preprocess import Body, Grid, find_body
from soars.ct.images import CtScan, read_ct
from soars.errors import CancelledError, InputError
from soars.mr.boards import checkerboards
from soars.mr.images import MrScan, read_mr
from soars.mr.laid import LaidMr, lay_mr, mr_channels
from soars.mr.registration import MisfitError
from soars.phantom import Phantom, make_phantom, write_phantom_dicom
from soars.phantom.mr import SyntheticMr, make_mr

TURNED, MOVED = (8.0, -6.0, 10.0), (25.0, -18.0, 30.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(31, spacing_mm=(2, 2, 3))


@pytest.fixture(scope="module")
def body(phantom: Phantom) -> Body:
    return find_body(phantom.ct)


@pytest.fixture(scope="module")
def mr(phantom: Phantom) -> SyntheticMr:
    return make_mr(phantom, seed=1, rotation_degrees=TURNED, shift_mm=MOVED, spacing_mm=(1.5, 1.5, 3))


@pytest.fixture(scope="module")
def laid(phantom: Phantom, body: Body, mr: SyntheticMr) -> LaidMr:
    return lay_mr(MrScan(mr.image, Path("mr.nrrd")), phantom.ct, body)


def _corners(mr: SyntheticMr) -> np.ndarray:
    """Points of the CT 80 mm about the middle of the MR's field."""
    return np.array(mr.to_mr.GetCenter()) + 80 * (np.array(list(np.ndindex(2, 2, 2))) - 0.5)


def test_the_registration_recovers_the_motion(laid: LaidMr, mr: SyntheticMr) -> None:
    found, true = laid.found.transform, mr.to_mr
    errors = [
        np.linalg.norm(np.subtract(found.TransformPoint(p.tolist()), true.TransformPoint(p.tolist())))
        for p in _corners(mr)
    ]
    assert max(errors) < 1.0
    matrices = [np.array(sitk.Euler3DTransform(t).GetMatrix()).reshape(3, 3) for t in (found, true)]
    off = np.degrees(np.arccos(np.clip((np.trace(matrices[0].T @ matrices[1]) - 1) / 2, -1, 1)))
    assert off < 1.0
    whole = np.degrees(np.arccos((np.trace(matrices[1]) - 1) / 2))
    assert laid.found.rotated_degrees == pytest.approx(whole, abs=1)


def test_values_lie_where_the_organ_lies(phantom: Phantom, laid: LaidMr) -> None:
    """The eyes are dark in the phantom's MR, the parotids bright."""
    grid = Grid.of(phantom.ct.GetOrigin(), phantom.ct.GetSpacing(), phantom.ct.GetSize())
    values, seen = laid.on(grid)
    means = {}
    for organ in ("Eye_L", "Parotid_L"):
        mask = phantom.structures.full(organ)
        assert seen[mask].mean() > 0.95
        means[organ] = values[mask & seen].mean()
    assert means["Eye_L"] < 300 < 450 < means["Parotid_L"]


def test_channels_have_no_unit() -> None:
    rng = np.random.default_rng(3)
    values = rng.gamma(2.0, 100.0, (8, 9, 10))
    inside = rng.random(values.shape) < 0.6
    channels = mr_channels(values, inside)
    assert channels[0][inside].mean() == pytest.approx(0, abs=1e-4)
    assert channels[0][inside].std() == pytest.approx(1, abs=1e-4)
    assert not channels[:, ~inside].any() and (channels[1][inside] == 1).all()
    np.testing.assert_allclose(mr_channels(7 * values + 40, inside), channels, atol=1e-4)
    assert not mr_channels(values, np.zeros_like(inside)).any()


def test_boards_show_both_scans(phantom: Phantom, laid: LaidMr) -> None:
    boards = checkerboards(phantom.ct, laid)
    assert [board.view for board in boards] == ["axial", "coronal", "sagittal"]
    for board in boards:
        assert board.grey.min() >= 0 and board.grey.max() <= 1 and board.grey.std() > 0.1


def test_noise_and_a_thigh_fit_nowhere(phantom: Phantom, body: Body) -> None:
    rng = np.random.default_rng(0)
    z, y, x = np.indices((60, 80, 80))
    thigh = np.where(np.hypot((x - 40) * 2.5 / 70, (y - 40) * 2.5 / 50) < 1, 400.0, 5.0)
    thigh[np.hypot((x - 40) * 2.5, (y - 40) * 2.5) < 14] = 800.0
    for values in (rng.normal(100, 20, z.shape), thigh + rng.normal(0, 10, z.shape)):
        image = sitk.GetImageFromArray(values.astype(np.float32))
        image.SetSpacing((2.5, 2.5, 3))
        image.SetOrigin((-100, -100, -90))
        with pytest.raises(InputError, match=r"the MR fits the CT nowhere|turned the MR|in common"):
            lay_mr(MrScan(image, Path("mr.nrrd")), phantom.ct, body)


def test_a_ct_is_not_taken_for_an_mr(phantom: Phantom) -> None:
    """Another CT of the patient's head: noisier, and with brighter vessels and glands."""
    x, y, z = phantom.ct.GetSize()
    head = sitk.RegionOfInterest(phantom.ct, [x, y, 32], [0, 0, z - 40])
    values = sitk.GetArrayFromImage(head).astype(np.float32)
    values += np.random.default_rng(4).normal(0, 15, values.shape) + 30 * (values > 55)
    other = sitk.GetImageFromArray(values)
    other.CopyInformation(head)
    with pytest.raises(InputError, match="the MR is a CT, perhaps the CT itself"):
        lay_mr(MrScan(other, Path("mr.nrrd")), head, find_body(head))


def test_in_one_frame_of_reference_an_mr_is_not_moved_far(
    phantom: Phantom, body: Body, mr: SyntheticMr, laid: LaidMr, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved by 25, 18 and 30 mm, 43 mm in all."""
    assert laid.found.moved_mm == pytest.approx(np.linalg.norm(MOVED), abs=4)
    monkeypatch.setattr("soars.mr.laid.register", lambda *_: laid.found)
    scan = MrScan(mr.image, Path("mr"), frame_of_reference_uid="1.2.3")
    for frame in ("", "1.2.4"):
        assert lay_mr(scan, phantom.ct, body, frame_of_reference_uid=frame).found is laid.found
    with pytest.raises(MisfitError, match="moved the MR by 4. mm, though it has the CT's frame") as caught:
        lay_mr(scan, phantom.ct, body, frame_of_reference_uid="1.2.3")
    assert caught.value.found is laid.found


def test_a_registration_can_be_cancelled(phantom: Phantom, body: Body, mr: SyntheticMr) -> None:
    calls = 0

    def watch() -> None:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        lay_mr(MrScan(mr.image, Path("mr.nrrd")), phantom.ct, body, watch)
    assert calls == 9


# --- reading


def _write(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise_mr((3, 40, 40)), "the MR has 3 slices"),
        (lambda: sitk.JoinSeries(noise_mr(), noise_mr()), "4 dimensions"),
        (lambda: sitk.Image(80, 80, 80, sitk.sitkFloat32), "the same value"),
        (lambda: noise_mr((10, 10, 10)), "covers only 30 x 30 x 30 mm"),
        (lambda: sitk.Compose(noise_mr(), noise_mr()), "2 values per voxel"),
    ],
)
def test_what_is_no_mr_is_refused(make: Callable[[], sitk.Image], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_mr(_write(make(), tmp_path / "mr.nrrd"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_mr(tmp_path / "mr.nrrd")


def test_nan_becomes_zero(tmp_path: Path) -> None:
    values = sitk.GetArrayFromImage(noise_mr())
    values[0, 0, 0] = np.nan
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((3, 3, 3))
    read = sitk.GetArrayFromImage(read_mr(_write(image, tmp_path / "mr.nrrd")).image)
    assert read[0, 0, 0] == 0 and np.isfinite(read).all()


def test_a_dicom_mr_is_read_with_each_slices_own_slope(tmp_path: Path) -> None:
    values = dicom_mr(tmp_path / "mr")
    read = read_mr(tmp_path / "mr")
    np.testing.assert_allclose(sitk.GetArrayFromImage(read.image), values, rtol=1e-5)
    assert read.image.GetSpacing() == pytest.approx((2.0, 2.5, 3.0)) and read.description == "T1 ax"
    one = read_mr(next((tmp_path / "mr").iterdir()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(one.image), sitk.GetArrayFromImage(read.image))


def test_two_series_have_to_be_told_apart(tmp_path: Path) -> None:
    dicom_mr(tmp_path / "mr", series="1.2.100001")
    dicom_mr(tmp_path / "mr", series="1.2.100002")
    with pytest.raises(InputError, match=r"2 MR series.*--mr-series.*1\.2\.100002"):
        read_mr(tmp_path / "mr")
    assert read_mr(tmp_path / "mr", series_uid="1.2.100002").image.GetSize() == (40, 40, 30)
    with pytest.raises(InputError, match="no MR series"):
        read_mr(tmp_path / "mr", series_uid="1.2.9")


def test_echoes_of_one_series_have_to_be_told_apart(tmp_path: Path) -> None:
    """At each place two slices: one is chosen, none is a stack of both."""
    folder = tmp_path / "mr"
    echoes = [dicom_mr(folder, series="1.2.100001", echo=echo) for echo in (1, 2)]
    with pytest.raises(InputError, match=r"holds 2 scans at the same place.*--mr-series 1\.2\.100001/NUMBER"):
        read_mr(folder)
    for number, values in enumerate(echoes, start=1):
        read = read_mr(folder, series_uid=f"1.2.100001/{number}")
        np.testing.assert_allclose(sitk.GetArrayFromImage(read.image), values, rtol=1e-5)
    with pytest.raises(InputError, match="there is no number 3"):
        read_mr(folder, series_uid="1.2.100001/3")


def test_slices_at_one_place_that_nothing_tells_apart_are_refused_unless_they_are_copies(
    tmp_path: Path,
) -> None:
    for echo in (1, 2):
        dicom_mr(tmp_path / "mr", series="1.2.100001", echo=echo)
    for path in (tmp_path / "mr").iterdir():
        data = pydicom.dcmread(path)
        del data.EchoNumbers
        data.save_as(path)
    with pytest.raises(InputError, match="are different slices of the MR at the same place"):
        read_mr(tmp_path / "mr")
    values = dicom_mr(tmp_path / "twice", series="1.2.100002")
    for path in list((tmp_path / "twice").iterdir()):
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    read = read_mr(tmp_path / "twice")
    np.testing.assert_allclose(sitk.GetArrayFromImage(read.image), values, rtol=1e-5)
    assert read.warnings == ("30 slices of the MR are there twice; one of each was taken",)


def test_slices_that_were_taken_in_turn_are_one_mr(tmp_path: Path) -> None:
    """Even and odd slices of two acquisitions, as multi-slice sequences take them."""
    values = dicom_mr(tmp_path / "mr")
    for z, path in enumerate(sorted((tmp_path / "mr").iterdir())):
        data = pydicom.dcmread(path)
        data.AcquisitionNumber, data.TriggerTime = 1 + z % 2, 40.0 * (z % 2)
        data.save_as(path)
    np.testing.assert_allclose(sitk.GetArrayFromImage(read_mr(tmp_path / "mr").image), values, rtol=1e-5)


def test_another_patients_mr_is_refused(tmp_path: Path) -> None:
    small = make_phantom(3, spacing_mm=(6, 6, 6))
    write_phantom_dicom(small, tmp_path / "patient")
    ct = read_ct(tmp_path / "patient" / "ct")
    assert isinstance(ct, CtScan) and ct.series is not None
    mine = str(ct.series.header.PatientID)
    dicom_mr(tmp_path / "mine", patient=mine)
    dicom_mr(tmp_path / "other", patient=f"not {mine}")
    assert read_mr(tmp_path / "mine", ct).image.GetSize() == (40, 40, 30)
    with pytest.raises(InputError, match="another patient"):
        read_mr(tmp_path / "other", ct)


def test_a_ct_is_no_mr(tmp_path: Path) -> None:
    write_phantom_dicom(make_phantom(3, spacing_mm=(6, 6, 6)), tmp_path / "patient")
    with pytest.raises(InputError, match=r"holds no MR series; it holds: CT Image Storage"):
        read_mr(tmp_path / "patient" / "ct")


def test_a_short_series_is_refused(tmp_path: Path) -> None:
    dicom_mr(tmp_path / "mr", slices=3)
    with pytest.raises(InputError, match="the MR has 3 slices"):
        read_mr(tmp_path / "mr")


def test_a_slice_of_another_size_is_refused(tmp_path: Path) -> None:
    dicom_mr(tmp_path / "mr")
    path = sorted((tmp_path / "mr").iterdir())[4]
    data = pydicom.dcmread(path)
    data.Rows, data.PixelData = 30, data.PixelData[: 30 * 40 * 2]
    data.save_as(path)
    with pytest.raises(InputError, match="differ in size or Pixel Spacing"):
        read_mr(tmp_path / "mr")


def test_a_slice_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    dicom_mr(tmp_path / "mr")
    path = sorted((tmp_path / "mr").iterdir())[-1]  # its loss would leave no gap
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=path.name):
        read_mr(tmp_path / "mr")
