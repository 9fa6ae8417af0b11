"""Programs run where there is no network, and watched for trying: strace in a namespace that has the loopback alone."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import soars.cli
import soars_training
import soars_training.cli

SOURCES = [
    str(Path(soars.cli.__file__).parents[1]),
    str(Path(soars_training.__file__).parents[1]),
    str(Path(__file__).parent),
]
CALLS = (
    "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat"
)
FOLDERS = ("home", "cache", "temporary", "out", "elsewhere", "inputs")
"""Of a watched program: what it may read is in `inputs`, what it may write to is `cache`, `temporary` and `out`."""
PARSERS = {"soars.cli": soars.cli.build_parser, "soars_training.cli": soars_training.cli.build_parser}

DRIVER = """
import importlib, json, sys
if __name__ == "__main__":
    code, commands = json.loads(sys.argv[1])
    ends_with = {}
    exec(code)
    for program, *arguments in commands:
        ended = importlib.import_module(program).main(arguments)
        if ended != ends_with.get(arguments[0], 0):
            sys.exit(f"{program} {' '.join(arguments)}: exit code {ended}")
"""
"""Runs several commands, so that what they all import is imported once. Code that goes before may change `commands`,
and say in `ends_with` that a command has another exit code than 0."""

LOOPBACK = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
"""
"""Code that goes before commands that may talk to this computer."""


def _namespace() -> list[str] | None:
    """How a command is run with loopback only, None where this machine does not let us."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        try:
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
        except OSError:
            return None
    return None


def can_watch() -> bool:
    try:
        traced = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True).returncode
        return ALONE is not None and traced == 0
    except OSError:
        return False


ALONE = _namespace() if sys.platform.startswith("linux") else None


def soars_line(line: str) -> list[str]:
    """A command of `soars`, for `DRIVER`."""
    return ["soars.cli", *line.split()]


def train_line(line: str) -> list[str]:
    """A command of `soars-train`, for `DRIVER`."""
    return ["soars_training.cli", *line.split()]


def every_command() -> set[str]:
    """All commands with their actions, such as "soars.cli study new", as the parsers know them."""
    return {" ".join([program, *words]) for program, build in PARSERS.items() for words in _leaves(build())}


def command_of(line: Sequence[str]) -> str:
    """Which of `every_command` a line is."""
    program, *arguments = line
    parser, words = PARSERS[program](), [program]
    for argument in arguments:
        choices = _choices(parser)
        if argument in choices:
            words.append(argument)
            parser = choices[argument]
    assert not _choices(parser), f"{' '.join(line)}: is not a whole command"
    return " ".join(words)


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: sub for choices in found for name, sub in choices.items()}


def _leaves(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    choices = _choices(parser)
    if not choices:
        yield []
    for name, sub in choices.items():
        yield from ([name, *words] for words in _leaves(sub))


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
            inside = any(path == one or path.startswith(f"{one}/") for one in (*allowed, "/dev", "/proc"))
            assert inside, f"{path} was made: {call}"
    for folder in ("home", "elsewhere"):
        assert list((place / folder).rglob("*")) == [], f"something is in {folder}"


def run_watched(place: Path, commands: Sequence[Sequence[str]], code: str = "") -> str:
    """Run commands of `DRIVER` one after the other; words that begin with ``inputs/`` or ``out/`` are below `place`."""
    lines = [[re.sub(r"^(inputs|out)/", rf"{place}/\1/", word) for word in command] for command in commands]
    return traced(place, "-c", DRIVER, json.dumps([code, lines]))
