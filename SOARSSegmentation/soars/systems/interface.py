"""What every segmentation system offers, whatever model it runs.

A *system* is a way of segmenting organs on a CT: the stratified cascade, an nnU-Net, UaNet, a composite of several.
`soars segment` looks up the bundle's system (`soars.systems.registry.system_of`), and then uses nothing but this
interface.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from soars.cascade.branches import Detection
from soars.cascade.engine import EngineInfo, OpenEngines
from soars.ct.images import CtScan
from soars.findings.finding import ExpectedDsc, Finding
from soars.mr.laid import LaidMr
from soars.progress import Reporter
from soars.structures import StructureSet


@dataclass(frozen=True)
class SegmentOptions:
    """How to run.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:1"; a device requested by name is used or refused, never replaced.
        engine: "auto", "torch" or "onnxruntime".
        organs: names (any alias of the catalogue) to segment; all that the bundle covers when None.
        threads: of the processor; all that this process may use when None.
        fast: use a system's coarser and faster mode, if it has one; None leaves the choice to the system.
        cancel: called at every step; when it returns True the run ends with `CancelledError`.
        engines: networks of the cascade that stay open from one CT to the next; None closes each after use.
        mr: an MR laid onto the CT, for a system that takes one (`Bundle.takes_mr`).
    """

    device: str = "auto"
    engine: str = "auto"
    organs: tuple[str, ...] | None = None
    threads: int | None = None
    fast: bool | None = None
    cancel: Callable[[], bool] | None = None
    engines: OpenEngines | None = None
    mr: LaidMr | None = None


@dataclass(frozen=True)
class Source:
    """A model that draws organs.

    Attributes:
        system: as manifests name it: "cascade", "nnunet", "uanet", "deepmind", "totalsegmentator".
        bundle, version: the bundle that it belongs to.
        sha256: its system's, see `System`.
        part: the model within the system, e.g. TotalSegmentator's task; "" where there is only one.
        definition: how the organ's extent differs from the consensus guideline's; "" where it does not, as far as is
            known.
    """

    system: str
    bundle: str
    version: str
    sha256: str
    part: str = ""
    definition: str = ""

    @property
    def title(self) -> str:
        """The source in a few words, for tables: "totalsegmentator 2.18.0 (head_glands_cavities)"."""
        return f"{self.bundle} {self.version}" + (f" ({self.part})" if self.part else "")


@dataclass(frozen=True)
class Drawn:
    """What a system gives for a CT; `soars.run.segment.SegmentResult` is made of it.

    Attributes:
        structures: the organs found, on the CT's own grid.
        absent: organs looked for and not there -> why.
        findings: what the checks found, absent organs too.
        engine: what ran the networks, and why it was chosen.
        timings_s: seconds per stage.
        warnings: anything unusual about the run as a whole.
        confidence: organ -> soft Dice confidence, 0 to 1; the cascade's alone.
        spill: organ -> share of its probability that its contour leaves out, 0 to 1; the cascade's alone.
        expected_dsc: organ -> the DSC that contours of its confidence reached; only where the bundle is calibrated.
        detections: centres of the small organs' heat maps (LPS mm) with their peaks; the cascade's alone.
        sources: organ -> the model that drew it.
    """

    structures: StructureSet
    absent: dict[str, str]
    findings: list[Finding]
    engine: EngineInfo
    timings_s: dict[str, float]
    sources: Mapping[str, Source]
    warnings: list[str] = field(default_factory=list)
    confidence: Mapping[str, float] = field(default_factory=dict)
    spill: Mapping[str, float] = field(default_factory=dict)
    expected_dsc: Mapping[str, ExpectedDsc] = field(default_factory=dict)
    detections: list[Detection] = field(default_factory=list)


@dataclass(frozen=True)
class Weights:
    """A file or folder of weights that a system fetches itself, outside its bundle.

    Attributes:
        name: as the system calls it.
        present: whether it is on this machine.
        licence: the licence under which it may be used.
        url: where it would come from.
        needs_number: whether a licence number has to be entered first.
    """

    name: str
    present: bool
    licence: str
    url: str
    needs_number: bool = False


@dataclass(frozen=True)
class Needs:
    """What must be there before a system can run.

    Attributes:
        extra: the extra of this project's distribution that brings the packages; "" when none is needed.
        missing_packages: distributions that are not installed, with their version floors.
        weights: everything that would be downloaded, and what is already there.
    """

    extra: str = ""
    missing_packages: tuple[str, ...] = ()
    weights: tuple[Weights, ...] = ()

    @property
    def missing_weights(self) -> tuple[Weights, ...]:
        """What would have to be downloaded."""
        return tuple(weights for weights in self.weights if not weights.present)


class System(Protocol):
    """A bundle's model, ready to run."""

    name: str

    @property
    def sha256(self) -> str:
        """64 hexadecimal digits that change when anything changes that decides what it draws: for a bundle with its own
        weights its hash, for others also versions of packages, and the sources that can run on this machine."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The models that it consists of: itself, or a composite's sources as far as they are installed."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """Distributions with their floors ("nnunetv2>=2.5") that it runs by, beyond the core's and an engine of the
        cascade's; of a composite's sources, those of all. Imports nothing and looks up nothing."""

    @property
    def organs(self) -> tuple[str, ...]:
        """Catalogue names of the organs that it can give."""

    def needs(self, organs: Collection[str]) -> Needs:
        """What these organs need on this machine; contacts nobody."""

    def problem(self, organs: Collection[str]) -> str | None:
        """Why these organs cannot be segmented here, in one sentence that says what to do; None when they can."""

    def draw(self, ct: CtScan, organs: tuple[str, ...], options: SegmentOptions, progress: Reporter) -> Drawn:
        """Draw these organs (catalogue names, all of them its own).

        Raises `EngineError` when `problem` has something to say or the model fails, `InputError` for a scan without a
        patient, and `CancelledError`.
        """
