"""Inside Slicer: the packaged core is complete, and loads without the packages that are installed on demand."""

from __future__ import annotations

import unittest


class CoreInSlicerTest(unittest.TestCase):
    def test_core_is_packaged_whole(self) -> None:
        from soars.bundle import list_bundles
        from soars.oars import SOARS42

        self.assertEqual(len(SOARS42), 42)
        self.assertTrue(list_bundles())

    def test_command_line_answers(self) -> None:
        from soars.cli import main

        self.assertEqual(main(["--version"]), 0)
