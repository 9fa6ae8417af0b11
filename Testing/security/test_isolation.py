"""Nothing leaves the machine: every command runs where there is no network, and is watched for trying.

Each command runs in a network namespace of its own that has the loopback alone, under strace: no connection and no
look-up of a name is even begun, and no file is made outside the output, the cache and the temporary folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from tiny_bundle import patient, write_tiny_bundle
from watched import (
    ALONE,
    FOLDERS,
    LOOPBACK,
    can_watch,
    check,
    command_of,
    environment_of,
    every_command,
    run_watched,
    soars_line,
    traced,
    train_line,
)
from web_archive import SERIES, STUDY

from soars.dicom.write import write_ct_series
from soars.formats.segnrrd import write_seg_nrrd
from soars.structures import Geometry, StructureSet

watching = pytest.mark.skipif(
    not can_watch(), reason="network namespaces or strace cannot be used on this machine"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT, a bundle, structures and a dose, and the folders that commands may write to."""
    place = tmp_path_factory.mktemp("isolation")
    for name in FOLDERS:
        (place / name).mkdir()
    image = patient().image
    sitk.WriteImage(image, str(place / "inputs" / "ct.nrrd"))
    write_ct_series(image, place / "inputs" / "dicom", patient_id="P", patient_name="P")
    (place / "inputs" / "many").mkdir()
    for name in ("one", "two"):
        sitk.WriteImage(image, str(place / "inputs" / "many" / f"{name}.nrrd"))
    for kind in ("ct", "t1-mri"):
        folder = place / "inputs" / "challenge" / "images" / kind
        folder.mkdir(parents=True)
        sitk.WriteImage(image, str(folder / "case_01_IMG_CT.mha"))
    write_tiny_bundle(place / "inputs" / "tiny")
    shutil.make_archive(str(place / "inputs" / "tiny"), "zip", place / "inputs" / "tiny")
    structures = StructureSet(Geometry.of(image))
    mask = np.zeros(structures.geometry.shape, bool)
    mask[10:30, 20:40, 20:40] = True
    for offset, organ in enumerate(("Brainstem", "SpinalCord", "Parotid_L")):
        structures.add(organ, np.roll(mask, 10 * offset, axis=2))
    write_seg_nrrd(structures, place / "inputs" / "a.seg.nrrd")
    for observer in ("anna", "berta"):
        (place / "inputs" / observer).mkdir()
        write_seg_nrrd(structures, place / "inputs" / observer / "one.seg.nrrd")
    dose = sitk.Cast(image, sitk.sitkFloat32) * 0 + 2.0
    dose.CopyInformation(image)
    sitk.WriteImage(dose, str(place / "inputs" / "dose.nrrd"))
    # A copy each: cases of one file would be one patient.
    cases = [{"name": n, "ct": f"{n}.nrrd", "structures": "a.seg.nrrd"} for n in ("one", "two", "three")]
    for case in cases:
        shutil.copyfile(place / "inputs" / "ct.nrrd", place / "inputs" / case["ct"])
    (place / "inputs" / "cases.json").write_text(json.dumps({"cases": cases}))
    return place


TINY_PATIENTS = """
import functools, soars.phantom, soars.commands.demo as demo, soars.study.simulation.make as make
from tiny_study import tiny_patient
soars.phantom.make_phantom = functools.partial(soars.phantom.make_phantom, spacing_mm=(5, 5, 5))
make.simulate_study = functools.partial(make.simulate_study, patient=tiny_patient)
demo.BUNDLE = "INPUTS/tiny"
"""
"""The demo's own bundle takes minutes, and whole phantoms; what is called is the same."""

SMALL = "--steps 2 --batch 1 --device cpu --threads 1"
SMALL_NET = f"--features 4,8 --patch 16,16,16 {SMALL}"
SMALL_FIT = f"--held-out 1 {SMALL_NET}"
ANCHORS, GUIDED = "--branch anchor --organs Brainstem,SpinalCord", "--branch mid_level --organs Parotid_L"
SMALL_ABLATION = f"--settings all_in_one --seeds 1 --test 1 {SMALL_NET}"
SMALL_SYSTEM = f"--set size=32 --set channels=[8,8,16,16,16] --set hidden=32 {SMALL}"

GROUPS: dict[str, list[list[str]]] = {
    "contours": [
        soars_line("segment inputs/dicom --output out/dicom --bundle inputs/tiny --device cpu --progress json"),
        soars_line("convert inputs/a.seg.nrrd out/masks"),
        soars_line("convert inputs/a.seg.nrrd out/a.dcm --ct inputs/dicom"),
        soars_line("convert out/a.dcm out/a.nii.gz --ct inputs/dicom"),
        soars_line("evaluate inputs/a.seg.nrrd out/a.nii.gz --csv out/s.csv --summary out/m.csv --plot out/s.png"),
        soars_line("observers inputs/anna inputs/berta --csv out/tolerances.csv --processes 1"),
        soars_line("dose --dose inputs/dose.nrrd --reference inputs/a.seg.nrrd --substitute out/a.nii.gz "
                   "--csv out/dose.csv --plot out/dose.png"),
        soars_line("demo --output out/demo --progress none"),
        soars_line("segment-all inputs/many out/all --bundle inputs/tiny --device cpu"),
        soars_line("challenge --input inputs/challenge --output out/challenge --bundle inputs/tiny --device cpu"),
    ],
    "bundles": [
        soars_line("bundle list"),
        soars_line("bundle show inputs/tiny"),
        soars_line("bundle verify inputs/tiny.zip"),
        soars_line("bundle import inputs/tiny.zip"),
        soars_line("bundle import inputs/tiny --overwrite"),
        soars_line("bundle needs tiny"),
        soars_line("bundle get tiny"),
        soars_line("bundle remove tiny"),
        soars_line("network add pacs --host pacs.example.org --port 104 --ae-title A --web https://pacs.example.org/a"),
        soars_line("network list"),
        soars_line("network remove pacs"),
        soars_line("catalogue list"),
        soars_line("catalogue resolve brain_stem"),
        soars_line("catalogue write-slicer out/"),
    ],
    "studies": [
        soars_line("study new out/lead --cts inputs/many --bundle inputs/tiny --readers R1,R2"),
        soars_line("study prepare out/lead --device cpu"),
        soars_line("study worklist out/lead"),
        soars_line("study status out/lead"),
        soars_line("study simulate --output out/study --cases 3 --scratch 1 --processes 1"),
        soars_line("study collect out/study --csv out/rows.csv"),
        soars_line("study summarize out/study --output out/results --times-only"),
        soars_line("study power --saving 0.3 --cases 4 --simulations 20 --csv out/power.csv --plot out/power.png"),
    ],
    "training": [
        train_line("distil inputs/many out/cohort --bundle inputs/tiny --device cpu"),
        train_line("prepare out/cache --list inputs/cases.json --spacing 4"),
        train_line("plan out/cache"),
        train_line(f"search out/cache out/searched {ANCHORS} {SMALL_NET}"),
        train_line(f"fit out/cache out/anchor {ANCHORS} {SMALL_FIT}"),
        train_line("guide out/cache out/anchor out/guide --device cpu"),
        train_line(f"fit out/cache out/mid {GUIDED} --guide out/guide {SMALL_FIT}"),
        train_line(f"finetune out/cache out/anchor out/mid out/both {SMALL}"),
        train_line("export out/made out/both/anchor out/both/mid_level --description d --licence none"),
        train_line("evaluate out/made --list inputs/cases.json --csv out/dsc.csv --engine torch"),
        train_line("calibrate inputs/tiny out/calibrated --list inputs/cases.json"),
    ],
    "experiments": [
        train_line("prepare out/cohort-cache --list inputs/cases.json --spacing 4"),
        train_line(f"crossval out/cohort-cache out/folds --folds 2 {ANCHORS} {SMALL_NET}"),
        train_line(f"fit-system deepmind out/cohort-cache out/slices {SMALL_SYSTEM}"),
        train_line(f"ablate out/cohort-cache out/ablation {SMALL_ABLATION}"),
        train_line("baseline out/ablation --system deepmind --seeds 1 --device cpu"),
        train_line("compare out/ablation"),
    ],
}  # fmt: skip
SLOW = {"contours", "studies", "training", "experiments"}
"""They draw figures, start processes that import everything again, or export from torch to ONNX."""

ARCHIVE = [
    soars_line("network add local --host 127.0.0.1 --ae-title PACS --overwrite"),
    soars_line("network echo local"),
    soars_line("network send local IMAGE"),
    soars_line(f"network find local --study {STUDY}"),
    soars_line(f"network fetch local --study {STUDY} --series {SERIES} --output out/fetched"),
]
SERVE = [soars_line("serve inputs/node.yaml")]
OTHERS = [
    soars_line("bundle import-nnunet inputs/Dataset001_Tiny --name tiny-nnunet"),
    soars_line("segment inputs/ct.nrrd --output out/nnunet --bundle tiny-nnunet --device cpu"),
    soars_line("segment inputs/ct.nrrd --output out/total --bundle totalsegmentator --organs SpinalCord --device cpu"),
]  # fmt: skip


def test_no_command_is_left_out() -> None:
    """A new command has to be added to the watched ones above."""
    lines = [line for group in (*GROUPS.values(), ARCHIVE, SERVE, OTHERS) for line in group]
    watched = {command_of(line) for line in lines}
    assert len(watched) > 40
    assert every_command() - watched == set()


@watching
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in GROUPS])
def test_no_connection_no_look_up_and_no_file_elsewhere(place: Path, name: str) -> None:
    """Commands that belong together run in one process, so that what they all import is imported once."""
    code = TINY_PATIENTS.replace("INPUTS", str(place / "inputs")) if name in ("contours", "studies") else ""
    check(place, run_watched(place, GROUPS[name], code))


@watching
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


@watching
@pytest.mark.slow  # nnU-Net imports all of its trainers
def test_models_of_others_are_as_quiet(place: Path) -> None:
    """TotalSegmentator reports every run to its publishers and fetches what is missing, unless it is kept from it."""
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    pytest.importorskip("totalsegmentator", reason="TotalSegmentator is not installed")
    subprocess.run(
        [sys.executable, "-c", WITHOUT_TIMM + MODELS],
        check=True,
        capture_output=True,
        env=environment_of(place),
    )
    for (
        command
    ) in OTHERS:  # each alone: a command forks, which torch's threads of an earlier one do not survive
        check(place, run_watched(place, [command], WITHOUT_TIMM))


PEERS = (
    LOOPBACK
    + """
from pathlib import Path
from pynetdicom import AE, evt
from web_archive import Archive, serving
keep = serving(Archive())
address = keep.__enter__()
node = AE("PACS")
for uid in ("1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.481.3"):
    node.add_supported_context(uid)
node.require_called_aet = True
taken = []
def take(event):
    taken.append(event.request.AffectedSOPClassUID)
    return 0
port = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)]).server_address[1]
"""
)
ADDED = 'commands[0] += ["--port", str(port), "--web", address]\n'


@watching
def test_an_archive_on_this_computer_is_all_that_network_talks_to(place: Path) -> None:
    pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
    pytest.importorskip("requests", reason="requests is not installed")
    image = str(next((place / "inputs" / "dicom").iterdir()))
    commands = [[image if word == "IMAGE" else word for word in command] for command in ARCHIVE]
    check(place, run_watched(place, commands, PEERS + ADDED), archive=True)
    assert len(list((place / "out" / "fetched").iterdir())) == 3


SENDER = """
import os, signal, threading, time, yaml
import pydicom
from pynetdicom import AE
settings = Path(commands[0][-1])
content = yaml.safe_load(settings.read_text())
with socket.socket() as one, socket.socket() as other:
    for each in (one, other):
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in (one, other)]
content |= {"listen": {"port": ports[0]}, "status": {"port": ports[1]}, "poll": {"pacs": {"web": address}}}
content["destinations"] = {"tps": {"host": "127.0.0.1", "port": port, "ae_title": "PACS"}}
(settings.parent.parent / "out" / "node.yaml").write_text(yaml.safe_dump(content))
commands[0][-1] = str(settings.parent.parent / "out" / "node.yaml")
ends_with["serve"] = 130
def send_and_end():
    begun = time.monotonic()
    try:
        scanner = AE("SCANNER")
        scanner.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
        while not (association := scanner.associate("127.0.0.1", ports[0], ae_title="SOARS")).is_established:
            time.sleep(0.2)
        for image in (settings.parent / "dicom").iterdir():
            association.send_c_store(pydicom.dcmread(image))
        association.release()
        done = settings.parent.parent / "out" / "node" / "done"
        while not (taken and done.is_dir() and any(done.iterdir())) and time.monotonic() - begun < 120:
            time.sleep(0.1)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=send_and_end, daemon=True).start()
"""


@watching
@pytest.mark.slow  # the worker imports everything again
def test_a_node_talks_to_the_peers_of_its_settings_alone(place: Path) -> None:
    """A CT comes, is contoured, and its contours are sent, while an archive is polled."""
    pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
    pytest.importorskip("requests", reason="requests is not installed")
    settings = {
        "schema": 1, "state": str(place / "out" / "node"), "complete": {"quiet_s": 0.2}, "limits": {"free_gb": 0},
        "rules": [{"name": "all", "bundle": str(place / "inputs" / "tiny"), "device": "cpu", "send": ["tps"]}],
    }  # fmt: skip
    (place / "inputs" / "node.yaml").write_text(yaml.safe_dump(settings))
    check(place, run_watched(place, SERVE, PEERS + SENDER), archive=True)
    (done,) = (place / "out" / "node" / "done").iterdir()
    assert json.loads((done / "case.json").read_text())["settled"] == {"tps": "sent"}


@watching
def test_the_network_really_is_away_and_would_have_been_seen(place: Path) -> None:
    """The watch itself: a connection that a program of the same kind tries is in the log."""
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError as e: print(e)"
    log = place / "watch.log"
    done = subprocess.run(
        [*(ALONE or []), "strace", "-f", "-e", "trace=connect", "-o", str(log), sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "unreachable" in done.stdout and "AF_INET" in log.read_text()
