"""A label map becomes organs: unions of values, halves at the patient's middle, nothing made up."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cascade.preprocess import find_body
from soars.errors import BundleError
from soars.structures import Geometry
from soars.systems.labels import LabelRule, parse_rules, structures_from_labels

SIZE, SPACING = (60, 50, 40), (2.0, 2.0, 3.0)
MANDIBLE = LabelRule("mandible", (2,), ("Bone_Mandible_L", "Bone_Mandible_R"))


def patient(direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> sitk.Image:
    """A CT of an ellipse of soft tissue, its middle at x = 0 in LPS."""
    image = sitk.Image(list(SIZE), sitk.sitkInt16)
    image.SetSpacing(SPACING)
    image.SetDirection(direction)
    image.SetOrigin((0.0, 0.0, 0.0))
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in SIZE])
    image.SetOrigin([-m for m in middle])
    points = Geometry.of(image).to_physical(np.moveaxis(np.indices(SIZE[::-1]), 0, -1))
    inside = (points[..., 0] / 45) ** 2 + (points[..., 1] / 40) ** 2 < 1
    filled = sitk.GetImageFromArray(np.where(inside, 40, -1000).astype(np.int16))
    filled.CopyInformation(image)
    return filled


def places(image: sitk.Image) -> np.ndarray:
    """LPS mm of every voxel, [z, y, x, 3]."""
    return Geometry.of(image).to_physical(np.moveaxis(np.indices(image.GetSize()[::-1]), 0, -1))


FEET_FIRST = (-1, 0, 0, 0, 1, 0, 0, 0, -1)


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), FEET_FIRST], ids=["head first", "feet first"]
)
def test_one_label_of_both_sides_is_cut_at_the_middle(direction: tuple[float, ...]) -> None:
    image = patient(direction)
    at = places(image)
    # A bar from -20 mm to +20 mm: its middle is the patient's, whatever way round the voxels are stored.
    labels = ((np.abs(at[..., 0]) < 20) & (np.abs(at[..., 1]) < 9) & (np.abs(at[..., 2]) < 9)) * np.uint8(2)
    found = structures_from_labels([(labels, [MANDIBLE])], Geometry.of(image), find_body(image))
    left, right = (found.centre_of_mass(organ) for organ in MANDIBLE.organs)
    assert left is not None and right is not None
    assert left[0] == pytest.approx(10, abs=1.5) and right[0] == pytest.approx(-10, abs=1.5)
    assert sum(found.voxels(organ) for organ in MANDIBLE.organs) == np.count_nonzero(labels)
    assert not (found.full("Bone_Mandible_L") & found.full("Bone_Mandible_R")).any()


def test_organs_off_the_middle_move_the_cut() -> None:
    # The patient lies 12 mm to the left in the scan; brainstem and cord say so.
    image = patient()
    at = places(image)
    labels = np.zeros(at.shape[:3], np.uint8)
    for value, z in ((1, 25), (3, -25)):
        labels[(np.abs(at[..., 0] - 12) < 4) & (np.abs(at[..., 1]) < 5) & (np.abs(at[..., 2] - z) < 10)] = (
            value
        )
    labels[(np.abs(at[..., 0] - 12) < 16) & (np.abs(at[..., 1] + 20) < 5) & (np.abs(at[..., 2]) < 6)] = 2
    rules = [LabelRule("bs", (1,), ("Brainstem",)), LabelRule("cord", (3,), ("SpinalCord",)), MANDIBLE]
    found = structures_from_labels([(labels, rules)], Geometry.of(image), find_body(image))
    left, right = found.voxels("Bone_Mandible_L"), found.voxels("Bone_Mandible_R")
    assert left == pytest.approx(right, rel=0.15)


def test_several_values_are_one_organ_and_one_value_serves_two() -> None:
    image = patient()
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    labels[10:16, 20:26, 40:46] = 1
    labels[12:14, 20:22, 42:44] = 3
    rules = [LabelRule("globe", (1, 3), ("Eye_L",)), LabelRule("lens", (3,), ("Lens_L",))]
    found = structures_from_labels([(labels, rules)], Geometry.of(image), find_body(image))
    assert found.voxels("Eye_L") == 6 * 6 * 6 and found.voxels("Lens_L") == 2 * 2 * 2


def test_label_maps_of_several_models_come_together() -> None:
    image = patient()
    first, second = (np.zeros(image.GetSize()[::-1], np.uint8) for _ in range(2))
    first[5:9, 5:9, 5:9], second[20:24, 5:9, 5:9] = 7, 7
    maps = [(first, [LabelRule("a", (7,), ("Parotid_L",))]), (second, [LabelRule("b", (7,), ("Larynx",))])]
    found = structures_from_labels(maps, Geometry.of(image), find_body(image))
    assert found.names == ("Parotid_L", "Larynx") and found.voxels("Larynx") == 64


def test_what_is_not_there_is_not_made_up() -> None:
    image = patient()
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    labels[4, 4, 4] = 9  # a label without a rule
    found = structures_from_labels([(labels, [MANDIBLE])], Geometry.of(image), find_body(image))
    assert len(found) == 0


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({}, "expected a list"),
        ([], "expected a list"),
        ([{"label": "a", "values": [1]}], r"\[0\]: expected an object"),
        ([{"label": "", "values": [1], "organs": ["Brainstem"]}], "label"),
        ([{"label": "a", "values": [0], "organs": ["Brainstem"]}], "values"),
        ([{"label": "a", "values": [True], "organs": ["Brainstem"]}], "values"),
        ([{"label": "a", "values": [1], "organs": ["Liver"]}], "'Liver' is not an organ"),
        ([{"label": "a", "values": [1], "organs": ["Eye_R", "Eye_L"]}], "a left and a right half"),
        (
            [{"label": name, "values": [1], "organs": ["Eye_L"]} for name in "ab"],
            "more than one label gives Eye_L",
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused(entries: object, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        parse_rules(entries, "labels")
