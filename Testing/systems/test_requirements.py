"""What systems are run by is what the project's extras bring, and is known without any of it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from soars.bundle.store import load_bundle
from soars.systems import trained
from soars.systems.composite.plan import READER
from soars.systems.nnunet import system as nnunet
from soars.systems.registry import Requirements, requirements_of
from soars.systems.totalsegmentator import package


@pytest.fixture
def project(root: Path) -> Any:
    tomllib = pytest.importorskip("tomllib", reason="part of Python since 3.11")
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("extra", "requirements"),
    [
        ("nnunet", nnunet.REQUIREMENTS),
        ("totalsegmentator", package.REQUIREMENTS),
        ("torch", trained.REQUIREMENTS),
    ],
)
def test_they_are_those_of_the_extras(project: Any, extra: str, requirements: tuple[str, ...]) -> None:
    assert requirements and set(requirements) <= set(project["optional-dependencies"][extra])


def test_the_core_brings_what_a_plan_is_read_with(project: Any) -> None:
    assert set(READER) <= set(project["dependencies"])


def test_a_composite_needs_its_reader_and_may_do_without_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Requirements(READER, package.REQUIREMENTS)
    assert requirements_of(load_bundle("monday")) == everything
    assert requirements_of(load_bundle("totalsegmentator")) == Requirements(package.REQUIREMENTS)
    assert requirements_of(load_bundle("starter")) == Requirements()
    # Installed or not, they are the same; but what a plan says is not known before it can be read.
    real = importlib.metadata.version
    gone = {"TotalSegmentator"}

    def version(name: str) -> str:
        if name in gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert requirements_of(load_bundle("monday")) == everything
    gone.add("PyYAML")
    assert requirements_of(load_bundle("monday")) == Requirements(READER)
