"""`StructureSet`: organs at risk as masks cropped to their bounding boxes, on one reference geometry.

Physical space is LPS mm (DICOM, SimpleITK); arrays are ``[z, y, x]``. Organs may overlap (a lens lies in its
eye), so each keeps its own mask. A mask costs one byte a voxel of its bounding box: 42 organs on a 512 x 512
x 360 CT are about 5 MB where 42 full volumes would be 4 GB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from soars.errors import InputError
from soars.structures.box import Box
from soars.structures.geometry import Geometry
from soars.structures.mask import BoolArray, Mask, tight_mask, union
from soars.structures.resampling import outside, resample_mask

__all__ = ["BoolArray", "Geometry", "Mask", "StructureInfo", "StructureSet", "tight_mask"]

LONGEST_NAME = 500
"""Characters of a structure's name; DICOM's have 64."""
MOST_STRUCTURES = 2000
"""In a set; atlases of the brain have some hundreds."""
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class StructureInfo:
    """What is known about a structure besides its voxels; every format keeps as much of it as it can.

    Attributes:
        label: readable name; "" for the catalogue's.
        colour: red, green, blue, 0 to 255; None for the catalogue's.
        terminology: Slicer's terminology entry, one string; "" for the catalogue's.
        original_name: how the file that the structure came from spelled its name; "" when it was the same.
        tags: further text by name, e.g. provenance.
    """

    label: str = ""
    colour: Colour | None = None
    terminology: str = ""
    original_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON, without what is not known."""
        out: dict[str, Any] = {
            "label": self.label,
            "colour": list(self.colour) if self.colour else None,
            "terminology": self.terminology,
            "original_name": self.original_name,
            "tags": dict(self.tags),
        }
        return {key: value for key, value in out.items() if value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StructureInfo:
        """The reverse of `to_json`; values of the wrong type are left out."""
        texts = {
            key: content[key]
            for key in ("label", "terminology", "original_name")
            if isinstance(content.get(key), str)
        }
        tags = content.get("tags")
        return cls(
            colour=as_colour(content.get("colour")),
            tags={str(k): str(v) for k, v in tags.items()} if isinstance(tags, Mapping) else {},
            **texts,
        )


def as_colour(value: Any) -> Colour | None:
    """Three whole numbers from 0 to 255; None when it is anything else."""
    try:
        red, green, blue = (int(v) for v in value)
    except (TypeError, ValueError):
        return None
    return (red, green, blue) if all(0 <= v <= 255 for v in (red, green, blue)) else None


class StructureSet:
    """Named masks on one `Geometry`, in the order they were added.

    >>> organs = StructureSet(Geometry(size=(40, 40, 20), spacing=(1.0, 1.0, 2.0), origin=(0.0, 0.0, 0.0)))
    >>> parotid = np.zeros((20, 40, 40), bool)
    >>> parotid[5:10, 20:30, 10:20] = True
    >>> organs.add("Parotid_L", parotid)
    >>> organs.volume_cc("Parotid_L"), organs.crop("Parotid_L").start
    (1.0, (5, 20, 10))

    ``info[name]`` is a structure's `StructureInfo`. ``warnings`` collects what a reader found unusual; every set made
    from this one has them too. Adding a name again replaces its mask.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.info: dict[str, StructureInfo] = {}
        self.warnings: list[str] = []
        self._masks: dict[str, Mask] = {}

    # --- filling ---------------------------------------------------------------------------------
    def add(self, name: str, array: npt.ArrayLike, info: StructureInfo | None = None) -> None:
        """Add (or replace) an organ from a full boolean array [z, y, x] of the geometry's shape."""
        full = np.asarray(array)
        if full.shape != self.geometry.shape:
            raise ValueError(f"the mask of {name} has shape {full.shape}, the geometry {self.geometry.shape}")
        self.add_mask(name, tight_mask(full), info)

    def add_crop(
        self, name: str, start: Sequence[int], array: npt.ArrayLike, info: StructureInfo | None = None
    ) -> None:
        """Add (or replace) an organ from a box of the geometry; ``start`` is the box's first voxel (z, y, x).

        The box may reach beyond the geometry as long as the organ's voxels do not.
        """
        self.add_mask(name, tight_mask(array, start), info)

    def add_mask(self, name: str, mask: Mask, info: StructureInfo | None = None) -> None:
        """Add (or replace) an organ; masks are read-only, so two sets may share one.

        Raises `InputError` for a name longer than `LONGEST_NAME` and for more than `MOST_STRUCTURES`, which only a
        damaged or made-up file has.
        """
        _check_name(name)
        if len(self._masks) >= MOST_STRUCTURES and name not in self._masks:
            raise InputError(f"there are more than {MOST_STRUCTURES} structures, more than in any patient")
        if not self.geometry.box.contains(mask.bounds):
            raise ValueError(f"{name} reaches from {mask.start} to {mask.stop}, beyond {self.geometry.shape}")
        self._masks[name] = mask
        self.info[name] = info or self.info.get(name) or StructureInfo()

    def remove(self, name: str) -> None:
        self.crop(name)
        del self._masks[name]
        self.info.pop(name, None)

    def rename(self, name: str, new_name: str) -> None:
        """Give a structure another name; its place in the order stays."""
        _check_name(new_name)
        if new_name != name and new_name in self._masks:
            raise ValueError(f"there is already a structure {new_name}")
        self.crop(name)
        self._masks = {new_name if n == name else n: mask for n, mask in self._masks.items()}
        self.info[new_name] = self.info.pop(name, StructureInfo())

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

    # --- making others -----------------------------------------------------------------------------
    def union(self, names: Iterable[str]) -> Mask:
        """The voxels of any of the organs."""
        return union(map(self.crop, names))

    def subset(self, names: Iterable[str]) -> StructureSet:
        """A new set of some of the structures, in the given order, sharing their masks."""
        out = self._empty_on(self.geometry)
        for name in names:
            out.add_mask(name, self.crop(name), self.info[name])
        return out

    def on(self, geometry: Geometry) -> StructureSet:
        """The same voxels on a grid of the same size, e.g. the exact one where a file kept it in single
        precision."""
        if tuple(geometry.size) != tuple(self.geometry.size):
            raise ValueError(f"{geometry.size} is not the size of the structures' grid, {self.geometry.size}")
        out = self._empty_on(geometry)
        for name, mask in self._masks.items():
            out.add_mask(name, mask, self.info[name])
        return out

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> StructureSet:
        """A new set on a box of the geometry (``start`` and ``shape`` z, y, x); what lies outside is cut
        off."""
        box = Box.at(start, shape)
        out = self._empty_on(self.geometry.cropped(start, shape))
        for name, mask in self._masks.items():
            out.add_crop(name, (0, 0, 0), mask.within(box), self.info[name])
        return out

    def resample(self, geometry: Geometry, *, nearest: bool = False) -> StructureSet:
        """A new set on another grid of any orientation and spacing.

        The mask is interpolated linearly and cut at one half (which keeps surfaces smooth on a finer grid),
        or sampled at the nearest voxel with ``nearest=True``. On the same grid the masks are shared, exactly.
        An organ smaller than the new spacing may vanish; it stays by name, empty. What lies outside the new grid is
        lost: ``warnings`` says of which organ, how much and where.
        """
        if self.geometry.same_as(geometry):
            return self.on(geometry)
        out = self._empty_on(geometry)
        for name, mask in self._masks.items():
            out.add_mask(name, resample_mask(mask, self.geometry, geometry, nearest=nearest), self.info[name])
            lost = outside(mask, self.geometry, geometry)
            if lost is not None:
                out.warnings.append(f"{name} reaches beyond the grid: {lost} and were cut off")
        return out

    def _empty_on(self, geometry: Geometry) -> StructureSet:
        out = StructureSet(geometry)
        out.warnings = list(self.warnings)
        return out


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME:
        raise InputError(
            f"a structure's name has {len(name)} characters, more than {LONGEST_NAME}: {name[:40]}..."
        )
