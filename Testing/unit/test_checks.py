"""The checks find faults where they were planted, and little in contours that have none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import planted
import pytest

from soars.cascade.preprocess import find_body
from soars.cascade.sides import Midline, find_midline
from soars.findings.checks import alone_findings, check_contours
from soars.findings.finding import CHECK, SERIOUS, Finding, Locator
from soars.findings.norms import Norms, Spread
from soars.findings.pairs import absent_halves
from soars.phantom import make_phantom
from soars.structures import Geometry, StructureSet


@pytest.fixture(scope="module", params=[500])
def good(request: pytest.FixtureRequest) -> tuple[StructureSet, Midline]:
    """All 42 organs of a phantom, and its midsagittal plane."""
    phantom = make_phantom(request.param, spacing_mm=(1.5, 1.5, 3.0))
    structures = phantom.structures
    present = structures.subset(name for name in structures.names if not structures.is_empty(name))
    return present, find_midline(present, find_body(phantom.ct))


def test_few_findings_in_contours_without_a_fault(good: tuple[StructureSet, Midline]) -> None:
    found = planted.findings_of(*good)
    assert len({f.organ for f in found}) <= len(good[0]) / 10, [f"{f.organ}: {f.sentence()}" for f in found]


@pytest.mark.parametrize("organ", planted.ORGANS)
@pytest.mark.parametrize("plant", planted.FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_in_its_place(
    good: tuple[StructureSet, Midline],
    plant: Callable[[StructureSet, str], planted.Fault],
    organ: str,
) -> None:
    structures, midline = good
    if plant is planted.swapped and not organ.endswith(("_L", "_R")):
        organ = "Lens_L"
    fault = plant(structures, organ)
    found = [f for f in planted.findings_of(fault.structures, midline) if f.organ in fault.organs]
    right = [f for f in found if f.kind in planted.KINDS[fault.kind]]
    assert right, f"{fault.kind} in {organ}: {[f.sentence() for f in found]}"
    assert min(planted.distance_mm(fault, f) for f in right) <= 10


def test_a_finding_says_what_to_do_in_words_for_a_clinician(good: tuple[StructureSet, Midline]) -> None:
    fault = planted.hole(good[0], "Parotid_L")
    (found,) = [f for f in planted.findings_of(fault.structures, good[1]) if f.kind == "hole"]
    assert "cavity" in found.text and "Fill it" in found.advice and found.severity == CHECK
    assert found.where is not None and found.where.side == "left"


# --- single checks on bodies of known size ----------------------------------------------------------------------

GEOMETRY = Geometry((80, 70, 40), (2.0, 2.0, 3.0), (-80.0, -70.0, -60.0))


def ball(structures: StructureSet, name: str, centre: tuple[float, float, float], radius: float) -> None:
    index = np.stack(np.indices(structures.geometry.shape), -1)
    structures.add(name, np.linalg.norm(structures.geometry.to_physical(index) - centre, axis=-1) <= radius)


def checked(structures: StructureSet, norms: Norms | None = None) -> list[Finding]:
    return check_contours(structures, Locator(structures.geometry, lambda p: np.asarray(p)[..., 0]), norms)


def pair(right_radius: float = 18.0, right: tuple[float, float, float] = (-45, 0, 0)) -> StructureSet:
    s = StructureSet(GEOMETRY)
    ball(s, "Parotid_L", (45, 0, 0), 18.0)
    ball(s, "Parotid_R", right, right_radius)
    return s


def test_a_pair_of_equal_mirrored_halves_is_fine() -> None:
    assert checked(pair()) == []


def test_halves_of_different_volume_are_found_with_their_volumes() -> None:
    """Radii of 18 and 14 mm: 24.4 and 11.5 cc, a ratio of 2.1."""
    (found,) = checked(pair(14.0))
    assert (found.kind, found.severity) == ("asymmetry", SERIOUS)
    left, right = 4 / 3 * np.pi * 1.8**3, 4 / 3 * np.pi * 1.4**3
    for volume in (left, right):
        assert any(abs(float(w) - volume) < 0.06 * volume for w in found.text.split() if w[0].isdigit())


@pytest.mark.parametrize(
    ("right", "words"),
    [
        ((-45, 0, -24), "24 mm higher"),
        ((-45, -21, 0), "21 mm farther back"),
        ((-25, 0, 0), "20 mm farther out"),
    ],
)
def test_halves_that_do_not_mirror_each_other_are_found(
    right: tuple[float, float, float], words: str
) -> None:
    (found,) = checked(pair(right=right))
    assert found.kind == "asymmetry" and words in found.text


def test_organs_that_share_voxels_are_found_and_a_lens_in_its_eye_is_not() -> None:
    s = StructureSet(GEOMETRY)
    ball(s, "Eye_L", (30, -40, 0), 12.0)
    ball(s, "Lens_L", (30, -48, 0), 4.0)
    assert "overlap" not in {f.kind for f in checked(s)}
    ball(s, "Lobe_Temporal_L", (30, -25, 0), 12.0)
    found = [f for f in checked(s) if f.kind == "overlap"]
    assert len(found) == 1 and found[0].where is not None
    assert np.allclose(found[0].where.point_mm, (30, -32.5, 0), atol=4), "in the lens of common voxels"


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("Brainstem", "Brain"),
        ("Hippocampus_L", "Brain"),
        ("SpinalCord", "SpinalCanal"),
        ("Bone_Mandible_L", "Bone_Mandible"),
        ("Lens_L", "Eye_AL"),
        ("Glottis", "Larynx_Core"),
    ],
)
def test_what_guidelines_draw_in_another_organ_is_no_overlap(inner: str, outer: str) -> None:
    s = StructureSet(GEOMETRY)
    ball(s, outer, (0, 0, 0), 20.0)
    ball(s, inner, (0, 0, 0), 10.0)
    assert "overlap" not in {f.kind for f in checked(s)}


@pytest.mark.parametrize(
    ("one", "two"), [("Brainstem", "Cerebellum"), ("Brain", "Eye_L"), ("Parotid_L", "Eye_AL")]
)
def test_what_lies_in_the_brain_is_told_apart(one: str, two: str) -> None:
    s = StructureSet(GEOMETRY)
    ball(s, one, (0, 0, 0), 20.0)
    ball(s, two, (0, 0, 0), 10.0)
    assert [f.severity for f in checked(s) if f.kind == "overlap"] == [SERIOUS]


def test_a_lens_outside_its_eye_or_without_one_is_found() -> None:
    """The eye ends 12 mm from its middle, the lens' middle is 28 mm farther: 40 mm away."""
    s = StructureSet(GEOMETRY)
    ball(s, "Eye_L", (30, -20, 0), 12.0)
    ball(s, "Lens_L", (30, -29, 0), 5.0)
    assert "place" not in {f.kind for f in checked(s)}
    ball(s, "Lens_L", (30, 20, 0), 5.0)
    (found,) = [f for f in checked(s) if f.kind == "place"]
    assert (found.organ, found.severity) == ("Lens_L", SERIOUS)
    assert float(found.text.split()[2]) == pytest.approx(28, abs=1.5) and "left eye" in found.text
    s.remove("Eye_L")
    locator = Locator(s.geometry, lambda p: np.asarray(p)[..., 0])
    assert "place" not in {f.kind for f in checked(s)}, "which says nothing when nobody asked for the eye"
    assert [f.organ for f in alone_findings(s, {"Eye_L": "not found"}, locator)] == ["Lens_L"]
    assert list(alone_findings(s, {"Eye_R": "not found"}, locator)) == []


@pytest.mark.parametrize(
    ("x", "reason", "told"),
    [
        (45, "not found; probably outside the scan", True),
        (70, "not found; probably outside the scan", False),
        (45, "only 2 voxels were found", False),
    ],
)
def test_an_absent_half_is_told_where_its_mirror_image_is_in_the_scan(
    x: int, reason: str, told: bool
) -> None:
    """The middle of a scan from -81 to 79 mm is taken to be at 5 mm: that of a ball at 45 mm is mirrored to -35 mm; one
    of 18 mm at 70 mm is cut off."""
    s = StructureSet(GEOMETRY)
    ball(s, "Parotid_L", (x, 6, 9), 18.0)
    absent = {"Parotid_R": reason, "Pineal": reason, "Lens_L": reason}
    found = absent_halves(s, absent, Locator(GEOMETRY, lambda p: np.asarray(p)[..., 0] - 5))
    assert [f.organ for f in found] == ["Parotid_R"] * told
    assert absent["Pineal"] == absent["Lens_L"] == reason and (absent["Parotid_R"] == reason) != told
    if told:
        assert found[0].where is not None and np.allclose(found[0].where.point_mm, (-35, 6, 9), atol=1)


def test_halves_named_within_a_word_are_compared_too() -> None:
    """Radii of 12 and 9 mm: volumes of 7.2 and 3.1 cc."""
    s = StructureSet(GEOMETRY)
    ball(s, "Eye_AL", (30, 0, 0), 12.0)
    ball(s, "Eye_AR", (-30, 0, 0), 9.0)
    assert [(f.organ, f.kind) for f in checked(s)] == [("Eye_AR", "asymmetry")]


def test_a_border_with_another_organ_may_be_straight() -> None:
    s = StructureSet(GEOMETRY)
    ball(s, "Brainstem", (0, 0, 0), 20.0)
    whole = s.full("Brainstem")
    above = np.zeros_like(whole)
    above[20:] = whole[20:]
    s.add("Brainstem", above)
    assert [f.kind for f in checked(s)].count("flat_face") == 1
    s.add("SpinalCord", whole & ~above)
    assert "flat_face" not in {f.kind for f in checked(s)}


def norms(**volumes: float) -> Norms:
    around = {"Parotid_L": (45.0, 0.0, 0.0), "Parotid_R": (-45.0, 0.0, 0.0), "Brainstem": (0.0, 20.0, 20.0)}
    place = {
        (a, b): Spread(tuple(np.subtract(around[a], around[b])), (4.0, 4.0, 4.0), 30)
        for a in around
        for b in around
        if a != b
    }
    return Norms({name: Spread((np.log(v),), (0.1,), 30) for name, v in volumes.items()}, place)


def test_a_volume_far_from_the_cohorts_is_found() -> None:
    """24.4 cc against 12 cc with 15 % (the least that is taken): ln 2.03 / 0.15 = 4.7 standard deviations."""
    found = [f for f in checked(pair(), norms(Parotid_L=12.0, Parotid_R=22.0)) if f.kind == "volume"]
    assert [(f.organ, f.severity) for f in found] == [("Parotid_L", CHECK)]
    assert "unusually large" in found[0].text and "12 cc" in found[0].text


def test_of_unequal_halves_the_less_usual_one_is_told_or_both() -> None:
    """Halves of 24.4 and 11.5 cc: beside a usual volume of 24, of 12, and of 17 cc (ln 24.4 / 17 = 0.36, ln 17 / 11.5 =
    0.39, with a spread of 0.15 less than half of one apart)."""
    for usual, organs in ((24.0, {"Parotid_R"}), (12.0, {"Parotid_L"}), (17.0, {"Parotid_L", "Parotid_R"})):
        found = checked(pair(14.0), norms(Parotid_L=usual, Parotid_R=usual))
        assert {f.organ for f in found if f.kind == "asymmetry"} == organs


def test_a_place_far_from_the_cohorts_is_found() -> None:
    s = pair()
    ball(s, "Brainstem", (0, 20, 20), 17.0)
    assert "place" not in {f.kind for f in checked(s, norms())}
    ball(s, "Brainstem", (0, 20, -10), 17.0)
    found = [f for f in checked(s, norms()) if f.kind == "place"]
    assert [f.organ for f in found] == ["Brainstem"] and "30 mm" in found[0].text


def test_norms_survive_their_file_and_others_are_refused() -> None:
    table = norms(Parotid_L=12.0)
    assert Norms.from_dict(table.to_dict()) == Norms(
        {"Parotid_L": Spread((round(np.log(12.0), 4),), (0.1,), 30)}, table.place
    )
    for damaged in (
        {},
        {"volume": {"a": [[1], [1]]}, "place": {}},
        {"volume": {"a": [[1], [-1], 3]}, "place": {}},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Norms.from_dict(damaged)
