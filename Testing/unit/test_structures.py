"""Structures: masks on one grid, their set operations, and the files they survive in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicerio

from soars import catalogue
from soars.errors import InputError
from soars.formats.labelmap import read_label_map, write_label_map
from soars.formats.maskfolder import read_mask_folder, write_mask_folder
from soars.formats.reading import read_structures
from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd
from soars.structures import (
    Box,
    Geometry,
    StructureInfo,
    StructureSet,
    from_label_map,
    tight_mask,
    to_label_map,
)
from soars.structures.mask import dice

AXIAL = Geometry((20, 16, 12), (0.9, 1.1, 2.5), (10.0, -20.0, 33.3))


def rotated(degrees: float) -> tuple[float, ...]:
    """Direction cosines turned about z, then about x."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return tuple((about_z @ about_x).ravel().tolist())


OBLIQUE = Geometry(AXIAL.size, AXIAL.spacing, AXIAL.origin, rotated(17))
FEET_UP = Geometry(AXIAL.size, AXIAL.spacing, AXIAL.origin, (-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0))


def block(geometry: Geometry, z: slice, y: slice, x: slice) -> np.ndarray:
    full = np.zeros(geometry.shape, dtype=bool)
    full[z, y, x] = True
    return full


def some_organs(geometry: Geometry = AXIAL) -> StructureSet:
    """Overlap, an empty organ, one at every border, a name that no catalogue knows."""
    structures = StructureSet(geometry)
    structures.add("Eye_L", block(geometry, slice(2, 9), slice(3, 12), slice(4, 14)))
    structures.add("Lens_L", block(geometry, slice(4, 6), slice(2, 5), slice(7, 9)))
    structures.add("Pituitary", block(geometry, slice(0, 0), slice(0, 0), slice(0, 0)))
    structures.add("Brainstem", block(geometry, slice(10, 12), slice(None), slice(None)))
    corners = np.zeros(geometry.shape, dtype=bool)
    corners[0, 0, 0] = corners[-1, -1, -1] = True
    structures.add("GTV Höcker 1/2", corners, StructureInfo(colour=(1, 2, 3), tags={"Note": "kept"}))
    return structures


def assert_same(read: StructureSet, written: StructureSet) -> None:
    assert set(read.names) == set(written.names)
    assert read.geometry.same_as(written.geometry, 1e-3)
    for name in written:
        assert read.crop(name).equals(written.crop(name)), name


# --- masks and geometry -------------------------------------------------------------------------
def test_a_mask_is_the_tight_box_of_its_organ() -> None:
    structures = some_organs()
    lens = structures.crop("Lens_L")
    assert (lens.start, lens.shape) == ((4, 2, 7), (2, 3, 2))
    assert structures.crop("Lens_L").bounds == Box((4, 2, 7), (6, 5, 9))
    assert structures.voxels("Lens_L") == 12
    assert structures.volume_cc("Lens_L") == pytest.approx(12 * 0.9 * 1.1 * 2.5 / 1000)
    assert np.array_equal(structures.full("Lens_L"), block(AXIAL, slice(4, 6), slice(2, 5), slice(7, 9)))


def test_masks_cannot_be_changed_and_do_not_follow_the_array_they_came_from() -> None:
    full = block(AXIAL, slice(1, 3), slice(1, 3), slice(1, 3))
    structures = StructureSet(AXIAL)
    structures.add("Brainstem", full)
    full[:] = False
    assert structures.voxels("Brainstem") == 8
    with pytest.raises(ValueError):
        structures.crop("Brainstem").array[0, 0, 0] = False


def test_an_empty_organ_is_kept_by_name() -> None:
    structures = some_organs()
    assert structures.is_empty("Pituitary")
    assert structures.volume_cc("Pituitary") == 0
    assert structures.crop("Pituitary").bounds.is_empty
    assert structures.centre_of_mass("Pituitary") is None
    assert not structures.full("Pituitary").any()


@pytest.mark.parametrize("geometry", [AXIAL, OBLIQUE, FEET_UP])
def test_the_centre_of_mass_is_in_lps_mm(geometry: Geometry) -> None:
    structures = some_organs(geometry)
    image = geometry.place(sitk.Image(geometry.size, sitk.sitkUInt8))
    expected = image.TransformContinuousIndexToPhysicalPoint((7.5, 3.0, 4.5))  # SimpleITK as the other source
    assert structures.centre_of_mass("Lens_L") == pytest.approx(expected)
    assert geometry.to_index(expected) == pytest.approx((4.5, 3.0, 7.5))


def test_grids_differ_by_size_place_or_direction() -> None:
    assert AXIAL.same_as(Geometry(AXIAL.size, AXIAL.spacing, (10.008, -20.0, 33.3)))
    assert not AXIAL.same_as(Geometry(AXIAL.size, AXIAL.spacing, (10.01, -20.0, 33.3)))
    assert not AXIAL.same_as(Geometry((20, 16, 13), AXIAL.spacing, AXIAL.origin))
    assert not AXIAL.same_as(FEET_UP)


def test_a_structure_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match="no structure 'Lens_R'.*Lens_L"):
        some_organs().full("Lens_R")


def test_a_mask_must_fit_the_grid() -> None:
    structures = StructureSet(AXIAL)
    with pytest.raises(ValueError, match="shape"):
        structures.add("Brainstem", np.ones((2, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="beyond"):
        structures.add_crop("Brainstem", (11, 0, 0), np.ones((2, 2, 2), dtype=bool))


# --- set operations -----------------------------------------------------------------------------
def test_union_and_common_voxels_are_those_of_the_full_arrays() -> None:
    random = np.random.default_rng(5)
    structures = StructureSet(AXIAL)
    a, b = (random.random(AXIAL.shape) > 0.7 for _ in range(2))
    a[:4], b[8:], b[:, :3] = False, False, False
    structures.add("a", a)
    structures.add("b", b)
    structures.add("none", np.zeros_like(a))
    for names, expected in ((("a", "b", "none"), a | b), (("none",), np.zeros_like(a)), (("b",), b)):
        result = StructureSet(AXIAL)
        result.add_mask("result", structures.union(names))
        assert np.array_equal(result.full("result"), expected)
    first, second, none = (structures.crop(name) for name in ("a", "b", "none"))
    assert first.common_voxels(second) == np.count_nonzero(a & b) > 0
    assert first.common_voxels(none) == 0
    assert dice(first, second) == pytest.approx(2 * np.count_nonzero(a & b) / (a.sum() + b.sum()))
    assert dice(first, none) == 0 and dice(first, first) == 1 and math.isnan(dice(none, none))


def test_boxes_are_what_their_voxels_are() -> None:
    random = np.random.default_rng(11)
    for _ in range(200):
        corners = random.integers(0, 9, (2, 2, 3))
        first, second = (Box(tuple(np.minimum(*c).tolist()), tuple(np.maximum(*c).tolist())) for c in corners)
        there = [np.zeros((9, 9, 9), bool) for _ in range(2)]
        for voxels, box in zip(there, (first, second), strict=True):
            voxels[box.slices] = True
            assert box.is_empty == (not voxels.any()) and np.prod(box.shape) == voxels.sum()
        common = first & second
        both = there[0] & there[1]
        assert common.is_empty == (not both.any())
        if not common.is_empty:
            assert both[common.slices].all() and both.sum() == np.prod(common.shape)
            assert there[0][first.slices][common.slices_in(first)].all()
        either = first | second
        assert either.contains(first) and either.contains(second)
        if (there[0] | there[1]).any():
            assert Box(tight_mask(there[0] | there[1]).start, tight_mask(there[0] | there[1]).stop) == either
        assert first.contains(second) == (not (there[1] & ~there[0]).any())
    with pytest.raises(ValueError, match="begins before"):
        Box((0, 0, 0), (2, 2, 2)).slices_in(Box((1, 0, 0), (4, 4, 4)))


@pytest.mark.parametrize("geometry", [AXIAL, OBLIQUE])
def test_a_crop_keeps_every_voxel_where_it_was(geometry: Geometry) -> None:
    structures = some_organs(geometry)
    part = structures.cropped((3, 1, 5), (4, 6, 8))
    assert np.array_equal(part.full("Eye_L"), structures.full("Eye_L")[3:7, 1:7, 5:13])
    assert part.centre_of_mass("Lens_L") == pytest.approx(structures.centre_of_mass("Lens_L"))
    assert part.is_empty("Brainstem")


@pytest.mark.parametrize(
    "target", [OBLIQUE, FEET_UP, Geometry((50, 40, 60), (0.5, 0.5, 0.5), (9.0, -19.0, 34.0))]
)
def test_resampling_agrees_with_simpleitk_on_the_whole_volume(target: Geometry) -> None:
    structures = some_organs()
    resampled = structures.resample(target)
    grid = target.place(sitk.Image(target.size, sitk.sitkUInt8))
    for name in structures:
        image = AXIAL.place(sitk.GetImageFromArray(np.pad(structures.full(name), 2).astype(np.float32)))
        image.SetOrigin(tuple(AXIAL.to_physical((-2, -2, -2))))
        expected = (
            sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear)) >= 0.5
        )
        assert np.array_equal(resampled.full(name), expected), name


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("turned", [False, True])
def test_on_a_grid_half_a_voxel_aside_a_block_keeps_its_volume(axes: tuple[int, ...], turned: bool) -> None:
    """A block of 5 voxels a side has 6 centres a side within half a voxel of it there, of which 2 lie exactly on its
    border: 5 belong to it. Where two or three axes tie, the interpolated value of an edge is a quarter or an eighth and
    no tie. In whatever order a file has the voxels, they are the same ones."""
    mask = np.zeros((12, 12, 12), bool)
    mask[3:8, 3:8, 3:8] = True
    source = StructureSet(Geometry((12, 12, 12), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    source.add("Brainstem", mask)
    aside = tuple(0.5 if axis in axes else 0.0 for axis in (2, 1, 0))
    target = Geometry((12, 12, 12), (1.0, 1.0, 1.0), aside)
    found = source.resample(target)
    if turned:
        back = Geometry(
            (12, 12, 12), (1.0, 1.0, 1.0), tuple(11 + a for a in aside), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, -1.0)
        )
        np.testing.assert_array_equal(
            source.resample(back).full("Brainstem")[::-1, ::-1, ::-1], found.full("Brainstem")
        )
    if len(axes) == 1:
        assert found.voxels("Brainstem") == 125
    else:
        assert 0.85 * 125 < found.voxels("Brainstem") <= 125


def test_resampling_to_the_same_grid_changes_nothing() -> None:
    structures = some_organs()
    assert_same(structures.resample(Geometry(AXIAL.size, AXIAL.spacing, AXIAL.origin)), structures)


# --- files --------------------------------------------------------------------------------------
def as_seg_nrrd(structures: StructureSet, folder: Path) -> Path:
    write_seg_nrrd(structures, folder / "organs.seg.nrrd")
    return folder / "organs.seg.nrrd"


def as_nrrd(structures: StructureSet, folder: Path) -> Path:
    write_label_map(structures, folder / "organs.nrrd")
    return folder / "organs.nrrd"


def as_nifti(structures: StructureSet, folder: Path) -> Path:
    write_label_map(structures, folder / "organs.nii.gz")
    return folder / "organs.nii.gz"


def as_plain_nifti(structures: StructureSet, folder: Path) -> Path:
    write_label_map(structures, folder / "organs.nii")
    return folder / "organs.nii"


def as_mha(structures: StructureSet, folder: Path) -> Path:
    write_label_map(structures, folder / "organs.mha")
    return folder / "organs.mha"


def as_masks(structures: StructureSet, folder: Path) -> Path:
    write_mask_folder(structures, folder / "masks")
    return folder / "masks"


WRITERS: list[Callable[[StructureSet, Path], Path]] = [
    as_seg_nrrd,
    as_nrrd,
    as_nifti,
    as_plain_nifti,
    as_mha,
    as_masks,
]


@pytest.mark.parametrize("geometry", [AXIAL, OBLIQUE, FEET_UP])
@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_back_every_voxel(
    write: Callable[[StructureSet, Path], Path], geometry: Geometry, tmp_path: Path
) -> None:
    structures = some_organs(geometry)
    read = read_structures(write(structures, tmp_path))
    assert_same(read, structures)
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".soars")]


@pytest.mark.parametrize("write", WRITERS)
def test_a_set_without_structures_or_with_empty_ones_only_survives(
    write: Callable[[StructureSet, Path], Path], tmp_path: Path
) -> None:
    structures = StructureSet(AXIAL)
    structures.add("Pituitary", np.zeros(AXIAL.shape, dtype=bool))
    assert_same(read_structures(write(structures, tmp_path)), structures)


def test_names_the_catalogue_does_not_know_are_kept_with_a_warning(tmp_path: Path) -> None:
    read = read_structures(as_seg_nrrd(some_organs(), tmp_path))
    assert any("GTV Höcker 1/2" in warning for warning in read.warnings)
    assert not any("Eye_L" in warning for warning in read.warnings)


def test_other_spellings_become_the_catalogue_s_name(tmp_path: Path) -> None:
    structures = StructureSet(AXIAL)
    structures.add("Left Parotid", block(AXIAL, slice(1, 2), slice(1, 2), slice(1, 2)))
    path = as_seg_nrrd(structures, tmp_path)
    read = read_structures(path)
    assert read.names == ("Parotid_L",)
    assert read.info["Parotid_L"].original_name == "Left Parotid"
    assert read_structures(path, catalogue_names=False).names == ("Left Parotid",)


def test_structures_on_another_grid_are_resampled_to_the_ct_with_a_warning(tmp_path: Path) -> None:
    structures = some_organs()
    target = Geometry((40, 32, 24), (0.45, 0.55, 1.25), AXIAL.origin)
    read = read_structures(as_seg_nrrd(structures, tmp_path), target)
    assert read.geometry == target
    assert read.volume_cc("Eye_L") == pytest.approx(structures.volume_cc("Eye_L"), rel=0.15)
    assert any("resampled" in warning for warning in read.warnings)


def test_a_file_in_single_precision_takes_the_ct_s_exact_grid(tmp_path: Path) -> None:
    structures = some_organs(OBLIQUE)
    read = read_structures(as_nifti(structures, tmp_path), OBLIQUE)
    assert read.geometry is OBLIQUE
    assert not any("resampled" in warning for warning in read.warnings)
    assert_same(read, structures)


# --- .seg.nrrd ----------------------------------------------------------------------------------
def test_slicerio_reads_the_same_segments(tmp_path: Path) -> None:
    structures = some_organs()
    segmentation = slicerio.read_segmentation(str(as_seg_nrrd(structures, tmp_path)))
    assert segmentation["voxels"].shape == (
        2,
        *AXIAL.size,
    )  # the lens in a layer of its own, all others share one
    assert np.allclose(segmentation["ijkToLPS"], AXIAL.matrix)
    assert segmentation["containedRepresentationNames"] == ["Binary labelmap"]
    for name, segment in zip(structures, segmentation["segments"], strict=True):
        assert segment["id"].encode("ascii", "ignore") == name.encode(
            "ascii", "ignore"
        )  # pynrrd drops umlauts
        mask = slicerio.segment_mask(segmentation, segment)
        assert np.array_equal(mask.transpose(2, 1, 0), structures.full(name)), name


def test_segments_of_a_layer_carry_the_layer_s_extent(tmp_path: Path) -> None:
    # Slicer crops a layer to the extent of its first segment
    path = as_seg_nrrd(some_organs().subset(("Eye_L", "Lens_L", "Brainstem")), tmp_path)
    segmentation = slicerio.read_segmentation(str(path), skip_voxels=True)
    extents = {segment["layer"]: segment["extent"] for segment in segmentation["segments"]}
    assert extents == {0: [0, 19, 0, 15, 2, 11], 1: [7, 8, 2, 4, 4, 5]}
    for segment in segmentation["segments"]:
        assert segment["extent"] == extents[segment["layer"]]


def test_what_slicerio_writes_is_read(tmp_path: Path) -> None:
    structures = some_organs()
    segmentation = slicerio.create_segmentation(AXIAL.size, AXIAL.matrix)
    for name in ("Eye_L", "Lens_L", "Brainstem"):
        slicerio.add_segment(
            segmentation, structures.full(name).transpose(2, 1, 0), {"id": name, "name": name}
        )
    path = tmp_path / "other.seg.nrrd"
    slicerio.write_segmentation(str(path), segmentation)
    assert_same(read_seg_nrrd(path), structures.subset(("Eye_L", "Lens_L", "Brainstem")))


@pytest.mark.parametrize("encoding", ["raw", "bzip2"])
def test_other_encodings_are_read(encoding: str, tmp_path: Path) -> None:
    structures = some_organs().subset(("Eye_L", "Lens_L"))
    segmentation = slicerio.read_segmentation(str(as_seg_nrrd(structures, tmp_path)))
    segmentation["encoding"] = encoding
    segmentation["voxels"] = segmentation["voxels"].astype(np.int16)
    slicerio.write_segmentation(str(tmp_path / "other.seg.nrrd"), segmentation)
    assert_same(read_seg_nrrd(tmp_path / "other.seg.nrrd"), structures)


def test_colours_and_tags_survive(tmp_path: Path) -> None:
    read = read_seg_nrrd(as_seg_nrrd(some_organs(), tmp_path))
    info = read.info["GTV Höcker 1/2"]
    assert info.colour == (1, 2, 3)
    assert info.tags["Note"] == "kept"


def test_organs_bring_their_terminology(tmp_path: Path) -> None:
    path = as_seg_nrrd(some_organs(), tmp_path)
    segment = slicerio.segment_from_name(slicerio.read_segmentation(str(path), skip_voxels=True), "Brainstem")
    brainstem = catalogue.CATALOGUE["Brainstem"]
    assert segment["terminology"]["type"][1] == brainstem.snomed_code
    assert segment["color"] == pytest.approx([c / 255 for c in brainstem.colour], abs=1e-5)


def test_equal_structures_give_equal_files(tmp_path: Path) -> None:
    first = as_seg_nrrd(some_organs(), tmp_path).read_bytes()
    assert as_seg_nrrd(some_organs(), tmp_path).read_bytes() == first


@pytest.mark.parametrize("keep", [3, 200, 0.9, 0.99])
def test_a_seg_nrrd_that_is_cut_short_is_refused(keep: float, tmp_path: Path) -> None:
    path = as_seg_nrrd(some_organs(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(InputError, match="organs.seg.nrrd"):
        read_structures(path)


def test_a_seg_nrrd_with_a_wrong_byte_in_its_voxels_is_refused(tmp_path: Path) -> None:
    path = as_seg_nrrd(some_organs(), tmp_path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # in the checksum
    path.write_bytes(content)
    with pytest.raises(InputError, match="organs.seg.nrrd"):
        read_structures(path)


def test_a_plain_nrrd_called_seg_nrrd_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.seg.nrrd"
    sitk.WriteImage(sitk.Image((4, 4, 4), sitk.sitkUInt8), str(path))
    with pytest.raises(InputError, match="no segments"):
        read_structures(path)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "organs.seg.nrrd"
    path.write_text("before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr("soars.formats.segnrrd._label_slabs", fail)
    with pytest.raises(InputError, match="the disk is full"):
        write_seg_nrrd(some_organs(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["organs.seg.nrrd"]
    assert path.read_text() == "before"


# --- label maps ---------------------------------------------------------------------------------
def test_voxels_of_two_organs_have_a_value_of_their_own() -> None:
    structures = some_organs().subset(("Eye_L", "Lens_L"))
    image, values = to_label_map(structures)
    assert values == {1: ("Eye_L",), 2: ("Lens_L",), 3: ("Eye_L", "Lens_L")}
    labels = sitk.GetArrayFromImage(image)
    assert np.array_equal(labels == 3, structures.full("Eye_L") & structures.full("Lens_L"))
    assert_same(from_label_map(image, values), structures)


def test_more_than_255_values_fit() -> None:
    structures = StructureSet(AXIAL)
    for i in range(300):
        structures.add(f"s{i}", block(AXIAL, slice(i % 12, 12), slice(i // 20, i // 20 + 1), slice(0, 3)))
    image, values = to_label_map(structures)
    assert image.GetPixelID() == sitk.sitkUInt16
    assert_same(from_label_map(image, values), structures)


def test_a_label_map_takes_its_names_from_csv_too(tmp_path: Path) -> None:
    labels = np.zeros(AXIAL.shape, dtype=np.uint8)
    labels[2:4], labels[5:6], labels[8] = 1, 2, 9
    sitk.WriteImage(AXIAL.place(sitk.GetImageFromArray(labels)), str(tmp_path / "map.mha"))
    (tmp_path / "map.csv").write_text("value,name\n1,Brainstem\n2,Eye_L\n2,Lens_L\n")
    read = read_label_map(tmp_path / "map.mha")
    assert np.array_equal(read.full("Brainstem"), labels == 1)
    assert np.array_equal(read.full("Lens_L"), labels == 2)
    assert any("9" in warning for warning in read.warnings)


def test_a_label_map_without_names_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    path = as_nifti(some_organs(), tmp_path)
    (tmp_path / "organs.json").unlink()
    with pytest.raises(InputError, match=r"organs.nii.gz.*without names.*organs\.json or organs\.csv"):
        read_structures(path)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"labels": {"one": "Brainstem"}}', '{"labels": {"1": 5}}'])
def test_names_that_cannot_be_read_are_refused_with_their_file(text: str, tmp_path: Path) -> None:
    path = as_nifti(some_organs(), tmp_path)
    (tmp_path / "organs.json").write_text(text)
    with pytest.raises(InputError, match="organs.json"):
        read_structures(path)


@pytest.mark.parametrize("write", [as_nrrd, as_nifti, as_plain_nifti, as_mha])
def test_an_image_that_is_cut_short_is_refused(
    write: Callable[[StructureSet, Path], Path], tmp_path: Path
) -> None:
    path = write(some_organs(), tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=path.name):
        read_structures(path)


def test_an_image_with_fractions_is_no_label_map(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 3, 3), 0.5)), str(tmp_path / "p.nrrd"))
    (tmp_path / "p.json").write_text(json.dumps({"1": "Brainstem"}))
    with pytest.raises(InputError, match="whole numbers"):
        read_structures(tmp_path / "p.nrrd")


# --- folders of masks ---------------------------------------------------------------------------
def test_masks_on_different_grids_are_put_on_one_that_covers_all(tmp_path: Path) -> None:
    folder = as_masks(some_organs(), tmp_path)
    box = StructureSet(
        AXIAL.cropped((-4, 2, 18), (5, 6, 7))
    )  # reaches beyond the others' grid below and to the left
    box.add("Eye_R", np.ones((5, 6, 7), dtype=bool))
    write_mask_folder(box, tmp_path / "odd")
    (tmp_path / "odd" / "Eye_R.nii.gz").rename(folder / "Eye_R.nii.gz")
    read = read_mask_folder(folder)
    assert read.geometry.same_as(AXIAL.cropped((-4, 0, 0), (16, 16, 25)))
    assert any("Eye_R lie on other grids than Brainstem" in text for text in read.warnings)
    for name, written in ((n, s) for s in (some_organs(), box) for n in s):
        assert read.voxels(name) == written.voxels(name)
        if not written.is_empty(name):
            assert read.centre_of_mass(name) == pytest.approx(written.centre_of_mass(name), abs=1e-4)


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no masks"):
        read_structures(tmp_path)


def test_masks_are_not_mixed_with_others_that_are_there(tmp_path: Path) -> None:
    folder = as_masks(some_organs(), tmp_path)
    write_mask_folder(some_organs(), folder)  # the same names again: replaced
    with pytest.raises(InputError, match="other masks"):
        write_mask_folder(some_organs().subset(("Eye_L",)), folder)


def test_two_observers_real_masks_are_read(shared: Path) -> None:
    case = sorted((shared / "data" / "observers" / "oncologist").iterdir())[0]
    read = read_structures(case / "segmentations")
    assert {"Parotid_L", "Parotid_R", "SpinalCord", "Lens_L"} <= set(read.names)
    assert 10 < read.volume_cc("Parotid_L") < 60


@pytest.mark.parametrize("name", ["nothing.seg.nrrd", "nothing"])
def test_a_path_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        read_structures(tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "organs.txt").write_text("Brainstem")
    with pytest.raises(InputError, match="organs.txt is not a known format"):
        read_structures(tmp_path / "organs.txt")
