"""Where published data sets, and hospitals, keep the CT and the structures of each case."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from soars.errors import InputError
from soars.texts import read_json

log = logging.getLogger(__name__)

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
NAMES_ENDINGS = (".json", ".csv", ".txt", ".label")
"""Of the file that names the values of a label map beside it (`soars.formats.labelnames`)."""


PATIENTS_FILE = "patients.json"
"""In the layout `folders`, beside the cases: whom each is of."""


@dataclass(frozen=True)
class CaseFiles:
    """One case on disk.

    Attributes:
        name: unique in the data set; split: "train" unless the layout names another.
        ct: file or DICOM folder.
        structures: a structure file or a folder of masks that is read whole; None when `masks` is used.
        masks: organ as the data set spells it -> the file that holds it alone.
        labels: value -> organ, of a label map in `structures` that nothing else names.
        problem: why the case cannot be read, None when nothing is missing.
        mr: an MR of the patient; None without.
        series: UID of the CT's series in its folder; None where that holds one, or the CT is a file.
        unseen: value of a label map for voxels that nobody looked at; None where it has none.
        patient: whom the case is of (see `patients_of`); "" where only the case's name is known.
    """

    name: str
    ct: Path
    structures: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    split: str = "train"
    problem: str | None = None
    mr: Path | None = None
    series: str | None = None
    unseen: int | None = None
    patient: str = ""


@dataclass(frozen=True)
class Whose:
    """What tells whose a case is.

    Attributes:
        name: the case's own, unique. said: the patient whom the user names, "" when nobody is named.
        scan: which CT it is, "" when no other case can be of the same.
        patient_id: DICOM's Patient ID, "" without; it is compared with those of the other cases and kept nowhere.
    """

    name: str
    said: str = ""
    scan: str = ""
    patient_id: str = ""


FEWEST_ALIKE = 3
"""So many CTs or more that all have one Patient ID were given it by a tool that removes identities."""
SHOWN = 5
"""So many patients of several cases are named in a warning."""


def patients_of(cases: Sequence[Whose]) -> list[str]:
    """The patient of every case. Cases are of the same one if the user says so, if they are one CT, or if their CTs
    have the same Patient ID.

    A patient is called what the user says, else after his first case: an identifier of DICOM, or a hash from which it
    could be guessed, would go into caches and runs, which are passed on. A Patient ID says nothing where the user names
    several patients that have it, nor where all cases of several have the same, of which is warned.
    """
    said = {case.said.casefold() for case in cases if case.said}
    telling = _telling_ids(cases)
    group = list(range(len(cases)))
    first: dict[tuple[str, str], int] = {}
    for number, case in enumerate(cases):
        called = (case.said or case.name).casefold()
        marks = [
            ("patient", called if called in said else ""),
            ("CT", case.scan),
            ("Patient ID", case.patient_id if case.patient_id in telling else ""),
        ]
        for mark in (m for m in marks if m[1]):
            mine, other = group[number], group[first.setdefault(mark, number)]
            if mine != other:
                group = [min(mine, other) if g in (mine, other) else g for g in group]
    members: dict[int, list[Whose]] = {}
    for number, case in zip(group, cases, strict=True):
        members.setdefault(number, []).append(case)
    names = {k: next((case.said for case in same if case.said), same[0].name) for k, same in members.items()}
    together = [same for same in members.values() if len(same) > 1 and not all(case.said for case in same)]
    if together:
        shown = "; ".join(" and ".join(case.name for case in same) for same in together[:SHOWN])
        more = f", and {len(together) - SHOWN} more patients" if len(together) > SHOWN else ""
        log.warning(
            "of one patient by their CT or Patient ID, and on one side of --held-out, crossval and ablate: %s%s",
            shown,
            more,
        )
    return [names[number] for number in group]


def _telling_ids(cases: Sequence[Whose]) -> set[str]:
    """The Patient IDs that tell whose a case is."""
    said: dict[str, set[str]] = {}
    for case in cases:
        said.setdefault(case.patient_id, set()).update([case.said.casefold()] if case.said else [])
    ids = {identifier for identifier, names in said.items() if identifier and len(names) < 2}
    scans = {case.scan or case.name for case in cases}
    if len(scans) >= FEWEST_ALIKE and len(said) == 1 and ids and not any(said.values()):
        log.warning(
            "all %d CTs have the same Patient ID, which tells no patients apart, so each counts as a patient; where "
            "some are of one, say so in a list of cases (--list, patient), lest they fall on both sides of --held-out",
            len(scans),
        )
        return set()
    return ids


STRUCTSEG_VALUES = dict(
    enumerate(
        "Brainstem Eye_L Eye_R Lens_L Lens_R OpticNrv_L OpticNrv_R OpticChiasm Lobe_Temporal_L Lobe_Temporal_R "
        "Pituitary Parotid_L Parotid_R Ear_Internal_L Ear_Internal_R Ear_Middle_L Ear_Middle_R Joint_TM_L Joint_TM_R "
        "SpinalCord Bone_Mandible_L Bone_Mandible_R".split(),
        start=1,
    )
)
"""The 22 values of StructSeg 2019's first task, in the order of its organisers' and others' tables."""
SEGRAP_NAMES = {"Larynx_Supraglot": "Larynx_SG"}
"""Of SegRap 2023's names those that the catalogue spells otherwise."""

Layout = Callable[[Path], Iterator[CaseFiles]]


def case_files(layout: str, root: Path) -> list[CaseFiles]:
    """The cases of a folder in the layout of that name. Raises `InputError` when there are none, or two of one name."""
    if not root.is_dir():
        raise InputError(f"there is no folder {root}")
    cases = list(LAYOUTS[layout](root))
    if not cases:
        raise InputError(f"{root}: no case in the layout {layout}; expected {SHAPES[layout]}")
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{root}: two cases are called {twice[0]}")
    return cases


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _image(folder: Path, *stems: str) -> Path | None:
    """The image of the first of these names that the folder has."""
    for stem in stems:
        for ending in IMAGE_ENDINGS:
            if (folder / (stem + ending)).is_file():
                return folder / (stem + ending)
    return None


def _with_masks(folder: Path, ct: Path, masks: str) -> CaseFiles:
    problem = None if (folder / masks).is_dir() else f"there is no folder {masks}"
    return CaseFiles(folder.name, ct, folder / masks, problem=problem)


def _dicom(root: Path) -> Iterator[CaseFiles]:
    """A folder a patient, anywhere below which lie one RTSTRUCT or SEG and the CT series that it was drawn on."""
    found = list(_dicom_folders(root))
    usable = [(case, patient_id) for case, patient_id in found if not case.problem]
    named = patients_of([Whose(case.name, patient_id=patient_id) for case, patient_id in usable])
    of_case = {case.name: patient for (case, _), patient in zip(usable, named, strict=True)}
    for case, _ in found:
        yield replace(case, patient=of_case.get(case.name, ""))


def _dicom_folders(root: Path) -> Iterator[tuple[CaseFiles, str]]:
    """The cases of a tree, and the Patient ID of each CT."""
    from soars.dicom.patients import find_patients

    for patient in find_patients(root) if _folders(root) else ():
        structures = [path for path in patient.structures if not path.name.lower().endswith(".seg.nrrd")]
        problem = patient.problem
        if not problem and patient.series and len(structures) == 1:
            try:
                ct, series = patient.ct_of(structures[0])
            except InputError as error:
                problem = str(error)
            else:
                yield CaseFiles(patient.name, ct, structures[0], series=series), patient.ids[series]
                continue
        if problem or patient.series or structures:
            needed = f"{len(structures)} RTSTRUCT or SEG files where one is needed"
            problem = problem or (needed if patient.series else "no CT")
            yield CaseFiles(patient.name, patient.folder, problem=problem), ""


def _nnunet(root: Path) -> Iterator[CaseFiles]:
    """nnU-Net raw data, of its first version too: dataset.json, imagesTr/CASE_0000.ENDING (of several channels the one
    called CT), labelsTr/CASE.ENDING."""
    try:
        facts = read_json(root / "dataset.json")
        # The first version wrote .nii.gz alone, and called the channels modality.
        ending = str(facts.get("file_ending", ".nii.gz"))
        named = facts.get("channel_names", facts.get("modality", {0: "CT"}))
        channels = {int(number): str(name) for number, name in named.items()}
        ignored = facts["labels"].get("ignore")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        return
    cts = [number for number, name in channels.items() if name.casefold() == "ct"]
    # Only a channel of that name has HU for certain; a single one may be called otherwise.
    number = cts[0] if len(cts) == 1 else 0
    which = None if len(cts) == 1 or len(channels) == 1 else f"{len(cts)} of its channels are called CT"
    for label in sorted(p for p in (root / "labelsTr").glob(f"*{ending}") if not p.name.startswith(".")):
        name = label.name.removesuffix(ending)
        ct = root / "imagesTr" / f"{name}_{number:04d}{ending}"
        problem = which or (None if ct.is_file() else f"there is no {ct.name} in imagesTr")
        unseen = ignored if isinstance(ignored, int) else None
        yield CaseFiles(name, ct, label, problem=problem, unseen=unseen)


def _hanseg(root: Path) -> Iterator[CaseFiles]:
    """HaN-Seg: case_01/case_01_IMG_CT.nrrd beside case_01_OAR_NAME.seg.nrrd and case_01_IMG_MR_T1.nrrd, in the root or
    in its folder set_1."""
    for folder in _folders(root / "set_1" if (root / "set_1").is_dir() else root):
        ct = folder / f"{folder.name}_IMG_CT.nrrd"
        start = f"{folder.name}_OAR_"
        masks = {
            path.name.removeprefix(start).removesuffix(".seg.nrrd"): path
            for path in sorted(folder.glob(f"{start}*.seg.nrrd"))
        }
        if ct.is_file():
            problem = None if masks else f"there is no {start}*.seg.nrrd"
            mr = folder / f"{folder.name}_IMG_MR_T1.nrrd"
            yield CaseFiles(folder.name, ct, masks=masks, problem=problem, mr=mr if mr.is_file() else None)


def _pddca(root: Path) -> Iterator[CaseFiles]:
    """PDDCA (MICCAI 2015): CASE/img.nrrd and CASE/structures/ORGAN.nrrd."""
    for folder in _folders(root):
        ct = _image(folder, "img")
        if ct:
            yield _with_masks(folder, ct, "structures")


def _deepmind(root: Path) -> Iterator[CaseFiles]:
    """DeepMind's TCIA set: CASE/CT_IMAGE.nrrd and CASE/segmentations/ORGAN.nrrd, in a folder of one observer."""
    for folder in _folders(root):
        ct = _image(folder, "CT_IMAGE")
        if ct:
            yield _with_masks(folder, ct, "segmentations")


def _totalsegmentator(root: Path) -> Iterator[CaseFiles]:
    """TotalSegmentator: CASE/ct.nii.gz and CASE/segmentations/ORGAN.nii.gz."""
    for folder in _folders(root):
        ct = _image(folder, "ct")
        if ct:
            yield _with_masks(folder, ct, "segmentations")


def _structseg(root: Path) -> Iterator[CaseFiles]:
    """StructSeg 2019, HaN_OAR: NUMBER/data.nii.gz and NUMBER/label.nii.gz, with the challenge's values."""
    for folder in _folders(root / "HaN_OAR" if (root / "HaN_OAR").is_dir() else root):
        ct, label = _image(folder, "data"), _image(folder, "label")
        if ct:
            problem = None if label else "there is no label"
            yield CaseFiles(folder.name, ct, label, labels=STRUCTSEG_VALUES, problem=problem)


def _segrap(root: Path) -> Iterator[CaseFiles]:
    """SegRap 2023: segrap_0000/image.nii.gz (image_contrast.nii.gz is not used) beside ORGAN.nii.gz."""
    for folder in _folders(root):
        ct = _image(folder, "image")
        masks = {
            SEGRAP_NAMES.get(stem, stem): path
            for path in sorted(folder.glob("*.nii.gz"))
            if (stem := path.name.removesuffix(".nii.gz")) not in ("image", "image_contrast")
        }
        if ct:
            yield CaseFiles(folder.name, ct, masks=masks, problem=None if masks else "there are no masks")


def _folder_each(root: Path) -> Iterator[CaseFiles]:
    """CASE/ct.ENDING (or image) and CASE/structures, a folder of masks, or a file of any format that is read; where one
    patient has several cases, patients.json beside them: {"CASE": "PATIENT"}."""
    patients = _patients_said(root)
    for folder in _folders(root):
        ct = _image(folder, "ct", "image")
        found = sorted(p for p in folder.iterdir() if p.name.split(".")[0] == "structures")
        structures = [p for p in found if p.suffix.lower() not in NAMES_ENDINGS] or found
        if ct:
            problem = None if len(structures) == 1 else f"{len(structures)} structures where one is needed"
            drawn = structures[0] if structures else None
            yield CaseFiles(folder.name, ct, drawn, problem=problem, patient=patients.get(folder.name, ""))


def _patients_said(root: Path) -> dict[str, str]:
    """Case -> patient, from the file that says so. Raises `InputError` for a damaged one, or a name that is no case."""
    path = root / PATIENTS_FILE
    if not path.is_file():
        return {}
    try:
        said = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(said, dict) or not all(isinstance(p, str) and p.strip() for p in said.values()):
        raise InputError(f'{path}: does not say of each case whom it is of: {{"CASE": "PATIENT"}}')
    strange = sorted(set(said) - {folder.name for folder in _folders(root)})
    if strange:
        raise InputError(f"{path}: names {strange[0]}, and there is no such folder")
    return {case: patient.strip() for case, patient in said.items()}


LAYOUTS: Mapping[str, Layout] = {
    "dicom": _dicom,
    "nnunet": _nnunet,
    "hanseg": _hanseg,
    "pddca": _pddca,
    "deepmind": _deepmind,
    "totalsegmentator": _totalsegmentator,
    "structseg": _structseg,
    "segrap": _segrap,
    "folders": _folder_each,
}
SHAPES = {name: " ".join((find.__doc__ or "").split()).rstrip(".") for name, find in LAYOUTS.items()}
"""Each layout in words, for messages and help."""
