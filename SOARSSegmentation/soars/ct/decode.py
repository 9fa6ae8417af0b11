"""Stored pixel values of any DICOM file, compressed or not, exactly as stored: not rescaled, not inverted.

GDCM (inside SimpleITK) decodes compressed pixels, but returns values for display: it inverts MONOCHROME1 and applies
some scales. So each frame is handed to it as a plain MONOCHROME2 image of its own.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, RLELossless, SecondaryCaptureImageStorage

from soars.ct.itk_messages import itk_messages
from soars.errors import InputError
from soars.headers.frames import check_frame, check_matrix
from soars.headers.memory import check_memory
from soars.staging import TemporaryFolder
from soars.supervise import within

_SYNTAX = "1.2.840.10008.1.2"
_NATIVE = {_SYNTAX} | {f"{_SYNTAX}.{s}" for s in ("1", "1.99", "2")}
#: Transfer syntaxes that GDCM, inside SimpleITK, decodes: native, deflated, RLE, JPEG, JPEG-LS, JPEG 2000.
LOSSLESS_SYNTAXES = _NATIVE | {f"{_SYNTAX}.{s}" for s in ("4.57", "4.70", "4.80", "4.90", "5")}
LOSSY_SYNTAXES = {f"{_SYNTAX}.{s}" for s in ("4.50", "4.51", "4.81", "4.91")}
FRAMES_AT_ONCE = 32
DECODED_BYTES = 8
"""Of memory for a pixel while it is decoded: 32-bit values, and once more while frames are joined."""
_DECODING_S, _BYTES_PER_S = 60.0, 500_000
"""Decoders give some ten million bytes a second; a stream can be made so that they take hours over a slice."""
_PIXEL_MODULE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


def check_syntax(syntax: str, path: Path) -> None:
    """Raise `InputError`, naming it, for a compression that cannot be decoded here."""
    if syntax not in LOSSLESS_SYNTAXES | LOSSY_SYNTAXES:
        name = UID(syntax).name
        raise InputError(f"{path}: is compressed as {name}, which is not read here; export it uncompressed")


def stored_frames(dataset: Dataset, path: Path) -> npt.NDArray[np.integer]:
    """All frames as stored integers, shape (frames, rows, columns).

    Raises `InputError` for a compression that is not read, and for pixels that are missing, damaged or cut off.
    """
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    check_syntax(syntax, path)
    try:
        _check_sizes(dataset, syntax, path)
        with python_warnings.catch_warnings(), decoding(path, _bytes_of(dataset)):
            python_warnings.simplefilter("ignore")
            if syntax in _NATIVE or syntax == RLELossless:
                values = _within_bits(np.asarray(dataset.pixel_array), dataset)
            else:
                values = np.concatenate(list(_decoded(dataset, path)))
    except InputError:
        raise
    except Exception as error:  # pydicom raises any kind of error over damaged data
        raise InputError(f"{path}: its pixels are missing, damaged or cut off; export it again") from error
    if values.ndim == 2:
        values = values[None]
    wanted = (int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns))
    if values.shape != wanted:
        raise InputError(f"{path}: is not a volume of single values (shape {values.shape}, not {wanted})")
    return values


def decoding(path: Path, decoded_bytes: int) -> AbstractContextManager[None]:
    """For a block that decodes compressed pixels: it may take some time, and no longer (`soars.supervise.within`)."""
    return within(_DECODING_S + decoded_bytes / _BYTES_PER_S, path)


def _bytes_of(dataset: Dataset) -> int:
    count, bits = int(dataset.get("NumberOfFrames") or 1), int(dataset.BitsAllocated)
    return count * int(dataset.Rows) * int(dataset.Columns) * max(bits // 8, 1)


def _check_sizes(dataset: Dataset, syntax: str, path: Path) -> None:
    """Refuse pixels that would decode to more than the header says, before anything decodes them."""
    count, bits = int(dataset.get("NumberOfFrames") or 1), int(dataset.BitsAllocated)
    size = int(dataset.Rows), int(dataset.Columns), bits
    check_matrix(size[0], size[1], path)
    check_memory(count * size[0] * size[1] * DECODED_BYTES, path)
    if syntax not in _NATIVE:
        for frame in generate_frames(dataset.PixelData, number_of_frames=count):
            check_frame(frame, syntax, size, path)


def _within_bits(values: npt.NDArray[np.integer], dataset: Dataset) -> npt.NDArray[np.integer]:
    """Clear the bits above those stored, which may hold anything (PS3.5, 8.1.1)."""
    unused = values.dtype.itemsize * 8 - int(dataset.BitsStored)
    if unused <= 0 or int(dataset.HighBit) != int(dataset.BitsStored) - 1 or values.dtype.kind not in "iu":
        return values
    shifted = np.left_shift(values, unused)
    return np.right_shift(shifted, unused, out=shifted)  # restores the sign, if there is one


def _decoded(dataset: Dataset, path: Path) -> Iterator[npt.NDArray[np.integer]]:
    """Frames by GDCM, some at a time, shape (n, rows, columns)."""
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = generate_frames(dataset.PixelData, number_of_frames=count)
    with TemporaryFolder() as folder:
        while some := list(islice(frames, FRAMES_AT_ONCE)):
            files = [_single(frame, dataset, folder / f"{k:02d}.dcm", k) for k, frame in enumerate(some)]
            yield _read_by_gdcm(files, path)


def _single(frame: bytes, dataset: Dataset, target: Path, number: int) -> Path:
    """One compressed frame as a file of its own."""
    single = Dataset()
    single.file_meta = FileMetaDataset()
    single.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    single.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    single.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number + 1}")
    single.SOPClassUID = SecondaryCaptureImageStorage
    single.SOPInstanceUID = single.file_meta.MediaStorageSOPInstanceUID
    for keyword in _PIXEL_MODULE:
        setattr(single, keyword, dataset[keyword].value)
    single.PhotometricInterpretation = "MONOCHROME2"
    single.PixelData = encapsulate([frame])
    single["PixelData"].VR = "OB"
    single["PixelData"].is_undefined_length = True
    single.save_as(target, enforce_file_format=True)
    return target


def _read_by_gdcm(files: Sequence[Path], path: Path) -> npt.NDArray[np.integer]:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(file) for file in files])
    reader.SetOutputPixelType(sitk.sitkInt32)
    try:
        with itk_messages():
            return sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(f"{path}: its pixels cannot be decoded; copy or export it again") from error
