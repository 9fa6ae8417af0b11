"""DICOM files whose pixels would decode to far more than their header says: refused before a decoder takes memory."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from soars.ct.series import read_series
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.headers.deflated import check_inflated_size
from soars.headers.frames import check_frame
from soars.headers.memory import check_memory, free_memory

SYNTAX = "1.2.840.10008.1.2."
JPEG_2000, JPEG_LOSSLESS, JPEG_LS = f"{SYNTAX}4.90", f"{SYNTAX}4.70", f"{SYNTAX}4.80"
HERE = Path("slice.dcm")


def jpeg(rows: int, columns: int, components: int = 1, marker: int = 0xC3) -> bytes:
    """The beginning of a JPEG (or JPEG-LS) stream: SOI, an application segment, the frame header."""
    frame = struct.pack(">HBHHB", 8 + 3 * components, 16, rows, columns, components) + bytes(3 * components)
    return b"\xff\xd8\xff\xe0\x00\x04ab\xff" + bytes([marker]) + frame + b"\xff\xda" + bytes(20)


def jpeg_2000(rows: int, columns: int, components: int = 1, tile: int = 1 << 20) -> bytes:
    """The beginning of a JPEG 2000 code stream: SOC and SIZ."""
    size = struct.pack(
        ">HHH8IH", 0xFF51, 38 + 3 * components, 0, columns, rows, 0, 0, tile, tile, 0, 0, components
    )
    return b"\xff\x4f" + size + bytes(3 * components + 20)


GOOD = {
    "JPEG": (jpeg(512, 512), JPEG_LOSSLESS),
    "JPEG-LS": (jpeg(512, 512, marker=0xF7), JPEG_LS),
    "JPEG 2000": (jpeg_2000(512, 512), JPEG_2000),
    "RLE": (struct.pack("<16I", 2, 64, 200, *[0] * 13) + bytes(300), str(RLELossless)),
}


@pytest.mark.parametrize(("stream", "syntax"), GOOD.values(), ids=GOOD)
def test_a_stream_of_the_headers_size_passes(stream: bytes, syntax: str) -> None:
    check_frame(stream, syntax, (512, 512, 16), HERE)


BAD = {
    "JPEG too large": (jpeg(65535, 65535), JPEG_LOSSLESS),
    "JPEG without rows": (jpeg(0, 512), JPEG_LOSSLESS),
    "JPEG in colour": (jpeg(512, 512, 3), JPEG_LOSSLESS),
    "no JPEG": (bytes(100), JPEG_LOSSLESS),
    "JPEG that is cut off": (jpeg(512, 512)[:9], JPEG_LOSSLESS),
    "JPEG-LS too large": (jpeg(30000, 30000, marker=0xF7), JPEG_LS),
    "JPEG 2000 too large": (jpeg_2000(60000, 60000), JPEG_2000),
    "JPEG 2000 of tiny tiles": (jpeg_2000(512, 512, tile=1), JPEG_2000),
    "JPEG 2000 without tiles": (jpeg_2000(512, 512, tile=0), JPEG_2000),
    "JPEG 2000 of many components": (jpeg_2000(512, 512, 16384), JPEG_2000),
    "no JPEG 2000": (bytes(100), JPEG_2000),
    "RLE of many segments": (struct.pack("<16I", 15, *[64] * 15), str(RLELossless)),
    "RLE that is far too long": (struct.pack("<16I", 2, 64, 200, *[0] * 13) + bytes(4 << 20), str(RLELossless)),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "syntax"), BAD.values(), ids=BAD)
def test_a_stream_of_another_size_is_refused(stream: bytes, syntax: str) -> None:
    with pytest.raises(InputError, match="slice.dcm: its (compressed pixels|pixels cannot be decoded)"):
        check_frame(stream, syntax, (512, 512, 16), HERE)


@pytest.mark.parametrize(("rows", "columns"), [(60000, 60000), (1, 65535), (0, 512)])
def test_a_matrix_that_no_scanner_makes_is_refused(rows: int, columns: int) -> None:
    with pytest.raises(InputError, match="more than any scan"):
        check_frame(jpeg(rows, columns), JPEG_LOSSLESS, (rows, columns, 16), HERE)


# --- whole series -------------------------------------------------------------------------------------------------
@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """A small CT series, one file a slice."""
    ramp = np.linspace(-1000, 1500, 40 * 64 * 64).reshape(40, 64, 64)
    image = sitk.GetImageFromArray(ramp.astype(np.int16))
    image.SetSpacing((3.0, 3.0, 5.0))
    write_ct_series(image, tmp_path / "ct", patient_id="P", patient_name="P")
    return sorted((tmp_path / "ct").iterdir())


def with_stream(path: Path, stream: bytes, syntax: str) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)


def deflated(path: Path, grown: int) -> None:
    """The file with its data set deflated, followed by ``grown`` bytes of private nothing."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = f"{SYNTAX}1.99"
    dataset.save_as(path, enforce_file_format=True)
    raw = path.read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    body = zlib.decompress(raw[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [raw[:start], packer.compress(body)]
    for n in range(grown >> 20):
        element = struct.pack("<HH2sHI", 0x7FE1, 0x1001 + n, b"OB", 0, 1 << 20)
        parts.append(packer.compress(element + bytes(1 << 20)))
    path.write_bytes(b"".join(parts) + packer.flush())


BOMBS: dict[str, Callable[[Path], None]] = {
    "JPEG 2000": lambda path: with_stream(path, jpeg_2000(60000, 60000), JPEG_2000),
    "JPEG": lambda path: with_stream(path, jpeg(65000, 65000), JPEG_LOSSLESS),
    "RLE": lambda path: with_stream(path, BAD["RLE that is far too long"][0], str(RLELossless)),
    "deflated": lambda path: deflated(path, 512 << 20),
}  # fmt: skip
LIMIT = 3 << 30


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX's")
@pytest.mark.parametrize("kind", BOMBS)
def test_one_slice_that_is_a_bomb_costs_a_sentence(series: list[Path], kind: str, tmp_path: Path) -> None:
    """With 3 GB of address space, of which Python with its libraries takes about one."""
    BOMBS[kind](series[2])
    assert series[2].stat().st_size < 8 << 20
    code = "import sys; from soars.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        code,
        "segment",
        str(series[0].parent),
        "--output",
        str(tmp_path / "out"),
    ]
    source = str(Path(sys.modules["soars"].__file__ or "").parents[1])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("soars: error: ") and series[2].name in last and "memory" not in last


def test_an_ordinary_deflated_series_is_read(series: list[Path]) -> None:
    before, _, _ = read_series(series[0].parent)
    for path in series:
        deflated(path, 0)
        check_inflated_size(path)
    after, _, _ = read_series(series[0].parent)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after))


def test_an_ordinary_rle_series_is_read(series: list[Path]) -> None:
    before, _, _ = read_series(series[0].parent)
    for path in series:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path, enforce_file_format=True)
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        check_frame(frame, str(RLELossless), (64, 64, 16), path)
    after, _, _ = read_series(series[0].parent)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after))


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_compressed_pixels_are_decoded_within_a_time(
    series: list[Path], photometric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either way of decoding; what happens at the end of the time is in `test_ending.py`."""
    for path in series:
        dataset = pydicom.dcmread(path)
        dataset.PhotometricInterpretation = photometric
        dataset.compress(RLELossless)
        dataset.save_as(path, enforce_file_format=True)
    limits: dict[str, float] = {}

    @contextmanager
    def noted(seconds: float, what: Path) -> Iterator[None]:
        limits[what.name] = seconds
        yield

    monkeypatch.setattr("soars.ct.decode.within", noted)
    read_series(series[0].parent)
    assert limits.keys() == ({"ct"} if photometric == "MONOCHROME2" else {path.name for path in series})
    assert all(60 <= seconds < 120 for seconds in limits.values())


@pytest.mark.skipif(free_memory() is None, reason="the system does not say how much memory is free")
def test_what_does_not_fit_into_memory_is_said_before_it_is_tried() -> None:
    check_memory(1 << 20, HERE)
    with pytest.raises(InputError, match=r"needs 1125899.9 GB of memory, and [0-9.]+ GB are free"):
        check_memory(1 << 50, HERE)
