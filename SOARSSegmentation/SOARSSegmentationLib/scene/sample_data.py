"""The synthetic patient in Slicer's Sample Data module: made on this computer, not downloaded."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import slicer

from SOARSSegmentationLib.scene.ct import volume_of_image
from SOARSSegmentationLib.translation import _

CATEGORY = "SOARS Segmentation"
NAME = "SOARS phantom"
SEED = 7


def register(icons: Path) -> None:
    """Add the phantom to Slicer's sample data. To be called when the application has started."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        thumbnailFileName=str(icons / "SOARSSegmentation.png"),
        uris="",  # made by the downloader below
        fileNames="soars-phantom",
        nodeNames=NAME,
        customDownloader=lambda source: [load_phantom()],
    )


def load_phantom(
    seed: int = SEED,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 3.0),
    *,
    through_dicom: bool = True,
) -> Any:
    """Make the synthetic patient of a seed and add its CT to the scene; returns the volume node.

    Where the DICOM database of the application is open, the CT is imported into it as a series, so that an RTSTRUCT
    can refer to it; else, or without ``through_dicom``, it is a volume without DICOM behind it. Takes some seconds.
    """
    from soars.phantom import make_phantom

    slicer.util.showStatusMessage(_("Making the synthetic patient..."), 3000)
    phantom = make_phantom(seed, spacing_mm=spacing_mm)
    database = getattr(slicer, "dicomDatabase", None)
    if through_dicom and database is not None and database.isOpen:
        node = _through_dicom(phantom)
        if node is not None:
            return node
    return volume_of_image(slicer.mrmlScene, phantom.ct, NAME)


def _through_dicom(phantom: Any) -> Any:
    """The CT by way of Slicer's DICOM database; None when it does not come out of it."""
    import pydicom
    from DICOMLib import DICOMUtils

    from soars.phantom import write_phantom_dicom

    with tempfile.TemporaryDirectory(prefix="soars-phantom-", dir=slicer.app.temporaryPath) as folder:
        files = write_phantom_dicom(phantom, Path(folder))
        # From the file: the database knows the copies that it makes, not what they were copied from.
        first = pydicom.dcmread(min(files.iterdir()), specific_tags=["SeriesInstanceUID"])
        series = str(first.SeriesInstanceUID)
        DICOMUtils.importDicom(str(files), copyFiles=True)
    if not slicer.dicomDatabase.filesForSeries(series):
        return None
    nodes = DICOMUtils.loadSeriesByUID([series])
    node = slicer.mrmlScene.GetNodeByID(nodes[0]) if nodes else None
    return node if node is not None and node.IsA("vtkMRMLScalarVolumeNode") else None
