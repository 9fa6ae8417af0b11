"""Label maps and masks: a segment's voxels in Slicer, and an organ's in the core.

A label map (``vtkOrientedImageData``) has its own extent and matrix (RAS), and may hold many segments by their labels;
a `soars.structures.Mask` is one organ's bounding box on the CT's grid (LPS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from soars.errors import InputError
from SOARSSegmentationLib.scene.grids import GRID_TOLERANCE, LPS_TO_RAS, geometry_of_image, vtk_matrix

if TYPE_CHECKING:
    import numpy.typing as npt

    from soars.structures import Geometry, Mask

LABEL_MAP = "Binary labelmap"


def no_voxels() -> Mask:
    """The mask of an empty organ."""
    from soars.structures import EMPTY_MASK

    return EMPTY_MASK


def voxels_of(image: Any) -> npt.NDArray[Any]:
    """A label map's voxels [z, y, x], which are the image's own, not a copy."""
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(
        z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1
    )


def label_map_of(geometry: Geometry, mask: Mask) -> Any:
    """A mask on a grid as a label map of its own (``vtkOrientedImageData``), cropped to it."""
    image = empty_label_map(geometry, mask.start, mask.shape)
    if not mask.is_empty:
        voxels_of(image)[:] = mask.array
    return image


def empty_label_map(geometry: Geometry, start: Sequence[int], shape: Sequence[int]) -> Any:
    """A label map of zeros (uint8) over a box (z, y, x) of a grid."""
    image = slicer.vtkOrientedImageData()
    image.SetImageToWorldMatrix(vtk_matrix(LPS_TO_RAS @ geometry.matrix))
    image.SetExtent([v for axis in (2, 1, 0) for v in (start[axis], start[axis] + shape[axis] - 1)])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    scalars = image.GetPointData().GetScalars()
    if scalars is not None and scalars.GetNumberOfTuples():
        numpy_support.vtk_to_numpy(scalars)[:] = 0
    return image


def masks_of(segmentation: Any, ids: Sequence[str], geometry: Geometry) -> dict[str, Mask]:
    """The masks of a ``vtkSegmentation``'s segments on a grid; each label map is read once."""
    from scipy.ndimage import find_objects

    from soars.structures import tight_mask

    layers: dict[Any, dict[int, list[str]]] = {}
    out: dict[str, Mask] = {}
    for segment_id in ids:
        segment = segmentation.GetSegment(segment_id)
        image = segment.GetRepresentation(LABEL_MAP)
        if image is None or image.IsEmpty():
            out[segment_id] = no_voxels()
        else:
            layers.setdefault(image, {}).setdefault(int(segment.GetLabelValue()), []).append(segment_id)
    for image, labels in layers.items():
        start = _start_on(image, geometry)
        if start is None:
            for segment_id in (one for ids_ in labels.values() for one in ids_):
                out[segment_id] = _resampled(image, segmentation.GetSegment(segment_id), geometry)
            continue
        voxels = voxels_of(image)
        if len(labels) == 1:
            boxes: Mapping[int, Any] = dict.fromkeys(labels, np.s_[:, :, :])
        else:
            boxes = dict(enumerate(find_objects(_whole_numbers(voxels), max_label=max(labels)), start=1))
        for label, ids_ in labels.items():
            box = boxes.get(label)
            if box is None:
                mask = no_voxels()
            else:
                low = [(s.start or 0) + a for s, a in zip(box, start, strict=True)]
                mask = inside(tight_mask(voxels[box] == label, low), geometry)
            out.update(dict.fromkeys(ids_, mask))
    return out


def _whole_numbers(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The integer type in which scipy finds objects."""
    return voxels if voxels.dtype.kind in "iu" else voxels.astype(np.int32)


def inside(mask: Mask, geometry: Geometry) -> Mask:
    """The mask without what lies outside the grid."""
    from soars.structures import tight_mask

    if all(a >= 0 and b <= n for a, b, n in zip(mask.start, mask.stop, geometry.shape, strict=True)):
        return mask
    low = [max(0, a) for a in mask.start]
    high = [min(b, n) for b, n in zip(mask.stop, geometry.shape, strict=True)]
    return tight_mask(mask.box(low, [max(0, b - a) for a, b in zip(low, high, strict=True)]), low)


def _start_on(image: Any, geometry: Geometry) -> tuple[int, int, int] | None:
    """The voxel (z, y, x) of a grid on which a label map's first lies; None when its voxels are not the grid's."""
    own = geometry_of_image(image)
    first = geometry.to_index(own.to_physical((0, 0, 0)))
    last = geometry.to_index(own.to_physical([n - 1 for n in own.shape]))
    axes = np.abs(np.linalg.inv(geometry.matrix[:3, :3]) @ own.matrix[:3, :3] - np.eye(3)) @ own.size
    whole = np.round(first)
    if axes.max() > GRID_TOLERANCE or max(
        np.abs(first - whole).max(), np.abs(last - np.round(last)).max()
    ) > (GRID_TOLERANCE):
        return None
    z, y, x = (int(v) for v in whole)
    return (z, y, x)


def _resampled(image: Any, segment: Any, geometry: Geometry) -> Mask:
    """A segment of a label map on other voxels, by the nearest voxel, as Slicer resamples it."""
    from soars.structures import tight_mask

    one = slicer.vtkOrientedImageData()
    one.ShallowCopy(image)
    numbers = numpy_support.numpy_to_vtk(
        (voxels_of(image) == segment.GetLabelValue()).astype(np.uint8).ravel(), deep=True
    )
    one.GetPointData().SetScalars(numbers)
    reference = empty_label_map(geometry, (0, 0, 0), geometry.shape)
    out = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(one, reference, out, False, True):
        raise InputError(f"{segment.GetName()} could not be resampled to the CT's grid")
    extent = out.GetExtent()
    # Slicer's own extends beyond the grid where the segment does.
    return inside(tight_mask(voxels_of(out), (extent[4], extent[2], extent[0])), geometry)
