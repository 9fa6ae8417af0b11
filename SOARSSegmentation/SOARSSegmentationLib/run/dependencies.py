"""Python packages that Slicer does not bring: which are missing, asking for them, and what will run then.

They are asked for when the user presses Apply, never when the module is loaded. What is installed is read from the
packages' metadata; nothing heavy is imported to find out. PyTorch comes through the PyTorch extension, which chooses
the build that suits the graphics driver.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import slicer

from soars.errors import InputError
from soars.systems.packages import oldest_versions
from SOARSSegmentationLib.translation import _

REQUESTER = "SOARS Segmentation"


@dataclass(frozen=True)
class Requirement:
    """A package from ``oldest`` on, what it is for, and about how much is downloaded for it."""

    name: str
    oldest: str
    why: str
    size_mb: int

    @property
    def specifier(self) -> str:
        """For pip."""
        return f"{self.name}>={self.oldest}"


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA graphics card."""

    name: str
    memory_gb: float


def always() -> tuple[Requirement, ...]:
    """What every run needs. Slicer brings numpy, scipy, SimpleITK and pydicom itself."""
    return (_requirement("slicerio", _("reads and writes segmentation files"), 2),)


def on_cpu() -> tuple[Requirement, ...]:
    return (_requirement("onnxruntime", _("runs the networks on the processor"), 30),)


def on_gpu() -> tuple[Requirement, ...]:
    return (
        _requirement("torch", _("runs the networks on the graphics card"), 2800),
        _requirement("safetensors", _("reads the networks' weights for PyTorch"), 1),
    )


def for_systems() -> tuple[Requirement, ...]:
    """What models of other systems than the cascade are run by, with the packages that these bring. torch comes first:
    they would bring a build of their own."""
    return (
        *on_gpu(),
        _requirement("PyYAML", _("reads which model gives which organ"), 1),
        _requirement("nnunetv2", _("runs nnU-Net's models"), 150),
        _requirement("TotalSegmentator", _("runs TotalSegmentator's models"), 200),
    )


def known(specifiers: Iterable[str]) -> tuple[Requirement, ...]:
    """The packages that a model's system names ("nnunetv2>=2.5"), with PyTorch before those that need it."""
    names = {one.partition(">=")[0] for one in specifiers}
    if names & {"nnunetv2", "TotalSegmentator"}:
        names |= {one.name for one in on_gpu()}
    return tuple(one for one in for_systems() if one.name in names)


def _requirement(name: str, why: str, size_mb: int) -> Requirement:
    return Requirement(name, oldest_versions()[name], why, size_mb)


# --- what is there -----------------------------------------------------------------------------------------------
def version_of(name: str) -> str | None:
    """The installed version of a package, None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def find_gpu() -> Gpu | None:
    """The first NVIDIA graphics card by its driver's own tool, None when there is none; takes about 10 ms."""
    tool = shutil.which("nvidia-smi")
    if tool is None and os.name == "nt":
        tool = shutil.which(
            "nvidia-smi", path=os.path.join(os.environ.get("SYSTEMROOT", "C:\\Windows"), "System32")
        )
    if tool is None:
        return None
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5.0,
            check=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpu(answer)


class GpuSearch:
    """Looks for a graphics card on its own thread: a driver that has to wake up takes seconds to answer."""

    def __init__(self) -> None:
        self._gpu: Gpu | None = None
        self._thread = threading.Thread(target=self._find, name="soars-gpu", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> Gpu | None:
        """The card, None when there is none; waits for the answer."""
        self._thread.join()
        return self._gpu

    def _find(self) -> None:
        self._gpu = find_gpu()


def parse_gpu(answer: str) -> Gpu | None:
    """The first card of ``nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits`` (MiB)."""
    for line in answer.splitlines():
        name, comma, memory = line.rpartition(",")
        if comma and memory.strip().isdigit():
            return Gpu(name.strip(), round(int(memory) / 1024, 1))
    return None


def wants_gpu(device: str, gpu: Gpu | None) -> bool:
    """Whether a run on this device ("auto", "cpu", "cuda") will want PyTorch for a graphics card.

    "auto" does where there is a card and PyTorch, or Slicer's PyTorch extension, which can install it.
    """
    if device == "auto":
        return gpu is not None and (version_of("torch") is not None or can_install_torch())
    return device == "cuda"


def can_install_torch() -> bool:
    """Whether Slicer's PyTorch extension is there."""
    try:
        return importlib.util.find_spec("PyTorchUtils") is not None
    except ValueError:  # a module without a specification, there all the same
        return True


def missing(device: str, gpu: Gpu | None = None) -> list[Requirement]:
    """What a run of the cascade on this device needs that is not installed or is too old."""
    return not_there((*always(), *(on_gpu() if wants_gpu(device, gpu) else on_cpu())))


def not_there(requirements: Iterable[Requirement]) -> list[Requirement]:
    """Those that are not installed, or too old."""
    return [one for one in requirements if not _at_least(version_of(one.name), one.oldest)]


def device_sentence(device: str, gpu: Gpu | None = None) -> str:
    """Where the next run will take place and with what, as far as can be known before it."""
    torch, onnx = version_of("torch"), version_of("onnxruntime")
    processor = _("the processor ({count} threads)").format(count=os.cpu_count() or 1)
    with_onnx = (
        _("ONNX Runtime {version}").format(version=onnx) if onnx else _("ONNX Runtime, asked for at Apply")
    )
    if device == "cuda" and gpu is None:
        return _("No NVIDIA graphics card was found: choose another device.")
    if not wants_gpu(device, gpu):
        text = _("Will run on {device} with {engine}: some minutes a CT.").format(
            device=processor, engine=with_onnx
        )
        if device == "auto" and gpu is not None:
            text += " " + _("To use {card}, install the PyTorch extension in the Extensions Manager.").format(
                card=gpu.name
            )
        return text
    assert gpu is not None
    card = _("the graphics card ({name}, {memory:.0f} GB)").format(name=gpu.name, memory=gpu.memory_gb)
    if torch is None:
        return _("Will run on {device} with PyTorch, asked for at Apply ({size:.0f} GB).").format(
            device=card, size=on_gpu()[0].size_mb / 1000
        )
    if torch.endswith("+cpu"):
        if device == "cuda":
            return _(
                "The installed PyTorch is built for the processor only: install it again by PyTorch Utils."
            )
        return _(
            "Will run on {device}, as the installed PyTorch is built for the processor only; to use {card}, install "
            "it again by PyTorch Utils."
        ).format(device=processor, card=card)
    return _("Will run on {device} with PyTorch {version}.").format(device=card, version=torch)


# --- asking and installing ---------------------------------------------------------------------------------------
def question(requirements: Sequence[Requirement]) -> tuple[str, str]:
    """What to ask before installing: a sentence, and the list of packages."""
    size = sum(one.size_mb for one in requirements)
    text = _(
        "{count} Python packages are to be installed into Slicer (about {size} to download). Go on?"
    ).format(count=len(requirements), size=_size(size))
    lines = (f"{one.specifier}: {one.why} ({_size(one.size_mb)})" for one in requirements)
    return text, "\n".join(lines)


def ask_and_install(
    requirements: Sequence[Requirement],
    *,
    ask: Callable[[str, str], bool] | None = None,
    install: Callable[[list[str]], None] | None = None,
    install_torch: Callable[[str], Any] | None = None,
) -> None:
    """Ask once for all packages, with their sizes, and install them; does nothing when there are none.

    ``ask(text, details)``, ``install(specifiers)`` and ``install_torch(version)`` are Slicer's own when not given.
    `InputError` when the user declines, something cannot be installed, or is still not there afterwards.
    """
    if not requirements:
        return
    text, details = question(requirements)
    if not (ask or _ask)(text, details):
        raise InputError(
            "the packages were not installed, so nothing can run: press Apply again, or choose another device"
        )
    plain = [one for one in requirements if one.name != "torch"]
    torch = [one for one in requirements if one.name == "torch"]
    try:
        if torch:  # first: what is installed after it keeps to it
            (install_torch or _install_torch)(f">={torch[0].oldest}")
        if plain:
            (install or _install)([one.specifier for one in plain])
    except InputError:
        raise
    except Exception as error:  # pip's failures are of many kinds
        raise InputError(
            f"the packages could not be installed ({' '.join(str(error).split())[:200]}): check the network, then see "
            "the log for what pip said"
        ) from error
    importlib.invalidate_caches()
    still = [one.specifier for one in not_there(requirements)]
    if still:
        raise InputError(
            f"still not installed: {', '.join(still)}; install by hand, or choose another device"
        )


def _ask(text: str, details: str) -> bool:
    return bool(slicer.util.confirmOkCancelDisplay(text, REQUESTER, detailedText=details))


def _install(specifiers: list[str]) -> None:
    for name in ("slicer.pydeps", "slicer.packaging"):  # the same module: renamed after 5.11
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module, "pip_ensure"):
            from packaging.requirements import Requirement as Specified

            module.pip_ensure(
                [Specified(text) for text in specifiers], prompt_install=False, requester=REQUESTER
            )
            return
    slicer.util.pip_install(specifiers)


def _install_torch(version: str) -> None:
    try:
        import PyTorchUtils
    except ImportError as error:
        raise InputError(
            "PyTorch is installed by Slicer's PyTorch extension, which is not there: install it in the Extensions "
            'Manager and start Slicer again, or choose the device "CPU"'
        ) from error
    # Asked already. None is its answer when nothing was installed.
    if (
        PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=version)
        is None
    ):
        raise InputError('PyTorch could not be installed: see the log, or choose the device "CPU"')


def _at_least(version: str | None, oldest: str) -> bool:
    return version is not None and _numbers(version) >= _numbers(oldest)


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version: (2, 13, 0) of "2.13.0+cu128"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _size(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"
