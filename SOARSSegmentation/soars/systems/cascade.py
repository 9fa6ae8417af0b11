"""The stratified cascade as a system: the bundle's own branches, on torch or onnxruntime."""

from __future__ import annotations

from collections.abc import Collection

from soars.bundle.manifest import CASCADE
from soars.cascade.engine import choose_engine
from soars.cascade.run import Run, needed_branches, run_cascade
from soars.ct.images import CtScan
from soars.errors import EngineError
from soars.findings.review import read_review
from soars.parallel import available_processors
from soars.progress import Reporter
from soars.systems.bundled import BundledSystem
from soars.systems.interface import Drawn, SegmentOptions


class CascadeSystem(BundledSystem):
    """A bundle of the cascade, ready to run; see `soars.systems.interface.System`."""

    name = CASCADE
    title = "cascade"
    extra = "run"

    def problem(self, organs: Collection[str]) -> str | None:
        try:
            choose_engine(self.bundle, needed_branches(self.bundle, organs))
        except EngineError as error:
            return str(error)
        return None

    def draw(self, ct: CtScan, organs: tuple[str, ...], options: SegmentOptions, progress: Reporter) -> Drawn:
        tables = read_review(self.bundle)
        branches = needed_branches(self.bundle, organs)
        many = options.engines is not None
        engine = choose_engine(self.bundle, branches, engine=options.engine, device=options.device, many=many)
        threads = options.threads or available_processors()
        run = Run(self.bundle, engine, threads, progress, options.cancel or (lambda: False), tables)
        run.engines = options.engines
        result = run_cascade(ct.image, organs, run)
        (source,) = self.sources
        return Drawn(
            structures=result.structures,
            absent=result.absent,
            findings=result.findings,
            engine=engine,
            timings_s=result.timings_s,
            sources={name: source for name in result.structures},
            confidence=result.confidence,
            spill=result.spill,
            expected_dsc=result.expected_dsc,
            detections=result.detections,
        )
