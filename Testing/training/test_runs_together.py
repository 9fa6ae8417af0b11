"""Runs that build on others: cross-validations, guides, starts from finished runs, and bundles."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from two_boxes import ORGANS, TASK, two_boxes_options, write_two_boxes

import soars_training.fitting.fit
import soars_training.release.guide
from soars.errors import InputError
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex
from soars_training.experiments.crossval import crossval, guided_by, pooled_table
from soars_training.experiments.runs import fitted
from soars_training.fitting.fit import fit
from soars_training.fitting.options import LAST, FittedRun
from soars_training.fitting.validate import CaseScore
from soars_training.release.card import card_of
from soars_training.release.export import BundleFacts, export_bundle
from soars_training.release.guide import write_guides
from soars_training.windows.task import BranchTask


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_boxes(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from first to last step without a break."""
    output = tmp_path_factory.mktemp("whole")
    fit(cache, output, two_boxes_options())
    return output


def test_every_patient_is_held_out_once_and_an_interrupted_fold_goes_on(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "crossval", str(cache), str(tmp_path), "--branch", "anchor", "--organs", ",".join(ORGANS), "--folds", "3",
        "--features", "4,8", "--patch", "8,8,8", "--steps", "10", "--device", "cpu", "--windows=-500:1000",
    ]  # fmt: skip
    assert main(argv) == 0
    rows = list(csv.DictReader((tmp_path / "crossval.csv").open()))
    assert len(rows) == 12 and {row["case"] for row in rows} == {f"c{n}" for n in range(6)}
    held = [set(FittedRun.load(tmp_path / f"fold_{k}").held_out) for k in (1, 2, 3)]
    assert all(len(part) == 2 for part in held) and len(set.union(*held)) == 6
    table = capsys.readouterr().out
    mean = np.mean([float(r["dsc"]) for r in rows if r["organ"] == "Brainstem"])
    assert f"| Brainstem | 6 | {mean:.3f} |" in table
    # The last fold was killed before its end: what is there goes on, the finished folds stay as they are.
    (tmp_path / "fold_3" / "run.json").unlink()
    before = (tmp_path / "fold_1" / LAST).stat().st_mtime_ns
    assert main(argv) == 0
    assert (tmp_path / "fold_1" / LAST).stat().st_mtime_ns == before
    assert list(csv.DictReader((tmp_path / "crossval.csv").open())) == rows


def test_a_patient_of_two_scans_counts_once_in_the_pooled_table() -> None:
    pooled = [(1, CaseScore(case, "Brainstem", dsc)) for case, dsc in (("a", 0.4), ("b", 0.8), ("c", 0.9))]
    assert "| Brainstem | 2 | 0.750 | 0.212 | 0.600 |" in pooled_table(pooled, {"a": "p", "b": "p"})
    assert "| Brainstem | 3 | 0.700 | 0.265 | 0.400 |" in pooled_table(pooled)


def test_finished_folds_of_other_settings_are_not_taken_for_these(cache: Path, tmp_path: Path) -> None:
    crossval(cache, tmp_path, two_boxes_options(steps=4), 2)
    with pytest.raises(InputError, match=r"fold_1: was trained with other settings \(steps\)"):
        crossval(cache, tmp_path, two_boxes_options(steps=5), 2)
    with pytest.raises(InputError, match=r"other settings \(fold\)"):
        crossval(cache, tmp_path, two_boxes_options(steps=4), 3)
    # Of another cohort: the first fold's patients are dealt otherwise when there is one less.
    smaller = tmp_path / "smaller"
    shutil.copytree(cache, smaller)
    index = CacheIndex.load(smaller)
    replace(index, cases=index.cases[:-1]).save(smaller)
    with pytest.raises(InputError, match="held out other patients"):
        crossval(smaller, tmp_path, two_boxes_options(steps=4), 2)


def test_a_fold_is_guided_by_anchors_that_have_not_seen_its_patients(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anchor = replace(two_boxes_options(steps=2), task=replace(TASK, classes=("Brainstem",)))
    mid = replace(anchor, task=BranchTask("mid_level", ("SpinalCord",), ("ct",)))
    crossval(cache, tmp_path / "anchor", anchor, 2)
    mid = guided_by(mid, tmp_path / "anchor")
    crossval(cache, tmp_path / "mid_level", mid, 2, tmp_path / "anchor")
    for k in (1, 2):
        run, held = (FittedRun.load(tmp_path / b / f"fold_{k}") for b in ("mid_level", "anchor"))
        assert (run.inputs, run.anchors) == (("ct", "anchor"), ("Brainstem",))
        said = json.loads((tmp_path / "mid_level" / f"guide_{k}" / "guide.json").read_text())
        assert set(said["held_out"]) == set(run.held_out) == set(held.held_out)
    with pytest.raises(InputError, match="held out other patients"):
        crossval(cache, tmp_path / "three", mid, 3, tmp_path / "anchor")
    argv = ["crossval", str(cache), str(tmp_path / "mid_level"), "--branch", "mid_level", "--guide"]
    assert main([*argv, str(tmp_path / "mid_level" / "guide_1")]) == 2
    assert "may have been learned from the patients that a fold holds out" in capsys.readouterr().err


def test_guides_are_written_all_or_none(
    cache: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "guide"
    write_guides(cache, whole, folder, "cpu")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"guide.json", *(f"c{n}.guide.npz" for n in range(6))}
    real, calls = soars_training.release.guide.read_case, iter(range(6))

    def interrupted(path: Path) -> CachedCase:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(soars_training.release.guide, "read_case", interrupted)
    fit(cache, tmp_path / "other", two_boxes_options(steps=2, held_out=1))
    with pytest.raises(KeyboardInterrupt):
        write_guides(cache, tmp_path / "other", folder, "cpu")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_says_when_its_anchors_know_the_patients_held_out(
    cache: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_guides(cache, whole, tmp_path / "guide", "cpu")
    task = BranchTask("mid_level", ORGANS, ("ct", "anchor"), ORGANS)
    for held_out, expected in (
        (2, 0),
        (3, 1),
    ):  # the anchor run held out two; of three others some are new to it
        caplog.clear()
        options = replace(two_boxes_options(steps=2, held_out=held_out), task=task)
        run = fit(cache, tmp_path / str(held_out), options, tmp_path / "guide")
        known = set(run.held_out) - set(FittedRun.load(whole).held_out)
        assert bool(known) == bool(expected)
        assert (f"have learned from {len(known)} of the 3 patients held out here" in caplog.text) == bool(
            known
        )


def test_a_run_says_when_those_it_starts_from_know_the_patients_held_out(
    cache: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those from which it started at one remove. Patients of another cohort are new to it."""
    held = set(FittedRun.load(whole).held_out)
    assert FittedRun.load(whole).learned == tuple(sorted({f"c{n}" for n in range(6)} - held))
    again = fit(cache, tmp_path / "again", two_boxes_options(steps=2, init=whole))
    assert set(again.held_out) == held and "learned from" not in caplog.text
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(cache, elsewhere)
    index = CacheIndex.load(elsewhere)
    strangers = [replace(entry, patient=f"stranger {entry.name}") for entry in index.cases]
    replace(index, cases=strangers).save(elsewhere)
    new = fit(elsewhere, tmp_path / "new", two_boxes_options(steps=2, init=whole))
    assert "learned from" not in caplog.text
    assert (
        set(new.learned or ())
        == {e.patient for e in strangers} - {*new.held_out} | {f"c{n}" for n in range(6)} - held
    )
    last = fit(cache, tmp_path / "last", two_boxes_options(steps=2, held_out=3, init=tmp_path / "new"))
    known = set(last.held_out) - held
    assert known and f"new: the run has learned from {len(known)} of the 3 patients held out" in caplog.text
    caplog.clear()
    facts = BundleFacts("b", "1", "d", "CC0-1.0", card_of("b", "d", "CC0-1.0", [last]))
    mid = replace(
        last, branch="mid_level", classes=("Larynx", "Parotid_L"), held_out=(), learned=tuple(sorted(known))
    )
    shutil.copytree(tmp_path / "last", tmp_path / "mid")
    mid.save(tmp_path / "mid")
    export_bundle([tmp_path / "last", tmp_path / "mid"], tmp_path / "bundle", facts)
    assert (
        f"last: held out {', '.join(sorted(known))}, from whom the mid_level run has learned" in caplog.text
    )


def test_a_cache_prepared_again_with_other_voxels_is_not_taken_for_the_old_one(
    cache: Path, whole: Path, tmp_path: Path
) -> None:
    """By its name and its cases it is the same; a network that met both would not know how large a patient is."""
    finer, run = tmp_path / "cache", tmp_path / "run"
    shutil.copytree(cache, finer)
    replace(CacheIndex.load(cache), spacing_mm=(2.0, 2.0, 3.0)).save(finer)
    run.mkdir()
    shutil.copy(whole / LAST, run / LAST)
    with pytest.raises(
        InputError, match="started on a cache with voxels of 3 x 3 x 3 mm, not of 2 x 2 x 3 mm"
    ):
        fit(finer, run, two_boxes_options(), resume=True)
    with pytest.raises(InputError, match="the anchor run learned from voxels of 3 x 3 x 3 mm"):
        write_guides(finer, whole, tmp_path / "guide", "cpu")
    with pytest.raises(InputError, match="has voxels of 2 x 2 x 3 mm"):
        fitted(finer, whole, two_boxes_options())


def test_a_cross_validation_runs_in_one_process(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="a cross-validation runs in one process"):
        crossval(cache, tmp_path, two_boxes_options(), 2)


def test_a_bundle_that_draws_otherwise_than_its_network_is_not_made(whole: Path, tmp_path: Path) -> None:
    """An instance norm undoes any factor of the convolution before it, but half precision ends at 65504."""
    facts = BundleFacts("b", "1", "d", "CC0-1.0", card_of("b", "d", "CC0-1.0", [FittedRun.load(whole)]))
    shutil.copytree(whole, tmp_path / "run")
    checkpoint = torch.load(tmp_path / "run" / LAST, weights_only=True)
    for factor, good in ((10.0, True), (1e6, False)):
        weights = dict(checkpoint["averaged"])
        name = next(n for n, w in weights.items() if n.startswith("network.") and w.ndim == 5)
        weights[name] = weights[name] * factor
        torch.save(checkpoint | {"averaged": weights}, tmp_path / "run" / LAST)
        if good:
            assert export_bundle([tmp_path / "run"], tmp_path / "good", facts).organs == ORGANS
            continue
        with pytest.raises(InputError, match="branch anchor cannot be exported: .*beyond half precision"):
            export_bundle([tmp_path / "run"], tmp_path / "bad", facts)
        assert not (tmp_path / "bad").exists()


def test_a_branch_is_exported_with_the_anchors_that_guided_it(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever their run lies by then. Of one that was guided by an earlier version's guide nothing is known."""
    anchor = replace(two_boxes_options(steps=2, held_out=0), task=replace(TASK, classes=("Brainstem",)))
    fit(cache, tmp_path / "mine", anchor)
    shutil.copytree(tmp_path / "mine", tmp_path / "other")
    checkpoint = torch.load(tmp_path / "mine" / LAST, weights_only=True)
    weights = {name: 1.01 * weight for name, weight in checkpoint["averaged"].items()}
    torch.save(checkpoint | {"averaged": weights}, tmp_path / "other" / LAST)
    write_guides(cache, tmp_path / "mine", tmp_path / "guide", "cpu")
    task = BranchTask("mid_level", ("SpinalCord",), ("ct", "anchor"), ("Brainstem",))
    fit(cache, tmp_path / "mid", replace(anchor, task=task), tmp_path / "guide")
    (tmp_path / "mine").rename(tmp_path / "moved")
    card = card_of("b", "d", "CC0-1.0", [FittedRun.load(tmp_path / name) for name in ("other", "mid")])
    facts = BundleFacts("b", "1", "d", "CC0-1.0", card)
    caplog.clear()
    told = "mid: was guided by another network than that of "
    for n, (name, warned) in enumerate((("moved", False), ("other", True))):
        export_bundle([tmp_path / name, tmp_path / "mid"], tmp_path / str(n), facts)
        assert (told in caplog.text) == warned
    caplog.clear()
    run = FittedRun.load(tmp_path / "mid")
    assert len(run.guided_by or "") == 64
    written = json.loads((tmp_path / "mid" / "run.json").read_text())
    del written["guided_by"]
    (tmp_path / "mid" / "run.json").write_text(json.dumps(written))
    export_bundle([tmp_path / "other", tmp_path / "mid"], tmp_path / "2", facts)
    assert told not in caplog.text
    replace(run, anchors=("SpinalCord",)).save(tmp_path / "mid")
    with pytest.raises(InputError, match="mid: was guided by SpinalCord, but .*moved draws Brainstem"):
        export_bundle([tmp_path / "moved", tmp_path / "mid"], tmp_path / "3", facts)
    assert not (tmp_path / "3").exists()


def test_more_folds_than_patients_are_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fold 1 of 7: there are 6 patients"):
        crossval(cache, tmp_path, two_boxes_options(), 7)
