"""Tolerances from several observers: a percentile of the area, both ways, over all pairs and cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.errors import InputError
from soars.metrics.tolerances import read_tolerances
from soars.study.tolerances import observed_tolerances, reached


def _draw(observer: Path, case: str, organs: dict[str, tuple[int, int, int]], side: int = 8) -> None:
    """Cubes of `side` voxels of 1 x 1 x 2 mm that begin at (z, y, x)."""
    folder = observer / case
    folder.mkdir(parents=True, exist_ok=True)
    for organ, (z, y, x) in organs.items():
        array = np.zeros((30, 30, 30), np.uint8)
        array[z : z + side, y : y + side, x : x + side] = 1
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 2.0))
        sitk.WriteImage(image, str(folder / f"{organ}.nrrd"))


@pytest.fixture
def observers(tmp_path: Path) -> list[Path]:
    """Three people, two cases: the second draws the parotids 2 and 3 voxels to the side, the third as the first."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for case, shift in (("c1", 2), ("c2", 3)):
        _draw(first, case, {"Parotid_L": (5, 5, 5), "Parotid_R": (5, 5, 17), "Brainstem": (15, 15, 15)})
        _draw(second, case, {"Parotid_L": (5, 5, 5 + shift), "Parotid_R": (5, 5, 17 - shift)})
        _draw(third, case, {"Parotid_L": (5, 5, 5), "Parotid_R": (5, 5, 17)})
    return [first, second, third]


def test_the_percentile_is_of_the_area() -> None:
    distances, area = np.array([3.0, 0.0, 1.0, 2.0]), np.array([1.0, 6.0, 2.0, 1.0])
    assert [reached(distances, area, p) for p in (60, 60.1, 80, 90, 95, 100)] == [0, 1, 1, 2, 3, 3]
    assert reached(np.zeros(3), np.ones(3), 95) == 0


def test_what_two_people_differ_by(observers: list[Path]) -> None:
    """The farthest that two equal cubes lie from each other is their shift."""
    rows = {r.organ: r for r in observed_tolerances(observers[:2], percent=100)}
    assert set(rows) == {"Parotid_L", "Parotid_R"}
    assert (rows["Parotid_L"].mm, rows["Parotid_L"].lowest_mm, rows["Parotid_L"].highest_mm) == (3, 2, 3)
    assert (rows["Parotid_L"].cases, rows["Parotid_L"].comparisons) == (2, 4)
    assert (rows["Parotid_L"].catalogue_mm, rows["Parotid_R"].mm) == (2.85, 3)
    # Of a cube's 640 mm2, 288 (shifted by 2) or 240 (by 3) coincide with the other's: the faces along the shift.
    assert observed_tolerances(observers[:2], percent=35)[0].mm == 0
    assert observed_tolerances(observers[:2], percent=60)[0].mm > 0


def test_the_order_of_observers_does_not_matter(observers: list[Path]) -> None:
    forth, back = observed_tolerances(observers), observed_tolerances(observers[::-1])
    assert forth == back
    assert {(r.organ, r.cases, r.comparisons) for r in forth} == {("Parotid_L", 2, 12), ("Parotid_R", 2, 12)}
    both = {r.organ: r for r in observed_tolerances([observers[0], observers[2]])}
    assert both["Parotid_L"].mm == 0
    only = observed_tolerances(observers, organs=("Parotid_R",))
    assert [(r.organ, r.comparisons) for r in only] == [("Parotid_R", 6)]


def test_the_command_writes_what_evaluate_reads(
    observers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "tolerances.csv"
    command = ["observers", *map(str, observers), "--processes", "1", "--percent", "100", "--csv", str(table)]
    assert main(command) == 0
    assert "Parotid_L" in capsys.readouterr().out
    found = read_tolerances(table)
    assert {name: t.mm for name, t in found.items()} == {"Parotid_L": 3, "Parotid_R": 3}
    assert found["Parotid_L"].source == "100th percentile of the distances between 3 observers"
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0


def test_what_cannot_be_compared_is_said(observers: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two observers or more"):
        observed_tolerances(observers[:1])
    with pytest.raises(InputError, match="given twice"):
        observed_tolerances([observers[0], observers[1], observers[0] / ".." / "first"])
    with pytest.raises(InputError, match="percentile"):
        observed_tolerances(observers, percent=0)
    _draw(tmp_path / "other", "c1", {"SpinalCord": (5, 5, 5)})
    with pytest.raises(InputError, match="drawn by two observers"):
        observed_tolerances([observers[1], tmp_path / "other"])
    with pytest.raises(InputError, match="no file or folder"):
        observed_tolerances([observers[0], tmp_path / "nowhere"])


def test_cases_are_matched_by_name_whoever_drew_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three people share out four patients, so that two of them have none in common; c1 and c4 were drawn once."""
    people = [tmp_path / name for name in "abc"]
    for number, person in enumerate(people):
        for case in (f"c{number + 1}", f"c{number + 2}"):
            _draw(person, case, {"Brainstem": (5, 5, 5 + number)})
    command = ["observers", *map(str, people), "--processes", "1", "--percent", "100"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert [line.split()[:3] for line in said.out.splitlines()[1:]] == [["Brainstem", "1.00", "2"]]
    assert "only one observer has these cases, left out: c1, c4" in said.err
    # One patient each, and not the same one: never compared, however alone they are in their folders.
    for number, person in enumerate(people[:2]):
        _draw(tmp_path / "alone" / person.name, f"p{number}", {"Brainstem": (5, 5, 5)})
    with pytest.raises(InputError, match=r"same name in two observers' folders \(p0, p1\)"):
        observed_tolerances([tmp_path / "alone" / name for name in "ab"])
    # One scan, a folder of masks a person.
    rows = observed_tolerances([people[0] / "c2", people[1] / "c2", people[2] / "c3"], percent=100)
    assert [(row.mm, row.cases, row.comparisons) for row in rows] == [(2, 1, 3)]


def test_real_observers_differ_by_what_the_paper_tolerates(shared: Path, tmp_path: Path) -> None:
    """Nikolov et al. give brainstem 2.50 and mandible 1.01 mm, from three oncologists on other scans; of two observers
    here these are a slice and a pixel (0.98 mm)."""
    people = []
    for who in ("oncologist", "radiographer"):
        for file in (shared / "data" / "observers" / who).rglob("*.nrrd"):
            if file.stem in ("Brainstem", "Mandible"):
                place = tmp_path / who / file.parents[1].name / file.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(file)
        people.append(tmp_path / who)
    found = {r.organ: r for r in observed_tolerances(people, ("Brainstem", "Bone_Mandible"))}
    for organ, published in (("Brainstem", 2.50), ("Bone_Mandible", 1.01)):
        assert found[organ].mm == pytest.approx(published, abs=0.1)
        assert found[organ].cases == 6 and found[organ].catalogue_mm == published
