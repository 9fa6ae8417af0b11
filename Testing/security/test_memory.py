"""A large CT is segmented in at most three times its own memory; and where that is not there, a sentence says so.

`Testing/benchmarks/large_ct.py` measures a CT of 2.5 GB; this holds the rule with small ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from tiny_bundle import patient, write_tiny_bundle

import soars.cli
from soars.dicom.write import write_ct_series

resource = pytest.importorskip("resource", reason="Windows neither limits nor reports memory this way")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="units of ru_maxrss differ elsewhere")

SOURCE = str(Path(soars.cli.__file__).parents[1])
FINER = (2, 6)
"""Times as many voxels along each axis: 4.5 and 121 MB."""
MOST_TIMES_ITS_SIZE = 3.0
BLOCKS = 600_000_000
"""Bytes that blocks, windows and the report's slices grow to, and no further, however large the CT."""


def write_ct(folder: Path, kind: str, finer: int) -> tuple[Path, int]:
    """The patient in smaller voxels; the file and the bytes of its voxels."""
    image = sitk.Expand(patient().image, [finer] * 3, sitk.sitkNearestNeighbor)
    path = folder / f"ct{finer}.{kind}"
    if kind == "dicom":
        write_ct_series(image, path, patient_id="P", patient_name="P")
    else:
        sitk.WriteImage(image, str(path), useCompression=kind == "nii.gz")
    return path, 2 * image.GetNumberOfPixels()


def segment(ct: Path, bundle: Path, *, limit: int | None = None) -> tuple[int, str, int]:
    """Exit code, standard error and the peak of resident memory, in bytes, of the largest of its processes."""
    command = [
        sys.executable,
        "-m",
        "soars.cli",
        "segment",
        str(ct),
        "--output",
        str(ct.with_name(f"{ct.name}-out")),
    ]
    command += ["--bundle", str(bundle), "--device", "cpu", "--progress", "none"]
    error = ct.with_name("stderr.txt")
    with error.open("w") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": SOURCE},
            stdout=subprocess.DEVNULL,
            stderr=stream,
            preexec_fn=None
            if limit is None
            else lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, error.read_text(), used.ru_maxrss * 1024


@pytest.fixture(scope="module")
def of_a_small_ct(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What the program takes with all that it imports."""
    place = tmp_path_factory.mktemp("small")
    ct, _ = write_ct(place, "nrrd", FINER[0])
    code, said, peak = segment(ct, write_tiny_bundle(place / "tiny"))
    assert code == 0, said
    return peak


@linux
@pytest.mark.slow  # a CT of sixty million voxels
@pytest.mark.parametrize("kind", ["nrrd", "dicom"])
def test_a_larger_ct_needs_three_times_its_size_more_and_not_more(
    tmp_path: Path, kind: str, of_a_small_ct: int
) -> None:
    ct, size = write_ct(tmp_path, kind, FINER[1])
    code, said, peak = segment(ct, write_tiny_bundle(tmp_path / "tiny"))
    assert code == 0, said
    assert size > 100_000_000
    assert peak - of_a_small_ct < MOST_TIMES_ITS_SIZE * size + BLOCKS


@linux
def test_what_does_not_fit_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """With an address space that holds the program and not the CT."""
    bundle = write_tiny_bundle(tmp_path / "tiny")
    ct, size = write_ct(tmp_path, "nrrd", FINER[1])
    code, said, _ = segment(ct, bundle, limit=(1 << 30) + size)
    assert code == 2 and "memory" in said.splitlines()[-1] and "Traceback" not in said
    assert not list(tmp_path.glob("*-out"))
