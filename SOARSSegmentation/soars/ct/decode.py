"""Stored pixel values of any DICOM file, compressed or not, exactly as stored: not rescaled, not inverted.

GDCM (inside SimpleITK) decodes compressed pixels, but returns values for display: it inverts MONOCHROME1 and applies
some scales. So each frame is handed to it as a plain MONOCHROME2 image of its own.
"""

from __future__ import annotations

import math
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
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless, SecondaryCaptureImageStorage

from soars.ct.itk_messages import itk_messages
from soars.errors import InputError
from soars.headers.frames import check_frame, check_matrix
from soars.headers.memory import check_memory
from soars.staging import TemporaryFolder
from soars.supervise import within

_SYNTAX = "1.2.840.10008.1.2"
NATIVE_SYNTAXES = {_SYNTAX} | {f"{_SYNTAX}.{s}" for s in ("1", "1.99", "2")}
#: Transfer syntaxes that GDCM, inside SimpleITK, decodes: native, deflated, RLE, JPEG, JPEG-LS, JPEG 2000.
LOSSLESS_SYNTAXES = NATIVE_SYNTAXES | {f"{_SYNTAX}.{s}" for s in ("4.57", "4.70", "4.80", "4.90", "5")}
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
            if syntax in NATIVE_SYNTAXES or syntax == RLELossless:
                values = _within_bits(_words(dataset, syntax), dataset, path)
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
    if syntax not in NATIVE_SYNTAXES:
        for frame in generate_frames(dataset.PixelData, number_of_frames=count):
            check_frame(frame, syntax, size, path)


def _words(dataset: Dataset, syntax: str) -> npt.NDArray[np.integer]:
    """The pixels of a native syntax or RLE by pydicom, but those that it gives otherwise than they are in the file: it
    clears the upper bits of words whose values are not in the lowest, and takes 32 bits in big endian for one word,
    where they are two with the lower one first (OW, PS3.5 A.3)."""
    bits, big = int(dataset.BitsAllocated), syntax == ExplicitVRBigEndian
    aside = _high_bit(dataset) != int(dataset.BitsStored) - 1
    if syntax == RLELossless or not (aside or (big and bits == 32)):
        return np.asarray(dataset.pixel_array)
    shape = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    size = math.prod(shape) * bits // 8
    raw = np.frombuffer(dataset.PixelData, np.uint8, size)
    if big and bits > 8:
        raw = raw.view(">u2").astype("<u2").view(np.uint8)
    kind = "i" if int(dataset.PixelRepresentation) == 1 else "u"
    return raw.view(f"<{kind}{bits // 8}").reshape(shape)


def _high_bit(dataset: Dataset) -> int:
    return int(dataset.get("HighBit", int(dataset.BitsStored) - 1))


def _within_bits(values: npt.NDArray[np.integer], dataset: Dataset, path: Path) -> npt.NDArray[np.integer]:
    """Clear the bits that are not in use, which may hold anything (PS3.5, 8.1.1).

    In old files values may lie in the highest bits, as the High Bit says and as those below, which are all 0, confirm.
    Else they are in the lowest bits and the High Bit is wrong, which is harmless."""
    bits, high = int(dataset.BitsStored), _high_bit(dataset)
    word = values.dtype.itemsize * 8
    if bits >= word or values.dtype.kind not in "iu":
        return values
    below = high + 1 - bits
    if below and not (below > 0 and high < word and not (values & ((1 << below) - 1)).any()):
        if not -(1 << bits - 1) <= int(values.min()) <= int(values.max()) < 1 << bits:
            raise InputError(
                f"{path}: its values need more than its {bits} Bits Stored, and its High Bit is {high}; export it again"
            )
        high = bits - 1
    shifted = np.left_shift(values, word - 1 - high)
    return np.right_shift(shifted, word - bits, out=shifted)  # restores the sign, if there is one


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
