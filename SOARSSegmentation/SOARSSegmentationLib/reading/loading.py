"""The study's CT into the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soars.errors import InputError
from SOARSSegmentationLib.scene.ct import volume_of_image


def load_ct(mrml_scene: Any, path: Path, name: str) -> Any:
    """Add the CT of a file to the scene under a name that says no more than the pseudonym; returns the volume node.

    `InputError` when the file is missing or no CT.
    """
    from soars.ct.images import read_ct

    if not path.is_file():
        raise InputError(f"the CT of {name} is missing from the study's folder: ask the study's lead")
    return volume_of_image(mrml_scene, read_ct(path).image, name)
