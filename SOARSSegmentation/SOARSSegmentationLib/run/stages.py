"""How far along a run is, in its user's terms: the stages of ``soars segment`` in the order of the cascade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from soars.progress import Progress

READ, WRITE = "read", "write"
_IN_BETWEEN = ("start", "register", "prepare", "load", "contours", "check")
"""Stages that are shown as part of the one before or after them, the run's own or a source's ("starter/check")."""


@dataclass
class Stage:
    """One line of the progress: ``share`` of it is done (None: not known), and it took ``seconds`` so far."""

    name: str
    state: str = "to_come"
    share: float | None = None
    seconds: float = 0.0


class Stages:
    """The stages of one run; `hear` its progress. States are "to_come", "running" and "done"; none ever goes back.

    A cascade's branches are known before it runs. What other systems do, and each source of a composite, is added when
    it is first heard of, before the last stage.
    """

    def __init__(self, branches: Iterable[str]) -> None:
        """``branches`` are those of the bundle that will run."""
        self.all = [Stage(name) for name in (READ, *branches, WRITE)]
        self._began_s = 0.0
        self._at = -1

    @property
    def current(self) -> Stage | None:
        return self.all[self._at] if 0 <= self._at < len(self.all) else None

    def hear(self, progress: Progress, elapsed_s: float) -> None:
        """``elapsed_s`` is the time since the start of the run."""
        if progress.stage == "done":
            self._go_to(len(self.all), elapsed_s)
            return
        index = self._index_of(progress.stage)
        if index > self._at:
            self._go_to(index, elapsed_s)
        stage = self.current
        if stage is None:
            return
        stage.seconds = max(0.0, elapsed_s - self._began_s)
        if index == self._at and _own(progress.stage) not in _IN_BETWEEN:
            stage.share = progress.done / progress.of if progress.of > 0 else None

    def tick(self, elapsed_s: float) -> None:
        """Time goes on."""
        if self.current is not None:
            self.current.seconds = max(0.0, elapsed_s - self._began_s)

    def _index_of(self, name: str) -> int:
        names = [stage.name for stage in self.all]
        if name in names:
            return names.index(name)
        if name == "check" and self._at > 0:  # there is one at the beginning and one at the end
            return len(names) - 1
        if _own(name) in _IN_BETWEEN or self._at >= len(names) - 1:
            return max(self._at, 0)
        self.all.insert(len(self.all) - 1, Stage(name))
        return len(self.all) - 2

    def _go_to(self, index: int, elapsed_s: float) -> None:
        if self.current is not None:
            self.current.seconds = max(0.0, elapsed_s - self._began_s)
        self._began_s, self._at = elapsed_s, index
        for number, stage in enumerate(self.all):
            if number < index:
                stage.state, stage.share = "done", 1.0
            elif number == index:
                stage.state, stage.share = "running", None


def _own(name: str) -> str:
    """A source's stage without the source's name."""
    return name.rpartition("/")[2]
