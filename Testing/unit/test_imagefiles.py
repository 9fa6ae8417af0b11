"""Images written by this program's own writers are what two other programs read: ITK and nibabel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from soars.errors import InputError
from soars.formats.imagefiles import WRITABLE_SUFFIXES, write_image

MIRRORED = [np.diag(signs) for signs in np.stack(np.meshgrid(*[(1.0, -1.0)] * 3), -1).reshape(8, 3)]
OBLIQUE = [Rotation.random(random_state=seed).as_matrix() * (1, 1, (-1) ** seed) for seed in range(6)]


def _image(direction: np.ndarray, kind: str) -> sitk.Image:
    voxels = np.random.default_rng(1).integers(0, 200, (5, 6, 7)).astype(kind)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.9, 1.1, 2.5))
    image.SetOrigin((-10.5, 22.25, 3.125))
    image.SetDirection(direction.ravel().tolist())
    return image


@pytest.mark.parametrize("ending", WRITABLE_SUFFIXES)
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "i4", "f4", "f8"])
def test_itk_reads_the_same_voxels_in_the_same_place(tmp_path: Path, ending: str, kind: str) -> None:
    for number, direction in enumerate([*MIRRORED, *OBLIQUE]):
        image = _image(direction, kind)
        path = tmp_path / f"{number}{ending}"
        write_image(image, path)
        back = sitk.ReadImage(str(path))
        assert back.GetPixelID() == image.GetPixelID()
        assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
        corner = (6, 5, 4)
        apart = np.subtract(
            back.TransformIndexToPhysicalPoint(corner), image.TransformIndexToPhysicalPoint(corner)
        )
        assert np.abs(apart).max() < 1e-4  # NIfTI keeps single precision


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_both_forms_of_a_nifti_file_say_the_same(tmp_path: Path, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    for number, direction in enumerate([*MIRRORED, *OBLIQUE]):
        image = _image(direction, "i2")
        path = tmp_path / f"{number}{ending}"
        write_image(image, path)
        read = nibabel.load(path)
        (_, form_q), (_, form_s) = read.header.get_qform(coded=True), read.header.get_sform(coded=True)
        assert (form_q, form_s) == (1, 1) and read.header.get_xyzt_units()[0] == "mm"
        assert np.abs(read.get_qform() - read.get_sform()).max() < 1e-4
        lps = np.array([*image.TransformIndexToPhysicalPoint((6, 5, 4)), 1.0])
        assert np.allclose(read.affine @ (6, 5, 4, 1), lps * (-1, -1, 1, 1), atol=1e-4)
        assert np.array_equal(np.asarray(read.dataobj).T, sitk.GetArrayFromImage(image))


def test_large_images_are_written_slab_by_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image(np.eye(3), "u2")
    for ending in WRITABLE_SUFFIXES:
        whole, parts = tmp_path / f"whole{ending}", tmp_path / f"parts{ending}"
        write_image(image, whole)
        with monkeypatch.context() as patch:
            patch.setattr("soars.formats.imagefiles.SLAB_BYTES", 100)
            write_image(image, parts)
        read = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (whole, parts)]
        assert np.array_equal(*read)


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="32767 voxels"):
        write_image(sitk.Image(40000, 1, 1, sitk.sitkUInt8), tmp_path / "long.nii")
    with pytest.raises(InputError, match="complex"):
        write_image(sitk.Image(2, 2, 2, sitk.sitkComplexFloat32), tmp_path / "complex.nrrd")
    with pytest.raises(InputError, match="images end in"):
        write_image(sitk.Image(2, 2, 2, sitk.sitkUInt8), tmp_path / "image.tif")
