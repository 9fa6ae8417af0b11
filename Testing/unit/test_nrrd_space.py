"""Where the voxels of a NRRD lie, by the fields that the format has for it (teem's format.html, section 5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soars.ct.image_file import read_image_file
from soars.errors import InputError
from soars.formats.reading import read_structures

VOXEL = (3, 2, 1)
#: Spacing 2, 3, 4 mm from (10, 20, 30) along the file's own axes: the voxel lies at 16, 26, 34 there.
THERE = np.array([16.0, 26.0, 34.0])


def nrrd(path: Path, *fields: str, time: bool = False, origin: bool = True) -> Path:
    directions = ["(2,0,0)", "(0,3,0)", "(0,0,4)"]
    place, sizes = "(10,20,30)", "6 5 4"
    if time:
        directions = [*(d[:-1] + ",0)" for d in directions), "(0,0,0,1)"]
        place, sizes = "(10,20,30,0)", "6 5 4 1"
    head = ["NRRD0005", "type: short", f"dimension: {len(directions)}", *fields, f"sizes: {sizes}"]
    head += [f"space directions: {' '.join(directions)}", "endian: little", "encoding: raw"]
    head += [f"space origin: {place}"] * origin
    path.write_bytes("\n".join(head).encode() + b"\n\n" + np.zeros((4, 5, 6), "<i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("LPS", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
    ],
)
def test_a_voxel_lies_where_its_space_says(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    image, warnings = read_image_file(nrrd(tmp_path / "a.nrrd", f"space: {space}"))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(VOXEL), THERE * signs)
    assert warnings == []


@pytest.mark.parametrize("space", ["right-anterior-superior-time", "RAST", "left-anterior-superior-time"])
def test_a_space_with_time_is_not_taken_for_another(tmp_path: Path, space: str) -> None:
    """ITK turns RAS, and not RAST: left and right would be swapped."""
    with pytest.raises(InputError, match=r"a\.nrrd.*save it in three dimensions"):
        read_image_file(nrrd(tmp_path / "a.nrrd", f"space: {space}", time=True))
    same, warnings = read_image_file(
        nrrd(tmp_path / "b.nrrd", "space: left-posterior-superior-time", time=True)
    )
    np.testing.assert_allclose(same.TransformIndexToPhysicalPoint(VOXEL), THERE)
    assert warnings == []


@pytest.mark.parametrize("space", ["space dimension: 3", "space: scanner-xyz", "space: 3D-right-handed"])
def test_a_space_that_is_no_patient_s_is_told(tmp_path: Path, space: str) -> None:
    image, warnings = read_image_file(nrrd(tmp_path / "a.nrrd", space))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(VOXEL), THERE)
    assert len(warnings) == 1 and "check left and right" in warnings[0]


def test_a_missing_origin_is_told(tmp_path: Path) -> None:
    image, warnings = read_image_file(nrrd(tmp_path / "a.nrrd", "space: LPS", origin=False))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(VOXEL), THERE - [10, 20, 30])
    assert len(warnings) == 1 and "no space origin" in warnings[0]


def test_other_units_than_mm_are_refused(tmp_path: Path) -> None:
    for unit in ("cm", "m", "um"):
        with pytest.raises(InputError, match=f"'{unit}', not in mm"):
            read_image_file(
                nrrd(tmp_path / "a.nrrd", "space: LPS", f'space units: "{unit}" "{unit}" "{unit}"')
            )
    _, warnings = read_image_file(nrrd(tmp_path / "a.nrrd", "space: LPS", 'space units: "mm" "mm" "mm"'))
    assert warnings == []


@pytest.mark.parametrize("skew", [0.0, 0.004, 0.3])
def test_a_segmentation_is_held_to_the_axes_of_an_image(tmp_path: Path, skew: float) -> None:
    """Its volume would be that of a box on axes that are not perpendicular."""
    head = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: 6 5 4",
    ]
    head += [
        f"space directions: (1,0,0) (0,1,0) ({skew},0,1)",
        "kinds: domain domain domain",
        "encoding: raw",
    ]
    head += ["space origin: (0,0,0)", "Segment0_ID:=Brainstem", "Segment0_Name:=Brainstem"]
    head += ["Segment0_Extent:=0 5 0 4 0 3", "Segment0_Layer:=0", "Segment0_LabelValue:=1"]
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes("\n".join(head).encode() + b"\n\n" + np.ones((4, 5, 6), np.uint8).tobytes())
    if skew > 0.01:
        with pytest.raises(InputError, match="not perpendicular"):
            read_structures(path)
        return
    found = read_structures(path)
    axes = np.reshape(found.geometry.direction, (3, 3))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert any("not quite perpendicular" in text for text in found.warnings) == bool(skew)
