"""One suite of promises over every format of structures, and what files of clinics and researchers really look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.commands.convert import EACH
from soars.ct.series import CtSeries, read_series
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.formats import FORMATS, format_of, format_to_write, read_structures
from soars.formats.reading import read_as_stored
from soars.formats.registry import Format, ReadOptions, WriteOptions
from soars.metrics.cases import CasePair, find_pairs, read_pair
from soars.structures import Geometry, StructureInfo, StructureSet

Output = pytest.CaptureFixture[str]

TURN = np.radians(9)
OBLIQUE = (np.cos(TURN), -np.sin(TURN), 0.0, np.sin(TURN), np.cos(TURN), 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((24, 20, 12), (0.9, 1.2, 3.0), (-12.0, 34.5, -60.25), OBLIQUE)
WRITABLE = [found for found in FORMATS if found.write is not None]
TARGETS = [(found, ending) for found in WRITABLE for ending in (found.endings or ("",))]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Geometry, CtSeries]:
    """The grid and the series of a small CT."""
    folder = tmp_path_factory.mktemp("formats") / "ct"
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[:, 3:-3, 3:-3] = 40
    write_ct_series(GRID.place(sitk.GetImageFromArray(hu)), folder, patient_id="p", patient_name="n")
    image, found, _ = read_series(folder)
    return Geometry.of(image), found


def organs(geometry: Geometry) -> StructureSet:
    """Two that overlap, one at the grid's corner, one of a single voxel, one empty, and names that are not plain."""
    out = StructureSet(geometry)
    out.add_crop("Brainstem", (2, 4, 5), np.ones((5, 6, 7), bool), StructureInfo(colour=(10, 20, 30)))
    out.add_crop("Parotid_L", (4, 6, 8), np.ones((4, 8, 9), bool))
    out.add_crop("GTV Höcker 1/2", (0, 0, 0), np.ones((2, 3, 3), bool))
    out.add_crop("左耳", (7, 17, 20), np.ones((1, 1, 1), bool))
    out.add("Pituitary", np.zeros(geometry.shape, bool))
    return out


def targets(test: Callable[..., None]) -> Callable[..., None]:
    ids = [f"{found.name} {ending}" for found, ending in TARGETS]
    return pytest.mark.parametrize(("fmt", "ending"), TARGETS, ids=ids)(test)


def read_back(path: Path, series: tuple[Geometry, CtSeries]) -> StructureSet:
    return read_structures(path, series[0], reference=series[1], catalogue_names=False)


# --- promises of every format -------------------------------------------------------------------
@targets
def test_what_is_written_reads_back(
    fmt: Format, ending: str, series: tuple[Geometry, CtSeries], tmp_path: Path
) -> None:
    written, path = organs(series[0]), tmp_path / f"organs{ending}"
    assert fmt.write is not None
    fmt.write(written, path, WriteOptions(series[1]))
    assert format_of(path) is fmt and format_to_write(path) is fmt
    assert fmt.may_replace(path)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, *(p.name for p in fmt.beside(path))}
    read = read_back(path, series)
    assert set(read.names) == set(written.names)
    assert read.geometry.same_as(series[0])
    for name in written:
        assert read.crop(name).equals(written.crop(name)), name
    if fmt.has_grid:
        assert read_as_stored(path, ReadOptions()).geometry.same_as(series[0])
    else:
        with pytest.raises(InputError, match="--ct"):
            read_structures(path)


@targets
def test_the_same_structures_give_the_same_structures_again(
    fmt: Format, ending: str, series: tuple[Geometry, CtSeries], tmp_path: Path
) -> None:
    assert fmt.write is not None
    for options in ("once", "again"):
        path = tmp_path / f"{options}{ending}"
        fmt.write(
            organs(series[0]) if options == "once" else read_back(tmp_path / f"once{ending}", series),
            path,
            WriteOptions(series[1]),
        )
    first, second = (read_back(tmp_path / f"{o}{ending}", series) for o in ("once", "again"))
    assert all(first.crop(name).equals(second.crop(name)) for name in first) and first.names == second.names


@targets
@pytest.mark.parametrize("keep", [0, 0.05, 0.4, 0.8, 0.98])
def test_a_file_that_is_cut_short_is_refused_by_its_name(
    fmt: Format, ending: str, keep: float, series: tuple[Geometry, CtSeries], tmp_path: Path
) -> None:
    path = tmp_path / f"organs{ending}"
    assert fmt.write is not None
    fmt.write(organs(series[0]), path, WriteOptions(series[1]))
    file = path if path.is_file() else path / "Brainstem.nii.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=file.name):
        read_back(path, series)


@targets
def test_a_write_that_fails_leaves_what_was_there(
    fmt: Format,
    ending: str,
    series: tuple[Geometry, CtSeries],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / f"organs{ending}"
    assert fmt.write is not None
    fmt.write(organs(series[0]), path, WriteOptions(series[1]))
    before = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(InputError, match="the disk is full"):
        fmt.write(organs(series[0]), path, WriteOptions(series[1]))
    assert {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_choices_of_the_command_line_are_the_table_s() -> None:
    endings = [ending.removeprefix(".") for found in WRITABLE for ending in found.endings]
    assert set(EACH) <= {*endings, "masks"} and "masks" in EACH
    with pytest.raises(InputError, match=r"out\.txt.*\.seg\.nrrd.*\.dcm.*\.nii\.gz"):
        format_to_write(Path("out.txt"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a known format"),
        (b"hello", "is not a known format"),
        (b"\0" * 128 + b"DICM", "is a DICOM file without a SOP class"),
        (b"NRRD0004\n", "cut short"),
    ],
)
def test_what_is_none_of_them_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_structures(tmp_path / "x")


# --- nothing is lost in a resampling ------------------------------------------------------------
def block(geometry: Geometry, *slices: slice) -> StructureSet:
    out = StructureSet(geometry)
    mask = np.zeros(geometry.shape, bool)
    mask[slices] = True
    out.add("Brainstem", mask)
    return out


WHOLE = Geometry((40, 40, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def paired(
    folder: Path, prediction: StructureSet, reference: StructureSet
) -> tuple[StructureSet, StructureSet]:
    for name, side in (("p", prediction), ("r", reference)):
        format_to_write(folder / f"{name}.nrrd").write(side, folder / f"{name}.nrrd", WriteOptions())  # type: ignore[misc]
    return read_pair(CasePair("a", folder / "p.nrrd", folder / "r.nrrd"))


@pytest.mark.parametrize("empty_is_absent", [False, True])
def test_a_whole_is_not_compared_with_a_reference_of_which_half_was_not_drawn(
    tmp_path: Path, empty_is_absent: bool
) -> None:
    """An empty structure of a reference says that nobody drew it, not that the patient has half a mandible."""
    prediction, reference = StructureSet(WHOLE), StructureSet(WHOLE)
    mask = np.zeros(WHOLE.shape, bool)
    mask[5:15, 5:15, 5:15] = True
    reference.add("Bone_Mandible_L", mask)
    reference.add("Bone_Mandible_R", np.zeros(WHOLE.shape, bool))
    mask[5:15, 5:15, 5:25] = True
    prediction.add("Bone_Mandible", mask)
    for name, side in (("p", prediction), ("r", reference)):
        format_to_write(tmp_path / f"{name}.nrrd").write(side, tmp_path / f"{name}.nrrd", WriteOptions())  # type: ignore[misc]
    pair = CasePair("a", tmp_path / "p.nrrd", tmp_path / "r.nrrd")
    _, theirs = read_pair(pair, empty_is_absent=empty_is_absent)
    assert ("Bone_Mandible" in theirs) is empty_is_absent
    assert (
        any("was not joined: Bone_Mandible_R has no voxel" in text for text in theirs.warnings)
        is not empty_is_absent
    )


@pytest.mark.parametrize("cropped", ["reference", "prediction", "both"])
@pytest.mark.parametrize("origin", [(0, 0, 0), (3, 4, 5)])
def test_a_side_that_is_cropped_to_its_organ_is_compared_whole(
    tmp_path: Path, cropped: str, origin: tuple[int, int, int]
) -> None:
    # 1000 voxels against 2000 that hold them: DSC 2 * 1000 / 3000 whichever file is cropped
    large, small = (slice(5, 15), slice(5, 15), slice(5, 25)), (slice(5, 15), slice(5, 15), slice(5, 15))
    prediction, reference = block(WHOLE, *large), block(WHOLE, *small)
    if cropped in ("reference", "both"):
        reference = reference.cropped((5, 5, 5), (10, 10, 10))
    if cropped in ("prediction", "both"):
        prediction = prediction.cropped([5 - o for o in origin], (15, 16, 26))
    ours, theirs = paired(tmp_path, prediction, reference)
    assert ours.geometry.same_as(theirs.geometry)
    a, b = ours.crop("Brainstem"), theirs.crop("Brainstem")
    assert (a.voxels, b.voxels, a.common_voxels(b)) == (2000, 1000, 1000)
    assert not ours.warnings and not theirs.warnings  # nothing was interpolated


def test_another_spacing_is_compared_on_a_grid_that_covers_both(tmp_path: Path) -> None:
    reference = block(WHOLE, slice(5, 15), slice(5, 15), slice(5, 15)).cropped((5, 5, 5), (10, 10, 10))
    fine = Geometry((90, 60, 40), (0.5, 0.5, 0.5), (-0.25, -0.25, -0.25))
    prediction = block(fine, slice(10, 30), slice(10, 30), slice(10, 60))  # 5 to 30 mm along x
    ours, theirs = paired(tmp_path, prediction, reference)
    assert ours.volume_cc("Brainstem") == pytest.approx(2.5, rel=0.02)
    assert theirs.volume_cc("Brainstem") == 1.0
    assert any("was on another grid" in text for text in ours.warnings)
    assert not any("cut off" in text for text in ours.warnings)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("beyond", [False, True])
def test_converting_onto_a_ct_says_what_lies_outside_it_and_where(
    tmp_path: Path, capsys: Output, axis: int, beyond: bool
) -> None:
    # the CT ends in the middle of the organ on one side: half of its 1000 voxels are lost
    start = [0, 0, 0]
    shape = list(WHOLE.shape)
    if beyond:
        shape[axis] = 10
    else:
        start[axis], shape[axis] = 10, shape[axis] - 10
    ct = WHOLE.cropped(start, shape)
    hu = np.full(ct.shape, -1000, np.int16)
    hu[2:-2, 2:-2, 2:-2] = 40
    sitk.WriteImage(ct.place(sitk.GetImageFromArray(hu)), str(tmp_path / "ct.nrrd"))
    whole = block(WHOLE, slice(5, 15), slice(5, 15), slice(5, 15))
    format_to_write(tmp_path / "in.seg.nrrd").write(whole, tmp_path / "in.seg.nrrd", WriteOptions())  # type: ignore[misc]
    words = ["convert", str(tmp_path / "in.seg.nrrd"), str(tmp_path / "out.nrrd")]
    assert main([*words, "--ct", str(tmp_path / "ct.nrrd")]) == 0
    side = (("below", "above"), ("front", "back"), ("right", "left"))[axis][beyond]
    assert (
        f"Brainstem reaches beyond the grid: 500 of 1000 voxels lie outside it ({side})"
        in capsys.readouterr().err
    )
    assert read_structures(tmp_path / "out.nrrd").voxels("Brainstem") == 500


# --- what a file is, is decided by its content --------------------------------------------------
def label_map(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(labels, isVector=False), str(path))


LABELS = np.zeros((10, 32, 32), np.uint8)
LABELS[2:6, 4:14, 4:14], LABELS[2:6, 18:28, 18:28] = 1, 2


@pytest.mark.parametrize("place", ["beside", "above", "only the reference", "regions"])
def test_folders_of_nnunet_are_cases_with_the_names_of_their_dataset(tmp_path: Path, place: str) -> None:
    exchanged = np.array([0, 2, 1], np.uint8)[LABELS]
    for case in ("case_001", "case_002"):
        label_map(tmp_path / "data" / "labelsTr" / f"{case}.nii.gz", LABELS)
        label_map(tmp_path / "predicted" / f"{case}.nii.gz", exchanged)
    labels: dict[str, object] = {"background": 0, "Parotid_L": 1, "Parotid_R": 2}
    if place == "regions":
        labels = {"background": 0, "Parotids": [1, 2], "Parotid_R": 2}
    text = json.dumps({"labels": labels, "numTraining": 2, "file_ending": ".nii.gz"})
    home = "data" if place == "above" else "data/labelsTr"
    (tmp_path / home / "dataset.json").write_text(text)
    if place != "only the reference":
        (tmp_path / "predicted" / "dataset.json").write_text(text)
    pairing = find_pairs(tmp_path / "predicted", tmp_path / "data" / "labelsTr")
    assert [pair.case for pair in pairing.pairs] == ["case_001", "case_002"]
    for pair in pairing.pairs:
        prediction, reference = read_pair(pair)
        if place == "regions":
            assert reference.voxels("Parotids") == 800 and prediction.voxels("Parotid_R") == 400
            continue
        assert reference.names == prediction.names == ("Parotid_L", "Parotid_R")
        for organ in reference:
            assert not prediction.crop(organ).common_voxels(reference.crop(organ))


def test_a_label_map_is_no_mask_and_a_ct_no_organ(tmp_path: Path) -> None:
    label_map(tmp_path / "labels" / "case_001.nii.gz", LABELS)
    with pytest.raises(InputError, match=r"case_001\.nii\.gz has the values 1, 2: it is a label map"):
        read_structures(tmp_path / "labels")
    label_map(tmp_path / "masks" / "Brainstem.nii.gz", (LABELS == 1).astype(np.uint8) * 255)
    hu = np.random.default_rng(0).integers(-1000, 1500, LABELS.shape).astype(np.int16)
    label_map(tmp_path / "masks" / "ct.nii.gz", hu)
    label_map(tmp_path / "masks" / "dose.nii.gz", hu.astype(np.float32) / 30.5)
    found = read_structures(tmp_path / "masks")
    assert found.names == ("Brainstem",) and found.voxels("Brainstem") == 400
    assert sum("not a mask: left out" in text for text in found.warnings) == 2
    (tmp_path / "masks" / "Brainstem.nii.gz").unlink()
    with pytest.raises(InputError, match="holds no masks"):
        read_structures(tmp_path / "masks")


def test_a_folder_of_a_study_leads_to_its_structures_and_a_ct_is_no_structure(
    series: tuple[Geometry, CtSeries], tmp_path: Path
) -> None:
    files = series[1].files
    with pytest.raises(InputError, match="is a DICOM object of the kind CT Image Storage"):
        read_structures(files[0], series[0])
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="holds no masks and no other structures"):
        read_structures(tmp_path, series[0])
    rtstruct = next(found for found in FORMATS if found.name == "RTSTRUCT")
    assert rtstruct.write is not None
    rtstruct.write(organs(series[0]), tmp_path / "RS.1.2.3", WriteOptions(series[1]))  # no ending of its own
    assert read_structures(tmp_path, series[0], reference=series[1]).voxels("Brainstem") == 210
    rtstruct.write(organs(series[0]), tmp_path / "RS.1.2.4", WriteOptions(series[1]))
    with pytest.raises(InputError, match=r"several cases \(RS.1.2.3, RS.1.2.4\): name one"):
        read_structures(tmp_path, series[0])


# --- values of label maps -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (np.uint8, (1, 2)),
        (np.int16, (-1, 3)),
        (np.int8, (-128, 127)),
        (np.int32, (-2_000_000_000, 2_000_000_000)),
        (np.uint32, (1, 3_000_000_000)),
        (np.int64, (-(2**40), 2**40)),
        (np.uint16, (65535, 40000)),
        (np.float64, (100.0, 207.0)),
    ],
)
@pytest.mark.parametrize("dataset", [False, True])
def test_values_are_values_and_background_is_no_structure(
    tmp_path: Path, kind: type, values: tuple[int, int], dataset: bool
) -> None:
    labels = np.zeros(LABELS.shape, kind)
    labels[LABELS == 1], labels[LABELS == 2] = values
    labels[9, 31, 31] = values[1]
    label_map(tmp_path / "x.nrrd", labels)
    first, second = (int(v) for v in values)
    if dataset:
        content = {"labels": {"background": 0, "Parotid_L": first, "Lens_L": second, "Lens_R": 77}}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
    else:
        content = {"0": "background", str(first): "Parotid_L", str(second): "Lens_L", "77": "Lens_R"}
        (tmp_path / "x.json").write_text(json.dumps(content))
    found = read_structures(tmp_path / "x.nrrd")
    assert {name: found.voxels(name) for name in found} == {"Parotid_L": 400, "Lens_L": 401, "Lens_R": 0}
    assert found.crop("Lens_L").stop == (10, 32, 32)


def test_unnamed_values_are_reported_negative_ones_too(tmp_path: Path) -> None:
    labels = LABELS.astype(np.int16)
    labels[0, 0, 0] = -7
    label_map(tmp_path / "x.nrrd", labels)
    (tmp_path / "x.json").write_text(json.dumps({"labels": {"1": "Parotid_L"}}))
    found = read_structures(tmp_path / "x.nrrd")
    assert any(text.endswith("left out: -7, 2") for text in found.warnings)


def test_memory_does_not_grow_with_the_values(tmp_path: Path) -> None:
    import tracemalloc

    labels = np.zeros((40, 40, 40), np.int32)
    labels[5:10, 5:10, 5:10] = 1_000_000_000
    labels[20:25, 5:10, 5:10] = 20_000_000
    label_map(tmp_path / "x.nrrd", labels)
    names = {"1000000000": "Parotid_L", "20000000": "Parotid_R"}
    (tmp_path / "x.json").write_text(json.dumps({"labels": names}))
    tracemalloc.start()
    found = read_structures(tmp_path / "x.nrrd")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.voxels("Parotid_L") == found.voxels("Parotid_R") == 125
    assert peak < 20_000_000


@pytest.mark.parametrize("error", [0.0, 0.0001, 0.009, 0.0118])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_values_may_miss_a_whole_number_by_a_hundredth(tmp_path: Path, error: float, ending: str) -> None:
    labels = LABELS.astype(np.float32)
    labels[LABELS == 2] -= error
    label_map(tmp_path / f"x{ending}", labels)
    (tmp_path / "x.json").write_text(json.dumps({"1": "Parotid_L", "2": "Parotid_R"}))
    if error > 0.01:
        with pytest.raises(InputError, match="not whole numbers, e.g. 1.9882"):
            read_structures(tmp_path / f"x{ending}")
        return
    found = read_structures(tmp_path / f"x{ending}")
    assert found.voxels("Parotid_L") == found.voxels("Parotid_R") == 400


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_scaled_integers_are_read(tmp_path: Path, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(LABELS.T.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_data_dtype(np.int16)  # nibabel scales to the whole range of the type
    nibabel.save(image, tmp_path / f"x{ending}")
    slope = float(nibabel.load(tmp_path / f"x{ending}").dataobj.slope)
    assert 0 < slope < 0.01
    (tmp_path / "x.json").write_text(json.dumps({"1": "Parotid_L", "2": "Parotid_R"}))
    found = read_structures(tmp_path / f"x{ending}")
    assert found.voxels("Parotid_L") == found.voxels("Parotid_R") == 400


def test_four_dimensions_of_one_frame_are_read(tmp_path: Path) -> None:
    label_map(tmp_path / "x.nii.gz", LABELS[None])
    (tmp_path / "x.json").write_text(json.dumps({"1": "Parotid_L", "2": "Parotid_R"}))
    assert read_structures(tmp_path / "x.nii.gz").voxels("Parotid_R") == 400
    label_map(tmp_path / "y.nii.gz", np.stack([LABELS, LABELS]))
    (tmp_path / "y.json").write_text(json.dumps({"1": "Parotid_L"}))
    with pytest.raises(InputError, match="4 dimensions"):
        read_structures(tmp_path / "y.nii.gz")


@pytest.mark.parametrize("ending", [".txt", ".label"])
def test_label_descriptions_of_itk_snap_name_the_values(tmp_path: Path, ending: str) -> None:
    label_map(tmp_path / "x.nii.gz", LABELS)
    (tmp_path / f"x{ending}").write_text(
        "################################################\n# ITK-SnAP Label Description File\n"
        '    0     0    0    0        0  0  0    "Clear Label"\n'
        '    1   255    0    0        1  1  1    "Left Parotid"\n'
        '    2     0  255    0      0.5  1  1    "Lens R"\n'
    )
    found = read_structures(tmp_path / "x.nii.gz")
    assert {name: found.voxels(name) for name in found} == {"Parotid_L": 400, "Lens_R": 400}
    (tmp_path / f"x{ending}").write_text("notes of a reader: 1 is the left parotid\n")
    with pytest.raises(InputError, match="label map without names"):
        read_structures(tmp_path / "x.nii.gz")


# --- .seg.nrrd of other writers -----------------------------------------------------------------
def old_segmentation(path: Path, layers: int, fields: dict[int, dict[str, str]]) -> None:
    """As Slicer wrote it before layers were shared: one component a segment."""
    voxels = np.zeros((24, 24, 24, layers), np.uint8)
    voxels[4:12, 5:15, 6:16, 0] = 1
    if layers > 1:
        voxels[12:22, 12:22, 8:18, 1] = 1
    else:
        voxels[12:22, 12:22, 8:18, 0] = 2
    head = ["NRRD0004", "type: unsigned char", f"dimension: {4 if layers > 1 else 3}"]
    head += ["space: left-posterior-superior", f"sizes: {f'{layers} ' if layers > 1 else ''}24 24 24"]
    head += [f"space directions: {'none ' if layers > 1 else ''}(1,0,0) (0,1,0) (0,0,2)"]
    head += [
        f"kinds: {'list ' if layers > 1 else ''}domain domain domain",
        "encoding: raw",
        "space origin: (0,0,0)",
    ]
    for k, name in enumerate(("Brainstem", "Parotid_L")):
        head += [f"Segment{k}_ID:={name}", f"Segment{k}_Name:={name}", f"Segment{k}_Color:=0.5 {k} 0.1"]
        head += [f"Segment{k}_Extent:=0 23 0 23 0 23", f"Segment{k}_Tags:=|"]
        head += [f"Segment{k}_{key}:={value}" for key, value in fields.get(k, {}).items()]
    head += ["Segmentation_ReferenceImageExtentOffset:=0 0 0"]
    path.write_bytes("\n".join(head).encode() + b"\n\n" + voxels.tobytes())


@pytest.mark.parametrize(
    ("layers", "fields"),
    [
        (2, {}),
        (2, {0: {"Layer": "0"}}),
        (2, {1: {"LabelValue": "1"}}),
        (1, {1: {"LabelValue": "2"}}),
        (1, {0: {"LabelValue": "1", "Layer": "0"}, 1: {"LabelValue": "2", "Layer": "0"}}),
    ],
)
def test_segments_without_layer_or_label_are_where_slicer_takes_them_to_be(
    tmp_path: Path, layers: int, fields: dict[int, dict[str, str]]
) -> None:
    # vtkMRMLSegmentationStorageNode: the layer of the segment's own number, and label 1
    old_segmentation(tmp_path / "old.seg.nrrd", layers, fields)
    found = read_structures(tmp_path / "old.seg.nrrd")
    assert {name: found.voxels(name) for name in found} == {"Brainstem": 800, "Parotid_L": 1000}
