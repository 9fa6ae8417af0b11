"""Inside the skull and the canal: cerebrum, temporal lobes, basal ganglia, cerebellum, brainstem, cord, and the small
organs around the third ventricle (hypothalamus, chiasm, pituitary, pineal gland)."""

from __future__ import annotations

import numpy as np

from soars.phantom.part import KEEP, HuOf, Part
from soars.phantom.shapes import Shape, ellipsoid, join, ribbon, tube
from soars.phantom.skull import CANAL, canal_points, cranial_cavity
from soars.phantom.surface import SIDES
from soars.phantom.variation import Variation

CORD_TOP_MM = -26.0  # below the foramen magnum the brainstem becomes the cord


def _cortex(white_hu: float, grey_hu: float, sulci_hu: float, phase: float) -> HuOf:
    """Grey matter over white matter, with sulci of CSF near the surface."""

    def hu(d: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        wave = np.sin(x * 0.47 + phase + 1.5 * np.sin(z * 0.21))
        wave += np.sin(y * 0.43 - phase + 1.5 * np.sin(x * 0.19))
        wave += np.sin(z * 0.51 + 2 * phase + 1.5 * np.sin(y * 0.23))
        out = grey_hu + (white_hu - grey_hu) * np.clip((-d - 6.0 + 1.3 * wave) * 0.5, 0, 1)
        sulcus = np.clip((wave - 1.0) * 1.6, 0, 1) * np.clip((d + 9.0) * 0.4, 0, 1)
        return out + (sulci_hu - out) * sulcus

    return hu


def brain(v: Variation) -> list[Part]:
    csf = 6 + v.normal("csf hu", 2)
    white, grey = 28 + v.normal("white hu", 1.5), 37 + v.normal("grey hu", 1.5)
    phase = v.uniform("gyri", 0, 6.28)
    atrophy = 2.6 + v.uniform("atrophy", 0, 1.6)
    cavity = cranial_cavity()
    parts = [Part(cavity.grown(0.3), 45.0, tissue="Brain"), Part(cavity.grown(-0.7), csf, tissue="Brain")]

    cerebellum = _cerebellum(v)
    tent = join(ellipsoid((0, 44, 3), (60, 42, 29)), ellipsoid((0, 8, 10), (25, 21, 36)), smooth_mm=6)
    cerebrum = cavity.grown(-atrophy).without(tent, 2).without(ellipsoid((0, -22, 30), (17, 14, 8.5)), 3)
    parts.append(Part(cerebrum, _cortex(white, grey, csf + 4, phase), tissue="Brain"))
    tentorium = tent.grown(0.8).without(tent.grown(-0.6)).within(cavity)
    parts.append(Part(tentorium.between(1, lo=14), 58.0, tissue="Brain"))

    falx = ellipsoid((0, -2, 58), (2.2, 82, 58)).between(2, lo=66)
    parts.append(Part(falx, csf + 6, tissue="Brain"))
    parts.append(Part(ellipsoid((0, -2, 58), (0.9, 83, 59)).between(2, lo=70), 58.0, tissue="Brain"))

    parts += _temporal_lobes(v, cavity.grown(-atrophy), tent, white, grey, csf, phase)
    parts += _basal_ganglia(v, grey)
    wide = v.scale("ventricles", 0.15)
    for _, s in SIDES:
        parts.append(
            Part(
                tube(
                    [
                        (s * 9, -34, 60),
                        (s * 12, -15, 69),
                        (s * 15, 12, 71),
                        (s * 23, 34, 60),
                        (s * 24, 48, 56),
                    ],
                    np.array([4, 5, 5, 6, 3.5]) * wide,
                    (0.8, 1),
                ),
                csf,
                tissue="Brain",
            )
        )
    parts.append(Part(ellipsoid((0, -1, 49), (2.4 * wide, 13, 9)), csf, tissue="Brain"))
    parts += _midline(v, csf)

    parts.append(
        Part(
            join(cerebellum.grown(2.5), ellipsoid((0, 7, 8), (21, 17, 36)), smooth_mm=4).within(
                cavity.grown(-1)
            ),
            csf,
            tissue="Brain",
        )
    )
    stem = _brainstem(v)
    parts.append(
        Part(
            cerebellum.within(cavity.grown(-1.5)),
            _cortex(33, 38, csf + 16, phase + 1),
            organ="Cerebellum",
            tissue="Brain",
        )
    )
    parts.append(Part(stem.grown(1.0).between(2, hi=40), csf + 8, tissue="Brain"))
    parts.append(Part(ellipsoid((0, 19.5, 1), (6 * wide, 4.5, 10)), csf, tissue="Brain"))  # fourth ventricle
    parts.append(
        Part(
            stem.between(2, lo=CORD_TOP_MM), 31.0 + v.normal("stem hu", 1), organ="Brainstem", tissue="Brain"
        )
    )
    parts.append(_cord(v))
    return parts


def _cerebellum(v: Variation) -> Shape:
    k = v.scale("cerebellum", 0.04)
    tall = {s: v.scale("cerebellum:z", 0.03, 0.015, s) for _, s in SIDES}
    halves = [ellipsoid((s * 24, 45, 4), (25.6 * k, 24.8 * k, 22.4 * k * tall[s]), 8 * s) for _, s in SIDES]
    vermis = ellipsoid((0, 43, 6), (19, 21.5 * k, 24 * k))
    return join(*halves, vermis, smooth_mm=10)


def _brainstem(v: Variation) -> Shape:
    k = v.scale("brainstem", 0.045)
    y, z = v.normal("stem y", 0.6), v.normal("stem z", 0.8)
    pons = ellipsoid((0, 3.5 + y, 7 + z), (17.5 * k, 12.8 * k, 14 * k))
    midbrain = ellipsoid((0, 6 + y, 28 + z), (15.5 * k, 10.5 * k, 12.5 * k))
    medulla = tube([(0, 12.3, -32), (0, 12, -24), (0, 9 + y, -6)], np.array([5.2, 6.2, 8.2]) * k, (1.3, 1.0))
    return join(pons, midbrain, medulla, smooth_mm=6)


def _cord(v: Variation) -> Part:
    k = v.scale("cord", 0.06)
    radii = np.array([5.2, 4.7, 4.4, 4.4, 4.6, 4.9, 5.0, 4.6, 4.2, 4.0, 3.9, 3.9, 3.9, 3.9]) * k
    cord = tube(canal_points(), radii[: len(CANAL)], (1.4, 0.95)).between(2, hi=CORD_TOP_MM)
    return Part(cord, 38.0 + v.normal("cord hu", 2), organ="SpinalCord", tissue="SpinalCanal")


def _temporal_lobes(
    v: Variation, inside: Shape, tent: Shape, white: float, grey: float, csf: float, phase: float
) -> list[Part]:
    """Lobe under the Sylvian fissure; its posterior border with the occipital lobe is a convention."""
    parts = []
    for side, s in SIDES:
        k = v.scale("temporal lobe", 0.04, 0.02, s)
        sylvian = ribbon([(s * 27, -36, 43), (s * 46, -24, 46), (s * 60, 8, 51)], 3.2, [2.0, 2.6, 2.4], 1.5)
        flat = tube(
            [(s * 26, -32, 43), (s * 44, -18, 46), (s * 64, -6, 50), (s * 66, 14, 54)], [2.4, 3.0, 2.6, 1.6]
        )
        lobe = join(
            ellipsoid((s * 42, -14, 25), (24 * k, 35 * k, 18.5 * k), -6 * s),
            ellipsoid((s * 46, 14, 36), (19 * k, 26 * k, 15 * k), -8 * s),
            smooth_mm=8,
        )
        lobe = lobe.within(inside).without(tent.grown(1.5))
        parts.append(Part(join(sylvian, flat).within(inside.grown(1)), csf, tissue="Brain"))
        parts.append(
            Part(
                lobe, _cortex(white, grey, csf + 6, phase + s), organ=f"Lobe_Temporal_{side}", tissue="Brain"
            )
        )
        horn = tube([(s * 34, -16, 24), (s * 37, 6, 30), (s * 32, 24, 42)], [1.8, 2.4, 3])
        parts.append(Part(horn, csf + 4, organ=KEEP, tissue="Brain"))
        parts.append(Part(flat.grown(-0.8), csf, tissue="Brain"))
    return parts


def _basal_ganglia(v: Variation, grey: float) -> list[Part]:
    parts = []
    for side, s in SIDES:
        k = v.scale("basal ganglia", 0.05, 0.02, s)
        move = v.shift("basal ganglia", 0.8, s)
        lentiform = ellipsoid(np.array([s * 24.5, -8, 55]) + move, (8 * k, 20 * k, 11.5 * k), 18 * s, "xy")
        head = ellipsoid(np.array([s * 14, -24, 61]) + move, (5.8 * k, 10.5 * k, 9.5 * k))
        tail = tube(np.array([(s * 14, -18, 66), (s * 18, 0, 71), (s * 23, 14, 68)]) + move, [4.4, 3.6, 2.8])
        parts.append(
            Part(
                join(lentiform, head, tail, smooth_mm=3),
                grey + 4.5,
                organ=f"Basal_Ganglia_{side}",
                tissue="Brain",
            )
        )
    return parts


def _midline(v: Variation, csf: float) -> list[Part]:
    """Suprasellar cistern with chiasm, hypothalamus above it, pituitary below, pineal gland behind."""
    move = v.shift("sella", 0.7)
    enhanced = 25.0 if v.chance("contrast", 0.45) else 0.0
    parts = [
        Part(ellipsoid((0, -22, 30), (15, 13, 8.5)), csf, tissue="Brain"),
        Part(ellipsoid((0, 9, 36), (12, 7, 8)), csf, tissue="Brain"),  # interpeduncular to quadrigeminal
        Part(ellipsoid((0, 20, 44), (10, 9, 9)), csf, tissue="Brain"),  # quadrigeminal cistern
    ]
    k = v.scale("hypothalamus", 0.06)
    for s in (1, -1):
        parts.append(
            Part(
                ellipsoid(np.array([s * 3.6, -15, 41.5]) + move, (3.0 * k, 7.0 * k, 5.2 * k)),
                34.0,
                organ="Hypothalmus",
                tissue="Brain",
            )
        )
    parts.append(
        Part(
            ellipsoid(np.array([0, -16, 37.5]) + move, (4.5 * k, 5.5 * k, 2.6 * k)),
            35.0,
            organ="Hypothalmus",
            tissue="Brain",
        )
    )
    gland = v.scale("pituitary", 0.07)
    parts.append(
        Part(ellipsoid(np.array([0, -21, 20]) + move, (8.2, 6.2, 6.2)), 20.0, tissue=None)
    )  # the sella
    parts.append(
        Part(
            ellipsoid(np.array([0, -21, 19.6]) + move, (6.8 * gland, 5.2 * gland, 4.4 * gland)),
            52.0 + enhanced,
            organ="Pituitary",
            tissue=None,
        )
    )
    parts.append(
        Part(tube(np.array([(0, -19, 23), (0, -17, 33)]) + move, [1.3, 1.2]), 45.0 + enhanced, tissue=KEEP)
    )
    pineal = v.scale("pineal", 0.09)
    centre = np.array([0, 21, 48]) + v.shift("pineal", 0.8)
    body = ellipsoid(centre, (3.4 * pineal, 4.6 * pineal, 3.1 * pineal))
    parts.append(Part(body.grown(1.6), csf, tissue="Brain"))
    parts.append(Part(body, 48.0, organ="Pineal", tissue="Brain"))
    if v.chance("pineal calcified", 0.6):
        parts.append(Part(body.grown(-1.4), v.uniform("pineal calcium", 110, 380), organ=KEEP, tissue=KEEP))
    return parts
