"""Reading an RTDOSE: the dose as an image in Gy on its own grid (LPS mm).

Source: DICOM PS3.3, C.8.8.3 (RT Dose module). Anything that would put the dose in the wrong place, or on the
wrong scale, is refused in one sentence; anything merely unusual is a warning.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from soars.ct.decode import LOSSY_SYNTAXES, stored_frames
from soars.ct.dicom_files import check_complete, is_dicom, read_dataset, read_header
from soars.ct.series import CtSeries
from soars.ct.stack import UNEVEN_LIMIT_MM, UNEVEN_WARNING_MM
from soars.dicom.objects import check_patient, damage_reported, plain
from soars.errors import InputError, keeping_warnings

RT_DOSE_STORAGE = "1.2.840.10008.5.1.4.1.1.481.2"
#: Gy per unit in which a file's dose may be.
UNITS = {"Gy": 1.0, "cGy": 0.01}
#: No plan gives a patient more; centigray do.
MOST_GY = 1000.0
#: Frames that are nearer to each other, in mm, are at the same place.
SAME_MM = 0.01
#: Direction cosines may miss a right angle by this much.
ORIENTATION_TOLERANCE = 1e-3
#: What is not the dose of a whole plan.
_PARTS = ("FRACTION", "BEAM", "BRACHY", "FRACTION_SESSION", "BEAM_SESSION", "BRACHY_SESSION", "CONTROL_POINT")
OF_A_PART = ", not of the whole plan"
"""How the warning about it ends."""
#: Where a dose of beams, or of brachytherapy setups, names them within a fraction group, and by what.
_BEAMS = {
    "BEAM": ("ReferencedBeamSequence", "ReferencedBeamNumber"),
    "BRACHY": ("ReferencedBrachyApplicationSetupSequence", "ReferencedBrachyApplicationSetupNumber"),
}
#: What `check_patient` compares.
_IDENTITY = ("PatientID", "PatientIdentityRemoved")
#: Where an RTSTRUCT (PS3.3 C.8.8.5) names its frames of reference, and that of each ROI.
_ALL_FRAMES, _ROIS = "ReferencedFrameOfReferenceSequence", "StructureSetROISequence"


Part = tuple[str, ...]


@dataclass
class RtDose:
    """A dose grid: ``image`` in Gy, float32, LPS mm, its frames in ascending order along row x column.

    UIDs that the file lacks are "". ``summation`` is its Dose Summation Type (PLAN, MULTI_PLAN, BEAM ...), ``kind`` its
    Dose Type (PHYSICAL, EFFECTIVE), in capitals; ``identity`` says whose it is, as far as the file does (Patient ID,
    Patient Identity Removed); ``of`` are the plans, fraction groups, beams or brachytherapy setups of which it is the
    dose, each as the UID of the plan and the numbers in it, empty where the file does not name them.
    """

    image: sitk.Image
    path: Path
    frame_of_reference_uid: str = ""
    study_uid: str = ""
    summation: str = ""
    instance_uid: str = ""
    warnings: list[str] = field(default_factory=list)
    identity: Dataset = field(default_factory=Dataset)
    kind: str = ""
    of: frozenset[Part] = frozenset()


def read_rtdose(path: Path | str, unit: str | None = None) -> RtDose:
    """Read one RTDOSE file, with a preamble or without, compressed or not.

    ``unit``, one of `UNITS`, is what its values are in when the file does not say, or says it wrongly. `InputError`,
    with the file, for what is damaged, not understood, or no absorbed dose.
    """
    path = Path(path)
    dataset = _read(path)
    try:
        with python_warnings.catch_warnings(), pydicom_config.disable_value_validation():
            python_warnings.simplefilter("ignore")
            return _dose(dataset, path, unit)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        NotImplementedError,
        TypeError,
        ValueError,
    ) as error:
        # pydicom converts a value when it is asked for, and raises what the damage leads to
        raise InputError(f"{path}: one of its values is damaged; export it again") from error


def _dose(dataset: Dataset, path: Path, unit: str | None) -> RtDose:
    warnings: list[str] = []
    with keeping_warnings(warnings):
        image = _image(dataset, path, unit, warnings)
    summation = str(dataset.get("DoseSummationType") or "").upper()
    return RtDose(
        image,
        path,
        str(dataset.get("FrameOfReferenceUID") or ""),
        str(dataset.get("StudyInstanceUID") or ""),
        summation,
        str(dataset.get("SOPInstanceUID") or ""),
        warnings,
        _identity(dataset),
        str(dataset.get("DoseType") or "").upper(),
        frozenset(_parts(dataset, summation)),
    )


def _parts(dataset: Dataset, summation: str) -> Iterator[Part]:
    """What a dose of this kind is of (PS3.3 C.8.8.3.1 and C.8.8.3.3): whole plans, or numbered parts of them."""
    for plan in dataset.get("ReferencedRTPlanSequence") or ():
        uid = plain(plan.get("ReferencedSOPInstanceUID"))
        if uid and summation in ("PLAN", "MULTI_PLAN"):
            yield (uid,)
        for group in plan.get("ReferencedFractionGroupSequence") or () if uid else ():
            number = plain(group.get("ReferencedFractionGroupNumber"))
            if number and summation == "FRACTION":
                yield uid, number
            sequence, beam = _BEAMS.get(summation, ("", ""))
            for item in group.get(sequence) or () if sequence else ():
                yield uid, number, plain(item.get(beam))


def _identity(dataset: Dataset) -> Dataset:
    identity = Dataset()
    for keyword in _IDENTITY:
        if keyword in dataset:
            identity[keyword] = dataset[keyword]
    return identity


def _image(dataset: Dataset, path: Path, unit: str | None, warnings: list[str]) -> sitk.Image:
    """The dose in Gy, its frames in order."""
    _check_kind(dataset, path, warnings)
    _check_whole(path)
    factor = _gy_of_unit(dataset, path, unit, warnings)
    scaling = _number(dataset, "DoseGridScaling", path)
    if not np.isfinite(scaling) or scaling <= 0:
        raise InputError(f"{path}: its Dose Grid Scaling is {scaling:g}, so its values mean nothing")
    origin, direction, spacing, order = _grid(dataset, path, warnings)
    stored = stored_frames(dataset, path)[order]
    if str(dataset.file_meta.TransferSyntaxUID) in LOSSY_SYNTAXES:
        warnings.append(f"{path.name} was compressed with loss: its dose is not what was computed")
    values = (stored.astype(np.float64) * (scaling * factor)).astype(np.float32)
    check_height(float(values.max()), path)
    if values.min() < 0:
        warnings.append(f"{path.name} holds negative dose (down to {values.min():g} Gy)")
    image = sitk.GetImageFromArray(values)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def check_belongs(dose: RtDose, reference: CtSeries) -> None:
    """Raise `InputError` when the dose is of another patient than the CT, or was computed in another frame of reference
    than the CT's; where one of the two names none, that becomes a warning of the dose."""
    check_patient(dose.path, dose.identity, reference.header)
    frames = dose.frame_of_reference_uid, reference.frame_of_reference_uid
    if not all(frames):
        dose.warnings.append(_not_checked(dose, "the CT"))
    elif frames[0] != frames[1]:
        raise InputError(
            f"{dose.path}: the dose is in another frame of reference than the CT's: it does not belong to this CT; "
            "choose the dose of its plan"
        )


def check_structures(dose: RtDose, structures: Path) -> None:
    """`check_belongs` without the CT, against the structures the dose is read in: an RTSTRUCT or a DICOM segmentation,
    which say whose they are and in which frame of reference; other files do not, and are not checked."""
    with damage_reported(structures):
        if not structures.is_file() or not is_dicom(structures):
            return
        tags: list[Any] = [*_IDENTITY, "FrameOfReferenceUID", _ALL_FRAMES, _ROIS]
        dataset = read_dataset(structures, specific_tags=tags)
        check_patient(structures, dataset, dose.identity, "dose")
        rois = {plain(item.get("ReferencedFrameOfReferenceUID")) for item in dataset.get(_ROIS) or ()}
        told = {plain(one.get("FrameOfReferenceUID")) for one in (dataset, *(dataset.get(_ALL_FRAMES) or ()))}
    frames = (rois - {""}) or (told - {""})
    if not frames or not dose.frame_of_reference_uid:
        dose.warnings.append(_not_checked(dose, structures.name))
    elif dose.frame_of_reference_uid not in frames:
        raise InputError(
            f"{dose.path}: the dose is in another frame of reference than {structures}: they do not belong together; "
            "choose the dose of its plan"
        )


def _not_checked(dose: RtDose, other: str) -> str:
    whose = other if dose.frame_of_reference_uid else "the dose"
    return f"{dose.path.name}: {whose} has no frame of reference: check that they belong together"


def _read(path: Path) -> Dataset:
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the RTDOSE file in it")
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            return read_dataset(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # pydicom raises any kind of error over damaged data
        raise InputError(f"{path}: is damaged or cut off; export it again") from error


def _check_kind(dataset: Dataset, path: Path, warnings: list[str]) -> None:
    modality = str(dataset.get("Modality") or "")
    if not modality and not dataset.get("SOPClassUID"):
        raise InputError(f"{path}: does not say what it is: cut off or damaged; an RTDOSE is needed")
    if modality != "RTDOSE" and str(dataset.get("SOPClassUID") or "") != RT_DOSE_STORAGE:
        raise InputError(
            f"{path}: is a DICOM file of another kind ({modality or 'unknown'}); an RTDOSE is needed"
        )
    if str(dataset.get("DoseType") or "").upper() == "ERROR":
        raise InputError(f"{path}: holds differences of doses (Dose Type ERROR), not a dose")
    if str(dataset.get("DoseType") or "").upper() == "EFFECTIVE":
        warnings.append(f"{path.name} is effective (biologically weighted) dose, not physical dose")
    summation = str(dataset.get("DoseSummationType") or "").upper()
    if summation in _PARTS:
        warnings.append(f"{path.name} is the dose of a part ({summation}){OF_A_PART}")


def _check_whole(path: Path) -> None:
    """Refuse a file that ends before its pixels do: decoders silently fill in what is missing."""
    header = read_header(path)
    try:
        if header.pixels_at >= 0:
            check_complete(header)
            return
    except InputError:
        pass
    raise InputError(f"{path}: its pixels are missing, damaged or cut off; export it again")


def _gy_of_unit(dataset: Dataset, path: Path, unit: str | None, warnings: list[str]) -> float:
    """Gy per unit of the file's dose; a requested unit takes precedence over the file's."""
    said = str(dataset.get("DoseUnits") or "").strip().upper()
    if said == "RELATIVE":
        raise InputError(f"{path}: its dose is relative, not in Gy; export the absolute dose")
    if unit is not None:
        if said and said != unit.upper():
            warnings.append(
                f"{path.name}: its dose was read in {unit}, as asked, though the file says {said}"
            )
        return UNITS[unit]
    for name, factor in UNITS.items():
        if said == name.upper():
            if name != "Gy":
                warnings.append(
                    f"{path.name}: its dose is in {name}, which is not a DICOM unit; it was read as such"
                )
            return factor
    what = f"in {said}, not in Gy" if said else "without a unit"
    raise InputError(
        f"{path}: its dose is {what}; export the absolute dose, or say with --dose-unit which of "
        f"{', '.join(UNITS)} it is in"
    )


def check_height(most_gy: float, path: Path) -> None:
    """Raise `InputError` for a dose that no plan gives."""
    if most_gy > MOST_GY:
        raise InputError(
            f"{path}: its highest value is {most_gy:g}, too much for Gy; if it is in cGy, say --dose-unit cGy"
        )


def _grid(
    dataset: Dataset, path: Path, warnings: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Origin (3,), direction (3, 3; columns are x, y, z), spacing (x, y, z), and the order of frames that makes
    them ascend along row x column."""
    origin = _numbers(dataset, "ImagePositionPatient", path, 3)
    cosines = _numbers(dataset, "ImageOrientationPatient", path, 6)
    between_rows, between_columns = _numbers(dataset, "PixelSpacing", path, 2)
    row, column = cosines[:3], cosines[3:]
    if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > ORIENTATION_TOLERANCE:
        raise InputError(f"{path}: its Image Orientation (Patient) is not two perpendicular directions")
    if between_rows <= 0 or between_columns <= 0:
        raise InputError(f"{path}: its Pixel Spacing is not usable")
    normal = np.cross(row, column)
    frames = int(_number(dataset, "NumberOfFrames", path)) if "NumberOfFrames" in dataset else 1
    if frames < 2:
        raise InputError(f"{path}: holds a single plane of dose; a volume is needed")
    offsets = _offsets(_numbers(dataset, "GridFrameOffsetVector", path, frames), origin, normal, path)
    order = np.argsort(offsets, kind="stable")
    steps = np.diff(offsets[order])
    if steps.min() <= SAME_MM:
        raise InputError(f"{path}: two of its frames are at the same place (Grid Frame Offset Vector)")
    step = float(steps.mean())
    off = float(np.abs(offsets[order] - offsets[order][0] - step * np.arange(frames)).max())
    if off > UNEVEN_LIMIT_MM:
        raise InputError(
            f"{path}: its frames are not evenly spaced ({steps.min():g} to {steps.max():g} mm); "
            "export the dose on a regular grid"
        )
    if off > UNEVEN_WARNING_MM:
        warnings.append(
            f"{path.name}: its frames are not quite evenly spaced: up to {off:.2f} mm from a regular {step:.4g} mm grid"
        )
    first = origin + offsets[order][0] * normal
    return (
        first,
        np.stack([row, column, normal], axis=1),
        np.array([between_columns, between_rows, step]),
        order,
    )


def _offsets(vector: np.ndarray, origin: np.ndarray, normal: np.ndarray, path: Path) -> np.ndarray:
    """Places of the frames along the normal, in mm from Image Position (Patient).

    PS3.3 C.8.8.3.2 knows two ways: a vector that begins with 0 counts from the position; one that begins with the
    position's z, on an axial grid, holds z coordinates.
    """
    if abs(vector[0]) <= SAME_MM:
        return vector
    axial = abs(abs(normal[2]) - 1) <= ORIENTATION_TOLERANCE
    if axial and abs(vector[0] - origin[2]) <= UNEVEN_LIMIT_MM:
        return (vector - origin[2]) * np.sign(normal[2])
    raise InputError(
        f"{path}: its Grid Frame Offset Vector begins with {vector[0]:g}, which is neither 0 nor the z of its position "
        f"({origin[2]:g}); where its frames lie is unknown"
    )


def _value(dataset: Dataset, keyword: str, path: Path) -> Any:
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom converts on access, and raises what the conversion raises
        value = None
    if value is None or value == "":
        name = pydicom.datadict.dictionary_description(keyword)
        raise InputError(f"{path}: its {name} is missing or damaged; export it again")
    return value


def _number(dataset: Dataset, keyword: str, path: Path) -> float:
    value = _value(dataset, keyword, path)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        name = pydicom.datadict.dictionary_description(keyword)
        raise InputError(f"{path}: its {name} is {str(value)!r}, not a number; export it again") from error


def _numbers(dataset: Dataset, keyword: str, path: Path, count: int) -> np.ndarray:
    value = _value(dataset, keyword, path)
    try:
        values = np.array(list(value) if isinstance(value, MultiValue) else [value], dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if len(values) != count or not np.isfinite(values).all():
        name = pydicom.datadict.dictionary_description(keyword)
        raise InputError(
            f"{path}: its {name} has {len(values)} numbers where {count} are needed; export it again"
        )
    return values
