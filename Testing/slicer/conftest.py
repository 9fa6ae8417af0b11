"""What the tests on Slicer's real MRML core may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def core() -> Iterator[Any]:
    """A freshly booted core (`mrml_core.Core`); skips where slicer-core is not installed."""
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    from mrml_core import boot

    core = boot()
    yield core
    core.close()


@pytest.fixture
def application(core: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Slicer's application as far as a module needs it (`slicer_standins.Application`); skips without PySide6."""
    pytest.importorskip("PySide6.QtWidgets", reason="PySide6 cannot be used here", exc_type=ImportError)
    from slicer_standins import running_application

    monkeypatch.setenv("SOARS_BUNDLES", str(tmp_path / "bundles"))
    folder = tmp_path / "application"
    folder.mkdir()
    with running_application(core, folder) as application:
        yield application


@pytest.fixture
def visit(application: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user before the opened module (`module_visit.Visit`)."""
    from module_visit import Visit

    return Visit(application, root, monkeypatch)
