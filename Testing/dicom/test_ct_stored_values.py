"""HU by the standard, stored value times slope plus intercept, whatever is said about how to show them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from soars.ct.dicom_files import read_header
from soars.ct.series import read_series
from soars.ct.volume import slice_hu
from soars.errors import InputError

Write = Callable[..., list[Path]]
Change = Callable[[Path], None]
Edit = Callable[[Dataset, int], None]
Ramp = Callable[..., np.ndarray]


def hu_of(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).astype(int)


def inverted(ds: Dataset, k: int) -> None:
    ds.PhotometricInterpretation = "MONOCHROME1"


def twelve_bits(ds: Dataset, k: int) -> None:
    inverted(ds, k)
    ds.BitsStored, ds.HighBit = 12, 11


def compressed(program: str, *options: str) -> Callable[[Path], None]:
    def compress(path: Path) -> None:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install dcmtk")
        target = path.with_suffix(".new")
        done = subprocess.run([program, *options, str(path), str(target)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        target.replace(path)

    return compress


def rle(path: Path) -> None:
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)


@pytest.mark.parametrize(("dtype", "intercept"), [("<u2", -1024), ("<i2", 0), ("<i2", -1024)])
def test_monochrome1_says_how_to_show_not_what_is_there(
    tmp_path: Path, ct_series: Write, ramp: Ramp, dtype: str, intercept: int
) -> None:
    """PS3.3 C.7.6.3.1.2: the smallest value is shown white after VOI; the Modality LUT comes before."""
    ct_series(tmp_path, edit=inverted, dtype=dtype, intercept=intercept)
    image, _, warnings = read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(image), ramp())
    assert warnings == []


@pytest.mark.parametrize("slope", [0.5, 2])
def test_monochrome1_on_another_scale(tmp_path: Path, ct_series: Write, slope: float) -> None:
    hu = 2 * (np.mgrid[:6, :16, :20].sum(axis=0) * 20 - 500)
    ct_series(tmp_path, hu=hu, edit=inverted, slope=slope, intercept=-1024)
    np.testing.assert_array_equal(hu_of(read_series(tmp_path)[0]), hu)


@pytest.mark.parametrize("edit", [inverted, twelve_bits])
@pytest.mark.parametrize(
    "compress",
    [
        rle,
        compressed("dcmcjpeg", "+e1"),
        compressed("dcmcjpls"),
        compressed("dcmconv", "+tb"),
        compressed("dcmconv", "+td"),
    ],
    ids=["RLE", "JPEG", "JPEG-LS", "big endian", "deflated"],
)
def test_monochrome1_in_every_compression(
    tmp_path: Path,
    ct_series: Write,
    ramp: Ramp,
    compress: Callable[[Path], None],
    edit: Callable[..., None],
) -> None:
    for path in ct_series(tmp_path, edit=edit):
        compress(path)
    np.testing.assert_array_equal(hu_of(read_series(tmp_path)[0]), ramp())


def test_one_slice_shown_the_other_way_round(tmp_path: Path, ct_series: Write, ramp: Ramp) -> None:
    ct_series(tmp_path, edit=lambda ds, k: inverted(ds, k) if k == 3 else None)
    np.testing.assert_array_equal(hu_of(read_series(tmp_path)[0]), ramp())


# ---- padding


def padded(ramp: np.ndarray, value: int, ring: int) -> np.ndarray:
    """The ramp with a frame of ``value``, its inner line of ``ring``."""
    hu = ramp.copy().astype(int)
    hu[:, [0, 1, -1, -2], :] = ring
    hu[:, :, [0, 1, -1, -2]] = ring
    hu[:, [0, -1], :] = value
    hu[:, :, [0, -1]] = value
    return hu


@pytest.mark.parametrize(("value", "limit"), [(0, 40), (40, 0)])
def test_a_range_of_padding_values_becomes_air(
    tmp_path: Path, ct_series: Write, ramp: Ramp, value: int, limit: int
) -> None:
    """C.7.5.1.1.2: all stored values from Pixel Padding Value to Pixel Padding Range Limit, whichever is larger."""

    def pad(ds: Dataset, k: int) -> None:
        ds.add_new("PixelPaddingValue", "US", value + 1024)
        ds.add_new("PixelPaddingRangeLimit", "US", limit + 1024)

    hu = padded(ramp(), 0, 40)
    inside = hu[:, 2:-2, 2:-2]
    inside[(inside >= 0) & (inside <= 40)] = (
        50  # keep what is real out of the range where it touches the frame
    )
    hu[:, 8, 8] = 20  # but for one voxel of tissue in the middle
    ct_series(tmp_path, hu=hu, edit=pad)
    image, _, warnings = read_series(tmp_path)
    found = hu_of(image)
    assert (found[:, [0, 1, -1, -2], :] == -1024).all() and (found[:, :, [0, 1, -1, -2]] == -1024).all()
    np.testing.assert_array_equal(found[:, 2:-2, 2:-2], inside)
    assert len(warnings) == 1 and "padding" in warnings[0]


def test_a_range_below_air_needs_no_word(tmp_path: Path, ct_series: Write, ramp: Ramp) -> None:
    def pad(ds: Dataset, k: int) -> None:
        ds.add_new("PixelPaddingValue", "SS", -3024)
        ds.add_new("PixelPaddingRangeLimit", "SS", -2000)

    hu = padded(ramp(), -3024, -2500)
    ct_series(tmp_path, hu=hu, edit=pad, dtype="<i2", intercept=0)
    image, _, warnings = read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(image), np.maximum(hu, -1024))
    assert warnings == []


def test_padding_of_an_inverted_compressed_ct(tmp_path: Path, ct_series: Write, ramp: Ramp) -> None:
    def pad(ds: Dataset, k: int) -> None:
        inverted(ds, k)
        ds.add_new("PixelPaddingValue", "US", 63536)

    hu = padded(ramp(), 63536 - 1024, 63536 - 1024)
    for path in ct_series(tmp_path, hu=hu, edit=pad):
        rle(path)
    image, _, warnings = read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(image), np.where(hu > 30000, -1024, hu))
    assert any("padding" in w for w in warnings)


# ---- Modality LUT


def with_lut(table: np.ndarray, first: int = 0, kind: str = "HU") -> Callable[[Dataset, int], None]:
    """A table of HU + 2000 would not do: a Modality LUT Sequence holds the values themselves, 16 bits."""

    def edit(ds: Dataset, k: int) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [len(table) % 65536, first, 16])
        item.ModalityLUTType = kind
        item.add_new("LUTData", "OW", table.astype("<u2").tobytes())
        ds.ModalityLUTSequence = [item]

    return edit


@pytest.mark.parametrize("packed", [False, True])
def test_a_modality_lut_takes_the_place_of_slope_and_intercept(
    tmp_path: Path, ct_series: Write, packed: bool
) -> None:
    """Stored 0 to 999; the table begins at 100: below it its first value holds, above its end the last (C.11.1.1)."""
    stored = (np.mgrid[:6, :16, :20].sum(axis=0) * 27) % 1000
    table = 5 * np.arange(800) // 4
    for path in ct_series(tmp_path, hu=stored, edit=with_lut(table, first=100), intercept=0):
        if packed:
            rle(path)
    image, _, warnings = read_series(tmp_path)
    np.testing.assert_array_equal(hu_of(image), table[np.clip(stored - 100, 0, 799)])
    assert all("no air" in w for w in warnings)  # a table of 16 bits without sign holds no air


def test_a_table_that_is_none_is_refused_with_the_reason(tmp_path: Path, ct_series: Write) -> None:
    def edit(ds: Dataset, k: int) -> None:
        with_lut(np.arange(4096))(ds, k)
        del ds.ModalityLUTSequence[0].LUTData

    ct_series(tmp_path, edit=edit)
    with pytest.raises(InputError, match="Modality LUT Sequence cannot be used"):
        read_series(tmp_path)


def test_pydicoms_sample_whose_header_and_stream_differ_in_sign() -> None:
    """J2K_pixelrep_mismatch.dcm: an unsigned JPEG 2000 stream under a signed header. The values are those that
    pydicom's own tests state for it; -2000 outside the field of view is bounded to -1024."""
    path = Path(str(pydicom.data.get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)))
    hu = slice_hu(read_header(path))
    assert hu[0, 0] == -1024
    assert hu[47:57, 279].tolist() == [621, 412, 138, -193, -520, -767, -907, -966, -988, -995]
    assert hu[328:338, 106].tolist() == [-377, -121, 141, 383, 633, 910, 1198, 1455, 1638, 1732]


# ---- bits


def words(
    stored: np.ndarray, bits: int, dtype: str, *, left: bool = False, high_bit: int | None = None
) -> Edit:
    """Values of so many bits in larger words: in the lowest bits, or in the highest."""
    word = np.dtype(dtype).itemsize * 8
    shift = word - bits if left else 0

    def edit(ds: Dataset, k: int) -> None:
        ds.BitsAllocated, ds.BitsStored = word, bits
        ds.HighBit = bits - 1 + shift if high_bit is None else high_bit
        ds.PixelRepresentation = int(np.dtype(dtype).kind == "i")
        ds.PixelData = np.left_shift(stored[k], shift).astype(dtype).tobytes()

    return edit


@pytest.mark.parametrize("to", ["", "+tb", "+ti", "+td"])
@pytest.mark.parametrize(("bits", "dtype"), [(16, "<u4"), (17, "<u4"), (24, "<i4"), (32, "<u4"), (32, "<i4")])
def test_values_of_some_of_32_bits(
    tmp_path: Path, ct_series: Write, ramp: Ramp, bits: int, dtype: str, to: str
) -> None:
    """Slope 1/16: a value of 1000 HU needs 15 bits and more."""
    stored = (ramp().astype(np.int64) + 1024) * 16
    paths = ct_series(tmp_path, edit=words(stored, bits, dtype), slope=0.0625, intercept=-1024)
    for path in paths if to else ():
        compressed("dcmconv", to)(path)
    np.testing.assert_array_equal(hu_of(read_series(tmp_path)[0]), ramp())


@pytest.mark.parametrize("to", ["", "+tb"])
@pytest.mark.parametrize(("dtype", "intercept"), [("<u2", -1024), ("<i2", 0)])
def test_values_in_the_highest_bits(
    tmp_path: Path, ct_series: Write, ramp: Ramp, dtype: str, intercept: int, to: str
) -> None:
    """PS3.5 8.1.1, before the High Bit had to be the last of the Bits Stored: 12 bits from bit 15 down to bit 4."""
    stored = ramp().astype(np.int64) - intercept
    paths = ct_series(tmp_path, edit=words(stored, 12, dtype, left=True), intercept=intercept)
    for path in paths if to else ():
        compressed("dcmconv", to)(path)
    np.testing.assert_array_equal(hu_of(read_series(tmp_path)[0]), ramp())


@pytest.mark.parametrize(("bits", "high_bit"), [(12, 15), (16, 11), (12, 13)])
@pytest.mark.parametrize(("dtype", "intercept"), [("<u2", -1024), ("<i2", 0)])
def test_a_high_bit_that_is_merely_wrong(
    tmp_path: Path, ct_series: Write, ramp: Ramp, bits: int, high_bit: int, dtype: str, intercept: int
) -> None:
    stored = ramp().astype(np.int64) - intercept
    ct_series(tmp_path, edit=words(stored, bits, dtype, high_bit=high_bit), intercept=intercept)
    np.testing.assert_array_equal(hu_of(read_series(tmp_path)[0]), ramp())


def test_a_high_bit_that_the_values_contradict_is_refused(tmp_path: Path, ct_series: Write) -> None:
    stored = np.mgrid[:6, :16, :20].sum(axis=0) * 1001  # up to 38038, and odd ones among them
    ct_series(tmp_path, edit=words(stored, 12, "<u2", high_bit=15))
    with pytest.raises(InputError, match="more than its 12 Bits Stored, and its High Bit is 15"):
        read_series(tmp_path)


def test_negative_padding_of_unsigned_pixels(tmp_path: Path, ct_series: Write, ramp: Ramp) -> None:
    """-2000 in the header, and so 63536 in the pixels."""

    def padded(ds: Dataset, k: int) -> None:
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(16, 20).copy()
        stored[:2] = 65536 - 2000
        ds.PixelData = stored.tobytes()
        ds.add_new("PixelPaddingValue", "SS", -2000)

    ct_series(tmp_path, edit=padded)
    image, _, warnings = read_series(tmp_path)
    assert (hu_of(image)[:, :2] == -1024).all() and len(warnings) == 1 and "padding" in warnings[0]
    np.testing.assert_array_equal(hu_of(image)[:, 2:], ramp()[:, 2:])
