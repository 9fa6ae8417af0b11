"""Nothing leaves the machine: every command runs where there is no network, and is watched for trying.

Each command runs in a network namespace of its own that has the loopback alone, under strace: no connection and no
look-up of a name is even begun, and no file is made outside the output, the cache and the temporary folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_bundle import patient, write_tiny_bundle

import soars.cli
from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry, StructureSet

SOURCE = str(Path(soars.cli.__file__).parents[1])
CALLS = (
    "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat"
)


def _namespace() -> list[str] | None:
    """How a command is run with loopback only, None where this machine does not let us."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        try:
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
        except OSError:
            return None
    return None


def _can_trace() -> bool:
    try:
        return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


ALONE = _namespace() if sys.platform.startswith("linux") else None
pytestmark = pytest.mark.skipif(
    ALONE is None or not _can_trace(), reason="network namespaces or strace cannot be used on this machine"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT, a bundle, structures and a dose, and the folders that commands may write to."""
    place = tmp_path_factory.mktemp("isolation")
    for name in ("home", "cache", "temporary", "out", "elsewhere", "inputs"):
        (place / name).mkdir()
    image = patient().image
    sitk.WriteImage(image, str(place / "inputs" / "ct.nrrd"))
    write_tiny_bundle(place / "inputs" / "tiny")
    structures = StructureSet(Geometry.of(image))
    mask = np.zeros(structures.geometry.shape, bool)
    mask[10:30, 20:40, 20:40] = True
    structures.add("Brainstem", mask)
    write_seg_nrrd(structures, place / "inputs" / "a.seg.nrrd")
    dose = sitk.Cast(image, sitk.sitkFloat32) * 0 + 2.0
    dose.CopyInformation(image)
    sitk.WriteImage(dose, str(place / "inputs" / "dose.nrrd"))
    return place


def traced(place: Path, *command: str | Path) -> str:
    """Run a command of ours alone and watched; gives the calls that were seen."""
    log = place / "trace.log"
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8",
        "HOME": str(place / "home"), "XDG_CACHE_HOME": str(place / "cache"), "TMPDIR": str(place / "temporary"),
        "SOARS_BUNDLES": str(place / "out" / "bundles"), "SOARS_NODES": str(place / "out" / "nodes.json"),
    }  # fmt: skip
    watch = [
        "strace",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-y",
        "-s",
        "400",
        "-e",
        f"trace={CALLS}",
        "-o",
        str(log),
    ]
    done = subprocess.run(
        [*(ALONE or []), *watch, sys.executable, "-m", "soars.cli", *map(str, command)],
        capture_output=True, text=True, env=environment, cwd=place / "elsewhere", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return log.read_text(errors="replace")


COMMANDS: dict[str, list[str]] = {
    "segment": ["segment", "inputs/ct.nrrd", "--output", "out/case", "--bundle", "inputs/tiny", "--device", "cpu"],
    "convert": ["convert", "inputs/a.seg.nrrd", "out/masks"],
    "evaluate": ["evaluate", "inputs/a.seg.nrrd", "inputs/a.seg.nrrd", "--csv", "out/s.csv", "--plot", "out/s.png"],
    "dose": ["dose", "--dose", "inputs/dose.nrrd", "--reference", "inputs/a.seg.nrrd", "--substitute",
             "inputs/a.seg.nrrd", "--csv", "out/dose.csv", "--plot", "out/dose.png"],
    "bundle list": ["bundle", "list"],
    "bundle show": ["bundle", "show", "inputs/tiny"],
    "bundle import": ["bundle", "import", "inputs/tiny", "--overwrite"],
    "network add": ["network", "add", "pacs", "--host", "pacs.example.org", "--port", "104", "--ae-title", "A",
                    "--web", "https://pacs.example.org/dicom-web", "--overwrite"],
    "network list": ["network", "list"],
    "catalogue": ["catalogue", "list"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_no_connection_no_look_up_and_no_file_elsewhere(place: Path, name: str) -> None:
    arguments = [place / word if re.match(r"(inputs|out)/", word) else word for word in COMMANDS[name]]
    calls = traced(place, *arguments)
    assert "AF_INET" not in calls, "an address outside was used"
    assert not re.search(r"nscd|resolv\.conf|/etc/hosts\b", calls), "a name was looked up"
    allowed = [str(place / folder) for folder in ("out", "cache", "temporary")] + [
        "/dev/",
        "/proc/",
        str(place / "trace.log"),
    ]
    for call in calls.splitlines():
        made = re.search(r"\b(?:open|openat|creat)\(.*?\"([^\"]+)\".*(?:O_CREAT|O_WRONLY|O_RDWR)", call)
        made = made or re.search(r"\b(?:mkdir|mkdirat|rename\w*|link\w*)\(.*\"([^\"]+)\"[^\"]*$", call)
        if made and "= -1" not in call:
            path = os.path.normpath(place / "elsewhere" / made[1])
            assert any(path.startswith(one) for one in allowed), f"{path} was made: {call}"
    for folder in ("home", "elsewhere"):
        assert list((place / folder).rglob("*")) == [], f"something is in {folder}"


def test_the_network_really_is_away_and_would_have_been_seen(place: Path) -> None:
    """The watch itself: a connection that a program of the same kind tries is in the log."""
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError as e: print(e)"
    log = place / "watch.log"
    done = subprocess.run(
        [*(ALONE or []), "strace", "-f", "-e", "trace=connect", "-o", str(log), sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "unreachable" in done.stdout and "AF_INET" in log.read_text()


def test_onnxruntime_keeps_no_identifier_of_this_computer(place: Path) -> None:
    """Its cache folder is where it would be, and other caches may be there."""
    traced(place, "segment", place / "inputs" / "ct.nrrd", "--output", place / "out" / "again",
           "--bundle", place / "inputs" / "tiny", "--device", "cpu", "--engine", "onnxruntime")  # fmt: skip
    found = [
        p for folder in ("home", "cache") for p in (place / folder).rglob("*") if "onnx" in str(p).lower()
    ]
    assert found == [] and shutil.which("strace")
