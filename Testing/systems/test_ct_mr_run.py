"""A bundle of CT and MR from the command line: MRs that cannot be used, and the HaN-Seg challenge's interface."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from mr_files import dicom_mr, noise_mr
from safetensors.torch import save_file
from tiny_bundle import FOUND, patient, write_tiny_bundle

from soars.bundle.store import CARD_SECTIONS, load_bundle, write_manifest
from soars.catalogue import CATALOGUE
from soars.cli import main
from soars.dicom.write import write_ct_series
from soars.mr.registration import MisfitError, Registration
from soars.networks.architecture import Architecture
from soars.networks.build import build
from soars.progress import ignore
from soars.run.challenge import VALUES, challenge_labels, find_pairs, run_challenge
from soars.run.segment import SegmentOptions
from soars.structures import Geometry, StructureSet

ORGANS = tuple(FOUND)


def _bundle(folder: Path) -> Path:
    """A bundle of CT and MR with random weights."""
    folder.mkdir(parents=True)
    architecture = Architecture.plain(3, 1 + len(ORGANS), (4, 4))
    torch.manual_seed(1)
    weights = {k: v.contiguous() for k, v in build(architecture).state_dict().items()}
    save_file(weights, folder / "ct_mr.safetensors")
    (folder / "card.md").write_text("\n".join(f"# {t}\nRandom. `soars`\n" for t in CARD_SECTIONS))
    settings = {
        "window_hu": [-500, 1000], "spacing_mm": [6, 6, 6], "weights": "ct_mr.safetensors", "patch": [16, 16, 16],
        "network": architecture.to_dict(),
    }  # fmt: skip
    fields = {
        "name": "random", "version": "1", "description": "random weights", "licence": "CC0-1.0", "system": "ct_mr",
        "organs": list(ORGANS), "settings": settings,
    }  # fmt: skip
    write_manifest(folder, fields)
    return folder


def _file(image: sitk.Image) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        sitk.WriteImage(image, str(folder / "mr.nrrd"))
        return folder / "mr.nrrd"

    return write


def _of_another_patient(folder: Path) -> Path:
    dicom_mr(folder / "mr", patient="somebody else")
    return folder / "mr"


def _far_away() -> sitk.Image:
    """A small field of view in the corner of a large image of air: too little of a patient to lie on another."""
    values = np.zeros((30, 40, 40), np.float32)
    values[:6, :6, :6] = np.random.default_rng(1).normal(100, 9, (6, 6, 6))
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((3, 3, 3))
    image.SetOrigin((5000, 5000, 5000))
    return image


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_file(noise_mr((3, 40, 40))), "the MR has 3 slices; at least 8 are needed"),
        (_file(sitk.JoinSeries(noise_mr(), noise_mr())), "4 dimensions"),
        (_file(_far_away()), "the MR fits the CT nowhere|turned the MR|in common"),
        (_of_another_patient, "the MR is of another patient than the CT"),
        (lambda folder: folder / "nowhere", "no such file or folder"),
    ],
    ids=["three slices", "4D", "nothing in common", "another patient", "missing"],
)
def test_an_mr_that_cannot_be_used_is_refused_in_a_sentence(
    tmp_path: Path, make: Callable[[Path], Path], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ct_series(patient().image, tmp_path / "ct", patient_id="P1", patient_name="A")
    command = ["segment", str(tmp_path / "ct"), "--mr", str(make(tmp_path)), "--device", "cpu"]
    bundle = _bundle(tmp_path / "bundle")
    assert main([*command, "--bundle", str(bundle), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    (line,) = [text for text in said.splitlines() if text.startswith("soars: error: ")]
    assert re.search(reason, line) and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_of_an_mr_that_fits_nowhere_there_is_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Squares of CT and MR in three planes through 39 x 39 x 29 steps of 3 mm, with 8 pixels between them."""
    found = Registration(sitk.Euler3DTransform(), 0.0, 0.0, 0.01, 300.0)

    def misfit(*_: object) -> None:
        raise MisfitError("the MR fits the CT nowhere", found)

    monkeypatch.setattr("soars.run.case.lay_mr", misfit)
    write_ct_series(patient().image, tmp_path / "ct", patient_id="P1", patient_name="A")
    mr = noise_mr()
    mr.SetOrigin(patient().image.GetOrigin())
    bundle = _bundle(tmp_path / "bundle")
    command = ["segment", str(tmp_path / "ct"), "--mr", str(_file(mr)(tmp_path)), "--bundle", str(bundle)]
    picture = tmp_path / "out-refused-mr.png"
    assert main([*command, "--output", str(tmp_path / "out"), "--progress", "json"]) == 2
    assert not picture.exists()
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    assert f"nowhere; squares of CT and MR, as they were laid, are in {picture}" in capsys.readouterr().err
    assert sitk.ReadImage(str(picture)).GetSize() == (3 * 117 + 2 * 8, 117)
    assert not (tmp_path / "out").exists()


# --- the challenge


def _input(folder: Path, ct: sitk.Image, mr: sitk.Image) -> Path:
    for name, image in (("images/ct/case_01_IMG_CT.mha", ct), ("images/t1-mri/case_01_IMG_MR_T1.mha", mr)):
        (folder / name).parent.mkdir(parents=True)
        sitk.WriteImage(image, str(folder / name))
    return folder


def test_the_values_are_those_of_the_challenge() -> None:
    assert len(VALUES) == 30 and set(VALUES.values()) <= set(CATALOGUE)
    # The organisers' template, in its order.
    assert [VALUES[n] for n in (1, 4, 11, 14, 22, 23, 30)] == [
        "A_Carotid_L", "Bone_Mandible", "Esophagus", "Eye_PL", "Larynx_SG", "Lips", "SpinalCord",
    ]  # fmt: skip


def test_a_container_writes_one_label_map_on_the_cts_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Balls of known HU, as the challenge counts them; this bundle looks at the CT alone."""
    ct = sitk.DICOMOrient(patient().image, "PIR")
    source = _input(tmp_path / "input", ct, noise_mr())
    bundle = write_tiny_bundle(tmp_path / "balls")
    command = [
        "challenge",
        "--input",
        str(source),
        "--output",
        str(tmp_path / "output"),
        "--bundle",
        str(bundle),
    ]
    assert main([*command, "--device", "cpu"]) == 0
    image = sitk.ReadImage(str(tmp_path / "output" / "images" / "head_neck_oar" / "case_01_IMG_seg.mha"))
    assert image.GetPixelID() == sitk.sitkUInt8 and Geometry.of(image).same_as(Geometry.of(ct))
    hu, labels = sitk.GetArrayFromImage(ct), sitk.GetArrayFromImage(image)
    assert set(np.unique(labels)) == {0, 5, 30}
    for organ, value in (("Brainstem", 5), ("SpinalCord", 30)):
        truth = np.abs(hu - FOUND[organ].hu) < 100
        assert 2 * ((labels == value) & truth).sum() / ((labels == value).sum() + truth.sum()) > 0.9
    assert json.loads((tmp_path / "output" / "results.json").read_text()) == [
        {
            "outputs": [{"type": "metaio_image", "filename": "case_01_IMG_seg.mha"}],
            "inputs": [
                {"type": "metaio_ct_image", "filename": "case_01_IMG_CT.mha"},
                {"type": "metaio_mrt1_image", "filename": "case_01_IMG_MR_T1.mha"},
            ],
            "error_messages": [],
        }
    ]
    assert "2 of 30 organs; without Left carotid artery" in capsys.readouterr().out
    assert main([*command, "--device", "cpu"]) == 2
    assert "results.json is there already; add --overwrite" in capsys.readouterr().err


def test_an_mr_that_does_not_fit_is_left_out_and_said(tmp_path: Path) -> None:
    source = _input(tmp_path / "input", patient().image, noise_mr((20, 20, 20)))
    bundle = load_bundle(_bundle(tmp_path / "bundle"))
    (result,) = run_challenge(source, tmp_path / "output", bundle, SegmentOptions(device="cpu"), ignore)
    assert result["error_messages"][0].startswith("contoured on the CT alone: ")
    assert (tmp_path / "output" / "images" / "head_neck_oar" / "case_01_IMG_seg.mha").exists()


def test_halves_make_a_whole_and_the_smaller_of_two_organs_has_the_voxel() -> None:
    structures = StructureSet(Geometry((4, 4, 4), (1, 1, 1), (0, 0, 0)))

    def add(name: str, z: int, x: slice) -> None:
        array = np.zeros((4, 4, 4), bool)
        array[z, :, x] = True
        structures.add(name, array)

    add("Bone_Mandible_L", 0, slice(2, 4))
    add("Bone_Mandible_R", 0, slice(0, 2))
    add("OpticChiasm", 2, slice(1, 2))
    add("Brainstem", 2, slice(0, 4))
    add("Eye_L", 3, slice(0, 4))  # the challenge knows its front and back only
    labels = sitk.GetArrayFromImage(challenge_labels(structures))
    assert (labels[0] == 4).all() and (labels[2, :, 1] == 24).all() and (labels[2, :, 2:] == 5).all()
    assert not labels[[1, 3]].any()


def test_what_is_no_challenge_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_tiny_bundle(tmp_path / "balls")
    command = [
        "challenge",
        "--input",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
        "--bundle",
        str(bundle),
    ]
    assert main(command) == 2
    assert "there is no such folder" in capsys.readouterr().err
    source = _input(tmp_path / "in", patient().image, noise_mr())
    (pair,) = find_pairs(source)
    assert pair.output == "case_01_IMG_seg.mha"
    sitk.WriteImage(patient().image, str(source / "images" / "ct" / "case_02_IMG_CT.mha"))
    assert main(command) == 2
    assert "2 images in images/ct and 1 in images/t1-mri" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (source / "images" / "ct" / "case_02_IMG_CT.mha").unlink()
    (source / "images" / "ct" / "case_01_IMG_CT.mha").write_bytes(b"no image")
    assert main(command) == 2
    assert "case_01_IMG_CT.mha" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.mha"))
