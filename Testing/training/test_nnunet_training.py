"""nnU-Net's own commands with our trainer: its budget, its precision on a processor, and no work for nothing."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import without_timm
from tiny_bundle import FOUND, patient
from tiny_nnunet import write_model
from torch import Tensor, nn
from without_timm import STAND_INS

from soars.bundle.store import load_bundle
from soars.cascade.preprocess import find_body
from soars.ct.images import CtScan
from soars.progress import ignore
from soars.run.segment import SegmentOptions
from soars.structures import Geometry, StructureSet
from soars.systems.nnunet.importing import ImportOptions, import_model
from soars.systems.nnunet.labels import by_name
from soars.systems.nnunet.model_folder import read_model_folder
from soars.systems.nnunet.predictor import Steps
from soars.systems.nnunet.system import NnUnetSystem, parse_settings, predict_labels
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, write_case
from soars_training.cohorts.prepare import SourceCase, preprocess
from soars_training.experiments.nnunet.baseline import Baseline, write_raw
from soars_training.experiments.nnunet.commands import RECIPES, NnUNet
from soars_training.experiments.nnunet.trainers.budget_trainer import use_bfloat16

ORGANS = ("Brainstem", "Larynx")
LAZY = """def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
"""


class TwoHeads(nn.Module):
    """A network as nnU-Net's are: features, and a convolution of one voxel for each resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv3d(1, 4, 3)
        self.heads = nn.ModuleList(nn.Conv3d(4, n, 1) for n in (3, 2))
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        found = self.features(x)
        answers = [head(found) for head in self.heads]
        self.seen += [found.dtype, *(answer.dtype for answer in answers)]
        return answers


def test_a_network_in_bfloat16_answers_in_float32_and_learns() -> None:
    """Convolutions of one voxel stay in float32, since torch's in bfloat16 can write beyond their memory."""
    torch.manual_seed(0)
    network = TwoHeads()
    x = torch.randn(1, 1, 6, 6, 6)
    exact = network(x)
    use_bfloat16(network)
    network.seen.clear()
    rough = network(x)
    assert network.seen == [torch.bfloat16, torch.float32, torch.float32]
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
    rough[1].sum().backward()
    gradient = network.features.weight.grad
    assert gradient is not None and gradient.dtype == torch.float32 and bool(gradient.any())


@pytest.mark.slow  # four of nnU-Net's commands, each some seconds of a processor to start
def test_nnunets_commands_learn_within_the_budget_and_draw_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("timm") is None:
        _stand_in_for_timm(tmp_path / "packages")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    entries = []
    for n in range(3):
        case = _case(f"p{n}", n)
        write_case(tmp_path / f"p{n}.npz", case)
        entries.append(IndexEntry(case.name, str(tmp_path / f"p{n}.npz"), "train", ORGANS))
    (tmp_path / "cache").mkdir()
    CacheIndex((3.0, 3.0, 3.0), "boxes", entries).save(tmp_path / "cache")
    tool = NnUNet(tmp_path / "nnunet", 1, "Cohort", "cpu", 0.02)
    write_raw(tool.raw, entries[:2], entries[2:], ORGANS, "boxes")
    tool.plan()
    tool.train(3, 1)
    folder = tool.model(1) / "fold_all"
    used, parameters = tool.trained(1)
    assert used.seconds > 0 and parameters > 1000
    checkpoint = torch.load(folder / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert checkpoint["trainer_name"] == "BudgetTrainer" and checkpoint["current_epoch"] == 1
    weights = checkpoint["network_weights"].values()
    assert {value.dtype for value in weights} == {torch.float32}
    # Its decoder lists the encoder's weights once more.
    assert sum({value.data_ptr(): value.numel() for value in weights}.values()) == parameters
    assert not (folder / "validation").exists()  # the cases that it learned from are not drawn again
    tool.predict(tool.raw / "imagesTs", 1)
    labels = sitk.ReadImage(str(tool.predictions(1) / "p2.nii.gz"))
    assert labels.GetSize() == (20, 18, 16) and labels.GetSpacing() == (3, 3, 3)
    laptop = replace(tool, preset="laptop")
    laptop.plan()
    laptop.train(2, 1)
    assert 0.24 < laptop.trained(1)[1] / parameters < 0.27  # half of the channels
    checkpoint = torch.load(
        laptop.model(1) / "fold_all" / "checkpoint_final.pth", map_location="cpu", weights_only=False
    )
    assert checkpoint["trainer_name"] == "LaptopTrainer"
    # Two moments a weight and, as nnU-Net's variant has it, the largest second one.
    assert set(checkpoint["optimizer_state"]["state"][0]) == {
        "step",
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
    }
    _bundles_run_where_there_is_only_nnunet(tmp_path, monkeypatch)


def _bundles_run_where_there_is_only_nnunet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our trainers are not among nnU-Net's, which its predictor asks for the network."""
    without_timm.install()
    monkeypatch.setenv("SOARS_BUNDLES", str(folder / "bundles"))
    image = sitk.ReadImage(str(folder / "nnunet/nnUNet_raw/Dataset001_Cohort/imagesTs/p2_0000.nii.gz"))
    for preset in RECIPES:
        bundle = Baseline(folder, "cpu", preset=preset).bundle(preset, 1, "none")
        assert parse_settings(bundle).spacing_mm == (3.0, 3.0, 3.0)
        labels = predict_labels(
            bundle,
            parse_settings(bundle),
            image,
            torch.device("cpu"),
            SegmentOptions(threads=1),
            Steps("nnunet", "", ignore, lambda: False),
        )
        assert labels.shape == (16, 18, 20)


@pytest.mark.parametrize("orientation", ["LPS", "PIR"])
def test_a_bundle_sees_a_ct_as_its_model_saw_the_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: str
) -> None:
    """On the cache's grid, couch and air gone; what is found there lies where it is on the CT."""
    without_timm.install()
    monkeypatch.setenv("SOARS_BUNDLES", str(tmp_path / "bundles"))
    model = read_model_folder(write_model(tmp_path / "model", dict.fromkeys(FOUND, 1) | {"SpinalCord": 2}))
    options = ImportOptions("tiny", spacing_mm=(4.0, 4.0, 4.0))
    bundle = load_bundle(str(import_model(model, by_name(model.labels), options).folder))
    scan = sitk.DICOMOrient(_with_couch(patient().image), orientation)
    body = find_body(scan)
    case = SourceCase("p", "train", scan, StructureSet(Geometry.of(scan)), frozenset())
    cached = preprocess(case, body.grid((4.0, 4.0, 4.0)), body, "p")
    seen = []

    def balls(_bundle: object, _settings: object, image: sitk.Image, *_: object) -> np.ndarray:
        seen.append(image)
        z, y, x = np.indices(image.GetSize()[::-1])
        at = np.stack((x, y, z), -1) * image.GetSpacing() + image.GetOrigin()
        inside = [np.linalg.norm(at - ball.centre_mm, axis=-1) < ball.radius_mm for ball in FOUND.values()]
        return np.select(inside, [1, 2]).astype(np.uint8)

    monkeypatch.setattr("soars.systems.nnunet.system.predict_labels", balls)
    drawn = NnUnetSystem(bundle).draw(
        CtScan(scan, Path("ct")), tuple(FOUND), SegmentOptions(device="cpu"), ignore
    )
    (image,) = seen
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), cached.ct_hu)
    assert image.GetOrigin() == pytest.approx(cached.origin_mm) and image.GetSpacing() == (4, 4, 4)
    assert cached.ct_hu.max() < 700  # the couch has 1000 HU
    hu = sitk.GetArrayFromImage(scan)
    for organ, ball in FOUND.items():
        mask, truth = drawn.structures.full(organ), np.abs(hu - ball.hu) < 100
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.85


def _with_couch(image: sitk.Image) -> sitk.Image:
    """A board of 1000 HU behind the patient, air between them, and noise, without which the scan would be one whose air
    somebody has set; a head-first CT in, the same with more rows out."""
    hu = sitk.GetArrayFromImage(image)
    rows = 30
    more = np.full((len(hu), rows, hu.shape[2]), -1000, hu.dtype)
    more[:, 24:26] = 1000
    values = np.concatenate([hu, more], axis=1)
    noise = np.random.default_rng(0).normal(0, 8, values.shape)
    whole = sitk.GetImageFromArray(np.rint(values + noise).astype(hu.dtype))
    whole.CopyInformation(sitk.ConstantPad(image, (0, 0, 0), (0, rows, 0)))
    return whole


def _case(name: str, seed: int) -> CachedCase:
    hu = np.random.default_rng(seed).integers(-50, 50, (16, 18, 20)).astype(np.int16)
    masks = {}
    for organ, start, value in (("Brainstem", (3, 3, 2), 900), ("Larynx", (8, 8, 10), 400)):
        hu[tuple(slice(s, s + 6) for s in start)] += value
        masks[organ] = (start, np.ones((6, 6, 6), bool))
    return CachedCase(name, hu, (0.0, 0.0, 0.0), (3.0, 3.0, 3.0), masks, frozenset(ORGANS))


def _stand_in_for_timm(folder: Path) -> None:
    """A package on disk, for nnU-Net's own processes; see `without_timm`."""
    packages = {name for name in STAND_INS if any(other.startswith(f"{name}.") for other in STAND_INS)}
    for name in STAND_INS:
        path = folder.joinpath(*name.split("."))
        path = path / "__init__.py" if name in packages else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LAZY)
