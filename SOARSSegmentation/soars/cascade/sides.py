"""Left and right: the patient's midsagittal plane, and organs that lie on the wrong side of it.

Everything is in patient space (LPS: +x is the patient's left), so a flipped or feet-first scan changes nothing. A
network can still put a piece of a left organ on the right; such a piece is moved to where it belongs, or removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import SimpleITK as sitk

from soars.cascade.preprocess import Body
from soars.catalogue import CATALOGUE, partner
from soars.findings.finding import CHECK, SERIOUS, Finding, Locator
from soars.structures import Geometry, Mask, StructureSet

MIDLINE_ORGANS = ("Brainstem", "Cerebellum", "SpinalCord", "Larynx", "Cavity_Oral", "Glnd_Thyroid")
MARGIN_MM = 5.0
"""How far beyond a plane through the organs a voxel must lie to be on the wrong side."""
BODY_MARGIN_MM = 20.0
"""The same where only the body's outline shows where the middle is."""
WRONG_SIDE_NOTED = 0.02
"""A part on the wrong side is worth a finding when it makes up more than this share of the organ."""
_TILT_MM = 40.0
"""Points spread this far determine the plane's tilt; closer ones hardly tilt it."""


@dataclass(frozen=True)
class Midline:
    """The plane ``x = at + slope_y (y - y0) + slope_z (z - z0)`` in LPS mm; the left is where x is larger.

    ``margin_mm``: what lies within it of the plane is not judged. ``source``: what the plane was found from.
    """

    at: float
    slope_y: float
    slope_z: float
    centre_yz: tuple[float, float]
    margin_mm: float
    source: str

    def left_mm(self, points: np.ndarray) -> np.ndarray:
        """How far points [..., 3] (x, y, z) lie to the left of the plane; negative to the right."""
        y0, z0 = self.centre_yz
        return (
            points[..., 0]
            - self.at
            - self.slope_y * (points[..., 1] - y0)
            - self.slope_z * (points[..., 2] - z0)
        )


def find_midline(
    structures: StructureSet, body: Body, middles: Iterable[tuple[float, float, float]] = ()
) -> Midline:
    """The midsagittal plane from unpaired organs and the middles of pairs, whichever way round these are; with fewer
    than two of them, from the body's outline.

    ``middles``: further points (LPS mm) known to lie in the patient's middle; one is enough to do without the outline.
    """
    known = np.array(list(middles), float).reshape(-1, 3)
    points = np.concatenate([_midline_points(structures), known])
    if len(points) < 2 and not len(known):
        return _body_midline(body)
    fit = _fit(points)
    far = np.abs(fit.left_mm(points)) > 15.0
    if far.any() and (~far).sum() >= 2:
        fit = _fit(points[~far])
    return fit


def settle_sides(structures: StructureSet, midline: Midline) -> list[Finding]:
    """Put every part of a paired organ on its side, in place; returns what was done.

    A pair whose halves lie the wrong way round is swapped. A piece beyond the midline that touches the organ of that
    side joins it; any other such piece is removed.
    """
    locator = Locator(structures.geometry, midline.left_mm)
    findings = []
    for left, right in pairs(structures.names):
        if left in structures and right in structures and _exchanged(structures, left, right, midline):
            mask = structures.crop(left)
            structures.add_mask(left, structures.crop(right))
            structures.add_mask(right, mask)
            findings += [_exchange(structures, name, locator) for name in (left, right)]
        for name, other, sign in ((left, right, 1.0), (right, left, -1.0)):
            if name in structures:
                findings += _settle(structures, name, other, sign, midline, locator)
    return findings


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """(left, right) names of the paired organs of which at least one is among `names`."""
    there = set(names)
    return [
        (oar.name, other)
        for oar in CATALOGUE.values()
        if oar.side == "left" and (other := partner(oar.name)) is not None and there & {oar.name, other}
    ]


def mirrored_channels(names: Sequence[str]) -> list[int]:
    """For each name the position of its mirror image, the organ or heat map of the other side; its own when it has
    none."""
    place = {name: number for number, name in enumerate(names)}
    return [place.get(_mirrored(name), place[name]) for name in names]


def all_paired(names: Sequence[str]) -> bool:
    """Whether every name of one side has that of the other among them."""
    places = mirrored_channels(names)
    return all(places[at] != at for at, name in enumerate(names) if side_sign(name))


def _mirrored(name: str) -> str:
    """The name of the other side; of a heat map that is no organ (``Ear_L``) by its last letter."""
    if name in CATALOGUE:
        return partner(name) or name
    return name[:-1] + {"_L": "R", "_R": "L"}.get(name[-2:], name[-1:])


def side_sign(name: str) -> float:
    """+1 for a left organ or heat-map group, -1 for a right one, 0 for one in the middle."""
    side = CATALOGUE[name].side if name in CATALOGUE else {"_L": "left", "_R": "right"}.get(name[-2:])
    return {"left": 1.0, "right": -1.0}.get(side or "", 0.0)


def _midline_points(structures: StructureSet) -> np.ndarray:
    points = []
    for name in MIDLINE_ORGANS:
        if name in structures and (centre := structures.centre_of_mass(name)) is not None:
            points.append(centre)
    for left, right in pairs(structures.names):
        if left in structures and right in structures:
            a, b = structures.centre_of_mass(left), structures.centre_of_mass(right)
            if a is not None and b is not None and abs(a[0] - b[0]) > 20.0:
                points.append(tuple((np.asarray(a) + b) / 2))
    return np.asarray(points, float).reshape(-1, 3)


def _fit(points: np.ndarray) -> Midline:
    centre = points.mean(axis=0)
    yz = points[:, 1:] - centre[1:]
    at = np.median(points[:, 0]) if len(points) >= 5 else centre[0]
    slopes = np.linalg.solve(
        yz.T @ yz + len(points) * _TILT_MM**2 / 4 * np.eye(2), yz.T @ (points[:, 0] - at)
    )
    return Midline(
        float(at),
        float(slopes[0]),
        float(slopes[1]),
        (float(centre[1]), float(centre[2])),
        MARGIN_MM,
        "organs",
    )


def _body_midline(body: Body) -> Midline:
    mask = sitk.GetArrayViewFromImage(body.mask)
    inside = np.argwhere(mask)
    centre = inside.mean(axis=0)[::-1] * body.mask.GetSpacing() + body.mask.GetOrigin()
    if body.already_masked:
        centre = (body.lo_mm + body.hi_mm) / 2
    return Midline(
        float(centre[0]), 0.0, 0.0, (float(centre[1]), float(centre[2])), BODY_MARGIN_MM, "body outline"
    )


def _exchanged(structures: StructureSet, left: str, right: str, midline: Midline) -> bool:
    a, b = structures.centre_of_mass(left), structures.centre_of_mass(right)
    if a is None or b is None:
        return False
    at = midline.left_mm(np.array([a, b]))
    return bool(at[0] < -midline.margin_mm and at[1] > midline.margin_mm)


def _exchange(structures: StructureSet, name: str, locator: Locator) -> Finding:
    mask = structures.crop(name)
    text = "left and right were swapped: the network had them the wrong way round"
    advice = "Check whether the scan's left and right are the patient's, and whether this is the organ of this side."
    return Finding(name, "sides_exchanged", SERIOUS, text, advice, locator.in_mask(mask.array, mask.start))


def _settle(
    structures: StructureSet, name: str, other: str, sign: float, midline: Midline, locator: Locator
) -> list[Finding]:
    mask = structures.crop(name)
    if mask.is_empty:
        return []
    wrong = mask.array & (sign * left_of(structures.geometry, mask, midline) < -midline.margin_mm)
    if not wrong.any():
        return []
    pieces, _count = scipy.ndimage.label(wrong, np.ones((3, 3, 3)))
    near = (
        scipy.ndimage.binary_dilation(structures.crop(other).box(mask.start, mask.shape), np.ones((3, 3, 3)))
        if (other in structures)
        else np.zeros_like(wrong)
    )
    touching = np.unique(pieces[near & wrong])
    joins = np.isin(pieces, touching[touching > 0])
    share = wrong.sum() / mask.voxels
    structures.add_crop(name, mask.start, mask.array & ~wrong, structures.info.get(name))
    if joins.any():
        there = structures.crop(other)
        box = there.bounds | mask.bounds
        joined = there.within(box)
        joined[mask.bounds.slices_in(box)] |= joins
        structures.add_crop(other, box.start, joined, structures.info.get(other))
    if share <= WRONG_SIDE_NOTED:
        return []
    all_join = bool(joins.any()) and not (wrong & ~joins).any()
    text = f"{100 * share:.0f} % of it lay on the wrong side of the patient and " + (
        "was given to the other side's organ" if all_join else "was removed"
    )
    severity = SERIOUS if share > 0.3 else CHECK
    advice = "Look at both organs of the pair there."
    return [Finding(name, "wrong_side", severity, text, advice, locator.in_mask(wrong, mask.start))]


def left_of(geometry: Geometry, mask: Mask, midline: Midline) -> np.ndarray:
    """`Midline.left_mm` of every voxel of the mask's box, [z, y, x]."""
    # Linear in the index, so three vectors suffice.
    origin = geometry.to_physical(mask.start)
    base = float(midline.left_mm(origin))
    steps = [
        midline.left_mm(geometry.to_physical(np.asarray(mask.start) + np.eye(3)[a])) - base for a in range(3)
    ]
    z, y, x = (np.arange(n) * float(s) for n, s in zip(mask.shape, steps, strict=True))
    return base + z[:, None, None] + y[None, :, None] + x[None, None, :]
