"""The pictures of the module in README: a run on the synthetic patient, and its review, in a frame like Slicer's.

    PYTHONPATH=SOARSSegmentation:Testing/helpers python Testing/slicer/screenshots.py [--output Resources/Screenshots]

Everything in the panel is the module at work: the child process segments the patient with the bundle "phantom", and
what the table shows is what it found. The slice views are drawn by `slicer_frame`, outside of the application.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import slicer
from mrml_core import boot
from python_slicer import real_child
from slicer_frame import Frame, set_dark
from slicer_hand import paint
from slicer_standins import running_application

ROOT = Path(__file__).resolve().parents[2]
SEED = 11
SPACING_MM = (2.0, 2.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "Resources" / "Screenshots")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    core = boot()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PATH"] = f"{real_child(Path(folder) / 'bin')}{os.pathsep}{os.environ['PATH']}"
        application_folder = Path(folder) / "application"
        application_folder.mkdir()
        with running_application(core, application_folder) as application:
            take(application, output)
    core.close()


def take(application: Any, output: Path) -> None:
    from SOARSSegmentationLib.scene import sample_data

    module = application.load(ROOT / "SOARSSegmentation" / "SOARSSegmentation.py")
    slicer.util.showStatusMessage = lambda *arguments: None
    ct = sample_data.load_phantom(SEED, SPACING_MM, through_dicom=False)
    window = application.show(module).window
    frame = Frame(application, ct)
    from SOARSSegmentationLib import memory
    from SOARSSegmentationLib.views.slices import centre_views

    memory.remember("SessionRoot", "~/Documents/SOARS sessions")
    window.desk.tell(window_change())
    centre_views(ct, (0.0, 10.0, 0.0))
    window.desk.put("bundle", "phantom")
    window.desk.put("device", "cpu")
    window.propose.apply()
    wait(application, lambda: stages_at(window) in ("mid_level", "detection", "small_hard", None))
    for dark in (True, False):
        shoot(application, frame, None, output / f"slicer-running{'-dark' if dark else ''}.png", dark)
    wait(application, lambda: not window.desk.running)
    assert window.desk.parameters.segmentation is not None, window.propose.notice.text
    review(application, window, frame, output)


def review(application: Any, window: Any, frame: Frame, output: Path) -> None:
    node, folder = window.desk.parameters.segmentation, application.folder / "sessions"
    window.timing.session_root = lambda: folder
    for name, value in (("study", "pilot"), ("case", "phantom-11"), ("reader", "R1")):
        window.desk.put(name, value)
    window.timing.start()
    assert window.timing.control.running, window.timing.notice.text
    for organ in ("Brainstem", "Cerebellum", "Eye_L"):
        window.review.select(organ)
        application.settle(1.2)
        window.review.accept()
    window.review.select("Parotid_L")
    editor = window.editor
    paint(editor.editor.hand, editor.node, (slice(60, 63), slice(60, 66), slice(60, 66)))
    application.settle(1.2)
    window.review.accept()
    window.review.panel.table.sort(True)
    window.review.next_finding()
    window.editor.widget.collapsed = True
    for dark in (True, False):
        shoot(application, frame, node, output / f"slicer-review{'-dark' if dark else ''}.png", dark)
    window.timing.control.finish()


def window_change() -> Any:
    from SOARSSegmentationLib.sections.desk import Change

    return Change.NAMES


def stages_at(window: Any) -> str | None:
    current = window.propose.run.stages.current
    return current.name if current is not None else ("" if window.desk.running else None)


def wait(application: Any, condition: Any) -> None:
    while not condition():
        application.settle(0.02)


def shoot(application: Any, frame: Frame, segmentation: Any, path: Path, dark: bool) -> None:
    set_dark(application.qt, dark)
    frame.repolish()
    frame.draw(segmentation)
    frame.save(path)


if __name__ == "__main__":
    main()
