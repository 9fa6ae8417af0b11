"""The list beside the viewer: the organs, those that most need a look first, each with what was found about it.

The list is complete without scripts. Where they run, they turn what carries ``data-visit`` into a button that goes to
the organ (its middle, or the place in ``data-point``), and show the boxes that switch an organ on and off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import SimpleITK as sitk

from soars.report.pictures import Style, draw
from soars.report.planes import Plane, plane_through
from soars.report.record import OrganRecord
from soars.report.sections import swatch
from soars.report.summary import format_volume
from soars.report.upright import AxialSlices
from soars.structures import StructureSet

_PIXEL_MM = 0.6


@dataclass(frozen=True)
class Scene:
    """What the list points into: an upright CT with its organs, and how its slices are numbered."""

    image: sitk.Image
    structures: StructureSet
    numbering: AxialSlices
    styles: dict[str, Style]


def organ_list(organs: Sequence[OrganRecord], scene: Scene) -> str:
    """Items of the list, the organs with warnings first, otherwise in the order given; none of them is empty."""
    ordered = sorted(organs, key=lambda organ: not organ.warnings)
    return "".join(_item(organ, scene) for organ in ordered)


def _item(organ: OrganRecord, scene: Scene) -> str:
    name, label = escape(organ.name), escape(organ.label)
    flagged = ' class="flagged"' if organ.warnings else ""
    return (
        f'<li data-organ="{name}"{flagged}><div class="organ">'
        f'<input type="checkbox" class="live-only" data-organ="{name}" checked aria-label="Show {label}">'
        f'{swatch(organ.colour)}<span class="label" data-visit="{name}">{label}</span>'
        f'<span class="volume">{format_volume(organ)} cc</span></div>{_flag(organ, scene)}</li>'
    )


def _flag(organ: OrganRecord, scene: Scene) -> str:
    """What is odd about an organ, beside a small picture of it."""
    if not organ.warnings:
        return ""
    plane = plane_through(scene.image, scene.structures, organ.name, "axial")
    if plane is None:
        return ""
    words = f"{scene.numbering.words(plane.position_mm)}"
    texts = "".join(f"<p>{escape(text[:1].upper() + text[1:])}</p>" for text in organ.warnings)
    return (
        f'<div class="flag">{_thumbnail(organ, plane, scene)}<div>{texts}'
        f'<p class="place" data-visit="{escape(organ.name)}">{words}</p></div></div>'
    )


def _thumbnail(organ: OrganRecord, plane: Plane, scene: Scene) -> str:
    picture = draw(
        scene.image,
        scene.structures,
        plane,
        scene.styles,
        title=f"{organ.label}, {scene.numbering.words(plane.position_mm)}",
        close_up_of=[organ.name],
        pixel_mm=_PIXEL_MM,
    )
    return f'<div class="thumbnail">{picture.svg}</div>'
