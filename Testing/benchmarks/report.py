"""Size, time and memory of a report: `python Testing/benchmarks/report.py [PIXEL_MM]`.

A synthetic patient with all 42 organs on 200 slices of 512 x 512, with noise of 12 HU, so that it packs like a real CT.
The report is written in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SOARSSegmentation"), str(ROOT / "Testing" / "helpers")]

from report_scene import record_of  # noqa: E402

from soars.formats.segnrrd import read_seg_nrrd, write_seg_nrrd  # noqa: E402
from soars.phantom import make_phantom  # noqa: E402
from soars.report.page import write_report  # noqa: E402
from soars.structures import Geometry  # noqa: E402

SIZE = (512, 512, 200)


def make_case(folder: Path, pixel_mm: float) -> None:
    phantom = make_phantom(7)
    ct = phantom.ct
    grid = sitk.Image(SIZE, sitk.sitkInt16)
    grid.SetSpacing((pixel_mm, pixel_mm, ct.GetSize()[2] * ct.GetSpacing()[2] / SIZE[2]))
    middle = [o + n * s / 2 for o, n, s in zip(ct.GetOrigin(), ct.GetSize(), ct.GetSpacing(), strict=True)]
    grid.SetOrigin((middle[0] - 256 * pixel_mm, middle[1] - 256 * pixel_mm, ct.GetOrigin()[2]))
    hu = sitk.GetArrayFromImage(sitk.Resample(ct, grid, sitk.Transform(), sitk.sitkLinear, -1000))
    random = np.random.default_rng(0)
    for z in range(len(hu)):
        hu[z] = hu[z] + random.normal(0, 12, hu[z].shape)
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(grid)
    sitk.WriteImage(image, str(folder / "ct.nrrd"))
    write_seg_nrrd(phantom.structures.resample(Geometry.of(image)), folder / "organs.seg.nrrd")


def measure(folder: Path) -> None:
    image, structures = sitk.ReadImage(str(folder / "ct.nrrd")), read_seg_nrrd(folder / "organs.seg.nrrd")
    record = record_of(structures)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, processor = time.perf_counter(), time.process_time()
    write_report(folder / "report.html", record, image, structures)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = (folder / "report.html").stat().st_size / 1e6
    print(f"{len(structures)} organs, {'x'.join(map(str, image.GetSize()))} voxels: {size:.1f} MB")
    print(
        f"{seconds:.1f} s, of the processor {processor:.1f} s; peak {peak:.0f} MiB, {before:.0f} of it to read the case"
    )


def main(pixel_mm: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        make_case(Path(name), pixel_mm)
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(Path(name),))
        process.start()
        process.join()
        sys.exit(process.exitcode)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.98)
