"""Time of 42 organs at 512 x 512 x 200 into a Slicer scene and back, on Slicer's real MRML core.

    PYTHONPATH=SOARSSegmentation:Testing/helpers python Testing/benchmarks/scene.py [--json FILE]

The goal is 3 s for structures to a segmentation node and back. Ends with exit code 1 when it takes longer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mrml_core import boot
from structures_memory import SHAPE, make_organs

from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry
from soars.structures.naming import use_catalogue_names
from SOARSSegmentationLib.scene import proposal
from SOARSSegmentationLib.scene.building import add_segmentation
from SOARSSegmentationLib.scene.ct import ct_file
from SOARSSegmentationLib.scene.outlines import show_outline
from SOARSSegmentationLib.scene.reading import organ_mask, structures_of
from SOARSSegmentationLib.scene.seg_file import write_by_slicer

T = TypeVar("T")

GOAL_S = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers there")
    arguments = parser.parse_args()
    grid = Geometry((SHAPE[2], SHAPE[1], SHAPE[0]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    structures = make_organs(grid).cropped((100, 0, 0), (200, SHAPE[1], SHAPE[2]))
    use_catalogue_names(structures)
    core = boot()
    volume = core.add_ct(structures.geometry)
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        start = time.perf_counter()
        result = function(*arguments, **options)
        seconds[name] = time.perf_counter() - start
        print(f"{name:<36}{seconds[name]:8.3f} s")
        return result

    with tempfile.TemporaryDirectory() as folder:
        file, again = Path(folder, "organs.seg.nrrd"), Path(folder, "again.seg.nrrd")
        write_seg_nrrd(structures, file)
        node = timed("structures to node", add_segmentation, core.scene, volume, structures, "organs")
        back = timed("node to structures", structures_of, node)
        timed("one organ's mask", organ_mask, node, "Lens_L")
        assert all(back.crop(name).equals(structures.crop(name)) for name in structures)
        timed("file to node", add_segmentation, core.scene, volume, file, "organs")
        timed("proposal kept", proposal.keep_proposal, node)
        timed("proposal read", proposal.proposal_of, node)
        timed("one organ restored", proposal.restore, node, "Lens_L")
        timed("proposal outlined", show_outline, node, "Brainstem", True)
        timed("node to file, by Slicer", write_by_slicer, node, again)
        timed("CT to file", ct_file, volume, Path(folder))
    core.close()
    total = seconds["structures to node"] + seconds["node to structures"]
    print(f"{'to the node and back':<36}{total:8.3f} s, goal {GOAL_S} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=2))
    return 0 if total <= GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
