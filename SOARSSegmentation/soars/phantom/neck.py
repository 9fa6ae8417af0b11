"""Mouth, throat and neck organs: tongue, pharynx with constrictors, larynx, trachea, oesophagus, glands, plexus."""

from __future__ import annotations

import numpy as np

from soars.phantom.part import KEEP, Part, cortical, marbled
from soars.phantom.shapes import Shape, ellipsoid, join, loft, ribbon, tube
from soars.phantom.skull import CANAL
from soars.phantom.surface import SIDES
from soars.phantom.variation import Variation

# pharynx: z, centre y, half width, half depth of the lumen with its lining
PHARYNX = [
    (-136, -16, 7, 2.4),
    (-128, -17.5, 9, 3.0),
    (-112, -21.5, 13, 4.0),
    (-97, -24, 16, 6.5),
    (-80, -25.5, 16, 8),
    (-60, -26, 15, 8),
    (-40, -28, 14, 8),
    (-22, -32, 13, 9),
    (-4, -36, 12, 9),
    (3, -38, 9, 7),
]
WALL_MM = 3.9


def salivary_glands(v: Variation) -> list[Part]:
    parts = []
    fatty = v.uniform("parotid hu", -28, 28)
    for side, s in SIDES:
        k = v.scale("parotid", 0.06, 0.025, s)
        move = v.shift("parotid", 1.2, s)
        behind = ellipsoid(np.array([s * 57, -3, -32]) + move, (10.5 * k, 14.5 * k, 26 * k), 8 * s)
        over = ellipsoid(np.array([s * 62, -18, -32]) + move, (5.5 * k, 17 * k, 20 * k), 4 * s)
        deep = ellipsoid(np.array([s * 47, -5, -36]) + move, (9 * k, 8 * k, 16 * k))
        parts.append(
            Part(
                join(behind, over, deep, smooth_mm=5),
                marbled(fatty, 9, 11, v.uniform("lobules", 0, 6)),
                organ=f"Parotid_{side}",
                tissue=None,
            )
        )
        k = v.scale("submandibular", 0.06, 0.03, s)
        move = v.shift("submandibular", 1.2, s)
        parts.append(
            Part(
                ellipsoid(np.array([s * 31, -40, -83]) + move, (8.8 * k, 15.5 * k, 14 * k), 22 * s, "xy"),
                50.0 + v.normal("submandibular hu", 5),
                organ=f"Glnd_Submand_{side}",
                tissue=None,
            )
        )
    return parts


def mouth(v: Variation) -> list[Part]:
    """Tongue and the rest of the oral cavity as one organ, with a little air under the palate."""
    k = v.scale("oral cavity", 0.03)
    cavity = join(
        ellipsoid((0, -59, -49), (26 * k, 25, 20 * k)),
        ellipsoid((0, -70, -46), (20 * k, 13, 15)),
        ellipsoid((0, -52, -60), (23 * k, 21, 14)),
        smooth_mm=10,
    )
    palate = tube([(0, -42, -27), (0, -34, -34), (0, -32, -46)], [3.5, 3.5, 2.6], (3.2, 1))
    parts = [
        Part(ellipsoid((0, -44, -66), (19, 12, 16)), 52.0),  # base of the tongue
        Part(
            cavity,
            marbled(46 + v.normal("tongue hu", 4), 7, 16, v.uniform("tongue", 0, 6)),
            organ="Cavity_Oral",
            tissue=None,
        ),
        Part(palate, 45.0, tissue=None),
    ]
    gap = v.uniform("mouth opening", 0, 9)
    if gap > 2:
        parts.append(
            Part(ellipsoid((0, -62, -31.5), (19, 20, 0.6 + gap * 0.2)), -900.0, organ=KEEP, tissue="Airway")
        )
    return parts


def throat(v: Variation) -> list[Part]:
    move = v.shift("larynx", 1.2)
    dz = float(move[2])
    wide = v.scale("pharynx", 0.05)
    tube_table = [(z + (dz if z < -70 else 0), y, a * wide, b) for z, y, a, b in PHARYNX]
    lumen = loft(tube_table)
    outer = loft([(z, y, a + WALL_MM, b + WALL_MM) for z, y, a, b in tube_table])
    wall = outer.without(lumen)
    behind = _behind(wall, tube_table, -1.5)
    parts: list[Part] = [Part(wall, 50.0, tissue=None)]
    muscle = 60.0 + v.normal("constrictor hu", 3)
    for name, hi, lo in (("S", -8.0, -58.0), ("M", -58.0, -88.0 + dz), ("I", -88.0 + dz, -131.0 + dz)):
        parts.append(
            Part(behind.between(2, lo=lo, hi=hi), muscle, organ=f"Musc_Constrict_{name}", tissue=None)
        )
    parts.append(Part(lumen, 42.0, tissue=None))  # lining, collapsed low down

    thickness = 1.1
    air = loft(
        [
            (z, y - 0.5, max(a - thickness - (2 if z < -105 else 0), 2), max(b - thickness, 1.2))
            for z, y, a, b in tube_table
            if z > -112 + dz
        ]
    )
    parts.append(Part(air, -985.0, tissue="Airway"))
    parts += _larynx(v, move)
    parts += _trachea_oesophagus(v, move)
    return parts


def _behind(shape: Shape, table: list[tuple[float, float, float, float]], offset: float) -> Shape:
    """The part behind the middle of the pharynx at each height."""
    rows = np.array(sorted(table))

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        middle = np.interp(z, rows[:, 0], rows[:, 1]).astype(np.float32)
        return np.maximum(shape.distance(x, y, z), middle + offset - y)

    return Shape(shape.lo, shape.hi, distance)


def _larynx(v: Variation, move: np.ndarray) -> list[Part]:
    k = v.scale("larynx", 0.05)
    dx, dy, dz = map(float, move)
    box = loft(
        [
            (z + dz, y + dy, a * k, b * k)
            for z, y, a, b in [
                (-121, -40, 8, 11),
                (-117, -40, 12, 14),
                (-108, -40, 15, 14.5),
                (-98, -40, 16, 14),
                (-90, -39, 15, 12),
                (-85, -38, 12, 8),
            ]
        ],
        cx=dx,
    )
    airway = loft(
        [
            (z + dz, y + dy, a, b)
            for z, y, a, b in [
                (-124, -37, 7, 9),
                (-118, -38, 5.5, 9),
                (-113, -39, 1.8, 8.5),
                (-110, -39, 2.2, 8.5),
                (-105, -38, 5, 8),
                (-96, -34, 6.5, 7),
                (-86, -31, 10, 6),
                (-82, -29, 12, 5),
            ]
        ],
        cx=dx,
    )
    hard = v.uniform("cartilage hu", 130, 320)
    plates = ribbon(
        np.array(
            [
                (-18 * k, -29, -103),
                (-13 * k, -46, -104),
                (0, -58, -105),
                (13 * k, -46, -104),
                (18 * k, -29, -103),
            ]
        )
        + move,
        2.0,
        [15, 13, 11, 13, 15],
        1.2,
    )
    ring = tube(
        np.array(
            [
                (0, -44, -126),
                (9, -38, -125),
                (10, -29, -123),
                (0, -23.5, -121),
                (-10, -29, -123),
                (-9, -38, -125),
                (0, -44, -126),
            ]
        )
        + move,
        [2.4, 2.6, 3.4, 3.8, 3.4, 2.6, 2.4],
        (0.9, 0.9),
    )
    leaf = join(
        ellipsoid(np.array([0, -37.5, -79]) + move, (10.5 * k, 2.1, 12.5 * k), -14, "yz"),
        ellipsoid(np.array([0, -42, -92]) + move, (4.5, 2.3, 6), -20, "yz"),
        smooth_mm=3,
    )
    vallecula = ellipsoid(np.array([0, -41.5, -77]) + move, (12, 5, 8.5), -14, "yz")
    before = ellipsoid(np.array([0, -47, -95]) + move, (9, 4, 8))
    parts = [
        Part(plates.grown(1.0), 45.0, tissue=None),
        Part(box, 48.0 + v.normal("larynx hu", 4), organ="Larynx", tissue=None),
        Part(before, -60.0, organ=KEEP),  # pre-epiglottic fat
        Part(plates, cortical(hard * 0.6, hard, 0.8), tissue=None),
        Part(airway, -980.0, organ=KEEP, tissue="Airway"),
        Part(ring, cortical(150, hard + 60, 1.0), tissue=None),
        Part(vallecula, -960.0, tissue="Airway"),
        Part(leaf, 52.0 + v.normal("epiglottis hu", 4), organ="Epiglottis", tissue=None),
    ]
    for s in (1, -1):
        parts.append(Part(ellipsoid(np.array([s * 6, -29, -109]) + move, (2.6, 2.6, 4.5)), hard, organ=KEEP))
    return parts


def _trachea_oesophagus(v: Variation, move: np.ndarray) -> list[Part]:
    down = np.array(
        [
            (0, -34, -122),
            (0, -31, -133),
            (0, -27, -147),
            (0, -14, -178),
            (1, -3, -210),
            (2, 6, -245),
            (2, 12, -290),
        ],
        float,
    )
    down[:2] += move
    down[2] += move / 2
    radius = 8.6 * v.scale("trachea", 0.07)
    wall = tube(down[1:], radius + 2.0, (1.05, 0.95)).between(2, hi=float(down[1, 2]) + 4)
    air = tube(down, [6.5, *[radius] * (len(down) - 1)], (1.05, 0.95))
    ys, zs = np.array(CANAL).T
    heights = np.array([-131 + move[2], -147, -162, -178, -195, -212, -235, -262, -290])
    left = np.array([0.5, 3, 4, 5, 5, 4, 4, 4, 4]) + v.normal("oesophagus x", 1.0)
    canal_y = np.interp(-heights, -zs, ys)
    y = canal_y - np.array([35.2, 34.8, 35.5, 36.2, 37, 38, 38.5, 39, 39])
    swallowed = v.scale("oesophagus", 0.07)
    points = np.stack([left, y, heights], axis=1)
    gullet = tube(points, [4.4 * swallowed] + [5.3 * swallowed] * 8, (1.55, 1.0)).between(
        2, hi=-131 + float(move[2])
    )
    parts = [
        Part(gullet.grown(1.2).between(2, hi=-134), -60.0),
        Part(wall, 62.0, tissue=None),
        Part(gullet, 45.0 + v.normal("oesophagus hu", 4), organ="Esophagus", tissue=None),
    ]
    if v.chance("air swallowed", 0.6):
        parts.append(
            Part(tube(points[1:], 1.3 * v.uniform("bubble", 0.7, 1.6), (1.8, 1.0)), -600.0, organ=KEEP)
        )
    else:
        parts.append(Part(tube(points, 1.2, (2.5, 1.0)), 30.0, organ=KEEP))
    parts.append(Part(air, -985.0, tissue="Airway"))
    return parts


def thyroid(v: Variation) -> list[Part]:
    hu = 112 + v.normal("thyroid hu", 14) + (40.0 if v.chance("contrast", 0.45) else 0.0)
    low = v.normal("thyroid z", 2.0)
    parts = []
    for side, s in SIDES:
        k = v.scale("thyroid", 0.07, 0.03, s)
        lobe = ellipsoid((s * 17.5, -27, -138 + low), (8.2 * k, 9.2 * k, 22 * k), -9 * s)
        bridge = tube([(0, -41, -143 + low), (s * 12, -35, -141 + low)], [3.2, 4.5])
        both = join(lobe, bridge, smooth_mm=3)
        both = both.between(0, lo=0) if s > 0 else both.between(0, hi=0)
        parts.append(Part(both, hu, organ=f"Glnd_Thyroid_{side}", tissue=None))
    return parts


def plexus(v: Variation) -> list[Part]:
    """Roots C5 to T1 leave the spine, run between the scalene muscles in fat, and join towards the axilla."""
    parts = []
    for side, s in SIDES:
        r = 2.5 * v.scale("plexus", 0.06, 0.02, s)
        strands = []
        gate = np.array([s * 40, 5, -157]) + v.shift("plexus", 1.0, s)
        for k, spread in ((4, 6.0), (5, 2.0), (6, -2.0), (7, -6.0)):
            y, z = CANAL[k]
            y2, z2 = CANAL[k + 1]
            root = np.array([s * 13.5, (y + y2) / 2 - 5, (z + z2) / 2])
            turn = root * 0.45 + (gate + [0, 0, spread]) * 0.55 + [0, -1.0, 1.5]
            strands.append(
                tube(
                    [root, turn, gate + [0, 0, spread], [s * 66, 0, -173 + spread * 0.4]],
                    [r, r, r * 1.05, r * 1.1],
                )
            )
        trunk = tube([(s * 62, 1, -172), (s * 88, -8, -182)], [r * 2.0, r * 1.7])
        whole = join(*strands, trunk, smooth_mm=2)
        parts.append(Part(whole.grown(2.2), -85.0, tissue=None))
        parts.append(Part(whole, 50.0, organ=f"BrachialPlex_{side}", tissue=None))
    return parts
