"""Capturing what ITK and the decoders below it print.

The command line promises one line on standard error. ITK's own warnings can be switched off, but MetaIO, the JPEG
decoders and others write to the process's standard error directly; only taking that file descriptor away keeps it
clean. What they said is kept, since some of them go on with wrong values after a complaint.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk

log = logging.getLogger(__name__)
_lock = threading.RLock()


@contextmanager
def itk_messages() -> Iterator[list[str]]:
    """Collect, for the time of the block, what native code prints on standard error.

    The lines are in the list after the block. What other threads of this process print meanwhile is taken as well, so
    the block should hold one read only.
    """
    said: list[str] = []
    with _lock, tempfile.TemporaryFile() as file:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            saved = os.dup(2)
        except OSError:  # a process without standard error has nothing to keep clean
            saved = -1
        try:
            if saved >= 0:
                os.dup2(file.fileno(), 2)
            yield said
        finally:
            if saved >= 0:
                os.dup2(saved, 2)
                os.close(saved)
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
            file.seek(0)
            said += file.read(10000).decode("utf-8", "replace").splitlines()
            if said:
                log.debug("native code said: %s", " / ".join(said[:20]))
