"""A small CT with an RTSTRUCT of two ROIs on it, into which a test puts what some clinic's program writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from soars.ct.series import CtSeries, read_series
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.structures import Geometry, StructureSet

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Clinic:
    """A CT of 6 slices, 16 rows, 20 columns, and an RTSTRUCT with two ROIs on it, to be edited."""

    rtstruct: Path
    geometry: Geometry
    series: CtSeries

    def read(self, **options: bool) -> StructureSet:
        return read_rtstruct(self.rtstruct, self.geometry, self.series, **options)

    def edit(self, edit: Callable[[Dataset], object]) -> Clinic:
        dataset = pydicom.dcmread(self.rtstruct)
        edit(dataset)
        dataset.save_as(self.rtstruct)
        return self

    def draw(self, *contours: Dataset) -> Clinic:
        """These contours, and no others, for the first ROI."""

        def edit(dataset: Dataset) -> None:
            dataset.ROIContourSequence[0].ContourSequence = list(contours)
            dataset.ROIContourSequence[1].pop("ContourSequence", None)  # an organ without contours has none

        return self.edit(edit)

    def contour(self, z: float, *points: tuple[float, float], kind: str = "CLOSED_PLANAR") -> Dataset:
        """A contour through points (x, y) in voxels on slice z."""
        item = Dataset()
        item.ContourGeometricType = kind
        item.NumberOfContourPoints = len(points)
        corners = self.geometry.to_physical([(z, y, x) for x, y in points])
        item.ContourData = [f"{v:.6g}" for v in corners.ravel()]
        return item

    def box(self, z: float, box: Box, kind: str = "CLOSED_PLANAR") -> Dataset:
        """A rectangle x0, y0, x1, y1; halves lie between voxel centres."""
        x0, y0, x1, y1 = box
        return self.contour(z, (x0, y0), (x1, y0), (x1, y1), (x0, y1), kind=kind)


def make_clinic(folder: Path, write_ct: Callable[..., list[Path]]) -> Clinic:
    """The CT in ``folder / "ct"``, and Brainstem and Parotid_L of 24 voxels each."""
    write_ct(folder / "ct")
    image, series, _ = read_series(folder / "ct")
    structures = StructureSet(Geometry.of(image))
    structures.add_crop("Brainstem", (1, 2, 3), np.ones((2, 3, 4), dtype=bool))
    structures.add_crop("Parotid_L", (2, 8, 9), np.ones((2, 3, 4), dtype=bool))
    write_rtstruct(structures, folder / "rt.dcm", series)
    return Clinic(folder / "rt.dcm", structures.geometry, series)
