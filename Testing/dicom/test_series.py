"""A CT series is read as it was acquired, or refused in one sentence; what is odd is said."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from series_reading import hu_of, only_warning, refused, shifted

from soars.ct.images import read_ct
from soars.ct.series import list_series, read_series

# ---- what is right


def test_values_and_places_are_those_that_were_written(tmp_path, ct_series, ramp):
    files = ct_series(tmp_path, order=(3, 0, 5, 1, 4, 2))  # names in another order than the slices
    image, series, warnings = read_series(tmp_path)
    assert warnings == []
    assert image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(hu_of(image), ramp())
    assert image.GetSpacing() == (0.8, 0.9, 3.0)  # x is the distance between columns
    # a voxel's place by hand, from the DICOM attributes: x=7, y=5, z=4
    place = image.TransformIndexToPhysicalPoint((7, 5, 4))
    assert place == pytest.approx((-10 + 7 * 0.8, -20 + 5 * 0.9, 30 + 4 * 3.0))
    assert image[7, 5, 4] == -1000 + 300 * 4 + 10 * 5 + 7
    assert series.files == files
    assert series.sop_instance_uids == [f"1.2.3.1.{k}" for k in range(1, 7)]
    assert (series.series_uid, series.study_uid, series.frame_of_reference_uid) == (
        "1.2.3.1",
        "1.2.3",
        "1.2.3.9",
    )
    assert (series.description, series.modality) == ("planning", "CT")
    assert series.header.PatientID == "secret-number" and "PixelData" not in series.header


def test_agrees_with_simpleitk_sorting_by_itself(tmp_path, ct_series):
    ct_series(tmp_path, order=(3, 0, 5, 1, 4, 2))
    image, _, _ = read_series(tmp_path)
    other = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    assert image.GetOrigin() == pytest.approx(other.GetOrigin())
    assert image.GetSpacing() == pytest.approx(other.GetSpacing())
    np.testing.assert_array_equal(hu_of(image), hu_of(other))


@pytest.mark.parametrize(
    ("cosines", "step"),
    [
        ([1, 0, 0, 0, 1, 0], (0, 0, -3.0)),  # head first, written from head to feet
        ([-1, 0, 0, 0, 1, 0], (0, 0, 3.0)),  # feet first: x runs to the right
        ([1, 0, 0, 0, 0, -1], (0, 3.0, 0)),  # coronal
        ([0, 1, 0, 0, 0, -1], (3.0, 0, 0)),  # sagittal
        ([0.8, 0.6, 0, -0.6, 0.8, 0], (0, 0, 3.0)),  # turned in plane
    ],
)
def test_any_orientation_puts_each_voxel_where_dicom_says(tmp_path, ct_series, ramp, cosines, step):
    origin = np.array([-10.0, -20.0, 30.0])

    def turn(ds, k):
        ds.ImageOrientationPatient = cosines
        ds.ImagePositionPatient = list(origin + k * np.array(step))

    ct_series(tmp_path, edit=turn)
    image, _, warnings = read_series(tmp_path)
    assert warnings == []
    for k, j, i in [(0, 0, 0), (2, 3, 5), (5, 15, 19)]:  # slice, row, column (PS3.3 C.7.6.2.1.1)
        place = (
            origin + k * np.array(step) + i * 0.8 * np.array(cosines[:3]) + j * 0.9 * np.array(cosines[3:])
        )
        assert image[image.TransformPhysicalPointToIndex(place)] == ramp()[k, j, i]
        index = np.array(image.TransformPhysicalPointToContinuousIndex(place))
        assert np.abs(index - np.rint(index)).max() < 1e-6


def test_slope_and_intercept_may_differ_from_slice_to_slice(tmp_path, ct_series, ramp):
    def other_scale(ds, k):
        slope, intercept = 0.5 + 0.25 * k, -1024 - 10 * k
        stored = np.rint((ramp()[k].astype(float) - intercept) / slope).astype("<u2")
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
        ds.PixelData = stored.tobytes()

    ct_series(tmp_path, edit=other_scale)
    image, _, warnings = read_series(tmp_path)
    assert warnings == []
    assert np.abs(hu_of(image).astype(int) - ramp()).max() <= 1  # slopes up to 1.75 store every 1.75th value
    for k, path in enumerate(sorted(tmp_path.iterdir())):
        ds = pydicom.dcmread(path)
        expected = np.rint(ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept))
        np.testing.assert_array_equal(hu_of(image)[k], expected)


def test_the_real_ct_with_empty_attributes_is_read_without_a_word(shared):
    """Bits stored differ from slice to slice there, and ten optional attributes are empty."""
    folder = shared / "data" / "ct_hn"
    ct = read_ct(folder)
    assert ct.warnings == []
    assert ct.image.GetSize() == (511, 511, 90) and ct.image.GetSpacing() == (1, 1, 3)
    assert ct.image.GetOrigin() == (1, -511, -267)
    for z in (0, 45, 89):
        ds = pydicom.dcmread(ct.series.files[z])
        assert float(ds.ImagePositionPatient[2]) == -267 + 3 * z
        np.testing.assert_array_equal(hu_of(ct.image[:, :, z]), ds.pixel_array.astype(int) - 1024)


def test_a_folder_of_symbolic_links_is_read(tmp_path, ct_series, ramp):
    (tmp_path / "links").mkdir()
    for path in ct_series(tmp_path / "files"):
        (tmp_path / "links" / path.name).symlink_to(path)
    (tmp_path / "links" / "gone.dcm").symlink_to(tmp_path / "nowhere")
    np.testing.assert_array_equal(hu_of(read_series(tmp_path / "links")[0]), ramp())


@pytest.mark.parametrize("value", ["", None])
def test_empty_optional_attributes_do_not_matter(tmp_path, ct_series, ramp, value):
    def empty(ds, k):
        for keyword in (
            "SeriesDescription",
            "KVP",
            "WindowCenter",
            "PatientPosition",
            "SliceThickness",
            "RescaleType",
        ):
            setattr(ds, keyword, value)
        ds.PatientName = ds.PatientID = value
        ds.GantryDetectorTilt = ds.AcquisitionNumber = None

    ct_series(tmp_path, edit=empty)
    image, _, warnings = read_series(tmp_path)
    assert warnings == []
    np.testing.assert_array_equal(hu_of(image), ramp())


def test_padding_becomes_air(tmp_path, ct_series, ramp):
    """-2000 stored without offset, the corners outside a round field of view."""
    padded = ramp()
    padded[:, :3, :3] = -2000
    padded[:, 0, :] = -3024
    ct_series(tmp_path, hu=padded, intercept=0, dtype="<i2")
    image, _, warnings = read_series(tmp_path)
    assert warnings == []
    np.testing.assert_array_equal(hu_of(image), np.maximum(padded, -1024))


def test_padding_that_looks_like_water_becomes_air_where_it_touches_the_corners(tmp_path, ct_series, ramp):
    padded = ramp()
    padded[padded == 0] = 1
    padded[:, [0, -1], :] = 0
    padded[:, :, [0, -1]] = 0
    padded[:, 8, 8] = 0  # water in the middle

    def pad(ds, k):
        ds.add_new("PixelPaddingValue", "US", 1024)

    ct_series(tmp_path, hu=padded, edit=pad)
    image = only_warning(tmp_path, "padding", "408 voxels")  # 6 x (2 x 20 + 2 x 14)
    expected = padded.copy()
    expected[expected == 0] = -1024
    expected[:, 8, 8] = 0
    np.testing.assert_array_equal(hu_of(image), expected)


def test_padding_above_all_real_values_becomes_air_everywhere(tmp_path, ct_series, ramp):
    """-2000 stored in an unsigned image: 63536, or 62512 HU."""
    padded = ramp().astype(np.int32)
    padded[:, 0, 3:9] = 63536 - 1024

    ct_series(tmp_path, hu=padded, edit=lambda ds, k: ds.add_new("PixelPaddingValue", "US", 63536))
    image = only_warning(tmp_path, "padding", "36 voxels")
    np.testing.assert_array_equal(hu_of(image), np.where(padded > 30000, -1024, padded))


def test_values_that_int16_cannot_hold_are_clipped_not_wrapped(tmp_path, ct_series, ramp):
    metal = ramp().astype(np.int32)
    metal[2, 5, 5] = 60000
    ct_series(tmp_path, hu=metal)
    image = only_warning(tmp_path, "1 voxel above 32767 HU")
    assert image[5, 5, 2] == 32767


# ---- which series


def test_two_ct_series_are_listed_and_either_can_be_chosen(tmp_path, ct_series, ramp):
    ct_series(tmp_path, prefix="a", series_uid="1.2.3.1")

    def describe(ds, k):
        ds.SeriesDescription = "follow up"

    ct_series(tmp_path, prefix="b", series_uid="1.2.3.2", slices=4, hu=ramp(4) + 5, edit=describe)
    refused(tmp_path, "2 CT series", "1.2.3.1", "1.2.3.2", '"planning", 6 files', '"follow up", 4 files')
    image, series, _ = read_series(tmp_path, "1.2.3.2")
    assert series.description == "follow up" and image.GetSize()[2] == 4 and image[0, 0, 0] == -995
    refused(tmp_path, "holds no series 1.2.3.77", "1.2.3.1", series_uid="1.2.3.77")
    assert [(s.series_uid, s.n_files, s.usable) for s in list_series(tmp_path)] == [
        ("1.2.3.1", 6, True),
        ("1.2.3.2", 4, True),
    ]
    ct = read_ct(tmp_path / "b_02.dcm")  # one file stands for its series
    assert ct.series.series_uid == "1.2.3.2" and ct.image.GetSize()[2] == 4


def as_rtstruct(ds, k):
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = pydicom.uid.RTStructureSetStorage
    ds.Modality = "RTSTRUCT"
    for keyword in ("PixelData", "Rows", "Columns", "ImageType", "ImagePositionPatient"):
        delattr(ds, keyword)


def as_mr(ds, k):
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = pydicom.uid.MRImageStorage
    ds.Modality = "MR"


def as_localizer(ds, k):
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def test_localizer_series_and_other_kinds_are_left_out_with_a_warning(tmp_path, ct_series, ramp):
    ct_series(tmp_path, prefix="ct")
    ct_series(tmp_path, prefix="scout", series_uid="1.2.3.2", slices=2, edit=as_localizer)
    ct_series(tmp_path, prefix="rs", series_uid="1.2.3.3", slices=1, edit=as_rtstruct)
    image, _, warnings = read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(image), ramp())
    assert len(warnings) == 2
    assert "localizer" in warnings[0] and "2 files" in warnings[0] and "RTSTRUCT" in warnings[1]


def test_a_localizer_inside_the_series_is_left_out_with_a_warning(tmp_path, ct_series, ramp):
    ct_series(tmp_path, slices=7, edit=lambda ds, k: as_localizer(ds, k) if k == 6 else None)
    np.testing.assert_array_equal(hu_of(only_warning(tmp_path, "1 localizer")), ramp())


@pytest.mark.parametrize(
    ("edit", "word"), [(as_mr, "MR"), (as_rtstruct, "RTSTRUCT"), (as_localizer, "localizer")]
)
def test_what_is_no_ct_is_named(tmp_path, ct_series, edit, word):
    ct_series(tmp_path, edit=edit)
    refused(tmp_path, str(tmp_path), "no CT", word, "1.2.3.1")


def test_mr_stored_as_ct_is_refused(tmp_path, ct_series):
    ct_series(tmp_path, edit=lambda ds, k: setattr(ds, "Modality", "MR"))
    refused(tmp_path, "no CT", "MR")


def test_a_multi_frame_file_that_is_no_enhanced_ct_is_refused_with_what_to_do(tmp_path, ct_series):
    def frames(ds, k):
        ds.NumberOfFrames = 2
        ds.PixelData = ds.PixelData * 2

    ct_series(tmp_path, edit=frames)
    refused(tmp_path, "slice_00.dcm", "2 frames", "single-frame")


# ---- geometry


def test_a_missing_slice_is_refused_with_its_place(tmp_path, ct_series):
    files = ct_series(tmp_path)
    files[2].unlink()
    refused(tmp_path, "1 slice missing", "z = 33.00 mm", "z = 39.00 mm", "slice_01.dcm", "slice_03.dcm")


def test_every_gap_counts_its_slices(tmp_path, ct_series):
    files = ct_series(tmp_path, slices=12, hu=ramp_of(12))
    for k in (2, 3, 8):
        files[k].unlink()
    refused(tmp_path, "3 slices missing", "z = 33.00 mm and z = 42.00 mm", "z = 51.00 mm and z = 57.00 mm")


def ramp_of(slices: int) -> np.ndarray:
    return np.linspace(-1000, 1000, slices * 64).reshape(slices, 8, 8).astype(np.int16)


def test_copies_of_a_slice_are_dropped_with_a_warning(tmp_path, ct_series, ramp):
    files = ct_series(tmp_path)
    shutil.copy(files[2], tmp_path / "copy.dcm")
    np.testing.assert_array_equal(hu_of(only_warning(tmp_path, "1 duplicate slice")), ramp())


def test_different_slices_at_one_place_are_refused(tmp_path, ct_series):
    ct_series(tmp_path, prefix="a")

    def second_phase(ds, k):
        ds.AcquisitionNumber = 2
        ds.PixelData = bytes(reversed(ds.PixelData))

    ct_series(tmp_path, prefix="b", edit=second_phase)
    refused(tmp_path, "2 scans", "Acquisition Number 2 (6 slices, 30 to 45 mm)", "--series 1.2.3.1/NUMBER")


def test_different_slices_at_one_place_that_nothing_tells_apart_are_refused(tmp_path, ct_series):
    ct_series(tmp_path, prefix="a")
    ct_series(
        tmp_path, prefix="b", edit=lambda ds, k: setattr(ds, "PixelData", bytes(reversed(ds.PixelData)))
    )
    refused(tmp_path, "a_00.dcm", "b_00.dcm", "at the same place", "keep only one volume")


def test_uneven_slices_are_refused_with_their_place(tmp_path, ct_series):
    ct_series(tmp_path, edit=shifted(3, 0.5))
    refused(tmp_path, "unevenly spaced", "3 mm apart", "slice_03.dcm")


def test_two_slice_distances_in_one_series_are_refused(tmp_path, ct_series):
    def wider(ds, k):
        ds.ImagePositionPatient = [0, 0, 3 * k if k < 4 else 9 + 4 * (k - 3)]

    ct_series(tmp_path, edit=wider)
    refused(tmp_path, "unevenly spaced", "4 mm between")


def test_small_jitter_is_read_with_a_warning_and_rounding_without(tmp_path, ct_series, ramp):
    ct_series(tmp_path / "jitter", edit=shifted(3, 0.1))
    np.testing.assert_array_equal(hu_of(only_warning(tmp_path / "jitter", "0.10 mm", "3 mm grid")), ramp())
    ct_series(tmp_path / "rounding", edit=shifted(3, 0.004))
    assert read_series(tmp_path / "rounding")[2] == []


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path, ct_series):
    """Slices tilted by 15 degrees about x, while the table moves along z."""
    cosine, sine = np.cos(np.radians(15)), np.sin(np.radians(15))

    def tilt(ds, k):
        ds.ImageOrientationPatient = [1, 0, 0, 0, round(cosine, 6), round(-sine, 6)]

    ct_series(tmp_path, edit=tilt)
    refused(tmp_path, "gantry was tilted by 15.0 degrees")


def test_an_oblique_stack_without_shear_is_no_tilt(tmp_path, ct_series, ramp):
    row, column = np.array([1.0, 0, 0]), np.array([0, 0.8, -0.6])

    def oblique(ds, k):
        ds.ImageOrientationPatient = [*row, *column]
        ds.ImagePositionPatient = list(3.0 * k * np.cross(row, column))

    ct_series(tmp_path, edit=oblique)
    image, _, warnings = read_series(tmp_path)
    assert warnings == []
    assert image.TransformIndexToPhysicalPoint((0, 0, 5)) == pytest.approx(tuple(15 * np.cross(row, column)))
    np.testing.assert_array_equal(hu_of(image), ramp())


def test_slices_shifted_sideways_are_refused(tmp_path, ct_series):
    def push(ds, k):
        if k == 2:
            ds.ImagePositionPatient = [-5, -20, 36]

    ct_series(tmp_path, edit=push)
    refused(tmp_path, "shifted sideways", "5.0 mm")


def test_mixed_orientation_is_refused(tmp_path, ct_series):
    def coronal(ds, k):
        if k == 5:
            ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    ct_series(tmp_path, edit=coronal)
    refused(
        tmp_path,
        "different orientations",
        "5 x [1, 0, 0, 0, 1, 0]",
        "1 x [1, 0, 0, 0, 0, -1]",
        "slice_05.dcm",
    )


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0.5, 1, 0], ["not two perpendicular unit vectors"]),
        ("ImageOrientationPatient", None, ["Image Orientation (Patient) is missing"]),
        ("ImagePositionPatient", None, ["Image Position (Patient) is missing"]),
        ("ImagePositionPatient", [1, 2], ["Image Position (Patient)", "not 3 numbers"]),
        ("PixelSpacing", None, ["Pixel Spacing is missing"]),
        ("PixelSpacing", [0, 0.8], ["Pixel Spacing", "not positive"]),
        ("PixelSpacing", [0.9, 0.7], ["Pixel Spacing differs"]),
        ("FrameOfReferenceUID", "1.2.3.8", ["Frame of Reference UID differs"]),
        ("PatientID", "secret-other", ["Patient ID differs"]),
        ("RescaleSlope", "0", ["Rescale Slope is '0'"]),
        ("RescaleSlope", None, ["no Rescale Slope or Intercept, but other slices"]),
        ("PhotometricInterpretation", "RGB", ["not a greyscale image", "RGB"]),
        ("Rows", None, ["Rows is missing"]),
    ],
)
def test_a_slice_with_a_bad_attribute_is_named(tmp_path, ct_series, keyword, value, words):
    def spoil(ds, k):
        if k == 4:
            setattr(ds, keyword, value)

    ct_series(tmp_path, edit=spoil)
    refused(tmp_path, "slice_04.dcm", *words)


def test_text_where_numbers_belong_is_named(tmp_path, ct_series):
    files = ct_series(tmp_path)
    raw = files[4].read_bytes()
    assert raw.count(b"-10.0\\-20.0\\42.0") == 1
    files[4].write_bytes(raw.replace(b"-10.0\\-20.0\\42.0", b"-10,0\\-20,0\\42,0"))
    refused(tmp_path, "slice_04.dcm", "Image Position (Patient)", "-10,0")


def test_slices_of_another_size_are_refused(tmp_path, ct_series):
    ct_series(tmp_path, prefix="a", slices=3)
    ct_series(tmp_path, prefix="b", slices=2, hu=ramp_of(2), edit=lambda ds, k: shifted(k, 9.0)(ds, k))
    refused(tmp_path, "b_00.dcm", "differs")


@pytest.mark.parametrize("slices", [1, 2])
def test_a_single_slice_is_no_volume(tmp_path, ct_series, slices):
    ct_series(tmp_path, slices=slices)
    refused(tmp_path, str(tmp_path), f"only {slices} slice", "at least 3")


def test_thin_slices_far_apart_are_noted(tmp_path, ct_series):
    ct_series(tmp_path, edit=lambda ds, k: setattr(ds, "SliceThickness", 1))
    only_warning(tmp_path, "1 mm thick but 3 mm apart")


# ---- values


def without_rescale(ds, k):
    del ds.RescaleSlope, ds.RescaleIntercept


def test_no_rescale_and_values_in_hu_is_a_warning(tmp_path, ct_series, ramp):
    ct_series(tmp_path, intercept=0, dtype="<i2", edit=without_rescale)
    np.testing.assert_array_equal(hu_of(only_warning(tmp_path, "no Rescale Slope and Intercept")), ramp())


def test_no_rescale_and_values_that_cannot_be_hu_is_refused(tmp_path, ct_series):
    ct_series(tmp_path, intercept=-1024, edit=without_rescale)
    refused(tmp_path, "no air", "not Hounsfield units", "without their rescale intercept")


@pytest.mark.parametrize(
    ("intercept", "dtype", "edit", "hint"),
    [
        (-1024, "<u2", {"RescaleIntercept": "0"}, "without their rescale intercept"),
        (0, "<i2", {"PixelRepresentation": 0}, "Pixel Representation"),
    ],
)
def test_values_that_cannot_be_hu_are_refused_though_declared(
    tmp_path, ct_series, ramp, intercept, dtype, edit, hint
):
    """Air at 24 or at 64536 HU: a header that another program has changed says nothing about the values."""

    def spoilt(ds, k):
        for keyword, value in edit.items():
            setattr(ds, keyword, value)

    ct_series(
        tmp_path, hu=np.where(ramp() < 0, -1000, 60 + ramp()), intercept=intercept, dtype=dtype, edit=spoilt
    )
    refused(tmp_path, "no air", "not Hounsfield units", hint)


def test_a_ct_cropped_inside_the_body_is_read_with_a_warning(tmp_path, ct_series, ramp):
    """Fat at -100 HU, and teeth."""
    ct_series(tmp_path, hu=np.clip(ramp(), -100, 2000))
    only_warning(tmp_path, "holds no air")


def test_a_ct_that_shows_nothing_is_refused(tmp_path, ct_series, ramp):
    ct_series(tmp_path, hu=np.zeros_like(ramp()))
    refused(tmp_path, "0 to 0", "not a CT in Hounsfield units")


def test_lossy_compression_is_noted(tmp_path, ct_series):
    ct_series(tmp_path, edit=lambda ds, k: setattr(ds, "LossyImageCompression", "01"))
    only_warning(tmp_path, "compressed lossily")
