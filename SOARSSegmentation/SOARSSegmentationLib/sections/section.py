"""The base of every section of the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from SOARSSegmentationLib.sections.desk import Change

if TYPE_CHECKING:
    from SOARSSegmentationLib.panels.parts import Notice


class Section:
    """``widget`` is put into the window, with ``stretch`` of its height; ``notice`` shows what went wrong in it; the
    window calls the other methods. A new section overrides what it needs and is added to the list in
    `window.Window`."""

    widget: Any
    notice: Notice
    stretch = 0

    def show(self, change: Change) -> None:
        """Redraw what depends on what has changed."""

    def enter(self) -> None:
        """The module is shown."""

    def leave(self) -> None:
        """Another module is shown; what runs goes on."""

    def scene_closes(self) -> None:
        """Before the nodes go."""

    def node_leaves(self, node: Any) -> None:
        """A node is about to be removed from the scene."""

    def close(self) -> None:
        """The module is unloaded, or the application ends: let go of everything that outlives the widgets."""
