"""What the tests on Slicer's real MRML core may use."""

from __future__ import annotations

from collections.abc import Iterator
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
