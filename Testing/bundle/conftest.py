"""An empty home for bundles, and a good one."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_bundles import empty_home, make_bundle


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_home(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good bundle of all four branches; the weights have no meaning."""
    return make_bundle(tmp_path / "tiny")
