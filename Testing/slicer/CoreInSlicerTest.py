"""Inside Slicer: the package is complete, and what the application has to offer to the module is there."""

from __future__ import annotations

import unittest


class CoreInSlicerTest(unittest.TestCase):
    def test_core_is_packaged_whole(self) -> None:
        from soars.bundle.store import list_bundles
        from soars.catalogue import SOARS42

        self.assertEqual(len(SOARS42), 42)
        self.assertTrue(list_bundles())

    def test_command_line_answers(self) -> None:
        from soars.cli import main

        self.assertEqual(main(["--version"]), 0)

    def test_the_python_of_the_child_process_is_found(self) -> None:
        from SOARSSegmentationLib.run.process import find_python

        self.assertIn("PythonSlicer", find_python())

    def test_the_device_is_said_without_importing_torch(self) -> None:
        from SOARSSegmentationLib.run.dependencies import device_sentence, find_gpu

        self.assertTrue(device_sentence("auto", find_gpu()))

    def test_the_terminology_is_loaded(self) -> None:
        import slicer
        import vtk

        names = vtk.vtkStringArray()
        slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
        loaded = [names.GetValue(index) for index in range(names.GetNumberOfValues())]
        self.assertTrue(any("SOARS" in name for name in loaded), loaded)
