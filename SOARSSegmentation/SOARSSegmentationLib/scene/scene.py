"""Between the MRML scene and the core: CT nodes to files, structures to segmentation nodes and back.

A segmentation made here has one segment an organ: its ID and its name are the organ's name in the catalogue, its tag
"SOARS.organ" says so again for when somebody renames it, and organs that do not overlap share a label map, as Slicer's
own do. Label maps are cropped to the organs in them. Voxels are moved as whole arrays, never through
``slicer.util.arrayFromSegmentBinaryLabelmap``, which takes a third of a second an organ and keeps a volume each time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from soars import catalogue
from soars.errors import InputError, UnknownOrganError
from SOARSSegmentationLib.scene.contents import LABEL_MAP, grid_of, no_voxels, voxels_of
from SOARSSegmentationLib.scene.label_maps import empty_label_map, geometry_of_image, masks_of

if TYPE_CHECKING:
    from soars.structures import Geometry, Mask, StructureSet

ORGAN_TAG = "SOARS.organ"
LABEL_TAG = "SOARS.Label"
STATUS_TAG = "Segmentation.Status"
CT_FILE = "ct.nrrd"


# --- the CT ------------------------------------------------------------------------------------------------------
def check_volume(volume_node: Any) -> None:
    """Raise `InputError` when a volume node cannot be segmented as it is."""
    if volume_node is None:
        raise InputError("no CT is chosen: load one and choose it")
    name = volume_node.GetName()
    image = volume_node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise InputError(f"{name} holds no image: load the CT again")
    if not volume_node.IsA("vtkMRMLScalarVolumeNode") or image.GetNumberOfScalarComponents() != 1:
        raise InputError(f"{name} is not a CT: it has {image.GetNumberOfScalarComponents()} values a voxel")
    if volume_node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"{name} is a label map, not a CT: choose the CT")
    if volume_node.GetParentTransformNode() is not None:
        raise InputError(f"{name} is under a transform: harden it first, in the Transforms module")


def ct_file(volume_node: Any, folder: Path) -> Path:
    """Write a CT node, as it is in the scene, to an uncompressed NRRD in ``folder``; returns the file.

    `InputError` when the node is no CT, is under a transform, or the file cannot be written.
    """
    check_volume(volume_node)
    path = folder / CT_FILE
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    storage.SetScene(volume_node.GetScene())  # which collects what went wrong
    image = volume_node.GetImageData()
    expected = image.GetNumberOfPoints() * image.GetScalarSize()
    if not _has_room(folder, expected):
        raise InputError(
            f"the disk of {folder} is full: the CT needs {expected / 1e6:.0f} MB there; free some space"
        )
    if not storage.WriteData(volume_node) or not path.is_file() or path.stat().st_size < expected:
        raise InputError(
            f"the CT could not be written into {folder}: check that the disk is not full and the folder may be written"
        )
    return path


def _has_room(folder: Path, size: int) -> bool:
    try:
        return shutil.disk_usage(folder).free > size + 1_000_000
    except OSError:
        return True  # not known: writing will tell


def dicom_files(volume_node: Any, file_of: Callable[[str], str] | None = None) -> list[str]:
    """The files of the DICOM CT that a volume node was loaded from; empty when they are not all known and there.

    ``file_of`` gives the file of a SOP instance UID, "" when unknown; without it Slicer's DICOM database is asked.
    """
    uids = ((volume_node.GetAttribute("DICOM.instanceUIDs") if volume_node else None) or "").split()
    if file_of is None:
        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not uids:
            return []
        file_of = database.fileForInstance
    files = [str(file_of(uid) or "") for uid in uids]
    return files if all(file and os.path.isfile(file) for file in files) else []


# --- into the scene ----------------------------------------------------------------------------------------------
def add_segmentation(
    scene: Any,
    volume_node: Any,
    structures: StructureSet | Path | str,
    name: str,
    *,
    tags: Mapping[str, str] | None = None,
) -> Any:
    """Add structures (or those of a .seg.nrrd file) to the scene; returns the ``vtkMRMLSegmentationNode``.

    They come onto the CT's grid, into its place in the subject hierarchy, and refer to it. ``tags`` is put on every
    segment, and so is what ``structures.info`` says under "tags". Organs get the catalogue's colour and terminology,
    other structures their own. `InputError` when a file cannot be read; the scene is then as it was.
    """
    check_volume(volume_node)
    found = _read(Path(structures)) if isinstance(structures, (str, Path)) else structures
    segmentation = _segmentation_of(on_grid_of(found, volume_node), tags or {})
    return _into_scene(scene, volume_node, segmentation, name)


def empty_segmentation(
    scene: Any,
    volume_node: Any,
    organs: Iterable[str],
    name: str,
    *,
    tags: Mapping[str, str] | None = None,
) -> Any:
    """A segmentation of the organs, all without voxels, for contouring from nothing."""
    check_volume(volume_node)
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(LABEL_MAP)
    for organ in organs:
        segmentation.AddEmptySegment(organ, organ)
        _describe(segmentation.GetSegment(organ), organ, {}, tags or {})
    return _into_scene(scene, volume_node, segmentation, name)


def remove_segmentation(segmentation_node: Any) -> None:
    """Take a segmentation out of its scene, with what only it uses."""
    mrml_scene = segmentation_node.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(mrml_scene)
    item = hierarchy.GetItemByDataNode(segmentation_node) if hierarchy is not None else 0
    if item:
        hierarchy.RemoveItem(item, False, False)  # the item only
    for node in (segmentation_node.GetDisplayNode(), segmentation_node.GetStorageNode(), segmentation_node):
        if node is not None:
            mrml_scene.RemoveNode(node)


def on_grid_of(structures: StructureSet, volume_node: Any) -> StructureSet:
    """The structures on a CT node's grid; resampled when theirs is another."""
    grid = grid_of(volume_node)
    # Files keep a grid to a few digits: what lies on the CT's voxels takes their exact place.
    return structures.on(grid) if structures.geometry.same_as(grid, 1e-2) else structures.resample(grid)


def add_empty_segments(segmentation_node: Any, organs: Iterable[str]) -> None:
    """Add a segment without voxels for each organ that has no segment yet."""
    segmentation = segmentation_node.GetSegmentation()
    there = segment_ids(segmentation_node)
    for organ in organs:
        if organ not in there:
            segment_id = segmentation.AddEmptySegment(organ, organ)
            _describe(segmentation.GetSegment(segment_id), organ, {}, {})


def _read(path: Path) -> StructureSet:
    from soars.formats.segnrrd import read_seg_nrrd

    return read_seg_nrrd(path)


def _segmentation_of(structures: StructureSet, tags: Mapping[str, str]) -> Any:
    from soars.formats.segnrrd import pack_layers

    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(LABEL_MAP)
    layer_of: dict[str, tuple[Any, int]] = {}
    for layer in pack_layers(structures):
        union = structures.union(layer)
        image = empty_label_map(structures.geometry, union.start, union.shape)
        voxels = voxels_of(image) if not union.is_empty else None
        for label, name in enumerate(layer, start=1):
            layer_of[name] = (image, label)
            mask = structures.crop(name)
            if voxels is not None and not mask.is_empty:
                low = [a - b for a, b in zip(mask.start, union.start, strict=True)]
                box = tuple(slice(a, a + n) for a, n in zip(low, mask.shape, strict=True))
                voxels[box][mask.array] = label
    for name in structures:
        segment = slicer.vtkSegment()
        image, label = layer_of[name]
        segment.SetLabelValue(label)
        segment.AddRepresentation(LABEL_MAP, image)
        _describe(segment, name, structures.info.get(name, {}), tags)
        segmentation.AddSegment(segment, name)
    return segmentation


def _describe(segment: Any, name: str, info: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    from soars.structures.naming import describe

    facts = describe(name, dict(info))
    segment.SetName(name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor([c / 255 for c in facts["colour"]])
    segment.SetColorAutoGenerated(False)
    if facts.get("terminology"):
        segment.SetTag(segment.GetTerminologyEntryTagName(), facts["terminology"])
    segment.SetTag(LABEL_TAG, facts["label"])
    if name in catalogue.CATALOGUE:
        segment.SetTag(ORGAN_TAG, name)
    for tag, text in {STATUS_TAG: "notstarted", **facts.get("tags", {}), **tags}.items():
        segment.SetTag(str(tag), str(text))


def _into_scene(scene: Any, volume_node: Any, segmentation: Any, name: str) -> Any:
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetAndObserveSegmentation(segmentation)
    scene.AddNode(node)
    try:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        if display is not None:
            display.SetOpacity2DFill(0.2)  # the CT is to be seen through 42 organs
        _beside(scene, volume_node, node)
    except BaseException:
        remove_segmentation(node)
        raise
    return node


def _beside(scene: Any, volume_node: Any, node: Any) -> None:
    """Put a node into its CT's place in the subject hierarchy: its study, where it has one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    volume_item = hierarchy.GetItemByDataNode(volume_node)
    if not volume_item:
        return
    parent = hierarchy.GetItemParent(volume_item)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


# --- out of the scene --------------------------------------------------------------------------------------------
def organ_of(segment: Any) -> str | None:
    """The organ that a segment is, by its tag or else by its name in any spelling; None when it is none we know."""
    tagged = tag_of(segment, ORGAN_TAG)
    if tagged in catalogue.CATALOGUE:
        return tagged
    try:
        return catalogue.resolve(segment.GetName() or "").name
    except UnknownOrganError:
        return None


def tag_of(segment: Any, tag: str) -> str:
    """A segment's tag; "" when it has none."""
    text = vtk.reference("")
    return str(text) if segment.GetTag(tag, text) else ""


def segment_ids(segmentation_node: Any) -> dict[str, str]:
    """The segment of each organ, in the segmentation's order; the first one where two are the same organ."""
    found: dict[str, str] = {}
    segmentation = segmentation_node.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        organ = organ_of(segmentation.GetNthSegment(index))
        if organ is not None:
            found.setdefault(organ, segmentation.GetNthSegmentID(index))
    return found


def volume_of(segmentation_node: Any) -> Any:
    """The CT that a segmentation refers to, or None."""
    return segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())


def geometry_of(segmentation_node: Any, volume_node: Any = None) -> Geometry:
    """The grid (LPS) of a segmentation's organs: that of its CT, or what it remembers of it.

    `InputError` when it neither refers to a CT nor remembers its grid.
    """
    volume = volume_node or volume_of(segmentation_node)
    if volume is not None and volume.GetImageData() is not None:
        return grid_of(volume)
    segmentation = segmentation_node.GetSegmentation()
    converter = slicer.vtkSegmentationConverter
    text = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    image = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, image, False):
        raise InputError(
            f"the segmentation {segmentation_node.GetName()} refers to no CT: choose the CT it was made on"
        )
    return geometry_of_image(image)


def structures_of(
    segmentation_node: Any, organs: Iterable[str] | None = None, volume_node: Any = None
) -> StructureSet:
    """A segmentation's organs on its CT's grid, in the segmentation's order, with their colours.

    ``organs``: these only, without voxels where there is no such segment; None: all segments, those that are no organ
    under their own names. Label maps on the CT's grid are taken as they are, others resampled to the nearest voxel.
    `InputError` when a segment is not made of voxels, or the segmentation is under a transform.
    """
    from soars.structures import StructureSet

    _check_readable(segmentation_node)
    geometry = geometry_of(segmentation_node, volume_node)
    segmentation = segmentation_node.GetSegmentation()
    ids = segment_ids(segmentation_node)
    chosen: dict[str, str | None]
    if organs is not None:
        chosen = {organ: ids.get(organ) for organ in organs}
    else:
        name_of = {segment_id: organ for organ, segment_id in ids.items()}
        chosen = {}
        for index in range(segmentation.GetNumberOfSegments()):
            segment_id = segmentation.GetNthSegmentID(index)
            chosen[_free(name_of.get(segment_id) or segmentation.GetNthSegment(index).GetName(), chosen)] = (
                segment_id
            )
    masks = masks_of(
        segmentation_node.GetSegmentation(),
        [segment_id for segment_id in chosen.values() if segment_id],
        geometry,
    )
    out = StructureSet(geometry)
    for name, segment_id in chosen.items():
        out.add_mask(name, masks.get(segment_id) or no_voxels() if segment_id else no_voxels())
        if segment_id:
            colour = segmentation.GetSegment(segment_id).GetColor()
            out.info[name] = {"colour": tuple(round(255 * c) for c in colour)}
    return out


def organ_mask(segmentation_node: Any, segment_id: str, volume_node: Any = None) -> Mask:
    """One segment's voxels on its CT's grid; errors as of `structures_of`."""
    _check_readable(segmentation_node)
    if segmentation_node.GetSegmentation().GetSegment(segment_id) is None:
        raise InputError(
            f"the segmentation {segmentation_node.GetName()} has no segment {segment_id!r} any more"
        )
    return masks_of(
        segmentation_node.GetSegmentation(), [segment_id], geometry_of(segmentation_node, volume_node)
    )[segment_id]


def write_seg_nrrd(segmentation_node: Any, path: Path) -> None:
    """Write a segmentation, with all that Slicer keeps of it, to a .seg.nrrd; the file appears whole or not at all.

    Slicer's own writer: slower than the core's (`soars.formats.write_seg_nrrd`), and needs no package. `InputError`
    when the file cannot be written.
    """
    path = Path(path)
    _check_readable(segmentation_node)
    # Slicer joins the label maps of what it writes: not those that the reader is working on.
    copy = slicer.vtkMRMLSegmentationNode()
    copy.GetSegmentation().DeepCopy(segmentation_node.GetSegmentation())
    storage = slicer.vtkMRMLSegmentationStorageNode()
    folder = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=".soars-", dir=path.parent))
            temporary = folder / "segmentation.seg.nrrd"
            storage.SetFileName(str(temporary))
            written = storage.WriteData(copy)
            if not written or not temporary.is_file():
                raise OSError("Slicer's writer failed; the disk may be full")
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


# --- voxels ------------------------------------------------------------------------------------------------------
def _check_readable(segmentation_node: Any) -> None:
    if segmentation_node is None:
        raise InputError("no segmentation is chosen")
    name, segmentation = segmentation_node.GetName(), segmentation_node.GetSegmentation()
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != LABEL_MAP:
        kind = segmentation.GetSourceRepresentationName().lower()
        raise InputError(
            f"the segmentation {name} is made of {kind}s: make Binary labelmap its source representation in the "
            "Segmentations module"
        )
    volume = volume_of(segmentation_node)
    transform = segmentation_node.GetParentTransformNode()
    if transform is not (volume.GetParentTransformNode() if volume is not None else None):
        raise InputError(
            f"the segmentation {name} is under a transform of its own: harden it first, in the Transforms module"
        )


def _free(name: str, taken: Iterable[str]) -> str:
    """A name that is not taken: a segmentation may have two segments of one name."""
    taken, number, free = set(taken), 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
