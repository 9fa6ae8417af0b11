"""What the systems share whose one network runs in torch on a working grid: UaNet and DeepMind's U-Net."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from soars.bundle.fields import check_keys, get_field, get_numbers, get_text, get_window, within
from soars.bundle.integrity import read_checked
from soars.bundle.manifest import SPACING_MM, Bundle
from soars.cascade.engine import EngineInfo
from soars.cascade.preprocess import Body, Grid, find_body, network_input
from soars.ct.images import CtScan
from soars.errors import BundleError, CancelledError, EngineError
from soars.progress import Progress, Reporter
from soars.structures import Geometry, StructureSet
from soars.systems.bundled import BundledSystem
from soars.systems.devices import running_on, torch_device
from soars.systems.finish import finish_structures, place_part
from soars.systems.interface import Drawn, SegmentOptions
from soars.systems.packages import requirements
from soars.systems.votes import vote

if TYPE_CHECKING:
    import torch

EXTRA = "torch"
REQUIREMENTS = requirements("torch", "safetensors")
"""The packages of the extra; a test compares them with pyproject.toml."""

Corner = tuple[int, int, int]
Step = Callable[[int, int], None]
"""Called with (parts done, parts in all); raises to stop."""
Finder = Callable[[np.ndarray, Collection[str], Step], "Found"]
"""Takes the CT, float32 [z, y, x], HU through the window, scaled to [-1, 1], air outside the body; and the organs that
are wanted. Gives those that the network finds."""
Found = Mapping[str, tuple[Corner, np.ndarray]]
"""Organ -> (start (z, y, x) on the working grid, probabilities float32 [z, y, x]); 0 beyond them."""


class TrainedSystem(BundledSystem, ABC):
    """A bundle with one network that `soars-train fit-system` made; see `soars.systems.interface.System`.

    A subclass checks its settings, builds its network and draws organs on a working grid; this class does what comes
    before (body, grid, window) and after (masks on the CT, checks).
    """

    extra = EXTRA
    packages = REQUIREMENTS
    setting_keys: tuple[str, ...]
    """Of the manifest's settings, beside window_hu, spacing_mm, weights, and members, the weights of further networks
    that vote with the first, which all of these systems have."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.where = f"bundle {bundle.name}: settings"
        given = bundle.settings
        try:
            check_keys(dict(given), ("window_hu", "spacing_mm", "weights", "members", *self.setting_keys), "")
            self.window_hu = get_window(given, "window_hu", "")
            x, y, z = within(get_numbers(given, "spacing_mm", 3, ""), SPACING_MM, "spacing_mm")
            self.spacing_mm = (x, y, z)
            self.weights = get_text(given, "weights", "")
            if self.weights not in bundle.files:
                raise BundleError(f"weights: {self.weights!r} is not listed in files")
            self.members = _members(given, bundle)
            self.read_settings(given)
        except BundleError as error:
            raise BundleError(f"{self.where}: {error}") from error

    @abstractmethod
    def read_settings(self, given: Mapping[str, Any]) -> None:
        """Check and keep the system's own settings; raises `BundleError` naming what is wrong."""

    @abstractmethod
    def network(self) -> torch.nn.Module:
        """The network without weights."""

    @abstractmethod
    def open(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
        """Load the network on the engine and device that are asked for; see `Finder` for what it then does.

        Raises `EngineError` for an engine or device that cannot be used, `BundleError` for weights that do not fit.
        """

    def open_all(self, options: SegmentOptions) -> tuple[EngineInfo, Finder]:
        """As `open`; where the bundle has several networks, they vote."""
        engine, first = self.open(options)
        if not self.members:
            return engine, first
        finders = [first]
        for weights in self.members:
            other = copy.copy(self)
            other.weights = weights
            finders.append(other.open(options)[1])

        def find(ct: np.ndarray, organs: Collection[str], step: Step) -> Found:
            found = []
            for k, one in enumerate(finders):
                step(k, len(finders))
                found.append(one(ct, organs, lambda _done, _of, k=k: step(k, len(finders))))  # type: ignore[misc]
            return vote(found, organs)

        return replace(engine, reason=f"{engine.reason}; {len(finders)} networks vote"), find

    def volume(self, ct: CtScan, body: Body, grid: Grid, options: SegmentOptions) -> np.ndarray:
        """What the finder gets as the CT."""
        return network_input(ct.image, body, grid, [self.window_hu])[0]

    def draw(self, ct: CtScan, organs: tuple[str, ...], options: SegmentOptions, progress: Reporter) -> Drawn:
        problem = self.problem(organs)
        if problem is not None:
            raise EngineError(problem)
        timings: dict[str, float] = {}

        def stage(name: str, message: str) -> Step:
            def step(done: int, of: int) -> None:
                if options.cancel is not None and options.cancel():
                    raise CancelledError("cancelled; nothing was written")
                progress(Progress(name, done, of, message))

            step(0, 0)
            return step

        start = time.perf_counter()
        stage("prepare", "finding the patient")
        body = find_body(ct.image)
        grid = body.grid(self.spacing_mm)
        array = self.volume(ct, body, grid, options)
        timings["prepare"] = time.perf_counter() - start

        start = time.perf_counter()
        stage("load", f"loading the network of {self.title}")
        engine, find = self.open_all(options)
        timings["load"] = time.perf_counter() - start

        start = time.perf_counter()
        with running_on(engine.device, self.title):
            found = find(array, organs, stage(self.name, self.title))
        timings[self.name] = time.perf_counter() - start

        start = time.perf_counter()
        step = stage("contours", "organs on the CT's grid")
        geometry = Geometry.of(ct.image)
        structures = StructureSet(geometry)
        for done, (organ, part) in enumerate(found.items()):
            step(done, len(found))
            placed = place_part(*part, grid, geometry)
            if placed is not None:
                structures.add_crop(organ, *placed)
        timings["contours"] = time.perf_counter() - start
        (source,) = self.sources
        return finish_structures(
            structures,
            body,
            organs,
            sources={organ: source for organ in organs},
            engine=engine,
            timings_s=timings,
            progress=progress,
        )

    def in_torch(self, options: SegmentOptions) -> tuple[EngineInfo, torch.nn.Module]:
        """The network with the bundle's weights, in evaluation mode on the device; raises as `open` does."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        from soars.cascade.torch_engine import stop_between_layers

        device = torch_device(options.device, options.engine)
        if options.threads:
            torch.set_num_threads(options.threads)
        try:
            weights = load(read_checked(self.bundle, self.weights))
        except SafetensorError as error:
            raise BundleError(
                f"{self.bundle.name}: {self.weights}: not a readable safetensors file"
            ) from error
        network = self.network()
        try:
            network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        except RuntimeError as error:
            brief = " ".join(str(error).split())[:300]
            raise BundleError(
                f"{self.bundle.name}: {self.weights}: these are not weights of its network: {brief}"
            ) from error
        info = EngineInfo("torch", device.type, "fp32", f"{self.title} runs in torch")
        network.eval().requires_grad_(False).to(device)
        if options.cancel is not None:
            stop_between_layers(network, options.cancel)
        return info, network


def _members(given: Mapping[str, Any], bundle: Bundle) -> tuple[str, ...]:
    members = get_field(given, "members", list, "") if "members" in given else []
    for name in members:
        if not isinstance(name, str) or name not in bundle.files:
            raise BundleError(f"members: {name!r} is not listed in files")
    return tuple(members)
