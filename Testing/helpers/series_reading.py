"""How a CT series is read: its values, its one refusal, its one warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from soars.ct.series import read_series
from soars.errors import InputError


def hu_of(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def refused(folder: Path, *words: str, **options: str) -> str:
    """The one sentence by which the folder is refused; it must hold all words and nothing about the patient."""
    with pytest.raises(InputError) as caught:
        read_series(folder, **options)
    message = str(caught.value)
    assert "\n" not in message and "Secret" not in message and "secret" not in message
    for word in words:
        assert word in message, message
    return message


def only_warning(folder: Path, *words: str) -> sitk.Image:
    """The image, which was read with exactly one warning, holding all words."""
    image, _, warnings = read_series(folder)
    assert len(warnings) == 1, warnings
    assert "Secret" not in warnings[0] and "secret" not in warnings[0]
    for word in words:
        assert word in warnings[0], warnings[0]
    return image


def shifted(k0: int, dz: float):
    """An edit of a series that moves one slice so many mm along z."""

    def edit(ds, k):
        if k == k0:
            x, y, z = ds.ImagePositionPatient
            ds.ImagePositionPatient = [x, y, z + dz]

    return edit
