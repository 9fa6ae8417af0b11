"""Skull, face, mandible with teeth, temporomandibular joints, vertebral column, hyoid; airways of the head."""

from __future__ import annotations

import numpy as np

from soars.phantom.part import KEEP, HuOf, Part, cortical, marbled, skull_vault
from soars.phantom.shapes import Shape, cylinder, ellipsoid, join, ribbon, tube
from soars.phantom.surface import SIDES
from soars.phantom.variation import Variation

VAULT_MM = 6.5
UPPER_TEETH_Z = -39.5
# centre of the spinal canal: y, z (x = 0); from the foramen magnum to the fourth thoracic vertebra
CANAL = [
    (12.0, -22.0),
    (13.0, -38.0),
    (15.0, -58.0),
    (14.0, -75.0),
    (14.0, -93.0),
    (16.0, -110.0),
    (20.0, -127.0),
    (25.0, -145.0),
    (33.0, -165.0),
    (42.0, -187.0),
    (51.0, -210.0),
    (59.0, -235.0),
    (66.0, -262.0),
    (72, -290),
]
LEVELS = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "T1", "T2", "T3", "T4", "T5"]


def canal_points() -> list[tuple[float, float, float]]:
    return [(0.0, y, z) for y, z in CANAL]


def cranial_cavity() -> Shape:
    """The inside of the skull: vault above the anterior fossa, two middle fossae, the posterior fossa."""
    vault = ellipsoid((0, -2, 58), (68, 84.5, 60)).between(2, lo=31)
    middle = [ellipsoid((s * 39, -12, 25), (27, 39, 20)) for _, s in SIDES]
    posterior = ellipsoid((0, 43, 7), (55, 38, 32))
    occipital = ellipsoid((0, 26, 32), (62, 56, 26))
    prepontine = ellipsoid((0, 6, 10), (24, 17, 34))
    cistern = ellipsoid((0, -22, 31), (17, 14, 8))
    return join(vault, *middle, posterior, occipital, prepontine, cistern, smooth_mm=7)


def skull(v: Variation) -> list[Part]:
    cavity = cranial_cavity()
    thick = VAULT_MM * v.scale("vault thickness", 0.1)
    dense = 1150 + v.normal("bone hu", 60)
    shell = cavity.grown(thick)
    bone = cortical(420, dense, 1.6)
    parts = [Part(shell, skull_vault(dense, 520, thick), tissue="Bone_Skull")]

    def add(shape: Shape, hu: float | HuOf = bone) -> None:
        parts.append(Part(shape, hu, tissue="Bone_Skull"))

    add(ellipsoid((0, -33, 13), (21, 19, 15)))  # sphenoid body
    add(tube([(0, -14, 21), (0, -5, 0), (0, 0, -21)], [8, 8, 5.5], (1.6, 0.9)))  # clivus
    for _, s in SIDES:
        add(ellipsoid((s * 53, 17, -10), (12, 15, 22)))  # mastoid
        add(tube([(s * 52, 8, 1), (s * 30, -1, 3), (s * 15, -11, 7)], [12, 10, 6.5]), 900.0)  # petrous bone
        add(tube([(s * 58, -6, 4), (s * 50, -26, 4)], [7, 5]))  # joint socket
        add(
            tube(
                [
                    (s * 60, -12, 1),
                    (s * 66, -30, -3),
                    (s * 60, -52, -7),
                    (s * 50, -66, -9),
                    (s * 38, -76, -8),
                ],
                [3, 3, 4, 6, 7],
                (0.8, 1),
            )
        )  # cheek bone and arch
        add(tube([(s * 26, -38, -4), (s * 20, -36, -28)], [4, 3.5], (0.7, 1.3)), 600.0)  # pterygoid plates
        add(ellipsoid((s * 27, -62, -18), (18, 23, 19)), cortical(450, 700, 2))  # maxilla
        add(ellipsoid((s * 15, 12, -28), (7, 12, 7)))  # occipital condyle
    add(tube([(0, -91, 24), (0, -99, 6)], [5, 3]), 600.0)  # nasal bones
    add(ellipsoid((0, -66, -25), (23, 28, 4)), cortical(500, 800, 1))  # hard palate
    add(
        ribbon(
            [
                (-31, -50, -31),
                (-27, -72, -31),
                (-12, -88, -31),
                (12, -88, -31),
                (27, -72, -31),
                (31, -50, -31),
            ],
            5,
            6,
            2,
        ),
        cortical(450, 850, 1.2),
    )  # alveolar ridge
    return parts


def sinuses(v: Variation) -> list[Part]:
    """Air in the head: nose, sinuses, ear canals, mastoid cells."""
    parts = []
    air = -985.0
    for _, s in SIDES:
        opaque = v.chance(f"sinus:{s}", 0.15)
        antrum = ellipsoid((s * 30, -60, -19), (13 * v.scale("antrum", 0.08), 17, 14))
        parts.append(Part(antrum, 25.0 if opaque else air, tissue=None if opaque else "Airway"))
        nose = ellipsoid((s * 6.8, -66, -6), (5.8, 29, 16), 10 * s)
        parts.append(Part(nose, 40.0, tissue=None))
        for z, r in ((-14, 3.2), (-3, 2.8), (7, 2.2)):  # turbinates stay between the meatuses
            parts.append(
                Part(
                    tube([(s * (6.5 + r * 0.2), -90, z + 2), (s * 7, -42, z)], r, (1.5, 1)),
                    air,
                    tissue="Airway",
                )
            )
        parts.append(
            Part(
                ellipsoid((s * 8, -60, 14), (6, 21, 12)),
                marbled(-620, 420, 9, s + v.normal("cells", 1)),
                tissue="Airway",
            )
        )  # ethmoid cells
        parts.append(
            Part(
                ellipsoid((s * 8, -35, 9), (7 * v.scale("sphenoid sinus", 0.1, 0.1, s), 11, 8)),
                air,
                tissue="Airway",
            )
        )
        parts.append(
            Part(
                ellipsoid((s * 12, -85, 37), (9 * v.scale("frontal sinus", 0.2, 0.15, s), 3.5, 7)),
                air,
                tissue="Airway",
            )
        )
        parts.append(
            Part(ellipsoid((s * 54, 19, -9), (8, 11, 16)), marbled(-150, 420, 6.5, 2 * s), tissue=None)
        )
        parts.append(
            Part(
                tube([(s * 90, 6, -6), (s * 66, 1, -5), (s * 42, -2, -3)], [4, 3.6, 3.2]),
                air,
                tissue="Airway",
            )
        )
        parts.append(Part(ellipsoid((s * 37, -3, 0), (2.8, 5, 6)), -850.0, tissue=None))  # middle ear
    return parts


def mandible(v: Variation) -> list[Part]:
    """Both halves of the mandible, split at the midline, without the teeth; then the joints."""
    w = v.scale("jaw width", 0.04)
    thick = v.scale("jaw thickness", 0.07)
    opening = v.uniform("mouth opening", 0, 9)
    mid = lower_ridge_z(v) - 13.5
    dense = 1250 + v.normal("mandible hu", 80)
    parts = []
    for side, s in SIDES:
        h = v.scale("jaw height", 0.05, 0.02, s)
        body = ribbon(
            [
                (0, -84, mid),
                (s * 13 * w, -81, mid),
                (s * 25 * w, -71, mid + 1),
                (s * 34 * w, -54, mid + 3),
                (s * 41 * w, -37, mid + 6),
                (s * 46 * w, -24, mid + 12),
            ],
            5.6 * thick,
            [13.5 * h, 13.5 * h, 13 * h, 13 * h, 13 * h, 13 * h],
            3,
        )
        ramus = ribbon(
            [(s * 44 * w, -37, -43 - opening * 0.4), (s * 47 * w, -22, -41 - opening * 0.3)],
            3.8 * thick,
            [26, 27],
            2,
        )
        neck = tube([(s * 47 * w, -20, -24), (s * 49.5, -15, -5)], [5.5, 4.6], (0.9, 1))
        head = ellipsoid((s * 49.5, -14.5, -2.5), (9 * h, 4.6, 5), -10 * s)
        coronoid = tube([(s * 44 * w, -36, -26), (s * 47 * w, -39, -9)], [5, 2.5], (0.6, 1.2))
        half = join(body, ramus, neck, head, coronoid, smooth_mm=4)
        half = half.between(0, lo=0) if s > 0 else half.between(0, hi=0)
        parts.append(Part(half, cortical(480, dense, 2.2), organ=f"Bone_Mandible_{side}", tissue="Mandible"))
        joint = ellipsoid((s * 50, -13.5, -1.0), (11.5 * h, 7.2, 7.6))
        parts.append(Part(joint.without(head.grown(-0.4)), 60.0, organ=f"Joint_TM_{side}", tissue=None))
        parts.append(Part(joint.within(head), cortical(500, dense - 200, 1.2), organ=f"Joint_TM_{side}"))
        rim = joint.without(joint.grown(-2.2)).between(2, lo=2.5)
        parts.append(Part(rim, 850.0, organ=f"Joint_TM_{side}", tissue="Bone_Skull"))
    return parts + teeth(v, w)


def lower_ridge_z(v: Variation) -> float:
    """Height of the lower jaw's upper edge: lower when the mouth is open."""
    return -59.5 - 0.8 * v.uniform("mouth opening", 0, 9) + v.normal("jaw drop", 2.0)


def teeth(v: Variation, width: float) -> list[Part]:
    """Upper and lower teeth; a few patients lack many, some have metal in them."""
    parts = []
    ridge_z = lower_ridge_z(v)
    metal = metal_teeth(v)
    for row, (lo, hi) in enumerate(((UPPER_TEETH_Z - 5.5, UPPER_TEETH_Z + 5.5), (ridge_z - 4, ridge_z + 8))):
        for k, (x, y) in enumerate(tooth_places(width if row else 0.97, row)):
            if v.chance(f"tooth:{row}:{k}", 0.12):
                continue
            filled = (row, k) in metal
            shape = cylinder((x, y, (lo + hi) / 2), (3.6, 3.8), (hi - lo) / 2, 1.5)
            hu = 3000.0 if filled else cortical(1400, 2100, 1.2)
            parts.append(Part(shape, hu, tissue="Teeth"))
    return parts


def tooth_places(width: float, row: int) -> list[tuple[float, float]]:
    """x, y of the seven teeth a side, along the arch."""
    arch = [(4, -86), (11.5, -84), (18, -79), (23, -73), (27, -66), (30, -58), (33, -49)]
    return [(s * x * width, y + (2 if row else 0)) for s in (1, -1) for x, y in arch]


def metal_teeth(v: Variation) -> set[tuple[int, int]]:
    """(row, number) of the teeth with metal; empty in patients without dental artefact."""
    if not v.chance("dental metal", 0.3):
        return set()
    rng = v.rng("metal teeth")
    count = int(rng.integers(1, 6))
    return {(int(rng.integers(0, 2)), int(rng.choice([3, 4, 5, 6, 10, 11, 12, 13]))) for _ in range(count)}


def spine(v: Variation) -> list[Part]:
    """Vertebrae and discs, the canal's contents; the spinal cord itself comes in `brain`."""
    parts: list[Part] = []
    bone = cortical(240 + v.normal("spongy", 30), 760, 1.8)
    _ys, _zs = np.array(CANAL).T
    column = [(0.0, y - 18.0, z) for y, z in CANAL[2:]]
    parts.append(
        Part(tube(column, [6.5] * 3 + [7.0] * (len(column) - 3), (1.35, 1.0)), 95.0, tissue="Spine")
    )  # discs

    def add(shape: Shape) -> None:
        parts.append(Part(shape, bone, tissue="Spine"))

    for k, level in enumerate(LEVELS):
        y, z = CANAL[k + 1]
        gap = CANAL[k + 1][1] - CANAL[k + 2][1]
        half = gap / 2 - 2.4
        grow = 1.0 + 0.03 * k
        ring = cylinder((0, y + 1, z), (15.5, 13.5), 5.5, 2).without(cylinder((0, y, z), (11.5, 8.5), 50))
        if level == "C1":
            add(join(ring, *[ellipsoid((s * 20, y - 2, z), (9, 8, 7)) for _, s in SIDES], smooth_mm=3))
            add(ellipsoid((0, y - 21.5, z), (7, 3, 4)))
            continue
        body_part = cylinder((0, y - 18, z), (10.5 * grow, 8.6 * grow), half, 2)
        pillars = [ellipsoid((s * 17, y - 4, z), (6.5, 6.5, 7.5)) for _, s in SIDES]
        wings = [
            tube(
                [(s * 14, y - 8, z), (s * (22 + max(k - 5, 0) * 5), y - 8 + max(k - 5, 0) * 5, z - 2)],
                [4.5, 3.5],
            )
            for _, s in SIDES
        ]
        reach = 24 + 6 * min(max(k - 4, 0), 2)
        spinous = tube([(0, y + 12, z - 1), (0, y + 9 + reach, z - 10)], [4, 4.5], (0.8, 1))
        add(join(body_part, ring, *pillars, *wings, spinous, smooth_mm=3))
        if level == "C2":
            add(tube([(0, y - 18, z + 4), (0, y - 15, z + 24)], [6, 4.8]))
    canal = tube(canal_points(), [9.5] + [8.0] * (len(CANAL) - 1), (1.35, 1.0))
    parts.append(Part(canal, -20.0, tissue="SpinalCanal"))
    parts.append(
        Part(tube(canal_points(), [8.5] + [7.0] * (len(CANAL) - 1), (1.35, 1.0)), 12.0, tissue="SpinalCanal")
    )
    return parts


def hyoid(v: Variation) -> list[Part]:
    move = v.shift("larynx", 1.2)
    points = (
        np.array([(-23, -24, -84), (-18, -40, -87), (0, -52, -89), (18, -40, -87), (23, -24, -84)]) + move
    )
    return [Part(tube(points, [2, 2.6, 3.6, 2.6, 2]), cortical(350, 650, 1.2), tissue=KEEP)]
