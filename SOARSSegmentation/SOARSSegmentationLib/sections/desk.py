"""What the sections of the window share: what is chosen, the scene's nodes, the session; and notices of what has
changed."""

from __future__ import annotations

import enum
import functools
import logging
import operator
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import slicer
import vtk

from soars.errors import SoarsError
from SOARSSegmentationLib.memory import recall, remember
from SOARSSegmentationLib.panels.parts import Notice, sentence
from SOARSSegmentationLib.protocols import Protocols
from SOARSSegmentationLib.scene.reading import volume_of
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    from SOARSSegmentationLib.sections.section import Section
    from SOARSSegmentationLib.session.editing import EditingSession

REMEMBERED = ("bundle", "device", "protocol", "study", "reader")
"""Parameters that a new scene takes over from the last one."""


class Change(enum.Flag):
    """What has changed. Each section is told, and redraws only what depends on it."""

    SCENE = enum.auto()
    """Another scene is in use: anything may have changed."""
    ENTERED = enum.auto()
    """The module is shown (again)."""
    CT = enum.auto()
    CONTOURS = enum.auto()
    """Another segmentation, or none."""
    MODEL = enum.auto()
    """The bundle, the device, or the choice of organs."""
    NAMES = enum.auto()
    """Study, case, reader, or where sessions are kept."""
    ARM = enum.auto()
    RUN = enum.auto()
    """A run began or ended."""
    SESSION = enum.auto()
    """A session began, was paused, went on, or ended."""
    ORGANS = enum.auto()
    """An organ's state or voxels, or which one is current."""


_CHANGED_BY = {
    "volume": Change.CT,
    "segmentation": Change.CONTOURS,
    "mr": Change.MODEL,
    "bundle": Change.MODEL,
    "device": Change.MODEL,
    "protocol": Change.MODEL,
    "study": Change.NAMES,
    "case": Change.NAMES,
    "reader": Change.NAMES,
    "arm": Change.ARM,
}


class Desk:
    """``parameters`` is None while no scene is in use. ``session`` is the running one, or the last one of this scene;
    ``running`` says whether a CT is being segmented."""

    def __init__(self, logic: Any) -> None:
        """``logic`` makes parameter nodes."""
        self._logic = logic
        self._sections: list[Section] = []
        self._held: Change | None = None
        self._node: Any = None
        self._tag: int | None = None
        self._seen: dict[str, Any] = {}
        self.parameters: Any = None
        self.session: EditingSession | None = None
        self.running = False
        self.protocols = Protocols(lambda key: recall(key), remember)

    def add(self, section: Section) -> None:
        """From now on the section is told what changes."""
        self._sections.append(section)

    def tell(self, change: Change) -> None:
        if self.parameters is None:
            return
        if self._held is not None:
            self._held |= change
            return
        for section in self._sections:
            with saying(section.notice):
                section.show(change)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Changes made in the block are reported once, at its end."""
        if self._held is not None:
            yield
            return
        self._held = Change(0)
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                self.tell(held)

    def use_scene(self) -> None:
        """Take over what the scene remembers, or start afresh in one that remembers nothing."""
        self.leave_scene()
        node = self._logic.parameterNode()
        new = not node.GetParameter("bundle")
        self.session = self.running_session
        parameters = self._logic.getParameterNode()
        if new:
            for name in REMEMBERED:
                setattr(parameters, name, recall(name, getattr(parameters, name)))
        if self.session is not None:
            # A scene was added to the one that is read: its parameters are there in place of the session's.
            node_read = self.session.segmentation_node
            parameters.segmentation = node_read
            parameters.volume = volume_of(node_read) or parameters.volume
            parameters.session_folder = str(self.session.folder)
        if parameters.volume is None:
            parameters.volume = _only_volume()
        self.parameters = parameters
        self._seen = self._values()
        self._node, self._tag = node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._modified)

    def leave_scene(self) -> None:
        """The scene closes, or the window does."""
        if self._node is not None and self._tag is not None:
            self._node.RemoveObserver(self._tag)
        self._node = self._tag = self.parameters = None

    def choose_only_volume(self) -> None:
        """Where none is chosen and there is only one volume, that one is the CT."""
        if self.parameters.volume is None:
            self.put("volume", _only_volume())

    def put(self, name: str, value: Any) -> None:
        """A choice of the user, by the name of its parameter."""
        if self.parameters is None:
            return
        if name in REMEMBERED:
            remember(name, value)
        setattr(self.parameters, name, value)
        self._modified()

    def _modified(self, *_arguments: Any) -> None:
        """The scene's parameters were set, by the window or by somebody else."""
        if self.parameters is None:
            return
        before, self._seen = self._seen, self._values()
        changes = [
            _CHANGED_BY[name]
            for name, value in self._seen.items()
            if value is not before.get(name) and value != before.get(name)
        ]
        if changes:
            self.tell(functools.reduce(operator.or_, changes))

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self.parameters, name) for name in _CHANGED_BY}

    @property
    def volume(self) -> Any:
        """The CT of the segmentation, or the chosen one."""
        node = self.parameters.segmentation
        return (volume_of(node) if node is not None else None) or self.parameters.volume

    @property
    def chosen_volume(self) -> Any:
        """The chosen CT, also where contours of another one are selected; without a choice, that of the contours."""
        return self.parameters.volume or self.volume

    @property
    def running_session(self) -> EditingSession | None:
        return self.session if self.session is not None and self.session.running else None

    @contextmanager
    def busy(self, why: str) -> Iterator[None]:
        """The reader waits for the application: noted in the log when a session runs."""
        session = self.running_session
        if session is None:
            yield
            return
        with session.recorder.busy(why):
            yield


def _only_volume() -> Any:
    """The scene's only scalar volume; None where there is none, or a choice."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene)
    shown = [
        v for v in volumes if v.GetClassName() == "vtkMRMLScalarVolumeNode" and not v.GetHideFromEditors()
    ]
    return shown[0] if len(shown) == 1 else None


@contextmanager
def saying(notice: Notice) -> Iterator[None]:
    """Whatever goes wrong in the block is reported there: a `SoarsError` as its sentence, any other exception as a
    fault of ours, with its traceback in the details and in the application's log."""
    try:
        yield
    except SoarsError as error:
        notice.say("error", sentence(str(error)))
    except Exception as error:
        logging.exception("SOARS Segmentation")
        text = _("A fault of SOARS Segmentation: {error}. What you did may not have been done.")
        details = traceback.format_exc()
        text = text.format(error=f"{type(error).__name__}: {error}".rstrip("."))
        notice.say("error", text, details=details, report=details)
