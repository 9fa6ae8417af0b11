"""`StructureSet`: organs at risk as masks cropped to their bounding boxes, on one reference geometry.

Physical space is LPS mm (DICOM, SimpleITK); arrays are ``[z, y, x]``. Organs may overlap (a lens lies in its
eye), so each keeps its own mask. A mask costs one byte a voxel of its bounding box: 42 organs on a 512 x 512
x 360 CT are about 5 MB where 42 full volumes would be 4 GB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.errors import InputError

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Geometry:
    """A voxel grid: ``size`` in voxels and ``spacing`` in mm along (x, y, z), ``origin`` (LPS mm) of the
    centre of voxel (0, 0, 0), ``direction`` the nine direction cosines row by row, as SimpleITK gives
    them."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """The grid of a three-dimensional image."""
        if image.GetDimension() != 3:
            raise InputError(f"an image of 3 dimensions is needed, this one has {image.GetDimension()}")
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an array on this grid, (z, y, x)."""
        return (self.size[2], self.size[1], self.size[0])

    @property
    def voxel_cc(self) -> float:
        """Volume of one voxel in cubic centimetres."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """4 x 4 matrix from a voxel index (x, y, z, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def to_physical(self, index_zyx: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """LPS mm (x, y, z), shape (..., 3), of voxel indices (z, y, x), which may be fractions."""
        xyz = np.asarray(index_zyx, dtype=np.float64)[..., ::-1]
        matrix = self.matrix
        return xyz @ matrix[:3, :3].T + matrix[:3, 3]

    def to_index(self, point_lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Voxel indices (z, y, x), shape (..., 3) and fractional, of points in LPS mm (x, y, z)."""
        matrix = self.matrix
        xyz = (np.asarray(point_lps, dtype=np.float64) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
        return xyz[..., ::-1]

    def corners(self) -> npt.NDArray[np.float64]:
        """LPS mm of the eight corner voxels' centres, shape (8, 3)."""
        return self.to_physical(
            np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"), -1).reshape(8, 3)
        )

    def same_as(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same size and no voxel's place differs by more than
        ``tolerance_mm``."""
        if tuple(self.size) != tuple(other.size):
            return False
        return bool(np.abs(self.corners() - other.corners()).max() <= tolerance_mm)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Geometry:
        """The grid of a box of this one: ``start`` and ``shape`` in voxels (z, y, x)."""
        return Geometry(
            (int(shape[2]), int(shape[1]), int(shape[0])),
            self.spacing,
            tuple(float(v) for v in self.to_physical(start)),  # type: ignore[arg-type]
            self.direction,
        )

    def place(self, image: sitk.Image) -> sitk.Image:
        """Give an image of the same size this grid's spacing, origin and direction; returns the image."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def describe(self) -> str:
        """Size and spacing in words, for messages."""
        size = " x ".join(str(n) for n in self.size)
        spacing = " x ".join(f"{s:g}" for s in self.spacing)
        return f"{size} voxels of {spacing} mm from ({', '.join(f'{o:g}' for o in self.origin)})"


@dataclass(frozen=True, eq=False)
class Mask:
    """One organ's voxels: ``array`` (bool, [z, y, x], read-only) is the tight bounding box, whose first voxel
    is at ``start`` (z, y, x) of the reference geometry. An empty organ has an array of shape (0, 0, 0)."""

    start: tuple[int, int, int]
    array: BoolArray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.shape

    @property
    def stop(self) -> tuple[int, int, int]:
        """First voxel (z, y, x) beyond the bounding box."""
        z, y, x = (s + n for s, n in zip(self.start, self.shape, strict=True))
        return (z, y, x)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the bounding box lies in a full array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return (z, y, x)

    @property
    def is_empty(self) -> bool:
        return self.array.size == 0

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.array))

    def box(self, start: Sequence[int], shape: Sequence[int]) -> BoolArray:
        """The mask in another box of the same grid (``start``, ``shape``: z, y, x); False outside the organ's
        own."""
        out = np.zeros(tuple(shape), dtype=bool)
        low = [max(a, b) for a, b in zip(self.start, start, strict=True)]
        high = [min(a, b + n) for a, b, n in zip(self.stop, start, shape, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            into = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            of = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, self.start, strict=True))
            out[into] = self.array[of]
        return out

    def equals(self, other: Mask) -> bool:
        """Whether both are the same voxels."""
        if self.is_empty or other.is_empty:
            return self.is_empty and other.is_empty
        return self.start == other.start and np.array_equal(self.array, other.array)


def tight_mask(array: npt.ArrayLike, start: Sequence[int] = (0, 0, 0)) -> Mask:
    """The `Mask` of a boolean (or 0/1) array whose first voxel is at ``start`` (z, y, x); copies the bounding
    box."""
    full = np.asarray(array)
    if full.dtype != bool:
        full = full != 0
    if full.ndim != 3:
        raise ValueError(f"a mask has 3 dimensions [z, y, x], not {full.ndim}")
    slices = np.flatnonzero(full.any(axis=(1, 2)))
    if slices.size == 0:
        empty = np.zeros((0, 0, 0), dtype=bool)
        empty.flags.writeable = False
        return Mask((0, 0, 0), empty)
    low, high = [int(slices[0])], [int(slices[-1]) + 1]
    shadow: BoolArray = np.asarray(full[low[0] : high[0]].any(axis=0))
    for lines in (shadow.any(axis=1), shadow.any(axis=0)):
        hit = np.flatnonzero(lines)
        low.append(int(hit[0]))
        high.append(int(hit[-1]) + 1)
    view = full[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    crop = np.array(view, dtype=bool, order="C", copy=True)
    crop.flags.writeable = False
    return Mask((low[0] + int(start[0]), low[1] + int(start[1]), low[2] + int(start[2])), crop)


class StructureSet:
    """Named masks on one `Geometry`, in the order they were added.

    >>> organs = StructureSet(Geometry.of(ct))
    >>> organs.add("Parotid_L", array_zyx)
    >>> organs.volume_cc("Parotid_L"), organs.crop("Parotid_L").start

    ``info[name]`` is a dictionary of what is known of a structure beside its voxels. Files keep these keys:
    ``label`` (readable name), ``colour`` (r, g, b; 0-255), ``terminology`` (Slicer's entry, one string),
    ``original_name`` (how the file it came from spelled it) and ``tags`` (further text tags, e.g.
    provenance). ``warnings`` collects what a reader found odd. Adding a name again replaces its mask.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.info: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self._masks: dict[str, Mask] = {}

    # --- filling ---------------------------------------------------------------------------------
    def add(self, name: str, array: npt.ArrayLike, info: dict[str, Any] | None = None) -> None:
        """Add (or replace) an organ from a full boolean array [z, y, x] of the geometry's shape."""
        full = np.asarray(array)
        if full.shape != self.geometry.shape:
            raise ValueError(f"the mask of {name} has shape {full.shape}, the geometry {self.geometry.shape}")
        self.add_mask(name, tight_mask(full), info)

    def add_crop(
        self, name: str, start: Sequence[int], array: npt.ArrayLike, info: dict[str, Any] | None = None
    ) -> None:
        """Add (or replace) an organ from a box of the geometry; ``start`` is the box's first voxel (z, y, x).

        The box may reach beyond the geometry as long as the organ's voxels do not.
        """
        self.add_mask(name, tight_mask(array, start), info)

    def add_mask(self, name: str, mask: Mask, info: dict[str, Any] | None = None) -> None:
        """Add (or replace) an organ; masks are read-only, so two sets may share one."""
        inside = all(
            a >= 0 and b <= n for a, b, n in zip(mask.start, mask.stop, self.geometry.shape, strict=True)
        )
        if not inside:
            raise ValueError(f"{name} reaches from {mask.start} to {mask.stop}, beyond {self.geometry.shape}")
        self._masks[name] = mask
        if info is not None:
            self.info[name] = dict(info)
        else:
            self.info.setdefault(name, {})

    def remove(self, name: str) -> None:
        self.crop(name)
        del self._masks[name]
        self.info.pop(name, None)

    def rename(self, name: str, new_name: str) -> None:
        """Give a structure another name; its place in the order stays."""
        if new_name != name and new_name in self._masks:
            raise ValueError(f"there is already a structure {new_name}")
        self.crop(name)
        self._masks = {new_name if n == name else n: mask for n, mask in self._masks.items()}
        self.info[new_name] = self.info.pop(name, {})

    # --- asking ----------------------------------------------------------------------------------
    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._masks)

    def __contains__(self, name: object) -> bool:
        return name in self._masks

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._masks))

    def __len__(self) -> int:
        return len(self._masks)

    def crop(self, name: str) -> Mask:
        """The organ's `Mask`; `InputError` when there is no such structure."""
        try:
            return self._masks[name]
        except KeyError:
            known = ", ".join(self._masks) or "none"
            raise InputError(f"there is no structure {name!r} here; there are: {known}") from None

    def full(self, name: str) -> BoolArray:
        """The organ as a new boolean array of the geometry's shape [z, y, x]."""
        mask = self.crop(name)
        out = np.zeros(self.geometry.shape, dtype=bool)
        out[mask.slices] = mask.array
        return out

    def voxels(self, name: str) -> int:
        return self.crop(name).voxels

    def is_empty(self, name: str) -> bool:
        return self.crop(name).is_empty

    def volume_cc(self, name: str) -> float:
        return self.voxels(name) * self.geometry.voxel_cc

    def bounding_box(self, name: str) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
        """First voxel and first voxel beyond, (z, y, x) each; None when the organ is empty."""
        mask = self.crop(name)
        return None if mask.is_empty else (mask.start, mask.stop)

    def centre_of_mass(self, name: str) -> tuple[float, float, float] | None:
        """LPS mm (x, y, z); None when the organ is empty."""
        mask = self.crop(name)
        if mask.is_empty:
            return None
        sums = [
            np.count_nonzero(mask.array, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)
        ]
        index = [float(np.arange(len(n)) @ n / n.sum()) + s for n, s in zip(sums, mask.start, strict=True)]
        x, y, z = self.geometry.to_physical(index)
        return (float(x), float(y), float(z))

    @property
    def nbytes(self) -> int:
        """Memory of all masks."""
        return sum(mask.array.nbytes for mask in self._masks.values())

    # --- set operations --------------------------------------------------------------------------
    def union(self, names: Iterable[str]) -> Mask:
        """The voxels of any of the organs."""
        masks = [m for m in map(self.crop, names) if not m.is_empty]
        if not masks:
            return tight_mask(np.zeros((0, 0, 0), dtype=bool))
        start = [min(m.start[a] for m in masks) for a in range(3)]
        shape = [max(m.stop[a] for m in masks) - start[a] for a in range(3)]
        out = np.zeros(shape, dtype=bool)
        for mask in masks:
            out[tuple(slice(a - s, b - s) for a, b, s in zip(mask.start, mask.stop, start, strict=True))] |= (
                mask.array
            )
        return tight_mask(out, start)

    def intersection(self, first: str, second: str) -> Mask:
        """The voxels of both organs."""
        a, b = self.crop(first), self.crop(second)
        return tight_mask(a.array & b.box(a.start, a.shape), a.start)

    def subtraction(self, first: str, second: str) -> Mask:
        """The voxels of the first organ that are not the second's."""
        a, b = self.crop(first), self.crop(second)
        return tight_mask(a.array & ~b.box(a.start, a.shape), a.start)

    def subset(self, names: Iterable[str]) -> StructureSet:
        """A new set of some of the structures, in the given order, sharing their masks."""
        out = StructureSet(self.geometry)
        for name in names:
            out.add_mask(name, self.crop(name), self.info.get(name))
        return out

    def on(self, geometry: Geometry) -> StructureSet:
        """The same voxels on a grid of the same size, e.g. the exact one where a file kept it in single
        precision."""
        if tuple(geometry.size) != tuple(self.geometry.size):
            raise ValueError(f"{geometry.size} is not the size of the structures' grid, {self.geometry.size}")
        out = StructureSet(geometry)
        for name, mask in self._masks.items():
            out.add_mask(name, mask, self.info.get(name))
        return out

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> StructureSet:
        """A new set on a box of the geometry (``start`` and ``shape`` z, y, x); what lies outside is cut
        off."""
        out = StructureSet(self.geometry.cropped(start, shape))
        for name, mask in self._masks.items():
            out.add_crop(name, (0, 0, 0), mask.box(start, shape), self.info.get(name))
        return out

    def resample(self, geometry: Geometry, *, nearest: bool = False) -> StructureSet:
        """A new set on another grid of any orientation and spacing.

        The mask is interpolated linearly and cut at one half (which keeps surfaces smooth on a finer grid),
        or sampled at the nearest voxel with ``nearest=True``. On an equal grid the masks are shared, exactly.
        An organ smaller than the new spacing may vanish; it stays by name, empty.
        """
        out = StructureSet(geometry)
        same = self.geometry.same_as(geometry)
        for name, mask in self._masks.items():
            out.add_mask(
                name, mask if same else _resample(mask, self.geometry, geometry, nearest), self.info.get(name)
            )
        return out

    # --- as a label image ------------------------------------------------------------------------
    def to_label_map(
        self, names: Sequence[str] | None = None
    ) -> tuple[sitk.Image, dict[int, tuple[str, ...]]]:
        """One image with a value per organ, and what each value means.

        Value ``i + 1`` is ``names[i]`` (all structures when ``names`` is None), whether or not it has voxels.
        Where organs overlap the voxel takes a further value that stands for all of them, so nothing is lost:
        43 may mean ("Eye_L", "Lens_L"). The image is uint8, or uint16 above 255 values.
        """
        chosen = tuple(self.names if names is None else names)
        values: dict[int, tuple[str, ...]] = {i + 1: (name,) for i, name in enumerate(chosen)}
        value_of: dict[tuple[int, ...], int] = {(i,): i + 1 for i in range(len(chosen))}
        labels = np.zeros(self.geometry.shape, dtype=np.uint16 if len(chosen) > 255 else np.uint8)
        members: dict[int, tuple[int, ...]] = {0: (), **{i + 1: (i,) for i in range(len(chosen))}}
        for i, name in enumerate(chosen):
            mask = self.crop(name)
            box = labels[mask.slices]
            inside = box[mask.array]
            present = np.unique(inside)
            lookup = np.zeros(int(present.max(initial=0)) + 1, dtype=np.uint16)
            for before in present.tolist():
                key = (*members[before], i)
                if key not in value_of:
                    value = len(values) + 1
                    value_of[key], members[value] = value, key
                    values[value] = tuple(chosen[k] for k in key)
                lookup[before] = value_of[key]
            if len(values) > 255 and labels.dtype == np.uint8:
                labels = labels.astype(np.uint16)
                box = labels[mask.slices]
            box[mask.array] = lookup[inside]
        return self.geometry.place(sitk.GetImageFromArray(labels)), values

    @classmethod
    def from_label_map(cls, image: sitk.Image, values: dict[int, tuple[str, ...]]) -> StructureSet:
        """The reverse of `to_label_map`; a value that is not listed is left out with a warning."""
        out = cls(Geometry.of(image))
        labels = sitk.GetArrayViewFromImage(image)
        from scipy.ndimage import find_objects

        around = tight_mask(labels)
        compact = np.ascontiguousarray(labels[around.slices])
        boxes = find_objects(compact.astype(np.int32, copy=False)) if compact.size else []
        names = list(dict.fromkeys(name for members in values.values() for name in members))
        for name in names:
            mine = [v for v, members in values.items() if name in members]
            found = [boxes[v - 1] for v in mine if v <= len(boxes) and boxes[v - 1] is not None]
            if not found:
                out.add_mask(name, tight_mask(np.zeros((0, 0, 0), dtype=bool)))
                continue
            low = [min(box[a].start for box in found) for a in range(3)]
            high = [max(box[a].stop for box in found) for a in range(3)]
            part = compact[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
            start = [a + b for a, b in zip(low, around.start, strict=True)]
            out.add_crop(name, start, part == mine[0] if len(mine) == 1 else np.isin(part, mine))
        unknown = [v + 1 for v, box in enumerate(boxes) if box is not None and v + 1 not in values]
        if unknown:
            out.warnings.append(f"label values without a name were left out: {', '.join(map(str, unknown))}")
        return out


def _resample(mask: Mask, source: Geometry, target: Geometry, nearest: bool) -> Mask:
    """The mask on the target grid, computed only where the organ's box lies."""
    if mask.is_empty:
        return mask
    start = [s - 1 for s in mask.start]
    grid = source.cropped(start, [n + 2 for n in mask.shape])
    at = target.to_index(grid.corners())
    low = np.maximum(np.floor(at.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(at.max(axis=0)).astype(int) + 1, target.shape)
    if (low >= high).any():
        return tight_mask(np.zeros((0, 0, 0), dtype=bool))
    padded = np.pad(mask.array, 1).astype(np.uint8 if nearest else np.float32)
    image = grid.place(sitk.GetImageFromArray(padded))
    box = target.cropped(low.tolist(), (high - low).tolist())
    result = sitk.Resample(
        image,
        box.size,
        sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        box.origin,
        box.spacing,
        box.direction,
        0,
        image.GetPixelID(),
    )
    return tight_mask(sitk.GetArrayViewFromImage(result) >= (1 if nearest else 0.5), low.tolist())
