"""What the objects that reference a CT have in common: whose they are, and where its slices lie."""

from __future__ import annotations

import logging
import warnings as python_warnings

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import validate_value

from soars.ct.series import CtSeries
from soars.dicom.provenance import dicom_text
from soars.errors import InputError
from soars.structures.model import Geometry

logger = logging.getLogger(__name__)

DEIDENTIFICATION = "SOARS: patient and study attributes emptied, UIDs kept"
#: A CT slice may lie this far from its place on the regular grid (see `soars.ct.stack`).
SLICE_TOLERANCE_MM = 0.5
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")


def slice_origins(geometry: Geometry, reference: CtSeries) -> npt.NDArray[np.float64]:
    """LPS mm of the first pixel of every slice, shape (z, 3): as its file says, where it can be read."""
    grid = geometry.to_physical([(z, 0, 0) for z in range(geometry.size[2])])
    origins = grid.copy()
    if reference.frame_numbers:
        return grid  # the places of frames were read with them
    for z, file in enumerate(reference.files):
        try:
            with python_warnings.catch_warnings():
                python_warnings.simplefilter("ignore")
                header = pydicom.dcmread(
                    file, stop_before_pixels=True, force=True, specific_tags=["ImagePositionPatient"]
                )
            position = header.get("ImagePositionPatient")
            origins[z] = [float(v) for v in position] if position else grid[z]
        except OSError:  # the CT is no longer there; its grid still is
            break
    off = np.linalg.norm(origins - grid, axis=1)
    if off.max(initial=0.0) > SLICE_TOLERANCE_MM:
        z = int(off.argmax())
        raise InputError(
            f"the structures are not on the grid of the CT series: its slice {reference.files[z].name} lies "
            f"{off[z]:.1f} mm from where they are; resample them to the CT first"
        )
    return origins


def add_patient_and_study(dataset: Dataset, reference: CtSeries, pseudonym: str | None) -> None:
    header = reference.header
    for keyword in (*PATIENT, *STUDY):
        setattr(dataset, keyword, copied(header, keyword) if pseudonym is None else "")
    dataset.StudyInstanceUID = reference.study_uid
    if pseudonym is not None:
        dataset.PatientName = dataset.PatientID = dicom_text(pseudonym)
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = DEIDENTIFICATION
        return
    if description := copied(header, "StudyDescription"):
        dataset.StudyDescription = description
    method = copied(header, "DeidentificationMethod")
    if copied(header, "PatientIdentityRemoved") == "YES" and method:  # a method is required with it
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", method


def copied(header: Dataset, keyword: str) -> str:
    """A value of the CT's header; empty when it is missing, damaged or not valid, which DICOM allows for these."""
    try:
        with pydicom_config.disable_value_validation():
            value = header.get(keyword)
        if isinstance(value, MultiValue):
            value = value[0] if value else None
        text = "" if value is None else str(value).strip()
        validate_value(dictionary_VR(keyword), text, pydicom_config.RAISE)
        if keyword == "PatientSex" and text not in ("", "M", "F", "O"):
            raise ValueError(text)
        return text
    except Exception:  # pydicom raises whatever a damaged value leads to
        logger.warning("%s of the CT is not valid; it is left empty in what is written", keyword)
        return ""
