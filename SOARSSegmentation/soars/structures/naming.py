"""What the catalogue adds to a structure: its name, readable label, colour and terminology."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from soars import catalogue
from soars.catalogue.slicer_terms import terminology_entry
from soars.structures.model import StructureInfo, StructureSet

FALLBACK_COLOUR = (128, 174, 128)


def catalogue_entry(name: str) -> catalogue.Oar | None:
    """The organ of this exact TG-263 name; None when the catalogue has none."""
    return catalogue.CATALOGUE.get(name)


def describe(name: str, info: StructureInfo) -> StructureInfo:
    """``info`` with label, colour and terminology filled in from the catalogue where it has none."""
    oar = catalogue_entry(name)
    return replace(
        info,
        label=info.label or (oar.label if oar else name),
        colour=info.colour or (oar.colour if oar else FALLBACK_COLOUR),
        terminology=info.terminology or (terminology_entry(oar) if oar else ""),
    )


def name_for(structures: StructureSet, called: str, all_called: Collection[str], what: str) -> str:
    """The name of a file's next structure: as the file has it, with a number where ``structures`` holds one so called.

    Args:
        all_called: what the file calls its structures; a number must not make the name of another one.
        what: the file and what the two are ("a.dcm: two ROIs"), for the warning that a number is.
    """
    name, copy = called, 2
    while name in structures or (name != called and name in all_called):
        name, copy = f"{called}_{copy}", copy + 1
    if name != called:
        structures.warnings.append(f"{what} are called {called!r}; one is now {name!r}")
    return name


def use_catalogue_names(structures: StructureSet) -> None:
    """Rename, in place, every structure that the catalogue knows by another spelling to its TG-263 name.

    How the file spelled it stays in ``info[name].original_name``. A name that the catalogue does not know,
    or a second structure that means the same organ, is kept as it is, with a warning.
    """
    unknown: list[str] = []
    for name in structures.names:
        oar = catalogue.find(name)
        if oar is None:
            unknown.append(name)
            continue
        target = oar.name
        if target == name:
            continue
        if target in structures:
            structures.warnings.append(
                f"{name!r} also means {target}, which is there already; kept under its own name"
            )
            continue
        structures.rename(name, target)
        info = structures.info[target]
        structures.info[target] = replace(info, original_name=info.original_name or name)
    if unknown:
        structures.warnings.append(f"not in the catalogue of organs, kept as named: {', '.join(unknown)}")
