"""Contours and images identified by a hash of their voxels, so that a session can prove what it started from.

File hashes cannot serve for that: Slicer writes the same contours as different bytes. What is hashed is

* of contours: for every organ, in alphabetical order, its name, the first voxel (z, y, x) and shape of its bounding
  box on the CT's grid, and its voxels, eight to a byte (numpy.packbits);
* of an image: its shape (z, y, x) and its voxels as little-endian 32-bit floats, in slices from z = 0 up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # soars.structures imports SimpleITK, which is slow to import and not needed here
    from soars.structures import Mask


def contours_sha256(masks: Mapping[str, Mask], organs: Iterable[str]) -> str:
    """64 hexadecimal digits for the voxels of these organs; one that has no mask counts as empty."""
    digest = hashlib.sha256()
    for organ in sorted(set(organs)):
        mask = masks.get(organ)
        if mask is None or mask.is_empty:
            digest.update(f"{organ}:empty\n".encode())
            continue
        box = ",".join(str(int(v)) for v in (*mask.start, *mask.shape))
        digest.update(f"{organ}:{box}\n".encode())
        digest.update(np.packbits(mask.array).tobytes())
    return digest.hexdigest()


def image_sha256(array: np.ndarray[Any, Any]) -> str:
    """64 hexadecimal digits for an image [z, y, x] of numbers that 32-bit floats hold exactly, as HU are."""
    digest = hashlib.sha256(",".join(str(n) for n in array.shape).encode() + b"\n")
    for plane in array:
        digest.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return digest.hexdigest()
