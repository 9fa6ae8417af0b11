"""nnU-Net where timm is not installed.

Its search for a trainer imports all trainers, and some name layers of timm, which would bring torchvision, of which
there is no build for the CPU alone. No model here uses these layers.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any


class Unused(types.ModuleType):
    """A module of which only the names are asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


STAND_INS = {name: Unused(name) for name in ("timm", "timm.layers", "timm.models", "timm.models.eva")}


def install() -> None:
    """Put the stand-ins in timm's place for the rest of this process, unless timm is installed."""
    if "timm" not in sys.modules and importlib.util.find_spec("timm") is None:
        sys.modules.update(STAND_INS)
