"""Making a phantom: the seed's anatomy, field of view, scan, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import scipy
import SimpleITK as sitk

from soars.errors import InputError
from soars.phantom import brain, dose, neck, orbit, scan, skull, surface
from soars.phantom.part import KEEP, Part
from soars.phantom.render import Canvas, paint, patient_boxes
from soars.phantom.variation import Variation, Warp, make_warp
from soars.structures import Geometry, StructureSet

FIELDS_OF_VIEW = ("head_neck", "full", "head", "neck", "random")
Box = tuple[Sequence[float], Sequence[float]]


@dataclass
class Phantom:
    """A synthetic patient.

    ct: int16 HU, axis-aligned LPS. structures: the 42 OARs (empty where the scan does not reach).
    anatomy: Body, Bone_Skull, Spine, Brain, Airway, ... (disjoint, apart from Body, which is all of it).
    description: seed, field of view, noise and so on, all plain values.
    """

    ct: sitk.Image
    structures: StructureSet
    anatomy: StructureSet
    description: dict[str, object]
    _variation: Variation = field(repr=False)
    _warp: Warp = field(repr=False)

    @cached_property
    def dose(self) -> sitk.Image:
        """Dose in Gy (float32) on a 3 mm grid over the scan."""
        lo = np.array(self.ct.GetOrigin())
        hi = lo + (np.array(self.ct.GetSize()) - 1) * self.ct.GetSpacing()
        axes = [np.arange(a, b + 1e-3, dose.DOSE_SPACING_MM) for a, b in zip(lo, hi, strict=True)]
        shift = self._warp.table_shift_mm
        image = sitk.GetImageFromArray(
            dose.dose_gy(
                self._variation, self._warp, (axes[2] - shift[2], axes[1] - shift[1], axes[0] - shift[0])
            )
        )
        image.SetOrigin([float(v) for v in lo])
        image.SetSpacing([dose.DOSE_SPACING_MM] * 3)
        return image


def make_phantom(
    seed: int,
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 3.0),
    field_of_view: str = "head_neck",
    noise: bool = True,
    artefact: bool | None = None,
    region: Box | None = None,
) -> Phantom:
    """Make the seed's patient and scan it.

    spacing_mm: voxel size (x, y, z). field_of_view: "head_neck" (300 mm across, vertex to upper chest, all 42 OARs),
    "full" (500 mm, with shoulders and couch, all 42), "head" (nothing below the jaw), "neck" (nothing above the nose)
    or "random" (one of these, with varying ends). artefact: dental streaks, None = as the patient has them.
    region: (lo, hi) LPS mm corners to scan instead of a field of view; see `organ_boxes`.

    The same seed is the same patient at any spacing, region and field of view.
    Raises `InputError` for an unknown field of view, a spacing that is not positive or a box without extent.
    """
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (3,) or not np.all(spacing > 0):
        raise InputError(f"phantom spacing must be three positive numbers in mm, not {spacing_mm!r}")
    variation, warp, parts = _patient(int(seed))
    shift = warp.table_shift_mm
    if region is None:
        name, lo, hi = _field(variation, warp, field_of_view)
    else:
        name, (lo, hi) = "region", (np.asarray(corner, float) - shift for corner in region)
    if not np.all(hi > lo):
        raise InputError("the phantom's region has no extent: its high corner must lie beyond its low corner")
    size = np.maximum(np.ceil((hi - lo) / spacing - 1e-6).astype(int), 1)
    origin = np.round((lo + hi) / 2 - (size - 1) * spacing / 2, 2)
    axes = tuple(origin[a] + np.arange(size[a]) * spacing[a] for a in (2, 1, 0))

    canvas = Canvas.empty(axes)
    scan.paint_couch(canvas, warp)
    paint(canvas, scan.mask_parts(variation) + parts, warp)
    pixels = scan.finish(canvas, variation, warp, noise=noise, artefact=artefact)
    ct = sitk.GetImageFromArray(pixels)
    ct.SetOrigin([float(v) for v in origin + shift])
    ct.SetSpacing([float(v) for v in spacing])

    names = list(dict.fromkeys(str(p.organ) for p in parts if p.organ not in (None, KEEP)))
    organs, tissues = _structures(ct, canvas, names)
    description: dict[str, object] = {
        "seed": int(seed),
        "field_of_view": name,
        "spacing_mm": tuple(map(float, spacing)),
        "noise_sd_hu": scan.noise_sd_hu(variation, spacing) if noise else 0.0,
        "dental_metal": len(skull.metal_teeth(variation)) if artefact is not False else 0,
        "contrast_agent": variation.chance("contrast", 0.45),
        "table_shift_mm": tuple(map(float, shift)),
    }
    return Phantom(ct, organs, tissues, description, variation, warp)


def organ_boxes(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Where each of the 42 OARs lies in the seed's patient: name -> (lo, hi) corners, LPS mm, without making a scan.

    The boxes are a few mm wider than the organs; their middle serves as the centre of a crop.
    """
    _, warp, parts = _patient(int(seed))
    named = [p for p in parts if p.organ not in (None, KEEP)]
    out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for part, (lo, hi) in zip(named, patient_boxes(named, warp) + warp.table_shift_mm, strict=True):
        name = str(part.organ)
        if name in out:
            lo, hi = np.minimum(lo, out[name][0]), np.maximum(hi, out[name][1])
        out[name] = (lo, hi)
    return out


@lru_cache(maxsize=4)
def _patient(seed: int) -> tuple[Variation, Warp, list[Part]]:
    v = Variation(seed)
    parts = [
        *surface.skin_and_fat(v),
        *surface.muscles(v),
        *surface.chest(v),
        *surface.vessels(v),
        *neck.salivary_glands(v),
        *neck.mouth(v),
        *skull.skull(v),
        *skull.spine(v),
        *skull.mandible(v),
        *skull.sinuses(v),
        *neck.throat(v),
        *skull.hyoid(v),
        *neck.thyroid(v),
        *neck.plexus(v),
        *brain.brain(v),
        *orbit.orbits(v),
        *orbit.ears(v),
    ]
    return v, make_warp(v), parts


def _field(v: Variation, warp: Warp, name: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Corners of the scanned box in patient mm."""
    if name not in FIELDS_OF_VIEW:
        raise InputError(f"unknown field of view {name!r}; choose one of {', '.join(FIELDS_OF_VIEW)}")
    loose = name == "random"
    if loose:
        name = str(
            v.rng("field of view").choice(["head_neck", "full", "head", "neck"], p=[0.45, 0.25, 0.15, 0.15])
        )
    levels = warp.to_patient(
        np.array([(0, 0, 131), (0, 10, -192), (0, 10, -222), (0, -40, -98), (0, -60, -22)], float)
    )
    vertex, chest, deep_chest, chin, nose = (float(p[2]) for p in levels)
    wide = 250.0 if name == "full" else 150.0
    top = {"neck": nose}.get(name, vertex + 6)
    bottom = {"head": chin, "full": deep_chest, "neck": deep_chest}.get(name, chest)
    if loose:
        top += v.uniform("field top", -30, 10)
        bottom += v.uniform("field bottom", -8, 22)
    middle_y = 10.0 if name == "full" else 2.0
    return name, np.array([-wide, middle_y - wide, bottom]), np.array([wide, middle_y + wide, top])


def _structures(ct: sitk.Image, canvas: Canvas, names: Sequence[str]) -> tuple[StructureSet, StructureSet]:
    """Organs (all of `names`, in that order, empty where not scanned) and general anatomy from the label volumes."""
    geometry = Geometry.of(ct)
    organs, tissues = StructureSet(geometry), StructureSet(geometry)
    found: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
    for volume in (canvas.organs, canvas.inner):
        found |= _labelled(volume, canvas.organ_names)
    for name in names:
        organs.add_crop(name, *found.get(name, ((0, 0, 0), np.zeros((0, 0, 0), bool))))
    body = canvas.tissues > 0
    organs_of_tissue = _labelled(canvas.tissues, canvas.tissue_names)
    for name, (start, mask) in organs_of_tissue.items():
        if name != "Body":
            tissues.add_crop(name, start, mask)
    tissues.add("Body", body)
    return organs, tissues


def _labelled(volume: np.ndarray, names: Sequence[str]) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    """name -> (start, mask) of the labels 1, 2, ... that occur."""
    out = {}
    for value, box in enumerate(scipy.ndimage.find_objects(volume, max_label=len(names)), start=1):
        if box is not None:
            out[names[value - 1]] = (tuple(s.start for s in box), volume[box] == value)
    return out
