"""A folder tree of patients: where in it the CT series and the structures lie."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.uid import RTStructureSetStorage

from soars.ct.dicom_files import MOST_FILES, is_dicom, read_dataset, read_header
from soars.ct.series import is_ct_slice
from soars.dicom.objects import referenced_series
from soars.dicom.seg.read import LABEL_MAP, SEGMENTATION
from soars.errors import InputError

_STRUCTURES = (RTStructureSetStorage, SEGMENTATION, LABEL_MAP)


@dataclass
class PatientFolder:
    """What one patient's folder holds, at any depth.

    ``series``: the folder of each CT series, by its UID; ``ids``: its Patient ID, which may be "". ``structures``:
    RTSTRUCTs, DICOM segmentations and .seg.nrrd files, in order. ``problem``: why the folder cannot be used, or "".
    """

    name: str
    folder: Path
    series: dict[str, Path] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict, repr=False)
    structures: list[Path] = field(default_factory=list)
    problem: str = ""

    def ct_of(self, structures: Path) -> tuple[Path, str]:
        """Folder and UID of the CT series that a structure file belongs to: the one that an RTSTRUCT references, else
        the only one. `InputError` when that is not known."""
        named = structures.name.lower().endswith(".seg.nrrd")
        referenced = [] if named else _referenced_series(structures)
        for uid in referenced:
            if uid in self.series:
                return self.series[uid], uid
        if len(self.series) == 1:
            return next((folder, uid) for uid, folder in self.series.items())
        if not self.series:
            raise InputError(f"{self.folder}: there is no CT in it")
        why = "references none of them" if referenced else "does not say which is its own"
        raise InputError(f"{self.folder} holds {len(self.series)} CT series, and {structures.name} {why}")


def find_patients(root: Path) -> list[PatientFolder]:
    """The patients of a tree: each folder in ``root``, by name. `InputError` when there is none."""
    if not root.is_dir():
        raise InputError(f"{root}: not a folder of patients")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"{root}: there are no folders of patients in it")
    return [_look_into(folder) for folder in folders]


def _look_into(folder: Path) -> PatientFolder:
    patient = PatientFolder(folder.name, folder)
    slices: dict[str, set[Path]] = defaultdict(set)
    count = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        count += 1
        if count > MOST_FILES:
            patient.problem = f"{folder}: more than {MOST_FILES} files; give each patient a folder"
            return patient
        if path.name.lower().endswith(".seg.nrrd"):
            patient.structures.append(path)
            continue
        try:
            if not is_dicom(path):
                continue
            header = read_header(path)
        except (InputError, OSError):
            continue  # a damaged slice is reported when its series is read; other files do not matter here
        kind = header.text("SOPClassUID")
        if kind in _STRUCTURES or header.text("Modality") == "RTSTRUCT":
            patient.structures.append(path)
        elif is_ct_slice(header):
            uid = header.text("SeriesInstanceUID")
            slices[uid].add(path.parent)
            patient.ids.setdefault(uid, header.text("PatientID"))
    for uid, homes in slices.items():
        if len(homes) > 1:
            patient.problem = (
                f"{folder}: the CT series {uid} lies in {len(homes)} folders; put its files into one"
            )
        patient.series[uid] = min(homes)
    return patient


def _referenced_series(path: Path) -> list[str]:
    """Series Instance UIDs that the file references."""
    try:
        tags: list[Any] = ["ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence"]
        return referenced_series(read_dataset(path, specific_tags=tags))
    except Exception:  # a damaged file is reported when it is read completely
        return []
