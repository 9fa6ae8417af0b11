"""`soars segment-all --ray`: a real Ray on this machine with two workers, one of which is killed midway."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import SimpleITK as sitk
from tiny_bundle import patient, write_tiny_bundle

from soars.cli import main

if importlib.util.find_spec("ray") is None:  # importing it takes a second, which collecting tests need not
    pytest.skip("ray is not installed: pip install 'soars-segmentation[ray]'", allow_module_level=True)
psutil = pytest.importorskip("psutil")

CASES = "abcdef"


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    (tmp_path / "in").mkdir()
    for name in CASES:
        sitk.WriteImage(patient().image, str(tmp_path / "in" / f"{name}.nrrd"))
    (tmp_path / "in" / "broken.nrrd").write_bytes(b"NRRD0004\n")
    return ["segment-all", str(tmp_path / "in"), str(tmp_path / "out"), "--bundle", str(bundle),
            "--ray", "local", "--ray-workers", "2", "--ray-cores", "1", "--progress", "none"]  # fmt: skip


@pytest.mark.slow  # Ray alone needs some seconds to start
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="finds Ray's workers by their names in Linux"
)
def test_a_killed_worker_costs_no_case_and_doubles_none(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "soars.cli", *command], stdout=log, stderr=log)
        try:
            killed = _kill_a_worker_once_it_works(process.pid, out)
            assert killed, (tmp_path / "log").read_text()
            assert process.wait(300) == 2, (tmp_path / "log").read_text()
        finally:
            process.kill()
    said = (tmp_path / "log").read_text()
    assert "a worker was lost" in said and "broken was left out" in said
    with (out / "cases.csv").open(newline="") as file:
        states = {row["case"]: row["state"] for row in csv.DictReader(file)}
    assert {case for case, state in states.items() if state in ("segmented", "up to date")} == set(CASES)
    assert states["broken"] == "failed"
    for case in CASES:
        assert json.loads((out / case / "batch.json").read_text())["case"] == case
    assert not [path for path in out.rglob(".soars-*")], "what the killed worker was writing is swept"
    before = {case: (out / case / "run.json").read_bytes() for case in CASES}
    alone = command[: command.index("--ray")] + ["--progress", "none"]
    assert main(alone) == 2, "the same batch without Ray finds everything done"
    assert {case: (out / case / "run.json").read_bytes() for case in CASES} == before


def _kill_a_worker_once_it_works(pid: int, out: Path) -> bool:
    end = time.monotonic() + 300
    while time.monotonic() < end and psutil.pid_exists(pid):
        workers = []
        for child in psutil.Process(pid).children(recursive=True):
            try:
                if child.cmdline() and child.cmdline()[0].startswith("ray::_Worker"):
                    workers.append(child.pid)
            except psutil.Error:
                continue
        if len(workers) == 2 and out.is_dir() and any(out.iterdir()):  # the first has begun: both have a case
            os.kill(workers[0], signal.SIGKILL)
            return True
        time.sleep(0.01)
    return False


def test_workers_that_all_die_at_once_are_not_the_fault_of_the_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster where SOARS is not installed: told once, and not as damage of every CT."""
    from contextlib import contextmanager

    import ray

    from soars.errors import EngineError
    from soars.progress import ignore
    from soars.service import cluster
    from soars.service.cases import BatchCase
    from soars.service.segmenter import BatchOptions

    class Dead:
        """Ray as far as the batch calls it, with workers that never come up."""

        exceptions = ray.exceptions

        def wait(self, references, timeout):
            return references[:1], references[1:]

        def get(self, reference):
            raise ray.exceptions.RayActorError

    class Actor:
        class settle:
            @staticmethod
            def remote(case, output):
                return object()

    dead = Dead()

    @contextmanager
    def connected(asked):
        yield dead

    monkeypatch.setattr(cluster, "_connected", connected)
    monkeypatch.setattr(cluster, "_actors", lambda ray, asked, options, bundle: (Actor, 2))
    bundle = write_tiny_bundle(tmp_path / "tiny")
    cases = [BatchCase(str(n), tmp_path / "a.nrrd") for n in range(50)]
    with pytest.raises(EngineError, match="no worker of the cluster can work"):
        cluster.run_on_ray(cases, tmp_path, BatchOptions(str(bundle)), cluster.Cluster("local"), ignore)


def test_options_of_ray_without_ray_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sitk.WriteImage(patient().image, str(tmp_path / "a.nrrd"))
    assert main(["segment-all", str(tmp_path), str(tmp_path.with_name("out")), "--ray-workers", "2"]) == 2
    assert "belong to --ray" in capsys.readouterr().err
    assert main(["segment-all", str(tmp_path), str(tmp_path.with_name("out")), "--ray-workers", "0"]) == 2
