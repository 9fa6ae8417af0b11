"""The record of a finding: the same in the table in Slicer, in the report, in `run.json` and in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from soars.structures import Geometry

SERIOUS, CHECK, NOTE = "serious", "check", "note"
SEVERITIES = (SERIOUS, CHECK, NOTE)
"""The organ is probably wrong; it may be, look at the place; worth knowing. The most severe first."""

KINDS = (
    "sides_exchanged",  # left and right were the wrong way round, and were swapped
    "wrong_side",  # a part lay beyond the patient's middle
    "absent",  # what was found is too small to be the organ
    "pieces",  # separate pieces were removed
    "gap",  # slices without the organ between slices with it
    "hole",  # a cavity inside
    "flat_face",  # the surface is cut straight
    "cut_off",  # the organ reaches the scan's edge
    "volume",  # too large or too small
    "asymmetry",  # left and right differ in volume or in place
    "place",  # not where it lies relative to other organs
    "overlap",  # two organs share voxels that anatomy gives to one
    "confidence",  # the network is uncertain about its border
    "detection",  # the place was found with difficulty
    "other",  # from a record of an older version, which had only sentences
)

MIDLINE_MM = 10.0
"""Places within this distance of the patient's middle are on neither side."""


@dataclass(frozen=True)
class Where:
    """A place in the patient.

    Attributes:
        slice_number: of the CT's axial slices in the order they are stored, the first being 1.
        side: of the patient: "left", "right" or "midline".
        point_mm: (x, y, z) in LPS mm.
    """

    slice_number: int
    side: str
    point_mm: tuple[float, float, float]

    def text(self) -> str:
        """For a sentence: ``slice 42, left``."""
        return f"slice {self.slice_number}, {self.side}"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        organ: TG-263 name.
        kind: one of `KINDS`.
        severity: one of `SEVERITIES`.
        text: a sentence for a clinician, without the organ's name and the place.
        advice: what to do, a sentence.
        where: the place to look at; None when there is none, as for an organ that is absent.
    """

    organ: str
    kind: str
    severity: str
    text: str
    advice: str
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.severity not in SEVERITIES:
            raise ValueError(f"no kind or severity of finding: {self.kind!r}, {self.severity!r}")

    def sentence(self) -> str:
        """Text and place, as in ``a third of it was removed (slice 42, left)``."""
        return f"{self.text} ({self.where.text()})" if self.where is not None else self.text

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Finding:
        """What `dataclasses.asdict` and JSON made of one; raises `KeyError`, `TypeError` or `ValueError`."""
        where = data.get("where")
        place = None
        if where is not None:
            x, y, z = (float(v) for v in where["point_mm"])
            place = Where(int(where["slice_number"]), str(where["side"]), (x, y, z))
        kind = data["kind"] if data["kind"] in KINDS else "other"
        return Finding(data["organ"], kind, data["severity"], data["text"], data["advice"], place)


@dataclass(frozen=True)
class ExpectedDsc:
    """The DSC against a reader's contour that contours of this confidence reached on held-out patients.

    ``value`` on average; four in five lay between ``low`` and ``high``.
    """

    value: float
    low: float
    high: float

    def text(self) -> str:
        """As in ``0.82 (0.74 to 0.88)``."""
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Locator:
    """Names places of a CT.

    ``left_mm`` gives for points [..., 3] in LPS mm how far they lie to the left of the patient's middle.
    """

    geometry: Geometry
    left_mm: Callable[[np.ndarray], np.ndarray]

    @property
    def body_axis(self) -> int:
        """The axis of the CT's arrays (z, y, x) that runs along the body."""
        return 2 - int(np.argmax(np.abs(np.reshape(self.geometry.direction, (3, 3))[2])))

    def at_index(self, index_zyx: np.ndarray) -> Where:
        """The place of a voxel, (z, y, x), which may be fractions."""
        index = np.asarray(index_zyx, float)
        point = self.geometry.to_physical(index)
        x, y, z = (round(float(v), 1) for v in point)
        left = float(self.left_mm(point))
        side = "midline" if abs(left) <= MIDLINE_MM else "left" if left > 0 else "right"
        axis = self.body_axis
        number = 1 + int(np.clip(round(float(index[axis])), 0, self.geometry.shape[axis] - 1))
        return Where(number, side, (x, y, z))

    def at_point(self, point_mm: np.ndarray) -> Where:
        """The place of a point (x, y, z) in LPS mm."""
        return self.at_index(self.geometry.to_index(point_mm))

    def in_mask(self, voxels: np.ndarray, start: tuple[int, int, int]) -> Where:
        """The voxel of a mask (bool [z, y, x], its first voxel at `start`) that is nearest to the mask's middle."""
        index = np.argwhere(voxels)
        nearest = index[np.argmin(((index - index.mean(axis=0)) ** 2).sum(axis=1))]
        return self.at_index(nearest + np.asarray(start))
