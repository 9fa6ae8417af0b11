"""A composite's ``composite.yaml``: its sources, and the order in which they are used for each organ::

    version: 1
    missing: skip                    # or fail: what to do about a source that cannot run on this machine
    sources:
      totalsegmentator: totalsegmentator        # a short name, and the bundle's name or path
      starter: starter
    organs:
      Brainstem: [totalsegmentator, starter]    # the first that can run and finds the organ gives it
      Larynx: [starter]

The order of the organs is their precedence where two sources claim a voxel; see `soars.systems.composite.overlaps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from soars.catalogue import CATALOGUE
from soars.errors import BundleError
from soars.systems.packages import requirements
from soars.texts import parse_yaml

FILE = "composite.yaml"
READER = requirements("PyYAML")
"""The package that a plan is read with; Slicer does not bring it."""
Missing = Literal["skip", "fail"]


@dataclass(frozen=True)
class Plan:
    """What a composite says.

    Attributes:
        sources: short name -> the bundle's name or path.
        organs: catalogue name -> short names of its sources, the preferred one first.
        missing: "skip" continues with the next source when one cannot run here, "fail" ends the run.
    """

    sources: Mapping[str, str]
    organs: Mapping[str, tuple[str, ...]]
    missing: Missing = "skip"


def parse_plan(data: bytes, where: str) -> Plan:
    """Read a plan; raises `BundleError` that begins with ``where`` and names the entry that is wrong."""
    whole = _load(data, where)
    if set(whole) - {"missing"} != {"version", "sources", "organs"}:
        raise BundleError(
            f"{where}: expected version, sources, organs and perhaps missing; got {', '.join(whole)}"
        )
    if whole["version"] != 1:
        raise BundleError(f"{where}: version must be 1, not {whole['version']!r}")
    missing = whole.get("missing", "skip")
    if missing not in ("skip", "fail"):
        raise BundleError(f"{where}: missing must be skip or fail, not {missing!r}")
    sources, organs = whole["sources"], whole["organs"]
    if not isinstance(sources, dict) or not sources or not all(map(_is_text_pair, sources.items())):
        raise BundleError(f"{where}: sources must give each short name a bundle")
    if not isinstance(organs, dict) or not organs:
        raise BundleError(f"{where}: organs must give at least one organ its sources")
    return Plan(
        dict(sources),
        {organ: _order(organ, names, sources, where) for organ, names in organs.items()},
        missing,
    )


def _load(data: bytes, where: str) -> dict[str, Any]:
    try:
        whole = parse_yaml(data)
    except ImportError as error:
        raise BundleError(
            f"{where}: a composite is read with PyYAML; install it: pip install PyYAML"
        ) from error
    except ValueError as error:
        raise BundleError(f"{where}: not valid YAML ({error})") from error
    if not isinstance(whole, dict) or not all(isinstance(key, str) for key in whole):
        raise BundleError(f"{where}: must be a mapping of version, sources and organs")
    return whole


def _is_text_pair(item: tuple[object, object]) -> bool:
    return all(isinstance(part, str) and part for part in item)


def _order(organ: object, names: object, sources: Mapping[str, str], where: str) -> tuple[str, ...]:
    if organ not in CATALOGUE:
        raise BundleError(f"{where}: {organ!r} is not an organ of the catalogue")
    if not isinstance(names, list) or not names:
        raise BundleError(f"{where}: {organ} needs a list of sources")
    unknown = [name for name in names if name not in sources]
    if unknown:
        raise BundleError(f"{where}: {organ}: {unknown[0]!r} is not among the sources ({', '.join(sources)})")
    if len(set(names)) != len(names):
        raise BundleError(f"{where}: {organ} has a source twice")
    return tuple(names)
