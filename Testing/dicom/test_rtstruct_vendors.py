"""One contour, or one ROI, that cannot be used costs itself; thousands of contours on a slice cost little."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from clinics import Clinic, make_clinic
from pydicom.dataset import Dataset

from soars.dicom.contour_overlap import area_of_overlapping
from soars.dicom.contours import Contour, fill
from soars.errors import InputError
from soars.formats.reading import read_structures

VOXELS = 24
"""Of each of the clinic's two ROIs."""


@pytest.fixture
def clinic(ct_series: Callable[..., list[Path]], tmp_path: Path) -> Clinic:
    return make_clinic(tmp_path, ct_series)


def sagittal(clinic: Clinic) -> Dataset:
    item = clinic.box(1, (2.5, 2.5, 6.5, 6.5))
    corners = clinic.geometry.to_physical([(1, 2, 5), (1, 6, 5), (4, 6, 5), (4, 2, 5)])
    item.ContourData = [f"{v:.6g}" for v in corners.ravel()]
    return item


def eight_numbers(clinic: Clinic) -> Dataset:
    item = clinic.box(1, (2.5, 2.5, 6.5, 6.5))
    item.ContourData = item.ContourData[:8]
    return item


def no_numbers(clinic: Clinic) -> Dataset:
    item = clinic.box(1, (2.5, 2.5, 6.5, 6.5))
    raw = b"1\\2\\x\\4\\5\\6\\7\\8\\9 "
    item["ContourData"] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("ContourData"), "DS", len(raw), raw, 0, True, True
    )
    return item


def of_kind(kind: str) -> Callable[[Clinic], Dataset]:
    return lambda clinic: clinic.box(1, (2.5, 2.5, 6.5, 6.5), kind=kind)


def without_type(clinic: Clinic) -> Dataset:
    item = clinic.box(1, (2.5, 2.5, 6.5, 6.5))
    del item.ContourGeometricType
    return item


UNUSABLE = {
    "sagittal": (sagittal, "not parallel to the slices"),
    "eight numbers": (eight_numbers, "8 numbers, which are not points of three"),
    "no numbers": (no_numbers, "points that are not numbers"),
    "POINT": (of_kind("POINT"), "POINT, not CLOSED_PLANAR"),
    "OPEN_PLANAR": (of_kind("OPEN_PLANAR"), "OPEN_PLANAR, not CLOSED_PLANAR"),
    "OPEN_NONPLANAR": (of_kind("OPEN_NONPLANAR"), "OPEN_NONPLANAR, not CLOSED_PLANAR"),
    "without a type": (without_type, "no type, not CLOSED_PLANAR"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_roi_costs_itself_and_says_why(clinic: Clinic, name: str) -> None:
    make, reason = UNUSABLE[name]

    def edit(dataset: Dataset) -> None:
        dataset.ROIContourSequence[1].ContourSequence = [make(clinic)]

    read = clinic.edit(edit).read()
    assert read.names == ("Brainstem",) and read.voxels("Brainstem") == VOXELS
    (warning,) = [w for w in read.warnings if "'Parotid_L' was left out" in w]
    assert reason in warning


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_contour_costs_its_slice_at_most(clinic: Clinic, name: str) -> None:
    """Beside two contours of 12 voxels each, which stay."""
    make, reason = UNUSABLE[name]
    clinic.edit(lambda d: d.ROIContourSequence[1].ContourSequence.append(make(clinic)))
    read = clinic.read()
    assert read.voxels("Brainstem") == read.voxels("Parotid_L") == VOXELS
    assert any(f"1 contour of 'Parotid_L' left out: {reason}" in w for w in read.warnings)


def test_a_file_of_unusable_rois_only_is_refused_with_the_reasons(clinic: Clinic) -> None:
    clinic.draw(sagittal(clinic))
    with pytest.raises(InputError, match="'Brainstem' was left out: not parallel to the slices of the CT"):
        clinic.read()


def test_one_warning_for_each_kind_of_contour(clinic: Clinic) -> None:
    many = [of_kind("POINT")(clinic) for _ in range(300)] + [sagittal(clinic) for _ in range(200)]
    clinic.edit(lambda d: d.ROIContourSequence[1].ContourSequence.extend(many))
    warnings = clinic.read().warnings
    assert len(warnings) == 2
    assert any(w.startswith("rt.dcm: 300 contours") for w in warnings)
    assert any(w.startswith("rt.dcm: 200 contours") for w in warnings)


# --- what several contours on a slice mean ------------------------------------------------------------------------
def test_xor_contours_take_away_where_they_overlap(clinic: Clinic) -> None:
    """PS3.3 C.8.8.6.3: 6 x 6 and 6 x 6 voxels that share 3 x 6 leave 2 x 18."""
    boxes = ((1.5, 1.5, 7.5, 7.5), (4.5, 1.5, 10.5, 7.5))
    clinic.draw(*(clinic.box(2, box, kind="CLOSEDPLANAR_XOR") for box in boxes))
    assert clinic.read().voxels("Brainstem") == 36
    clinic.draw(*(clinic.box(2, box) for box in boxes))
    assert clinic.read().voxels("Brainstem") == 54


def circle(radius: float, points: int, centre: tuple[float, float] = (9.5, 7.5)) -> list[tuple[float, float]]:
    angles = 2 * np.pi * np.arange(points) / points
    return [(centre[0] + radius * np.cos(a), centre[1] + radius * np.sin(a)) for a in angles]


def centres_within(radius: float, centre: tuple[float, float] = (9.5, 7.5)) -> int:
    y, x = np.mgrid[:16, :20]
    return np.count_nonzero((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)


ROUND = circle(6.2, 120)
COPIES = {
    "first point repeated": [*ROUND, ROUND[0]],
    "moved by 0.01 voxels": [(x + 0.01, y) for x, y in ROUND],
    "half of the points": ROUND[::2],
    "more points on the same line": [p for q, r in zip(ROUND, ROUND[1:] + ROUND[:1], strict=True)
                                     for p in (q, ((q[0] + r[0]) / 2, (q[1] + r[1]) / 2))],
    "the other way, with a spike": [*ROUND[::-1], (ROUND[-1][0] + 0.3, ROUND[-1][1])],
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_counts_once_whatever_its_vertices(clinic: Clinic, name: str) -> None:
    """No voxel's centre is nearer than 0.15 voxels to the circle, so all of them enclose the same ones."""
    outline, copy, hole = (clinic.contour(2, *points) for points in (ROUND, COPIES[name], circle(3.2, 60)))
    for others, less in (((), 0), ((hole,), centres_within(3.2))):
        read = clinic.draw(outline, *others, copy).read()
        assert read.voxels("Brainstem") == centres_within(6.2) - less
        assert [w for w in read.warnings if "drawn twice" in w] == read.warnings != []
        assert "1 contour drawn twice, counted once" in read.warnings[0]


@pytest.mark.parametrize("wall", [1, 2])
def test_a_thin_wall_stays_a_ring(clinic: Clinic, wall: int) -> None:
    """A box of 10 x 10 voxels with a wall of one or two all around."""
    inner = clinic.box(2, (1.5 + wall, 1.5 + wall, 11.5 - wall, 11.5 - wall))
    read = clinic.draw(clinic.box(2, (1.5, 1.5, 11.5, 11.5)), inner).read()
    assert read.voxels("Brainstem") == 100 - (10 - 2 * wall) ** 2
    assert not read.warnings


def test_contours_of_nearly_the_same_area_are_not_judged_but_told(clinic: Clinic) -> None:
    """10 x 10 voxels and the same a column narrower: a hole that leaves one column. On another slice a true ring."""
    outer = (1.5, 1.5, 11.5, 11.5)
    items = [clinic.box(z, outer) for z in (1, 2, 3)] + [
        clinic.box(z, (2.5, 1.5, 11.5, 11.5)) for z in (1, 2)
    ]
    read = clinic.draw(*items, clinic.box(3, (2.5, 2.5, 10.5, 10.5))).read()
    assert read.voxels("Brainstem") == 10 + 10 + 36
    (warning,) = read.warnings
    assert "two contours of nearly the same area cancel each other on 2 slices" in warning


def test_several_contours_without_a_voxel_are_no_copies(clinic: Clinic) -> None:
    """Each lies between voxel centres, at another place."""
    specks = [clinic.box(2, (k + 0.2, 3.2, k + 0.8, 3.8)) for k in range(3)]
    read = clinic.draw(clinic.box(2, (1.5, 1.5, 11.5, 11.5)), *specks).read()
    assert read.voxels("Brainstem") == 100 and not read.warnings


def test_a_keyhole_is_a_hole(clinic: Clinic) -> None:
    outline = [(1.5, 1.5), (9.5, 1.5), (9.5, 9.5), (1.5, 9.5), (1.5, 5.5)]
    hole = [(3.5, 5.5), (3.5, 3.5), (7.5, 3.5), (7.5, 7.5), (3.5, 7.5), (3.5, 5.5)]
    clinic.draw(clinic.contour(2, *outline, *hole, (1.5, 5.5)))
    assert clinic.read().voxels("Brainstem") == 64 - 16


def test_a_contour_offset_vector_moves_the_contour(clinic: Clinic) -> None:
    """From the plane that is written, a slice above, to the middle of the slab."""
    item = clinic.box(3, (2.5, 2.5, 6.5, 6.5))
    item.add_new(0x30060045, "DS", [0, 0, -clinic.geometry.spacing[2]])
    read = clinic.draw(item).read()
    assert read.crop("Brainstem").start == (2, 3, 3) and read.voxels("Brainstem") == 16
    assert any("1 contour moved by the Contour Offset Vector" in w for w in read.warnings)


def test_a_count_of_points_that_is_not_theirs_is_noted(clinic: Clinic) -> None:
    clinic.edit(lambda d: setattr(d.ROIContourSequence[0].ContourSequence[0], "NumberOfContourPoints", 99))
    read = clinic.read()
    assert read.voxels("Brainstem") == VOXELS
    assert any("1 contour with a different number of points than stated" in w for w in read.warnings)


# --- lines through voxel centres ----------------------------------------------------------------------------------
@pytest.mark.parametrize("off", [0.0, 3e-8, -3e-8])
def test_a_centre_on_a_line_belongs_to_smaller_x_and_larger_y(off: float) -> None:
    """A box of 3 x 4 voxels between centres; rounding of millimetres to voxels decides nothing."""
    box = np.array([(2, 5), (5, 5), (5, 9), (2, 9)], dtype=float) + off
    (_, y, x), filled = fill([Contour(0, box)])
    _, rows, columns = np.nonzero(filled)
    assert len(rows) == 12
    assert (rows.min() + y, rows.max() + y) == (5, 8)
    assert (columns.min() + x, columns.max() + x) == (3, 5)


@pytest.mark.parametrize("seed", range(20))
def test_areas_that_share_edges_hold_each_voxel_once(seed: int) -> None:
    """A box of 20 x 20 voxels, cut into triangles at some of its voxel centres."""
    rng = np.random.default_rng(seed)
    shape = (30, 30)
    triangles = [[(4, 4), (24, 4), (24, 24)], [(4, 4), (24, 24), (4, 24)]]
    for point in rng.integers(5, 24, (6, 2)).tolist():
        strictly_in = [
            t
            for t in triangles
            if all(np.sign(turn(t, k, point)) == np.sign(turn(t, 0, t[2])) for k in range(3))
        ]
        for t in strictly_in:
            triangles.remove(t)
            triangles += [[t[k], t[(k + 1) % 3], point] for k in range(3)]
    count = np.zeros(shape, dtype=int)
    for corners in triangles:
        (_, y, x), box = fill([Contour(0, np.array(corners, dtype=float))], shape)
        count[y : y + box.shape[1], x : x + box.shape[2]] += box[0]
    assert len(triangles) > 2
    assert count.max() == 1 and count.sum() == 400


def turn(triangle: list, k: int, point: tuple[float, float]) -> float:
    """Positive when a point lies left of a triangle's side ``k``."""
    (ax, ay), (bx, by), (px, py) = triangle[k], triangle[(k + 1) % 3], point
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


# --- files without preamble ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["bare.dcm", "bare", "RS.1.2.840.113704"])
def test_without_preamble_file_meta_information_or_ending(clinic: Clinic, name: str) -> None:
    """As Elekta XiO and Monaco write them; the group 0002 ends where its length says."""
    raw = clinic.rtstruct.read_bytes()
    bare = clinic.rtstruct.with_name(name)
    bare.write_bytes(raw[144 + int.from_bytes(raw[140:144], "little") :])
    read = read_structures(bare, clinic.geometry, reference=clinic.series)
    assert read.names == ("Brainstem", "Parotid_L") and read.voxels("Brainstem") == VOXELS


# --- many contours ------------------------------------------------------------------------------------------------
def islands(count: int, step: float, size: float) -> list[tuple[Contour, bool]]:
    """Squares in rows of a hundred."""
    square = np.array([(0, 0), (size, 0), (size, size), (0, size)])
    places = [(0.3 + step * (k % 100), 0.3 + step * (k // 100)) for k in range(count)]
    return [(Contour(0, square + place), False) for place in places]


def seconds(contours: list[tuple[Contour, bool]]) -> float:
    start = time.process_time()
    area_of_overlapping(contours, (1024, 1024))
    return time.process_time() - start


def test_time_grows_with_the_contours_not_with_their_pairs() -> None:
    """Ten thousand islands, apart or each touching its neighbours: pairs in a loop took minutes."""
    for size in (4.0, 12.0):
        assert area_of_overlapping(islands(100, 10.0, size), (1024, 1024)) is None or size > 10
        assert seconds(islands(10000, 10.0, size)) < 5


@pytest.mark.parametrize("seed", range(30))
def test_the_area_is_that_of_pairs_compared_one_by_one(seed: int) -> None:
    """Against the rule written out: contours that share some, but less than 90 % of the smaller, are one; even-odd."""
    rng = np.random.default_rng(seed)
    shape = (40, 50)
    contours = []
    for _ in range(rng.integers(2, 12)):
        centre, radius = rng.uniform(-2, 45, 2), rng.uniform(1, 12)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        contours.append((Contour(0, points), bool(rng.random() < 0.2)))
    wanted = pair_by_pair(contours, shape)
    found = area_of_overlapping(contours, shape)
    if found is None:
        assert wanted is None
    else:
        (y, x), area = found
        whole = np.zeros(shape, bool)
        whole[y : y + area.shape[0], x : x + area.shape[1]] = area
        np.testing.assert_array_equal(whole, wanted)


def pair_by_pair(contours: list[tuple[Contour, bool]], shape: tuple[int, int]) -> np.ndarray | None:
    areas = []
    for contour, _ in contours:
        area = np.zeros(shape, bool)
        (_, y, x), box = fill([contour], shape)
        area[y : y + box.shape[1], x : x + box.shape[2]] = box[0]
        areas.append(area)
    group = list(range(len(contours)))
    for a in range(len(contours)):
        for b in range(a):
            common = np.count_nonzero(areas[a] & areas[b])
            smaller = min(np.count_nonzero(areas[a]), np.count_nonzero(areas[b]))
            if not (contours[a][1] or contours[b][1]) and 0 < common < 0.9 * smaller:
                group = [group[b] if g == group[a] else g for g in group]
    if len(set(group)) == len(group):
        return None
    out = np.zeros(shape, bool)
    for g in set(group):
        out ^= np.any([area for area, of in zip(areas, group, strict=True) if of == g], axis=0)
    return out
