"""`soars evaluate`: any of our formats, one case or folders of cases, to CSV, summary and picture."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.ct.series import read_series
from soars.dicom.rtstruct import write_rtstruct
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.formats.labelmap import write_label_map
from soars.formats.maskfolder import write_mask_folder
from soars.formats.segnrrd import write_seg_nrrd
from soars.metrics.cases import find_pairs, structure_source
from soars.metrics.summary import statistics
from soars.metrics.tables import read_scores
from soars.structures import Geometry, StructureSet

CONTRACT = [
    "case",
    "organ",
    "dsc",
    "hd_mm",
    "hd95_mm",
    "asd_mm",
    "surface_dsc",
    "tolerance_mm",
    "apl_mm",
    "volume_cc",
    "reference_volume_cc",
]

ONE = ("--processes", "1")
"""New processes take seconds to start, and small cases do not need them."""


def _organs(shift: int = 0, names: tuple[str, ...] = ("Brainstem", "Parotid_L", "Parotid_R")) -> StructureSet:
    """Boxes of 4 x 6 x 8 voxels, moved along x."""
    structures = StructureSet(Geometry((40, 30, 20), (1.0, 1.0, 3.0), (0.0, 0.0, 0.0)))
    for number, name in enumerate(names):
        array = np.zeros((20, 30, 40), bool)
        array[3 + 5 * number : 7 + 5 * number, 4:10, 5 + 8 * number + shift : 13 + 8 * number + shift] = True
        structures.add(name, array)
    return structures


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases on each side, two in common; the third of the reference lacks its prediction."""
    prediction, reference = tmp_path / "prediction", tmp_path / "reference"
    for side in (prediction, reference):
        side.mkdir()
    write_seg_nrrd(_organs(1), prediction / "case1.seg.nrrd")
    write_mask_folder(_organs(), reference / "case1" / "segmentations")
    write_mask_folder(_organs(2, ("brain stem", "parotid-lt")), prediction / "case2", suffix=".nrrd")
    (reference / "case2").mkdir()
    write_label_map(_organs(), reference / "case2" / "organs.nii.gz")
    write_seg_nrrd(_organs(), prediction / "other.seg.nrrd")
    write_seg_nrrd(_organs(), reference / "case3.seg.nrrd")
    return prediction, reference


def test_two_files_give_the_columns_that_were_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_seg_nrrd(_organs(1), tmp_path / "auto.seg.nrrd")
    write_mask_folder(_organs(), tmp_path / "patient7")
    out = tmp_path / "scores.csv"
    assert (
        main(["evaluate", str(tmp_path / "auto.seg.nrrd"), str(tmp_path / "patient7"), "--csv", str(out)])
        == 0
    )
    rows = _rows(out)
    assert list(rows[0])[:11] == CONTRACT
    assert [(r["case"], r["organ"]) for r in rows] == [
        ("patient7", "Brainstem"),
        ("patient7", "Parotid_L"),
        ("patient7", "Parotid_R"),
    ]
    brainstem = rows[0]
    assert float(brainstem["dsc"]) == pytest.approx(7 / 8)
    assert float(brainstem["hd_mm"]) == pytest.approx(1)
    assert float(brainstem["volume_cc"]) == pytest.approx(4 * 6 * 8 * 3 / 1000)
    assert float(brainstem["centroid_shift_left_mm"]) == pytest.approx(1)
    assert (brainstem["tolerance_mm"], brainstem["surface_dsc"]) == ("2.5", "1")
    assert brainstem["definition"] == "surface-distance"
    said = capsys.readouterr().out
    assert "Parotid_L" in said and "mid_level" in said and "definition of surface-distance" in said


def test_cases_are_matched_by_name_in_any_format(
    cohort: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, summary = tmp_path / "scores.csv", tmp_path / "summary.csv"
    arguments = ["evaluate", *map(str, cohort), *ONE, "--csv", str(out), "--summary", str(summary)]
    assert main(arguments) == 0
    rows = {(r["case"], r["organ"]): r for r in _rows(out)}
    assert len(rows) == 6
    assert rows["case2", "Parotid_R"]["state"] == "missing"
    assert rows["case2", "Parotid_R"]["dsc"] == "0" and rows["case2", "Parotid_R"]["hd95_mm"] == "inf"
    assert float(rows["case2", "Brainstem"]["dsc"]) == pytest.approx(6 / 8)
    said = capsys.readouterr()
    assert "without a prediction, left out: case3" in said.err
    assert "without a reference, left out: other" in said.err
    groups = {(r["group"], r["name"]): r for r in _rows(summary)}
    assert groups["organ", "Parotid_R"]["missing"] == "1" and groups["organ", "Parotid_R"]["compared"] == "1"
    assert float(groups["organ", "Brainstem"]["dsc_mean"]) == pytest.approx(13 / 16)
    assert float(groups["organ", "Parotid_R"]["dsc_mean"]) == pytest.approx(7 / 16)
    assert groups["organ", "Parotid_R"]["hd95_mm_q3"] == "inf"
    assert set(groups) >= {("stratum", "anchor"), ("stratum", "mid_level"), ("all", "all organs")}


def test_what_was_written_reads_back(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    main(["evaluate", *map(str, cohort), *ONE, "--csv", str(out), "--progress", "none"])
    cases = read_scores(out)
    assert [c.case for c in cases] == ["case1", "case2"]
    score = cases[1].scores[2]
    assert (score.organ, score.state, score.hd_mm, score.dsc) == ("Parotid_R", "missing", math.inf, 0)
    out.write_text("case,organ\n")
    with pytest.raises(InputError, match="not a table of scores"):
        read_scores(out)


def test_several_processes_give_the_same_as_one(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    for path, processes in ((one, "1"), (two, "2")):
        assert main(["evaluate", *map(str, cohort), "--csv", str(path), "--processes", processes]) == 0
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_one_damaged_case_of_several_can_be_left_out(
    cohort: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], processes: str
) -> None:
    predictions, references = cohort
    (predictions / "case3.seg.nrrd").write_bytes(b"NRRD0004\n")
    command = ["evaluate", str(predictions), str(references), "--csv", str(tmp_path / "scores.csv")]
    assert main([*command, "--processes", processes]) == 2
    assert not (tmp_path / "scores.csv").exists(), "without being asked, nothing is written"
    capsys.readouterr()
    assert main([*command, "--processes", processes, "--leave-out"]) == 2
    said = capsys.readouterr()
    assert "warning: left out: case case3: " in said.err and "Brainstem" in said.out
    assert said.err.splitlines()[-1].endswith("1 of 3 cases were left out: case3")
    assert {row["case"] for row in _rows(tmp_path / "scores.csv")} == {"case1", "case2"}


def test_where_chooses_cases_by_name_and_by_the_header_of_their_ct(
    cohort: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    command = ["evaluate", *map(str, cohort), *ONE, "--overwrite", "--csv", str(out)]
    assert main([*command, "--where", "case=*2"]) == 0
    assert {row["case"] for row in _rows(out)} == {"case2"}
    geometry = _organs().geometry
    hu = np.full(geometry.shape, -1000, np.int16)
    hu[5:-5, 5:-5, 5:-5] = 40
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(geometry.spacing)
    for number in (1, 2):
        folder = tmp_path / "cts" / f"case{number}"
        write_ct_series(
            image,
            folder,
            patient_id=str(number),
            patient_name="A",
            series_description=f"Neck {number}",
            seed=number,
        )
    with_ct = [*command, "--ct", str(tmp_path / "cts")]
    assert main([*with_ct, "--where", "SeriesDescription=neck 1", "--where", "case!=case9"]) == 0
    assert {row["case"] for row in _rows(out)} == {"case1"}
    capsys.readouterr()
    for conditions, said in (
        ((*command, "--where", "case=nobody"), "leaves out all 2 cases"),
        ((*command, "--where", "SliceThickness<=3"), "give the CT of case1 with --ct"),
        ((*with_ct, "--where", "SliceThikness<=3"), "DICOM keyword"),
    ):
        assert main(list(conditions)) == 2
        assert said in capsys.readouterr().err


def test_the_rule_of_han_seg_gives_a_missing_organ_a_distance(
    cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    assert main(["evaluate", *map(str, cohort), *ONE, "--csv", str(out), "--missing", "han-seg"]) == 0
    rows = {(r["case"], r["organ"]): r for r in _rows(out)}
    assert rows["case2", "Parotid_R"]["hd95_mm"] == rows["case1", "Parotid_R"]["hd95_mm"] != "inf"
    assert rows["case2", "Parotid_R"]["state"] == "missing"


def test_tolerances_come_from_a_file_or_the_command_line(tmp_path: Path) -> None:
    for side, shift in (("a", 1), ("b", 0)):
        write_seg_nrrd(_organs(shift, ("Brainstem", "Cerebellum")), tmp_path / f"{side}.seg.nrrd")
    (tmp_path / "t.csv").write_text("organ,tolerance_mm,source\nbrain stem,0.5,us\n")
    out = tmp_path / "s.csv"
    base = [
        "evaluate",
        str(tmp_path / "a.seg.nrrd"),
        str(tmp_path / "b.seg.nrrd"),
        "--csv",
        str(out),
        "--overwrite",
    ]
    assert main([*base, "--tolerances", str(tmp_path / "t.csv")]) == 0
    brainstem, cerebellum = _rows(out)
    assert (brainstem["tolerance_mm"], brainstem["tolerance_source"]) == ("0.5", "us")
    assert float(brainstem["surface_dsc"]) < 1 and cerebellum["surface_dsc"] == ""
    assert main([*base, "--tolerance", "1", "--definition", "monai", "--organs", "cerebellum"]) == 0
    (cerebellum,) = _rows(out)
    assert (cerebellum["surface_dsc"], cerebellum["definition"]) == ("1", "monai")


def test_box_plots_are_drawn(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, start in (("p.png", b"\x89PNG"), ("p.svg", b"<?xml")):
        assert main(["evaluate", *map(str, cohort), *ONE, "--plot", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)


def test_pictures_without_matplotlib_are_refused_before_the_work(
    cohort: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["evaluate", *map(str, cohort), "--plot", str(tmp_path / "p.png")]) == 2
    assert "pip install 'soars-segmentation[study]'" in capsys.readouterr().err


def test_progress_as_json_is_all_that_goes_to_standard_output(
    cohort: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *map(str, cohort), "--progress", "json", "--processes", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Before the case's name stands how long the rest will take.
    steps = [(p["done"], p["of"], p["message"].split(", ")[-1]) for p in lines if p["stage"] == "evaluate"]
    assert steps == [(0, 2, ""), (1, 2, "case1"), (2, 2, "case2")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{p}", "{t}/none"], "there is no file or folder"),
        (["{r}/case3.seg.nrrd", "{p}"], "is one case, but"),
        (["{p}", "{t}/empty"], "holds neither structures nor cases"),
        (["{p}", "{r}", "--csv", "{t}/none/x.csv"], "there is no folder"),
        (["{p}", "{r}", "--csv", "{t}/x", "--summary", "{t}/x"], "same name"),
        (["{p}", "{r}", "--plot", "{t}/x.gif"], "a picture ends in .png"),
        (["{p}", "{r}", "--organs", "Brainstm"], "did you mean Brainstem"),
        (["{p}", "{r}", "--organs", "Lens_L"], "none of the requested organs"),
        (["{p}", "{r}", "--processes", "0"], "1 or more"),
        (["{p}", "{r}", "--tolerance", "-1"], "zero or more"),
        (["{p}", "{r}", "--definition", "itk"], "invalid choice"),
        (["{p}/case1.seg.nrrd", "{t}/damaged.nrrd"], "damaged.nrrd is cut short"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    cohort: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.nrrd").write_bytes(b"NRRD0004\n")
    filled = [a.format(p=cohort[0], r=cohort[1], t=tmp_path) for a in arguments]
    before = sorted(tmp_path.rglob("*"))
    assert main(["evaluate", *filled]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("soars: error:")]
    assert len(error) == 1 and re.search(said, error[0])
    assert sorted(tmp_path.rglob("*")) == before


def test_what_one_case_is(tmp_path: Path, cohort: tuple[Path, Path]) -> None:
    prediction, reference = cohort
    assert structure_source(prediction) is None
    assert structure_source(reference / "case1") == reference / "case1" / "segmentations"
    assert structure_source(reference / "case2") == reference / "case2" / "organs.nii.gz"
    assert structure_source(prediction / "case2") == prediction / "case2"
    (pair,) = find_pairs(prediction / "case2", reference / "case2").pairs
    assert pair.case == "case2"


def test_a_scan_may_lie_beside_its_folder_of_masks(tmp_path: Path) -> None:
    """As published: DeepMind's TCIA set and TotalSegmentator's have an image and a folder of masks in each case."""
    hu = np.arange(20 * 30 * 40).reshape(20, 30, 40) % 3000
    for observer, shift in (("oncologist", 0), ("radiographer", 1)):
        for case, offset in (("signed", -1000), ("unsigned", 0)):
            folder = tmp_path / observer / case
            write_mask_folder(_organs(shift), folder / "segmentations", suffix=".nrrd")
            sitk.WriteImage(sitk.GetImageFromArray((hu + offset).astype(np.int16)), folder / "CT_IMAGE.nrrd")
    out = tmp_path / "s.csv"
    sides = [str(tmp_path / observer) for observer in ("radiographer", "oncologist")]
    assert main(["evaluate", *sides, "--csv", str(out), *ONE]) == 0
    # Boxes 8 voxels wide, moved by one: DSC is 7/8.
    assert [(r["case"], float(r["dsc"])) for r in _rows(out)] == [
        (c, 7 / 8) for c in ("signed", "unsigned") for _ in range(3)
    ]
    case = tmp_path / "oncologist" / "signed"
    (case / "landmarks").mkdir()
    assert structure_source(case) == case / "segmentations"
    (case / "CT_IMAGE.nrrd").rename(case / "CT.nrrd")
    write_mask_folder(_organs(), case / "segmentations" / "earlier")
    assert structure_source(case) == case / "segmentations"  # masks are masks, whatever lies below them


@pytest.mark.parametrize("halves_first", [True, False])
def test_a_whole_is_compared_with_its_halves(tmp_path: Path, halves_first: bool) -> None:
    halves = _organs(0, ("Bone_Mandible_L", "Bone_Mandible_R"))
    whole = StructureSet(halves.geometry)
    whole.add_mask("Bone_Mandible", halves.union(halves.names))
    sides = (halves, whole) if halves_first else (whole, halves)
    for name, side in zip("ab", sides, strict=True):
        write_seg_nrrd(side, tmp_path / f"{name}.seg.nrrd")
    out = tmp_path / "s.csv"
    assert main(["evaluate", *(str(tmp_path / f"{n}.seg.nrrd") for n in "ab"), "--csv", str(out)]) == 0
    assert [(r["organ"], r["dsc"]) for r in _rows(out)] == [("Bone_Mandible", "1")]


def test_quartiles_of_values_with_infinity_are_numbers_or_infinite() -> None:
    found = statistics([1.0, 2.0, 3.0, math.inf, math.inf, math.nan])
    assert (found.n, found.finite, found.mean, found.sd) == (5, 3, 2.0, 1.0)
    assert (found.q1, found.median, found.q3) == (2.0, 3.0, math.inf)
    empty = statistics([math.nan])
    assert empty.n == 0 and math.isnan(empty.mean) and math.isnan(empty.median)
    assert math.isnan(statistics([1.0]).sd)


def test_an_rtstruct_is_put_on_the_grid_of_the_ct_or_of_the_other_side(tmp_path: Path) -> None:
    hu = np.full((20, 30, 40), -1000, np.int16)
    hu[:, 3:27, 3:37] = 0
    ct = sitk.GetImageFromArray(hu)
    ct.SetSpacing((1.0, 1.0, 3.0))
    write_ct_series(ct, tmp_path / "ct", patient_id="p", patient_name="n")
    image, series, _ = read_series(tmp_path / "ct")
    reference = _organs().on(Geometry.of(image))
    write_rtstruct(reference, tmp_path / "clinic.dcm", series)
    write_rtstruct(reference, tmp_path / "auto.dcm", series)
    write_seg_nrrd(_organs(1), tmp_path / "auto.seg.nrrd")
    out = tmp_path / "s.csv"
    base = ["evaluate", str(tmp_path / "auto.seg.nrrd"), str(tmp_path / "clinic.dcm"), "--csv", str(out)]
    base.append("--overwrite")
    found = []
    for more in ([], ["--ct", str(tmp_path / "ct")]):
        assert main([*base, *more]) == 0
        found.append([float(r["dsc"]) for r in _rows(out)])
    assert found == [[7 / 8] * 3] * 2
    both = ["evaluate", str(tmp_path / "auto.dcm"), str(tmp_path / "clinic.dcm")]
    assert main(both) == 2
    assert main([*both, "--ct", str(tmp_path / "ct"), "--csv", str(out), "--overwrite"]) == 0
    assert [r["dsc"] for r in _rows(out)] == ["1", "1", "1"]


def test_methods_are_ranked_as_in_the_challenge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three methods on twelve cases: one is the reference, one is off by a voxel, one by three."""
    shifts = {"best": 0, "near": 1, "far": 3}
    for number in range(12):
        write_seg_nrrd(_organs(), _made(tmp_path / "truth") / f"case{number}.seg.nrrd")
        for name, shift in shifts.items():
            write_seg_nrrd(_organs(shift), _made(tmp_path / name) / f"case{number}.seg.nrrd")
    places = [str(tmp_path / name) for name in ("far", "truth", "best", "near")]
    command = ["evaluate", *places[:2], "--rank", places[2], "--rank", places[3], *ONE, "--progress", "none"]
    assert main([*command, "--ranking", str(tmp_path / "ranking.csv")]) == 0
    rows = [row for row in _rows(tmp_path / "ranking.csv") if row["figure"] == "dsc"]
    assert [(r["method"], r["rank"], r["significance_score"]) for r in rows] == [
        ("best", "1", "2"),
        ("near", "2", "1"),
        ("far", "3", "0"),
    ]
    # Boxes 8 voxels wide: DSC is 1 - shift / 8.
    assert [float(row["mean"]) for row in rows] == pytest.approx([1, 7 / 8, 5 / 8])
    assert "Bonferroni" in capsys.readouterr().out


@pytest.mark.parametrize(("missing", "hd95"), [("as-is", 1.0), ("han-seg", 1.0), ("han-seg-organ", 3.0)])
def test_a_missing_organ_counts_by_either_reading_of_the_challenge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, hd95: float
) -> None:
    """`mine` is off by 1 mm and lacks one organ of case1; `theirs` is off by 3 mm in case0 and by 1 mm in case1, and
    has no case2 at all."""
    for number in range(3):
        write_seg_nrrd(_organs(), _made(tmp_path / "truth") / f"case{number}.seg.nrrd")
        names = ("Brainstem", "Parotid_L") if number == 1 else ("Brainstem", "Parotid_L", "Parotid_R")
        write_seg_nrrd(_organs(1, names), _made(tmp_path / "mine") / f"case{number}.seg.nrrd")
    for number, shift in enumerate((3, 1)):
        write_seg_nrrd(_organs(shift), _made(tmp_path / "theirs") / f"case{number}.seg.nrrd")
    command = [
        "evaluate",
        str(tmp_path / "mine"),
        str(tmp_path / "truth"),
        "--rank",
        str(tmp_path / "theirs"),
    ]
    command += ["--missing", missing, "--csv", str(tmp_path / "scores.csv"), *ONE]
    assert main([*command, "--ranking", str(tmp_path / "ranking.csv")]) == 0
    rows = {(row["case"], row["organ"]): row["hd95_mm"] for row in _rows(tmp_path / "scores.csv")}
    assert float(rows["case1", "Parotid_R"]) == (math.inf if missing == "as-is" else hd95)
    means = {(r["method"], r["figure"]): float(r["mean"]) for r in _rows(tmp_path / "ranking.csv")}
    # Five organs of two cases 1 mm off, and the missing one; boxes 8 voxels wide.
    assert means["mine", "hd95_mm"] == pytest.approx((5 + hd95) / 6, abs=1e-5)
    assert means["mine", "dsc"] == pytest.approx(5 * (7 / 8) / 6, abs=1e-5)
    assert means["theirs", "hd95_mm"] == pytest.approx(2)
    said = capsys.readouterr()
    assert "theirs has no contours of case2, which the ranking leaves out for all methods" in said.err
    assert f"the worst HD95 of that organ in {'any' if hd95 == 3 else 'that'} case" in said.out


def test_a_damaged_case_of_a_ranked_method_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        for name, shift in {"truth": 0, "mine": 1, "theirs": 3}.items():
            write_seg_nrrd(_organs(shift), _made(tmp_path / name) / f"case{number}.seg.nrrd")
    (tmp_path / "theirs" / "case1.seg.nrrd").write_bytes(b"NRRD0004\n")
    mine, truth, theirs = (str(tmp_path / name) for name in ("mine", "truth", "theirs"))
    command = ["evaluate", mine, truth, "--rank", theirs, *ONE, "--leave-out"]
    outputs = ["--csv", str(tmp_path / "scores.csv"), "--ranking", str(tmp_path / "ranking.csv")]
    assert main([*command, *outputs]) == 2, "as for a case of PREDICTION"
    assert capsys.readouterr().err.splitlines()[-1].endswith("1 of 6 cases were left out: case1 of theirs")
    assert {row["case"] for row in _rows(tmp_path / "scores.csv")} == {"case0", "case1", "case2"}
    assert {row["method"] for row in _rows(tmp_path / "ranking.csv")} == {"mine", "theirs"}


def test_a_ranking_needs_methods_with_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        write_seg_nrrd(_organs(), _made(tmp_path / folder) / "case.seg.nrrd")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["evaluate", a, b, "--ranking", str(tmp_path / "r.csv"), *ONE]) == 2
    assert "--ranking needs methods" in capsys.readouterr().err
    assert main(["evaluate", a, b, "--rank", a, *ONE]) == 2
    assert "two methods would have the same name" in capsys.readouterr().err


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
