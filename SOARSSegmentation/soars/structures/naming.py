"""What the catalogue adds to a structure: its name, readable label, colour and terminology."""

from __future__ import annotations

from typing import Any

from soars import catalogue
from soars.catalogue.slicer_terms import terminology_entry
from soars.errors import UnknownOrganError
from soars.structures.model import StructureSet

FALLBACK_COLOUR = (128, 174, 128)


def catalogue_entry(name: str) -> catalogue.Oar | None:
    """The organ of this exact TG-263 name; None when the catalogue has none."""
    return catalogue.CATALOGUE.get(name)


def describe(name: str, info: dict[str, Any]) -> dict[str, Any]:
    """``info`` with ``label``, ``colour`` and ``terminology`` filled in from the catalogue where it has
    none."""
    out = dict(info)
    oar = catalogue_entry(name)
    out.setdefault("label", oar.label if oar else name)
    out.setdefault("colour", oar.colour if oar else FALLBACK_COLOUR)
    if oar is not None and "terminology" not in out:
        out["terminology"] = terminology_entry(oar)
    return out


def use_catalogue_names(structures: StructureSet) -> None:
    """Rename, in place, every structure that the catalogue knows by another spelling to its TG-263 name.

    How the file spelled it stays in ``info[name]["original_name"]``. A name that the catalogue does not know,
    or a second structure that means the same organ, is kept as it is, with a warning.
    """
    unknown: list[str] = []
    for name in structures.names:
        try:
            target = catalogue.resolve(name).name
        except UnknownOrganError:
            unknown.append(name)
            continue
        if target == name:
            continue
        if target in structures:
            structures.warnings.append(
                f"{name!r} also means {target}, which is there already; kept under its own name"
            )
            continue
        structures.rename(name, target)
        structures.info[target].setdefault("original_name", name)
    if unknown:
        structures.warnings.append(f"not in the catalogue of organs, kept as named: {', '.join(unknown)}")
