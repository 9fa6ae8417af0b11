"""Added path length: how much of the contour had to be redrawn.

Published programs differ in what they count (PlatiPy, MAASTRO's, CERR's). Ours: in every slice of the z index,
the contour of a mask is its pixels that have a pixel outside among their four neighbours in the slice. The added
path length is the number of pixels of the reference's contours that are not on the prediction's contours, times
the side of a pixel (the geometric mean where pixels are not square), in mm, summed over slices. That is Vaassen et
al., Phys Imaging Radiat Oncol 2020;13:1-6, without a tolerance. Where there is no prediction, it is the length of
all the reference's contours.
"""

from __future__ import annotations

import numpy as np

from soars.metrics.surface import padded
from soars.structures.model import Mask, tight_mask


def added_path_length(prediction: Mask, reference: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """Length in mm of the reference's contours that the prediction does not have; ``spacing_mm`` (z, y, x)."""
    wanted, drawn = contour_pixels(reference), contour_pixels(prediction)
    there = drawn.box(wanted.start, wanted.shape)
    pixels = int(np.count_nonzero(wanted.array > there))
    return pixels * float(np.sqrt(spacing_mm[1] * spacing_mm[2]))


def contour_pixels(mask: Mask) -> Mask:
    """The pixels of a mask's contours in its slices."""
    if mask.is_empty:
        return mask
    full = padded(mask.array)
    inner = full[1:-1, :-2, 1:-1] & full[1:-1, 2:, 1:-1]
    inner &= full[1:-1, 1:-1, :-2]
    inner &= full[1:-1, 1:-1, 2:]
    return tight_mask(mask.array > inner, mask.start)
