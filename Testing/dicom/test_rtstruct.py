"""RTSTRUCT: it references the original CT, every voxel comes back, and independent programs agree."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from orientations import turned
from pydicom.dataset import Dataset

from soars.ct.series import CtSeries, read_series
from soars.dicom.contours import Contour, fill, trace
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.formats.reading import read_structures
from soars.structures import Box, Geometry, StructureSet, tight_mask

SHAPE = (14, 40, 36)
SPACING = (0.9, 1.2, 2.5)

ORIENTATIONS = {
    "axial": turned(),
    "feet first prone": turned(("x", 180)),
    "turned in the plane": turned(("z", 90)),
    "oblique": turned(("z", 10), ("x", 15), ("y", -5)),
    "coronal": turned(("x", -90)),
}


@pytest.fixture(scope="module")
def series_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Geometry, CtSeries]]:
    """A CT series in an orientation, read back; each is written once."""
    made: dict[str, tuple[Geometry, CtSeries]] = {}

    def make(orientation: str) -> tuple[Geometry, CtSeries]:
        if orientation not in made:
            z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
            image = sitk.GetImageFromArray((-900 + 20 * z + 3 * y + x).astype(np.int16))
            image.SetSpacing(SPACING)
            image.SetOrigin((-12.25, 30.5, -200.125))
            image.SetDirection(ORIENTATIONS[orientation])
            folder = tmp_path_factory.mktemp(orientation.replace(" ", "_"))
            write_ct_series(image, folder, patient_id="P-7", patient_name="Müller^Änne", seed=orientation)
            read, series, _ = read_series(folder)
            made[orientation] = (Geometry.of(read), series)
        return made[orientation]

    return make


def hard_organs(geometry: Geometry) -> StructureSet:
    """What contours get wrong: holes, islands in holes, single voxels, diagonals, all four borders, overlap."""
    structures = StructureSet(geometry)
    shape = geometry.shape
    ring = np.zeros(shape, dtype=bool)
    ring[2:10, 5:35, 5:30] = True
    ring[3:9, 10:20, 10:20] = False
    ring[3:9, 14:16, 14:16] = True
    ring[3:9, 22:25, 8:12] = False
    ring[3:9, 22:25, 15:28] = False
    ring[4, 26:33:2, 6:28:2] = False
    structures.add("Brainstem", ring)
    specks = np.zeros(shape, dtype=bool)
    specks[3, 8, 9] = specks[3, 9, 10] = specks[3, 20, 20] = specks[5, 7, 7:9] = True
    structures.add("Lens_L", specks)
    border = np.zeros(shape, dtype=bool)
    border[:, :3], border[:, -2:], border[:, :, :2], border[:, :, -3:] = True, True, True, True
    border[0], border[-1] = True, True
    structures.add("Parotid_R", border)
    structures.add("Glnd_Pineal", np.zeros(shape, dtype=bool))
    structures.add_crop("Tumour é", (6, 4, 3), np.random.default_rng(1).random((2, 30, 28)) > 0.6)
    return structures


# --- the way through the file --------------------------------------------------------------------------------
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("level", [0.6, 0.5])
def test_every_voxel_comes_back(
    orientation: str,
    level: float,
    series_of: Callable[[str], tuple[Geometry, CtSeries]],
    tmp_path: Path,
) -> None:
    geometry, series = series_of(orientation)
    structures = hard_organs(geometry)
    write_rtstruct(structures, tmp_path / "rt.dcm", series, level=level)
    read = read_rtstruct(tmp_path / "rt.dcm", geometry, series)
    assert read.names == structures.names
    assert [w for w in read.warnings if "have no contour" not in w] == []
    for name in structures:
        assert read.crop(name).equals(structures.crop(name)), name


@given(
    arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))), st.floats(0.05, 0.95)
)
@settings(max_examples=60, deadline=None)
def test_contours_of_any_mask_fill_to_the_same_mask(mask: np.ndarray, level: float) -> None:
    contours = list(trace(mask, level))
    assert bool(contours) == bool(mask.any())
    if contours:
        assert all(len(contour.points) >= 3 for contour in contours)
        start, box = fill(contours)
        assert tight_mask(box, start).equals(tight_mask(mask))


def test_contours_run_where_the_level_says() -> None:
    mask = np.zeros((1, 5, 5), dtype=bool)
    mask[0, 2, 2] = True
    (contour,) = trace(mask, 0.6)
    expected = [(2.4, 2), (2, 2.4), (1.6, 2), (2, 1.6)]
    assert sorted(map(tuple, contour.points.round(6).tolist())) == sorted(expected)


def test_readers_that_round_vertices_to_voxels_get_the_mask_back() -> None:
    # what rt-utils and others do: vertices rounded, the polygon's edges drawn too
    mask = np.zeros((1, 40, 40), dtype=bool)
    y, x = np.mgrid[:40, :40]
    mask[0] = (x - 20) ** 2 / 15**2 + (y - 18) ** 2 / 9**2 < 1
    mask[0, 30:33, 5] = True
    drawn = np.zeros((40, 40), dtype=bool)
    for contour in trace(mask):
        corners = np.rint(contour.points).astype(int)
        start, box = fill([Contour(0, corners.astype(float))])
        drawn[start[1] : start[1] + box.shape[1], start[2] : start[2] + box.shape[2]] |= box[0]
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            along = np.arange(steps + 1) / steps
            drawn[
                np.rint(y0 + along * (y1 - y0)).astype(int), np.rint(x0 + along * (x1 - x0)).astype(int)
            ] = True
    assert np.array_equal(drawn, mask[0])


def test_where_an_organ_is_one_voxel_wide_each_voxel_keeps_a_vertex() -> None:
    # platipy rounds vertices and fills without drawing edges: a line without width has no inside there
    mask = np.zeros((1, 30, 30), dtype=bool)
    mask[0, 3:7, 3:7] = mask[0, 3:7, 20:25] = mask[0, 20:25, 3:7] = True
    bridges = [(5, x) for x in range(7, 20)] + [(y, 4) for y in range(7, 20)]
    for y, x in bridges:
        mask[0, y, x] = True
    (contour,) = trace(mask)
    corners = {(int(y), int(x)) for x, y in np.rint(contour.points)}
    assert set(bridges) <= corners


# --- what the file says --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def original(
    series_of: Callable[[str], tuple[Geometry, CtSeries]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`hard_organs` on the axial CT."""
    geometry, series = series_of("axial")
    path = tmp_path_factory.mktemp("original") / "rt.dcm"
    write_rtstruct(hard_organs(geometry), path, series)
    return path


@pytest.fixture
def written(
    original: Path, series_of: Callable[[str], tuple[Geometry, CtSeries]], tmp_path: Path
) -> tuple[Path, Geometry, CtSeries]:
    """A copy of `original`, which a test may spoil, with its CT."""
    return (Path(shutil.copy(original, tmp_path)), *series_of("axial"))


def test_it_references_the_original_series(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, _geometry, series = written
    dataset = pydicom.dcmread(path)
    assert dataset.StudyInstanceUID == series.study_uid
    assert dataset.SeriesInstanceUID != series.series_uid
    assert dataset.SOPInstanceUID not in series.sop_instance_uids
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == series.frame_of_reference_uid
    referenced = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == series.series_uid
    images = [item.ReferencedSOPInstanceUID for item in referenced.ContourImageSequence]
    assert images == series.sop_instance_uids
    assert {roi.ReferencedFrameOfReferenceUID for roi in dataset.StructureSetROISequence} == {
        series.frame_of_reference_uid
    }
    position = {}
    for file in series.files:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        position[header.SOPInstanceUID] = float(header.ImagePositionPatient[2])
    contours = [c for roi in dataset.ROIContourSequence for c in roi.get("ContourSequence", [])]
    assert len(contours) > 50
    for contour in contours:
        image = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        assert np.allclose([float(z) for z in contour.ContourData[2::3]], position[image], rtol=0, atol=1e-4)
        assert contour.NumberOfContourPoints * 3 == len(contour.ContourData)
        assert contour.NumberOfContourPoints >= 3
        assert contour.ContourGeometricType == "CLOSED_PLANAR"


def test_it_says_who_and_what(written: tuple[Path, Geometry, CtSeries]) -> None:
    dataset = pydicom.dcmread(written[0])
    assert (str(dataset.PatientName), dataset.PatientID) == ("Müller^Änne", "P-7")
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert "research use only" in dataset.SeriesDescription
    rois = {roi.ROIName: roi for roi in dataset.StructureSetROISequence}
    assert list(rois) == ["Brainstem", "Lens_L", "Parotid_R", "Glnd_Pineal", "Tumour é"]
    assert {roi.ROIGenerationAlgorithm for roi in rois.values()} == {"AUTOMATIC"}
    observations = {o.ReferencedROINumber: o for o in dataset.RTROIObservationsSequence}
    assert {o.RTROIInterpretedType for o in observations.values()} == {"ORGAN"}
    parotid = observations[rois["Parotid_R"].ROINumber].RTROIIdentificationCodeSequence[0]
    assert (parotid.CodeValue, parotid.CodingSchemeDesignator) == ("45289007", "SCT")
    assert parotid.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    assert "RTROIIdentificationCodeSequence" not in observations[rois["Tumour é"].ROINumber]


def test_no_number_is_longer_than_16_characters(written: tuple[Path, Geometry, CtSeries]) -> None:
    for roi in pydicom.dcmread(written[0]).ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            raw = contour.get_item("ContourData").value
            assert max(map(len, raw.split(b"\\"))) <= 16


def test_a_contour_longer_than_64_kb_stays_a_contour(
    series_of: Callable[[str], tuple[Geometry, CtSeries]], tmp_path: Path
) -> None:
    geometry, series = series_of("axial")
    wide = Geometry((400, 400, geometry.size[2]), geometry.spacing, geometry.origin, geometry.direction)
    structures = StructureSet(wide)
    y, x = np.mgrid[:400, :400]
    comb = (y % 4 < 2) & (x > 0) & (x < 399) | (x == 1)  # one outline of more than 64 kB
    comb[:, 2:399] &= ~((x % 6 == 0) & (y % 4 == 1))[:, 2:399]
    structures.add_crop("Brainstem", (3, 0, 0), comb[None])
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    raw = (
        pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence[0].get_item("ContourData")
    )
    assert len(raw.value) > 65536
    assert read_rtstruct(tmp_path / "rt.dcm", wide).crop("Brainstem").equals(structures.crop("Brainstem"))


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_dciodvfy_finds_no_error(
    orientation: str,
    series_of: Callable[[str], tuple[Geometry, CtSeries]],
    dciodvfy: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    geometry, series = series_of(orientation)
    write_rtstruct(hard_organs(geometry), tmp_path / "rt.dcm", series)
    assert dciodvfy(tmp_path / "rt.dcm") == ""


def test_plastimatch_reads_the_same_masks(written: tuple[Path, Geometry, CtSeries], tmp_path: Path) -> None:
    program = shutil.which("plastimatch")
    if program is None:
        pytest.fail("plastimatch is not installed: apt-get install plastimatch")
    path, geometry, series = written
    command = [program, "convert", "--input", path, "--referenced-ct", series.files[0].parent]
    command += ["--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"]
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    structures = hard_organs(geometry)
    for name in ("Brainstem", "Lens_L", "Parotid_R"):
        image = sitk.ReadImage(str(tmp_path / "masks" / f"{name}.nrrd"))
        assert Geometry.of(image).same_as(geometry, 1e-3)
        assert np.array_equal(sitk.GetArrayFromImage(image) > 0, structures.full(name)), name


def test_the_real_ct_with_empty_attributes(
    shared: Path, dciodvfy: Callable[[Path], str], tmp_path: Path
) -> None:
    image, series, _ = read_series(shared / "data" / "ct_hn")
    geometry = Geometry.of(image)
    structures = StructureSet(geometry)
    structures.add_crop("Brainstem", (50, 200, 200), np.ones((10, 30, 40), dtype=bool))
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    assert dciodvfy(tmp_path / "rt.dcm") == ""
    assert (
        read_rtstruct(tmp_path / "rt.dcm", geometry, series)
        .crop("Brainstem")
        .equals(structures.crop("Brainstem"))
    )


# --- what cannot be written ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_of_reference_uid": ""}, "no Frame of Reference UID"),
        ({"study_uid": ""}, "no Study Instance UID"),
        ({"sop_instance_uids": [""] * SHAPE[0]}, "no SOP Instance UID"),
        ({"sop_instance_uids": ["1.2"] * SHAPE[0]}, "share a SOP Instance UID"),
        ({"sop_instance_uids": ["1.2"]}, "14 slices, the CT series 1"),
    ],
)
def test_a_ct_that_cannot_be_referenced_is_refused(
    change: dict[str, object],
    message: str,
    series_of: Callable[[str], tuple[Geometry, CtSeries]],
    tmp_path: Path,
) -> None:
    geometry, series = series_of("axial")
    with pytest.raises(InputError, match=message):
        write_rtstruct(hard_organs(geometry), tmp_path / "rt.dcm", replace(series, **change))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_structures_on_another_grid_than_the_ct_are_refused(
    series_of: Callable[[str], tuple[Geometry, CtSeries]], tmp_path: Path
) -> None:
    geometry, series = series_of("axial")
    moved = replace(geometry, origin=(geometry.origin[0] + 5, *geometry.origin[1:]))
    with pytest.raises(InputError, match="5.0 mm from where they are"):
        write_rtstruct(hard_organs(moved), tmp_path / "rt.dcm", series)


# --- what cannot be read -------------------------------------------------------------------------------------
def edited(path: Path, edit: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path


def contour(*points: tuple[float, float, float]) -> Dataset:
    item = Dataset()
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{v:.6g}" for point in points for v in point]
    return item


def square(geometry: Geometry, z: float, low: float = 4.5, high: float = 9.5) -> Dataset:
    corners = [(z, low, low), (z, low, high), (z, high, high), (z, high, low)]
    return contour(*(tuple(p) for p in geometry.to_physical(corners).tolist()))


def test_another_ct_s_contours_are_refused(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, series = written
    with pytest.raises(InputError, match=r"rt\.dcm belongs to another CT"):
        read_structures(path, geometry, reference=replace(series, frame_of_reference_uid="1.2.3"))


def test_contours_outside_the_ct_are_refused(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written
    with pytest.raises(InputError, match="no contour lies within the CT"):
        read_rtstruct(path, replace(geometry, origin=(0.0, 0.0, 500.0)))


def test_a_file_without_contours_is_refused(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written
    with pytest.raises(InputError, match="no contours"):
        read_rtstruct(edited(path, lambda d: d.__delattr__("ROIContourSequence")), geometry)


@pytest.mark.parametrize("keep", [0.001, 0.02, 0.3, 0.7, 0.95, 0.9999])
def test_a_file_that_is_cut_short_is_refused(keep: float, written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=r"rt\.dcm"):
        read_rtstruct(path, geometry)


def test_a_number_that_is_none_costs_its_contour(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written
    whole = read_rtstruct(path, geometry)
    content = path.read_bytes()
    at = content.index(b"\\", content.index(b"CLOSED_PLANAR") + 40)
    path.write_bytes(content[: at + 1] + b"x" + content[at + 2 :])
    found = read_rtstruct(path, geometry)
    assert any("1 contour of 'Brainstem' left out: points that are not numbers" in w for w in found.warnings)
    assert found.names == whole.names and 0 < found.voxels("Brainstem") < whole.voxels("Brainstem")
    assert all(found.crop(name).equals(whole.crop(name)) for name in whole.names if name != "Brainstem")


def test_a_ct_slice_is_no_rtstruct(written: tuple[Path, Geometry, CtSeries]) -> None:
    _, geometry, series = written
    with pytest.raises(InputError, match="not an RTSTRUCT but CT Image Storage"):
        read_rtstruct(series.files[0], geometry)


def test_an_rtstruct_needs_the_ct_s_grid(written: tuple[Path, Geometry, CtSeries]) -> None:
    with pytest.raises(InputError, match="the CT they were drawn on is needed"):
        read_structures(written[0])


# --- what others write ---------------------------------------------------------------------------------------
def with_contours(path: Path, contours: list[Dataset]) -> Path:
    """The file with these contours for its first ROI, and none for the others."""

    def edit(dataset: Dataset) -> None:
        for item in dataset.ROIContourSequence:
            if "ContourSequence" in item:
                del item.ContourSequence
        dataset.ROIContourSequence[0].ContourSequence = contours

    return edited(path, edit)


def test_an_inner_contour_is_a_hole(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written
    with_contours(path, [square(geometry, 3, 5.5, 20.5), square(geometry, 3, 8.5, 12.5)])
    mask = read_rtstruct(path, geometry).full("Brainstem")
    assert mask.sum() == 15 * 15 - 4 * 4
    assert not mask[3, 9:13, 9:13].any()


def test_contours_on_a_slightly_moved_plane_belong_to_the_nearest_slice(
    written: tuple[Path, Geometry, CtSeries],
) -> None:
    path, geometry, _ = written
    with_contours(path, [square(geometry, 3.3), square(geometry, 4.0), square(geometry, 4.2)])
    read = read_rtstruct(path, geometry)
    assert read.crop("Brainstem").bounds == Box((3, 5, 5), (5, 10, 10))
    assert any("another plane is nearer" in warning for warning in read.warnings)


def test_points_open_and_lost_contours_are_left_out_with_a_warning(
    written: tuple[Path, Geometry, CtSeries],
) -> None:
    path, geometry, _ = written
    point, between, above = square(geometry, 3), square(geometry, 5.5), square(geometry, 99)
    point.ContourGeometricType = "POINT"
    with_contours(path, [square(geometry, 2), point, between, above, contour((0, 0, 0), (1, 1, 0))])
    read = read_rtstruct(path, geometry)
    assert read.crop("Brainstem").bounds == Box((2, 5, 5), (3, 10, 10))
    text = " ".join(read.warnings)
    for kind in ("POINT", "halfway between slices", "above or below the CT", "fewer than 3 points"):
        assert kind in text


def test_contours_across_the_slices_are_refused(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written
    corners = geometry.to_physical([(2, 5, 5), (6, 5, 5), (6, 5, 15), (2, 5, 15)]).tolist()
    with_contours(path, [contour(*(tuple(p) for p in corners))])
    with pytest.raises(InputError, match="not parallel to the slices"):
        read_rtstruct(path, geometry)


def test_what_lies_beyond_the_ct_is_cut_off_with_a_warning(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written
    with_contours(path, [square(geometry, 3, -4.5, 9.5)])
    read = read_rtstruct(path, geometry)
    assert read.crop("Brainstem").bounds == Box((3, 0, 0), (4, 10, 10))
    assert any("reaches beyond the CT" in warning for warning in read.warnings)


def test_two_rois_of_one_name_are_both_kept(written: tuple[Path, Geometry, CtSeries]) -> None:
    path, geometry, _ = written

    def rename(dataset: Dataset) -> None:
        dataset.StructureSetROISequence[1].ROIName = "Brainstem"

    read = read_rtstruct(edited(path, rename), geometry)
    assert read.names[:2] == ("Brainstem", "Brainstem_2")
    assert any("two ROIs" in warning for warning in read.warnings)
