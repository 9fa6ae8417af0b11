"""Orbits and ears: globes with lenses, optic nerves and chiasm, lacrimal glands, inner ears with the cochlea."""

from __future__ import annotations

import numpy as np

from soars.phantom.part import KEEP, Part
from soars.phantom.shapes import ellipsoid, join, tube
from soars.phantom.surface import SIDES
from soars.phantom.variation import Variation


def orbits(v: Variation) -> list[Part]:
    sella = v.shift("sella", 0.7)
    bulge = v.normal("eye y", 1.5)
    gaze = np.array([v.normal("gaze x", 1.6), 0, v.normal("gaze z", 1.2)])
    walls: list[Part] = []
    fats: list[Part] = []
    contents: list[Part] = []
    nerves: list[Part] = []
    for side, s in SIDES:
        k = v.scale("eye", 0.03, 0.01, s)
        radius = 12.3 * k
        eye = np.array([s * 32, -76 + bulge, 10]) + v.shift("eye", 0.5, s)
        cone = tube([(s * 32.5, -74, 10), (s * 25, -58, 13), (s * 14, -41, 19)], [18.5, 13.5, 4.5])
        front = tube([(s * 33, -84, 10), (s * 32.5, -74, 10)], [16.5, 18.5])
        walls.append(Part(cone.grown(2.0).between(1, lo=-80), 650.0, tissue="Bone_Skull"))
        fats.append(Part(join(cone, front), -92.0, tissue=None))
        lid = ellipsoid(eye + [0, -2.5, 0], (18, 13.6, 13.6)).between(1, hi=float(eye[1]) - 6)
        contents.append(Part(lid, 35.0, tissue=None))
        apex = np.array([s * 15, -43, 18.5])
        for dx, dz in ((1, 0), (-1, 0), (0, 1), (0, -1)):  # the four straight muscles
            on_globe = eye + [dx * (radius + 0.6), 3.0, dz * (radius + 0.6)]
            middle = (on_globe + apex) / 2 + [dx * 3.2, 1.0, dz * 3.2]
            contents.append(
                Part(
                    tube([on_globe, middle, apex + [dx * 2.5, 0, dz * 2.5]], [1.0, 2.3, 1.2], (1, 1)),
                    55.0,
                    tissue=None,
                )
            )
        ring = ellipsoid(eye, (radius,) * 3)
        nerves += _optic_nerve(v, side, s, eye, radius, sella)
        contents.append(Part(ring, 48.0, organ=f"Eye_{side}", tissue=None))
        contents.append(Part(ring.grown(-1.3), 14.0 + v.normal("vitreous", 2), organ=KEEP))
        axis = np.array([0.0, -1.0, 0.0]) + gaze / 12.0
        lens = ellipsoid(
            eye + axis * (radius - 4.2), (4.7 * v.scale("lens", 0.04), 2.35, 4.7 * v.scale("lens", 0.04))
        )
        contents.append(Part(lens, 80.0 + v.normal("lens hu", 8), organ=f"Lens_{side}", inner=True))
        out = np.array([s * 0.80, 0.02, 0.60])
        centre = eye + out * (radius + 3.4)
        gland = v.scale("lacrimal", 0.07, 0.03, s)
        contents.append(
            Part(
                ellipsoid(centre, (2.8 * gland, 7.0 * gland, 7.4 * gland), s * np.rad2deg(0.6435)),
                38.0,
                organ=f"Glnd_Lacrimal_{side}",
                tissue=None,
            )
        )
    return walls + fats + nerves + contents + _chiasm(v, sella)


def _optic_nerve(
    v: Variation, side: str, s: int, eye: np.ndarray, radius: float, sella: np.ndarray
) -> list[Part]:
    """From the back of the globe, bending in the orbit, through the canal to the chiasm."""
    r = 2.35 * v.scale("optic nerve", 0.05)
    bend = v.normal(f"nerve bend {s}", 1.0)
    way = np.array(
        [
            eye + [-s * 1.6, radius - 0.6, 0],
            [s * (24.5 + bend), -56, 12.5],
            [s * 15, -43, 18.3],
            np.array([s * 9.5, -35, 25]) + sella,
            np.array([s * 4.5, -29.5, 29.5]) + sella,
        ]
    )
    canal = tube(way[2:4], 4.0)
    return [
        Part(canal.grown(1.8), 800.0, tissue="Bone_Skull"),
        Part(canal, -10.0, tissue=None),
        Part(tube(way[3:], 4.2), 8.0, tissue="Brain"),
        Part(tube(way, [r, r, r * 0.95, r * 0.9, r * 0.9]), 38.0, organ=f"OpticNrv_{side}", tissue=None),
    ]


def _chiasm(v: Variation, sella: np.ndarray) -> list[Part]:
    k = v.scale("chiasm", 0.06)
    middle = ellipsoid(np.array([0, -26, 30.5]) + sella, (6.2 * k, 3.4 * k, 2.3 * k))
    legs = [
        tube(np.array([(s * 3, -26, 30.5), (s * 8.5, -18.5, 33)]) + sella, [2.0 * k, 1.7 * k])
        for s in (1, -1)
    ]
    roots = [tube(np.array([(s * 3, -27, 30.2), (s * 5.2, -30.5, 29)]) + sella, 2.1 * k) for s in (1, -1)]
    return [Part(join(middle, *legs, *roots, smooth_mm=1.5), 39.0, organ="OpticChiasm", tissue="Brain")]


def ears(v: Variation) -> list[Part]:
    """Bony labyrinth: dense capsule, soft inside; the inner ear organ contains the cochlea."""
    parts = []
    for side, s in SIDES:
        k = v.scale("inner ear", 0.04, 0.015, s)
        move = v.shift("inner ear", 0.8, s)
        cochlea_at = np.array([s * 24, -6.5, 2.0]) + move
        cochlea = ellipsoid(cochlea_at, (3.1 * k, 3.3 * k, 2.7 * k))
        vestibule = ellipsoid(np.array([s * 28, -1.0, 3.5]) + move, (2.9 * k, 3.3 * k, 3.3 * k))
        canals = ellipsoid(np.array([s * 31, 3.5, 5.5]) + move, (4.0 * k, 4.2 * k, 4.2 * k))
        labyrinth = join(cochlea.grown(0.7), vestibule, canals, smooth_mm=3)
        capsule = labyrinth.grown(2.2)
        parts.append(Part(capsule, 1750.0 + v.normal("capsule", 80), tissue="Bone_Skull"))
        parts.append(Part(labyrinth, 640.0, organ=f"Ear_Internal_{side}", tissue="Bone_Skull"))
        parts.append(Part(cochlea, 320.0, organ=f"Cochlea_{side}", inner=True))
        parts.append(Part(vestibule.grown(-1.2), 180.0, organ=KEEP))
        for angle in (20, 140):  # two of the semicircular canals as arcs
            c, n = np.array([s * 31.5, 3.5, 5.8]) + move, 7
            t = np.linspace(0, 2 * np.pi, n)
            u = np.array([np.cos(np.deg2rad(angle)) * s, np.sin(np.deg2rad(angle)), 0])
            ring = c + 2.7 * k * (np.cos(t)[:, None] * u + np.sin(t)[:, None] * np.array([0, 0, 1]))
            parts.append(Part(tube(ring, 0.7), 150.0, organ=KEEP))
        meatus = tube(np.array([(s * 21.5, -3.5, 3.5), (s * 11, -3, 4)]) + move, [2.4, 3.0])
        parts.append(Part(meatus, 12.0, organ=KEEP))
    return parts
