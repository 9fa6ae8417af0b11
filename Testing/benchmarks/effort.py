"""What the effort log costs the reader: time per event, and the voxel comparison beside a plain one of whole arrays.

    python Testing/benchmarks/effort.py [--size 512 512 200]

Prints one JSON object. Times are medians; ratios are to `numpy` comparing two arrays of the whole label map, so they
hold on a busy machine too. With slicer-core installed the comparison is measured in a real segmentation of 42 organs as
well.
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

import numpy as np

from soars.effort.change import organ_change
from soars.effort.log import read_log
from soars.effort.recorder import Recorder
from soars.effort.records import Header
from soars.effort.timing import Clock, session_timing
from soars.effort.writer import LogWriter
from soars.structures import Geometry, StructureSet, to_label_map

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 20_000


def median_s(act: Callable[[], object], times: int = 9) -> float:
    """Median time of a call, in seconds, after one that does not count."""
    act()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def organs(size: tuple[int, int, int]) -> StructureSet:
    """42 balls of 4 to 30 voxels' radius, none over another, as large as organs come."""
    structures = StructureSet(Geometry(size, (1.0, 1.0, 2.5), (0.0, 0.0, 0.0)))
    chance = np.random.default_rng(5)
    taken = np.zeros(structures.geometry.shape, dtype=bool)
    while len(structures) < 42:
        radius = int(chance.integers(4, min(31, min(size) // 3)))
        centre = [int(chance.integers(radius, n - radius)) for n in structures.geometry.shape]
        box = tuple(slice(c - radius, c + radius + 1) for c in centre)
        z, y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
        ball = (z * z + y * y + x * x <= radius * radius) & ~taken[box]
        taken[box] |= ball
        structures.add_crop(f"Organ_{len(structures)}", [c - radius for c in centre], ball)
    return structures


def recording(folder: Path) -> dict[str, float]:
    """Microseconds an event, as the reader's hand would cause them, with the running clock listening."""
    header = Header("bench", "case", "R1", "revise", ("Organ_0",), started_utc="2026-01-01T00:00:00Z")
    clock = Clock()
    recorder = Recorder(LogWriter.create(folder / "1.effort.jsonl", header), clock.feed)
    acts = {
        "select": lambda: recorder.select("Organ_0"),
        "key": lambda: recorder.interaction("key"),
        "move": lambda: recorder.interaction("move"),
        "edit": lambda: recorder.edit("Organ_0"),
        "tick": recorder.tick,
    }
    out: dict[str, float] = {}
    for name, act in acts.items():
        taken = np.empty(EVENTS)
        for n in range(EVENTS):
            begin = time.perf_counter_ns()
            act()
            taken[n] = time.perf_counter_ns() - begin
        out[f"{name}_us"] = round(float(np.median(taken)) / 1000, 2)
        out[f"{name}_us_99th"] = round(float(np.percentile(taken, 99)) / 1000, 2)
    recorder.end()
    start = time.perf_counter()
    log = read_log(folder / "1.effort.jsonl")
    out["reading_us_an_event"] = round((time.perf_counter() - start) / len(log.events) * 1e6, 2)
    start = time.perf_counter()
    session_timing(log)
    out["timing_us_an_event"] = round((time.perf_counter() - start) / len(log.events) * 1e6, 2)
    return out


def comparing(structures: StructureSet) -> dict[str, float]:
    """One organ against its proposal, and a worst case as large as the whole CT."""
    array, _ = to_label_map(structures)
    import SimpleITK as sitk

    labels = sitk.GetArrayFromImage(array)
    other = labels.copy()
    plain = median_s(lambda: (labels != other).any())
    largest = max(structures.names, key=structures.voxels)
    mask = structures.crop(largest)
    whole = StructureSet(structures.geometry)
    whole.add("all", np.ones(structures.geometry.shape, dtype=bool))
    everything = whole.crop("all")
    out = {
        "plain_numpy_s": plain,
        "largest_organ_s": median_s(lambda: organ_change(mask, mask, 0.001)),
        "organ_as_large_as_the_ct_s": median_s(lambda: organ_change(everything, everything, 0.001)),
    }
    sys.path[:0] = [str(ROOT / "SOARSSegmentation"), str(ROOT / "Testing" / "helpers")]
    try:
        from reading_desk import ReadingDesk

        from SOARSSegmentationLib.scene.contents import Contents
    except ImportError:
        return out
    desk = ReadingDesk(structures)
    ids = {organ: desk.segment_id(organ) for organ in structures}
    contents = Contents(
        desk.segmentation, desk.volume, ids, {organ: structures.crop(organ) for organ in structures}
    )
    assert contents.refresh() == set()
    out["all_42_in_slicer_s"] = median_s(contents.refresh)
    out["all_42_unmodified_s"] = median_s(lambda: contents.refresh(thorough=False))
    desk.turn_to(largest)
    z, y, x = mask.start
    taken = []
    for n in range(5):
        desk.paint(np.s_[z : z + 3, y + 5 * n : y + 5 * n + 5, x : x + 40])
        begin = time.perf_counter()
        changed = contents.refresh(thorough=False)
        organ_change(mask, contents.mask(largest), 0.001)
        taken.append(time.perf_counter() - begin)
        assert largest in changed
    out["after_a_stroke_s"] = statistics.median(taken)
    desk.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 200), metavar=("X", "Y", "Z"))
    size = tuple(parser.parse_args().size)
    with tempfile.TemporaryDirectory() as folder:
        events = recording(Path(folder))
    times = comparing(organs(size))
    ratios = {
        name.removesuffix("_s") + "_to_plain": round(value / times["plain_numpy_s"], 3)
        for name, value in times.items()
        if name != "plain_numpy_s"
    }
    rounded = {name: round(value, 4) for name, value in times.items()}
    print(json.dumps({"size": size, "events": events, "comparison": rounded, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
