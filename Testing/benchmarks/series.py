"""Time of reading a CT of 200 slices with all geometry checks, against SimpleITK with GDCM's sorting.

    python Testing/benchmarks/series.py [--json FILE] [--repeats N]

The series is 512 x 512 x 200 of noise, 16 bits, uncompressed, written by this project. SimpleITK's
``ImageSeriesReader`` gets its file names, sorted, from ``GetGDCMSeriesFileNames`` and checks nothing; ours finds the
series, checks patient, frame of reference, matrix, spacing, orientation, gaps, completeness and units, and converts
to HU. Both are run in turns in one process, on files that are in the disk cache; the medians are compared, and both
must give the same voxels.

Ends with exit code 1 when ours takes more than 0.8 of SimpleITK's time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.ct.series import read_series
from soars.dicom.write import write_ct_series

SHAPE = (200, 512, 512)
TARGET = 0.8


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hu = np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.int16).clip(-1000, None)
        image = sitk.GetImageFromArray(hu)
        image.SetSpacing((0.98, 0.98, 2.5))
        write_ct_series(image, folder, patient_id="benchmark", patient_name="benchmark")
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(args.repeats + 1):
            start = time.perf_counter()
            mine = read_series(folder)[0]
            middle = time.perf_counter()
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder))
            other = reader.Execute()
            ours.append(middle - start)
            theirs.append(time.perf_counter() - middle)
        same = np.array_equal(sitk.GetArrayViewFromImage(mine), sitk.GetArrayViewFromImage(other))
    a, b = statistics.median(ours[1:]), statistics.median(theirs[1:])  # the first run warms both up
    print(
        f"soars {a:.3f} s, SimpleITK with GDCM sorting {b:.3f} s: {a / b:.2f} of its time (target {TARGET})"
    )
    print(f"same voxels: {'yes' if same else 'NO'}")
    if args.json:
        args.json.write_text(json.dumps({"soars_s": a, "simpleitk_s": b, "ratio": a / b, "same": same}))
    return 0 if same and a <= TARGET * b else 1


if __name__ == "__main__":
    sys.exit(main())
