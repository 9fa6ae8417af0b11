"""The window in which an organ's border shows best: that of bone, of soft tissue, or of the brain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """``width_hu`` Hounsfield units about ``level_hu``."""

    name: str
    width_hu: float
    level_hu: float


BONE = Preset("bone", 2000.0, 500.0)
SOFT_TISSUE = Preset("soft tissue", 400.0, 40.0)
BRAIN = Preset("brain", 100.0, 35.0)
_BONY = ("Bone_", "Cochlea", "Ear_", "Joint_")
_IN_THE_BRAIN = (
    *("Basal_Ganglia", "Brain", "Cerebellum", "Hippocampus", "Hypothal", "Lobe_Temporal", "OpticChiasm"),
    *("Pineal", "Pituitary"),
)


def preset_of(organ: str) -> Preset:
    """By an organ's TG-263 name; soft tissue for whatever lies neither in bone nor in the brain."""
    if organ.startswith(_BONY):
        return BONE
    return BRAIN if organ.startswith(_IN_THE_BRAIN) else SOFT_TISSUE


class WindowPresets:
    """Sets a CT's window when the current organ needs a different one from the previous organ: a reader's own
    adjustment stays as long as the preset is the same."""

    def __init__(self) -> None:
        self.on = True
        self._set: Preset | None = None

    def use(self, organ: str, volume_node: Any) -> None:
        display = volume_node.GetDisplayNode()
        preset = preset_of(organ)
        if not self.on or display is None or preset == self._set:
            return
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(preset.width_hu, preset.level_hu)
        self._set = preset

    def forget(self) -> None:
        """Forget the last preset: there is another CT, or the reader wants the preset back."""
        self._set = None
