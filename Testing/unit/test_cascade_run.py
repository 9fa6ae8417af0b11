"""The whole cascade on hand-built networks: hand-over, sides, orientation, absence, subsets, cancel."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_networks import Band, Sphere, branch, bundle_of, scan_of, turned

from soars.bundle.manifest import BranchSpec, Bundle
from soars.cascade.branches import HEATMAP_SD_MM, Scan, exchange_of, find_centres
from soars.cascade.preprocess import Grid, find_body
from soars.cascade.run import needed_branches
from soars.cascade.sides import Midline
from soars.cascade.windows import ProbabilityMap
from soars.ct.images import CtScan
from soars.errors import CancelledError, EngineError, InputError
from soars.networks.architecture import Architecture
from soars.progress import Progress
from soars.run.segment import SegmentOptions, SegmentResult, segment
from soars.structures import Geometry, StructureSet

BRAINSTEM = Sphere((0.0, 20.0, 30.0), 17.0, 650.0)
CEREBELLUM = Sphere((0.0, 42.0, -2.0), 16.0, -300.0)
PAROTIDS = (Sphere((40.0, 0.0, -30.0), 16.0, 300.0), Sphere((-42.0, 3.0, -33.0), 16.0, 450.0))
LENSES = (Sphere((30.0, -35.0, 30.0), 8.0, 1000.0), Sphere((-30.0, -35.0, 30.0), 8.0, 1000.0))
PATIENT = (BRAINSTEM, CEREBELLUM, *PAROTIDS, *LENSES)
OPTIONS = SegmentOptions(engine="onnxruntime", device="cpu", threads=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All four branches: 2 anchors, 2 mid-level organs kept away from the anchors, lenses found by one shared HU."""
    folder = tmp_path_factory.mktemp("tiny")
    guided = {"inputs": ("ct", "anchor"), "channels": 3}
    return bundle_of(
        folder,
        [
            branch(folder, "anchor", {"Brainstem": Band(660, 140), "Cerebellum": Band(-300, 130)}),
            branch(
                folder,
                "mid_level",
                {"Parotid_L": Band(275, 95, (1, 2)), "Parotid_R": Band(450, 80, (1, 2))},
                **guided,
            ),
            branch(
                folder,
                "detection",
                {"Lens_L": Band(1000, 200), "Lens_R": Band(1000, 200)},
                activation="heatmap",
                patch=(16, 48, 48),
                **guided,
            ),
            branch(
                folder,
                "small_hard",
                {"Lens_L": Band(1000, 500), "Lens_R": Band(1000, 500)},
                activation="sigmoid",
                spacing_mm=(1.0, 1.0, 1.5),
                patch=(16, 24, 24),
            ),
        ],
        voi_mm={"Lens_L": (24.0, 24.0, 24.0), "Lens_R": (24.0, 24.0, 24.0)},
    )


@pytest.fixture(scope="module")
def scan() -> CtScan:
    return scan_of(PATIENT)


@pytest.fixture(scope="module")
def result(bundle: Bundle, scan: CtScan) -> SegmentResult:
    return segment(scan, bundle, OPTIONS)


def check_sphere(
    structures: StructureSet, name: str, sphere: Sphere, *, centre_mm: float, volume: float
) -> None:
    centre = structures.centre_of_mass(name)
    assert centre is not None
    np.testing.assert_allclose(centre, sphere.centre_mm, atol=centre_mm, err_msg=name)
    expected = 4 / 3 * math.pi * sphere.radius_mm**3 / 1000
    assert structures.volume_cc(name) == pytest.approx(expected, rel=volume), name


def test_every_organ_is_found_where_it_is(result: SegmentResult) -> None:
    """Spheres on a 2 x 2 x 3 mm scan: centre within 0.5 mm, volume within 20 % (bands do not end at half the step)."""
    s = result.structures
    assert s.names == ("Brainstem", "Cerebellum", "Parotid_L", "Parotid_R", "Lens_L", "Lens_R")
    assert result.absent == {}
    for name, sphere in zip(s.names, PATIENT, strict=True):
        check_sphere(s, name, sphere, centre_mm=0.5, volume=0.2)


def test_it_says_what_ran_and_how_long_each_stage_took(result: SegmentResult) -> None:
    assert (result.engine.engine, result.engine.device, result.engine.precision) == (
        "onnxruntime",
        "cpu",
        "fp32",
    )
    assert result.engine.reason
    stages = {
        "prepare",
        "load",
        "anchor",
        "detection",
        "small_hard",
        "mid_level",
        "contours",
        "check",
        "total",
    }
    assert set(result.timings_s) == stages and all(t >= 0 for t in result.timings_s.values())
    assert sum(t for name, t in result.timings_s.items() if name != "total") <= result.timings_s["total"]


def test_detected_centres_are_the_organs_centres(result: SegmentResult) -> None:
    for detection, lens in zip(result.detections, LENSES, strict=True):
        assert detection.absent is None and detection.peak > 0.2
        np.testing.assert_allclose(detection.centre_mm, lens.centre_mm, atol=1.8)


def test_a_centre_is_found_to_a_fraction_of_a_voxel() -> None:
    """Of the heat map that a network is trained towards, on voxels of 3 mm: to 0.2 mm, wherever it lies among them."""
    grid = Grid((-40.0, -43.0, -45.0), (3.0, 3.0, 3.0), (28, 29, 30))
    points = grid.index_to_points(np.stack(np.indices(grid.shape), -1))
    spec = BranchSpec(
        "detection", ("ct",), ("Pituitary",), "heatmap", grid.spacing_mm, (8, 8, 8),
        Architecture.plain(1, 1, (4,)), {},
    )  # fmt: skip
    midline = Midline(0.0, 0.0, 0.0, (0.0, 0.0), 5.0, "organs")
    for centre in ((0.0, 0.0, 0.0), (1.4, -0.7, 0.3), (-5.6, 2.2, 7.9)):
        away2 = ((points - centre) ** 2).sum(-1)
        values = np.rint(65000 * np.exp(-away2 / (2 * HEATMAP_SD_MM**2))).astype(np.uint16)[None]
        (found,) = find_centres(
            ProbabilityMap(grid, values, 65000, False),
            spec,
            Geometry((60, 60, 60), (2.0, 2.0, 2.0), (-60.0, -60.0, -60.0)),
            midline,
            ["Pituitary"],
        )
        np.testing.assert_allclose(found.centre_mm, centre, atol=0.2)


@pytest.mark.parametrize("orientation", ["RAS", "RPI", "PIR", "SAL"])
def test_orientation_of_the_file_changes_nothing(
    bundle: Bundle, scan: CtScan, result: SegmentResult, orientation: str
) -> None:
    """Feet-first, flipped, sagittal or coronal storage: the same voxels of the patient, left and right included."""
    other = segment(turned(scan, orientation), bundle, OPTIONS)
    assert other.structures.names == result.structures.names
    for name in result.structures.names:
        image = turned(scan, orientation).image
        mask = sitk.GetImageFromArray(other.structures.full(name).astype(np.uint8))
        mask.CopyInformation(image)
        back = sitk.GetArrayFromImage(sitk.DICOMOrient(mask, "LPS")) > 0
        here = result.structures.full(name)
        assert np.count_nonzero(back != here) <= 0.002 * here.sum(), name


def test_an_oblique_scan_finds_the_same_organs(bundle: Bundle, scan: CtScan) -> None:
    angle = math.radians(12)
    c, s = math.cos(angle), math.sin(angle)
    tilted = sitk.Image(90, 90, 60, sitk.sitkInt16)
    tilted.SetSpacing((2.0, 2.0, 2.8))
    tilted.SetDirection((1, 0, 0, 0, c, -s, 0, s, c))
    middle = np.array(tilted.TransformContinuousIndexToPhysicalPoint((44.5, 44.5, 29.5)))
    tilted.SetOrigin((np.zeros(3) - middle).tolist())
    resampled = sitk.Resample(scan.image, tilted, sitk.Transform(), sitk.sitkLinear, -1000)
    found = segment(replace(scan, image=resampled), bundle, OPTIONS).structures
    # Not the cerebellum: where the scan ends obliquely, half tissue and half air has its HU.
    for name, sphere in (("Brainstem", BRAINSTEM), ("Parotid_L", PAROTIDS[0]), ("Parotid_R", PAROTIDS[1])):
        check_sphere(found, name, sphere, centre_mm=0.8, volume=0.27)


def test_a_heat_map_with_equal_peaks_on_both_sides_gives_each_side_its_own(result: SegmentResult) -> None:
    left, right = (result.structures.centre_of_mass(n) for n in ("Lens_L", "Lens_R"))
    assert left is not None and right is not None and left[0] > 20 and right[0] < -20


def test_a_narrow_peak_does_not_beat_the_whole_one_of_the_organ(bundle: Bundle) -> None:
    """The map is 1 in a speck and 0.75 in the lens, both on the left: the lens has the shape that was asked for."""
    lens = replace(LENSES[0], hu=1050.0)
    speck = Sphere((50.0, 20.0, -20.0), 3.5, 1000.0)
    found = segment(scan_of([BRAINSTEM, CEREBELLUM, lens, speck]), bundle, OPTIONS).structures
    assert found.centre_of_mass("Lens_L") == pytest.approx(lens.centre_mm, abs=1.0)


def test_the_mid_level_branch_sees_the_anchors(tmp_path: Path, scan: CtScan) -> None:
    """With the same HU as an anchor, an organ of the guided branch is there only where the anchor is not."""
    anchor = branch(tmp_path, "anchor", {"Brainstem": Band(600, 400)})
    guided = branch(
        tmp_path, "mid_level", {"Larynx": Band(600, 400, (1,))}, inputs=("ct", "anchor"), channels=2,
        spacing_mm=(3.0, 3.0, 3.0),
    )  # fmt: skip
    found = segment(scan_of([BRAINSTEM]), bundle_of(tmp_path, [anchor, guided]), OPTIONS)
    assert found.structures.names == ("Brainstem",) and "Larynx" in found.absent


def test_the_small_organs_branch_sees_its_own_heat_map(bundle: Bundle, scan: CtScan, tmp_path: Path) -> None:
    """A network that finds an organ only where the heat map is low finds none at the peak."""
    for name, band in (("found", Band(1000, 500)), ("gone", Band(1000, 500, (1,)))):
        folder = tmp_path / name
        folder.mkdir()
        for file in bundle.folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        small = branch(
            folder, "small_hard", {"Lens_L": band}, inputs=("ct", "heatmap"), channels=2, activation="sigmoid",
            spacing_mm=(1.0, 1.0, 1.5), patch=(16, 24, 24),
        )  # fmt: skip
        guided = bundle_of(folder, list({**bundle.branches, "small_hard": small}.values()), bundle.voi_mm)
        found = segment(scan, guided, replace(OPTIONS, organs=("Lens_L",))).structures
        assert ("Lens_L" in found and found.volume_cc("Lens_L") > 1.5) == (name == "found")


def test_a_subset_runs_only_the_branches_it_needs_and_gives_the_same_masks(
    bundle: Bundle, scan: CtScan, result: SegmentResult
) -> None:
    assert needed_branches(bundle, ["Brainstem"]) == ("anchor",)
    assert needed_branches(bundle, ["Parotid_L"]) == ("anchor", "mid_level")
    assert needed_branches(bundle, ["Lens_L"]) == ("anchor", "detection", "small_hard")
    for organs in (("Brainstem",), ("Parotid_L",), ("Lens_R",)):
        some = segment(scan, bundle, replace(OPTIONS, organs=organs))
        assert some.structures.names == organs and not some.absent
        assert some.structures.crop(organs[0]).equals(result.structures.crop(organs[0]))


def test_an_organ_outside_the_scan_is_absent_with_a_reason(bundle: Bundle) -> None:
    result = segment(scan_of([CEREBELLUM, PAROTIDS[0]]), bundle, OPTIONS)
    assert set(result.absent) == {"Brainstem", "Parotid_R", "Lens_L", "Lens_R"}
    assert "heat map" in result.absent["Lens_R"] and "outside the scan" in result.absent["Brainstem"]
    assert "Lens_R" not in result.structures


def test_an_organ_whose_centre_is_at_the_edge_is_absent(bundle: Bundle) -> None:
    """The scan's last slice is at z = 73.5 mm, its edge at 75 mm."""
    cut = Sphere((30.0, -35.0, 72.0), 8.0, 1000.0)
    result = segment(scan_of([BRAINSTEM, CEREBELLUM, cut, LENSES[1]]), bundle, OPTIONS)
    assert "edge of the scan" in result.absent["Lens_L"] and "Lens_R" in result.structures


def test_an_organ_cut_by_the_scan_is_kept_with_a_warning(bundle: Bundle) -> None:
    cut = Sphere((0.0, 20.0, 68.0), 17.0, 650.0)
    result = segment(scan_of([cut, CEREBELLUM]), bundle, OPTIONS)
    assert "Brainstem" in result.structures
    assert [f.kind for f in result.findings if f.organ == "Brainstem"].count("cut_off") == 1
    assert result.look_order.index("Brainstem") < result.look_order.index("Lens_L"), (
        "of which nothing is said"
    )
    assert any(w.startswith("Brainstem: ") for w in result.warnings)


def test_a_small_scan_is_padded_not_refused(bundle: Bundle) -> None:
    small = scan_of([BRAINSTEM], size=(40, 40, 12), origin=(-39.0, -19.0, 13.5), half_axes_mm=(500, 500, 500))
    result = segment(small, bundle, replace(OPTIONS, organs=("Brainstem",)))
    assert result.structures.names == ("Brainstem",)


def test_cancel_is_honoured_between_windows(bundle: Bundle, scan: CtScan) -> None:
    asked = []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) > 8

    with pytest.raises(CancelledError):
        segment(scan, bundle, replace(OPTIONS, cancel=cancel))
    assert len(asked) == 9


def test_progress_counts_up_to_the_end_of_each_stage(bundle: Bundle, scan: CtScan) -> None:
    seen: list[Progress] = []
    segment(scan, bundle, OPTIONS, seen.append)
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages[0] == "prepare" and stages[-1] == "check"
    for stage in ("anchor", "detection", "small_hard", "mid_level"):
        steps = [p for p in seen if p.stage == stage and p.of]
        assert [p.done for p in steps] == list(range(steps[0].of + 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda"}, "cuda"),
        ({"engine": "torch"}, "safetensors"),
        ({"engine": "tensorrt"}, "unknown engine"),
        ({"device": "tpu"}, "unknown device"),
        ({"device": "cuda:x"}, "unknown device"),
        ({"device": "cuda:1"}, "device cuda:1 cannot be used"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused_not_replaced(
    bundle: Bundle, scan: CtScan, options: dict[str, str], words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        segment(scan, bundle, SegmentOptions(**{"engine": "onnxruntime", **options}))


def test_organs_the_bundle_does_not_have_are_refused(bundle: Bundle, scan: CtScan) -> None:
    with pytest.raises(InputError, match="does not cover Pituitary"):
        segment(scan, bundle, replace(OPTIONS, organs=("Pituitary", "Brainstem")))


def test_a_scan_without_a_patient_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="no patient"):
        segment(scan_of([], half_axes_mm=(10, 10, 10)), bundle, OPTIONS)


def test_in_a_mirror_image_channels_of_left_and_right_change_places() -> None:
    architecture = Architecture.plain(1, 1, (4,))
    mid = BranchSpec(
        "mid_level", ("ct", "anchor"), ("Larynx", "Parotid_R", "Parotid_L"), "softmax", (3, 3, 3), (8, 8, 8),
        architecture, {}, ((-500.0, 1000.0), (-160.0, 240.0)), True,
    )  # fmt: skip
    exchange = exchange_of(mid, ("Eye_L", "Brainstem", "Eye_R"))
    assert exchange is not None
    assert exchange.inputs == (0, 1, 4, 3, 2), "two windows, then the anchors"
    assert exchange.outputs == (0, 1, 3, 2), "the background, then the classes"
    lone = replace(mid, inputs=("ct",), classes=("Lens_L",), activation="sigmoid", windows_hu=())
    assert exchange_of(lone, ()) is None, (
        "a mirror image shows its other half, which the branch does not know"
    )
    assert exchange_of(mid, ("Eye_L",)) is None
    assert exchange_of(replace(mid, mirror=False), ("Eye_L", "Eye_R")) is None


def test_a_branch_sees_the_ct_through_each_of_its_windows(bundle: Bundle, scan: CtScan) -> None:
    body = find_body(scan.image)
    seen = Scan(scan.image, body, (-500.0, 1000.0))
    anchor = bundle.branches["anchor"]
    grid = body.grid(anchor.spacing_mm)
    (plain,) = seen.channels(grid, anchor)
    wide, narrow = seen.channels(grid, replace(anchor, windows_hu=((-500.0, 1000.0), (-160.0, 240.0))))
    np.testing.assert_array_equal(wide.values, plain.values)
    hu = (plain.values + 1) * 750 - 500
    np.testing.assert_allclose(narrow.values, np.clip(hu, -160, 240) / 200 - 0.2, atol=1e-4)


@pytest.mark.parametrize(
    ("peaks", "found_at"),
    [
        ({18.0: 1.0}, 18.0),
        ({-18.0: 1.0}, None),
        ({-18.0: 1.0, 40.0: 0.4}, 40.0),
        ({-2.0: 0.9}, -2.0),
    ],
)
def test_the_slope_of_a_peak_on_the_other_side_is_no_organ(
    peaks: dict[float, float], found_at: float | None
) -> None:
    """Gaussians of the targets' width at these places left of the middle, which is known to 5 mm: of that at -18 mm,
    seen through a filter as wide, 0.52 is left at -5 mm."""
    grid = Grid((-60.0, -30.0, -30.0), (2.0, 2.0, 3.0), (61, 31, 21))
    points = grid.index_to_points(np.stack(np.indices(grid.shape), -1))
    spec = BranchSpec(
        "detection", ("ct",), ("OpticNrv_L",), "heatmap", grid.spacing_mm, (8, 8, 8),
        Architecture.plain(1, 1, (4,)), {},
    )  # fmt: skip
    heat = sum(
        p * np.exp(-((points - (x, 0, 0)) ** 2).sum(-1) / (2 * HEATMAP_SD_MM**2)) for x, p in peaks.items()
    )
    (found,) = find_centres(
        ProbabilityMap(grid, np.rint(65000 * heat).astype(np.uint16)[None], 65000, False),
        spec,
        Geometry((80, 60, 60), (2.0, 2.0, 2.0), (-80.0, -60.0, -60.0)),
        Midline(0.0, 0.0, 0.0, (0.0, 0.0), 5.0, "organs"),
        ["OpticNrv_L"],
    )
    if found_at is None:
        assert found.absent is not None and "on the other side" in found.absent
    else:
        assert found.absent is None and found.centre_mm[0] == pytest.approx(found_at, abs=0.7)


def test_halves_that_were_exchanged_keep_their_confidence(
    bundle: Bundle, scan: CtScan, result: SegmentResult, tmp_path: Path
) -> None:
    """A network that has the parotids the wrong way round is as sure of either."""
    for file in bundle.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    bands = {"Parotid_L": Band(450, 80, (1, 2)), "Parotid_R": Band(275, 95, (1, 2))}
    wrong = branch(tmp_path, "mid_level", bands, inputs=("ct", "anchor"), channels=3)
    found = segment(
        scan,
        bundle_of(tmp_path, [bundle.branches["anchor"], wrong]),
        replace(OPTIONS, organs=("Parotid_L", "Parotid_R")),
    )
    for name in ("Parotid_L", "Parotid_R"):
        assert "sides_exchanged" in {f.kind for f in found.findings if f.organ == name}
        assert found.structures.crop(name).equals(result.structures.crop(name))
        assert found.confidence[name] == pytest.approx(result.confidence[name], abs=0.02)


def test_an_organ_whose_other_half_is_there_is_not_probably_outside_the_scan(bundle: Bundle) -> None:
    options = replace(OPTIONS, organs=("Parotid_L", "Parotid_R"))
    found = segment(scan_of([CEREBELLUM, PAROTIDS[0]]), bundle, options)
    assert "other half" in found.absent["Parotid_R"] and "outside" not in found.absent["Parotid_R"]
    (told,) = [f for f in found.findings if f.organ == "Parotid_R"]
    assert told.kind == "absent" and told.where is not None and told.where.side == "right"
    assert told.where.point_mm == pytest.approx((-40.0, 0.0, -30.0), abs=1.5)
