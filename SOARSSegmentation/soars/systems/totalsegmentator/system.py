"""Running the tasks that the wanted organs need, through TotalSegmentator's own package."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from soars.bundle.manifest import Bundle
from soars.cascade.engine import EngineInfo
from soars.ct.images import CtScan
from soars.errors import EngineError
from soars.progress import Reporter
from soars.systems.bundled import BundledSystem
from soars.systems.devices import torch_device
from soars.systems.finish import finish
from soars.systems.identity import combined_sha256
from soars.systems.interface import Drawn, Needs, SegmentOptions, Source
from soars.systems.labels import Labelled
from soars.systems.nnunet.predictor import Steps
from soars.systems.packages import missing_packages
from soars.systems.totalsegmentator import package
from soars.systems.totalsegmentator.settings import Task, parse_tasks

NAME = "totalsegmentator"
EXTRA = "totalsegmentator"


class TotalSegmentatorSystem(BundledSystem):
    """A TotalSegmentator bundle, ready to run; see `soars.systems.interface.System`."""

    name = NAME
    title = "TotalSegmentator"
    extra = EXTRA
    packages = package.REQUIREMENTS

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.tasks = parse_tasks(bundle)

    @property
    def sha256(self) -> str:
        """Of the bundle and the installed package's version, which says where its weights come from."""
        return combined_sha256([self.bundle.sha256, package.installed_version()])

    def tasks_for(self, organs: Collection[str]) -> list[Task]:
        """The tasks that give any of these organs."""
        return [task for task in self.tasks if set(task.organs) & set(organs)]

    def needs(self, organs: Collection[str]) -> Needs:
        missing = missing_packages(package.REQUIREMENTS)
        if missing:
            return Needs(EXTRA, missing)
        fast = fast_by_default()
        tasks = self.tasks_for(organs)
        found = {w.name: w for task in tasks for w in package.weights_of(task, fast=fast and task.fast)}
        return Needs(EXTRA, (), tuple(found.values()))

    def problem(self, organs: Collection[str]) -> str | None:
        needs = self.needs(organs)
        if needs.missing_packages:
            return (
                f"bundle {self.bundle.name} needs {', '.join(needs.missing_packages)}; install it with: "
                f"pip install 'soars-segmentation[{EXTRA}]'"
            )
        if needs.missing_weights:
            return (
                "models of TotalSegmentator are not on this machine; see what would be downloaded and under which "
                f"licence, and get them, with: soars bundle get {self.bundle.name}"
            )
        if any(task.needs_number for task in self.tasks_for(organs)) and not package.has_licence_number():
            return (
                "TotalSegmentator's brain structures need a licence number (free for research); enter it with: "
                f"soars bundle get {self.bundle.name} --licence-number NUMBER"
            )
        return None

    def draw(self, ct: CtScan, organs: tuple[str, ...], options: SegmentOptions, progress: Reporter) -> Drawn:
        problem = self.problem(organs)
        if problem is not None:
            raise EngineError(problem)
        device = str(torch_device(options.device, options.engine))
        fast = fast_by_default() if options.fast is None else options.fast
        label_maps: list[Labelled] = []
        sources: dict[str, Source] = {}
        timings_s = {}
        (whole,) = self.sources
        tasks = self.tasks_for(organs)
        for task in tasks:
            start = time.perf_counter()
            package.check_classes(task)
            steps = Steps(task.name, "", progress, options.cancel or (lambda: False))
            steps.step()
            labels = package.run_task(
                ct.image, task, task.classes(organs), device=device, fast=fast and task.fast, steps=steps
            )
            label_maps.append((labels, task.rules))
            for organ in task.organs:
                sources[organ] = replace(whole, part=task.name, definition=task.definitions.get(organ, ""))
            timings_s[task.name] = time.perf_counter() - start
        how = f"TotalSegmentator {package.installed_version()}'s own predictor"
        coarse = [task.name for task in tasks if fast and task.fast]
        if coarse:
            how += f"; its coarse models (3 mm) for {', '.join(coarse)}"
        return finish(
            ct,
            label_maps,
            organs,
            sources=sources,
            engine=EngineInfo("torch", device, "fp32", how),
            timings_s=timings_s,
            progress=progress,
        )


def fast_by_default() -> bool:
    """Coarse models where there is no GPU."""
    return torch_device("auto").type == "cpu"
