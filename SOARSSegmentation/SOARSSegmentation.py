"""The scripted module: choose a CT, press Apply, get organs at risk as editable segments.

It is thin on purpose. The segmentation itself is the command line (``python -m soars.cli segment``) in a child
process, the same one that runs outside Slicer. `SOARSSegmentationLogic` knows nothing of widgets.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import ctk
import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

MODULE_FOLDER = Path(__file__).resolve().parent
DEFAULT_BUNDLE = "starter"


class SOARSSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SOARS Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The SOARSSegmentation contributors"]
        parent.helpText = _(
            "Segments up to 42 organs at risk on a head-and-neck planning CT, stratified into anchor, mid-level, "
            "and small and hard organs. <b>For research use only: not a medical device.</b> Have every contour "
            "checked and corrected by a qualified person before it is used for anything."
        )
        parent.acknowledgementText = _(
            "An independent implementation of SOARS: Guo et al., CVPR 2020, doi:10.1109/CVPR42600.2020.00428, and "
            "Ye et al., Nature Communications 13:6137, 2022, doi:10.1038/s41467-022-33178-z. Please cite them."
        )


class SOARSSegmentationWidget(ScriptedLoadableModuleWidget):
    """A selector for the CT, Apply, and what is going on."""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SOARSSegmentationLogic()

        section = ctk.ctkCollapsibleButton()
        section.text = _("Organs at risk")
        self.layout.addWidget(section)
        form = qt.QFormLayout(section)

        self.volumeSelector = slicer.qMRMLNodeComboBox()
        self.volumeSelector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volumeSelector.addEnabled = False
        self.volumeSelector.removeEnabled = False
        self.volumeSelector.noneEnabled = True
        self.volumeSelector.setMRMLScene(slicer.mrmlScene)
        self.volumeSelector.toolTip = _("The head-and-neck CT to segment")
        form.addRow(_("CT:"), self.volumeSelector)

        self.applyButton = qt.QPushButton(_("Apply"))
        form.addRow(self.applyButton)
        self.statusLabel = qt.QLabel(_("For research use only: not a medical device."))
        self.statusLabel.wordWrap = True
        form.addRow(self.statusLabel)
        self.layout.addStretch(1)

        self.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onVolumeChanged)
        self.applyButton.connect("clicked(bool)", self.onApply)
        self.onVolumeChanged(self.volumeSelector.currentNode())

    def onVolumeChanged(self, volumeNode) -> None:
        self.applyButton.enabled = volumeNode is not None

    def onApply(self, _checked=False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The CT was not segmented."), waitCursor=True):
            self.logic.ensureRequirements()
            self.logic.segment(self.volumeSelector.currentNode(), onProgress=self.showProgress)
            self.statusLabel.text = _("Done. Check every organ in the Segment Editor.")

    def showProgress(self, message: str) -> None:
        self.statusLabel.text = message
        slicer.app.processEvents()


class SOARSSegmentationLogic(ScriptedLoadableModuleLogic):
    """From a volume node to a segmentation node, through the command line.

    >>> segmentationNode = SOARSSegmentationLogic().segment(volumeNode)
    """

    def ensureRequirements(self) -> None:
        """Ask for, and install, the Python packages that Slicer does not bring. Raises when the user declines."""
        requirements = MODULE_FOLDER / "Resources" / "requirements.txt"
        try:
            from slicer import packaging
        except ImportError:  # Slicer before 5.11
            slicer.util.pip_install(["-r", str(requirements)])
        else:
            packaging.pip_ensure(
                packaging.load_requirements(str(requirements)), requester="SOARS Segmentation"
            )

    def segment(
        self, volumeNode, bundle: str = DEFAULT_BUNDLE, onProgress: Callable[[str], None] | None = None
    ):
        """Segment `volumeNode` (vtkMRMLScalarVolumeNode, HU) and return a new vtkMRMLSegmentationNode.

        Raises ValueError for a volume that cannot be segmented as it is, RuntimeError with the command line's own
        message when it fails; the scene is then as it was.
        """
        if volumeNode is None or volumeNode.GetImageData() is None:
            raise ValueError(_("Choose a CT that holds an image."))
        if volumeNode.GetParentTransformNode() is not None:
            raise ValueError(_("The CT is under a transform: harden it in the Transforms module first."))
        with tempfile.TemporaryDirectory(prefix="soars-", dir=slicer.app.temporaryPath) as folder:
            ct, output = Path(folder, "ct.nrrd"), Path(folder, "output")
            if not slicer.util.exportNode(volumeNode, str(ct)):
                raise RuntimeError(_("The CT could not be written to {path}.").format(path=ct))
            self.runCommand(["segment", str(ct), "--output", str(output), "--bundle", bundle], onProgress)
            segmentationNode = slicer.util.loadSegmentation(str(output / "segmentation.seg.nrrd"))
        # its file is gone with the temporary folder: to be saved like anything new
        slicer.mrmlScene.RemoveNode(segmentationNode.GetStorageNode())
        segmentationNode.SetName(slicer.mrmlScene.GenerateUniqueName(volumeNode.GetName() + " SOARS"))
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        return segmentationNode

    def runCommand(self, arguments: list[str], onProgress: Callable[[str], None] | None = None) -> None:
        """Run ``soars`` with `arguments` in a child process and wait for its end.

        `onProgress` gets a sentence for each of its progress records. Raises RuntimeError when it fails.
        """
        python = shutil.which("PythonSlicer")
        if python is None:
            raise RuntimeError(_("PythonSlicer was not found in this installation of Slicer."))
        process = slicer.util.launchConsoleProcess(
            [python, "-m", "soars.cli", *arguments, "--progress", "json"],
            useStartupEnvironment=False,
            updateEnvironment={**os.environ, "PYTHONUTF8": "1"},
            cwd=str(MODULE_FOLDER),  # where the package soars lies
        )
        said = []
        for line in process.stdout:
            message = progressMessage(line)
            if message is None:
                said.append(line.strip())
            elif message and onProgress is not None:
                onProgress(message)
        if process.wait() != 0:
            raise RuntimeError("\n".join(said[-5:]) or _("soars ended without a message."))


def progressMessage(line: str) -> str | None:
    """What to show for a line of ``--progress json``: "" for a heartbeat, None when the line is no such record.

    >>> progressMessage('{"stage": "anchor", "done": 3, "of": 12, "message": ""}')
    'anchor 3/12'
    """
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or "stage" not in record:
        return None
    if record["stage"] == "heartbeat":
        return ""
    return f"{record['stage']} {record.get('done')}/{record.get('of')} {record.get('message') or ''}".strip()


class SOARSSegmentationTest(ScriptedLoadableModuleTest):
    """What can be said inside Slicer without a network, a GPU or installed packages."""

    def runTest(self) -> None:
        slicer.mrmlScene.Clear()
        self.test_refuses_no_volume()
        self.test_understands_progress()

    def test_refuses_no_volume(self) -> None:
        with self.assertRaises(ValueError):
            SOARSSegmentationLogic().segment(None)

    def test_understands_progress(self) -> None:
        self.assertEqual(progressMessage('{"stage": "anchor", "done": 3, "of": 12}'), "anchor 3/12")
        self.assertIsNone(progressMessage("soars: error: no such file"))
