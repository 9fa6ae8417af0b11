"""Slicer's application in a few hundred lines, for running a scripted module on the real MRML core and the real Qt.

Real: Qt (PySide6), VTK, MRML, the segmentation and segment editor logics (slicer-core). Stand-ins: everything that
needs the application, in `true_qt`, `modules`, `widgets` and here. Production code knows nothing of them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
from mrml_core import Core

from slicer_standins import modules, true_qt, widgets

PANEL_WIDTH = 480
_qt: list[Any] = []


class Application:
    """A booted core with a main window, a module panel in it, and ``slicer.app``."""

    def __init__(self, core: Core, folder: Path) -> None:
        self.core = core
        self.folder = folder
        self.qt = _the_qt(folder)
        self.main_window = self.qt.QMainWindow()
        self.main_window.objectName = "qSlicerMainWindow"
        self.area = self.qt.QScrollArea()
        self.area.widgetResizable = True
        self.area.setFrameShape(self.qt.QFrame.NoFrame)
        self.panel = widgets.qMRMLWidget()
        self.qt.QVBoxLayout(self.panel)
        self.area.setWidget(self.panel)
        self.main_window.setCentralWidget(self.area)
        self.main_window.resize(PANEL_WIDTH, 1000)
        self.widget: Any = None

    def attributes(self) -> dict[str, Any]:
        """What ``slicer`` has only in the application."""
        application = self.qt.QApplication.instance()
        here = SimpleNamespace(
            temporaryPath=str(self.folder / "temporary"),
            slicerHome=str(self.folder),
            applicationVersion="5.11.0-stand-in",
            moduleManager=lambda: SimpleNamespace(connect=lambda *a: None),
            layoutManager=lambda: None,
            commandOptions=lambda: SimpleNamespace(noMainWindow=False),
            testingEnabled=lambda: True,
            userSettings=self.qt.QSettings,
            settings=self.qt.QSettings,
            applicationLogic=lambda: self.core.application,
            connect=lambda *arguments: None,
            startupEnvironment=self.qt.QProcessEnvironment.systemEnvironment,
        )
        for name in (
            *(
                "topLevelWidgets",
                "processEvents",
                "clipboard",
                "activeWindow",
                "aboutToQuit",
                "installEventFilter",
            ),
            *("removeEventFilter", "focusWindowChanged", "setOverrideCursor", "restoreOverrideCursor"),
        ):
            setattr(here, name, getattr(application, name))
        return {"app": here, **{kind.__name__: kind for kind in widgets.SLICER_WIDGETS}}

    def load(self, path: Path) -> ModuleType:
        """A scripted module's file, as Slicer loads it."""
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module

    def show(self, module: ModuleType, height: int = 1000) -> Any:
        """Open the module: its widget in the panel, set up and entered."""
        name = module.__name__
        parent = SimpleNamespace(path=module.__file__)
        self.module = getattr(module, name)(parent)
        self.widget = getattr(module, f"{name}Widget")(self.panel)
        self.widget.setup()
        self.main_window.resize(PANEL_WIDTH, height)
        self.main_window.show()
        self.main_window.activateWindow()
        self.widget.enter()
        self.settle()
        return self.widget

    def settle(self, seconds: float = 0.0) -> None:
        """Let Qt do what waits, and go on for a while."""
        from time import monotonic, sleep

        application = self.qt.QApplication.instance()
        until = monotonic() + seconds
        application.processEvents()
        while monotonic() < until:
            sleep(0.01)
            application.processEvents()

    def close(self) -> None:
        if self.widget is not None:
            self.widget.exit()
            self.widget.cleanup()
            self.widget = None
        for box in self.panel.findChildren(widgets.qMRMLNodeComboBox):
            box.setMRMLScene(None)
        self.main_window.close()
        self.main_window.deleteLater()
        self.settle()
        # Without an event loop nobody deletes what asked for it: the keys of this window would be the next one's too.
        self.qt.QCoreApplication.sendPostedEvents(None, self.qt.QEvent.DeferredDelete)


@contextmanager
def running_application(core: Core, folder: Path) -> Iterator[Application]:
    """``slicer.app`` and all that, for a block; afterwards ``slicer`` is the bare core again."""
    application = Application(core, folder)
    (folder / "temporary").mkdir()
    before = dict(slicer.__dict__)
    for name, value in application.attributes().items():
        setattr(slicer, name, value)
    added = modules.make_modules()
    for name, module in added.items():
        sys.modules[name] = module
        setattr(slicer, name.rsplit(".", 1)[-1], module)
    try:
        yield application
    finally:
        application.close()
        for name in set(slicer.__dict__) - set(before):
            delattr(slicer, name)
        for name in added:
            del sys.modules[name]
        sys.modules.pop("SOARSSegmentation", None)


def _the_qt(folder: Path) -> Any:
    """The ``qt`` and ``ctk`` modules and the one QApplication that a process may have; settings go into ``folder``."""
    if not _qt:
        _qt.append(true_qt.make_qt())
        sys.modules["qt"], sys.modules["ctk"] = _qt[0], widgets.make_ctk()
        _qt.append(_qt[0].QApplication(["Slicer"]))
        _qt[1].setStyle("Fusion")
        _qt[1].organizationName, _qt[1].applicationName = "NA-MIC", "Slicer"
    qt = _qt[0]
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, str(folder))
    return qt
