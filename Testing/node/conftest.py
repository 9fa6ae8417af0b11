"""What tests of the node use: a tiny bundle, and patients it is for."""

from __future__ import annotations

import gc
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tiny_bundle import patient, write_tiny_bundle

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
pytest.importorskip("requests", reason="requests is not installed")

from soars.dicom.write import write_ct_series
from soars.node.spool import Spool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A node runs for months: what it leaves open to the garbage collector is a fault."""
    here = Path(__file__).parent
    strict = pytest.mark.filterwarnings(
        "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
    )
    for item in items:
        if here in item.path.parents:
            item.add_marker(strict, append=False)  # a test's own filters go before


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test has left is its own fault, not that of the test during which it would be collected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    yield
    gc.collect()


@pytest.fixture
def open_spool() -> Iterator[Callable[[Path], Spool]]:
    """Opens state folders, which are closed after the test."""
    with ExitStack() as stack:
        yield lambda home: stack.enter_context(Spool(home))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """The files of a patient's CT, by name, from feet to head; written once."""
    root = tmp_path_factory.mktemp("patients")
    image = patient().image

    def files(name: str, study: str = "Neck planning") -> list[Path]:
        folder = root / f"{name} {study}"
        if not folder.exists():
            write_ct_series(
                image, folder, patient_id=f"ID-{name}", patient_name=f"{name}^Secret", seed=name,
                study_description=study, series_description=f"of {name}",
            )  # fmt: skip
        return sorted(folder.iterdir())

    return files


@pytest.fixture(scope="session")
def storescu() -> None:
    if shutil.which("storescu") is None:
        pytest.skip("dcmtk's storescu is not installed")
