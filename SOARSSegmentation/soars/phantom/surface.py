"""Skin, fat, muscles, vessels, the bones of the shoulders and the tops of the lungs: what surrounds the organs."""

from __future__ import annotations

import numpy as np

from soars.phantom.part import KEEP, Part, cortical, marbled
from soars.phantom.shapes import Shape, ellipsoid, join, loft, ribbon, tube
from soars.phantom.variation import Variation

SIDES = (("L", 1), ("R", -1))

# z, centre y, half width, half depth
FACE = [
    (-106, -44, 30, 26),
    (-99, -46, 43, 39),
    (-88, -47, 53, 47),
    (-72, -48, 59, 51),
    (-55, -49, 63, 53),
    (-35, -49, 66, 54),
    (-15, -48, 69, 52),
    (5, -48, 70, 49),
    (20, -47, 68, 48),
    (34, -46, 62, 44),
]
NECK = [
    (-300, 12, 235, 118),
    (-240, 16, 225, 107),
    (-212, 22, 214, 94),
    (-194, 27, 196, 83),
    (-180, 26, 168, 76),
    (-168, 21, 128, 71),
    (-158, 15, 96, 69),
    (-146, 9, 76, 67),
    (-130, 4, 66, 66),
    (-105, 0, 61, 67),
    (-80, 3, 60, 65),
    (-55, 12, 60, 62),
    (-35, 18, 60, 60),
    (-10, 24, 60, 57),
]


def body(v: Variation) -> Shape:
    """The outer surface of the patient."""
    cranium = ellipsoid((0, -2, 58), (79.5, 96, 72))
    occiput = ellipsoid((0, 36, 8), (66, 58, 46))
    face = loft(FACE, power=3)
    wide = v.scale("shoulders", 0.06)
    thick = v.normal("neck thickness", 3.0)
    neck = loft([(z, y, a * (wide if a > 90 else 1) + thick, b + thick) for z, y, a, b in NECK])
    nose_tip = v.normal("nose", 3.0)
    nose = tube([(0, -90, 26), (0, -99, 6), (0, -106 - nose_tip, -14)], [7, 8.5, 11])
    chin = ellipsoid((0, -84, -88), (22, 14, 12))
    ears = [
        tube([(s * 68, 4, -26), (s * 72, 10, 2), (s * 75, 16, 20)], [7, 9, 8], (0.55, 1.4)) for _, s in SIDES
    ]
    return join(join(cranium, occiput, face, neck, chin, smooth_mm=16), nose, *ears, smooth_mm=6)


def skin_and_fat(v: Variation) -> list[Part]:
    skin_mm = 2.0 + v.uniform("skin", 0, 0.8)
    fat_hu = -98 + v.normal("fat hu", 5)

    def hu(d: np.ndarray, _x: np.ndarray, _y: np.ndarray, _z: np.ndarray) -> np.ndarray:
        return 30 + (fat_hu - 30) * np.clip(-d - skin_mm + 0.5, 0, 1)

    return [Part(body(v), hu, tissue="Body")]


def muscles(v: Variation) -> list[Part]:
    """Muscle groups; the space between them stays fat."""
    hu = 58 + v.normal("muscle hu", 4)
    m = v.scale("muscles", 0.07)
    parts = []

    def add(shape: Shape, value: float = hu) -> None:
        parts.append(Part(shape, value))

    add(
        loft(
            [
                (-300, 12, 212, 100),
                (-240, 16, 202, 91),
                (-212, 22, 190, 78),
                (-198, 26, 168, 66),
                (-186, 27, 136, 54),
                (-176, 25, 104, 50),
                (-164, 22, 68, 44),
                (-154, 20, 44, 36),
            ]
        ),
        hu - 6,
    )  # chest wall
    for _, s in SIDES:
        add(ellipsoid((s * 67, -28, 24), (6.5, 30, 30)))  # temporalis
        add(tube([(s * 54, -42, -8), (s * 49, -40, -40)], [6, 4], (1, 1.6)))  # its tendon
        add(ellipsoid((s * 55, -30, -40), (7.5 * m, 17, 30), -6 * s))  # masseter
        add(ellipsoid((s * 36, -24, -44), (6.5 * m, 12, 25), 14 * s))  # medial pterygoid
        add(ellipsoid((s * 34, -27, -10), (13, 14, 8)))  # lateral pterygoid
        add(
            ribbon([(s * 10, -92, -44), (s * 32, -80, -42), (s * 44, -52, -40)], 3, [18, 18, 14], 2), 30
        )  # cheek
        add(
            tube(
                [(s * 55, 16, -22), (s * 50, 2, -80), (s * 36, -26, -132), (s * 14, -40, -180)],
                [6, 9 * m, 9 * m, 6],
                (1.25, 0.8),
            )
        )  # sternocleidomastoid
        add(
            tube(
                [(s * 12, 30, -34), (s * 13, 33, -100), (s * 15, 48, -150), (s * 16, 70, -200)], [7, 9, 9, 10]
            )
        )
        add(tube([(s * 13, 47, -32), (s * 14, 47, -100), (s * 16, 62, -160)], [9, 11 * m, 11], (1.15, 1)))
        add(
            tube([(s * 34, 43, -30), (s * 31, 42, -100), (s * 26, 64, -165)], [7, 9.5 * m, 8], (1.1, 1))
        )  # splenius
        add(
            tube([(s * 36, 22, -50), (s * 42, 27, -115), (s * 52, 52, -172)], [7, 9.5 * m, 9])
        )  # levator scapulae
        add(
            tube(
                [(s * 15, 59, -60), (s * 25, 55, -115), (s * 48, 43, -150), (s * 84, 46, -178)],
                [4, 6 * m, 8, 9],
                (1.4, 0.7),
            )
        )  # trapezius
        add(
            tube([(s * 20, -1, -92), (s * 26, -4, -135), (s * 36, -9, -176)], [3, 5 * m, 6])
        )  # anterior scalene
        add(
            tube([(s * 25, 15, -84), (s * 34, 15, -135), (s * 50, 14, -178)], [4, 7 * m, 8])
        )  # middle scalene
        add(
            tube(
                [(s * 5.5, -6, -30), (s * 6.5, -6, -95), (s * 8, -2, -145), (s * 8, 12, -185)],
                [3, 4.5, 4.5, 3.5],
                (1.35, 0.75),
            )
        )  # longus colli
        add(
            tube([(s * 8, -50, -90), (s * 11, -52, -118), (s * 10, -42, -175)], [3, 3.5, 4], (1.8, 0.7))
        )  # straps
        add(tube([(s * 22, -72, -84), (s * 21, -48, -88)], [4.5, 4]))  # digastric
        add(
            tube([(s * 24, -47, -88), (s * 44, -6, -62), (s * 54, 12, -28)], [3, 3.5, 4])
        )  # its posterior belly
    add(ellipsoid((0, -60, -78), (24, 20, 9)), hu - 4)  # floor of the mouth
    return parts


def vessels(v: Variation) -> list[Part]:
    """Carotids, jugulars and subclavians; bright in some patients (contrast agent)."""
    contrast = v.chance("contrast", 0.45)
    artery = v.uniform("artery hu", 140, 260) if contrast else 45 + v.normal("blood", 4)
    vein = v.uniform("vein hu", 110, 200) if contrast else 45 + v.normal("blood", 4)
    parts = []
    for _, s in SIDES:
        r = v.scale("vessels", 0.08, 0.06, s)
        jug = v.scale("jugular", 0.1, 0.18, s)  # left and right often differ considerably
        parts.append(
            Part(
                tube(
                    [
                        (s * 22, -10, -18),
                        (s * 25, -9, -50),
                        (s * 25, -15, -82),
                        (s * 24, -16, -110),
                        (s * 25, -15, -135),
                        (s * 20, -14, -165),
                        (s * 15, -12, -195),
                        (s * 12, -5, -240),
                    ],
                    [2.4 * r, 2.6 * r, 3.6 * r, 3.3 * r, 3.4 * r, 3.6 * r, 5 * r, 6],
                ),
                artery,
                tissue=f"A_Carotid_{'L' if s > 0 else 'R'}",
            )
        )
        parts.append(
            Part(tube([(s * 27, -16, -60), (s * 29, -24, -82), (s * 24, -17, -92)], 1.8 * r), artery)
        )
        parts.append(
            Part(
                tube(
                    [
                        (s * 28, 2, -18),
                        (s * 32, 0, -55),
                        (s * 35, -7, -90),
                        (s * 35, -14, -130),
                        (s * 28, -22, -165),
                        (s * 18, -26, -195),
                        (s * 12, -30, -240),
                    ],
                    [3.2 * jug, 4.2 * jug, 5 * jug, 5.4 * jug, 5.6, 6, 7],
                ),
                vein,
            )
        )
        parts.append(
            Part(
                tube(
                    [(s * 13, 4, -200), (s * 38, 2, -186), (s * 68, -12, -182), (s * 110, -18, -196)],
                    [4.5, 4.5, 4, 3.5],
                ),
                artery,
            )
        )  # subclavian artery, under the plexus
    return parts


def chest(v: Variation) -> list[Part]:
    """Clavicles, manubrium, scapulae, humeri, ribs and the tops of the lungs."""
    parts = []
    bone = cortical(220 + v.normal("spongy", 30), 780, 2.0)
    for side, s in SIDES:
        lung = ellipsoid((s * 54, 34, -256), (47, 58, 74))
        cage = lung.grown(9).without(lung.grown(3.5))
        band = _rib_bands(cage.between(2, hi=-192), v.uniform("ribs", 0, 26))
        parts.append(Part(cage, 45))
        parts.append(Part(band, bone))
        parts.append(Part(lung, marbled(-820 + v.normal("lung", 25), 25, 14, 1.0), tissue=f"Lung_{side}"))
        parts.append(
            Part(
                tube(
                    [(s * 16, -52, -196), (s * 62, -50, -186), (s * 110, -18, -176), (s * 150, 0, -178)],
                    [6.5, 5, 5, 5.5],
                    (1, 1),
                ),
                bone,
            )
        )  # clavicle
        parts.append(
            Part(ellipsoid((s * 172, 22, -206), (23, 24, 25)), cortical(180, 700, 2.0))
        )  # humeral head
        parts.append(
            Part(tube([(s * 176, 22, -215), (s * 182, 22, -300)], [17, 13]), cortical(60, 1100, 4.0))
        )
        parts.append(
            Part(tube([(s * 84, 92, -206), (s * 140, 66, -196), (s * 165, 24, -180)], [4, 5, 6]), bone)
        )
        parts.append(
            Part(
                ellipsoid((s * 108, 76, -250), (5, 46, 60), 0).without(
                    ellipsoid((s * 108, 30, -250), (12, 40, 70))
                ),
                bone,
            )
        )  # scapular blade
    parts.append(Part(ellipsoid((0, -54, -226), (28, 8, 34)), bone))  # manubrium
    return parts


def _rib_bands(cage: Shape, phase_mm: float) -> Shape:
    """Slanting bands of the chest wall: the ribs."""

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        along = (z + 0.45 * y + phase_mm) * (1 / 26.0)
        band = (np.abs(along - np.round(along)) * 26.0 - 5.5) * 0.9
        return np.maximum(cage.distance(x, y, z) + 0.8, band)

    return Shape(cage.lo, cage.hi, distance)


def couch_support() -> list[tuple[float, float, float]]:
    """Canonical points of the back of head and shoulders that rest on the couch."""
    return [(0.0, 94.0, 30.0), (0.0, 117.0, -215.0), (60.0, 112.0, -210.0), (-60.0, 112.0, -210.0)]


__all__ = ["KEEP", "SIDES", "body", "chest", "couch_support", "muscles", "skin_and_fat", "vessels"]
