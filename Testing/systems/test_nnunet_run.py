"""An nnU-Net bundle gives what nnU-Net's own command gives, and can be watched and stopped."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tiny_nnunet import write_model

from soars.bundle.manifest import Bundle
from soars.ct.images import CtScan, read_ct
from soars.errors import BundleError, CancelledError, EngineError
from soars.progress import Progress, ignore
from soars.run.segment import SegmentOptions, segment
from soars.systems.nnunet.importing import ImportOptions, import_model
from soars.systems.nnunet.labels import by_name
from soars.systems.nnunet.model_folder import read_model_folder
from soars.systems.nnunet.predictor import Steps
from soars.systems.nnunet.system import NnUnetSystem, parse_settings, predict_labels

CPU = torch.device("cpu")
QUIET = Steps("nnunet", "", ignore, lambda: False)


@pytest.fixture
def bundle(model: Path) -> Bundle:
    folder = read_model_folder(model)
    return import_model(folder, by_name(folder.labels), ImportOptions("tiny"))


@pytest.fixture
def ct(ct_image: sitk.Image, tmp_path: Path) -> CtScan:
    sitk.WriteImage(ct_image, str(tmp_path / "ct.nii.gz"))
    return read_ct(tmp_path / "ct.nii.gz")


@pytest.mark.slow
def test_the_label_map_is_that_of_nnunets_own_command(
    model: Path, bundle: Bundle, ct_image: sitk.Image, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    sitk.WriteImage(ct_image, str(tmp_path / "in" / "case_0000.nii.gz"))
    program = "from nnunetv2.inference import predict_from_raw_data as p; p.predict_entry_point_modelfolder()"
    command = [sys.executable, "-c", program]
    command += ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m", str(model), "-f", "0", "1"]
    command += ["-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz")))
    ours = predict_labels(bundle, parse_settings(bundle), ct_image, CPU, SegmentOptions(threads=1), QUIET)
    assert len(np.unique(theirs)) > 2  # there is something to compare
    assert np.array_equal(ours, theirs)


def test_orientation_of_the_file_does_not_matter(bundle: Bundle, ct_image: sitk.Image) -> None:
    options = SegmentOptions(fast=True, threads=1)
    straight = predict_labels(bundle, parse_settings(bundle), ct_image, CPU, options, QUIET)
    turned = sitk.DICOMOrient(ct_image, "SRA")
    labels = sitk.GetImageFromArray(
        predict_labels(bundle, parse_settings(bundle), turned, CPU, options, QUIET)
    )
    labels.CopyInformation(turned)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.DICOMOrient(labels, "LPS")), straight)


def test_models_read_by_nibabel_see_the_scan_as_they_were_trained(
    ct_image: sitk.Image, tmp_path: Path
) -> None:
    # Such a model expects x and y the other way round; so it gives on a CT what its twin gives on the mirrored one.
    bundles = []
    for reader in ("NibabelIOWithReorient", "SimpleITKIO"):
        home = write_model(tmp_path / reader, {"Brainstem": 1}, reader=reader)
        folder = read_model_folder(home)
        bundles.append(import_model(folder, by_name(folder.labels), ImportOptions(f"tiny-{reader}")))
    flipped = sitk.GetImageFromArray(sitk.GetArrayFromImage(ct_image)[:, ::-1, ::-1])
    flipped.SetSpacing(ct_image.GetSpacing())
    options = SegmentOptions(threads=1)
    nibabels = predict_labels(bundles[0], parse_settings(bundles[0]), ct_image, CPU, options, QUIET)
    twins = predict_labels(bundles[1], parse_settings(bundles[1]), flipped, CPU, options, QUIET)
    assert np.array_equal(nibabels, twins[:, ::-1, ::-1]) and len(np.unique(nibabels)) > 1


def test_regions_are_unions_of_values(ct: CtScan, tmp_path: Path) -> None:
    labels = {"Brain": [1, 2], "Brainstem": [2]}
    order = {"regions_class_order": [1, 2]}
    home = write_model(tmp_path / "model", labels, dataset=order, favour=(0, 1))
    folder = read_model_folder(home)
    bundle = import_model(folder, by_name(folder.labels), ImportOptions("regions"))
    array = predict_labels(bundle, parse_settings(bundle), ct.image, CPU, SegmentOptions(threads=1), QUIET)
    assert (array == 2).all()  # both regions everywhere: the later one's value stands for both
    assert {rule.label: rule.values for rule in by_name(folder.labels).rules} == {
        "Brain": (1, 2),
        "Brainstem": (2,),
    }


def test_segment_runs_it_like_any_bundle(ct: CtScan, bundle: Bundle) -> None:
    steps: list[Progress] = []
    result = segment(ct, bundle, SegmentOptions(threads=1), steps.append)
    assert set(result.structures.names) | set(result.absent) == set(bundle.organs)
    assert result.engine.engine == "torch" and "nnU-Net" in result.engine.reason
    assert all(source.bundle == "tiny" and source.system == "nnunet" for source in result.sources.values())
    runs = [step for step in steps if step.stage == "nnunet"]
    assert runs and all(0 <= step.done <= step.of for step in runs) and runs[-1].done == runs[-1].of - 1


def test_a_cancel_stops_at_the_next_window(ct: CtScan, bundle: Bundle) -> None:
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(CancelledError):
        segment(ct, bundle, SegmentOptions(threads=1, cancel=cancel))
    assert asked == 4


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_a_card_that_is_full_or_lost_is_no_internal_error(
    ct: CtScan, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    class Predictor:
        def predict_single_npy_array(self, *_: object) -> None:
            raise kind("CUDA error")

    monkeypatch.setattr("soars.systems.nnunet.system._predictor", lambda *_: Predictor())
    given = bundle, parse_settings(bundle), ct.image
    with pytest.raises(EngineError, match="on nnU-Net"):
        predict_labels(*given, torch.device("cuda"), SegmentOptions(), QUIET)
    with pytest.raises(kind):
        predict_labels(*given, CPU, SegmentOptions(), QUIET)


def test_without_its_package_a_sentence_says_what_to_install(
    ct: CtScan, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "nnunetv2":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(EngineError, match=r"needs nnunetv2>=2\.5.*pip install"):
        segment(ct, bundle)


def test_onnxruntime_is_refused(ct: CtScan, bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="only torch can"):
        segment(ct, bundle, SegmentOptions(engine="onnxruntime"))


def test_settings_that_make_no_sense_are_refused(bundle: Bundle) -> None:
    from dataclasses import replace

    for change, reason in (
        ({"orientation": "up"}, "orientation"),
        ({"folds": {}}, "folds"),
        ({"folds": {"0": "other.safetensors"}}, "is not listed in files"),
        ({"mirroring_axes": [3]}, "mirroring_axes"),
        ({"labels": []}, "labels"),
        ({"more": 1}, "missing or unknown: more"),
    ):
        with pytest.raises(BundleError, match=reason):
            NnUnetSystem(replace(bundle, settings={**bundle.settings, **change}))
