"""RTSTRUCT in other programs: whichever way the patient lies and the pixels are, each reads the very same masks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_standard import dicom_validator_errors
from orientations import turned
from rtstruct_readers import plastimatch_masks, rt_utils_masks

from soars.ct.series import CtSeries, read_series
from soars.dicom.contours import trace
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.dicom.write import write_ct_series
from soars.phantom import make_phantom
from soars.structures import Geometry, StructureSet


@dataclass(frozen=True)
class Scan:
    """How a CT lies: spacing in mm (x, y, z), direction cosines, Patient Position, rows and columns."""

    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0)
    direction: tuple[float, ...] = turned()
    position: str = "HFS"
    matrix: tuple[int, int] = (150, 150)


SCANS = {
    "square": Scan(),
    "not square": Scan(spacing=(1.25, 2.0, 4.0)),
    "400x512": Scan(spacing=(0.9765625, 0.9765625, 3.0), matrix=(400, 512)),
    "decubitus": Scan(direction=turned(("z", 90)), position="HFDR"),
    "feet first": Scan(direction=turned(("y", 180)), position="FFS"),
    "feet first prone": Scan(direction=turned(("x", 180)), position="FFP"),
    "oblique": Scan(direction=turned(("x", 10))),
    "turned": Scan(direction=turned(("z", 10)), spacing=(1.5, 1.5, 2.5)),
}


@dataclass(frozen=True)
class Written:
    """Structures, their CT and their RTSTRUCT."""

    structures: StructureSet
    geometry: Geometry
    series: CtSeries
    ct: Path
    rtstruct: Path


@pytest.fixture(scope="module")
def organs() -> StructureSet:
    """The phantom's 42 organs at 2 x 2 x 4 mm: 150 rows and columns."""
    structures = make_phantom(1, spacing_mm=(2.0, 2.0, 4.0), noise=False).structures
    assert len(structures) == 42 and not any(structures.is_empty(name) for name in structures)
    return structures


def add_hard_ones(structures: StructureSet) -> None:
    """Beside the organs: a lens of 5 voxels, specks, rings with islands, the image's border, noise."""
    shape = structures.geometry.shape
    _slices, _rows, _columns = shape
    lens = np.zeros(shape, dtype=bool)
    lens[10, 50, 49:52] = lens[10, 49:52, 50] = True
    specks = np.zeros(shape, dtype=bool)
    specks[5, 10, 10] = specks[5, 11, 11] = specks[7, 20, 20:22] = specks[9, 30:32, 31] = specks[
        9, 32, 32
    ] = True
    specks[0, 0, 0] = specks[-1, -1, -1] = specks[4, 0, -1] = specks[6, -1, 0] = True
    ring = np.zeros(shape, dtype=bool)
    ring[3:9, 5:35, 5:30] = True
    ring[3:8, 10:20, 10:20] = False
    ring[3:8, 14:16, 14:16] = True
    ring[4:8, 22:25, 8:12] = ring[4:6, 30, 20] = False
    thin = np.zeros(shape, dtype=bool)  # walls of one voxel, holes of one voxel
    thin[12, 40:51:2, 40:51] = thin[12, 40:51, 40:51:2] = True
    border = np.ones(shape, dtype=bool)
    border[2:-1, 3:-2, 2:-3] = False
    noise = np.zeros(shape, dtype=bool)
    noise[6:8, 40:70, 30:58] = np.random.default_rng(0).random((2, 30, 28)) > 0.6
    noise[6:8, 90:120, 30:58] = np.random.default_rng(1).random((2, 30, 28)) > 0.3
    for name, mask in (("Lens5", lens), ("Specks", specks), ("Ring", ring), ("Thin", thin)):
        structures.add(name, mask)
    structures.add("Border", border)
    structures.add("Noise", noise)
    assert lens.sum() == 5


@pytest.fixture(scope="module")
def written(organs: StructureSet, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """42 organs and the hard ones on a CT that lies as told; each is written once."""
    made: dict[str, Written] = {}

    def make(name: str) -> Written:
        if name not in made:
            scan, slices = SCANS[name], organs.geometry.size[2]
            folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
            hu = np.full((slices, *scan.matrix), -1000, dtype=np.int16)
            hu[2:-2, 2:-2, 2:-2] = 40
            hu[slices // 2, 40:60, 40:60] = 900
            image = sitk.GetImageFromArray(hu)
            image.SetSpacing(scan.spacing)
            image.SetDirection(scan.direction)
            image.SetOrigin((-112.25, 30.5, -200.125))
            write_ct_series(
                image, folder / "ct", patient_id="P-7", patient_name="Test^Any", seed=name,
                patient_position=scan.position,
            )  # fmt: skip
            read, series, _ = read_series(folder / "ct")
            geometry = Geometry.of(read)
            structures = StructureSet(geometry)
            aside = [(n - 150) // 2 for n in scan.matrix]
            for organ in organs:
                mask = organs.crop(organ)
                start = (mask.start[0], mask.start[1] + aside[0], mask.start[2] + aside[1])
                structures.add_crop(organ, start, mask.array)
            add_hard_ones(structures)
            write_rtstruct(structures, folder / "rt.dcm", series)
            made[name] = Written(structures, geometry, series, folder / "ct", folder / "rt.dcm")
        return made[name]

    return make


def differing(structures: StructureSet, masks: dict[str, np.ndarray]) -> list[str]:
    """Names whose mask is missing or is not the very same."""

    def same(name: str) -> bool:
        mask, own = masks[name], structures.crop(name)
        inside = np.array_equal(mask[own.slices], own.array)
        return mask.shape == structures.geometry.shape and inside and np.count_nonzero(mask) == own.voxels

    return [name for name in structures if name not in masks or not same(name)]


# --- the same masks ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scan", SCANS)
def test_our_reader_gets_every_voxel_back(scan: str, written: Callable[[str], Written]) -> None:
    file = written(scan)
    read = read_rtstruct(file.rtstruct, file.geometry, file.series)
    assert read.names == file.structures.names
    assert [name for name in read if not read.crop(name).equals(file.structures.crop(name))] == []


@pytest.mark.parametrize("scan", SCANS)
def test_plastimatch_gets_every_voxel_back(
    scan: str, written: Callable[[str], Written], tmp_path: Path
) -> None:
    file = written(scan)
    masks = plastimatch_masks(file.rtstruct, file.ct, file.structures, file.geometry, tmp_path / "masks")
    assert differing(file.structures, masks) == []


@pytest.mark.parametrize("scan", SCANS)
def test_rt_utils_gets_every_voxel_back(scan: str, written: Callable[[str], Written]) -> None:
    file = written(scan)
    rows, columns = SCANS[scan].matrix
    square = rows == columns and len(set(SCANS[scan].spacing[:2])) == 1
    masks = rt_utils_masks(file.rtstruct, file.ct, file.structures, as_it_is=square)
    assert differing(file.structures, masks) == []


# --- what other readers cannot do, in the smallest example -----------------------------------------------------
def one_box(folder: Path, spacing: tuple[float, float, float], matrix: tuple[int, int]) -> Written:
    """A box of 2 rows and 3 columns on one slice of three, far from the first row and column."""
    hu = np.full((3, *matrix), 40, dtype=np.int16)
    hu[1, 0, 0], hu[0, 0, 0] = 900, -1000
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing)
    write_ct_series(image, folder / "ct", patient_id="P", patient_name="P")
    read, series, _ = read_series(folder / "ct")
    geometry = Geometry.of(read)
    structures = StructureSet(geometry)
    structures.add_crop("Box", (1, 6, 12), np.ones((1, 2, 3), dtype=bool))
    write_rtstruct(structures, folder / "rt.dcm", series)
    return Written(structures, geometry, series, folder / "ct", folder / "rt.dcm")


def test_rt_utils_exchanges_the_spacings_of_pixels_that_are_not_square(tmp_path: Path) -> None:
    file = one_box(tmp_path, (1.0, 2.0, 3.0), (24, 24))
    # row 6 begins at y = 5.6 * 2 mm = 11.2 mm, column 12 at x = 11.6 mm, which it takes for 11.2 rows, 5.8 columns
    wrong = rt_utils_masks(file.rtstruct, file.ct, ["Box"], as_it_is=True)["Box"]
    assert wrong[1].any() and np.argwhere(wrong[1]).min(axis=0).tolist() == [11, 6]
    assert differing(file.structures, rt_utils_masks(file.rtstruct, file.ct, ["Box"])) == []
    masks = plastimatch_masks(file.rtstruct, file.ct, ["Box"], file.geometry, tmp_path / "masks")
    assert differing(file.structures, masks) == []


def test_rt_utils_exchanges_rows_and_columns_of_a_matrix_that_is_not_square(tmp_path: Path) -> None:
    file = one_box(tmp_path, (1.0, 1.0, 3.0), (12, 24))
    wrong = rt_utils_masks(file.rtstruct, file.ct, ["Box"], as_it_is=True)["Box"]
    assert wrong.shape == (3, 24, 12) and not wrong.any()  # columns from 12 on are lost
    assert differing(file.structures, rt_utils_masks(file.rtstruct, file.ct, ["Box"])) == []


def test_at_level_half_readers_that_round_vertices_are_off_but_not_by_much(
    written: Callable[[str], Written], tmp_path: Path
) -> None:
    file = written("square")
    large = StructureSet(file.geometry)
    for name in ("Brainstem", "Parotid_L", "Cerebellum"):
        large.add_mask(name, file.structures.crop(name))
    write_rtstruct(large, tmp_path / "rt.dcm", file.series, level=0.49)
    masks = plastimatch_masks(tmp_path / "rt.dcm", file.ct, large, file.geometry, tmp_path / "masks")
    assert differing(large, masks) == []
    for name, mask in rt_utils_masks(tmp_path / "rt.dcm", file.ct, large, as_it_is=True).items():
        own = large.full(name)
        assert 0.7 < 2 * (mask & own).sum() / (mask.sum() + own.sum()) < 1, name


def test_a_ring_as_two_contours_is_filled_in_by_plastimatch_so_it_is_written_as_one(tmp_path: Path) -> None:
    ring = np.ones((1, 5, 5), dtype=bool)
    ring[0, 2, 2] = False
    assert len(list(trace(ring))) == 1
    file = one_box(tmp_path, (1.0, 1.0, 3.0), (24, 24))
    structures = StructureSet(file.geometry)
    structures.add_crop("Ring", (1, 6, 12), ring)
    write_rtstruct(structures, tmp_path / "keyhole.dcm", file.series)
    dataset = pydicom.dcmread(tmp_path / "keyhole.dcm")
    whole = dataset.ROIContourSequence[0].ContourSequence[0]
    outer, inner = (pydicom.Dataset(), pydicom.Dataset())
    for item, (low, high) in ((outer, ((11.6, 5.6), (16.4, 10.4))), (inner, ((13.6, 7.6), (14.4, 8.4)))):
        item.ContourImageSequence = whole.ContourImageSequence
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", 4
        (x0, y0), (x1, y1) = low, high
        item.ContourData = [x0, y0, 3, x1, y0, 3, x1, y1, 3, x0, y1, 3]
    dataset.ROIContourSequence[0].ContourSequence = [outer, inner]
    dataset.save_as(tmp_path / "two.dcm")
    two = plastimatch_masks(tmp_path / "two.dcm", file.ct, ["Ring"], file.geometry, tmp_path / "two")
    assert two["Ring"].sum() == 25
    one = plastimatch_masks(tmp_path / "keyhole.dcm", file.ct, ["Ring"], file.geometry, tmp_path / "one")
    assert one["Ring"].sum() == 24
    assert read_rtstruct(tmp_path / "two.dcm", file.geometry).voxels("Ring") == 24


# --- what other programs write -------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:'FileDataset.is_:DeprecationWarning")  # rt-utils' own
@pytest.mark.parametrize("scan", ["square", "oblique"])
def test_what_rt_utils_writes_is_read_as_it_means_it(
    scan: str, written: Callable[[str], Written], tmp_path: Path
) -> None:
    rt_utils = pytest.importorskip("rt_utils", reason="pip install rt-utils to compare with it")
    file = written(scan)
    theirs = rt_utils.RTStructBuilder.create_new(str(file.ct))
    for name in file.structures:
        theirs.add_roi(mask=np.moveaxis(file.structures.full(name), 0, -1), name=name)
    rings = np.zeros(file.geometry.shape, dtype=bool)  # their two contours are through the same voxels
    y, x = np.mgrid[-8:9, -8:9]
    for z, radius in enumerate(range(2, 8), start=3):
        rings[z, 20:37, 30:47] = np.abs(x) + np.abs(y) == radius
    theirs.add_roi(mask=np.moveaxis(rings, 0, -1), name="Rings")
    theirs.save(str(tmp_path / "theirs.dcm"))
    read = read_rtstruct(tmp_path / "theirs.dcm", file.geometry, file.series)
    np.testing.assert_array_equal(read.full("Rings"), rings)
    assert [name for name in file.structures if not read.crop(name).equals(file.structures.crop(name))] == []


def test_what_plastimatch_writes_is_read_as_it_means_it(
    organs: StructureSet, written: Callable[[str], Written], tmp_path: Path
) -> None:
    program = shutil.which("plastimatch")
    if program is None:
        pytest.skip("plastimatch is not installed: apt-get install plastimatch")
    file = written("square")
    (tmp_path / "masks").mkdir()
    for name in organs:  # not the hard ones: it damages what lies at the image's border
        image = sitk.GetImageFromArray(file.structures.full(name).astype(np.uint8))
        sitk.WriteImage(file.geometry.place(image), str(tmp_path / "masks" / f"{name}.nrrd"))
    command = [program, "convert", "--input-prefix", tmp_path / "masks", "--referenced-ct", file.ct]
    command += ["--output-dicom", tmp_path / "theirs"]
    subprocess.run([str(word) for word in command], capture_output=True, timeout=300, check=True)
    (theirs,) = (tmp_path / "theirs").glob("rtss*")
    read = read_rtstruct(theirs, file.geometry, file.series)
    assert [name for name in organs if not read.crop(name).equals(file.structures.crop(name))] == []


def test_lines_through_voxel_centres_are_read_as_plastimatch_reads_them(
    written: Callable[[str], Written], tmp_path: Path
) -> None:
    """Boxes and steps whose corners are voxel centres, some a half voxel off."""
    scan = written("square")
    rng = np.random.default_rng(5)
    geometry = scan.geometry

    def draw(dataset: pydicom.Dataset) -> None:
        for item in dataset.ROIContourSequence[:6]:
            contours = []
            for z in range(4, 12):
                (x0, x1, x2), (y0, y1, y2) = np.cumsum(rng.integers(4, 60, (2, 3)), axis=1) / 2 + 10
                outline = [(x0, y0), (x2, y0), (x2, y1), (x1, y1), (x1, y2), (x0, y2)]
                contour = pydicom.Dataset()
                contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 6
                points = geometry.to_physical([(z, y, x) for x, y in outline])
                contour.ContourData = [f"{v:.8g}" for v in points.ravel()]
                contours.append(contour)
            item.ContourSequence = contours

    dataset = pydicom.dcmread(scan.rtstruct)
    draw(dataset)
    drawn = list(scan.structures)[:6]
    dataset.save_as(tmp_path / "steps.dcm")
    masks = plastimatch_masks(tmp_path / "steps.dcm", scan.ct, drawn, geometry, tmp_path / "plastimatch")
    read = read_rtstruct(tmp_path / "steps.dcm", geometry, scan.series)
    for name in drawn:
        np.testing.assert_array_equal(read.full(name), masks[name])


# --- valid files ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scan", SCANS)
def test_checkers_find_no_error(
    scan: str, written: Callable[[str], Written], dciodvfy: Callable[[Path], str]
) -> None:
    file = written(scan)
    assert dciodvfy(file.rtstruct) == ""
    assert dicom_validator_errors(file.rtstruct) == []


def test_dicom_validator_would_find_an_error(written: Callable[[str], Written], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(written("square").rtstruct)
    del dataset.StructureSetROISequence[0].ROINumber
    dataset.SOPInstanceUID = ""
    dataset.save_as(tmp_path / "rt.dcm")
    found = "\n".join(dicom_validator_errors(tmp_path / "rt.dcm"))
    assert "(3006,0022) TagMissing" in found and "(0008,0018) TagEmpty" in found


@pytest.mark.parametrize("program", ["drtdump", "dcmdump"])
def test_dcmtk_reads_it(program: str, written: Callable[[str], Written]) -> None:
    """drtdump is dcmtk's reader of radiotherapy objects; dsrdump reads structured reports only."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install dcmtk")
    done = subprocess.run([found, str(written("square").rtstruct)], capture_output=True, timeout=120)
    text = done.stdout.decode("latin-1")
    assert done.returncode == 0 and not [
        line for line in done.stderr.splitlines() if line[:2] in (b"E:", b"F:")
    ]
    assert ("RT Structure Set" if program == "drtdump" else "Parotid_L") in text


@pytest.mark.shared
def test_on_a_clinic_s_ct_too(shared: Path, dciodvfy: Callable[[Path], str], tmp_path: Path) -> None:
    folder = shared / "data" / "ct_hn"
    image, series, _ = read_series(folder)
    geometry = Geometry.of(image)
    hu = sitk.GetArrayViewFromImage(image)
    structures = StructureSet(geometry)
    middle = geometry.size[2] // 2
    structures.add_crop("Bone", (middle, 0, 0), hu[middle : middle + 6] > 300)
    structures.add_crop("Air", (middle, 0, 0), hu[middle : middle + 2] < -300)
    structures.add_crop("Brainstem", (middle, 200, 200), np.ones((10, 30, 40), dtype=bool))
    write_rtstruct(structures, tmp_path / "rt.dcm", series)
    assert dciodvfy(tmp_path / "rt.dcm") == ""
    assert dicom_validator_errors(tmp_path / "rt.dcm") == []
    read = read_rtstruct(tmp_path / "rt.dcm", geometry, series)
    assert [name for name in read if not read.crop(name).equals(structures.crop(name))] == []
    masks = plastimatch_masks(tmp_path / "rt.dcm", folder, structures, geometry, tmp_path / "masks")
    assert differing(structures, masks) == []
    assert differing(structures, rt_utils_masks(tmp_path / "rt.dcm", folder, structures, as_it_is=True)) == []
