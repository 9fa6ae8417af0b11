"""The running segmentation: started, polled, cancelled, and its result put into the scene."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer

from soars.progress import Progress
from SOARSSegmentationLib.desktop import waiting
from SOARSSegmentationLib.run import results
from SOARSSegmentationLib.run.process import find_python
from SOARSSegmentationLib.run.runner import POLL_MS, Failure, Runner, RunOptions
from SOARSSegmentationLib.run.stages import Stages
from SOARSSegmentationLib.scene.ct import MR_FILE, ct_file
from SOARSSegmentationLib.scene.grids import grid_of

if TYPE_CHECKING:
    from soars.structures import Geometry


class RunControl:
    """Holds one run at a time, even while another module is shown.

    ``on_progress()`` is called several times a second, ``on_over()`` when a run has ended in whatever way; then, unless
    it was cancelled, ``on_finished(result)`` or ``on_failed(failure)``.
    """

    def __init__(
        self,
        on_progress: Callable[[], None],
        on_over: Callable[[], None],
        on_finished: Callable[[results.Result], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self._on_progress = on_progress
        self._on_over = on_over
        self._on_finished = on_finished
        self._on_failed = on_failed
        self._runner: Runner | None = None
        self.volume: Any = None
        self._grid: Geometry | None = None
        self.stages = Stages(())
        self.timer = qt.QTimer()
        self.timer.interval = POLL_MS
        self.timer.timeout.connect(self._poll)

    @property
    def running(self) -> bool:
        return self._runner is not None and self._runner.running

    def start(
        self, volume_node: Any, options: RunOptions, branches: Iterable[str], mr_node: Any = None
    ) -> None:
        """Segment a CT, and an MR where one is given, with a bundle that has these branches; `SoarsError` when the run
        cannot start."""
        runner = Runner(
            find_python(),
            Path(slicer.app.temporaryPath),
            on_progress=self._progressed,
            on_finished=self._finished,
            on_failed=self._failed,
        )
        with waiting():
            write_mr = None if mr_node is None else lambda folder: ct_file(mr_node, folder, name=MR_FILE)
            runner.start(lambda folder: ct_file(volume_node, folder), options, write_mr)
        self._runner, self.volume, self._grid = runner, volume_node, grid_of(volume_node)
        self.stages = Stages(branches)
        self._on_progress()
        self.timer.start()

    def close(self) -> None:
        """Release the timer, which would keep this object and its owner alive for ever."""
        self.cancel()
        self.timer.stop()
        self.timer.timeout.disconnect(self._poll)

    def cancel(self) -> bool:
        """End the run, if there is one; whether there was."""
        if not self.running or self._runner is None:
            return False
        with waiting():
            self._runner.cancel()
        self._over()
        return True

    def _poll(self) -> None:
        runner = self._runner
        if runner is None:
            return
        runner.poll()
        if runner.running:
            self.stages.tick(runner.elapsed_s)
            self._on_progress()
        else:
            self._over()

    def _progressed(self, progress: Progress) -> None:
        if self._runner is not None:
            self.stages.hear(progress, self._runner.heard_s)

    def _finished(self, folder: Path) -> None:
        with waiting():
            result = results.add_result(slicer.mrmlScene, self.volume, folder, grid=self._grid)
        self._over()
        self._on_finished(result)

    def _failed(self, failure: Failure) -> None:
        self._over()
        self._on_failed(failure)

    def _over(self) -> None:
        if self._runner is None:
            return
        self.timer.stop()
        self._runner = self.volume = None
        self._on_over()
