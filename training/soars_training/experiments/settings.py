"""The settings that an ablation compares, and the networks that each of them needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from soars.catalogue import CATALOGUE
from soars.errors import InputError
from soars.networks.names import Branch

STRATA = ("anchor", "mid_level", "small_hard")
PAPERS = ("2022", "2020")
"""Whose strata: the study's, or the first paper's."""
_ONLY_2022 = frozenset({"Larynx", "Lens_L", "Lens_R"})
_ONLY_2020 = {"Larynx_Core": "mid_level", "Hippocampus_L": "mid_level", "Hippocampus_R": "mid_level"}
STRATUM_LABELS = {"anchor": "anchor", "mid_level": "mid-level", "small_hard": "small and hard"}

SETTINGS = {
    "all_in_one": "one network for all organs",
    "stratification": "a network a stratum, from the CT alone; small organs in the volumes that a detector finds",
    "anchors": "as above, mid-level network and detector guided by the anchors' probabilities",
    "heat_map": "as above, and the small organs' network sees the heat map too",
    "true_anchors": "the networks of `anchors`, guided by the true anchors at test: an upper bound",
    "search": "as `anchors`, with searched kernels",
    "random": "as `anchors`, with kernels drawn at random: the search's control",
    "nnunet": "nnU-Net by its own commands, one network for all organs; as many steps, of its own plan's windows",
    "uanet": "UaNet for all organs, with crops of its own",
    "deepmind": "DeepMind's U-Net for all organs, with slices of its own",
    "ct_mr": "one network for all organs that sees each patient's MR, too",
}
"""In the order of the tables. The `BASELINES` are added by `soars-train baseline`."""

BASELINES = ("nnunet", "uanet", "deepmind", "ct_mr")
ABLATED = tuple(name for name in SETTINGS if name not in BASELINES)

COMPARISONS = (
    ("stratification", "all_in_one"),
    ("anchors", "stratification"),
    ("anchors", "all_in_one"),
    ("heat_map", "anchors"),
    ("true_anchors", "anchors"),
    ("search", "anchors"),
    ("search", "random"),
    ("random", "anchors"),
    ("anchors", "nnunet"),
    ("all_in_one", "nnunet"),
    ("anchors", "uanet"),
    ("anchors", "deepmind"),
    ("ct_mr", "all_in_one"),
)
"""(first, second): each is tested, paired by patient."""

KERNELS = ("plain", "searched", "random")


@dataclass(frozen=True)
class Network:
    """A network of an ablation.

    Attributes:
        branch: "joint" for all organs in one, else the cascade's branch.
        kernels: one of `KERNELS`.
        guide: kernels of the anchor network that guides it, None for an unguided one.
        heatmap: whether it sees the heat map (small_hard).
    """

    branch: Branch | Literal["joint"]
    kernels: str = "plain"
    guide: str | None = None
    heatmap: bool = False

    @property
    def name(self) -> str:
        """Its folder's name."""
        parts = [self.branch, self.kernels if self.kernels != "plain" else ""]
        parts += ["guided" if self.guide else "", "heatmap" if self.heatmap else ""]
        return "-".join(part for part in parts if part)


JOINT = Network("joint")


@dataclass(frozen=True)
class Prediction:
    """Which network answers for a stratum in a setting; `true_guide`: with the true anchors as its (or, of the small
    organs, its detector's) guide; `detector` finds the volumes of interest."""

    network: Network
    true_guide: bool = False
    detector: Network | None = None

    @property
    def guided(self) -> bool:
        """Whether the anchors' probabilities are needed."""
        return any(n is not None and n.guide is not None for n in (self.network, self.detector))


def prediction(setting: str, stratum: str) -> Prediction | None:
    """Who answers; None where the setting says nothing new of the stratum."""
    if setting == "all_in_one":
        return Prediction(JOINT)
    kernels = {"search": "searched", "random": "random"}.get(setting, "plain")
    guided = setting != "stratification"
    true = setting == "true_anchors"
    if stratum == "anchor":
        return Prediction(Network("anchor", kernels)) if setting not in ("heat_map", "true_anchors") else None
    if stratum == "mid_level":
        network = Network("mid_level", kernels, kernels if guided else None)
        return Prediction(network, true) if setting != "heat_map" else None
    # The detector's kernels are not searched (study of 2022, methods).
    detector = Network("detection", guide="plain" if guided else None)
    return Prediction(Network("small_hard", kernels, heatmap=setting == "heat_map"), true, detector)


def chosen_settings(names: Sequence[str] | None, strata: Collection[str]) -> tuple[str, ...]:
    """The settings asked for, all when None, in the tables' order. Raises `InputError` for a name that is none, and for
    settings that have nothing to say of the strata that there are."""
    unknown = sorted(set(names or ()) - set(ABLATED))
    if unknown:
        raise InputError(f"--settings: unknown {unknown[0]!r}; there are {', '.join(ABLATED)}")
    wanted = [s for s in ABLATED if not names or s in names]
    useful = [s for s in wanted if answers(s, strata)]
    if not useful:
        raise InputError(f"--settings: nothing of {', '.join(wanted)} concerns the organs of this cache")
    return tuple(useful)


def answers(setting: str, strata: Collection[str]) -> dict[str, Prediction]:
    """Who answers for each of the strata that a cohort has, where the setting says something new of it."""
    found = {stratum: prediction(setting, stratum) for stratum in STRATA if stratum in strata}
    return {k: p for k, p in found.items() if p is not None and (not p.guided or "anchor" in strata)}


def stratum_of(organ: str) -> str:
    """An organ's stratum in the paper that has it; where both do they agree. The first paper had the larynx core in the
    place of the larynx, the hippocampi besides, and no lenses."""
    return _ONLY_2020.get(organ, CATALOGUE[organ].stratum)


def organs_of_paper(paper: str) -> tuple[str, ...]:
    """The 42 organs of the study of 2022 or of the paper of 2020, in the catalogue's order."""
    out = frozenset(_ONLY_2020) if paper == "2022" else _ONLY_2022
    return tuple(name for name in CATALOGUE if stratum_of(name) in STRATA and name not in out)


def strata_of(organs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The organs of each stratum that there are, in the catalogue's order."""
    there = set(organs)
    found = {
        stratum: tuple(name for name in CATALOGUE if stratum_of(name) == stratum and name in there)
        for stratum in STRATA
    }
    return {stratum: names for stratum, names in found.items() if names}
