"""Peak memory and time of `soars segment` on a very large CT, by default 1024 x 1024 x 1200 voxels: 2.5 GB as int16.

    python Testing/benchmarks/large_ct.py                          # an uncompressed NRRD
    python Testing/benchmarks/large_ct.py --kind dicom             # a DICOM series; also mha, nii, nii.gz
    python Testing/benchmarks/large_ct.py --size 512 512 600       # smaller: does it run?

The CT is a phantom of ordinary size in very small voxels. It is segmented by the command as a user runs it, with the
shipped bundle, report and RTSTRUCT included; the figure is the resident memory of the largest process at its peak, as
the kernel accounts for it, divided by the size of the voxels as int16. Ends with exit code 1 when that is above three.
Needs five times the CT's size in memory and on the disk of the temporary folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from soars.dicom.write import write_ct_series
from soars.phantom import make_phantom

MOST_TIMES_ITS_SIZE = 3.0
SLAB = 16
"""Slices that are made at a time."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=("nrrd", "mha", "nii", "nii.gz", "dicom"), default="nrrd")
    parser.add_argument("--size", type=int, nargs=3, default=(1024, 1024, 1200), metavar=("X", "Y", "Z"))
    parser.add_argument("--bundle", default="starter", help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soars-benchmark-") as folder:
        # in a process of its own: what making the CT takes must not count
        make = [sys.executable, __file__, "--make", args.kind, folder, *map(str, args.size)]
        subprocess.run(make, check=True)
        ct = next(Path(folder).glob("ct*"))
        command = (
            "segment",
            str(ct),
            "--output",
            f"{folder}/out",
            "--bundle",
            args.bundle,
            "--device",
            "cpu",
        )
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "soars.cli", *command])
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print(f"soars segment ended with exit code {process.returncode}")
        return 1
    size, peak = 2 * int(np.prod(args.size)), used.ru_maxrss * 1024
    figures = f"{size / 1e9:.2f} GB; peak {peak / 1e9:.2f} GB, {peak / size:.2f} times that; {seconds:.0f} s"
    print(f"CT ({args.kind}): {figures}")
    return 0 if peak <= MOST_TIMES_ITS_SIZE * size else 1


def make_ct(kind: str, folder: Path, size: tuple[int, int, int]) -> None:
    """Write a phantom in voxels so small that the grid has this size (x, y, z)."""
    phantom = make_phantom(1).ct
    extent = np.multiply(phantom.GetSize(), phantom.GetSpacing())
    spacing = [float(v) for v in extent / size]
    start = [float(v) for v in np.add(phantom.GetOrigin(), (np.array(spacing) - phantom.GetSpacing()) / 2)]
    values = np.empty(size[::-1], np.int16)
    for z in range(0, size[2], SLAB):
        thick = min(SLAB, size[2] - z)
        corner = (start[0], start[1], start[2] + z * spacing[2])
        slab = sitk.Resample(
            phantom, (size[0], size[1], thick), sitk.Transform(), sitk.sitkLinear, corner, spacing,
            phantom.GetDirection(), -1000.0, sitk.sitkInt16,
        )  # fmt: skip
        values[z : z + thick] = sitk.GetArrayViewFromImage(slab)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(start)
    if kind == "dicom":
        write_ct_series(image, folder / "ct", patient_id="LARGE", patient_name="Large")
    else:
        sitk.WriteImage(image, str(folder / f"ct.{kind}"), useCompression=kind == "nii.gz")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        x, y, z = map(int, sys.argv[4:])
        make_ct(sys.argv[2], Path(sys.argv[3]), (x, y, z))
        sys.exit(0)
    sys.exit(main())
