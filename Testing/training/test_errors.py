"""`soars-train` ends every mistake and every interruption in one line, as `soars` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from soars_training import cli


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "cache"], "soars-train prepare --help"),
        (["prepare", "cache", "--phantoms", "none"], "--phantoms"),
        (["no-such-command"], "invalid choice"),
        (["fit", "no_cache", "run", "--branch", "anchor"], "no_cache"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("soars-train: error: ")
    assert says in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "soars-train: error: cancelled"),
        (OSError(28, "No space left on device", "a.npz"), 2, "the disk is full"),
        (ValueError("two\nlines"), 1, "soars-train: internal error: ValueError: two lines"),
    ],
)
def test_any_error_ends_in_one_line(
    error: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(args: object) -> None:
        raise error

    monkeypatch.setattr("soars_training.commands.plan.run", fail)
    assert cli.main(["plan", "cache"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
