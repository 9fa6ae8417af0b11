"""Which system a bundle belongs to."""

from __future__ import annotations

from soars.bundle.manifest import CASCADE, Bundle
from soars.bundle.store import load_bundle
from soars.errors import BundleError
from soars.systems.cascade import CascadeSystem
from soars.systems.composite.system import CompositeSystem
from soars.systems.deepmind.system import DeepMindSystem
from soars.systems.interface import System
from soars.systems.nnunet.system import NnUnetSystem
from soars.systems.totalsegmentator.system import TotalSegmentatorSystem
from soars.systems.uanet.system import UaNetSystem

SYSTEMS = (CASCADE, "nnunet", "deepmind", "uanet", "totalsegmentator", "composite")
"""Names of all systems, as manifests have them."""


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
    if bundle.system == TotalSegmentatorSystem.name:
        return TotalSegmentatorSystem(bundle)
    if bundle.system == CompositeSystem.name:
        return CompositeSystem(bundle, lambda name: system_of(load_bundle(name)))
    raise BundleError(
        f"bundle {bundle.name} is of the system {bundle.system!r}, which this soars does not know "
        f"({', '.join(SYSTEMS)}); update soars"
    )
