"""A frame like Slicer's about the module's panel: its slice views, drawn from the nodes of the scene.

The panel is the module itself on real Qt. The views are not Slicer's: they are the CT's voxels in the window of its
display node, with the outlines and a pale fill of the visible segments, at the planes where the slice nodes are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
from scipy import ndimage
from vtk.util import numpy_support

from SOARSSegmentationLib.scene.grids import grid_of
from SOARSSegmentationLib.scene.label_maps import masks_of

PANEL_WIDTH = 500
FILL = 0.22
SCALE = 2
"""Pictures are drawn larger than the voxels, so that outlines are thin."""
AXES = {"Red": 0, "Green": 1, "Yellow": 2}
"""The axis [z, y, x] that a view looks along; the CT is axis-aligned."""
COLOURS = {"Red": "#f34a33", "Green": "#6eb04b", "Yellow": "#edd54c"}
TITLES = {"Red": "R   Axial", "Green": "G   Coronal", "Yellow": "Y   Sagittal"}


def set_dark(qt: Any, on: bool) -> None:
    """Slicer's dark style, or its light one."""
    palette = qt.QPalette()
    if on:
        for role, colour in (
            (qt.QPalette.Window, "#353535"), (qt.QPalette.WindowText, "#ffffff"), (qt.QPalette.Base, "#252525"),
            (qt.QPalette.AlternateBase, "#2d2d2d"), (qt.QPalette.Text, "#ffffff"), (qt.QPalette.Button, "#353535"),
            (qt.QPalette.ButtonText, "#ffffff"), (qt.QPalette.Highlight, "#2a82da"), (qt.QPalette.Mid, "#555555"),
            (qt.QPalette.HighlightedText, "#ffffff"), (qt.QPalette.ToolTipBase, "#ffffff"),
            (qt.QPalette.PlaceholderText, "#8c8c8c"), (qt.QPalette.Link, "#5aa9f0"),
        ):  # fmt: skip
            palette.setColor(role, qt.QColor(colour))
        for role in (qt.QPalette.Text, qt.QPalette.ButtonText, qt.QPalette.WindowText):
            palette.setColor(qt.QPalette.Disabled, role, qt.QColor("#808080"))
    qt.QApplication.setPalette(palette)


class Frame:
    """The application's main window with views beside the panel; `draw` them again when something has changed."""

    def __init__(self, application: Any, volume: Any, size: tuple[int, int] = (1500, 960)) -> None:
        self.qt = application.qt
        self._application = application
        self._volume = volume
        self.nodes = {name: self._slice_node(name) for name in AXES}
        window, area = application.main_window, application.area
        window.takeCentralWidget()
        window.windowTitle = "3D Slicer"
        centre = self.qt.QWidget()
        row = self.qt.QHBoxLayout(centre)
        row.setContentsMargins(2, 2, 2, 2)
        area.setFixedWidth(PANEL_WIDTH)
        row.addWidget(area)
        self.views = {name: self._view(name) for name in AXES}
        row.addWidget(self.views["Red"][0], 3)
        column = self.qt.QVBoxLayout()
        column.addWidget(self.views["Green"][0], 1)
        column.addWidget(self.views["Yellow"][0], 1)
        row.addLayout(column, 2)
        window.setCentralWidget(centre)
        window.resize(*size)
        self._application.settle(0.05)

    def draw(self, segmentation: Any = None) -> None:
        self._application.settle(0.05)
        for name, (_frame, label, title) in self.views.items():
            picture, place = self._picture(name, segmentation)
            height, width, _channels = picture.shape
            image = self.qt.QImage(
                picture.tobytes(), width, height, 3 * width, self.qt.QImage.Format_RGB888
            ).copy()
            pixmap = self.qt.QPixmap.fromImage(image)
            label.setPixmap(
                pixmap.scaled(label.size, self.qt.Qt.KeepAspectRatio, self.qt.Qt.SmoothTransformation)
            )
            title.text = f"{TITLES[name]}   {place:.1f} mm"
        self._application.settle(0.05)

    def repolish(self) -> None:
        """What took its colours from the palette takes them again."""
        for widget in self._application.main_window.findChildren(self.qt.QWidget):
            if widget.styleSheet:
                widget.styleSheet = widget.styleSheet + " "
        for label in self._application.main_window.findChildren(self.qt.QLabel):
            if "<a " in label.text:
                text, label.text = label.text, ""
                label.text = text

    def save(self, path: Any) -> None:
        assert self._application.main_window.grab().save(str(path))

    # --- inside --------------------------------------------------------------------------------------------------
    def _slice_node(self, name: str) -> Any:
        node = slicer.vtkMRMLSliceNode()
        node.SetName(name)
        node.SetLayoutName(name)
        return slicer.mrmlScene.AddNode(node)

    def _view(self, name: str) -> Any:
        frame = self.qt.QWidget()
        layout = self.qt.QVBoxLayout(frame)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        title = self.qt.QLabel(TITLES[name])
        title.setStyleSheet(
            f"background: {COLOURS[name]}; color: black; padding: 2px 6px; font-weight: bold;"
        )
        label = self.qt.QLabel()
        label.setStyleSheet("background: black;")
        label.setAlignment(self.qt.Qt.AlignCenter)
        label.setSizePolicy(self.qt.QSizePolicy.Ignored, self.qt.QSizePolicy.Ignored)
        layout.addWidget(title)
        layout.addWidget(label, 1)
        return frame, label, title

    def _picture(self, name: str, segmentation: Any) -> tuple[Any, float]:
        """RGB [row, column, channel], and the plane's place in mm (RAS)."""
        axis, grid = AXES[name], grid_of(self._volume)
        to_ras = self.nodes[name].GetSliceToRAS()
        ras = [to_ras.GetElement(row, 3) for row in range(3)]
        index = grid.to_index(np.array([-ras[0], -ras[1], ras[2]]))
        at = int(np.clip(round(float(index[axis])), 0, grid.shape[axis] - 1))
        voxels = numpy_support.vtk_to_numpy(self._volume.GetImageData().GetPointData().GetScalars())
        plane = np.take(voxels.reshape(grid.shape), at, axis=axis).astype(float)
        display = self._volume.GetDisplayNode()
        low = display.GetLevel() - display.GetWindow() / 2
        grey = np.clip((plane - low) / display.GetWindow(), 0, 1)
        spacing = [s for number, s in enumerate(grid.spacing[::-1]) if number != axis]
        zoom = [SCALE * s / min(grid.spacing) for s in spacing]
        rgb = np.repeat(ndimage.zoom(grey, zoom, order=1)[..., None], 3, axis=2)
        if segmentation is not None:
            self._overlay(rgb, segmentation, axis, at, zoom)
        if axis != 0:
            rgb = rgb[::-1]  # superior is up
        return (255 * np.ascontiguousarray(rgb)).astype(np.uint8), ras[(2, 1, 0)[axis]]

    def _overlay(self, rgb: Any, node: Any, axis: int, at: int, zoom: Any) -> None:
        segmentation, display, grid = node.GetSegmentation(), node.GetDisplayNode(), grid_of(self._volume)
        ids = [one for one in segmentation.GetSegmentIDs() if display.GetSegmentVisibility(one)]
        for segment_id, mask in masks_of(segmentation, ids, grid).items():
            if mask.is_empty or not mask.start[axis] <= at < mask.stop[axis]:
                continue
            full = mask.box((0, 0, 0), grid.shape)
            inside = ndimage.zoom(np.take(full, at, axis=axis).astype(float), zoom, order=1) > 0.5
            line = inside & ~ndimage.binary_erosion(inside, iterations=SCALE)
            colour = np.array(segmentation.GetSegment(segment_id).GetColor())
            rgb[inside] = (1 - FILL) * rgb[inside] + FILL * colour
            rgb[line] = colour
