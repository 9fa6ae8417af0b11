"""The documentation names files that exist and commands that the programs accept."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from soars.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("SOARSSegmentation", "training", "Testing", "docs", "examples", "Resources")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")),
    ]
)
FILES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")))
]

PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def test_there_are_pages_and_commands() -> None:
    assert len(PAGES) > 20
    assert len({page for page in PAGES if list(_command_lines(page.read_text("utf-8")))}) >= 8


@PAGE
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{link} leads nowhere"
        if heading:
            assert heading in _headings(target.read_text("utf-8")), f"{link} names no heading"


def test_messages_that_troubleshooting_explains_are_the_programs() -> None:
    """Of a message with `...` or `N` for what varies, each part between them stands in the source."""
    source = "\n".join(
        p.read_text("utf-8") for p in sorted((ROOT / "SOARSSegmentation" / "soars").rglob("*.py"))
    )
    source = " ".join(re.sub(r'"\s*\n\s*f?"', "", source).split())
    rows = [
        line.split("|")[1]
        for line in (ROOT / "docs" / "troubleshooting.md").read_text("utf-8").splitlines()
        if line.startswith("| `")
    ]
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(messages) > 10
    for message in messages:
        for part in re.split(r"\.\.\.|\bN\b|'parotid'|'Parotid_L'|cuda(?::1)?", message):
            assert part.strip(" ;") in source, f"no message says {part!r} of {message!r}"


@PAGE
def test_files_that_are_named_exist(page: Path) -> None:
    named = [word for code in re.findall(r"`([^`\n]+)`", page.read_text("utf-8")) for word in code.split()]
    for name in named:
        if (
            re.fullmatch(r"[\w./*-]+\.py|(?:Testing|docs|training|SOARSSegmentation)/[\w./*-]+", name)
            and name != "utils.py"
        ):
            assert _is_there(name.rstrip("/")), f"there is no {name}"


@PAGE
def test_commands_are_accepted(page: Path) -> None:
    parsers = _parsers()
    for program, *words in _command_lines(page.read_text("utf-8")):
        try:
            parsers[program].parse_args(words)
        except SystemExit as end:  # --help and --version end with 0
            assert end.code == 0, f"{program} {shlex.join(words)}"


@PAGE
def test_commands_in_sentences_have_their_options(page: Path) -> None:
    parsers = _parsers()
    for code in re.findall(r"(?<!`)`((?:soars|soars-train) [^`]+)`(?!`)", page.read_text("utf-8")):
        program, *words = code.split("|")[0].split()
        parser = parsers[program]
        for word in words:
            parser = _choices(parser).get(word, parser)
        known = {option for action in parser._actions for option in action.option_strings}
        unknown = {word.split("=")[0] for word in words if word.startswith("-")} - known
        assert not unknown, f"`{code}`: no option {unknown}"
        if re.fullmatch("[a-z][a-z-]*", words[0]):
            assert words[0] in _choices(parsers[program]), f"`{code}`: no such command"


def _parsers() -> dict[str, argparse.ArgumentParser]:
    training = pytest.importorskip("soars_training.cli", reason="training is not installed: make test")
    return {"soars": build_parser(), "soars-train": training.build_parser()}


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's commands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _command_lines(text: str) -> Iterator[list[str]]:
    """Program and arguments of every line in a block of code that runs one of ours; shell variables are filled in."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        variables: dict[str, str] = {}
        for line in block.splitlines():
            if setting := re.fullmatch(r'([A-Z]+)="(.*)"', line.strip()):
                variables[setting[1]] = setting[2]
            elif re.match(r"(\.venv/bin/)?soars(-train)? ", line.strip()):
                filled = re.sub(r"\$([A-Z]+)", lambda name, values=variables: values[name[1]], line)
                program, *words = shlex.split(filled, comments=True)
                yield [program.rsplit("/", 1)[-1], *words]


def _headings(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def _is_there(name: str) -> bool:
    return any(fnmatch(file, name) or fnmatch(file, f"*/{name}") for file in FILES)
