"""Nothing leaves the machine: every command runs where there is no network, and is watched for trying.

Each command runs in a network namespace of its own that has the loopback alone, under strace: no connection and no
look-up of a name is even begun, and no file is made outside the output, the cache and the temporary folder.
"""

from __future__ import annotations

import json
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
from tiny_study import tiny_study
from web_archive import SERIES, STUDY

import soars.cli
import soars_training
from soars.dicom.write import write_ct_series
from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry, StructureSet

SOURCES = [
    str(Path(soars.cli.__file__).parents[1]),
    str(Path(soars_training.__file__).parents[1]),
    str(Path(__file__).parents[1] / "helpers"),
]
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
    write_ct_series(image, place / "inputs" / "dicom", patient_id="P", patient_name="P")
    (place / "inputs" / "many").mkdir()
    for name in ("one", "two"):
        sitk.WriteImage(image, str(place / "inputs" / "many" / f"{name}.nrrd"))
    write_tiny_bundle(place / "inputs" / "tiny")
    shutil.make_archive(str(place / "inputs" / "tiny"), "zip", place / "inputs" / "tiny")
    structures = StructureSet(Geometry.of(image))
    mask = np.zeros(structures.geometry.shape, bool)
    mask[10:30, 20:40, 20:40] = True
    for offset, organ in enumerate(("Brainstem", "SpinalCord", "Parotid_L")):
        structures.add(organ, np.roll(mask, 10 * offset, axis=2))
    write_seg_nrrd(structures, place / "inputs" / "a.seg.nrrd")
    dose = sitk.Cast(image, sitk.sitkFloat32) * 0 + 2.0
    dose.CopyInformation(image)
    sitk.WriteImage(dose, str(place / "inputs" / "dose.nrrd"))
    cases = [{"name": name, "ct": f"many/{name}.nrrd", "structures": "a.seg.nrrd"} for name in ("one", "two")]
    (place / "inputs" / "cases.json").write_text(json.dumps({"cases": cases}))
    return place


DRIVER = """
import importlib, json, sys
if __name__ == "__main__":
    code, commands = json.loads(sys.argv[1])
    exec(code)
    for program, *arguments in commands:
        ended = importlib.import_module(program).main(arguments)
        if ended:
            sys.exit(f"{program} {' '.join(arguments)}: exit code {ended}")
"""


def environment_of(place: Path) -> dict[str, str]:
    """Only what a command needs, and every folder that it may write to below `place`."""
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(SOURCES), "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
        "HOME": str(place / "home"), "XDG_CACHE_HOME": str(place / "cache"), "TMPDIR": str(place / "temporary"),
        "SOARS_BUNDLES": str(place / "out" / "bundles"), "SOARS_NODES": str(place / "out" / "nodes.json"),
        "TOTALSEG_HOME_DIR": str(place / "cache" / "totalsegmentator"),
        "TOTALSEG_WEIGHTS_PATH": str(place / "inputs" / "weights"),
    }  # fmt: skip


def traced(place: Path, *python: str | Path) -> str:
    """Run Python alone and watched; gives the calls that were seen."""
    log = place / "trace.log"
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
        [*(ALONE or []), *watch, sys.executable, *map(str, python)],
        capture_output=True, text=True, env=environment_of(place), cwd=place / "elsewhere", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return log.read_text(errors="replace")


def check(place: Path, calls: str, *, archive: bool = False) -> None:
    """No address but this computer's, and that only for an archive; no look-up; no file where none belongs."""
    inet = [call for call in calls.splitlines() if "AF_INET" in call]
    # To sort addresses, the C library asks the kernel for a way to each, on port 0, which sends nothing.
    inet = [call for call in inet if not (archive and "port=htons(0)" in call)]
    assert all(archive and '"127.0.0.1"' in call for call in inet), f"an address outside was used: {inet[0]}"
    assert archive == bool(inet)
    # The daemon that caches names is asked for users' names, too; it answers for hosts only after their files.
    assert not re.search(r"resolv\.conf" if archive else r"resolv\.conf|/etc/hosts\b", calls), (
        "a name was looked up"
    )
    allowed = [str(place / folder) for folder in ("out", "cache", "temporary", "trace.log")]
    for call in calls.splitlines():
        made = re.search(r"\b(?:open|openat|creat)\(.*?\"([^\"]+)\".*(?:O_CREAT|O_WRONLY|O_RDWR)", call)
        made = made or re.search(r"\b(?:mkdir|mkdirat|rename\w*|link\w*)\(.*\"([^\"]+)\"[^\"]*$", call)
        if made and "= -1" not in call:
            path = os.path.normpath(place / "elsewhere" / made[1])
            assert any(path.startswith(one) for one in (*allowed, "/dev/", "/proc/")), (
                f"{path} was made: {call}"
            )
    for folder in ("home", "elsewhere"):
        assert list((place / folder).rglob("*")) == [], f"something is in {folder}"


def soars(line: str) -> list[str]:
    return ["soars.cli", *line.split()]


def train(line: str) -> list[str]:
    return ["soars_training.cli", *line.split()]


TINY_PHANTOMS = """
import functools, soars.phantom, soars.commands.demo as demo
soars.phantom.make_phantom = functools.partial(soars.phantom.make_phantom, spacing_mm=(5, 5, 5))
demo.BUNDLE = "inputs/tiny"
"""
"""The demo's own bundle takes minutes; what it calls is the same."""

SMALL_FIT = "--features 4,8 --patch 16,16,16 --steps 2 --batch 1 --device cpu --threads 1 --held-out 1"
ANCHORS, GUIDED = "--branch anchor --organs Brainstem,SpinalCord", "--branch mid_level --organs Parotid_L"

GROUPS: dict[str, tuple[str, list[list[str]]]] = {
    "contours": ("", [
        soars("segment inputs/dicom --output out/dicom --bundle inputs/tiny --device cpu --progress json"),
        soars("convert inputs/a.seg.nrrd out/masks"),
        soars("convert inputs/a.seg.nrrd out/a.dcm --ct inputs/dicom"),
        soars("convert out/a.dcm out/a.nii.gz --ct inputs/dicom"),
        soars("evaluate inputs/a.seg.nrrd out/a.nii.gz --csv out/s.csv --summary out/m.csv --plot out/s.png"),
        soars("dose --dose inputs/dose.nrrd --reference inputs/a.seg.nrrd --substitute out/a.nii.gz "
              "--csv out/dose.csv --plot out/dose.png"),
        soars("demo --output out/demo --progress none"),
        soars("segment-all inputs/many out/all --bundle inputs/tiny --device cpu"),
        soars("catalogue list"),
    ]),
    "bundles": ("", [
        soars("bundle list"),
        soars("bundle show inputs/tiny"),
        soars("bundle verify inputs/tiny.zip"),
        soars("bundle import inputs/tiny.zip"),
        soars("bundle import inputs/tiny --overwrite"),
        soars("bundle get tiny"),
        soars("bundle remove tiny"),
        soars("network add pacs --host pacs.example.org --port 104 --ae-title A --web https://pacs.example.org/web"),
        soars("network list"),
        soars("network remove pacs"),
    ]),
    "studies": ("", [
        soars("study new out/lead --cts inputs/many --bundle inputs/tiny --readers R1,R2"),
        soars("study prepare out/lead --device cpu"),
        soars("study worklist out/lead"),
        soars("study status out/lead"),
        soars("study collect out/study --csv out/rows.csv"),
        soars("study summarize out/study --output out/results --times-only"),
        soars("study power --saving 0.3 --cases 4 --simulations 20 --csv out/power.csv --plot out/power.png"),
    ]),
    "training": ("", [
        train("prepare out/cache --list inputs/cases.json --spacing 4"),
        train("plan out/cache"),
        train(f"fit out/cache out/anchor {ANCHORS} {SMALL_FIT}"),
        train("guide out/cache out/anchor out/guide --device cpu"),
        train(f"fit out/cache out/mid {GUIDED} --guide out/guide {SMALL_FIT}"),
        train("finetune out/cache out/anchor out/mid out/both --steps 2 --batch 1 --device cpu --threads 1"),
        train("export out/made out/both/anchor out/both/mid_level --description d --licence none"),
        train("evaluate out/made --list inputs/cases.json --csv out/dsc.csv --engine torch"),
    ]),
}  # fmt: skip


@pytest.fixture(scope="module")
def study(place: Path) -> None:
    tiny_study(place / "out" / "study", cases=3, scratch=1)


SLOW = ("contours", "studies", "training")
"""They draw figures, start processes that import everything again, or export from torch to ONNX."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in GROUPS])
def test_no_connection_no_look_up_and_no_file_elsewhere(place: Path, study: None, name: str) -> None:
    """Commands that belong together run in one process, so that what they all import is imported once."""
    code, commands = GROUPS[name]

    def whole(word: str) -> str:
        return re.sub(r"^(inputs|out)/", lambda found: f"{place / found[1]}/", word)

    lines = [[whole(word) for word in command] for command in commands]
    code = TINY_PHANTOMS.replace("inputs/tiny", str(place / "inputs" / "tiny")) + code
    check(place, traced(place, "-c", DRIVER, json.dumps([code, lines])))


def test_the_program_that_slicer_starts_is_as_quiet(place: Path) -> None:
    """The command as `SOARSSegmentationLib.run.runner` starts it, which forks and watches a child of its own; and
    onnxruntime keeps no identifier of this computer where its cache would be."""
    calls = traced(
        place, "-m", "soars.cli", "segment", place / "inputs" / "ct.nrrd", "--output", place / "out" / "case",
        "--progress", "json", "--bundle", place / "inputs" / "tiny", "--device", "cpu", "--engine", "onnxruntime",
    )  # fmt: skip
    check(place, calls)
    found = [p for name in ("home", "cache") for p in (place / name).rglob("*") if "onnx" in str(p).lower()]
    assert found == [] and shutil.which("strace")


WITHOUT_TIMM = """
import sys, types
class Unused(types.ModuleType):  # nnU-Net's search for a trainer imports timm, which no model here needs
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})
for name in ("timm", "timm.layers", "timm.models", "timm.models.eva"):
    sys.modules[name] = Unused(name)
"""
MODELS = """
import os
from pathlib import Path
from tiny_nnunet import write_model
weights = Path(os.environ["TOTALSEG_WEIGHTS_PATH"])
model = "nnUNetTrainer__nnUNetPlans__3d_fullres"
write_model(weights.parent / "Dataset001_Tiny" / model, {"Brainstem": 1, "mandible": 2}, favour=[1])
from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS
from totalsegmentator.map_to_binary import class_map
labels = {name: value for value, name in class_map["total"].items()}
trainer = "nnUNetTrainer_4000epochs_NoMirroring"
for number in (297, 298):
    folder = weights / TASK_ID_WEIGHTS_CONFIGS[number]["foldername"] / f"{trainer}__nnUNetPlans__3d_fullres"
    write_model(folder, labels, trainer=trainer, favour=[labels["spinal_cord"]])
"""


@pytest.mark.slow  # nnU-Net imports all of its trainers
def test_models_of_others_are_as_quiet(place: Path) -> None:
    """TotalSegmentator reports every run to its publishers and fetches what is missing, unless it is kept from it."""
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    pytest.importorskip("totalsegmentator", reason="TotalSegmentator is not installed")
    ct, out, model = place / "inputs" / "ct.nrrd", place / "out", place / "inputs" / "Dataset001_Tiny"
    commands = [
        soars(f"bundle import-nnunet {model} --name tiny-nnunet"),
        soars(f"segment {ct} --output {out}/nnunet --bundle tiny-nnunet --device cpu"),
        soars(
            f"segment {ct} --output {out}/total --bundle totalsegmentator --organs SpinalCord --device cpu"
        ),
    ]
    subprocess.run(
        [sys.executable, "-c", WITHOUT_TIMM + MODELS],
        check=True,
        capture_output=True,
        env=environment_of(place),
    )
    for (
        command
    ) in commands:  # each alone: a command forks, which torch's threads of an earlier one do not survive
        check(place, traced(place, "-c", DRIVER, json.dumps([WITHOUT_TIMM, [command]])))


LOOPBACK = """
import fcntl, socket, struct
from pynetdicom import AE, evt
from web_archive import Archive, serving
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
keep = serving(Archive())
address = keep.__enter__()
node = AE("PACS")
for uid in ("1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"):
    node.add_supported_context(uid)
node.require_called_aet = True
port = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)])
commands[0] += ["--port", str(port.server_address[1]), "--web", address]
"""


def test_an_archive_on_this_computer_is_all_that_network_talks_to(place: Path) -> None:
    pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
    pytest.importorskip("requests", reason="requests is not installed")
    fetched = place / "out" / "fetched"
    image = next((place / "inputs" / "dicom").iterdir())
    commands = [
        soars("network add local --host 127.0.0.1 --ae-title PACS --overwrite"),
        soars("network echo local"),
        soars(f"network send local {image}"),
        soars(f"network find local --study {STUDY}"),
        soars(f"network fetch local --study {STUDY} --series {SERIES} --output {fetched}"),
    ]
    check(place, traced(place, "-c", DRIVER, json.dumps([LOOPBACK, commands])), archive=True)
    assert len(list(fetched.iterdir())) == 3


def test_the_network_really_is_away_and_would_have_been_seen(place: Path) -> None:
    """The watch itself: a connection that a program of the same kind tries is in the log."""
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError as e: print(e)"
    log = place / "watch.log"
    done = subprocess.run(
        [*(ALONE or []), "strace", "-f", "-e", "trace=connect", "-o", str(log), sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "unreachable" in done.stdout and "AF_INET" in log.read_text()
