"""What every test may use."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STRICT = ("dicom", "slicer", "unit")
"""Folders in whose tests a warning is an error; the others run torch and nnU-Net, which warn a lot."""
WARNINGS = (
    "error",
    # what the garbage of some earlier test leaves open: shown, but not the fault of the test in which it is collected
    "default::ResourceWarning",
    "default::pytest.PytestUnraisableExceptionWarning",
    # of the programs that our figures are compared with
    "ignore::RuntimeWarning:surface_distance.metrics",
    "ignore::FutureWarning:monai.utils.deprecate_utils",
    "ignore::UserWarning:highdicom.base",
    # of files that are damaged on purpose
    "ignore:Unknown encoding:UserWarning:pydicom.charset",
)


def pytest_configure() -> None:
    """A shell has its background jobs and nohup's ignore signals, which tests, and the commands that they start, wait
    for."""
    if sys.platform == "win32":
        return
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutations",
        type=int,
        default=100,
        help="mutated files in all that Testing/dicom/test_mutated_files.py reads (default: %(default)s)",
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference tables beside the repository; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("../shared/data is not here: it holds patients' data and is not part of the repository")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the fixture `shared`, so that ``-m 'not shared'`` leaves it out, and make warnings errors."""
    for item in items:
        if item.path.relative_to(ROOT / "Testing").parts[0] in STRICT:
            # in front, so that what a test itself says of a warning counts more
            item.add_marker(pytest.mark.filterwarnings(*WARNINGS), append=False)
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
