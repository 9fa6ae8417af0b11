"""The scripted module: organs at risk proposed on a planning CT, reviewed with a clock, and exported.

It is deliberately thin: the window is in `SOARSSegmentationLib.window`, and the segmentation is the command line
(``python -m soars.cli segment``) in a child process, the same one that runs outside Slicer.
"""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

MODULE_FOLDER = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 10)
OLDEST_PYDICOM = 3
"""What Slicer 5.12 brings: 5.10 has pydicom 2, 5.8 Python 3.9. Whatever needs them is imported where it is used, so
that an older Slicer can say what it lacks; a package that Slicer brings is never replaced."""


def why_not_here() -> str:
    """Why this Slicer cannot run the module, in a sentence; "" when it can."""
    python = sys.version_info[:2]
    pydicom = importlib.metadata.version("pydicom")
    if python >= OLDEST_PYTHON and int(pydicom.partition(".")[0]) >= OLDEST_PYDICOM:
        return ""
    return _(
        "SOARS Segmentation needs Slicer 5.12 or newer: this one brings Python {python} and pydicom {pydicom}."
    ).format(python=".".join(map(str, python)), pydicom=pydicom)


class SOARSSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SOARS Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "SubjectHierarchy", "Terminologies"]
        parent.contributors = ["The SOARSSegmentation contributors"]
        parent.helpText = _(
            "Proposes up to 42 organs at risk on a head-and-neck planning CT as editable segments, records how long "
            "their review took and how much changed, and exports them as RTSTRUCT. "
            "<b>For research use only: not a medical device.</b> Have every contour checked and corrected by a "
            "qualified person before it is used for anything."
            "<p>1. Choose a CT and a model, press <i>Apply</i>. 2. Name the case and the reader, start a session. "
            "3. Click an organ, correct it in the segment editor, accept it. 4. Finish, and export.</p>"
            "<p>Keys: next organ Ctrl+Down, previous Ctrl+Up, next finding Ctrl+Right, accept Ctrl+Return, pause "
            "Ctrl+P, and those of the Segment Editor.</p>"
        )
        parent.acknowledgementText = _(
            "An independent implementation of SOARS: Guo et al., CVPR 2020, doi:10.1109/CVPR42600.2020.00428, and "
            "Ye et al., Nature Communications 13:6137, 2022, doi:10.1038/s41467-022-33178-z. Please cite them."
        )
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)

    def onStartupCompleted(self) -> None:
        """Registers what other modules provide a place for (sample data, terminology, the layout); the module works
        without any of it."""
        if why_not_here():
            return
        for step in (self.registerSampleData, self.loadTerminology, self.registerLayout):
            try:
                step()
            except Exception:  # a failure of one must not keep the others, or Slicer, from starting
                logging.exception("SOARS Segmentation: %s failed", step.__name__)

    def registerSampleData(self) -> None:
        from SOARSSegmentationLib.scene import sample_data

        if hasattr(slicer.modules, "sampledata"):
            sample_data.register(MODULE_FOLDER / "Resources" / "Icons")

    def loadTerminology(self) -> None:
        from SOARSSegmentationLib.scene import terminology

        if hasattr(slicer.modules, "terminologies"):
            terminology.load_terminology(slicer.modules.terminologies.logic())

    def registerLayout(self) -> None:
        """A scene that was saved with the layout may be opened before the module is."""
        from SOARSSegmentationLib.views.layout import register_layout

        register_layout()


class SOARSSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel: passes what happens to the application and the scene on to the window."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.window = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        reason = why_not_here()
        if reason:
            label = qt.QLabel()
            label.setTextFormat(qt.Qt.PlainText)
            label.text = reason
            label.wordWrap = True
            self.layout.addWidget(label)
            self.layout.addStretch(1)
            return
        from SOARSSegmentationLib.window import Window

        self.logic = SOARSSegmentationLogic()
        self.window = Window(self.layout, self.logic)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEnd)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEnd)
        # After those of the widgets in the window, which follow the scene at that event.
        self.addObserver(scene, scene.EndBatchProcessEvent, self.onSceneEndBatch)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)

    def enter(self) -> None:
        if self.window is not None:
            self.window.enter()

    def exit(self) -> None:
        if self.window is not None:
            self.window.leave()

    def cleanup(self) -> None:
        self.removeObservers()
        if self.window is not None:
            self.window.close()
            self.window = None

    def onSceneStartClose(self, caller, event) -> None:
        self.window.scene_closes()

    def onSceneEnd(self, caller, event) -> None:
        """A scene was closed, or another one opened."""
        self.window.use_scene()

    def onSceneEndBatch(self, caller, event) -> None:
        self.window.scene_settles()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        self.window.node_leaves(node)


class SOARSSegmentationLogic(ScriptedLoadableModuleLogic):
    """From a volume node to a segmentation node, through the command line.

    Used by the window, and by scripts::

        segmentationNode = SOARSSegmentationLogic().segment(volumeNode)
    """

    def parameterNode(self):
        """The module's ``vtkMRMLScriptedModuleNode``."""
        return ScriptedLoadableModuleLogic.getParameterNode(self)

    def getParameterNode(self):
        """The parameter node with typed attributes (`SOARSSegmentationLib.parameters.Parameters`)."""
        from SOARSSegmentationLib.parameters import Parameters

        return Parameters(self.parameterNode())

    def segment(
        self,
        volumeNode,
        bundle: str = "starter",
        device: str = "auto",
        organs: tuple[str, ...] | None = None,
        onProgress: Callable[[str], None] | None = None,
    ):
        """Segment `volumeNode` (vtkMRMLScalarVolumeNode, HU), wait for it, and return a new vtkMRMLSegmentationNode.

        `bundle` is a name or a path, `device` "auto", "cpu" or "cuda", `organs` catalogue names or None for all.
        `onProgress` is called with a sentence from time to time. Raises `soars.errors.SoarsError` with one sentence
        when it fails, or when Python packages are missing (the window asks for them); the scene is then as it was.
        """
        from soars.errors import SoarsError
        from SOARSSegmentationLib.run import dependencies, results
        from SOARSSegmentationLib.run.process import find_python
        from SOARSSegmentationLib.run.runner import Runner, RunOptions
        from SOARSSegmentationLib.scene.ct import check_volume, ct_file
        from SOARSSegmentationLib.scene.grids import grid_of

        check_volume(volumeNode)
        missing = dependencies.missing(device, dependencies.find_gpu())
        if missing:
            names = ", ".join(one.specifier for one in missing)
            raise SoarsError(f"Python packages are missing ({names}): press Apply in the module once")
        made, failures, grid = [], [], grid_of(volumeNode)
        runner = Runner(
            find_python(),
            Path(slicer.app.temporaryPath),
            on_progress=lambda progress: (
                onProgress(f"{progress.stage} {progress.done}/{progress.of}")
                if onProgress is not None
                else None
            ),
            on_finished=lambda folder: made.append(
                results.add_result(slicer.mrmlScene, volumeNode, folder, grid=grid)
            ),
            on_failed=failures.append,
        )
        runner.start(lambda folder: ct_file(volumeNode, folder), RunOptions(bundle, device, organs))
        try:
            while runner.running:
                runner.poll()
                slicer.app.processEvents()
                time.sleep(0.02)
        finally:
            runner.cancel()
        if failures:
            raise SoarsError(failures[0].message)
        return made[0].segmentation_node


class SOARSSegmentationTest(ScriptedLoadableModuleTest):
    """What runs in the application itself: see Testing/slicer/README.md.

    It needs the bundle "phantom" and the Python packages of Apply; where they are missing, as on machines that build
    extensions, it is skipped and says why. It installs nothing and writes only into a temporary folder.
    """

    BUNDLE = "phantom"
    ORGAN = "Brainstem"

    def setUp(self) -> None:
        reason = self.whyNot()
        if reason:
            self.skipTest(reason)
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """What *Reload and Test* does."""
        try:
            for test in (self.test_logic, self.test_window):
                self.setUp()
                test()
        except unittest.SkipTest as skipped:
            self.delayDisplay(str(skipped))
        slicer.mrmlScene.Clear()

    def whyNot(self) -> str:
        reason = why_not_here()
        if reason:
            return reason
        from SOARSSegmentationLib.run import dependencies

        missing = ", ".join(one.specifier for one in dependencies.missing("cpu"))
        return f"Python packages are missing ({missing}): press Apply in the module once" if missing else ""

    def makeCT(self):
        """The synthetic patient on coarse voxels."""
        from SOARSSegmentationLib.scene import sample_data

        self.delayDisplay("Making a synthetic patient")
        return sample_data.load_phantom(spacing_mm=(3.0, 3.0, 3.0), through_dicom=False)

    def test_logic(self) -> None:
        """A CT becomes a segmentation by the command line in a child process."""
        from SOARSSegmentationLib.scene.reading import organ_mask, volume_of
        from SOARSSegmentationLib.scene.segments import segment_ids, tag_of

        ct = self.makeCT()
        node = SOARSSegmentationLogic().segment(ct, self.BUNDLE, "cpu", (self.ORGAN,))
        self.assertIs(volume_of(node), ct)
        segment_id = segment_ids(node)[self.ORGAN]
        segment = node.GetSegmentation().GetSegment(segment_id)
        self.assertIn("~", tag_of(segment, segment.GetTerminologyEntryTagName()))
        self.assertGreater(organ_mask(node, segment_id, ct).voxels, 0)

    def test_window(self) -> None:
        """Choose, apply, edit, undo, accept, finish and export, by the calls that the buttons make."""
        import tempfile

        with tempfile.TemporaryDirectory(dir=slicer.app.temporaryPath) as folder:
            self.review(Path(folder))

    def review(self, folder: Path) -> None:
        from soars.effort.log import PROPOSAL_FILE, read_log, session_logs
        from soars.formats.segnrrd import read_seg_nrrd
        from SOARSSegmentationLib.export.seg_nrrd import export_seg_nrrd
        from SOARSSegmentationLib.export.session_log import export_log

        ct = self.makeCT()
        window = slicer.util.getModuleWidget("SOARSSegmentation").window
        window.enter()
        window.propose.panel.volume.setCurrentNode(ct)
        window.propose.panel.bundle.currentIndex = window.propose.panel.bundle.findData(self.BUNDLE)
        self.assertIs(window.desk.parameters.volume, ct)
        self.assertTrue(window.propose.panel.apply.enabled, window.propose.panel.apply.toolTip)

        self.delayDisplay("Segmenting it")
        window.propose.apply()
        while window.desk.running:
            slicer.app.processEvents()
            time.sleep(0.02)
        node = window.desk.parameters.segmentation
        self.assertIsNotNone(node, window.propose.panel.notice.text)

        self.delayDisplay("Reviewing it")
        for name, value in (
            ("study", "self-test"),
            ("case", "phantom"),
            ("reader", "nobody"),
            ("arm", "revise"),
        ):
            setattr(window.desk.parameters, name, value)
        window.timing.session_root = lambda: folder / "sessions"
        try:
            window.timing.start()
        finally:
            del window.timing.session_root
        session = window.timing.control.session
        self.assertTrue(window.timing.control.running, window.timing.panel.notice.text)
        try:
            window.review.select(self.ORGAN)
            self.assertEqual(session.organ, self.ORGAN)
            window.editor.save_for_undo()
            self.takeTopSliceAway(node, ct)
            window.editor.editor.undo()
            self.settle()
            window.review.accept()
            self.assertEqual(session.changes()[self.ORGAN].voxels_removed, 0)
            window.review.select(self.ORGAN)
            removed = self.takeTopSliceAway(node, ct)
            self.settle()
            window.review.accept()
            self.assertEqual(session.states()[self.ORGAN], "accepted")
            self.assertEqual(session.changes()[self.ORGAN].voxels_removed, removed)
        finally:
            window.timing.control.finish()
        log = read_log(session_logs(session.folder)[-1])
        self.assertTrue(log.complete)
        kinds = [event.kind for event in log.events]
        self.assertEqual((kinds.count("undo"), kinds.count("accept")), (1, 2))

        self.delayDisplay("Exporting it")
        path = export_seg_nrrd(node, folder / "organs.seg.nrrd").path
        before = read_seg_nrrd(session.folder / PROPOSAL_FILE).voxels(self.ORGAN)
        self.assertEqual(read_seg_nrrd(path).voxels(self.ORGAN), before - removed)
        export_log(session.folder, folder / "log")
        self.assertTrue(session_logs(folder / "log"))

    def takeTopSliceAway(self, node, ct) -> int:
        """From the organ, by the call that the editor's effects end in; returns the number of its voxels."""
        from soars.structures import tight_mask
        from SOARSSegmentationLib.scene.grids import grid_of
        from SOARSSegmentationLib.scene.label_maps import label_map_of
        from SOARSSegmentationLib.scene.reading import organ_mask
        from SOARSSegmentationLib.scene.segments import segment_ids

        segment_id = segment_ids(node)[self.ORGAN]
        mask = organ_mask(node, segment_id, ct)
        rest = tight_mask(mask.array[:-1], mask.start)
        image = label_map_of(grid_of(ct), rest)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        self.assertTrue(logic.SetBinaryLabelmapToSegment(image, node, segment_id, logic.MODE_REPLACE))
        return mask.voxels - rest.voxels

    def settle(self) -> None:
        """Let the session hear what the editor did."""
        for _number in range(20):
            slicer.app.processEvents()
            time.sleep(0.02)
