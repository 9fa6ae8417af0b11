"""Hounsfield units: converting a CT's values to int16 HU, and detecting values that cannot be HU.

Air is -1000 HU and water 0 HU by definition; everything below rests on that. Every head and neck CT holds air, around
the patient and in the airway, so values that never come near air are not HU, whatever the file says.
"""

from __future__ import annotations

import numpy as np

from soars.errors import InputError

#: The smallest HU kept. Scanners store at least -1024; lower values are padding outside the reconstruction circle
#: (-2000, -3024, -32768, ...) and would only disturb resampling at its border.
LOWEST_HU = -1024
#: The largest value an int16 image holds. Extended-scale CTs reach about 30,000 HU in metal.
HIGHEST_HU = 32767
#: A CT whose smallest value is above this has no air in it: not fat (-100), not lung at its densest.
AIR_AT_MOST_HU = -200
#: What holds neither air nor fat, but values above this, is not HU, whatever the file declares.
DENSE_HU = 1000
#: A CT with less than this between smallest and largest value shows nothing (air to water alone is 1000).
LEAST_RANGE_HU = 200
#: A CT whose largest value is below this has no bone in it (cortical bone begins at about 300).
BONE_AT_LEAST_HU = 150
#: Padding values above this are not tissue or metal and are replaced; below it they could be real values.
PADDING_ABOVE_HU = 31000


def to_int16_hu(values: np.ndarray) -> tuple[np.ndarray, int, int]:
    """`values` (any shape, any real type, HU) as int16, rounded to the nearest integer.

    Values below `LOWEST_HU` become `LOWEST_HU`, values above `HIGHEST_HU` become `HIGHEST_HU`, and values that are not
    finite become `LOWEST_HU`. Returns the array, how many values were too high, and how many were not finite.
    """
    not_finite = 0
    if np.issubdtype(values.dtype, np.floating):
        finite = np.isfinite(values)
        not_finite = int(values.size - np.count_nonzero(finite))
        if not_finite:
            values = np.where(finite, values, np.asarray(LOWEST_HU, dtype=values.dtype))
        values = np.rint(values)
    info = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
    too_high = 0
    if info is None or info.max > HIGHEST_HU:
        too_high = int(np.count_nonzero(values > HIGHEST_HU))
    # only with the limits that the type can hold: numpy refuses the others
    lowest = LOWEST_HU if info is None or info.min < LOWEST_HU else None
    highest = HIGHEST_HU if too_high else None
    if lowest is not None or highest is not None:
        values = np.clip(values, lowest, highest)
    return values.astype(np.int16), too_high, not_finite


#: The surroundings of the patient were set to one value when so much of the rim of the volume has it.
MASKED_RIM = 0.9


def check_surroundings(values: np.ndarray) -> list[str]:
    """A warning about a CT (HU, [z, y, x]) that was masked with a value that is not air's, such as 0.

    The rim is the twelve edges of the volume: air, or tissue where a CT was cropped, whose values are noisy.
    """
    ends = values[:: max(1, len(values) - 1)]
    across, along = ends[:, :: max(1, values.shape[1] - 1)], ends[:, :, :: max(1, values.shape[2] - 1)]
    upright = values[:, :: max(1, values.shape[1] - 1), :: max(1, values.shape[2] - 1)]
    found, counts = np.unique(
        np.concatenate([e.ravel() for e in (across, along, upright)]), return_counts=True
    )
    value, share = float(found[counts.argmax()]), counts.max() / counts.sum()
    if value <= AIR_AT_MOST_HU or share < MASKED_RIM:
        return []
    return [
        f"the patient's surroundings have the value {value:g} HU, which is not air's, and are taken for tissue: "
        "set them to -1000 and segment again"
    ]


def check_range(lowest: float, highest: float, source: str, *, declared: bool) -> list[str]:
    """Warnings about a CT whose values run from `lowest` to `highest`; `source` names it in messages.

    `declared` says that the file itself declares HU (a DICOM CT with rescale slope and intercept). Then a range without
    air is unusual (a CT cropped inside the body) and gets a warning, unless it has no fat either; otherwise the unit is
    only a guess. Values that are not HU raise `InputError`, because networks would silently return nonsense.
    """
    span = f"{lowest:g} to {highest:g}"
    if highest - lowest < LEAST_RANGE_HU:
        raise InputError(
            f"{source}: the values run only from {span}, so this is not a CT in Hounsfield units (air -1000, water 0, "
            f"bone above 300); give the CT with its original values"
        )
    warnings: list[str] = []
    if lowest > AIR_AT_MOST_HU:
        stored = lowest >= 0 and highest > DENSE_HU
        if stored or not declared:
            hint = ""
            if stored and highest > HIGHEST_HU:
                hint = (
                    "; they look like negative values that are taken for positive ones (Pixel Representation)"
                )
            elif stored:
                hint = "; they look like stored values without their rescale intercept (often -1024)"
            raise InputError(
                f"{source}: the values run from {span} and hold no air (-1000): they are not Hounsfield units{hint}; "
                f"give the CT with its original values"
            )
        warnings.append(f"the CT holds no air: its values run from {span} HU; check that it is not cropped")
    if highest < BONE_AT_LEAST_HU:
        warnings.append(
            f"the CT holds no bone: its values run from {span} HU; check that it is a patient's CT"
        )
    return warnings
