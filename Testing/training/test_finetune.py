"""All branches trained as one: where the small organs' volume is cut, and whose loss reaches whose weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from soars.bundle.store import load_bundle
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.fitting.finetune import _like
from soars_training.fitting.models import BranchModel, EndToEnd
from soars_training.fitting.options import LAST, FitOptions, FittedRun
from soars_training.windows.augment import Augmentation, Window, random_window
from soars_training.windows.dataset import WindowDataset
from soars_training.windows.staged import FineVolumes, StagedWindows, VoiPlace
from soars_training.windows.task import Batch, BranchTask

SMALL = ("Glnd_Lacrimal_L", "Glnd_Lacrimal_R")
WHOLE_MM, FINE_MM = (4.0, 4.0, 4.0), (2.0, 2.0, 2.0)
VOI_MM = (16.0, 16.0, 16.0)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients with an anchor, a mid-level organ and a lacrimal gland a side, a cube of 8 mm whose HU says which
    it is; of both glands the volumes of interest at 2 mm, with a margin of 16 mm."""
    root = tmp_path_factory.mktemp("caches")
    (root / "whole").mkdir()
    (root / "vois").mkdir()
    entries, fine = [], []
    for n in range(4):
        rng = np.random.default_rng(n)
        hu = rng.normal(0, 5, (32, 32, 32))
        organs = {"Brainstem": 300, "Larynx": 500}
        masks = {}
        for k, (organ, value) in enumerate(organs.items()):
            start = (4 + 12 * k, 20, 12)
            hu[tuple(slice(s, s + 6) for s in start)] = value
            masks[organ] = (start, np.ones((6, 6, 6), bool))
        for organ, x, value in ((SMALL[0], 22, 800), (SMALL[1], 8, 650)):
            start = (14 + n % 2, 8 + n, x)
            hu[tuple(slice(s, s + 2) for s in start)] = value
            masks[organ] = (start, np.ones((2, 2, 2), bool))
        every = frozenset(masks)
        write_case(
            root / "whole" / f"p{n}.npz",
            CachedCase(f"p{n}", hu.astype(np.int16), (0, 0, 0), WHOLE_MM, masks, every),
        )
        entries.append(IndexEntry(f"p{n}", f"p{n}.npz", "train", tuple(sorted(every))))
        for organ, value in zip(SMALL, (800, 650), strict=True):
            voi = rng.normal(0, 5, (24, 24, 24))
            voi[10:14, 10:14, 10:14] = value
            name = f"p{n}.{organ}"
            crop = {organ: ((10, 10, 10), np.ones((4, 4, 4), bool))}
            write_case(
                root / "vois" / f"{name}.npz",
                CachedCase(name, voi.astype(np.int16), (0, 0, 0), FINE_MM, crop, frozenset({organ})),
            )
            fine.append(IndexEntry(name, f"{name}.npz", "train", (organ,), organ))
    CacheIndex(WHOLE_MM, "cubes", entries).save(root / "whole")
    CacheIndex(FINE_MM, "cubes", fine).save(root / "vois")
    # One file may serve runs of several organs.
    (root / "voi.json").write_text(json.dumps({organ: list(VOI_MM) for organ in (*SMALL, "Pituitary")}))
    return root


def _windows(root: Path, strength: Augmentation, seed: int = 0) -> StagedWindows:
    task = BranchTask("anchor", ("Brainstem", "Larynx"), ("ct",), joined=1)
    small = BranchTask("small_hard", SMALL, ("ct",))
    entries = CacheIndex.load(root / "vois").cases
    fine = FineVolumes(root / "vois", entries, small, dict.fromkeys(SMALL, (8, 8, 8)))
    return StagedWindows(
        root / "whole",
        task,
        (24, 24, 24),
        CacheIndex.load(root / "whole").cases,
        seed=seed,
        strength=strength,
        foreground=0.5,
        groups=SMALL,
        fine=fine,
    )


def test_a_point_of_the_case_is_found_in_a_turned_and_mirrored_window() -> None:
    rng = np.random.default_rng(0)
    strength = replace(Augmentation(), mirror=1.0)
    window = random_window(rng, (8, 10, 12), np.array([20.0, 30.0, 40.0]), strength, (3.0, 2.0, 1.0))
    index = window.voxels()
    point = np.array([float(axis[1, 7, 3]) for axis in index])
    np.testing.assert_allclose(window.place(point), (1, 7, 3), atol=1e-4)
    plain = Window((5, 5, 5), np.array([10.0, 10.0, 10.0]), np.eye(3), False)
    np.testing.assert_allclose(plain.place(np.array([10.0, 11.0, 8.0])), (2, 3, 0))


def test_the_volume_is_cut_where_the_heat_map_peaks(caches: Path) -> None:
    """Turned, scaled and mirrored as the window is: about the ideal map's peak the gland lies in the middle, and a map
    that peaks two of the window's voxels lower moves it up by as many millimetres."""
    turned = Augmentation(
        **(vars(Augmentation.none()) | {"rotation_degrees": 10.0, "scale": 0.1, "mirror": 0.5})
    )
    data = _windows(caches, turned)
    mirrored = []
    for n in range(40):
        batch = data.collate([data[n]])
        maps, voi, masks, known, row = batch[4], *batch[6:]
        if not voi.numel():
            assert float(row[0, 0]) == -1
            continue
        place = VoiPlace.unpacked(row[0])
        assert known[0].tolist() == [k == place.channel for k in range(2)]
        ideal = maps[0, place.channel]
        for shift in (0, 2):
            start = place.start(ideal.roll(shift, 0))
            box = (..., *(slice(s, s + 8) for s in start))
            where = torch.nonzero(masks[0, place.channel][box]).float()
            middle = where.mean(0) - 3.5
            expected = torch.tensor([-shift * 2.0, 0.0, 0.0])
            # One voxel of the window is two of the volume; each rounds to its own.
            assert (middle - expected).abs().max() < 1.8, (n, shift, middle)
            gland = voi[0, 0][box][masks[0, place.channel][box]]
            assert gland.min() > 0.0  # half of it at least; around it is water, -0.33
            lies = place.map_in(ideal, start, (8, 8, 8))
            assert float(lies.max()) > 0.9 or shift
        is_left = float(gland.max()) > 0.63  # between 650 and 800 HU
        mirrored.append(is_left != (place.channel == 0))
    assert mirrored.count(True) > 5 and mirrored.count(False) > 5


def test_a_detector_that_is_far_off_moves_the_volume_as_far_as_it_is_cut() -> None:
    place = VoiPlace(0, torch.tensor([4.0, 4.0, 4.0]), torch.full((3,), 0.5), torch.full((3,), 6.0))
    heat_map = torch.zeros(9, 9, 9)
    heat_map[8, 4, 3] = 1
    assert place.start(heat_map) == [12, 6, 4]
    assert VoiPlace.unpacked(place.packed()).start(heat_map) == [12, 6, 4]


def _models(heatmap: bool) -> EndToEnd:
    options = FitOptions(BranchTask("anchor", ("Brainstem",), ("ct",)), features=(4, 8), supervised=1)
    anchors = ("Brainstem",)
    tasks = [
        BranchTask("anchor", anchors, ("ct",)),
        BranchTask("mid_level", ("Larynx",), ("ct", "anchor"), anchors),
        BranchTask("detection", SMALL, ("ct", "anchor"), anchors),
        BranchTask("small_hard", SMALL, ("ct", "heatmap") if heatmap else ("ct",)),
    ]
    return EndToEnd(*(BranchModel(options, task) for task in tasks))


@pytest.mark.parametrize("heatmap", [False, True])
def test_the_small_organs_loss_reaches_the_anchors_through_the_heat_map_alone(
    caches: Path, heatmap: bool
) -> None:
    torch.manual_seed(0)
    model = _models(heatmap)
    data = _windows(caches, Augmentation.none())
    batch: Batch = next(b for n in range(20) if (b := data.collate([data[n]]))[6].numel())
    whole = model.loss(batch, 0.0)
    without = model.loss((*batch[:6], batch[6][:, :, :0], *batch[7:]), 0.0)
    (whole - without).backward()  # what the small organs' loss adds
    reached = {
        name: sum(float(p.grad.abs().sum()) for p in branch.parameters() if p.grad is not None) > 1e-6
        for name, branch in model.named_children()
    }
    assert reached == {"anchor": heatmap, "mid_level": False, "detection": heatmap, "small_hard": True}


def test_an_organ_under_one_of_the_other_branch_is_no_hole(tmp_path: Path) -> None:
    """An oral cavity over a mandible: each branch learns its own organ whole, with its own number, mirrored too."""
    organs = ("Eye_L", "Eye_R", "Cavity_Oral")
    start, block = (4, 4, 4), np.ones((8, 8, 8), bool)
    masks = {organ: (start, block) for organ in organs}
    case = CachedCase("a", np.zeros((16, 16, 16), np.int16), (0, 0, 0), WHOLE_MM, masks, frozenset(organs))
    write_case(tmp_path / "a.npz", case)
    entries = [IndexEntry("a", "a.npz", "train", organs)]
    CacheIndex(WHOLE_MM, "blocks", entries).save(tmp_path)
    task = BranchTask("anchor", organs, ("ct",), joined=2)
    for mirror, other in ((0.0, 2), (1.0, 1)):
        strength = replace(Augmentation.none(), mirror=mirror)
        data = WindowDataset(tmp_path, task, (16, 16, 16), entries, seed=0, strength=strength, foreground=0.0)
        anchors, mid = data[0].target
        # Of the two eyes in one place the later has the label, the left one in a mirror image.
        assert sorted(np.unique(anchors)) == [0, other] and sorted(np.unique(mid)) == [0, 3]
        assert torch.equal(anchors > 0, mid > 0) and int((mid > 0).sum()) > 0


def test_batch_statistics_stay_those_of_the_branches() -> None:
    task = BranchTask("anchor", ("Brainstem",), ("ct",))
    options = FitOptions(task, features=(4, 8), supervised=1, order="norm-act-conv")
    mid = BranchTask("mid_level", ("Larynx",), ("ct", "anchor"), ("Brainstem",))
    model = EndToEnd(BranchModel(options, task), BranchModel(options, mid)).train()
    before = {name: value.clone() for name, value in model.named_buffers() if value.is_floating_point()}
    assert before
    known, possible = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, 8, 8, 8, dtype=torch.bool)
    labels = torch.zeros(1, 2, 8, 8, 8, dtype=torch.uint8)
    model.loss((torch.randn(1, 1, 8, 8, 8), labels, known, possible), 0.0).backward()
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers() if name in before)
    assert all(weight.grad is not None for weight in model.anchor.network.parameters())


def test_the_loss_is_that_of_the_runs(runs: dict[str, Path]) -> None:
    """A run by the papers' loss is tuned by the papers' loss, and gets no heads that nobody trained."""
    run = FittedRun.load(runs["anchor"])
    paper = replace(run, options={**run.options, "supervised": 1, "dice_only": True})
    ready = FitOptions(run.task())
    assert (_like(ready, paper, run.task()).supervised, _like(ready, paper, run.task()).dice_only) == (
        1,
        True,
    )
    assert (_like(ready, run, run.task()).supervised, ready.supervised) == (run.options["supervised"], 3)


@pytest.fixture(scope="module")
def runs(caches: Path) -> dict[str, Path]:
    """A run of each branch, of twelve steps; each has its own kernels, as a search would choose them."""
    every = "anchor mid_level detection small_hard".split()
    found = {name: caches / name for name in every}
    small, vois = ",".join(SMALL), caches / "vois"
    guide = ["--guide", str(caches / "guide")]
    more = {
        "anchor": ["--organs", "Brainstem", "--blocks", "3d_k3,2d_k3,3d_k3"],
        "mid_level": ["--organs", "Larynx", "--blocks", "2d_k3,3d_k3,2d_k3", *guide],
        "detection": ["--organs", small, *guide],
        "small_hard": ["--organs", small, "--voi", str(caches / "voi.json")],
    }
    common = "--features 4,8 --patch 16,16,16 --steps 12 --device cpu --windows=-500:1000".split()
    for name, run in found.items():
        cache = vois if name == "small_hard" else caches / "whole"
        assert main(["fit", str(cache), str(run), "--branch", name, *more[name], *common]) == 0
        if name == "anchor":
            assert main(["guide", str(cache), str(run), str(caches / "guide"), "--device", "cpu"]) == 0
    return found


def _tune(caches: Path, runs: dict[str, Path], output: Path) -> list[str]:
    """The command for all four branches."""
    argv = ["finetune", str(caches / "whole"), str(runs["anchor"]), str(runs["mid_level"]), str(output)]
    argv += ["--detection", str(runs["detection"]), "--small-hard", str(runs["small_hard"])]
    return [*argv, "--vois", str(caches / "vois"), "--steps", "12", "--device", "cpu"]


def test_volumes_of_interest_are_those_that_the_cache_was_prepared_with(
    caches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beyond what was cached there is only air, which inference never shows."""

    def refused(why: str, cache: str, branch: str, voi_mm: dict[str, tuple[float, float, float]]) -> None:
        (tmp_path / "voi.json").write_text(json.dumps(voi_mm))
        small = "--features 4,8 --patch 16,16,16 --steps 1 --device cpu --organs".split() + [",".join(SMALL)]
        voi = ["--voi", str(tmp_path / "voi.json")] if voi_mm else []
        assert (
            main(["fit", str(caches / cache), str(tmp_path / "run"), "--branch", branch, *small, *voi]) == 2
        )
        assert why in capsys.readouterr().err and not (tmp_path / "run").exists()

    x, y, z = VOI_MM
    refused("are smaller than --voi says", "vois", "small_hard", dict.fromkeys(SMALL, (x, y, z + 4)))
    refused(f"holds volumes of {SMALL[1]}, and --voi has no extent", "vois", "small_hard", {SMALL[0]: VOI_MM})
    refused("this cache holds whole scans", "whole", "small_hard", dict.fromkeys(SMALL, VOI_MM))
    refused("detection learns from whole scans", "vois", "detection", {})


@pytest.mark.slow  # five runs, each with its process for windows and its picture
def test_four_branches_are_tuned_together_and_exported(
    caches: Path, runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main([*_tune(caches, runs, tmp_path / "tuned"), "--held-out", "1"]) == 0
    assert "anchor: the run has learned from 1 of the 1 patients held out here" in caplog.text
    sides = torch.load(tmp_path / "tuned" / LAST, weights_only=True)["sides"]
    scans = {entry.name for entry in CacheIndex.load(caches / "whole").cases}
    assert len(sides["held_out"]) == 1 and {*sides["learned"]} == scans - {*sides["held_out"]}
    for name, folder in runs.items():
        tuned = tmp_path / "tuned" / name
        old, new = FittedRun.load(folder), FittedRun.load(tuned)
        assert (new.branch, new.architecture, new.spacing_mm) == (name, old.architecture, old.spacing_mm)
        assert (new.classes, new.inputs, new.voi_mm) == (old.classes, old.inputs, old.voi_mm)
        assert sorted(new.voi_mm) == (sorted(SMALL) if name == "small_hard" else [])
        mine, theirs = old.network(folder).state_dict(), new.network(tuned).state_dict()
        assert any(not torch.equal(mine[key], theirs[key]) for key in mine)
    out = [str(tmp_path / "tuned" / name) for name in runs]
    assert main(["export", str(tmp_path / "b"), *out, "--description", "x", "--licence", "CC0-1.0"]) == 0
    assert load_bundle(tmp_path / "b").organs == ("Brainstem", "Larynx", *SMALL)
    # As they were trained one after another, and at last the tuned mid-level branch with the anchors before tuning.
    for n, mid in enumerate((runs["mid_level"], tmp_path / "tuned" / "mid_level")):
        assert "was guided by another network" not in caplog.text
        argv = ["export", str(tmp_path / f"p{n}"), str(runs["anchor"]), str(mid)]
        assert main([*argv, "--description", "x", "--licence", "CC0-1.0"]) == 0
    assert "mid_level: was guided by another network" in caplog.text


@pytest.mark.slow  # as above
def test_runs_that_do_not_fit_together_are_refused(
    caches: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = _tune(caches, runs, tmp_path / "out")

    def refused(why: str, **changes: object) -> None:
        """The detection run as another one."""
        path = tmp_path / "detection" / "run.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(json.loads((runs["detection"] / "run.json").read_text()) | changes))
        assert main([str(path.parent) if word == str(runs["detection"]) else word for word in argv]) == 2
        assert why in capsys.readouterr().err and not (tmp_path / "out").exists()

    refused("the detection run differs in patch or CT windows", patch=[24, 24, 24])
    refused("a run of the detection branch is needed, and this one is of anchor", branch="anchor")
    refused("the detection run was guided by other anchors", anchors=["SpinalCord"])
    refused("has no heat map of Glnd_Lacrimal_R", classes=[SMALL[0]])
    refused("the detection run learned from voxels of 3 x 3 x 3 mm", spacing_mm=[3, 3, 3])
    assert main([word for word in argv if word not in ("--vois", str(caches / "vois"))]) == 2
    assert "--small-hard needs --vois" in capsys.readouterr().err
