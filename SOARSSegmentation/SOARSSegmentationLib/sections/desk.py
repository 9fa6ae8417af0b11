"""What the sections of the window share: what is chosen, the scene's nodes, the session; and what has changed of it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from soars.errors import SoarsError
from SOARSSegmentationLib.memory import recall, remember
from SOARSSegmentationLib.panels.parts import Notice, sentence
from SOARSSegmentationLib.protocols import Protocols
from SOARSSegmentationLib.scene.reading import volume_of

if TYPE_CHECKING:
    from SOARSSegmentationLib.sections.section import Section
    from SOARSSegmentationLib.session.editing import EditingSession

REMEMBERED = ("bundle", "device", "protocol", "study", "reader")
"""Parameters that a new scene begins with as they were in the last one."""


class Change(enum.Flag):
    """What has changed. A section is told, and shows again only what depends on it."""

    SCENE = enum.auto()
    """Another scene is in use: anything may be another."""
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
    """An organ's state or voxels, or which one is in hand."""


_CHANGED_BY = {
    "volume": Change.CT,
    "segmentation": Change.CONTOURS,
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
            section.show(change)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What changes in the block is told at its end, once."""
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
        """Take what the scene remembers, or begin anew in one that remembers nothing."""
        node = self._logic.parameterNode()
        new = not node.GetParameter("bundle")
        self.parameters = self._logic.getParameterNode()
        self.session = self.running_session
        if new:
            for name in REMEMBERED:
                setattr(self.parameters, name, recall(name, getattr(self.parameters, name)))

    def put(self, name: str, value: Any) -> None:
        """A choice of the user, by the name of its parameter."""
        if self.parameters is None:
            return
        setattr(self.parameters, name, value)
        if name in REMEMBERED:
            remember(name, value)
        self.tell(_CHANGED_BY[name])

    @property
    def volume(self) -> Any:
        """The CT of the segmentation, or the chosen one."""
        node = self.parameters.segmentation
        return (volume_of(node) if node is not None else None) or self.parameters.volume

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


@contextmanager
def saying(notice: Notice) -> Iterator[None]:
    """What goes wrong in the block is said there, in one sentence."""
    try:
        yield
    except SoarsError as error:
        notice.say("error", sentence(str(error)))
