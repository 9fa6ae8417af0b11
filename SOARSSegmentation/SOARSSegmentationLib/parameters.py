"""What the module remembers in the scene."""

from __future__ import annotations

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import parameterNodeWrapper

from soars.commands.segment import DEFAULT_BUNDLE
from soars.effort.records import REVISE
from soars.effort.timing import IDLE_S
from SOARSSegmentationLib.protocols import ALL


@parameterNodeWrapper
class Parameters:
    """Saved with the scene; the types are those that Slicer's parameter node wrapper can keep.

    ``mr`` is an MR of the same patient, for models that see one. ``protocol`` is a key of `protocols.Protocols`,
    ``arm`` "revise" or "scratch", ``session_folder`` where the effort log of this scene's session lies, "" before there
    is one.
    """

    volume: vtkMRMLScalarVolumeNode
    mr: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    bundle: str = DEFAULT_BUNDLE
    device: str = "auto"
    protocol: str = ALL
    study: str = ""
    case: str = ""
    reader: str = ""
    arm: str = REVISE
    idle_s: float = IDLE_S
    session_folder: str = ""
