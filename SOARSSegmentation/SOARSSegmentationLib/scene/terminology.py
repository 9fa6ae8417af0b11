"""The catalogue's terminology and colour table, which lie in the module's Resources, for the rest of Slicer.

A segmentation carries its terminology entries itself; with the terminology loaded, the organs can also be chosen in
Slicer's own selector. Both files are made by `soars.catalogue.slicer_terms`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soars.catalogue.slicer_terms import CONTEXT_NAME, TERMINOLOGY_FILE

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"


def load_terminology(terminologies_logic: Any, folder: Path = RESOURCES) -> bool:
    """Load the terminology into ``slicer.modules.terminologies.logic()``, once; whether it is there then.

    Call it when the application has started: it takes a moment, and nothing depends on it.
    """
    loaded = getattr(terminologies_logic, "IsTerminologyContextLoaded", None)
    if loaded is not None and loaded(CONTEXT_NAME):
        return True
    file = folder / TERMINOLOGY_FILE
    # The method's answer differs between versions of Slicer: a name, or whether it went well.
    return file.is_file() and bool(terminologies_logic.LoadTerminologyFromFile(str(file)))
