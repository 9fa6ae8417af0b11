"""Adding RTDOSEs: the doses of beams, fraction groups or plans as one, and what would count dose twice.

Source: DICOM PS3.3, C.8.8.3 (RT Dose module), on what a dose is of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from soars.dicom.rtdose import OF_A_PART, RtDose
from soars.errors import InputError
from soars.structures.model import Geometry

#: Sessions of one plan may give the same dose; two files of any other kind that do are one dose, exported twice.
_SESSIONS = ("FRACTION_SESSION", "BEAM_SESSION", "BRACHY_SESSION")
#: Of the highest dose: copies of one dose differ by less, rounded to 16 bits in one and to 32 in another.
_ROUNDING = 1e-4


def add_rtdoses(doses: Sequence[RtDose]) -> RtDose:
    """The sum of the doses of beams, fractions or plans, as one dose in Gy on their grid.

    `InputError` for what would count dose twice or at another place: the same dose given twice, also under another SOP
    Instance UID; two doses of one plan, fraction group or beam, as after a recalculation; doses of different kinds
    (Dose Summation Type), of which one may contain another, or physical and effective ones (Dose Type); other grids or
    frames of reference.
    """
    first = doses[0]
    for number, other in enumerate(doses[1:], 1):
        pair = f"{first.path} and {other.path}"
        if other.frame_of_reference_uid != first.frame_of_reference_uid:
            raise InputError(f"{pair} are in different frames of reference: they cannot be added")
        if not Geometry.of(other.image).same_as(Geometry.of(first.image)):
            raise InputError(f"{pair} have different grids: export them on one grid to add them")
        if other.instance_uid and other.instance_uid in [d.instance_uid for d in doses[:number]]:
            raise InputError(f"{other.path} is given twice: its dose would count double")
        if other.summation != first.summation:
            kinds = " and ".join(d.summation or "none given" for d in (first, other))
            raise InputError(
                f"{pair} are doses of different kinds (Dose Summation Type: {kinds}): what one of them contains of the "
                "other counts double; add doses of one kind"
            )
    _check_one_type(doses)
    _check_disjoint(doses)
    if first.summation not in _SESSIONS:
        _check_different(doses)
    total = np.zeros(first.image.GetSize()[::-1])
    for dose in doses:
        total += sitk.GetArrayViewFromImage(dose.image)
    image = sitk.GetImageFromArray(total.astype(np.float32))
    image.CopyInformation(first.image)
    warnings = [f"{len(doses)} doses were added: {', '.join(dose.path.name for dose in doses)}"]
    if len(doses) > 1 and not first.summation:
        warnings.append(
            "none of them has a Dose Summation Type: check that none is a part of another, and counts double"
        )
    # That each is only a part is why they are added.
    warnings += [w for dose in doses for w in dose.warnings if not w.endswith(OF_A_PART)]
    return RtDose(
        image,
        first.path.parent,
        first.frame_of_reference_uid,
        first.study_uid,
        warnings=warnings,
        identity=first.identity,
    )


def _check_one_type(doses: Sequence[RtDose]) -> None:
    """Refuse physical beside effective dose: planning systems for protons export both of one plan."""
    said = [dose for dose in doses if dose.kind]
    for other in said[1:]:
        if other.kind != said[0].kind:
            raise InputError(
                f"{said[0].path} and {other.path} are doses of different types (Dose Type: {said[0].kind} and "
                f"{other.kind}), which do not add up; leave those of one type in the folder"
            )


def _check_disjoint(doses: Sequence[RtDose]) -> None:
    """Refuse two doses of one plan, fraction group or beam: each is all that it gives."""
    for second, other in enumerate(doses):
        for one in doses[:second]:
            if one.of & other.of:
                what = {1: "plan", 2: "fraction group of a plan"}.get(
                    len(min(one.of & other.of)), "beam of a plan"
                )
                raise InputError(
                    f"{one.path} and {other.path} are doses of the same {what}, as after a recalculation: it would "
                    "count double; leave one of them in the folder"
                )


def _check_different(doses: Sequence[RtDose]) -> None:
    """Refuse a dose that is there twice: exported again, it has another SOP Instance UID, but the same values."""
    values = [sitk.GetArrayViewFromImage(dose.image) for dose in doses]
    highest = [float(array.max()) for array in values]
    for second in range(1, len(doses)):
        for one in range(second):
            limit = _ROUNDING * highest[one]
            planes = zip(values[one], values[second], strict=True)
            if highest[one] > 0 and all(float(np.abs(a - b).max()) <= limit for a, b in planes):
                raise InputError(
                    f"{doses[one].path} and {doses[second].path} hold the same dose, exported twice: it would count "
                    "double; leave one of them in the folder"
                )
