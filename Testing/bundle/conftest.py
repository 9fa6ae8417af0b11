"""An empty home for bundles, and a good one."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_bundles import make_bundle

import soars.bundle.store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's bundle folder and a place for shipped bundles, both empty."""
    monkeypatch.setenv("SOARS_BUNDLES", str(tmp_path / "home"))
    monkeypatch.setattr(soars.bundle.store, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good bundle of all four branches; the weights have no meaning."""
    return make_bundle(tmp_path / "tiny")
