"""Which system a bundle belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from soars.bundle.manifest import CASCADE, CT_MR, Bundle
from soars.bundle.store import load_bundle
from soars.errors import BundleError
from soars.systems.cascade import CascadeSystem
from soars.systems.composite.plan import READER
from soars.systems.composite.system import CompositeSystem
from soars.systems.ct_mr.system import CtMrSystem
from soars.systems.deepmind.system import DeepMindSystem
from soars.systems.interface import System
from soars.systems.nnunet.system import NnUnetSystem
from soars.systems.packages import missing_packages
from soars.systems.totalsegmentator.system import TotalSegmentatorSystem
from soars.systems.uanet.system import UaNetSystem

SYSTEMS = (CASCADE, "nnunet", "deepmind", "uanet", CT_MR, "totalsegmentator", "composite")
"""Names of all systems, as manifests have them."""


@dataclass(frozen=True)
class Requirements:
    """Distributions, with their floors, that a bundle's system is run by beyond the core and the cascade's engine.

    Without ``needed`` nothing runs; without ``optional`` some sources of a composite do not.
    """

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def requirements_of(bundle: Bundle) -> Requirements:
    """What to install for a bundle, installed or not. Imports none of it; raises `BundleError` for wrong settings."""
    if bundle.system != CompositeSystem.name:
        return Requirements(system_of(bundle).requirements)
    if missing_packages(READER):  # what the plan says is not known without it
        return Requirements(READER)
    system = system_of(bundle)
    assert isinstance(system, CompositeSystem)
    if system.plan.missing == "fail":
        return Requirements((*READER, *system.requirements))
    return Requirements(READER, system.requirements)


def system_of(bundle: Bundle) -> System:
    """The bundle's system; raises `BundleError` for one that this version does not know, or settings that are wrong."""
    if bundle.system == CASCADE:
        return CascadeSystem(bundle)
    if bundle.system == NnUnetSystem.name:
        return NnUnetSystem(bundle)
    if bundle.system == DeepMindSystem.name:
        return DeepMindSystem(bundle)
    if bundle.system == UaNetSystem.name:
        return UaNetSystem(bundle)
    if bundle.system == CtMrSystem.name:
        return CtMrSystem(bundle)
    if bundle.system == TotalSegmentatorSystem.name:
        return TotalSegmentatorSystem(bundle)
    if bundle.system == CompositeSystem.name:
        return CompositeSystem(bundle, lambda name: system_of(load_bundle(name)))
    raise BundleError(
        f"bundle {bundle.name} is of the system {bundle.system!r}, which this soars does not know "
        f"({', '.join(SYSTEMS)}); update soars"
    )
