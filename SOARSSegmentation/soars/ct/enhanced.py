"""Enhanced CT: one file with many frames, each with its position and scale in functional groups.

Every frame becomes a header of its own, as if it were a slice in a file, so that every check of slices also applies
to frames. Source: DICOM PS3.3, A.38 (Enhanced CT Image IOD) and C.7.6.16 (functional groups).
"""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import replace
from typing import Any

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset

from soars.ct.dicom_files import ENHANCED_CT, Header, read_dataset
from soars.errors import InputError

#: Keyword of a header -> functional group and keyword there.
_IN_GROUPS = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "RescaleType": ("PixelValueTransformationSequence", "RescaleType"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "ImageType": ("CTImageFrameTypeSequence", "FrameType"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "ReconstructionDiameter": ("CTReconstructionSequence", "ReconstructionDiameter"),
    "GantryDetectorTilt": ("CTGeometrySequence", "GantryDetectorTilt"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
}


def is_enhanced(header: Header) -> bool:
    """Whether a file is an enhanced CT."""
    return header.text("SOPClassUID") in ENHANCED_CT


def frames_of(header: Header) -> list[Header]:
    """The frames of an enhanced CT as headers, in the file's order, ``frame`` counting from 0.

    Raises `InputError` when the functional groups are missing or fewer than the frames.
    """
    path = header.path
    try:
        with pydicom_config.disable_value_validation(), python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            dataset = read_dataset(path, stop_before_pixels=True)
            shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]))
            groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
            count = int(dataset.get("NumberOfFrames") or 1)
            if len(groups) != count:
                raise InputError(
                    f"{path}: has {count} frames but places for {len(groups)} of them; export the CT again"
                )
            return [
                replace(header, values={**header.values, **_values(shared, group)}, frame=k)
                for k, group in enumerate(groups)
            ]
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # pydicom raises any kind of error over damaged data
        raise InputError(f"{path}: the DICOM file is damaged or cut off; copy it again") from error


def _values(shared: Dataset, frame: Dataset) -> dict[str, Any]:
    """The functional groups of one frame; its own take precedence over the shared ones."""
    found: dict[str, Any] = {}
    for keyword, (sequence, inner) in _IN_GROUPS.items():
        for groups in (frame, shared):
            items = groups.get(sequence)
            value = items[0].get(inner) if items else None
            if value is not None:
                found[keyword] = value
                break
    return found
