"""The chosen model made ready: what it lacks on this computer, installing and downloading it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer

from soars.bundle.manifest import CASCADE
from soars.errors import InputError
from soars.progress import Progress
from SOARSSegmentationLib.panels.get_dialog import GetDialog
from SOARSSegmentationLib.panels.parts import Notice, sentence
from SOARSSegmentationLib.run import dependencies, models
from SOARSSegmentationLib.run.command import Command
from SOARSSegmentationLib.sections.desk import saying
from SOARSSegmentationLib.translation import _

if TYPE_CHECKING:
    from soars.bundle.store import Bundle


class ModelReadiness:
    """``on_change()`` is called when more is known of a model, or a download began, went on or ended."""

    def __init__(self, notice: Notice, on_change: Callable[[], None]) -> None:
        self._notice = notice
        self._on_change = on_change
        self._look = Command()
        self._get = Command()
        self._states: dict[str, models.State] = {}
        self._declined: set[str] = set()
        self.progress: Progress | None = None

    @property
    def downloading(self) -> bool:
        return self._get.running

    def state(self, bundle: Bundle) -> models.State | None:
        """What is known of a bundle; a cascade's is always ready. None: not known (yet)."""
        if bundle.system == CASCADE:
            return models.State(bundle.organs, {}, ())
        return self._states.get(bundle.folder.name)

    def look(self, bundle: Bundle) -> None:
        """Find out what a bundle lacks, in a child process: its packages are heavy."""
        if bundle.system == CASCADE or bundle.folder.name in self._states:
            return

        def done(lines: list[str]) -> None:
            with saying(self._notice):
                self._states[bundle.folder.name] = models.read_state(lines)
            self._on_change()

        def failed(message: str) -> None:
            self._notice.say("warning", sentence(message))

        words = ["bundle", "needs", _place(bundle), "--json"]
        self._look.start(words, _("the look at the model"), on_done=done, on_failed=failed)

    def forget(self) -> None:
        """Something was installed or downloaded."""
        self._states.clear()

    def install(self, bundle: Bundle, device: str, gpu: dependencies.Gpu | None) -> None:
        """Ask for every package that the bundle needs; those of single sources may be declined, once.

        `InputError` when the user declines what nothing runs without, or it cannot be installed.
        """
        lacking = models.packages_missing(bundle, device, gpu)
        dependencies.ask_and_install(lacking.needed)
        if lacking.needed:
            self.forget()
            lacking = models.packages_missing(bundle, device, gpu)  # a plan says more once it can be read
        if lacking.optional and bundle.name not in self._declined:
            text, details = dependencies.question(lacking.optional)
            text += " " + _("Without them, organs of some sources are left out.")
            if slicer.util.confirmOkCancelDisplay(text, dependencies.REQUESTER, detailedText=details):
                dependencies.ask_and_install(lacking.optional, ask=lambda _text, _details: True)
                self.forget()
            else:
                self._declined.add(bundle.name)

    def get(self, bundle: Bundle, device: str, gpu: dependencies.Gpu | None) -> None:
        """Ask for the packages, then what would be downloaded; show it, and download it after a yes."""
        if self.downloading:
            return
        self._declined.discard(bundle.name)
        self.install(bundle, device, gpu)
        if bundle.name in self._declined:
            return

        def done(lines: list[str]) -> None:
            with saying(self._notice):
                self._offer(bundle, models.read_state(lines))

        def failed(message: str) -> None:
            self._notice.say("error", sentence(message))

        self._notice.say("note", _("Asking how large the models are..."))
        words = ["bundle", "needs", _place(bundle), "--json", "--sizes"]
        self._look.start(words, _("the look at the model"), on_done=done, on_failed=failed)

    def _offer(self, bundle: Bundle, state: models.State) -> None:
        self._notice.clear()
        if not state.downloads:
            raise InputError("there is nothing to download: see what is missing below the model")
        dialog = GetDialog(bundle.name, state.downloads, slicer.util.mainWindow())
        if not dialog.open():
            self._notice.say("note", _("Nothing was downloaded."))
            return
        words = ["bundle", "get", _place(bundle), "--yes", "--progress", "json"]
        if dialog.number:
            words += ["--licence-number", dialog.number]
        self._get.start(
            words,
            _("the download"),
            on_done=lambda lines: self._got(lines),
            on_failed=self._not_got,
            on_progress=self._went_on,
        )
        self._went_on(Progress("download", 0, len(state.downloads)))
        self._on_change()

    def _went_on(self, progress: Progress) -> None:
        self.progress = progress
        text = _("Downloading: {done} of {number}").format(done=progress.done, number=progress.of)
        if progress.message:
            text += f" ({progress.message})"
        self._notice.say("note", text, action=(_("Cancel"), self.cancel))

    def _got(self, lines: list[str]) -> None:
        self.forget()
        self._notice.say("done", sentence(lines[-1] if lines else _("Downloaded.")))
        self._on_change()

    def _not_got(self, message: str) -> None:
        self.forget()
        self._notice.say("error", sentence(message))
        self._on_change()

    def cancel(self) -> None:
        """End the download; what is complete stays."""
        if self._get.cancel():
            self.forget()
            self._notice.say("note", _("Cancelled. What was downloaded completely is kept."))
            self._on_change()

    def close(self) -> None:
        self._look.close()
        self._get.close()


def _place(bundle: Bundle) -> str:
    return str(bundle.folder)
