"""What a comparison of systems says beside their scores: rank, cost, boxes, and contours on the same slices."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from soars.catalogue import CATALOGUE
from soars.figures import is_own_figure
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, read_case, write_case
from soars_training.experiments.cost import COSTS, Cost, Meter
from soars_training.experiments.nnunet.commands import Used
from soars_training.experiments.pictures.boxes import draw_boxes, patients
from soars_training.experiments.pictures.drawn import DRAWN, Drawn, draw_contours
from soars_training.experiments.published import ORGAN_DSC_2022, SYSTEMS, SYSTEMS_2022
from soars_training.experiments.ranks import over_seeds, ranking
from soars_training.experiments.scores import OrganRow, write_rows
from soars_training.experiments.tables import page, read_results

ORGAN = "Brainstem"


def _row(setting: str, seed: int, case: str, dsc: float, hd95: float, organ: str = ORGAN) -> OrganRow:
    found = math.isfinite(hd95)
    return OrganRow(
        setting, seed, "anchor", case, organ, dsc, hd95 + 1, hd95 / 2, hd95, 0.9 if found else 0.0
    )


def test_seeds_are_averaged_and_a_missed_organ_counts_as_the_challenge_has_it() -> None:
    """The second seed of the first setting misses the organ: DSC 0, and the worst HD95 that anybody has there, 8."""
    rows = [_row("uanet", 1, "p1", 0.8, 2), _row("uanet", 2, "p1", 0, math.inf)]
    rows += [_row("deepmind", 1, "p1", 0.6, 4), _row("deepmind", 2, "p1", 0.4, 8)]
    found = {setting: cases[0].scores[0] for setting, cases in over_seeds(rows).items()}
    assert (found["uanet"].dsc, found["uanet"].hd95_mm) == (pytest.approx(0.4), pytest.approx(5))
    assert (found["deepmind"].dsc, found["deepmind"].hd95_mm) == (pytest.approx(0.5), pytest.approx(6))


def test_the_better_of_two_ranks_first() -> None:
    """Twelve patients, all better by both figures: one-sided p = 2^-12, twice that after Bonferroni."""
    rows = [_row("uanet", 1, f"p{n}", 0.8 + 0.001 * n, 2 + 0.01 * n) for n in range(12)]
    rows += [_row("deepmind", 1, f"p{n}", 0.7 - 0.002 * n, 3 + 0.03 * n) for n in range(12)]
    lines = [line.split() for line in ranking(rows).splitlines()]
    assert [line[:3] for line in lines[2:4]] == [["1", "uanet", "1"], ["2", "deepmind", "2"]]
    assert ranking(rows[:12]) == "No ranking: a ranking needs at least two methods."


def test_a_meter_sees_time_and_memory() -> None:
    meter = Meter(torch.device("cpu"))
    with meter.running():
        pass
    before = meter.memory_mb
    with meter.running():
        block = np.ones(100 * 2**17)  # 100 MB, touched
        assert block[-1] == 1
        del block
    assert 95 < meter.memory_mb - before < 140
    assert meter.seconds > 0
    small = Meter(torch.device("cpu"))
    with small.running():
        pass
    assert small.memory_mb < meter.memory_mb - 80  # the peak before does not count


def test_costs_survive_a_file(tmp_path: Path) -> None:
    known = Cost("cpu", 4, 12.5, 812.0, 100, 60.0, 1234)
    known.save(tmp_path / "costs" / "a.1.json")
    assert Cost.load(tmp_path / "costs" / "a.1.json") == known
    Cost("cuda", 4, 12.5, math.nan).save(tmp_path / "costs" / "b.1.json")
    assert math.isnan(Cost.load(tmp_path / "costs" / "b.1.json").memory_mb)
    Used(3.0, math.nan).save(tmp_path / "used.json")
    assert Used.load(tmp_path / "used.json").seconds == 3 and math.isnan(Used.load(tmp_path / "no").memory_mb)


def test_a_patient_is_one_value_of_a_box() -> None:
    rows = [
        _row("uanet", 1, "p1", 0.8, 2),
        _row("uanet", 2, "p1", 0.6, 4),
        _row("uanet", 1, "p2", 0, math.inf),
    ]
    assert patients(rows, ORGAN, "dsc").tolist() == pytest.approx([0.7, 0.0])
    assert patients(rows, ORGAN, "hd95_mm").tolist() == [3.0]
    assert patients(rows, "SpinalCord", "dsc").size == 0


def _case(name: str, shift: int = 0) -> CachedCase:
    mask = ((2, 3, 3 + shift), np.ones((3, 4, 4), bool))
    return CachedCase(
        name, np.zeros((8, 12, 12), np.int16), (0, 0, 0), (3, 3, 3), {ORGAN: mask}, frozenset({ORGAN})
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A comparison of two systems on three patients; what was drawn in the first two was kept."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "scores").mkdir()
    entries = []
    for n in range(3):
        write_case(tmp_path / f"p{n}.npz", _case(f"p{n}"))
        entries.append(IndexEntry(f"p{n}", str(tmp_path / f"p{n}.npz"), "test", (ORGAN,)))
    CacheIndex((3, 3, 3), "boxes", entries).save(tmp_path / "cache")
    (tmp_path / "ablation.json").write_text(
        '{"organs": ["Brainstem"], "steps": 5, "search_steps": 1, "batch": 1, "features": [4], "patch": [8, 8, 8], '
        '"test": ["p0", "p1", "p2"], "source": "boxes"}'
    )
    for setting, dsc in (("uanet", 0.8), ("deepmind", 0.6)):
        drawn = Drawn.of(entries)
        for n in range(3):
            drawn.add(_case(f"p{n}"), ORGAN, _case(f"p{n}", 1).full_mask(ORGAN))
        drawn.save(tmp_path / DRAWN / setting)
        rows = [_row(setting, 1, f"p{n}", dsc, 3) for n in range(3)]
        write_rows(rows, OrganRow, tmp_path / "scores" / f"{setting}.1.csv")
        Cost("cpu", 3, 6.0, 500.0).save(tmp_path / COSTS / f"{setting}.1.json")
    return tmp_path


def test_what_was_drawn_is_shown_on_the_same_slices(folder: Path) -> None:
    kept = sorted(path.name for path in (folder / DRAWN / "uanet").iterdir())
    assert kept == ["p0.npz", "p1.npz"]
    found = read_case(folder / DRAWN / "uanet" / "p0.npz")
    np.testing.assert_array_equal(found.full_mask(ORGAN), _case("p0", 1).full_mask(ORGAN))
    assert draw_contours(folder, ["uanet", "deepmind"], folder / "contours.png")
    assert is_own_figure(folder / "contours.png")
    assert not draw_contours(folder, ["nnunet"], folder / "none.png") and not (folder / "none.png").exists()


def test_a_setting_without_the_organ_is_shown_without_it(folder: Path) -> None:
    empty = Drawn.of(CacheIndex.load(folder / "cache").cases)
    empty.add(_case("p0"), ORGAN, np.zeros((8, 12, 12), bool))
    empty.save(folder / DRAWN / "nnunet")
    assert read_case(folder / DRAWN / "nnunet" / "p0.npz").masks == {}
    assert draw_contours(folder, ["uanet", "nnunet"], folder / "contours.png")


def test_the_page_has_cost_rank_and_the_published_rows(folder: Path) -> None:
    text = page(read_results(folder))
    assert "| `uanet` | cpu | 2.0 | 500 |" in text
    assert "| study 2022, table 3 | `uanet` | 82.7 / 8.9 / 1.6 | 69.8 / 8.8 / 1.6 |" in text
    assert "| Brainstem | anchor | 3 | 80.0 | 60.0 | 81.6 | 83.2 |" in text
    assert "on other patients" in text and "   1  uanet" in text
    assert "| `deepmind` | 3.0 | 3.0 |" in text[text.index("## HD95") :]
    draw_boxes(read_results(folder), folder / "boxes.png")
    assert is_own_figure(folder / "boxes.png")


def test_scores_of_an_earlier_version_are_read(folder: Path) -> None:
    old = folder / "scores" / "uanet.1.csv"
    lines = [line.rsplit(",", 2)[0] for line in old.read_text().splitlines()]
    old.write_text("\n".join(lines) + "\n")
    results = read_results(folder)
    assert {math.isnan(row.hd95_mm) for row in results.rows if row.setting == "uanet"} == {True}
    assert "## Ranking" in page(results)


def test_published_figures_of_systems_are_the_papers() -> None:
    assert SYSTEMS[SYSTEMS_2022]["uanet", "small_hard"] == (59.4, 4.7, 1.2)
    assert len(ORGAN_DSC_2022) == 42 and ORGAN_DSC_2022["Larynx"] == (58.6, 67.8)
    for stratum, published in {
        "anchor": (82.7, 86.9),
        "mid_level": (72.1, 74.6),
        "small_hard": (59.4, 67.2),
    }.items():
        values = [v for organ, v in ORGAN_DSC_2022.items() if CATALOGUE[organ].stratum == stratum]
        assert np.mean(values, axis=0) == pytest.approx(published, abs=0.06)  # the paper's own averages
