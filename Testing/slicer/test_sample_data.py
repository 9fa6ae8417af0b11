"""The synthetic patient in Sample Data: through Slicer's DICOM database, or as a volume where that does not work."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer

SPACING_MM = (6.0, 6.0, 6.0)


class Database:
    """Slicer's: it copies what is imported, and knows the copies, not what they were copied from."""

    isOpen = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.series: dict[str, list[str]] = {}

    def filesForSeries(self, uid: str) -> list[str]:
        return self.series.get(uid, [])

    def seriesForFile(self, file: str) -> str:
        return next((uid for uid, files in self.series.items() if file in files), "")


class DICOMUtils(ModuleType):
    """The two functions, as they are written in Slicer."""

    def __init__(self, database: Database, core: Any) -> None:
        super().__init__("DICOMUtils")
        self.database, self.core = database, core

    def importDicom(self, dicomDataDir: str, dicomDatabase: Any = None, copyFiles: bool = False) -> bool:
        assert copyFiles, "the folder is temporary"
        for file in sorted(Path(dicomDataDir).iterdir()):
            copy = shutil.copy(file, self.database.folder)
            uid = str(pydicom.dcmread(copy, stop_before_pixels=True).SeriesInstanceUID)
            self.database.series.setdefault(uid, []).append(str(copy))
        return True

    def loadSeriesByUID(self, seriesUIDs: list[str], messages: Any = None) -> list[str]:
        if not isinstance(seriesUIDs, list) or not seriesUIDs:
            raise ValueError("No series UIDs given")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "loaded")
        node.SetAttribute("DICOM.instanceUIDs", " ".join(self.database.filesForSeries(seriesUIDs[0])))
        return [node.GetID()]


@pytest.fixture
def database(application: Any, core: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    (tmp_path / "database").mkdir()
    database = Database(tmp_path / "database")
    package = ModuleType("DICOMLib")
    package.DICOMUtils = DICOMUtils(database, core)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "DICOMLib", package)
    slicer.dicomDatabase = database  # goes with the application
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda *arguments: None, raising=False)
    return database


def temporary_files() -> list[Path]:
    return list(Path(slicer.app.temporaryPath).iterdir())


def test_the_phantom_comes_through_the_database(database: Database) -> None:
    from SOARSSegmentationLib.scene.sample_data import load_phantom

    node = load_phantom(spacing_mm=SPACING_MM)
    assert node.GetName() == "loaded" and node.GetAttribute("DICOM.instanceUIDs")
    assert len(database.series) == 1 and temporary_files() == []


def test_without_an_entry_in_the_database_it_is_a_volume(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SOARSSegmentationLib.scene.sample_data import load_phantom

    monkeypatch.setattr(database, "filesForSeries", lambda uid: [])
    node = load_phantom(spacing_mm=SPACING_MM)
    assert node.GetName() == "SOARS phantom" and node.GetImageData() is not None
    assert temporary_files() == []
