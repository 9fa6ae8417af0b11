"""The list beside the viewer: the organs, those that most need a look first, each with its findings.

The list is complete without scripts. Where they run, they turn elements with ``data-visit`` into buttons that go to
the organ (its middle, or the place in ``data-point``), and show the boxes that switch an organ on and off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import SimpleITK as sitk

from soars.findings.finding import CHECK, NOTE, SERIOUS, Finding
from soars.report.pictures import Style, draw
from soars.report.planes import Plane, plane_through
from soars.report.record import OrganRecord
from soars.report.sections import swatch
from soars.report.summary import format_volume
from soars.report.upright import AxialSlices
from soars.report.words import place
from soars.structures import StructureSet

SEVERITY_WORDS = {SERIOUS: "Probably wrong", CHECK: "To check", NOTE: "Note"}

_PIXEL_MM = 0.6


@dataclass(frozen=True)
class Scene:
    """What the list refers to: an upright CT with its organs, and how its slices are numbered."""

    image: sitk.Image
    structures: StructureSet
    numbering: AxialSlices
    styles: dict[str, Style]


def organ_list(organs: Sequence[OrganRecord], scene: Scene) -> str:
    """Items of the list, in the order given. An organ without voxels has no box and no picture."""
    return "".join(_item(organ, scene) for organ in organs)


def _item(organ: OrganRecord, scene: Scene) -> str:
    drawn = organ.name in scene.styles
    name, label = escape(organ.name), escape(organ.label)
    severity = organ.findings[0].severity if organ.findings else ("" if drawn else CHECK)
    box = f'<input type="checkbox" class="live-only" data-organ="{name}" checked aria-label="Show {label}">'
    visit = f' data-visit="{name}"' if drawn else ""
    volume = f"{format_volume(organ)} cc" if drawn else "absent"
    return (
        f'<li data-organ="{name}" class="{escape(severity)}"><div class="organ">{box if drawn else ""}'
        f'{swatch(organ.colour)}<span class="label"{visit}>{label}</span><span class="volume">{volume}</span></div>'
        f"{_expected(organ)}{_reason(organ)}{''.join(_finding(found, organ, scene) for found in organ.findings)}</li>"
    )


def _expected(organ: OrganRecord) -> str:
    if organ.expected_dsc is None:
        return ""
    return f'<p class="expected">expected DSC {escape(organ.expected_dsc.text())}</p>'


def _reason(organ: OrganRecord) -> str:
    """Why an organ is absent, unless a finding says so."""
    said = any(organ.reason in found.text for found in organ.findings)
    return "" if said or not organ.reason else f'<p class="reason">{escape(_sentence(organ.reason))}</p>'


def _finding(found: Finding, organ: OrganRecord, scene: Scene) -> str:
    """A finding with a small picture of its place, what to do, and the way there."""
    return (
        f'<div class="flag">{_thumbnail(found, organ, scene)}<div>'
        f'<p><b class="{escape(found.severity)}">{SEVERITY_WORDS[found.severity]}:</b> '
        f"{escape(_sentence(found.text))}</p><p>{escape(found.advice)}</p>{_place(found, organ, scene)}</div></div>"
    )


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _place(found: Finding, organ: OrganRecord, scene: Scene) -> str:
    if found.where is None:
        return ""
    point = found.where.point_mm
    words = f"{scene.numbering.words(point[2])}, {found.where.side} · {place(point)}"
    visit = f' data-visit="{escape(organ.name)}" data-point="{" ".join(f"{mm:.1f}" for mm in point)}"'
    return f'<p class="place"{visit if organ.name in scene.styles else ""}>{escape(words)}</p>'


def _thumbnail(found: Finding, organ: OrganRecord, scene: Scene) -> str:
    """The axial slice of the place, ringed; the organ's largest slice where a finding has no place."""
    if found.where is not None:
        plane: Plane | None = Plane("axial", found.where.point_mm[2])
    elif organ.name in scene.styles:
        plane = plane_through(scene.image, scene.structures, organ.name, "axial")
    else:
        plane = None
    if plane is None:
        return ""
    picture = draw(
        scene.image,
        scene.structures,
        plane,
        scene.styles,
        title=f"{organ.label}, {scene.numbering.words(plane.position_mm)}",
        close_up_of=[organ.name],
        mark_lps_mm=found.where.point_mm if found.where is not None else None,
        pixel_mm=_PIXEL_MM,
    )
    return f'<div class="thumbnail">{picture.svg}</div>'
