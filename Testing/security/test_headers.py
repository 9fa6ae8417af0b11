"""Image files from a stranger: a header is checked before native code or a large memory is given to it."""

from __future__ import annotations

import gzip
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import soars.cli
from soars.ct.image_file import read_image_file
from soars.ct.images import read_ct
from soars.errors import InputError
from soars.formats.segnrrd import read_seg_nrrd
from soars.headers.metaimage import read_metaimage

SOURCE = str(Path(soars.cli.__file__).parents[1])
TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]


def image_of(kind: type = np.int16, seed: int = 0) -> sitk.Image:
    """A small volume with a turned, mirrored and shifted grid."""
    chance = np.random.default_rng(seed)
    image = sitk.GetImageFromArray((chance.uniform(0, 100, (4, 5, 6))).astype(kind))
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-12.5, 34.25, 7.0))
    image.SetDirection((0, 1, 0, 0.6, 0, 0.8, 0.8, 0, -0.6))
    return image


def same(a: sitk.Image, b: sitk.Image) -> None:
    np.testing.assert_array_equal(sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b))
    assert a.GetPixelID() == b.GetPixelID()
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(a, geometry)(), getattr(b, geometry)(), atol=1e-12)


# --- MetaImage: our reader gives what ITK's gives -----------------------------------------------------------------
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_metaimage_is_read_as_itk_reads_it(tmp_path: Path, kind: type, packed: bool, ending: str) -> None:
    path = tmp_path / f"image{ending}"
    sitk.WriteImage(image_of(kind), str(path), packed)
    ours, warnings = read_metaimage(path, "a CT")
    same(ours, sitk.ReadImage(str(path)))
    expected = (
        []
        if ending == ".mha"
        else [f"image.mhd: its voxels were read from image.{'zraw' if packed else 'raw'}"]
    )
    assert warnings == expected


HEADER = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3",
    "ElementSpacing": "1 1 2", "DimSize": "6 5 4", "ElementType": "MET_SHORT",
}  # fmt: skip
VOXELS = np.arange(120, dtype="<i2").tobytes()


def metaimage(path: Path, data: bytes = VOXELS, file: str = "LOCAL", **fields: str | None) -> Path:
    chosen = {key: value for key, value in {**HEADER, **fields}.items() if value is not None}
    lines = "".join(f"{key} = {value}\n" for key, value in chosen.items()) + f"ElementDataFile = {file}\n"
    path.write_bytes(lines.encode("latin-1") + (data if file == "LOCAL" else b""))
    return path


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (np.arange(120, dtype=">i2").tobytes(), {"BinaryDataByteOrderMSB": "True"}),
        (np.arange(120, dtype=">i2").tobytes(), {"ElementByteOrderMSB": "True"}),
        (VOXELS, {"NDims": "4", "DimSize": "6 5 4 1", "ElementSpacing": "1 1 2 1", "Offset": "1 2 3 0",
                  "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"}),
        (VOXELS, {"Offset": None, "Position": "1 2 3", "TransformMatrix": None, "Rotation": HEADER["TransformMatrix"]}),
        (zlib.compress(VOXELS), {"CompressedData": "True"}),
    ],
)  # fmt: skip
def test_metaimage_of_other_writers(tmp_path: Path, data: bytes, fields: dict[str, str | None]) -> None:
    image, _ = read_metaimage(metaimage(tmp_path / "a.mha", data, **fields), "a CT")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).ravel(), np.arange(120))
    assert image.GetSize() == (6, 5, 4) and image.GetOrigin() == (1, 2, 3) and image.GetSpacing() == (1, 1, 2)


def test_detached_voxels_may_begin_late_or_stand_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"header" + VOXELS)
    for skip in ("6", "-1"):
        image, _ = read_metaimage(metaimage(tmp_path / "a.mhd", file="a.raw", HeaderSize=skip), "a CT")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).ravel(), np.arange(120))


BAD_METAIMAGE: dict[str, dict[str, str | None]] = {
    "many dimensions": {"NDims": "200"},
    "no dimensions": {"NDims": "0"},
    "negative dimensions": {"NDims": "-3"},
    "short size": {"DimSize": "6 5"},
    "negative size": {"DimSize": "6 -5 4"},
    "huge size": {"DimSize": "99999999 99999999 99999999"},
    "size that overflows": {"DimSize": "4294967296 4294967296 1"},
    "zero size": {"DimSize": "6 5 0"},
    "too much for the file": {"DimSize": "6 5 400"},
    "unknown type": {"ElementType": "MET_OTHER"},
    "array type": {"ElementType": "MET_SHORT_ARRAY"},
    "no type": {"ElementType": None},
    "many channels": {"ElementNumberOfChannels": "100000000"},
    "colour": {"ElementNumberOfChannels": "3"},
    "header size": {"HeaderSize": "9999999999"},
    "no spacing": {"ElementSpacing": None, "ElementSize": None},
    "spacing that is no number": {"ElementSpacing": "nan 1 1"},
    "spacing 0": {"ElementSpacing": "0 1 1"},
    "offset that is no number": {"Offset": "inf 0 0"},
    "flat axes": {"TransformMatrix": "1 0 0 1 0 0 0 0 1"},
    "short matrix": {"TransformMatrix": "1 0 0"},
    "text": {"BinaryData": "False"},
    "a line without end": {"Comment": "x" * 2_000_000},
    "not compressed": {"CompressedData": "True"},
    "an ellipse": {"ObjectType": "Ellipse"},
}


@pytest.mark.parametrize("fields", BAD_METAIMAGE.values(), ids=BAD_METAIMAGE)
def test_a_metaimage_header_that_makes_no_sense_is_one_sentence(
    tmp_path: Path, fields: dict[str, str | None]
) -> None:
    path = metaimage(tmp_path / "a.mha", **fields)
    with pytest.raises(InputError, match=str(path)) as caught:
        read_image_file(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_compressed_voxels_that_are_more_or_fewer_than_the_header_says(tmp_path: Path) -> None:
    for data, why in (
        (zlib.compress(VOXELS + b"x"), "more voxels than its header says"),
        (zlib.compress(VOXELS[:-2]), "end too early"),
        (zlib.compress(VOXELS)[:-4], "end too early"),
    ):
        with pytest.raises(InputError, match=why):
            read_image_file(metaimage(tmp_path / "a.mha", data, CompressedData="True"))


def test_mutated_headers_never_crash_and_never_give_other_voxels_in_silence(tmp_path: Path) -> None:
    """500 headers with a byte changed, removed or doubled: a sentence, or a volume of the file's own bytes."""
    whole = metaimage(tmp_path / "a.mha").read_bytes()
    header = len(whole) - len(VOXELS)
    chance, path, refused = np.random.default_rng(7), tmp_path / "b.mha", 0
    for _ in range(500):
        at, raw = int(chance.integers(header)), bytearray(whole)
        change = chance.integers(3)
        raw[at : at + 1] = [bytes([chance.integers(256)]), b"", raw[at : at + 1] * 2][change]
        path.write_bytes(raw)
        try:
            image, _ = read_image_file(path)
        except InputError:
            refused += 1
            continue
        read = sitk.GetArrayFromImage(image)
        assert read.size <= 240 and (
            read.dtype != np.int16 or set(read.ravel().tolist()) <= set(range(-32768, 32768))
        )
    assert refused > 150


# --- detached voxels ----------------------------------------------------------------------------------------------
NRRD = (
    "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
    "space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (1,2,3)\nendian: little\nencoding: raw\n"
)


def nrrd(path: Path, header: str = NRRD, data: bytes = VOXELS, **changes: str) -> Path:
    for old, new in changes.items():
        key = old.replace("_", " ")
        lines = [line for line in header.splitlines() if not line.startswith(f"{key}:")]
        header = "\n".join([*lines, *([f"{key}: {new}"] if new else [])]) + "\n"
    path.write_bytes(header.encode() + b"\n" + data)
    return path


@pytest.mark.parametrize(
    "name", ["../secret.raw", "{outside}", "link.raw", "a/../../secret.raw", "C:\\secret.raw", ""]
)
@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_a_header_names_no_file_outside_its_folder(tmp_path: Path, name: str, kind: str) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(VOXELS)
    folder = tmp_path / "from a stranger"
    folder.mkdir()
    (folder / "link.raw").symlink_to(secret)
    name = name.format(outside=secret)
    if kind == "mhd":
        path = metaimage(folder / "ct.mhd", file=name)
    else:
        path = nrrd(folder / "ct.nhdr", NRRD + f"data file: {name}\n", b"")
    with pytest.raises(InputError, match="not in the header's own folder"):
        read_image_file(path)


@pytest.mark.parametrize("name", ["LIST", "slice%03d.raw 1 4 1", "LIST 2"])
@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_one_file_a_slice_is_not_read(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "mhd":
        path = metaimage(tmp_path / "ct.mhd", file=name)
    else:
        path = nrrd(tmp_path / "ct.nhdr", NRRD + f"data file: {name}\n", b"")
    with pytest.raises(InputError, match="one file a slice|several files"):
        read_image_file(path)


@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_detached_voxels_in_the_folder_are_read_and_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "ct.raw").write_bytes(VOXELS)
    if kind == "mhd":
        path = metaimage(tmp_path / "ct.mhd", file="ct.raw")
    else:
        path = nrrd(tmp_path / "ct.nhdr", NRRD + "data file: ct.raw\n", b"")
    image, warnings = read_image_file(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).ravel(), np.arange(120))
    assert warnings == [f"{path.name}: its voxels were read from ct.raw"]


# --- NRRD ---------------------------------------------------------------------------------------------------------
def test_nrrd_is_read_with_its_geometry(tmp_path: Path) -> None:
    sitk.WriteImage(image_of(), str(tmp_path / "a.nrrd"), True)
    image, warnings = read_image_file(tmp_path / "a.nrrd")
    same(image, image_of())
    assert warnings == []


@pytest.mark.parametrize(
    "directions",
    ["", "none none none", "(nan,0,0) (0,1,0) (0,0,1)", "(0,0,0) (0,1,0) (0,0,1)", "(1,0,0) (2,0,0) (0,0,1)",
     "(1,0) (0,1)", "(1,0,0) (0,1,0)", "(a,0,0) (0,1,0) (0,0,1)", "(1,0,0) (0,1,0) (0,0,inf)"],
)  # fmt: skip
def test_a_nrrd_without_usable_directions_is_refused(tmp_path: Path, directions: str) -> None:
    """ITK would silently take its voxels for 1 mm."""
    path = nrrd(tmp_path / "a.nrrd", space_directions=directions)
    with pytest.raises(InputError, match="does not say how large its voxels are"):
        read_image_file(path)
    with pytest.raises(InputError):
        read_ct(path)


def test_a_nrrd_with_spacings_alone_says_that_nobody_knows_how_the_patient_lies(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", space_directions="", space_origin="", space="", spacings="1 1 2")
    image, warnings = read_image_file(path)
    assert image.GetSpacing() == (1, 1, 2) and "check left and right" in warnings[0]
    with pytest.raises(InputError, match="how large"):
        read_image_file(nrrd(path, space_directions="", space_origin="", space="", spacings="1 nan 2"))


@pytest.mark.parametrize(
    "changes",
    [{"sizes": "6 5 4000"}, {"sizes": "99999999 99999999 99999999"}, {"sizes": "6 5"}, {"sizes": "6 5 -4"},
     {"dimension": "400"}, {"dimension": "x"}, {"type": "block"}, {"type": ""}, {"encoding": "hex"},
     {"byte_skip": "9999999"}, {"line_skip": "5"}, {"space_origin": "(nan,0,0)"}],
)  # fmt: skip
def test_a_nrrd_header_that_makes_no_sense_is_one_sentence(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(InputError, match="a.nrrd") as caught:
        read_image_file(nrrd(tmp_path / "a.nrrd", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.nrrd", "a.seg.nrrd"])
def test_a_header_without_end_is_not_read_to_its_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(NRRD.encode() + b"Segment0_Name:=")
    with path.open("r+b") as file:
        file.truncate(4 << 30)  # sparse: takes no space
    read = read_seg_nrrd if "seg" in name else read_image_file
    with pytest.raises(InputError, match="no end|damaged"):
        read(path)


# --- bombs --------------------------------------------------------------------------------------------------------
LIMIT = 3 << 30
"""Bytes of address space, of which Python with its libraries takes about one."""


def read_with_little_memory(path: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from soars.cli import main; sys.exit(main(['segment', sys.argv[1], '--output', sys.argv[2]]))"
    return subprocess.run(
        [sys.executable, "-c", code, str(path), str(path.parent / "out")],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": SOURCE},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX's")
@pytest.mark.parametrize("kind", ["nrrd", "mha", "nii.gz", "nii"])
def test_a_small_file_that_speaks_of_much_takes_no_memory(tmp_path: Path, kind: str) -> None:
    """A terabyte by the header, some kilobytes on the disk (or a sparse file of which nothing is there)."""
    path = tmp_path / f"ct.{kind}"
    if kind == "nrrd":
        nrrd(path, data=gzip.compress(bytes(1 << 20)), sizes="100000 100000 50", encoding="gzip")
    elif kind == "mha":
        metaimage(path, zlib.compress(bytes(1 << 20)), DimSize="100000 100000 50", CompressedData="True")
    else:
        header = bytearray(352)
        struct.pack_into("<i", header, 0, 348)
        struct.pack_into("<8h", header, 40, 3, 30000, 30000, 600, 1, 1, 1, 1)
        struct.pack_into("<hh", header, 70, 4, 16)
        struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
        struct.pack_into("<f", header, 108, 352)
        header[344:348] = b"n+1\0"
        data = bytes(header) + bytes(1 << 20)
        path.write_bytes(gzip.compress(data) if kind == "nii.gz" else data)
    done = read_with_little_memory(path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("soars: error: ") and "memory" not in done.stderr
