"""Which kind of DICOM object a file is, by its SOP class."""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import UID

from soars.ct.dicom_files import DICOM_DIRECTORY, is_dicom, read_header
from soars.errors import InputError

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def sop_class(path: Path) -> str | None:
    """The SOP Class UID of a DICOM file ("" when it has none); None for a file that is not DICOM.

    `InputError` when the file is DICOM but damaged.
    """
    try:
        if not path.is_file() or not is_dicom(path):
            return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    header = read_header(path)
    found = header.text("SOPClassUID")
    if not found and header.text("Modality") in ("RTSTRUCT", "SEG"):
        return RTSTRUCT if header.text("Modality") == "RTSTRUCT" else SEGMENTATION
    return found


def kind(uid: str) -> str:
    """A SOP class in words."""
    if uid == DICOM_DIRECTORY:
        return "a DICOMDIR, the table of contents of a disc"
    return f"a DICOM object of the kind {UID(uid).name}" if uid else "a DICOM file without a SOP class"
