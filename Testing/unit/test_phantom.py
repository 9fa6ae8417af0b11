"""The phantom: a whole head and neck, the same patient at any spacing, with sizes and CT numbers as in people."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk

from soars.errors import InputError
from soars.phantom import Phantom, make_phantom, organ_boxes, write_phantom_dicom

SEED = 3
PAIRS = (
    "Eye",
    "Bone_Mandible",
    "Joint_TM",
    "BrachialPlex",
    "Basal_Ganglia",
    "Parotid",
    "Glnd_Submand",
    "Lobe_Temporal",
    "Glnd_Thyroid",
    "Cochlea",
    "Ear_Internal",
    "Glnd_Lacrimal",
    "Lens",
    "OpticNrv",
)
SINGLE = (
    "Brainstem",
    "Cerebellum",
    "SpinalCord",
    "Musc_Constrict_S",
    "Musc_Constrict_M",
    "Musc_Constrict_I",
    "Epiglottis",
    "Esophagus",
    "Larynx",
    "Cavity_Oral",
    "Hypothalmus",
    "OpticChiasm",
    "Pineal",
    "Pituitary",
)
ALL = tuple(f"{p}_{s}" for p in PAIRS for s in "LR") + SINGLE
INSIDE = {"Lens_L": "Eye_L", "Lens_R": "Eye_R", "Cochlea_L": "Ear_Internal_L", "Cochlea_R": "Ear_Internal_R"}

# cc, one adult: reported means -+ about two standard deviations, rounded outwards.
# Brouwer 2015 and Nikolov 2021 (contours for radiotherapy): brainstem 20-35, parotid 15-50, submandibular 4-14,
# cochlea 0.05-0.2, lens 0.1-0.3, globe 6-11, optic nerve 0.4-1.2, chiasm 0.2-0.9, larynx, oral cavity, mandible.
# Luft 1998 cerebellum 100-180; Elster 1993 pituitary 0.3-0.9; Bersani 2022 lacrimal 0.4-1.1; Nafisi Moghadam 2011
# pineal 0.05-0.35; Ying 2004 thyroid lobe 4-14; Schindler 2013 hypothalamus 0.7-1.9.
VOLUMES_CC = {
    "Brainstem": (17, 35),
    "Cerebellum": (100, 185),
    "Eye_L": (5.5, 11),
    "Eye_R": (5.5, 11),
    "Bone_Mandible_L": (22, 52),
    "Parotid_L": (13, 50),
    "Parotid_R": (13, 50),
    "Glnd_Submand_L": (4, 14),
    "Cavity_Oral": (45, 130),
    "Lobe_Temporal_L": (45, 100),
    "Basal_Ganglia_R": (5, 15),
    "Glnd_Thyroid_L": (4, 14),
    "Larynx": (11, 30),
    "SpinalCord": (9, 28),
    "Joint_TM_L": (1, 5),
    "Esophagus": (4, 20),
    "BrachialPlex_L": (4, 15),
    "Musc_Constrict_S": (4, 14),
}
SMALL_VOLUMES_CC = {
    "Lens_L": (0.1, 0.32),
    "Cochlea_L": (0.05, 0.2),
    "Ear_Internal_L": (0.3, 1.2),
    "Glnd_Lacrimal_L": (0.35, 1.1),
    "OpticNrv_L": (0.4, 1.2),
    "OpticChiasm": (0.2, 0.9),
    "Pituitary": (0.3, 0.9),
    "Pineal": (0.05, 0.4),
    "Hypothalmus": (0.5, 1.9),
    "Epiglottis": (0.7, 3),
}
# HU of the median voxel without noise; calibration differs by a few HU from patient to patient
MEDIAN_HU = {
    "Brainstem": (20, 45),
    "Cerebellum": (20, 45),
    "Eye_L": (0, 30),
    "Bone_Mandible_L": (400, 1400),
    "SpinalCord": (20, 55),
    "Parotid_L": (-40, 45),
    "Glnd_Submand_R": (30, 70),
    "Lobe_Temporal_R": (20, 45),
    "Basal_Ganglia_L": (28, 55),
    "Glnd_Thyroid_R": (75, 200),
    "Cavity_Oral": (25, 65),
    "Musc_Constrict_M": (30, 75),
}
SMALL_MEDIAN_HU = {
    "Lens_L": (50, 110),
    "Cochlea_L": (150, 700),
    "Ear_Internal_L": (250, 900),
    "Pituitary": (35, 100),
    "OpticNrv_L": (15, 50),
    "OpticChiasm": (20, 50),
    "Glnd_Lacrimal_L": (10, 55),
    "Hypothalmus": (20, 50),
}


@cache
def whole() -> Phantom:
    return make_phantom(SEED, spacing_mm=(3, 3, 3), field_of_view="full", noise=False)


@cache
def crop_around(name: str, spacing: float = 1.0, seed: int = SEED) -> Phantom:
    lo, hi = organ_boxes(seed)[name]
    return make_phantom(seed, spacing_mm=(spacing,) * 3, region=(lo - 3, hi + 3), noise=False)


def hu(phantom: Phantom, name: str) -> np.ndarray:
    return sitk.GetArrayFromImage(phantom.ct)[phantom.structures.full(name)]


def test_a_full_field_head_has_all_42_organs() -> None:
    assert len(ALL) == 42
    assert set(whole().structures.names) == set(ALL)
    assert [n for n in ALL if whole().structures.is_empty(n)] == []


def test_the_usual_field_has_all_42_organs_too() -> None:
    structures = make_phantom(SEED + 1, spacing_mm=(3, 3, 3)).structures
    assert [n for n in ALL if structures.is_empty(n)] == []


def test_organs_are_disjoint_but_for_lens_in_eye_and_cochlea_in_inner_ear() -> None:
    structures = whole().structures
    claimed = np.zeros(structures.geometry.shape, np.uint8)
    for name in ALL:
        if name not in INSIDE:
            claimed += structures.full(name)
    assert claimed.max() == 1
    for name, parent in INSIDE.items():
        assert not (structures.full(name) & ~structures.full(parent)).any(), name


def test_left_is_left_and_both_sides_are_alike() -> None:
    structures = whole().structures
    for pair in PAIRS:
        left, right = f"{pair}_L", f"{pair}_R"
        assert structures.centre_of_mass(left)[0] > structures.centre_of_mass(right)[0] + 3, (
            pair
        )  # LPS: left is +x
        if structures.voxels(left) > 100:
            assert structures.volume_cc(left) / structures.volume_cc(right) == pytest.approx(1, abs=0.35), (
                pair
            )


def test_organs_lie_in_the_patient_where_anatomy_puts_them() -> None:
    structures, anatomy = whole().structures, whole().anatomy
    body = anatomy.full("Body")
    for name in ALL:
        assert (structures.full(name) & ~body).sum() <= 0.01 * structures.voxels(name), name
    centre = {n: np.array(structures.centre_of_mass(n)) for n in ALL}
    height = {n: c[2] for n, c in centre.items()}
    assert height["Basal_Ganglia_L"] > height["OpticChiasm"] > height["Pituitary"] > height["Cavity_Oral"]
    assert height["Cavity_Oral"] > height["Epiglottis"] > height["Larynx"] > height["Glnd_Thyroid_L"]
    assert (
        height["Musc_Constrict_S"]
        > height["Musc_Constrict_M"]
        > height["Musc_Constrict_I"]
        > height["Esophagus"]
    )
    depth = {n: c[1] for n, c in centre.items()}  # LPS: +y is the back
    assert depth["Lens_L"] < depth["Eye_L"] < depth["OpticNrv_L"] < depth["OpticChiasm"] < depth["Brainstem"]
    assert depth["Brainstem"] < depth["Cerebellum"]
    brain = structures.full("Brainstem") | anatomy.full("Brain")
    assert brain.sum() * np.prod(whole().ct.GetSpacing()) / 1000 == pytest.approx(1350, rel=0.35)
    assert {"Bone_Skull", "Spine", "Airway", "Brain", "Lung_L", "A_Carotid_R", "Teeth"} <= set(anatomy.names)


@pytest.mark.parametrize("name", VOLUMES_CC)
def test_volumes_are_those_of_people(name: str) -> None:
    lo, hi = VOLUMES_CC[name]
    assert lo <= whole().structures.volume_cc(name) <= hi


@pytest.mark.parametrize("name", SMALL_VOLUMES_CC)
def test_small_volumes_are_those_of_people(name: str) -> None:
    lo, hi = SMALL_VOLUMES_CC[name]
    assert lo <= crop_around(name).structures.volume_cc(name) <= hi


@pytest.mark.parametrize("name", MEDIAN_HU)
def test_ct_numbers_are_those_of_the_tissue(name: str) -> None:
    lo, hi = MEDIAN_HU[name]
    assert lo <= np.median(hu(whole(), name)) <= hi


@pytest.mark.parametrize("name", SMALL_MEDIAN_HU)
def test_ct_numbers_of_small_organs(name: str) -> None:
    lo, hi = SMALL_MEDIAN_HU[name]
    assert lo <= np.median(hu(crop_around(name), name)) <= hi


def test_the_same_seed_is_the_same_scan() -> None:
    box = organ_boxes(5)["Eye_R"]
    first, again = (make_phantom(5, spacing_mm=(2, 2, 2), region=box) for _ in range(2))
    assert np.array_equal(sitk.GetArrayFromImage(first.ct), sitk.GetArrayFromImage(again.ct))
    assert first.structures.voxels("Eye_R") == again.structures.voxels("Eye_R")
    assert first.description == again.description


def test_seeds_differ_in_size_place_and_noise() -> None:
    places = {
        seed: organ_boxes(seed)["Pituitary"][0] - organ_boxes(seed)["Brainstem"][0] for seed in range(4)
    }
    sizes = {seed: np.prod(np.subtract(*organ_boxes(seed)["Parotid_L"])) for seed in range(4)}
    assert len({tuple(np.round(p, 1)) for p in places.values()}) == 4
    assert np.std(list(sizes.values())) > 0.03 * abs(np.mean(list(sizes.values())))


@pytest.mark.parametrize("name", ["Parotid_R", "Brainstem", "Glnd_Submand_L"])
def test_the_anatomy_does_not_depend_on_the_grid(name: str) -> None:
    """Volume within 5 %, and the fine mask seen at the coarse voxels' centres is the coarse mask."""
    fine, coarse = crop_around(name, 1.0).structures, whole().structures
    assert fine.volume_cc(name) == pytest.approx(coarse.volume_cc(name), rel=0.05)
    seen = fine.resample(coarse.geometry, nearest=True).full(name)
    reference = coarse.full(name)
    assert 2 * (seen & reference).sum() / (seen.sum() + reference.sum()) > 0.9


def test_organ_boxes_hold_the_organs() -> None:
    boxes, structures = organ_boxes(SEED), whole().structures
    assert set(boxes) == set(ALL)
    for name in ALL:
        index = np.argwhere(structures.full(name))
        points = structures.geometry.to_physical(index)
        lo, hi = boxes[name]
        reach = ("SpinalCord", "Esophagus")  # longer than any scan
        assert np.all(points >= lo - 1) and np.all(points <= hi + 1), name
        if name not in reach:
            assert np.linalg.norm((lo + hi) / 2 - (points.min(0) + points.max(0)) / 2) < 14, name


def test_what_the_scan_does_not_reach_is_empty() -> None:
    head = make_phantom(SEED, spacing_mm=(4, 4, 4), field_of_view="head").structures
    neck = make_phantom(SEED, spacing_mm=(4, 4, 4), field_of_view="neck").structures
    assert set(head.names) == set(neck.names) == set(ALL)
    assert all(head.is_empty(n) for n in ("Glnd_Thyroid_L", "Glnd_Thyroid_R", "Esophagus"))
    assert not head.is_empty("Brainstem") and not head.is_empty("Eye_L")
    assert all(neck.is_empty(n) for n in ("Eye_L", "OpticChiasm", "Basal_Ganglia_R", "Lens_R"))
    assert not neck.is_empty("Glnd_Thyroid_L") and not neck.is_empty("Esophagus")


def test_noise_and_metal_are_added_when_asked_for() -> None:
    box = organ_boxes(SEED)["Cerebellum"]
    lo, hi = (box[0] + box[1]) / 2 - 15, (box[0] + box[1]) / 2 + 15
    clean, noisy = (make_phantom(SEED, spacing_mm=(1, 1, 3), region=(lo, hi), noise=n) for n in (False, True))
    noise = sitk.GetArrayFromImage(noisy.ct).astype(float) - sitk.GetArrayFromImage(clean.ct)
    assert noise.std() == pytest.approx(noisy.description["noise_sd_hu"], rel=0.1)
    assert 5 < noise.std() < 35
    beside = np.mean(noise[:, :, 1:] * noise[:, :, :-1]) / noise.var()
    assert 0.3 < beside < 0.95  # neighbours go together, as after a reconstruction kernel
    mouth = organ_boxes(SEED)["Cavity_Oral"]
    streaked, plain = (
        make_phantom(SEED, spacing_mm=(2, 2, 2), region=mouth, noise=False, artefact=a) for a in (True, False)
    )
    change = sitk.GetArrayFromImage(streaked.ct).astype(int) - sitk.GetArrayFromImage(plain.ct)
    assert np.abs(change).max() > 100


def test_the_dose_covers_a_target_and_spares_the_rest() -> None:
    dose = whole().dose
    gy = sitk.GetArrayFromImage(dose)
    assert gy.min() >= 0
    assert 68 <= gy.max() <= 80
    structures = whole().structures
    on_ct = sitk.GetArrayFromImage(sitk.Resample(dose, whole().ct, sitk.Transform(), sitk.sitkLinear, 0.0))
    mean = {n: on_ct[structures.full(n)].mean() for n in ALL}
    assert mean["Musc_Constrict_S"] > 40 > 15 > mean["Cerebellum"] and mean["Lens_L"] < 12
    assert min(mean["Parotid_L"], mean["Parotid_R"]) < 45


def test_it_is_written_as_dicom(tmp_path) -> None:
    lo, hi = organ_boxes(SEED)["Larynx"]
    phantom = make_phantom(SEED, spacing_mm=(3, 3, 5), region=(lo - 20, hi + 20))
    folder = write_phantom_dicom(phantom, tmp_path)
    files = sorted(folder.glob("*.dcm"))
    assert len(files) == phantom.ct.GetDepth()
    back = sitk.ReadImage([str(f) for f in files])
    if back.GetOrigin()[2] != pytest.approx(phantom.ct.GetOrigin()[2], abs=0.1):
        back = sitk.ReadImage([str(f) for f in files[::-1]])
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(phantom.ct))
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: conformance not checked")
    for path in (files[0], tmp_path / "rtdose.dcm"):
        report = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        errors = [line for line in report.stderr.splitlines() if line.startswith("Error")]
        assert errors == []


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="head_neck"):
        make_phantom(1, field_of_view="knee")
    with pytest.raises(InputError, match="spacing"):
        make_phantom(1, spacing_mm=(1, 0, 1))
    with pytest.raises(InputError, match="extent"):
        make_phantom(1, region=((0, 0, 0), (0, 5, 5)))
