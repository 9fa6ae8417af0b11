"""What lies in deploy/ fits the program it runs, as far as that can be seen without building images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from soars.cli import main
from soars.node.config import read_config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def test_the_settings_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", str(DEPLOY / "node.yaml")]) == 0
    assert "can be used" in capsys.readouterr().out
    documented = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "node.md").read_text("utf-8"), re.DOTALL)
    assert documented is not None and set(yaml.safe_load(documented[1])) <= set(
        yaml.safe_load((DEPLOY / "node.yaml").read_text())
    )


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.cuda"])
def test_a_container_copies_what_is_there_and_runs_as_nobody_in_particular(name: str) -> None:
    text = (DEPLOY / name).read_text().replace("\\\n", " ")
    commands = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] not in "# "]
    bases = [argument.split()[0] for command, argument in commands if command == "FROM"]
    assert bases and all(re.search(r":\d", base) for base in bases), "a base is pinned"
    for command, argument in commands:
        if command == "COPY" and not argument.startswith("--from"):
            assert all((ROOT / source).exists() for source in argument.split()[:-1]), argument
    (extras,) = re.findall(r"/src\[([\w,]+)\]", text)
    tomllib = pytest.importorskip("tomllib", reason="part of Python since 3.11")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= known.keys()
    users = [argument for command, argument in commands if command == "USER"]
    assert users and not users[-1].startswith(("root", "0"))
    status = yaml.safe_load((DEPLOY / "node.yaml").read_text())["status"]
    assert f":{status['port']}/health" in text


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (DEPLOY / "soars-node.service").read_text()
    program = shutil.which("true") or "/bin/true"
    (tmp_path / "soars-node.service").write_text(unit.replace("/opt/soars/bin/soars", program))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "soars-node.service")],
        capture_output=True, text=True,
    )  # fmt: skip
    about_us = [line for line in (done.stdout + done.stderr).splitlines() if "soars-node.service" in line]
    assert about_us == []
    config = read_config(DEPLOY / "node.yaml")
    assert Path("/var/lib/soars") in config.state.parents, "the unit may write only there"


def test_slurm_gets_every_case_once(tmp_path: Path) -> None:
    """With a stand-in for sbatch that runs the jobs of an array at once, and one for soars that notes its list."""
    (tmp_path / "sbatch").write_text(
        "#!/bin/sh\n"
        'for a in "$@"; do case "$a" in --array=0-*) last=${a#--array=0-};; --wrap=*) wrap=${a#--wrap=};; esac; done\n'
        'if [ -n "${wrap:-}" ]; then eval "$wrap"; exit; fi\n'
        'while [ "${1#-}" != "$1" ]; do shift; done\n'
        'i=0; while [ $i -le $last ]; do SLURM_ARRAY_TASK_ID=$i "$@" >&2; i=$((i + 1)); done; echo 77\n'
    )
    (tmp_path / "soars").write_text(f'#!/bin/sh\nlist=$2; shift 2; echo "$*" >> {tmp_path}/asked\n'
                                    f"tail -n +2 \"$list\" >> {tmp_path}/seen\n")  # fmt: skip
    for name in ("sbatch", "soars"):
        (tmp_path / name).chmod(0o755)
    cases = [f"case{n},/data/{n}" for n in range(11)]
    (tmp_path / "list.csv").write_text("\n".join(["case,ct", *cases]) + "\n")
    subprocess.run(
        [str(DEPLOY / "slurm.sh"), str(tmp_path / "list.csv"), str(tmp_path / "out dir"), "3", "--organs", "Brainstem"],
        check=True, cwd=ROOT, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    seen = (tmp_path / "seen").read_text().split()
    assert sorted(seen[:11]) == sorted(cases) and seen[11:] == cases, "the array, then the tables over all"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"{tmp_path}/out dir --organs Brainstem --progress none"] * 4
