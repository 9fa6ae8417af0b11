"""The drawing in docs/architecture.md is the code's own structure."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    registered = sys.modules.setdefault(spec.name, module)  # where dataclasses look for it
    spec.loader.exec_module(registered)
    return registered


def test_the_drawing_is_up_to_date(draw: ModuleType) -> None:
    assert draw.PICTURE.read_text(encoding="utf-8") == draw.drawing(), "python docs/draw_architecture.py"


def test_every_folder_is_described(draw: ModuleType) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = [part.title for part in draw.arrows() if part.title.endswith("/")]
    assert len(folders) > 20
    assert [folder for folder in folders if f"`{folder}`" not in text] == []


def test_a_circle_is_named(draw: ModuleType) -> None:
    a, b, c = (draw.Part("soars", name) for name in "abc")
    with pytest.raises(ValueError, match="circle: a/ -> b/ -> c/ -> a/"):
        draw.levels({a: {b}, b: {c}, c: {a}})


def test_arrows_that_follow_from_others_are_left_out(draw: ModuleType) -> None:
    a, b, c = (draw.Part("soars", name) for name in "abc")
    assert draw.reduced({a: {b, c}, b: {c}, c: set()}) == {a: {b}, b: {c}, c: set()}
