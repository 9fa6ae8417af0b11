"""Left and right in patient space, one piece an organ, and volumes that are no organ's."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cascade.postprocess import settle
from soars.cascade.preprocess import Body
from soars.cascade.sides import all_paired, find_midline, mirrored_channels, settle_sides
from soars.catalogue import CATALOGUE
from soars.findings.checks import check_contours
from soars.findings.finding import CHECK, SERIOUS, Finding, Locator
from soars.structures import Geometry, StructureSet

GEOMETRY = Geometry((60, 50, 40), (3.0, 3.0, 3.0), (-100.0, -75.0, -60.0))
FLIPPED = Geometry((60, 50, 40), (3.0, 3.0, 3.0), (77.0, -75.0, 57.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1))


def body() -> Body:
    mask = sitk.GetImageFromArray(np.ones((10, 10, 10), np.uint8))
    mask.SetOrigin((-58.0, -50.0, -50.0))
    mask.SetSpacing((10.0, 10.0, 10.0))
    low, high, head = ([-63.0, -55.0, -55.0], [37.0, 45.0, 45.0], [-13.0, -5.0, 45.0])
    return Body(mask, np.array(low), np.array(high), False, np.array(head))


def add_ball(s: StructureSet, name: str, centre: tuple[float, float, float], radius: float) -> None:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in s.geometry.shape], indexing="ij"), -1)
    ball = np.linalg.norm(s.geometry.to_physical(index) - centre, axis=-1) <= radius
    s.add(name, ball | s.full(name) if name in s else ball)


def checked(s: StructureSet) -> list[Finding]:
    return check_contours(s, Locator(s.geometry, find_midline(s, body()).left_mm))


@pytest.fixture(params=[GEOMETRY, FLIPPED], ids=["head first", "feet first, flipped"])
def patient(request: pytest.FixtureRequest) -> StructureSet:
    """A head whose middle is at x = -13 mm, not at the scan's or the coordinates' origin."""
    s = StructureSet(request.param)
    add_ball(s, "Brainstem", (-13, 20, 0), 13)
    add_ball(s, "Cerebellum", (-12, 50, 0), 20)
    add_ball(s, "Eye_L", (20, -50, 10), 12)
    add_ball(s, "Eye_R", (-46, -50, 10), 12)
    return s


def test_the_midline_is_the_patients_not_the_images(patient: StructureSet) -> None:
    midline = find_midline(patient, body())
    assert midline.source == "organs"
    assert abs(float(midline.left_mm(np.array([-13.0, 0.0, 0.0])))) < 2
    assert float(midline.left_mm(np.array([0.0, 0.0, 0.0]))) > 10


def test_a_turned_head_gives_a_tilted_midline(patient: StructureSet) -> None:
    """Organs along the plane x = 0.3 y: the plane found leans that way."""
    s = StructureSet(patient.geometry)
    for name, y in (("Cerebellum", 50.0), ("Brainstem", 20.0)):
        add_ball(s, name, (0.3 * y, y, 0), 12)
    add_ball(s, "Eye_L", (-15 + 32, -50 - 9, 10), 12)
    add_ball(s, "Eye_R", (-15 - 32, -50 + 9, 10), 12)
    midline = find_midline(s, body())
    assert midline.slope_y == pytest.approx(0.3, abs=0.12)


def test_without_organs_the_body_tells_the_middle_with_a_wide_margin() -> None:
    midline = find_midline(StructureSet(GEOMETRY), body())
    assert midline.source == "body outline" and midline.margin_mm >= 15
    assert abs(midline.at - -13.0) < 1


def test_organs_on_their_sides_are_left_alone(patient: StructureSet) -> None:
    before = {n: patient.crop(n) for n in patient.names}
    assert settle_sides(patient, find_midline(patient, body())) == []
    assert all(patient.crop(n).equals(before[n]) for n in before)


def test_a_pair_the_wrong_way_round_is_exchanged(patient: StructureSet) -> None:
    left, right = patient.crop("Eye_L"), patient.crop("Eye_R")
    patient.add_mask("Eye_L", right)
    patient.add_mask("Eye_R", left)
    found = settle_sides(patient, find_midline(patient, body()))
    assert [(f.organ, f.kind, f.severity) for f in found] == [
        ("Eye_L", "sides_exchanged", SERIOUS),
        ("Eye_R", "sides_exchanged", SERIOUS),
    ]
    assert found[0].where is not None and found[0].where.side == "left"
    assert np.allclose(found[0].where.point_mm, (20, -50, 10), atol=2)
    assert patient.crop("Eye_L").equals(left) and patient.crop("Eye_R").equals(right)


def test_a_piece_on_the_wrong_side_that_touches_its_partner_joins_it(patient: StructureSet) -> None:
    """Half of the right eye was called left: it becomes right again, and nothing of the left one is lost."""
    right = patient.full("Eye_R")
    index = np.argwhere(right)
    stolen = np.zeros_like(right)
    stolen[tuple(index[: len(index) // 2].T)] = True
    left = patient.full("Eye_L")
    patient.add("Eye_R", right & ~stolen)
    patient.add("Eye_L", left | stolen)
    found = settle_sides(patient, find_midline(patient, body()))
    assert np.array_equal(patient.full("Eye_L"), left) and np.array_equal(patient.full("Eye_R"), right)
    assert [(f.organ, f.kind) for f in found] == [("Eye_L", "wrong_side")]
    assert found[0].where is not None and found[0].where.side == "right", (
        "the place of the part, not of the organ"
    )


def test_a_lone_piece_on_the_wrong_side_is_removed(patient: StructureSet) -> None:
    left = patient.full("Eye_L")
    add_ball(patient, "Eye_L", (-60, 20, 10), 6)
    settle_sides(patient, find_midline(patient, body()))
    assert np.array_equal(patient.full("Eye_L"), left)


def test_an_organ_wholly_on_the_wrong_side_is_absent_with_a_warning(patient: StructureSet) -> None:
    add_ball(patient, "Parotid_L", (-60, 20, -30), 18)
    findings = settle(patient, find_midline(patient, body()))
    assert "Parotid_L" in findings.absent and "Parotid_L" not in patient
    assert "Parotid_R" not in patient, "nothing is invented on the other side"
    assert any(f.organ == "Parotid_L" and f.kind == "absent" for f in findings.findings)


def test_halves_that_meet_in_the_middle_keep_their_border(patient: StructureSet) -> None:
    """The two halves of the mandible touch; a border 3 mm off the midline is within the margin."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in patient.geometry.shape], indexing="ij"), -1)
    x, y, z = np.moveaxis(patient.geometry.to_physical(index), -1, 0)
    bar = (np.abs(x + 13) < 40) & (np.abs(y + 40) < 8) & (np.abs(z + 40) < 12)
    patient.add("Bone_Mandible_L", bar & (x > -16))
    patient.add("Bone_Mandible_R", bar & (x <= -16))
    before = patient.full("Bone_Mandible_L")
    settle_sides(patient, find_midline(patient, body()))
    assert np.array_equal(patient.full("Bone_Mandible_L"), before)


def test_only_the_largest_piece_of_an_organ_stays(patient: StructureSet) -> None:
    whole = patient.full("Brainstem")
    add_ball(patient, "Brainstem", (-13, 20, -45), 6)
    findings = settle(patient, find_midline(patient, body()))
    assert np.array_equal(patient.full("Brainstem"), whole)
    assert "Brainstem" not in findings.absent


@pytest.mark.parametrize(("radius", "severity"), [(8.0, CHECK), (12.0, SERIOUS)])
def test_a_large_piece_removed_is_a_finding_at_its_place(
    patient: StructureSet, radius: float, severity: str
) -> None:
    add_ball(patient, "Brainstem", (-13, 20, -45), radius)
    share = radius**3 / (radius**3 + 13**3)
    settled = settle(patient, find_midline(patient, body()))
    (found,) = [f for f in settled.findings if f.kind == "pieces"]
    assert (found.organ, found.severity) == ("Brainstem", severity)
    assert abs(float(found.text.split(" %")[0]) - 100 * share) < 3
    assert found.where is not None and found.where.side == "midline"
    assert np.allclose(found.where.point_mm, (-13, 20, -45), atol=3)
    slice_of_point = patient.geometry.to_index(found.where.point_mm)[0]
    assert found.where.slice_number == round(slice_of_point) + 1


def test_an_organ_cut_by_the_edge_is_found_there(patient: StructureSet) -> None:
    add_ball(patient, "Cavity_Oral", (-13, -68, -20), 14)  # the scan ends at y = -76.5
    found = [f for f in checked(patient) if f.kind == "cut_off"]
    assert [f.organ for f in found] == ["Cavity_Oral"]
    assert found[0].where is not None and np.allclose(found[0].where.point_mm, (-13, -75, -20), atol=3.1)


def test_a_speck_is_no_organ(patient: StructureSet) -> None:
    add_ball(patient, "Parotid_L", (40, 20, -30), 2.0)
    findings = settle(patient, find_midline(patient, body()))
    assert "too little" in findings.absent["Parotid_L"] and "Parotid_L" not in patient


def test_a_volume_far_from_the_usual_is_a_warning(patient: StructureSet) -> None:
    usual = CATALOGUE["Parotid_L"].usual_volume_cc
    assert usual is not None
    radius = (usual[1] * 1.3 * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    add_ball(patient, "Parotid_L", (30, 20, -5), radius)
    (found,) = [f for f in checked(patient) if f.kind == "volume" and f.organ == "Parotid_L"]
    assert "unusually large" in found.text and "Parotid_L" in patient
    assert found.where is not None and np.allclose(found.where.point_mm, (30, 20, -5), atol=3)


def test_every_organ_with_a_side_becomes_that_of_the_other_in_a_mirror_image() -> None:
    """By the last letter of the name, which TG-263 gives to the side."""
    names = tuple(CATALOGUE)
    other = {"left": "R", "right": "L"}
    wanted = [n[:-1] + other[oar.side] if oar.side else n for n, oar in CATALOGUE.items()]
    assert [names[at] for at in mirrored_channels(names)] == wanted
    assert mirrored_channels(("Ear_R", "Eye_AL", "Eye_AR", "Lens_L", "Ear_L")) == [4, 2, 1, 3, 0]
    assert all_paired(names) and all_paired(("Ear_R", "Pineal", "Ear_L"))
    for lone in ("Eye_AL", "Lens_R", "Ear_L"):
        assert not all_paired(("Brainstem", lone)), lone


@pytest.mark.parametrize(("name", "told"), [("SpinalCord", False), ("Parotid_L", False), ("Brainstem", True)])
def test_of_an_organ_that_goes_on_beyond_the_scan_any_part_may_be_in_it(name: str, told: bool) -> None:
    """A ball of 9 mm has 3.1 cc: half of one is less than a cord in a whole neck, and less than a whole brainstem."""
    s = StructureSet(GEOMETRY)
    add_ball(s, name, (-13, 20, 0 if told else -61.5), 9)
    assert told == any(f.kind == "volume" for f in checked(s))
    if name == "SpinalCord":
        add_ball(s, name, (-13, 20, -20), 45)
        assert [f.kind for f in checked(s)].count("volume") == 1, "a cord of 300 cc"
