"""Figures of DVHs by name, and dose constraints: held to a dose whose DVH is known in closed form."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars import catalogue
from soars.cli import main
from soars.dose.cases import CaseDose
from soars.dose.compare import DoseDifference, compare_dose, organ_dose
from soars.dose.constraints import SHIPPED, judge, read_constraints
from soars.dose.dvh import Dvh
from soars.dose.figures import parse_figure, parse_figures
from soars.dose.plots import plot_dvhs
from soars.errors import InputError
from soars.formats import write_seg_nrrd
from soars.structures import Geometry, StructureSet

#: 1000 voxels of 0.01 cc with 0.05, 0.15, ..., 99.95 Gy: V(d) is 100 - d percent, D of x percent 100 - x Gy.
RAMP = Dvh((0.05 + 0.1 * np.arange(1000)).astype(np.float32), 0.01)


@pytest.mark.parametrize(
    ("name", "value", "unit", "column"),
    [
        ("V20", 80, "%", "V20_percent"),
        ("V20Gy[%]", 80, "%", "V20_percent"),
        ("V20[%]", 80, "%", "V20_percent"),
        ("v30Gy", 70, "%", "V30_percent"),
        ("V20cc", 8, "cc", "V20_cc"),
        ("V62.5", 37.5, "%", "V62.5_percent"),
        ("D2%", 98, "Gy", "D2percent_gy"),
        ("D95%", 5, "Gy", "D95percent_gy"),
        ("D1cc", 90, "Gy", "D1cc_gy"),
        ("D0.1cc", 99, "Gy", "D0.1cc_gy"),
        ("median", 50, "Gy", "D50percent_gy"),
        ("mean", 50, "Gy", "mean_gy"),
        ("Dmax", 99.95, "Gy", "max_gy"),
        ("min", 0.05, "Gy", "min_gy"),
    ],
)
def test_figures_by_their_usual_names(name: str, value: float, unit: str, column: str) -> None:
    figure = parse_figure(name)
    assert figure.of(RAMP) == pytest.approx(value, abs=0.06)
    assert (figure.unit, figure.column) == (unit, column)
    assert np.isnan(figure.of(Dvh.empty()))


@pytest.mark.parametrize("name", ["V", "D2", "W20", "V20mm", "D200%", "V-5", "20", "D2%cc", "V1e5", "Vmax"])
def test_what_is_no_figure_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match="V20cc|100 %"):
        parse_figure(name)


@pytest.mark.parametrize("name", ["V95%", "V100%", "v20%", "V95%[%]"])
def test_a_volume_at_a_percentage_of_the_prescription_is_not_taken_for_gray(name: str) -> None:
    """AAPM TG-263: V20Gy[%] is at a dose, V95%[%] at a percentage of the prescribed dose."""
    with pytest.raises(InputError, match="prescribed dose.*V20Gy"):
        parse_figure(name)


def test_each_figure_is_reported_once() -> None:
    assert [f.name for f in parse_figures(["V20", "v20Gy%", " ", "D2%"])] == ["V20", "D2%"]


# --- constraints --------------------------------------------------------------------------------------------------
def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("limit", "value", "kept"),
    [("<26", 26, False), ("<26", 25.99, True), ("26", 26, True), ("<= 26 Gy", 26, True), ("≤26", 26, True),
     (">=20", 19.9, False), (">20", 20, False), ("≥20", 20, True)],
)  # fmt: skip
def test_a_limit_is_kept_or_not(tmp_path: Path, limit: str, value: float, kept: bool) -> None:
    (constraint,) = read_constraints(
        table(tmp_path / "c.csv", "organ,figure,limit", f"left parotid,mean,{limit}")
    )
    assert constraint.organ == "Parotid_L"
    assert constraint.kept_by(value) is kept


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Parotid_L,mean", "line 2: organ, figure and limit"),
        ("Parotid_L,mean,", "line 2: organ, figure and limit"),
        ("Parotid_L,mean,much", "line 2: the limit 'much' is not a number"),
        ("Parotid_L,V20,<30 Gy", "line 2: the limit of V20 is in %, not in Gy"),
        ("Parotid_L,nothing,<30", "line 2: 'nothing' is not a known figure"),
        ("a,mean,1,b,c,d", "line 2: organ, figure and limit"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_constraints(table(tmp_path / "c.csv", "organ,figure,limit", line))


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the constraints"):
        read_constraints(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="holds no constraints"):
        read_constraints(table(tmp_path / "c.csv", "organ,figure,limit"))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_constraints(tmp_path / "b.csv")


def test_semicolons_and_organs_of_ones_own(tmp_path: Path) -> None:
    lines = ("organ;figure;limit;endpoint;source", "PRV Cord;D0.03cc;<=50 Gy;myelopathy, rare;ours")
    (constraint,) = read_constraints(table(tmp_path / "c.csv", *lines))
    assert (constraint.organ, constraint.describe()) == ("PRV Cord", "D0.03cc <= 50 Gy")
    assert (constraint.endpoint, constraint.source) == ("myelopathy, rare", "ours")


def test_the_shipped_table_names_organs_and_sources() -> None:
    """Values of QUANTEC (Marks et al. 2010, table 1) that nobody disputes, and a source for every line."""
    shipped = read_constraints(SHIPPED)
    known = {(c.organ, c.describe()) for c in shipped}
    assert {
        ("Brainstem", "max < 54 Gy"),
        ("SpinalCord", "max <= 50 Gy"),
        ("Cochlea_L", "mean <= 45 Gy"),
        ("Parotid_R", "mean <= 25 Gy"),
        ("Larynx", "V50 < 27 %"),
        ("OpticChiasm", "max < 55 Gy"),
    } <= known
    assert len(known) == len(shipped)
    assert all(c.source and c.endpoint and c.organ in catalogue.CATALOGUE for c in shipped)
    assert {c.source.partition(" ")[0] for c in shipped} == {"QUANTEC", "GORTEC"}


# --- organs that leave the dose grid ------------------------------------------------------------------------------
#: `RAMP` of which a tenth lies beyond the dose grid: V(d) within is 90 - 0.9 d percent, the mean 45 Gy.
CUT = Dvh(
    np.append(np.zeros(100, np.float32), (100 / 900) * (0.5 + np.arange(900, dtype=np.float32))), 0.01, 0.1
)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        ("mean,<50", None),
        ("mean,<40", False),
        ("mean,>40", True),
        ("mean,>50", None),
        ("max,<101", None),
        ("max,<90", False),
        ("V50,<60", True),  # 45 % within the grid, so 55 % at most
        ("V50,<50", None),
        ("V50,<40", False),
        ("V50cc,<5", None),
        ("V50cc,<6", True),
        ("D0.5cc,<101", None),
        ("D2cc,<95", True),  # 1 cc outside and the hottest 1 cc within, which receives 100 - 100/9 Gy
        ("D2cc,<85", None),
        ("D2cc,<75", False),
        ("min,>0", None),
        ("min,>1", False),
        ("D95%,>=4", None),  # 0 Gy, or, the tenth outside being hot, what 850 of 900 samples receive: 50/9 Gy
        ("D95%,>=6", False),
        ("D80%,>=10", True),  # 800 of 900 samples receive 100/9 Gy
        ("D80%,>=12", None),
    ],
)  # fmt: skip
def test_a_verdict_that_the_dose_beyond_the_grid_decides_is_not_given(
    tmp_path: Path, limit: str, kept: bool | None
) -> None:
    (constraint,) = read_constraints(table(tmp_path / "c.csv", f"Parotid_L,{limit}"))
    difference = DoseDifference("Parotid_L", "auto", "compared", organ_dose(CUT), organ_dose(RAMP), CUT, RAMP)
    ours, whole = judge([CaseDose("a", (difference,))], [constraint])
    assert (ours.contour, ours.kept, ours.outside) == ("reference", kept, 0.1)
    assert whole.kept is constraint.kept_by(constraint.figure.of(RAMP))


@pytest.mark.parametrize(("voxels", "kept"), [(0, True), (10, True), (11, None)])
def test_up_to_a_hundredth_beyond_the_grid_is_judged_as_it_is(
    tmp_path: Path, voxels: int, kept: bool | None
) -> None:
    (constraint,) = read_constraints(table(tmp_path / "c.csv", "Parotid_L,max,<60"))
    gy = np.append(np.zeros(voxels, np.float32), np.full(1000 - voxels, 50, np.float32))
    cut = Dvh(gy, 0.01, voxels / 1000)
    difference = DoseDifference("Parotid_L", "auto", "compared", organ_dose(cut), organ_dose(cut), cut, cut)
    assert {v.kept for v in judge([CaseDose("a", (difference,))], [constraint])} == {kept}


def test_negative_dose_does_not_take_the_place_of_what_is_outside() -> None:
    """Two samples of -1 and 3 Gy within the grid, two beyond it."""
    found = Dvh(np.array([-1, 0, 0, 3], np.float32), 0.01, 0.5).unbounded()
    assert found.gy.tolist() == [-1, 3, np.inf, np.inf]
    assert found.volume_cc == pytest.approx(0.04)


def test_verdicts_on_organs_that_leave_the_dose_grid_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """50 Gy everywhere in 20 slices: the reference ends within them, a third of the substitute is beyond: 33.3 Gy."""
    sitk.WriteImage(
        sitk.GetImageFromArray(np.full((20, 30, 30), 50, np.float32)), str(tmp_path / "dose.nrrd")
    )
    for name, slices in (("reference", 10), ("auto", 15)):
        structures = StructureSet(Geometry((30, 30, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
        structures.add_crop("SpinalCord", (10, 5, 5), np.ones((slices, 10, 10), bool))
        write_seg_nrrd(structures, tmp_path / f"{name}.seg.nrrd")
    table(tmp_path / "c.csv", "SpinalCord,mean,<45", "SpinalCord,D50%,<45", "SpinalCord,D95%,>=47")
    sides = ("--dose", str(tmp_path / "dose.nrrd"), "--reference", str(tmp_path / "reference.seg.nrrd"))
    command = ["dose", *sides, "--substitute", str(tmp_path / "auto.seg.nrrd"), "--progress", "none"]
    command += ["--constraints", str(tmp_path / "c.csv"), "--verdicts", str(tmp_path / "v.csv")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "33.33 not judged (33 % outside)" in out and "50.00 FAIL (33 % outside)" in out
    assert out.rstrip().endswith("1 of 4 kept, 2 not judged")
    with (tmp_path / "v.csv").open(newline="") as file:
        rows = [
            (r["contour"], r["figure"], r["verdict"], float(r["outside_percent"]))
            for r in csv.DictReader(file)
        ]
    third = pytest.approx(100 / 3, abs=1e-3)
    assert rows == [
        ("reference", "mean", "FAIL", 0),
        ("auto.seg.nrrd", "mean", "not judged", third),
        ("reference", "D50%", "FAIL", 0),
        ("auto.seg.nrrd", "D50%", "FAIL", third),
        ("reference", "D95%", "pass", 0),
        ("auto.seg.nrrd", "D95%", "not judged", third),
    ]


# --- through the command ------------------------------------------------------------------------------------------
def ramp_case() -> tuple[sitk.Image, StructureSet, StructureSet]:
    """A dose of x Gy at x mm; a reference over x = 10 to 19 and 30 to 39, a substitute 5 mm further."""
    dose = sitk.GetImageFromArray(np.broadcast_to(np.arange(60, dtype=np.float32), (10, 20, 60)).copy())
    geometry = Geometry.of(dose)
    sides = []
    for shift in (0, 5):
        structures = StructureSet(geometry)
        structures.add_crop("Parotid_L", (2, 5, 10 + shift), np.ones((5, 10, 10), bool))
        structures.add_crop("Larynx", (2, 5, 30 + shift), np.ones((5, 10, 10), bool))
        sides.append(structures)
    return dose, *sides


def test_contours_that_keep_a_limit_and_contours_that_do_not(tmp_path: Path) -> None:
    dose, reference, substitute = ramp_case()
    case = CaseDose("a", tuple(compare_dose(dose, reference, substitute, name="auto")))
    constraints = read_constraints(
        table(tmp_path / "c.csv", "Parotid_L,mean,<=15", "Larynx,V40,<50", "Lens_L,max,<6")
    )
    verdicts = {(v.constraint.organ, v.contour): (v.value, v.kept) for v in judge([case], constraints)}
    assert verdicts == {
        ("Parotid_L", "reference"): (pytest.approx(14.5), True),
        ("Parotid_L", "auto"): (pytest.approx(19.5), False),
        ("Larynx", "reference"): (pytest.approx(0), True),
        ("Larynx", "auto"): (pytest.approx(50), False),
    }


def test_the_command_reports_figures_and_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dose, reference, substitute = ramp_case()
    sitk.WriteImage(dose, str(tmp_path / "dose.nrrd"))
    write_seg_nrrd(reference, tmp_path / "reference.seg.nrrd")
    write_seg_nrrd(substitute, tmp_path / "auto.seg.nrrd")
    table(tmp_path / "c.csv", "Parotid_L,mean,<=15,xerostomia,ours")
    command = [
        *("dose", "--dose", str(tmp_path / "dose.nrrd"), "--reference", str(tmp_path / "reference.seg.nrrd")),
        *(
            "--substitute",
            str(tmp_path / "auto.seg.nrrd"),
            "--progress",
            "none",
            "--report",
            "V15,D2%,D0.1cc",
        ),
        *("--constraints", str(tmp_path / "c.csv"), "--csv", str(tmp_path / "out.csv")),
        *("--verdicts", str(tmp_path / "v.csv"), "--plot", str(tmp_path / "d.png"), "--volume-axis", "cc"),
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "V15 (%)" in out and "1 of 2 kept" in out and "19.50 FAIL" in out and "14.50 pass" in out
    with (tmp_path / "out.csv").open(newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["organ"] == "Parotid_L")
    assert (row["V15_percent"], row["reference_V15_percent"]) == ("100", "50")
    assert (row["D2percent_gy"], row["reference_D0.1cc_gy"]) == ("24", "18")
    with (tmp_path / "v.csv").open(newline="") as file:
        verdicts = [(r["contour"], r["verdict"], r["source"]) for r in csv.DictReader(file)]
    assert verdicts == [("reference", "pass", "ours"), ("auto.seg.nrrd", "FAIL", "ours")]
    assert (tmp_path / "d.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--report", "Q7"), "is not a known figure"),
        (("--report", ","), "names no figure"),
        (("--verdicts", "v.csv"), "needs"),
    ],
)
def test_what_cannot_be_reported_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    command = ["dose", "--dose", "nowhere", "--reference", "nowhere", "--substitute", "nowhere", *more]
    assert main(command) == 2
    assert said in capsys.readouterr().err


def test_all_panels_share_one_dose_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In cc each organ keeps its own volume axis: 5 cc, though the organs' highest doses differ."""
    import soars.dose.plots as plots

    dose, reference, substitute = ramp_case()
    smaller = StructureSet(reference.geometry)
    smaller.add_crop("Larynx", (2, 5, 30), np.ones((5, 10, 5), bool))
    smaller.add_crop("Parotid_L", (2, 5, 10), np.ones((5, 10, 10), bool))
    seen = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: seen.append(figure))
    plot_dvhs(CaseDose("a", tuple(compare_dose(dose, smaller, substitute))), tmp_path / "d.png", "cc")
    panels = [axis for axis in seen[0].axes if axis.get_visible()]
    assert len({axis.get_xlim() for axis in panels}) == 1 and panels[0].get_xlim()[1] >= 44
    drawn = {a.get_title().split("\n")[0]: [v for line in a.lines for v in line.get_ydata()] for a in panels}
    assert {organ: max(values) for organ, values in drawn.items()} == {
        "Parotid_L": pytest.approx(0.5),
        "Larynx": pytest.approx(0.5),
    }
