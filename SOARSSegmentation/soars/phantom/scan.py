"""What the scanner adds: couch, head rest and mask before painting; noise, streaks and calibration after."""

from __future__ import annotations

import numpy as np
import scipy

from soars.phantom.part import Part
from soars.phantom.render import Canvas
from soars.phantom.skull import UPPER_TEETH_Z, lower_ridge_z, metal_teeth, tooth_places
from soars.phantom.surface import body, couch_support
from soars.phantom.variation import Variation, Warp

HU_RANGE = (-1024.0, 3071.0)


def mask_parts(v: Variation) -> list[Part]:
    """The thermoplastic mask over face, neck and the front of the shoulders; painted before the body."""
    skin = body(v)
    sheet = skin.grown(3.4 + v.uniform("mask gap", 0, 1.0)).between(1, hi=25).between(2, lo=-205, hi=100)
    gap = skin.grown(1.2).between(1, hi=30)
    return [Part(sheet, -60.0), Part(gap, -990.0)] if v.chance("mask", 0.8) else []


def paint_couch(canvas: Canvas, warp: Warp) -> None:
    """Carbon couch (thin skin, foam inside) and a foam head rest, in patient coordinates under head and shoulders."""
    z, y, x = (a.astype(np.float32) for a in canvas.axes_mm)
    support = warp.to_patient(np.array(couch_support()))
    top = float(support[1:, 1].max()) + 1.5
    spacing = float(y[1] - y[0]) if len(y) > 1 else 1.0
    across = np.abs(x)[None, :]
    down = (y - top)[:, None]
    plate = np.maximum(np.maximum(-down, down - 22), across - 265)
    level = np.full((len(y), len(x)), -1000, np.float32)
    for shape, hu in ((plate, -120.0), (plate + 1.8, -960.0)):
        alpha = np.clip(0.5 - shape / spacing, 0, 1)
        level += alpha * (hu - level)
    head_y = float(support[0, 1])
    rest = np.maximum(
        np.maximum(head_y - 45 - y[:, None], y[:, None] - top + 0.5),
        across - 95 - 0.4 * (y[:, None] - head_y),
    )
    with_rest = level + np.clip(0.5 - rest / spacing, 0, 1) * (-930.0 - level)
    chest = float(warp.to_patient(np.array([[0.0, 60.0, -135.0]]))[0, 2])
    for k, height in enumerate(z):
        canvas.hu[k] = np.maximum(canvas.hu[k], with_rest if height > chest else level)


def finish(canvas: Canvas, v: Variation, warp: Warp, *, noise: bool, artefact: bool | None) -> np.ndarray:
    """The scan as int16 HU: with streaks from dental metal (None: as the patient has them), noise and calibration."""
    hu = canvas.hu
    if artefact is not False:
        _streaks(hu, canvas.axes_mm, v, warp, forced=bool(artefact))
    if noise:
        _add_noise(hu, canvas.axes_mm, v, warp)
    hu = hu * (1 + v.normal("hu gain", 0.012)) + v.normal("hu offset", 2.5)
    return np.clip(np.rint(hu), *HU_RANGE).astype(np.int16)


def noise_sd_hu(v: Variation, spacing_mm: np.ndarray) -> float:
    """Noise of the patient's scan at this voxel size: 9 to 26 HU at 1 x 1 x 2.5 mm, less for larger voxels."""
    sd = v.uniform("noise", 9, 26)
    return float(sd * np.clip((2.5 / float(np.prod(spacing_mm))) ** 0.4, 0.3, 1.3))


def _add_noise(hu: np.ndarray, axes_mm: tuple[np.ndarray, ...], v: Variation, warp: Warp) -> None:
    spacing = np.array([a[1] - a[0] if len(a) > 1 else 1.0 for a in axes_mm])
    sd = noise_sd_hu(v, spacing)
    where = [round(float(a[0]) * 10) for a in axes_mm]
    rng = np.random.default_rng([abs(v.seed), *(abs(w) for w in where), *hu.shape])
    sigma = 0.75 / spacing[1:]
    shoulder = float(warp.to_patient(np.array([[0.0, 20.0, -150.0]]))[0, 2])
    for k in range(hu.shape[0]):
        field = rng.standard_normal(hu.shape[1:], dtype=np.float32)
        if sigma.min() > 0.3:
            field = scipy.ndimage.gaussian_filter(field, sigma, truncate=3.0)
            field *= np.float32(1 / _white_sd_after(sigma))
        starved = 1 + 0.6 * np.clip((shoulder - axes_mm[0][k]) / 25, 0, 1)
        hu[k] += field * np.float32(sd * starved)


def _white_sd_after(sigma: np.ndarray) -> float:
    """Standard deviation of unit white noise after this Gaussian."""
    out = 1.0
    for s in sigma:
        reach = int(3 * s + 0.5)
        n = np.arange(-reach, reach + 1)
        kernel = np.exp(-0.5 * (n / s) ** 2)
        out *= float(np.sqrt(np.sum((kernel / kernel.sum()) ** 2)))
    return out


def _streaks(
    hu: np.ndarray, axes_mm: tuple[np.ndarray, ...], v: Variation, warp: Warp, *, forced: bool
) -> None:
    metal = sorted(metal_teeth(v)) or ([(1, 5), (0, 12)] if forced else [])
    if not metal:
        return
    z, y, x = (a.astype(np.float32) for a in axes_mm)
    points = []
    for row, k in metal:
        px, py = tooth_places(1.0, row)[k]
        points.append((px, py, UPPER_TEETH_Z if row == 0 else lower_ridge_z(v) + 2))
    rng = v.rng("streaks")
    for px, py, pz in warp.to_patient(np.array(points)):
        near = np.flatnonzero(np.abs(z - pz) < 8)
        profile = scipy.ndimage.gaussian_filter1d(rng.standard_normal(720), 4, mode="wrap")
        profile = np.sign(profile) * (np.abs(profile) / profile.std()) ** 1.6
        dx, dy = (x - px)[None, :], (y - py)[:, None]
        angle = ((np.arctan2(dy, dx) + np.pi) * (360 / np.pi)).astype(np.int32) % 720
        pattern = profile.astype(np.float32)[angle] * (220 / (1 + np.sqrt(dx * dx + dy * dy) / 22)).astype(
            np.float32
        )
        for level in near:
            body_part = hu[level] > -400
            hu[level] += pattern * body_part * np.float32(np.exp(-0.5 * ((z[level] - pz) / 3.5) ** 2))
