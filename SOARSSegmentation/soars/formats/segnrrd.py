"""Slicer's segmentation file, .seg.nrrd, in bounded memory.

The header goes through slicerio in both directions (keys ``Segment0_ID``, ``Segment0_Layer``,
``Segmentation_...``). The voxels do not: slicerio hands pynrrd one array of every layer and pynrrd copies it
once more, 190 MB a layer for a 512 x 512 x 360 CT. They are compressed and read here slab by slab instead,
about 8 MB at a time. Organs that overlap lie in different layers, the others share one (first layer with
room), as Slicer itself stores them.

Two things of Slicer's reader (vtkMRMLSegmentationStorageNode) decide the header: it crops a whole layer to
the extent of the layer's first segment, so all segments of a layer carry the layer's extent; and it takes
segments as numbered without a gap from 0.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from soars.errors import InputError
from soars.files import replacing_file
from soars.headers.nrrd import LONGEST_HEADER, check_nrrd
from soars.structures.model import Geometry, Mask, StructureSet, tight_mask
from soars.structures.naming import describe

SLAB_BYTES = 8_000_000
COMPRESSION_LEVEL = 1
MAX_LABELS_PER_LAYER = 255
_TYPES = {
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
}
_OWN_TAGS = {"label": "SOARS.Label", "original_name": "SOARS.OriginalName"}


# --- writing ------------------------------------------------------------------------------------
def write_seg_nrrd(structures: StructureSet, path: Path | str) -> None:
    """Write a .seg.nrrd that Slicer opens as a segmentation with names, colours and terminology.

    Empty structures are kept by name. The file appears whole or not at all; `InputError` when it cannot be
    written.
    """
    layers = pack_layers(structures)
    header = _header(structures, layers)
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        for slab in _label_slabs(structures, layers):
            file.write(compressor.compress(slab.data))
        file.write(compressor.flush())


def pack_layers(structures: StructureSet) -> list[list[str]]:
    """Names by layer: an organ goes to the first layer in which it overlaps nothing."""
    layers: list[list[str]] = [[]]
    for name in structures:
        mask = structures.crop(name)
        for layer in layers:
            if len(layer) < MAX_LABELS_PER_LAYER and not any(
                _overlap(mask, structures.crop(n)) for n in layer
            ):
                layer.append(name)
                break
        else:
            layers.append([name])
    return layers


def _overlap(a: Mask, b: Mask) -> bool:
    low = [max(p, q) for p, q in zip(a.start, b.start, strict=True)]
    high = [min(p, q) for p, q in zip(a.stop, b.stop, strict=True)]
    if any(p >= q for p, q in zip(low, high, strict=True)):
        return False
    shape = [q - p for p, q in zip(low, high, strict=True)]
    return bool((a.box(low, shape) & b.box(low, shape)).any())


def _label_slabs(structures: StructureSet, layers: list[list[str]]) -> Iterator[npt.NDArray[np.uint8]]:
    """The voxels as the file holds them, [z, y, x, layer], some slices at a time."""
    depth, height, width = structures.geometry.shape
    count = len(layers)
    thickness = max(1, SLAB_BYTES // max(1, height * width * count))
    for z in range(0, depth, thickness):
        slab = np.zeros((min(thickness, depth - z), height, width, count), dtype=np.uint8)
        for index, layer in enumerate(layers):
            for value, name in enumerate(layer, start=1):
                mask = structures.crop(name)
                low, high = max(mask.start[0], z), min(mask.stop[0], z + len(slab))
                if low < high:
                    box = slab[low - z : high - z, mask.slices[1], mask.slices[2], index]
                    box[mask.array[low - mask.start[0] : high - mask.start[0]]] = value
        yield slab


def _header(structures: StructureSet, layers: list[list[str]]) -> bytes:
    """Slicer's header as slicerio writes it, with the size of the real image."""
    import slicerio

    geometry = structures.geometry
    place = {name: (i, v) for i, layer in enumerate(layers) for v, name in enumerate(layer, start=1)}
    extents = [_extent(structures.union(layer)) for layer in layers]
    texts: list[str] = []  # pynrrd writes ASCII only: other text is put back afterwards, in UTF-8

    def ascii_only(text: str) -> str:
        text = re.sub(r"[\r\n]+", " ", text).strip()
        if text.isascii():
            return text
        texts.append(text)
        return f"@@soars-text-{len(texts) - 1}@@"

    segments = []
    for name in structures:
        info = describe(name, structures.info[name])
        layer, value = place[name]
        tags = {"Segmentation.Status": "inprogress"}
        if info.get("terminology"):
            tags["TerminologyEntry"] = info["terminology"]
        tags |= {tag: str(info[key]) for key, tag in _OWN_TAGS.items() if info.get(key)}
        tags |= {str(key): str(text) for key, text in info.get("tags", {}).items()}
        segments.append(
            {
                "id": ascii_only(name),
                "name": ascii_only(name),
                "nameAutoGenerated": False,
                "color": [f"{c / 255:.6g}" for c in info["colour"]],
                "colorAutoGenerated": False,
                "labelValue": value,
                "layer": layer,
                "extent": extents[layer],
                "tags": {
                    ascii_only(k.replace("|", "/")): ascii_only(t.replace("|", "/")) for k, t in tags.items()
                },
            }
        )
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.matrix
    reference = [*ras.ravel(), *(v for n in geometry.size for v in (0, n - 1))]
    segmentation = {
        "voxels": np.zeros((len(layers), 1, 1, 1) if len(layers) > 1 else (1, 1, 1), dtype=np.uint8),
        "ijkToLPS": geometry.matrix,
        "encoding": "gzip",
        "containedRepresentationNames": ["Binary labelmap"],
        "masterRepresentation": "Binary labelmap",
        "referenceImageExtentOffset": [0, 0, 0],
        "conversionParameters": [
            {
                "name": "Reference image geometry",
                "value": "".join(f"{v!r};" if isinstance(v, int) else f"{float(v)!r};" for v in reference),
                "description": "Image geometry description string determining the geometry of the labelmap "
                "that is created in course of conversion. Can be copied from a volume, using the button.",
            }
        ],
        "segments": segments,
    }
    buffer = io.BytesIO()
    slicerio.write_segmentation(buffer, segmentation, compression_level=1)
    head = buffer.getvalue().split(b"\n\n", 1)[0]
    sizes = ([len(layers)] if len(layers) > 1 else []) + list(geometry.size)
    head, replaced = re.subn(rb"(?m)^sizes:.*$", b"sizes: " + " ".join(map(str, sizes)).encode(), head)
    if replaced != 1:
        raise RuntimeError("slicerio wrote a header without sizes")
    head = re.sub(rb"(?m)^# on .*\n", b"", head)  # the time of writing: equal structures give equal files
    for index, text in enumerate(texts):
        head = head.replace(f"@@soars-text-{index}@@".encode(), text.encode("utf-8"))
    return head + b"\n\n"


def _extent(mask: Mask) -> list[int]:
    """First and last voxel along x, y and z, as Slicer writes an extent."""
    if mask.is_empty:
        return [0, -1, 0, -1, 0, -1]
    return [v for axis in (2, 1, 0) for v in (mask.start[axis], mask.stop[axis] - 1)]


# --- reading ------------------------------------------------------------------------------------
def is_seg_nrrd(path: Path | str) -> bool:
    """Whether a NRRD file carries Slicer's segments (by its header, not by its name)."""
    header, _ = _read_head(Path(path))
    return (
        any(re.match(r"Segment\d+_", key) for key in header)
        or "Segmentation_ReferenceImageExtentOffset" in header
    )


def read_seg_nrrd(path: Path | str) -> StructureSet:
    """Read a .seg.nrrd of Slicer's, or of ours. Names are as in the file.

    `InputError`, with the file, when it is cut short, damaged or no segmentation.
    """
    import slicerio

    path = Path(path)
    header, offset = _read_head(path)
    odd = check_nrrd(path)
    try:
        segmentation = slicerio.read_segmentation(str(path), skip_voxels=True)
    except Exception as error:  # slicerio and pynrrd raise many kinds for a bad header
        raise InputError(f"{path} is not a readable .seg.nrrd: {error}") from error
    sizes = [int(n) for n in header["sizes"]]
    if len(sizes) not in (3, 4):
        raise InputError(f"{path}: a segmentation has 3 dimensions, or 4 with layers, not {len(sizes)}")
    count = sizes[0] if len(sizes) == 4 else 1
    size = (sizes[-3], sizes[-2], sizes[-1])
    structures = StructureSet(_geometry(path, size, segmentation["ijkToLPS"]))
    structures.warnings = odd

    names: dict[tuple[int, int], str] = {}
    indices = sorted({int(m[1]) for key in header if (m := re.match(r"Segment(\d+)_", key))})
    for index, segment in zip(indices, segmentation["segments"], strict=True):
        name = str(
            header.get(f"Segment{index}_Name") or header.get(f"Segment{index}_ID") or f"Segment_{index + 1}"
        )
        key = (segment.get("layer", 0), segment.get("labelValue", 1))
        if key in names or not 0 <= key[0] < count:
            raise InputError(
                f"{path}: segment {name!r} has layer {key[0]} and label {key[1]}, taken or not there"
            )
        while name in names.values():
            structures.warnings.append(
                f"{path.name}: two segments are called {name!r}; one is now {name + '_2'!r}"
            )
            name += "_2"
        names[key] = name
        structures.add_mask(name, tight_mask(np.zeros((0, 0, 0), dtype=bool)), _info(header, index, segment))

    pieces: dict[tuple[int, int], list[Mask]] = {}
    for z, slab in _voxel_slabs(path, header, offset, (size[2], size[1], size[0], count)):
        for layer in range(count):
            for value, mask in _labels(slab[..., layer], z):
                pieces.setdefault((layer, value), []).append(mask)
    for key in list(pieces):
        parts = pieces.pop(key)
        if key in names:
            structures.add_mask(names[key], _join(parts), structures.info[names[key]])
        else:
            structures.warnings.append(
                f"{path.name}: voxels with label {key[1]} of layer {key[0]} have no segment"
            )
    return structures


def _read_head(path: Path) -> tuple[dict[str, Any], int]:
    """The header's fields, text in UTF-8, and where the data begin."""
    import nrrd

    try:
        with path.open("rb") as file:
            if not file.read(4).startswith(b"NRRD"):
                raise InputError(f"{path} is not a NRRD file")
            file.seek(0)
            lines = []
            for raw in iter(lambda: file.readline(LONGEST_HEADER), b""):
                line = raw.decode("utf-8", "replace")
                if not line.strip():
                    break
                lines.append(line)
                if file.tell() > LONGEST_HEADER:
                    raise InputError(f"{path} has a damaged NRRD header: it has no end")
            else:
                raise InputError(f"{path} is cut short: its header has no end")
            offset = file.tell()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        header = dict(nrrd.read_header(lines))
        if len(header["sizes"]) != header["dimension"] or "type" not in header or "encoding" not in header:
            raise ValueError("its size, type or encoding is missing")
    except Exception as error:  # pynrrd raises ValueError, KeyError, NRRDError ... for bad fields
        raise InputError(f"{path} has a damaged NRRD header: {error}") from error
    return header, offset


def _geometry(path: Path, size: tuple[int, int, int], matrix: npt.NDArray[np.float64]) -> Geometry:
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or (spacing <= 0).any() or min(size) < 1:
        raise InputError(f"{path} has no usable geometry (sizes, space directions, space origin)")
    # a spacing such as 0.1 mm comes back as 0.1, not 0.09999999999999999
    spacing = np.array([float(f"{s:.15g}") for s in spacing])
    direction = matrix[:3, :3] / spacing
    x, y, z = spacing.tolist()
    ox, oy, oz = matrix[:3, 3].tolist()
    return Geometry(size, (x, y, z), (ox, oy, oz), tuple(direction.ravel().tolist()))


def _info(header: dict[str, Any], index: int, segment: dict[str, Any]) -> dict[str, Any]:
    info: dict[str, Any] = {}
    if "color" in segment:
        info["colour"] = tuple(round(255 * c) for c in segment["color"])
    tags = dict(
        text.strip().split(":", 1)
        for text in str(header.get(f"Segment{index}_Tags", "")).split("|")
        if ":" in text
    )
    if terminology := tags.pop("TerminologyEntry", None):
        info["terminology"] = terminology
    for key, tag in _OWN_TAGS.items():
        if tag in tags:
            info[key] = tags.pop(tag)
    if tags:
        info["tags"] = tags
    return info


def _labels(layer: npt.NDArray[Any], z: int) -> Iterator[tuple[int, Mask]]:
    """Each label of some slices with its mask; ``z`` is the first slice's number."""
    from scipy.ndimage import find_objects

    around = tight_mask(layer, (z, 0, 0))
    if around.is_empty:
        return
    start, stop = around.start, around.stop
    box = np.ascontiguousarray(layer[start[0] - z : stop[0] - z, start[1] : stop[1], start[2] : stop[2]])
    if box.dtype.kind != "u" or box.dtype.itemsize > 2:
        box = box.astype(np.int32)
    for value, found in enumerate(find_objects(box), start=1):
        if found is not None:
            yield (
                value,
                tight_mask(box[found] == value, [s.start + a for s, a in zip(found, start, strict=True)]),
            )


def _join(parts: list[Mask]) -> Mask:
    """One mask of the parts of an organ, which do not overlap."""
    if len(parts) == 1:
        return parts[0]
    low = [min(p.start[a] for p in parts) for a in range(3)]
    out = np.zeros([max(p.stop[a] for p in parts) - low[a] for a in range(3)], dtype=bool)
    for part in parts:
        out[tuple(slice(a - s, b - s) for a, b, s in zip(part.start, part.stop, low, strict=True))] |= (
            part.array
        )
    out.flags.writeable = False
    return Mask((low[0], low[1], low[2]), out)


def _voxel_slabs(
    path: Path, header: dict[str, Any], offset: int, shape: tuple[int, int, int, int]
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """(first slice, voxels [z, y, x, layer]), some slices at a time."""
    code = _TYPES.get(str(header["type"]).lower())
    encoding = str(header["encoding"]).lower()
    plain = not ({"data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"} & header.keys())
    if code is None or encoding not in ("gzip", "gz", "raw") or not plain:
        yield 0, _whole(path, shape)
        return
    dtype = np.dtype(code).newbyteorder(">" if header.get("endian") == "big" else "<")
    thickness = max(1, SLAB_BYTES // (shape[1] * shape[2] * shape[3] * dtype.itemsize))
    try:
        with path.open("rb") as file:
            file.seek(offset)
            stream: BinaryIO = gzip.GzipFile(fileobj=file) if encoding != "raw" else file  # type: ignore[assignment]
            for z in range(0, shape[0], thickness):
                slab = np.empty((min(thickness, shape[0] - z), *shape[1:]), dtype=dtype)
                _fill(stream, slab.data.cast("B"))
                yield z, slab if dtype.isnative else slab.astype(dtype.newbyteorder("="))
            if encoding != "raw":
                stream.read(1)  # reads on to the checksum
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is cut short or damaged: {error}") from error


def _fill(stream: BinaryIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the voxels end too early")
        done += count


def _whole(path: Path, shape: tuple[int, int, int, int]) -> npt.NDArray[Any]:
    """The voxels of a file in an unusual encoding, through pynrrd, all at once."""
    import nrrd

    try:
        voxels, _ = nrrd.read(str(path), index_order="C")
    except Exception as error:  # pynrrd raises NRRDError, OSError, zlib.error, EOFError ...
        raise InputError(f"{path} is cut short or damaged: {error}") from error
    return voxels.reshape(shape)
