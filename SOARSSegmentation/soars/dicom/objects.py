"""What reading any DICOM object needs: whole or not, damage in one sentence, and whose it is."""

from __future__ import annotations

import struct
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom import config as pydicom_config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from soars.ct.dicom_files import read_dataset
from soars.errors import InputError

_UNDEFINED_LENGTH = 0xFFFFFFFF


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """What pydicom raises over damaged bytes, as one sentence; its warnings are kept from the screen."""
    try:
        with python_warnings.catch_warnings(), pydicom_config.disable_value_validation():
            python_warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
        pydicom.errors.BytesLengthException,
        struct.error,
    ) as error:
        raise InputError(f"{path} is cut short or damaged; copy or export it again") from error


def read_object(path: Path) -> Dataset:
    """A DICOM file that is whole; to be called within `damage_reported`."""
    dataset = read_dataset(path)
    for element in dataset.elements():
        # pydicom reads a file that ends early without complaint
        if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
            continue
        if len(element.value or b"") < element.length:
            raise InputError(f"{path} is cut short or damaged; copy or export it again")
    return dataset


def plain(value: object) -> str:
    """Text of one value; "" for none. Some write a name with a backslash, which pydicom takes for several."""
    if isinstance(value, (list, pydicom.multival.MultiValue)):
        return "/".join(map(str, value)).strip()
    return "" if value is None else str(value).strip(" \0")


def check_patient(path: Path, dataset: Dataset, header: Dataset, other: str = "CT") -> None:
    """Refuse a CT (or what ``other`` says ``header`` is of) of another patient; an ID that was taken away or replaced
    says nothing."""
    if any(plain(d.get("PatientIdentityRemoved")).upper() == "YES" for d in (dataset, header)):
        return
    own, its = plain(dataset.get("PatientID")), plain(header.get("PatientID"))
    if own and its and own != its:
        # the IDs themselves stay out of the message: it goes into logs
        raise InputError(
            f"{path} is of another patient than the {other}: their Patient IDs differ; give the {other} of this patient"
        )


def referenced_series(dataset: Dataset) -> list[str]:
    """Series Instance UIDs of the images that an RTSTRUCT (PS3.3 C.8.8.5) or a segmentation (C.12.4) references: beside
    its CT a contour may have been drawn on an MR."""
    series = list(dataset.get("ReferencedSeriesSequence") or ())
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            series += study.get("RTReferencedSeriesSequence") or ()
    return [uid for uid in (plain(item.get("SeriesInstanceUID")) for item in series) if uid]


def other_series(path: Path, dataset: Dataset, own: str) -> list[str]:
    """A warning when structures were drawn on other series than the CT, ``own``, though in its frame of reference, as
    on another phase or reconstruction; none where they do not say."""
    told = referenced_series(dataset)
    if not told or not own or own in told:
        return []
    return [f"{path.name} was made on another series than this CT: check that nothing moved between the two"]
