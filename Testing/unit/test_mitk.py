"""Segmentations of MITK Workbench: NRRDs whose header lists the labels, as JSON since 2023 and as XML before."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.cli import main
from soars.errors import InputError
from soars.formats.reading import read_structures

LABELS = np.zeros((6, 8, 10), np.uint16)
LABELS[1:3, 2:5, 3:7] = 1
LABELS[3:5, 2:6, 3:7] = 700
BRAINSTEM = {
    "color": {"type": "ColorProperty", "value": [1.0, 0.5, 0.0]}, "locked": True, "name": "brain stem",
    "opacity": 0.6, "value": 1, "visible": True,
}  # fmt: skip
QUOTED = {"name": 'the "left" gland', "value": 700}


def written(path: Path, groups: Sequence[object]) -> Path:
    """One group, as ITK writes it for MITK."""
    image = sitk.GetImageFromArray(LABELS)
    image.SetSpacing((1.0, 1.5, 3.0))
    image.SetOrigin((5.0, -6.0, 7.0))
    image.SetMetaData("modality", "org.mitk.multilabel.segmentation")
    image.SetMetaData("org.mitk.multilabel.segmentation.labelgroups", json.dumps(groups))
    image.SetMetaData("org.mitk.multilabel.segmentation.version", "1")
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def several(
    path: Path, fields: Sequence[str], *groups: np.ndarray, space: str = "left-posterior-superior"
) -> Path:
    """Several groups: a vector of values a voxel."""
    voxels = np.stack(groups, axis=-1).astype("<u2")
    lines = [
        "NRRD0004", "type: unsigned short", "dimension: 4", f"space: {space}",
        f"sizes: {len(groups)} 10 8 6", "space directions: none (1,0,0) (0,1.5,0) (0,0,3)",
        "kinds: vector domain domain domain", "endian: little", "encoding: gzip", "space origin: (5,-6,7)", *fields,
    ]  # fmt: skip
    path.write_bytes("\n".join([*lines, "", ""]).encode() + gzip.compress(voxels.tobytes()))
    return path


@pytest.mark.parametrize("name", ["organs.nrrd", "organs.seg.nrrd"])
def test_labels_of_one_group(tmp_path: Path, name: str) -> None:
    read = read_structures(written(tmp_path / name, [{"labels": [BRAINSTEM, QUOTED]}]))
    assert read.names == ("Brainstem", 'the "left" gland')
    assert (read.voxels("Brainstem"), read.voxels('the "left" gland')) == (24, 32)
    assert read.info["Brainstem"].colour == (255, 128, 0)
    assert read.geometry.origin == (5.0, -6.0, 7.0) and read.geometry.spacing == (1.0, 1.5, 3.0)


def test_groups_may_overlap_and_a_label_may_lack_its_name(tmp_path: Path) -> None:
    groups = [{"labels": [BRAINSTEM, QUOTED]}, {"name": "other", "labels": [{"value": 9}]}, {"labels": None}]
    field = f"org.mitk.multilabel.segmentation.labelgroups:={json.dumps(groups)}"
    other = np.where(LABELS > 0, 9, 0)
    read = read_structures(several(tmp_path / "a.nrrd", [field], LABELS, other, np.zeros_like(LABELS)))
    assert {name: read.voxels(name) for name in read} == {
        "Brainstem": 24,
        'the "left" gland': 32,
        "Label 9": 56,
    }
    assert read.crop("Label 9").start == (1, 2, 3)
    assert any("the label 9 of group 1 has no name" in warning for warning in read.warnings)


def test_labels_as_xml(tmp_path: Path) -> None:
    """As MITK wrote them until 2022; label 0 is the outside."""

    def label(number: int, value: int, name: str) -> str:
        properties = (
            f'<property key="name" type="StringProperty"><string value="{name}"/></property>'
            f'<property key="value" type="UIntProperty"><unsigned value="{value}"/></property>'
            '<property key="color" type="ColorProperty"><color r="0.2" g="0" b="1"/></property>'
        )
        return f'org.mitk.label_000_{number:05d}:=<?xml version="1.0"?>\\n<Label>{properties}</Label>'

    fields = [
        "layers:=1",
        "layer_000:=3",
        label(0, 0, "Exterior"),
        label(1, 1, "A &amp; B"),
        label(2, 700, "Lens_L"),
    ]
    read = read_structures(several(tmp_path / "a.nrrd", fields, LABELS))
    assert {name: read.voxels(name) for name in read} == {"A & B": 24, "Lens_L": 32}
    assert read.info["Lens_L"].colour == (51, 0, 255)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ("{}", "no list"),
        ("[]", "no labels"),
        ('[{"labels": [{"name": "a"}]}]', "no value"),
        ("[1, 2", "cannot be read"),
        ('[{}, {}, {"labels": [{"value": 1}]}]', "layer 2"),
    ],
)
def test_what_is_wrong_with_the_labels_is_said(
    tmp_path: Path, groups: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = several(tmp_path / "a.nrrd", [f"org.mitk.multilabel.segmentation.labelgroups:={groups}"], LABELS)
    assert main(["convert", str(path), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and "a.nrrd" in said and said.count("\n") == 1


def test_another_space_is_refused(tmp_path: Path) -> None:
    field = f"org.mitk.multilabel.segmentation.labelgroups:={json.dumps([{'labels': [BRAINSTEM]}])}"
    with pytest.raises(InputError, match="not left-posterior-superior"):
        read_structures(several(tmp_path / "a.nrrd", [field], LABELS, space="right-anterior-superior"))
