"""Masks of an RTSTRUCT as other programs read them: one of each family of readers.

plastimatch fills the voxels whose centres lie within the contours; rt-utils (as DicomRTTool and platipy) rounds the
vertices to voxels and draws the polygon, its edges included.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.structures import Geometry


def plastimatch_masks(
    rtstruct: Path, ct_folder: Path, names: Iterable[str], geometry: Geometry, work: Path
) -> dict[str, np.ndarray]:
    """Full boolean masks [z, y, x] by name; those that plastimatch did not write are left out."""
    program = shutil.which("plastimatch")
    if program is None:
        pytest.skip("plastimatch is not installed: apt-get install plastimatch")
    command = [program, "convert", "--input", rtstruct, "--referenced-ct", ct_folder]
    command += ["--output-prefix", work, "--prefix-format", "nrrd"]
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    masks = {}
    for name in names:
        if (work / f"{name}.nrrd").exists():
            image = sitk.ReadImage(str(work / f"{name}.nrrd"))
            assert Geometry.of(image).same_as(geometry, 2e-3)
            masks[name] = sitk.GetArrayFromImage(image) > 0
    return masks


def rt_utils_masks(
    rtstruct: Path, ct_folder: Path, names: Iterable[str], *, as_it_is: bool = False
) -> dict[str, np.ndarray]:
    """Full boolean masks [z, y, x] by name.

    rt-utils 1.2.7 takes the first value of Pixel Spacing for the distance of columns (it is that of rows, PS3.3
    10.7.1.3) and makes masks of shape (columns, rows). Its own files are read back all the same, as both mistakes
    are made twice; others' are not. Unless ``as_it_is``, it is handed a CT in memory in which these values are
    exchanged, so that both mistakes cancel and what is left is how it fills contours.
    """
    rt_utils = pytest.importorskip("rt_utils", reason="pip install rt-utils to compare with it")
    read = rt_utils.RTStructBuilder.create_from(str(ct_folder), str(rtstruct))
    if not as_it_is:
        for image in read.series_data:
            image.PixelSpacing = list(image.PixelSpacing)[::-1]
            image.Rows, image.Columns = image.Columns, image.Rows
    return {name: read.get_roi_mask_by_name(name).transpose(2, 0, 1) for name in names}
