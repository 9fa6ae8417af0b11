"""The processor time of a click in the window, with 42 organs at 512 x 512 x 200, outside of the application.

    PYTHONPATH=SOARSSegmentation:Testing/helpers python Testing/benchmarks/clicks.py [--json FILE]

The goal is 50 ms a click that changes nothing. Ends with exit code 1 when the median of any such click takes longer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrml_core import boot
from slicer_hand import paint
from slicer_standins import running_application
from structures_memory import SHAPE, make_organs

from soars.structures import Geometry
from soars.structures.naming import use_catalogue_names
from SOARSSegmentationLib.scene.building import add_segmentation
from SOARSSegmentationLib.scene.proposal import keep_proposal

ROOT = Path(__file__).resolve().parents[2]
GOAL_MS = 50.0
REPEATS = 7


def milliseconds(
    act: Callable[[int], object],
    repeats: int = REPEATS,
    before: Callable[[int], object] = lambda number: None,
) -> float:
    """The median of some calls, each with its number: processor time, as an idle machine would take."""
    taken = []
    for number in range(repeats):
        before(number)
        start = time.process_time()
        act(number)
        taken.append(1000 * (time.process_time() - start))
    return statistics.median(taken)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers there")
    arguments = parser.parse_args()
    grid = Geometry((SHAPE[2], SHAPE[1], SHAPE[0]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    structures = make_organs(grid).cropped((100, 0, 0), (200, SHAPE[1], SHAPE[2]))
    use_catalogue_names(structures)
    core = boot()
    with tempfile.TemporaryDirectory() as folder, running_application(core, Path(folder)) as application:
        volume = core.add_ct(structures.geometry)
        node = add_segmentation(core.scene, volume, structures, "organs")
        keep_proposal(node, volume_node=volume)
        module = application.load(ROOT / "SOARSSegmentation" / "SOARSSegmentation.py")
        window = application.show(module).window
        from SOARSSegmentationLib import memory

        memory.remember("SessionRoot", folder)
        for name, value in (("study", "s"), ("case", "c"), ("reader", "r"), ("segmentation", node)):
            window.desk.put(name, value)
        window.timing.start()
        assert window.timing.control.running, window.timing.notice.text
        organs = list(window.review.panel.table.shown)[:REPEATS]
        clicks = {
            "another organ": milliseconds(lambda n: window.review.select(organs[n % len(organs)])),
            "an organ shown or hidden": milliseconds(
                lambda n: window.review.set_visible(organs[0], n % 2 == 0)
            ),
            "pause, continue": milliseconds(lambda n: window.timing.toggle_pause(), 8),
            "outline on, off": milliseconds(lambda n: window.review.show_outline(n % 2 == 0)),
        }
        others = {
            "accepted and on to the next": milliseconds(lambda n: window.review.accept(), 3),
            "another organ after a stroke": milliseconds(
                lambda n: window.review.select(organs[(n + 1) % len(organs)]), 3, lambda n: stroke(window, n)
            ),
        }
        window.timing.control.finish()
    core.close()
    for name, ms in (*clicks.items(), *others.items()):
        print(f"{name:<36}{ms:8.1f} ms")
    if arguments.json:
        arguments.json.write_text(json.dumps({**clicks, **others}, indent=2))
    return 0 if max(clicks.values()) <= GOAL_MS else 1


def stroke(window: Any, number: int) -> None:
    place = slice(200 + 5 * number, 205 + 5 * number)
    paint(window.editor.editor.hand, window.editor.node, (slice(5, 8), place, place))


if __name__ == "__main__":
    sys.exit(main())
