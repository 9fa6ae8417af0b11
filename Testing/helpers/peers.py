"""Other programs' metrics, called as their authors mean them, to compare with; each skips where it is not installed."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


def surface_distance_metrics() -> ModuleType:
    """google-deepmind/surface-distance 0.1, which uses names that NumPy 2 and SciPy have dropped."""
    pytest.importorskip("surface_distance", reason="pip install surface-distance to compare with it")
    from scipy import ndimage
    from surface_distance import metrics

    metrics.np = SimpleNamespace(**{**vars(np), "Inf": np.inf, "NaN": np.nan})
    metrics.ndimage = SimpleNamespace(
        filters=SimpleNamespace(correlate=ndimage.correlate),
        morphology=SimpleNamespace(distance_transform_edt=ndimage.distance_transform_edt),
    )
    return metrics


def surface_distance_figures(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float], tolerance: float
) -> dict[str, float]:
    """All that surface-distance computes of two boolean arrays [z, y, x]."""
    peer = surface_distance_metrics()
    distances = peer.compute_surface_distances(reference, prediction, spacing)
    to_prediction, to_reference = peer.compute_average_surface_distance(distances)
    of_reference, of_prediction = peer.compute_surface_overlap_at_tolerance(distances, tolerance)
    return {
        "dsc": float(peer.compute_dice_coefficient(reference, prediction)),
        "hd_mm": float(peer.compute_robust_hausdorff(distances, 100)),
        "hd95_mm": float(peer.compute_robust_hausdorff(distances, 95)),
        "asd_to_reference_mm": float(to_reference),
        "asd_to_prediction_mm": float(to_prediction),
        "surface_dsc": float(peer.compute_surface_dice_at_tolerance(distances, tolerance)),
        "overlap_of_prediction": float(of_prediction),
        "overlap_of_reference": float(of_reference),
    }


def monai_figures(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float], tolerance: float
) -> dict[str, float]:
    """MONAI's metrics of two boolean arrays [z, y, x]."""
    torch: Any = pytest.importorskip("torch")
    metrics: Any = pytest.importorskip("monai.metrics")
    p, r = (torch.from_numpy(a[None, None].astype(np.float32)) for a in (prediction, reference))
    options = {"include_background": True, "spacing": list(spacing)}
    return {
        "dsc": float(metrics.compute_dice(p, r, include_background=True)),
        "hd_mm": float(metrics.compute_hausdorff_distance(p, r, **options)),
        "hd95_mm": float(metrics.compute_hausdorff_distance(p, r, percentile=95, **options)),
        "asd_to_reference_mm": float(metrics.compute_average_surface_distance(p, r, **options)),
        "asd_mm": float(metrics.compute_average_surface_distance(p, r, symmetric=True, **options)),
        "surface_dsc": float(metrics.compute_surface_dice(p, r, class_thresholds=[tolerance], **options)),
    }


def medpy_figures(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float]
) -> dict[str, float]:
    """medpy's metrics of two boolean arrays [z, y, x]."""
    binary: Any = pytest.importorskip("medpy.metric.binary", reason="pip install medpy to compare with it")
    return {
        "dsc": float(binary.dc(prediction, reference)),
        "hd_mm": float(binary.hd(prediction, reference, spacing)),
        "hd95_mm": float(binary.hd95(prediction, reference, spacing)),
        "asd_to_reference_mm": float(binary.asd(prediction, reference, spacing)),
        "asd_to_prediction_mm": float(binary.asd(reference, prediction, spacing)),
        "asd_mm": float(binary.assd(prediction, reference, spacing)),
    }
