"""The CT and MR network: what it sees in training, and one door for it with and without an MR."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.bundle.store import load_bundle
from soars.cascade.preprocess import find_body
from soars.cli import main as soars
from soars.ct.images import CtScan
from soars.errors import BundleError
from soars.mr.images import MrScan
from soars.mr.laid import LaidMr, mr_channels
from soars.mr.registration import Registration
from soars.phantom import make_phantom
from soars.run.segment import SegmentOptions, segment
from soars.structures import Mask
from soars_training.cli import main
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, read_case, write_case
from soars_training.cohorts.layouts import case_files
from soars_training.cohorts.prepare import SourceCase, preprocess
from soars_training.systems.ct_mr.data import CtMrDataset
from soars_training.windows.augment import Augmentation

ORGANS = ("Parotid_L", "Parotid_R")


def _case(mr: bool = True, annotated: tuple[str, ...] = ORGANS) -> CachedCase:
    """A box of tissue in which a CT shows nothing and an MR two blocks."""
    shape = (32, 32, 32)
    hu = np.full(shape, -1000, np.int16)
    hu[2:30, 2:30, 2:30] = 40
    blocks = {
        organ: ((10, 10, x), np.ones((12, 12, 6), bool)) for organ, x in zip(ORGANS, (20, 6), strict=True)
    }
    values = np.zeros((2, *shape), np.float16)
    values[1, 2:30, 2:30, 2:30] = 1
    for (z, y, x), crop in blocks.values():
        values[0, z : z + 12, y : y + 12, x : x + 6] = 2
        assert crop.shape == (12, 12, 6)
    return CachedCase("a", hu, (0, 0, 0), (3, 3, 3), blocks, frozenset(annotated), mr=values if mr else None)


def _dataset(case: CachedCase, *, hidden: float = 0.0, mirror: float = 0.0) -> CtMrDataset:
    return CtMrDataset(
        [case],
        ORGANS,
        patch=(32, 32, 32),
        window_hu=(-500, 1000),
        strength=replace(Augmentation.none(), mirror=mirror),
        foreground=1.0,
        hidden=hidden,
        seed=1,
    )


def test_a_window_shows_ct_mr_and_where_the_mr_is() -> None:
    case = _case()
    sample = _dataset(case).cut(case, np.full(3, 15.5), np.random.default_rng(0))
    assert case.mr is not None
    ct, mr, seen = sample.inputs.numpy()
    np.testing.assert_allclose(ct, np.where(case.ct_hu > 0, 2 * 540 / 1500 - 1, -1), atol=1e-5)
    np.testing.assert_array_equal(seen, case.mr[1])
    block = case.full_mask("Parotid_L") | case.full_mask("Parotid_R")
    assert (
        np.ptp(mr[block]) == 0 and mr[block][0] > mr[(seen > 0) & ~block][0] + 1 and not mr[seen == 0].any()
    )
    np.testing.assert_array_equal(sample.labels, case.label_map(ORGANS))


def test_an_organ_that_was_drawn_on_some_slices_only_is_unknown() -> None:
    case = replace(_case(), annotated=frozenset({"Parotid_R"}))
    data = _dataset(case)
    assert data.drawable == ["Parotid_R"]
    sample = data.cut(case, np.full(3, 15.5), np.random.default_rng(0))
    assert sample.known.tolist() == [organ == "Parotid_R" for organ in ORGANS]
    assert not (sample.labels == 1 + ORGANS.index("Parotid_L")).any()


def test_a_hidden_mr_leaves_zeros() -> None:
    case = _case()
    rng = np.random.default_rng(0)
    assert not _dataset(case, hidden=1.0).cut(case, np.full(3, 15.5), rng).inputs[1:].any()
    shares = [bool(_dataset(case, hidden=0.25)[n].inputs[1:].any()) for n in range(60)]
    assert 0.58 < np.mean(shares) < 0.92  # 0.75; three standard deviations are 0.17
    without = _case(mr=False)
    assert not _dataset(without).cut(without, np.full(3, 15.5), rng).inputs[1:].any()


def test_a_mirrored_window_has_left_and_right_exchanged() -> None:
    case = _case(annotated=("Parotid_L",))
    sample = _dataset(case, mirror=1.0).cut(case, np.full(3, 15.5), np.random.default_rng(0))
    assert sample.known.tolist() == [False, True]
    np.testing.assert_array_equal(sample.labels == 2, case.full_mask("Parotid_L")[:, :, ::-1])


def test_a_cache_keeps_the_mr(tmp_path: Path) -> None:
    for case in (_case(), _case(mr=False)):
        write_case(tmp_path / "a.npz", case)
        kept = read_case(tmp_path / "a.npz").mr
        if case.mr is None:
            assert kept is None
        else:
            np.testing.assert_array_equal(kept, case.mr)


def test_han_segs_mr_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "case_01"
    folder.mkdir()
    for name in ("IMG_CT.nrrd", "IMG_MR_T1.nrrd", "OAR_Brainstem.seg.nrrd"):
        (folder / f"case_01_{name}").touch()
    (case,) = case_files("hanseg", tmp_path)
    assert case.mr == folder / "case_01_IMG_MR_T1.nrrd"
    (folder / "case_01_IMG_MR_T1.nrrd").unlink()
    assert case_files("hanseg", tmp_path)[0].mr is None


def test_an_mr_that_fits_nowhere_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """The case stays, without its MR."""
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (40, 40, 40)).astype(np.float32))
    noise.SetSpacing((4, 4, 4))
    phantom = make_phantom(3, spacing_mm=(6, 6, 6))
    case = SourceCase(
        "a", "train", phantom.ct, phantom.structures, frozenset(), mr=MrScan(noise, Path("noise"))
    )
    body = find_body(phantom.ct)
    assert preprocess(case, body.grid((6, 6, 6)), body, "a").mr is None
    assert "a: its MR is left out" in caplog.text


@pytest.mark.slow
def test_phantoms_are_prepared_with_their_mr(tmp_path: Path) -> None:
    """Through a real registration: the eyes, dark in the MR, are dark in the cached channel."""
    cache = tmp_path / "cache"
    prepare = ["prepare", str(cache), "--phantoms", "1", "--first-seed", "31", "--mr", "--spacing", "3"]
    assert main(prepare) == 0
    case = read_case(next(cache.glob("*.npz")))
    assert case.mr is not None
    values, seen = case.mr.astype(np.float32)
    eyes = case.full_mask("Eye_L") | case.full_mask("Eye_R")
    assert seen[eyes].mean() > 0.95 and 0.1 < seen.mean() < 0.9
    assert values[eyes].mean() < -0.5 < 0.3 < values[case.full_mask("Parotid_L") & (seen > 0)].mean()


def test_it_learns_what_only_the_mr_shows(tmp_path: Path) -> None:
    """Trained, exported and run with the MR; without it the same bundle runs, and cannot find the organs."""
    cache, mine, plain = tmp_path / "cache", tmp_path / "mine", _case()
    organs = ("Brainstem", "Larynx")
    masks = dict(zip(organs, plain.masks.values(), strict=True))
    labels = plain.label_map(ORGANS)
    values = np.array([200.0, 350.0, 50.0], np.float32)[labels]
    channels = mr_channels(values, plain.ct_hu > 0)
    case = replace(plain, masks=masks, annotated=frozenset(organs), mr=channels)
    cache.mkdir()
    write_case(cache / "a.npz", case)
    CacheIndex((3, 3, 3), "boxes", [IndexEntry("a", "a.npz", "train", organs)]).save(cache)
    still = json.dumps({f.name: 0.0 for f in fields(Augmentation)})
    sizes = ("features=[8,16,16]", "patch=[32,32,32]")
    settings = (*sizes, "ema=0.9", "foreground=1", "hidden=0.25", f"strength={still}")
    command = ["fit-system", "ct_mr", str(cache), str(tmp_path / "run")]
    schedule = ["--steps", "70", "--learning-rate", "0.01", "--device", "cpu", "--threads", "1"]
    assert main([*command, *schedule, *(f"--set={setting}" for setting in settings)]) == 0
    assert (
        main(["export", str(mine), str(tmp_path / "run"), "--description", "x", "--licence", "CC0-1.0"]) == 0
    )

    ct, image = _image(case.ct_hu), _image(values)
    laid = LaidMr(MrScan(image, Path("mr")), Registration(sitk.Euler3DTransform(), 0, 0, 1, 1000))
    bundle, scan = load_bundle(mine), CtScan(ct, Path("ct"))
    options = SegmentOptions(device="cpu", threads=1, mr=laid)
    found = segment(scan, bundle, options)
    assert {s.system for s in found.sources.values()} == {"ct_mr"}
    for organ in organs:
        start, crop = case.masks[organ]
        assert _dice(found.structures.crop(organ), Mask(start, crop)) > 0.7
    alone = segment(scan, bundle, replace(options, mr=None))
    assert alone.engine.engine == "torch"
    for organ in set(organs) & set(alone.structures.names):
        start, crop = case.masks[organ]
        assert _dice(alone.structures.crop(organ), Mask(start, crop)) < 0.5

    manifest = json.loads((mine / "manifest.json").read_text())
    manifest["settings"]["patch"] = [30, 32, 32]
    (mine / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"patch: \[30, 32, 32\] is not a multiple"):
        segment(scan, load_bundle(mine), options)


def test_without_an_mr_nothing_is_learned_of_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that has never seen an MR is no network of CT and MR."""
    cache, run, mine = (tmp_path / name for name in ("cache", "run", "mine"))
    cache.mkdir()
    case = replace(_case(mr=False), annotated=frozenset(ORGANS))
    write_case(cache / "a.npz", case)
    CacheIndex((3, 3, 3), "boxes", [IndexEntry("a", "a.npz", "train", ORGANS)]).save(cache)
    command = [
        "fit-system",
        "ct_mr",
        str(cache),
        str(run),
        "--steps",
        "1",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    command += ["--set=features=[4,4]", "--set=patch=[32,32,32]"]
    assert main(command) == 2
    assert "none of 1 cases has an MR to learn from" in capsys.readouterr().err
    assert main([*command, "--set=hidden=1"]) == 0
    assert main(["export", str(mine), str(run), "--description", "x", "--licence", "CC0-1.0"]) == 2
    assert "has learned from CTs alone, but a bundle of ct_mr takes an MR" in capsys.readouterr().err
    assert not mine.exists()


def _image(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((3, 3, 3))
    return image


def test_a_bundle_without_mr_refuses_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phantom = make_phantom(3, spacing_mm=(6, 6, 6))
    sitk.WriteImage(phantom.ct, str(tmp_path / "ct.nrrd"))
    command = ["segment", str(tmp_path / "ct.nrrd"), "--mr", str(tmp_path / "ct.nrrd"), "--bundle", "phantom"]
    assert soars([*command, "--output", str(tmp_path / "out")]) == 2
    assert "the model bundle phantom does not use an MR" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _dice(a: Mask, b: Mask) -> float:
    low = np.minimum(a.start, b.start)
    shape = np.maximum(a.stop, b.stop) - low
    one, two = (m.box(low.tolist(), shape.tolist()) for m in (a, b))
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))
