"""The report's pictures that need no script: a few planes that together show every organ."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil

import SimpleITK as sitk

from soars.report.pictures import Picture, Style, draw
from soars.report.planes import AXIS, Plane, choose_planes, plane_through
from soars.report.record import OrganRecord
from soars.report.sections import swatch
from soars.report.upright import AxialSlices
from soars.report.words import place_on_axis
from soars.structures import StructureSet

_FINE_MM = 0.45


def gallery(
    organs: Sequence[OrganRecord], image: sitk.Image, structures: StructureSet, numbering: AxialSlices
) -> str:
    """Figures of the organs, none of which is empty, on the planes of an upright CT."""
    styles = {organ.name: Style(organ.label, organ.colour) for organ in organs}
    small = [organ.name for organ in organs if organ.stratum == "small_hard"]
    large = [organ.name for organ in organs if organ.stratum != "small_hard"]
    main = large or small

    def alt(plane: Plane) -> str:
        return f"{plane.view.capitalize()} CT slice with organ contours at {place_words(plane, numbering)}"

    def picture(plane: Plane) -> Picture:
        return draw(image, structures, plane, styles, title=alt(plane))

    axial = choose_planes(image, structures, main, "axial", least=6, most=7)
    axial = choose_planes(
        image, structures, main, "axial", least=3 * ceil(len(axial) / 3), most=7
    )  # whole rows
    upright = _sagittal(image, structures, main)
    upright += choose_planes(image, structures, main, "coronal", most=3, everybody=False)
    parts = [
        _row("Axial", [picture(plane) for plane in axial], styles, numbering),
        _row("Sagittal and coronal", [picture(plane) for plane in upright], styles, numbering),
    ]
    if small and large:
        closer = [
            draw(
                image,
                structures,
                plane,
                styles,
                title=f"Close-up, {alt(plane).lower()}",
                close_up_of=small,
                pixel_mm=_FINE_MM,
            )
            for plane in choose_planes(image, structures, small, "axial", most=8)
        ]
        parts.append(_row("Small and hard organs, close up", closer, styles, numbering, small=True))
    return "".join(parts)


def _sagittal(image: sitk.Image, structures: StructureSet, names: Sequence[str]) -> list[Plane]:
    """Up to three sagittal planes, one of them through the spinal cord or the brainstem."""
    planes = choose_planes(image, structures, names, "sagittal", most=3, everybody=False)
    middle = next((name for name in ("SpinalCord", "Brainstem") if name in names), None)
    through = plane_through(image, structures, middle, "sagittal") if middle else None
    if through is None or any(abs(plane.position_mm - through.position_mm) < 4 for plane in planes):
        return planes
    sides = choose_planes(image, structures, names, "sagittal", most=2, everybody=False)
    return sorted([through, *sides], key=lambda plane: plane.position_mm)


def _row(
    title: str,
    pictures: Sequence[Picture],
    styles: dict[str, Style],
    numbering: AxialSlices,
    *,
    small: bool = False,
) -> str:
    figures = "".join(_figure(picture, styles, numbering) for picture in pictures)
    return f'<h3>{escape(title)}</h3><div class="pictures{" small" if small else ""}">{figures}</div>'


def _figure(picture: Picture, styles: dict[str, Style], numbering: AxialSlices) -> str:
    legend = "".join(
        f"<li>{swatch(style.colour)}{escape(style.label)}</li>"
        for name, style in styles.items()
        if name in picture.organs
    )
    plane = picture.plane
    caption = f"{plane.view.capitalize()}, {place_words(plane, numbering)}"
    return (
        f"<figure>{picture.svg}<figcaption><b>{escape(caption)}</b>"
        f'<ul class="legend">{legend}</ul></figcaption></figure>'
    )


def place_words(plane: Plane, numbering: AxialSlices) -> str:
    """Where a plane is, e.g. ``slice 38 of 90, S 12.5 mm`` or ``L 23.0 mm``."""
    place = place_on_axis(AXIS[plane.view], plane.position_mm)
    return f"{numbering.words(plane.position_mm)}, {place}" if plane.view == "axial" else place
