"""The training cache: preprocessed cases as plain .npz files that numpy alone can read.

One folder holds `index.json` and one file a case. A case is a CT on an axis-aligned LPS grid (int16 HU, air outside
the body) with each organ's mask cropped to its bounding box and bit-packed, so that organs may overlap and a
hundred head-and-neck cases at 3 mm take a few tens of megabytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from soars import catalogue
from soars.errors import BundleError, InputError
from soars.files import replacing_file, write_json
from soars.structures.box import Box
from soars.texts import read_json

INDEX_FILE = "index.json"
INDEX_FORMAT = 1


@dataclass(frozen=True)
class CachedCase:
    """One preprocessed case.

    Attributes:
        name: unique in the cache.
        ct_hu: int16 [z, y, x], air (-1000 HU) outside the body.
        origin_mm, spacing_mm: (x, y, z) in LPS; origin is the centre of voxel (0, 0, 0).
        masks: organ -> (start (z, y, x), bool crop [z, y, x]); an organ annotated but outside the field has no entry.
        annotated: organs that somebody contoured or confirmed absent. An organ that is not listed is unknown, and
            must not be taught as background.
        slices: organ -> bool [z], the slices in which an organ was contoured that was drawn on some slices only. Such
            an organ is not among the annotated ones; in the other slices it is unknown.
        head_mm: from where inference lays its windows out, LPS mm (`soars.cascade.preprocess.Body.head_mm`); None in a
            cache of an earlier version, and in one that was not made from whole scans.
        mr: float16 [2, z, y, x], an MR laid onto the CT as networks see it (`soars.mr.laid.mr_channels`); None without.
    """

    name: str
    ct_hu: np.ndarray
    origin_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    masks: Mapping[str, tuple[tuple[int, int, int], np.ndarray]]
    annotated: frozenset[str]
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    mr: np.ndarray | None = None
    head_mm: tuple[float, float, float] | None = None

    def labelled(self, organ: str) -> np.ndarray:
        """bool [z]: the slices in which it is known what belongs to the organ."""
        if organ in self.slices:
            return self.slices[organ]
        return np.full(self.ct_hu.shape[0], organ in self.annotated)

    def full_mask(self, organ: str) -> np.ndarray:
        """bool [z, y, x] of the CT's shape; all False for an organ without voxels."""
        full = np.zeros(self.ct_hu.shape, bool)
        if organ in self.masks:
            start, crop = self.masks[organ]
            full[Box.at(start, crop.shape).slices] = crop
        return full

    def label_map(self, classes: Iterable[str]) -> np.ndarray:
        """uint8 [z, y, x]: 0 background, then 1 + position in `classes`; a later class wins where organs overlap.

        An organ that is not annotated has no label, also on slices on which somebody drew it: a loss that lets an
        unknown organ be background anywhere, and rewards it there, would teach to see it everywhere.
        """
        labels = np.zeros(self.ct_hu.shape, np.uint8)
        for value, organ in enumerate(classes, start=1):
            if organ in self.masks and organ in self.annotated:
                start, crop = self.masks[organ]
                labels[Box.at(start, crop.shape).slices][crop] = value
        return labels


@dataclass(frozen=True)
class IndexEntry:
    """What the index says of a case without opening it; `group` names the VOI for crops of small organs, `sparse` the
    organs that were drawn on some slices only. `patient` is whom the case is of, by a name that several cases can have;
    the case's own where nothing else is known, as in a cache of an earlier version."""

    name: str
    file: str
    split: str
    annotated: tuple[str, ...]
    group: str | None = None
    sparse: tuple[str, ...] = ()
    patient: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient", self.patient or self.case)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return vars(self) | {"annotated": list(self.annotated), "sparse": list(self.sparse)}

    @staticmethod
    def from_dict(entry: Mapping[str, Any]) -> IndexEntry:
        """From what `to_dict` gave; `sparse` and `patient` may be missing."""
        if not isinstance(entry.get("patient", ""), str):
            raise ValueError(f"the patient of {entry['name']!r} is {entry['patient']!r}, not a text")
        lists = {name: tuple(entry.get(name, ())) for name in ("annotated", "sparse")}
        return IndexEntry(**(dict(entry) | lists))

    @property
    def case(self) -> str:
        """The scan: the VOIs cut from one are named after it and their group."""
        return self.name if self.group is None else self.name.removesuffix(f".{self.group}")


@dataclass
class CacheIndex:
    """`index.json` of a cache folder."""

    spacing_mm: tuple[float, float, float]
    source: str
    cases: list[IndexEntry] = field(default_factory=list)

    @property
    def annotated(self) -> frozenset[str]:
        """The organs that any case annotates, of whichever split; a VOI those of its group, since others may lie
        outside it."""
        return frozenset(
            organ
            for case in self.cases
            for organ in case.annotated
            if case.group is None or group_of(organ) == case.group
        )

    @property
    def patients(self) -> dict[str, str]:
        """Of each scan whom it is of."""
        return {entry.case: entry.patient for entry in self.cases}

    def of_split(self, split: str) -> list[IndexEntry]:
        return [case for case in self.cases if case.split == split]

    def save(self, folder: Path) -> None:
        data = {
            "format": INDEX_FORMAT,
            "source": self.source,
            "spacing_mm": list(self.spacing_mm),
            "cases": [entry.to_dict() for entry in self.cases],
        }
        write_json(folder / INDEX_FILE, data)

    @staticmethod
    def load(folder: Path) -> CacheIndex:
        """Raises `InputError` when the folder holds no cache, one of another format, or a patient in two splits."""
        try:
            data = read_json(folder / INDEX_FILE)
        except FileNotFoundError:
            raise InputError(
                f"no training cache in {folder}: {INDEX_FILE} is missing; run soars-train prepare"
            ) from None
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / INDEX_FILE}: damaged ({error}); prepare the cache again") from error
        with as_written(folder / INDEX_FILE, "prepare the cache again"):
            if data["format"] != INDEX_FORMAT:
                raise InputError(
                    f"{folder / INDEX_FILE}: format {data['format']!r}, this version reads {INDEX_FORMAT}"
                )
            cases = [IndexEntry.from_dict(entry) for entry in data["cases"]]
            _check_splits(folder / INDEX_FILE, cases)
            return CacheIndex(tuple(data["spacing_mm"]), data["source"], cases)


class OfPatient(Protocol):
    """A case that knows its patient and its split."""

    @property
    def patient(self) -> str: ...
    @property
    def split(self) -> str: ...


Case = TypeVar("Case", bound=OfPatient)


def parted(cases: Iterable[Case]) -> tuple[Case, Case] | None:
    """Two cases of one patient in two splits, in their order; None where no patient is in two."""
    first: dict[str, Case] = {}
    for case in cases:
        other = first.setdefault(case.patient, case)
        if other.split != case.split:
            return other, case
    return None


def _check_splits(path: Path, cases: Iterable[IndexEntry]) -> None:
    apart = parted(cases)
    if apart is not None:
        one, other = apart
        raise InputError(
            f"{path}: {one.name} and {other.name} are of one patient and in two splits ({one.split} and "
            f"{other.split}); a patient belongs to one: mend the list and prepare the cache again"
        )


@contextmanager
def as_written(path: Path, remedy: str) -> Iterator[None]:
    """Around the reading of a JSON file of ours: one of another shape is an `InputError` that says what to do."""
    try:
        yield
    except (AttributeError, BundleError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not as this version writes it ({error}); {remedy}") from error


def entry_of(
    case: CachedCase, file: str, split: str, group: str | None = None, patient: str = ""
) -> IndexEntry:
    """The index's entry of a case."""
    return IndexEntry(
        case.name, file, split, tuple(sorted(case.annotated)), group, tuple(sorted(case.slices)), patient
    )


def group_of(organ: str) -> str:
    """The heat map of an organ: the one that it shares with others, else its own."""
    return catalogue.CATALOGUE[organ].detection_group or organ


def group_members(group: str) -> tuple[str, ...]:
    """The small and hard organs that share one heat map."""
    return tuple(o.name for o in catalogue.by_stratum("small_hard") if o.detection_group == group)


def write_case(path: Path, case: CachedCase) -> None:
    """Write one case, whole or not at all."""
    arrays: dict[str, np.ndarray] = {
        "ct_hu": case.ct_hu,
        "origin_mm": np.asarray(case.origin_mm),
        "spacing_mm": np.asarray(case.spacing_mm),
        "annotated": np.asarray(sorted(case.annotated), dtype=np.str_),
    }
    for organ, (start, crop) in case.masks.items():
        arrays[f"start/{organ}"] = np.asarray(start, np.int32)
        arrays[f"shape/{organ}"] = np.asarray(crop.shape, np.int32)
        arrays[f"bits/{organ}"] = np.packbits(crop)
    for organ, labelled in case.slices.items():
        arrays[f"slices/{organ}"] = np.asarray(labelled, bool)
    if case.head_mm is not None:
        arrays["head_mm"] = np.asarray(case.head_mm)
    if case.mr is not None:
        arrays["mr"] = case.mr.astype(np.float16)
    with replacing_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def read_case(path: Path) -> CachedCase:
    """Read one case. Raises `InputError` for a damaged file."""
    try:
        with np.load(path) as data:
            masks = {}
            for key in data.files:
                if key.startswith("start/"):
                    organ = key[len("start/") :]
                    shape = tuple(int(n) for n in data[f"shape/{organ}"])
                    crop = np.unpackbits(data[f"bits/{organ}"], count=int(np.prod(shape))).astype(bool)
                    z, y, x = (int(v) for v in data[key])
                    masks[organ] = ((z, y, x), crop.reshape(shape))
            slices = {k.removeprefix("slices/"): data[k] for k in data.files if k.startswith("slices/")}
            return CachedCase(
                name=path.stem,
                ct_hu=data["ct_hu"],
                origin_mm=tuple(data["origin_mm"].tolist()),
                spacing_mm=tuple(data["spacing_mm"].tolist()),
                masks=masks,
                annotated=frozenset(data["annotated"].tolist()),
                slices=slices,
                mr=data["mr"] if "mr" in data.files else None,
                head_mm=tuple(data["head_mm"].tolist()) if "head_mm" in data.files else None,
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: damaged training case ({error}); prepare it again") from error
