"""The DICOM files of a folder: the header of each as far as reading a CT needs it, and which are damaged.

One pass without pixels: by `quick_header` where a file is ordinary, else by pydicom. Unreadable files are remembered
and handled later, when it is known whether they matter for the chosen series.
"""

from __future__ import annotations

import os
import struct
import warnings as python_warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset

from soars.ct.quick_header import quick_header, wanted_tags
from soars.errors import InputError
from soars.headers.deflated import check_inflated_size

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
#: Enhanced CT Image Storage, and Legacy Converted Enhanced CT Image Storage.
ENHANCED_CT = (f"{CT_IMAGE}.1", f"{CT_IMAGE}.2")
DICOM_DIRECTORY = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
#: Files below a folder that holds no DICOM itself are searched, but not more than this.
MOST_FILES = 20000
#: Names by which DICOM files are usually known; an empty file of such a name is a slice that was lost on the way.
DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")

_KEYWORDS = (
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "SliceThickness",
    "GantryDetectorTilt",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AcquisitionNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "EchoNumbers",
    "ConvolutionKernel",
    "FilterType",
    "KVP",
    "ContrastBolusAgent",
    "ReconstructionDiameter",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "LossyImageCompression",
)
_WANTED = wanted_tags(_KEYWORDS)


@dataclass(frozen=True)
class Header:
    """One file's header: the values of the attributes in use, and where its pixels begin (-1: there are none).

    Of a file with several frames each has a header, whose ``frame`` counts from 0."""

    path: Path
    values: dict[str, Any]
    transfer_syntax: str
    pixels_at: int
    frame: int = 0

    def text(self, keyword: str) -> str:
        """The value as text, "" when it is missing or empty."""
        value = self.values.get(keyword)
        return "" if value is None else str(value).strip()

    def number(self, keyword: str) -> float | None:
        """The value as a finite number, None when it is missing, empty or not a number."""
        try:
            value = float(self.text(keyword))
        except ValueError:
            return None
        return value if np.isfinite(value) else None

    def numbers(self, keyword: str, count: int) -> list[float]:
        """`count` finite numbers. Raises `InputError` naming file and attribute."""
        value = self.values.get(keyword)
        numbers: list[float] = []
        if value is not None and not isinstance(value, str):
            try:
                numbers = [float(v) for v in (value if hasattr(value, "__len__") else [value])]
            except (TypeError, ValueError):
                numbers = []
        if len(numbers) != count or not np.isfinite(numbers).all():
            state = f"is {self.text(keyword)!r}, not {count} numbers" if self.text(keyword) else "is missing"
            raise InputError(f"{self.path}: {readable(keyword)} {state}; the slice cannot be placed")
        return numbers


@dataclass(frozen=True)
class DamagedFile:
    """A DICOM file that cannot be used: why, and its series ("" when even that is lost)."""

    path: Path
    reason: str
    series_uid: str = ""


@dataclass
class FolderContents:
    """What a folder holds: headers of DICOM files, other files, and DICOM files that are damaged."""

    path: Path
    headers: list[Header] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    damaged: list[DamagedFile] = field(default_factory=list)


def scan_folder(folder: Path) -> FolderContents:
    """Read the header of every DICOM file in `folder`; when it has none itself, of those below it.

    Raises `InputError` when there is no such folder or it holds no DICOM file that can be read.
    """
    if not folder.exists():
        raise InputError(f"{folder}: there is no such folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    try:
        direct = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
    found = FolderContents(folder)
    _scan_files(found, direct)
    if not found.headers and not found.damaged:
        _scan_files(found, _files_below(folder))
    if found.headers:
        return found
    if found.damaged:
        raise InputError(f"{found.damaged[0].path}: {found.damaged[0].reason}")
    if not found.others:
        raise InputError(f"{folder}: the folder is empty; give a folder with a CT")
    n = len(found.others)
    raise InputError(
        f"{folder}: holds no DICOM image (but {n} other file{'s' * (n > 1)}); give a folder with a CT"
    )


def is_dicom(path: Path) -> bool:
    """Whether the file looks like DICOM: the DICM mark, or an old file that begins with group 0002 or 0008."""
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:132] == b"DICM":
        return True
    # without preamble: group 0002 or 0008, a low element, then a VR in capitals or a 32-bit length below 65536
    old = len(start) >= 8 and start[:2] in (b"\x02\x00", b"\x08\x00") and start[3] == 0
    vr_or_length = (start[4:6].isalpha() and start[4:6].isupper()) or start[6:8] == b"\0\0"
    return old and vr_or_length


def read_dataset(path: Path, **options: Any) -> Dataset:
    """A DICOM file by pydicom, whether it has a preamble and file meta information or, as Elekta XiO and Monaco write
    RTSTRUCTs and RTDOSEs, neither; its transfer syntax is in the file meta information in any case.

    ``options`` are those of `pydicom.dcmread`. Raises `InputError` for a file that is not DICOM, `OSError`, and what
    pydicom raises over damaged data.
    """
    if not is_dicom(path):
        raise InputError(f"{path} is not a DICOM file")
    check_inflated_size(path)
    dataset = pydicom.dcmread(path, force=True, **options)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(
            "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else BIG_ENDIAN
        )
    return dataset


def read_header(path: Path) -> Header:
    """The header of one DICOM file. Raises `InputError` when it is damaged."""
    try:
        quick = quick_header(path, _WANTED)
        if quick is not None:
            values, syntax, at, more = quick
            return Header(path, values, syntax, at if more else -1)
        check_inflated_size(path)
        with (
            path.open("rb") as file,
            pydicom_config.disable_value_validation(),
            python_warnings.catch_warnings(),
        ):
            python_warnings.simplefilter("ignore")
            tags: list[Any] = ["SpecificCharacterSet", *_KEYWORDS]
            data = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
            at = file.tell()
            more = bool(file.read(1))
            values = {keyword: _value(data, keyword) for keyword in _KEYWORDS}
        syntax = str(getattr(data.file_meta, "TransferSyntaxUID", "") or "")
        if not syntax:
            syntax = "1.2.840.10008.1.2" if data.original_encoding[0] else "1.2.840.10008.1.2.1"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except InputError:
        raise
    except Exception as error:  # pydicom raises any kind of error over damaged data
        raise InputError(f"{path}: the DICOM file is damaged or cut off; copy it again") from error
    if syntax == DEFLATED:
        at, more = 0, True  # positions mean nothing there; decoding shows whether the pixels are complete
    return Header(path, values, syntax, at if more else -1)


def readable(keyword: str) -> str:
    """`PixelSpacing` -> `Pixel Spacing`, as the standard writes it."""
    return pydicom.datadict.dictionary_description(keyword)


def check_complete(header: Header) -> None:
    """Raise `InputError` when the file ends before its pixels do, compressed or not, or when what follows them belongs
    to nothing, so that something must have come in before."""
    if header.transfer_syntax == DEFLATED:
        return
    cut_off = InputError(f"{header.path}: the file is cut off inside its pixels; copy it again")
    size = header.path.stat().st_size
    if header.pixels_at < 0:
        raise cut_off
    with header.path.open("rb") as file:
        file.seek(header.pixels_at)
        start = file.read(12)
        if len(start) < 12:
            raise cut_off
        explicit = start[4:6] in (b"OW", b"OB")
        at = header.pixels_at + (12 if explicit else 8)
        order = ">I" if header.transfer_syntax == BIG_ENDIAN else "<I"
        (length,) = struct.unpack(order, start[8:12] if explicit else start[4:8])
        if length != 0xFFFFFFFF:
            rows, columns, bits = (int(header.number(k) or 0) for k in ("Rows", "Columns", "BitsAllocated"))
            frames = int(header.number("NumberOfFrames") or 1)
            if size < at + length or length < frames * rows * columns * (bits // 8):
                raise cut_off
            file.seek(at + length)
            if not _may_follow(file.read(4), order):
                raise InputError(
                    f"{header.path}: the file continues after its pixels with unexpected data: it is damaged; "
                    f"copy it again"
                )
            return
        while True:  # items of compressed pixels (PS3.5 A.4), up to the delimiter
            file.seek(at)
            item = file.read(8)
            if len(item) < 8:
                raise cut_off
            group, element, length = struct.unpack("<HHI", item)
            if (group, element) == (0xFFFE, 0xE0DD):
                return
            at += 8 + length
            if (group, element) != (0xFFFE, 0xE000) or at > size:
                raise cut_off


def _may_follow(start: bytes, order: str) -> bool:
    """Whether pixels may be followed by what begins so: nothing, zeros, or an element of a later group (padding, a
    signature)."""
    if not start.strip(b"\0"):
        return True
    return len(start) == 4 and struct.unpack_from(order[0] + "H", start)[0] > 0x7FE0


def _scan_files(found: FolderContents, paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            if path.stat().st_size == 0:
                if path.suffix.lower() in DICOM_SUFFIXES:
                    found.damaged.append(DamagedFile(path, "the file is empty (0 bytes); copy it again"))
                else:
                    found.others.append(path)
                continue
            if not is_dicom(path):
                found.others.append(path)
                continue
            header = read_header(path)
        except InputError as error:
            found.damaged.append(DamagedFile(path, str(error).removeprefix(f"{path}: ")))
            continue
        except OSError as error:
            found.damaged.append(DamagedFile(path, f"cannot be read ({error.strerror})"))
            continue
        if header.text("SOPClassUID") == DICOM_DIRECTORY or path.name.upper() == "DICOMDIR":
            continue
        if header.pixels_at < 0 and header.text("SOPClassUID") in ("", CT_IMAGE, *ENHANCED_CT):
            reason = "the file holds no pixels or is cut off before them; copy it again"
            found.damaged.append(DamagedFile(path, reason, header.text("SeriesInstanceUID")))
        else:
            found.headers.append(header)


def _files_below(folder: Path) -> list[Path]:
    below: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if Path(root) != folder:
            below += [Path(root) / name for name in sorted(names) if not name.startswith(".")]
        if len(below) > MOST_FILES:
            raise InputError(f"{folder}: more than {MOST_FILES} files below it; give the folder of one CT")
    return below


def _value(data: Dataset, keyword: str) -> Any:
    """The value, or as text what is in the file when it is not what the attribute should hold."""
    try:
        return data.get(keyword)
    except Exception:  # pydicom converts on access, and raises what the conversion raises
        raw = data.get_item(keyword)
        value = getattr(raw, "value", b"")
        return value.decode("latin-1").strip() if isinstance(value, bytes) else str(value)
