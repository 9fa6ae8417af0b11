"""The public modules say what they offer, and each thing that they offer is described."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
MODULES = re.findall(r"^\| `(soars[\w.]*)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_lists_modules() -> None:
    assert len(MODULES) > 8 and len(set(MODULES)) == len(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_is_described(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__ and module.__doc__.strip()
    assert module.__all__ == sorted(
        module.__all__, key=lambda word: (not word.isupper(), not word[0].isupper(), word)
    )
    for word in module.__all__:
        thing = getattr(module, word)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{word} has no docstring"
