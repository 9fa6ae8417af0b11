"""Whether the branches of a bundle fit together: classes, channels, anchors, heat maps and volumes of interest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from soars.errors import BundleError
from soars.networks.names import Branch, channels

if TYPE_CHECKING:
    from soars.bundle.manifest import BranchSpec


def check_agreement(branches: Mapping[Branch, BranchSpec], voi_mm: Mapping[str, object]) -> None:
    """Check that classes, channels, anchors, heat maps and VOIs of the branches fit together."""
    from soars.catalogue import CATALOGUE

    if not any(name != "detection" for name in branches):
        raise BundleError("branches: a bundle needs an anchor, mid_level or small_hard branch")
    groups = {oar.detection_group for oar in CATALOGUE.values()}
    anchors = len(branches["anchor"].classes) if "anchor" in branches else 0
    owner: dict[str, str] = {}
    for branch in branches.values():
        where = f"branches.{branch.name}"
        known = groups if branch.name == "detection" else CATALOGUE
        for name in branch.classes:
            if name not in known:
                kind = "heat-map group" if branch.name == "detection" else "organ"
                raise BundleError(
                    f"{where}.classes: unknown {kind} {name!r}; names are the catalogue's (TG-263)"
                )
            if branch.name == "detection":
                continue
            if name in owner:
                raise BundleError(f"{where}.classes: {name} is a class of the {owner[name]} branch already")
            owner[name] = branch.name
        if "anchor" in branch.inputs and not anchors:
            raise BundleError(f"{where}.inputs: 'anchor' is an input, but the bundle has no anchor branch")
        wanted = channels(branch.inputs, windows=max(1, len(branch.windows_hu)), anchors=anchors)
        if branch.architecture.in_channels != wanted:
            raise BundleError(
                f"{where}.architecture: in_channels is {branch.architecture.in_channels}, but the inputs "
                f"{', '.join(branch.inputs)} make {wanted}"
            )
        background = 1 if branch.activation == "softmax" else 0
        expected = len(branch.classes) + background
        if branch.architecture.out_channels != expected:
            raise BundleError(
                f"{where}.architecture: out_channels is {branch.architecture.out_channels}, but "
                f"{len(branch.classes)} classes{' and background' if background else ''} make {expected}"
            )
    detected = branches["detection"].classes if "detection" in branches else ()
    for group in voi_mm:
        if group not in detected:
            raise BundleError(f"voi_mm: {group!r} is not a heat map of the detection branch")
    if "small_hard" not in branches:
        return
    if not detected:
        raise BundleError("branches: small_hard needs a detection branch that finds its organs")
    for name in branches["small_hard"].classes:
        group = CATALOGUE[name].detection_group
        if group not in detected:
            raise BundleError(
                f"branches.detection.classes: {group!r} is missing; small_hard needs it for {name}"
            )
        if group not in voi_mm:
            raise BundleError(f"voi_mm: {group!r} is missing; small_hard needs it for {name}")
