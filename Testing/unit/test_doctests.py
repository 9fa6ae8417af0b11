"""The examples in docstrings of the core run and give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "SOARSSegmentation"


def modules_with_examples() -> list[str]:
    """Dotted names of the core's modules that hold a ``>>>`` example."""
    files = sorted((MODULE / "soars").rglob("*.py"))
    found = [path for path in files if ">>> " in path.read_text(encoding="utf-8")]
    return [
        ".".join(path.relative_to(MODULE).with_suffix("").parts).removesuffix(".__init__") for path in found
    ]


def test_some_modules_have_examples() -> None:
    assert modules_with_examples()


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0, "the example is in a place where doctest does not look"
    assert result.failed == 0
