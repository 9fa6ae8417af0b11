"""Slicer's segmentation file, .seg.nrrd, in bounded memory.

The header is read through slicerio (keys ``Segment0_ID``, ``Segment0_Layer``, ``Segmentation_...``). The voxels are
not: slicerio hands pynrrd one array of every layer and pynrrd copies it once more, 190 MB a layer for a
512 x 512 x 360 CT. They are compressed and read here slab by slab instead, about 8 MB at a time. Organs that overlap
lie in different layers, the others share one (first layer with room), as Slicer itself stores them.

Two things of Slicer's reader (vtkMRMLSegmentationStorageNode) decide the header: it crops a whole layer to
the extent of the layer's first segment, so all segments of a layer carry the layer's extent; and it takes
segments as numbered without a gap from 0.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from soars.ct.axes import squared
from soars.errors import InputError
from soars.files import replacing_file
from soars.formats.mitk import is_mitk, mitk_labels, mitk_matrix
from soars.headers.nrrd import LONGEST_HEADER, check_nrrd
from soars.structures.box import Box
from soars.structures.labels import label_masks
from soars.structures.mask import EMPTY_MASK, Mask, union
from soars.structures.model import MOST_STRUCTURES, Geometry, StructureInfo, StructureSet, as_colour
from soars.structures.naming import FALLBACK_COLOUR, describe, name_for

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
                mask.common_voxels(structures.crop(n)) for n in layer
            ):
                layer.append(name)
                break
        else:
            layers.append([name])
    return layers


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
    """Slicer's header, in UTF-8. Neither pynrrd nor slicerio writes one without holding all voxels in memory, and both
    write ASCII only; the fields are those of vtkMRMLSegmentationStorageNode, and slicerio reads them in the tests."""
    geometry = structures.geometry
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.matrix
    reference = [*(repr(float(v)) for v in ras.ravel()), *(str(v) for n in geometry.size for v in (0, n - 1))]
    several = len(layers) > 1
    fields = [
        "NRRD0005",
        "type: uint8",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(layers)} ' if several else ''}{' '.join(map(str, geometry.size))}",
        f"space directions: {'none ' if several else ''}{' '.join(map(_vector, geometry.matrix[:3, :3].T))}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "encoding: gzip",
        f"space origin: {_vector(geometry.origin)}",
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
        f"Segmentation_ConversionParameters:=Reference image geometry|{';'.join(reference)};|"
        "Image geometry description string determining the geometry of the labelmap that is created in course of "
        "conversion. Can be copied from a volume, using the button.",
    ]
    place = {name: (i, v) for i, layer in enumerate(layers) for v, name in enumerate(layer, start=1)}
    extents = [_extent(structures.union(layer).bounds) for layer in layers]
    for index, name in enumerate(structures):
        layer, value = place[name]
        facts = {"Layer": str(layer), "LabelValue": str(value), "Extent": extents[layer]}
        facts |= _segment_facts(name, describe(name, structures.info[name]))
        fields += [f"Segment{index}_{key}:={text}" for key, text in facts.items()]
    return ("\n".join(fields) + "\n\n").encode("utf-8")


def _segment_facts(name: str, info: StructureInfo) -> dict[str, str]:
    """What the header says about a segment besides its place."""
    tags = {"Segmentation.Status": "inprogress"}
    if info.terminology:
        tags["TerminologyEntry"] = info.terminology
    tags |= {tag: getattr(info, key) for key, tag in _OWN_TAGS.items() if getattr(info, key)}
    tags |= info.tags
    colour = info.colour or FALLBACK_COLOUR
    return {
        "ID": _one_line(name),
        "Name": _one_line(name),
        "NameAutoGenerated": "0",
        "Color": " ".join(f"{c / 255:.6g}" for c in colour),
        "ColorAutoGenerated": "0",
        "Tags": "".join(f"{_one_line(k, '|', ':')}:{_one_line(v, '|')}|" for k, v in tags.items()),
    }


def _one_line(text: str, *forbidden: str) -> str:
    """Text that cannot end its line in the header, nor its place in a list."""
    for character in forbidden:
        text = text.replace(character, "/")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _vector(values: npt.ArrayLike) -> str:
    return "(" + ",".join(f"{float(v):.17g}" for v in np.asarray(values)) + ")"


def _extent(box: Box) -> str:
    """First and last voxel along x, y and z, as Slicer writes an extent."""
    if box.is_empty:
        return "0 -1 0 -1 0 -1"
    return " ".join(f"{box.start[axis]} {box.stop[axis] - 1}" for axis in (2, 1, 0))


# --- reading ------------------------------------------------------------------------------------
def is_seg_nrrd(path: Path | str) -> bool:
    """Whether a NRRD file carries segments of Slicer or labels of MITK (by its header, not by its name)."""
    header, _ = _read_head(Path(path))
    return _has_segments(header)


def _has_segments(header: dict[str, Any]) -> bool:
    return (
        any(re.match(r"Segment\d+_", key) for key in header)
        or "Segmentation_ReferenceImageExtentOffset" in header
        or is_mitk(header)
    )


def read_seg_nrrd(path: Path | str) -> StructureSet:
    """Read a .seg.nrrd of Slicer's or of ours, or a segmentation of MITK. Names are as in the file.

    `InputError`, with the file, when it is cut short, damaged or not a segmentation.
    """
    import slicerio

    path = Path(path)
    header, offset = _read_head(path)
    if not _has_segments(header):
        raise InputError(
            f"{path} has no segments in its header: it is not a segmentation of Slicer's or MITK's"
        )
    odd = check_nrrd(path)
    try:
        segmentation = (
            {"ijkToLPS": mitk_matrix(header)}
            if is_mitk(header)
            else slicerio.read_segmentation(str(path), skip_voxels=True)
        )
    except Exception as error:  # slicerio and pynrrd raise many kinds for a bad header
        raise InputError(f"{path} is not a readable .seg.nrrd: {error}") from error
    sizes = [int(n) for n in header["sizes"]]
    if len(sizes) not in (3, 4):
        raise InputError(f"{path}: a segmentation has 3 dimensions, or 4 with layers, not {len(sizes)}")
    count = sizes[0] if len(sizes) == 4 else 1
    size = (sizes[-3], sizes[-2], sizes[-1])
    structures = StructureSet(_geometry(path, size, segmentation["ijkToLPS"], odd))
    structures.warnings = odd

    names: dict[tuple[int, int], str] = {}
    if is_mitk(header):
        segments = list(_mitk_segments(path, header, structures.warnings))
    else:
        segments = list(_segments(header, segmentation, count))
    all_names = {name for _, name, _ in segments}
    for key, name, info in segments:
        if key in names or not 0 <= key[0] < count:
            raise InputError(
                f"{path}: segment {name!r} has layer {key[0]} and label {key[1]}, taken or not there"
            )
        name = name_for(structures, name, all_names, f"{path.name}: two segments")
        names[key] = name
        structures.add_mask(name, EMPTY_MASK, info)

    pieces: dict[tuple[int, int], list[Mask]] = {}
    nobodys: dict[tuple[int, int], None] = {}
    for z, slab in _voxel_slabs(path, header, offset, (size[2], size[1], size[0], count)):
        for layer in range(count):
            listed = {value for at, value in names if at == layer}
            found, others = label_masks(slab[..., layer], listed, (z, 0, 0))
            for value, mask in found.items():
                pieces.setdefault((layer, value), []).append(mask)
            nobodys.update(dict.fromkeys((layer, value) for value in others))
    for key in list(pieces):
        structures.add_mask(names[key], union(pieces.pop(key)), structures.info[names[key]])
    for layer, value in list(nobodys)[:_MOST_NAMED]:
        structures.warnings.append(
            f"{path.name}: voxels with label {value} of layer {layer} belong to no segment"
        )
    if len(nobodys) > _MOST_NAMED:
        structures.warnings.append(
            f"{path.name}: and so do those with {len(nobodys) - _MOST_NAMED} further labels"
        )
    return structures


_SEGMENT_FIELD = re.compile(r"Segment(\d+)_")
_MOST_NAMED = 10
"""Labels that warnings name one by one."""
_Segment = tuple[tuple[int, int], str, StructureInfo]
"""(layer, label), name, and what is known besides."""


def _segments(header: dict[str, Any], segmentation: dict[str, Any], count: int) -> Iterator[_Segment]:
    """Slicer's segments, in their order."""
    indices = sorted({int(m[1]) for key in header if (m := _SEGMENT_FIELD.match(key))})
    for index, segment in zip(indices, segmentation["segments"], strict=True):
        name = str(
            header.get(f"Segment{index}_Name") or header.get(f"Segment{index}_ID") or f"Segment_{index + 1}"
        )
        # Slicer before it had shared layers: a segment without a layer is in that of its own number
        key = (segment.get("layer", index if count > 1 else 0), segment.get("labelValue", 1))
        yield key, name, _info(header, index, segment)


def _mitk_segments(path: Path, header: dict[str, Any], warnings: list[str]) -> Iterator[_Segment]:
    try:
        labels = mitk_labels(header)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is a segmentation of MITK that cannot be read: {error}") from error
    for label in labels:
        if not label.name:
            warnings.append(f"{path.name}: the label {label.value} of group {label.layer} has no name")
        name = label.name or f"Label {label.value}"
        yield (label.layer, label.value), name, StructureInfo(colour=label.colour)


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
    segments = {found[1] for line in lines if (found := _SEGMENT_FIELD.match(line))}
    if len(segments) > MOST_STRUCTURES:
        raise InputError(
            f"{path} has {len(segments)} segments; more than {MOST_STRUCTURES} are in no patient"
        )
    try:
        header = dict(nrrd.read_header(lines))
        if len(header["sizes"]) != header["dimension"] or "type" not in header or "encoding" not in header:
            raise ValueError("its size, type or encoding is missing")
    except Exception as error:  # pynrrd raises ValueError, KeyError, NRRDError ... for bad fields
        raise InputError(f"{path} has a damaged NRRD header: {error}") from error
    return header, offset


def _geometry(
    path: Path, size: tuple[int, int, int], matrix: npt.NDArray[np.float64], warnings: list[str]
) -> Geometry:
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or (spacing <= 0).any() or min(size) < 1:
        raise InputError(f"{path} has no usable geometry (sizes, space directions, space origin)")
    # a spacing such as 0.1 mm comes back as 0.1, not 0.09999999999999999
    spacing = np.array([float(f"{s:.15g}") for s in spacing])
    direction, origin = matrix[:3, :3] / spacing, matrix[:3, 3]
    nearest, moved = squared(direction, spacing, origin, size, path, warnings)
    if np.abs(nearest - direction).max() > 1e-12:
        direction, origin = nearest, moved
    x, y, z = spacing.tolist()
    ox, oy, oz = origin.tolist()
    return Geometry(size, (x, y, z), (ox, oy, oz), tuple(direction.ravel().tolist()))


def _info(header: dict[str, Any], index: int, segment: dict[str, Any]) -> StructureInfo:
    tags = dict(
        text.strip().split(":", 1)
        for text in str(header.get(f"Segment{index}_Tags", "")).split("|")
        if ":" in text
    )
    return StructureInfo(
        colour=as_colour([round(255 * c) for c in segment.get("color", ())]),
        terminology=tags.pop("TerminologyEntry", ""),
        label=tags.pop(_OWN_TAGS["label"], ""),
        original_name=tags.pop(_OWN_TAGS["original_name"], ""),
        tags=tags,
    )


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
            if stream.read(1):  # what is compressed is checked by its sum only when it is read to its end
                raise EOFError("it goes on after its voxels")
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
