"""Contours leave Slicer by every route, and another program finds them where they were."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from reading_desk import blocks

from soars.ct.series import read_series
from soars.dicom.rtstruct import read_rtstruct, write_rtstruct
from soars.dicom.write import write_ct_series
from soars.errors import InputError
from soars.formats.segnrrd import read_seg_nrrd
from soars.structures import Geometry, StructureSet
from SOARSSegmentationLib.export.in_place import check_in_place
from SOARSSegmentationLib.export.routes import LOG, RTSTRUCT, SEG_NRRD, SLICERRT, Route, routes
from SOARSSegmentationLib.export.rtstruct import export_rtstruct
from SOARSSegmentationLib.export.seg_nrrd import export_seg_nrrd
from SOARSSegmentationLib.export.session_log import export_log
from SOARSSegmentationLib.export.slicerrt import SLICERRT_PLUGIN, export_by_slicerrt
from SOARSSegmentationLib.scene.building import add_segmentation, empty_segmentation
from SOARSSegmentationLib.scene.ct import dicom_files

ORGANS = {
    "Brainstem": np.s_[5:12, 5:12, 5:12],
    "Eye_L": np.s_[2:9, 15:25, 10:20],
    "Lens_L": np.s_[4:6, 17:19, 12:14],
    "Pituitary": np.s_[0:0, 0:0, 0:0],
}
DRAWN = ("Brainstem", "Eye_L", "Lens_L")


class Clinic:
    """A CT in DICOM files, the same CT in the scene, and its organs as a segmentation."""

    def __init__(self, core: Any, folder: Path, *, flipped: bool = False) -> None:
        self.structures = blocks(ORGANS)
        geometry = self.structures.geometry
        hu = np.random.default_rng(0).integers(-1000, 1000, geometry.shape).astype(np.int16)
        image = geometry.place(sitk.GetImageFromArray(hu))
        self.dicom = folder / "dicom"
        self.files = [
            str(path) for path in write_ct_series(image, self.dicom, patient_id="P", patient_name="N")
        ]
        if flipped:  # the same voxels in the same places, stored from the other end
            image = sitk.DICOMOrient(image, "RPI")
            self.structures = self.structures.resample(Geometry.of(image), nearest=True)
        self.image = image
        self.ct = core.add_ct(self.structures.geometry, sitk.GetArrayFromImage(image))
        uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in self.files]
        self.ct.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
        self.known = dict(zip(uids, self.files, strict=True))
        self.node = add_segmentation(core.scene, self.ct, self.structures, "organs")


@pytest.fixture
def clinic(core: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    clinic = Clinic(core, tmp_path)
    database = SimpleNamespace(fileForInstance=lambda uid: clinic.known.get(uid, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    return clinic


SOME_CONTOURS = object()
"""Whether a route is open depends on whether there are any, not on what they are."""


def route(volume: Any, key: str, session: Path | None = None) -> Route:
    files = dicom_files(volume)
    return next(one for one in routes(SOME_CONTOURS, volume, files, session) if one.key == key)


def same(one: StructureSet, other: StructureSet, names: Iterable[str] = DRAWN) -> bool:
    return all(one.crop(name).equals(other.crop(name)) for name in names)


# --- RTSTRUCT on the original CT ---------------------------------------------------------------------------------
def test_an_rtstruct_lies_on_the_original_ct(clinic: Clinic, tmp_path: Path) -> None:
    assert route(clinic.ct, RTSTRUCT).available
    exported = export_rtstruct(clinic.node, clinic.ct, tmp_path / "rtstruct.dcm")
    assert (
        "3 organs" in exported.what
        and str(exported.path) in exported.what
        and "put onto" not in exported.what
    )
    image, series, _ = read_series(clinic.dicom)
    back = read_rtstruct(exported.path, Geometry.of(image), series)
    assert back.names == DRAWN  # an organ without voxels is none to a planning system
    assert same(back, clinic.structures)
    dataset = pydicom.dcmread(exported.path)
    first = pydicom.dcmread(clinic.files[0], stop_before_pixels=True)
    assert dataset.StudyInstanceUID == first.StudyInstanceUID
    assert dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID == first.FrameOfReferenceUID
    referred = {
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        for roi in dataset.ROIContourSequence
        for contour in roi.ContourSequence
    }
    assert referred <= set(clinic.known)


def test_some_organs_only(clinic: Clinic, tmp_path: Path) -> None:
    path = export_rtstruct(clinic.node, clinic.ct, tmp_path / "rt.dcm", organs=["Lens_L", "Brainstem"]).path
    assert [str(roi.ROIName) for roi in pydicom.dcmread(path).StructureSetROISequence] == [
        "Lens_L",
        "Brainstem",
    ]


def test_sides_that_were_exchanged_by_renaming_are_exchanged(clinic: Clinic, tmp_path: Path) -> None:
    segment = clinic.node.GetSegmentation().GetSegment("Eye_L")
    segment.SetName("Eye_R")
    path = export_rtstruct(clinic.node, clinic.ct, tmp_path / "rtstruct.dcm").path
    image, series, _ = read_series(clinic.dicom)
    back = read_rtstruct(path, Geometry.of(image), series)
    assert set(back.names) == {"Eye_R", *DRAWN} - {"Eye_L"}
    assert back.crop("Eye_R").equals(clinic.structures.crop("Eye_L"))


def test_files_may_lie_anywhere_among_others(clinic: Clinic, tmp_path: Path) -> None:
    other = blocks({}).geometry.place(sitk.GetImageFromArray(np.zeros((20, 30, 40), np.int16)))
    write_ct_series(other, tmp_path / "dicom" / "other", patient_id="Q", patient_name="M", seed=2)
    moved = []
    for number, file in enumerate(reversed(clinic.files)):
        folder = tmp_path / f"{number % 3}"
        folder.mkdir(exist_ok=True)
        moved.append(shutil.move(file, folder / "same name.dcm" if number < 3 else folder / Path(file).name))
    export_rtstruct(clinic.node, clinic.ct, tmp_path / "rt.dcm", files=[str(path) for path in moved])
    assert (tmp_path / "rt.dcm").is_file()


def test_a_ct_stored_from_the_other_end_is_the_same_ct(core: Any, tmp_path: Path) -> None:
    clinic = Clinic(core, tmp_path, flipped=True)
    exported = export_rtstruct(clinic.node, clinic.ct, tmp_path / "rt.dcm", files=clinic.files)
    image, series, _ = read_series(clinic.dicom)
    assert same(read_rtstruct(exported.path, Geometry.of(image), series), blocks(ORGANS))
    assert "put onto" not in exported.what


def test_a_resampled_ct_is_said_to_be_one(core: Any, tmp_path: Path) -> None:
    clinic = Clinic(core, tmp_path)
    g = clinic.structures.geometry
    finer = Geometry((80, 60, 20), (0.5, 0.75, 2.0), (g.origin[0] - 0.25, g.origin[1] - 0.375, g.origin[2]))
    ct = core.add_ct(finer, resampled(clinic.image, finer, sitk.sitkNearestNeighbor), name="finer")
    node = add_segmentation(core.scene, ct, clinic.structures.resample(finer, nearest=True), "finer")
    exported = export_rtstruct(node, ct, tmp_path / "rt.dcm", files=clinic.files)
    assert "resampled onto its voxels" in exported.what
    image, series, _ = read_series(clinic.dicom)
    assert same(read_rtstruct(exported.path, Geometry.of(image), series), clinic.structures)


def test_a_ct_that_is_elsewhere_is_refused(core: Any, tmp_path: Path) -> None:
    clinic = Clinic(core, tmp_path)
    g = clinic.structures.geometry
    moved = Geometry(g.size, g.spacing, (g.origin[0] + 500, g.origin[1], g.origin[2]))
    ct = core.add_ct(moved, name="moved")
    node = add_segmentation(core.scene, ct, clinic.structures.on(moved), "moved")
    with pytest.raises(InputError, match="not where its DICOM files say"):
        export_rtstruct(node, ct, tmp_path / "rt.dcm", files=clinic.files)
    assert not (tmp_path / "rt.dcm").exists()


def resampled(image: sitk.Image, grid: Geometry, how: int) -> np.ndarray:
    """HU of an image on another grid, [z, y, x]."""
    filled = sitk.Resample(
        image, grid.size, sitk.Transform(), how, grid.origin, grid.spacing, grid.direction, -1000.0
    )
    return sitk.GetArrayFromImage(filled)


HEAD = Geometry((60, 70, 40), (1.0, 1.0, 2.5), (-30.0, -40.0, 10.0))


def head() -> sitk.Image:
    """A lopsided head of soft tissue in air, with a jaw, in which HU change slowly from voxel to voxel."""
    z, y, x = np.indices(HEAD.shape, dtype=float)
    hu = np.full(HEAD.shape, -1000.0)
    for centre, radius, value in (((20, 35, 30), (16, 25, 20), 1050), ((12, 15, 26), (5, 8, 12), 900)):
        r2 = sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radius, strict=True))
        hu += value / (1 + np.exp(8 * (r2 - 1)))
    return HEAD.place(sitk.GetImageFromArray(np.round(hu).astype(np.int16)))


def turned(grid: Geometry, degrees: float) -> Geometry:
    """A grid after a turn about the long axis of the patient, through the grid's middle."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    middle = grid.corners().mean(axis=0)
    origin = middle + turn @ (np.array(grid.origin) - middle)
    direction = turn @ np.reshape(grid.direction, (3, 3))
    return Geometry(grid.size, grid.spacing, tuple(origin.tolist()), tuple(direction.ravel().tolist()))


def shifted(grid: Geometry, *mm: float) -> Geometry:
    return Geometry(
        grid.size, grid.spacing, tuple(float(a + b) for a, b in zip(grid.origin, mm, strict=True))
    )


@pytest.mark.parametrize(
    "grid",
    [
        pytest.param(shifted(HEAD, 0, 0, 2.5), id="one slice higher"),
        pytest.param(shifted(HEAD, 0, 0, 25), id="ten slices higher"),
        pytest.param(shifted(HEAD, 3, -2, 0), id="aside"),
        pytest.param(shifted(HEAD, 0.8, 0, 0), id="nearly a voxel aside"),
        pytest.param(turned(HEAD, 180), id="face down"),
        pytest.param(turned(HEAD, 3), id="turned"),
    ],
)
def test_a_ct_that_was_moved_is_refused(core: Any, grid: Geometry) -> None:
    """As by a transform applied to it: the same voxels in another place of the patient."""
    image = head()
    ct = core.add_ct(grid, sitk.GetArrayFromImage(image))
    with pytest.raises(InputError, match="not where its DICOM files say"):
        check_in_place(ct, image)


def test_a_ct_that_was_cropped_resampled_or_painted_in_is_in_place(core: Any) -> None:
    image = head()
    array = sitk.GetArrayFromImage(image)
    array[18:20] = 3000  # a tenth of its slices less one half
    for grid, hu in (
        (HEAD, array),
        (HEAD.cropped((5, 10, 8), (30, 50, 40)), sitk.GetArrayFromImage(image)[5:35, 10:60, 8:48]),
        *(
            (grid, resampled(image, grid, sitk.sitkLinear))
            for grid in (
                Geometry((20, 23, 33), (3.0, 3.0, 3.0), (-29.3, -38.8, 10.4)),
                Geometry((120, 140, 100), (0.5, 0.5, 1.0), HEAD.origin),
            )
        ),
    ):
        check_in_place(core.add_ct(grid, hu), image)
    outside = sitk.GetArrayFromImage(image)
    outside[:, :20] = -2000  # what lies outside the field of view, which other readers call air
    upside_down = Geometry(
        HEAD.size, HEAD.spacing, tuple(HEAD.to_physical((39, 0, 0)).tolist()), (1, 0, 0, 0, 1, 0, 0, 0, -1)
    )
    check_in_place(core.add_ct(upside_down, outside[::-1]), image)


def test_a_moved_ct_has_no_rtstruct_on_its_files(core: Any, clinic: Clinic, tmp_path: Path) -> None:
    g = clinic.structures.geometry
    moved = Geometry(g.size, g.spacing, (g.origin[0] + 2 * g.spacing[0], g.origin[1], g.origin[2]))
    ct = core.add_ct(moved, sitk.GetArrayFromImage(clinic.image), name="moved")
    node = add_segmentation(core.scene, ct, clinic.structures.on(moved), "moved")
    with pytest.raises(InputError, match="elsewhere in the patient"):
        export_rtstruct(node, ct, tmp_path / "rt.dcm", files=clinic.files)
    assert not (tmp_path / "rt.dcm").exists()


def test_what_an_rtstruct_lacks_is_said_before_and_after(core: Any, clinic: Clinic, tmp_path: Path) -> None:
    plain = core.add_ct(clinic.structures.geometry, name="from a NRRD")
    for volume, words in ((None, "no CT"), (plain, "not loaded from DICOM")):
        found = route(volume, RTSTRUCT)
        assert not found.available and words in found.why_not
    with pytest.raises(InputError, match="not loaded from DICOM"):
        export_rtstruct(clinic.node, plain, tmp_path / "rt.dcm")
    empty = empty_segmentation(core.scene, clinic.ct, ["Eye_L"], "empty")
    with pytest.raises(InputError, match="no organ has voxels"):
        export_rtstruct(empty, clinic.ct, tmp_path / "rt.dcm")
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        export_rtstruct(clinic.node, clinic.ct, tmp_path / "file" / "rt.dcm")
    os.unlink(clinic.files[3])
    assert "not all in Slicer's DICOM database" in route(clinic.ct, RTSTRUCT).why_not
    with pytest.raises(InputError, match="not all in Slicer's DICOM database"):
        export_rtstruct(clinic.node, clinic.ct, tmp_path / "rt.dcm")
    with pytest.raises(InputError, match="1 of the CT's 20 DICOM files are gone"):
        export_rtstruct(clinic.node, clinic.ct, tmp_path / "rt.dcm", files=clinic.files)
    with pytest.raises(InputError, match="cannot be referred to"):  # a gap in the CT
        export_rtstruct(
            clinic.node, clinic.ct, tmp_path / "rt.dcm", files=clinic.files[:3] + clinic.files[4:]
        )
    assert not (tmp_path / "rt.dcm").exists()


# --- Slicer's own file, and the log ------------------------------------------------------------------------------
def test_a_segmentation_file_holds_everything(clinic: Clinic, tmp_path: Path) -> None:
    assert route(clinic.ct, SEG_NRRD).available
    exported = export_seg_nrrd(clinic.node, tmp_path / "organs.seg.nrrd")
    back = read_seg_nrrd(exported.path).resample(clinic.structures.geometry, nearest=True)
    assert back.names == tuple(ORGANS) and same(back, clinic.structures, ORGANS)
    assert "4 segments" in exported.what


def test_a_session_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    session, target = tmp_path / "session", tmp_path / "copy"
    session.mkdir()
    assert not route(None, LOG, session).available
    with pytest.raises(InputError, match="no effort log"):
        export_log(session, target)
    for name in ("1.effort.jsonl", "2.effort.jsonl", "result.seg.nrrd", "notes.txt"):
        (session / name).write_text(name)
    assert route(None, LOG, session).available
    exported = export_log(session, target)
    assert sorted(path.name for path in target.iterdir()) == [
        "1.effort.jsonl",
        "2.effort.jsonl",
        "result.seg.nrrd",
    ]
    assert "3 files" in exported.what
    with pytest.raises(InputError, match="already holds"):
        export_log(session, target)


# --- by SlicerRT -------------------------------------------------------------------------------------------------
class Exportable:
    def __init__(self, item: int) -> None:
        self.subjectHierarchyItemID = item
        self.directory = ""
        self.tags: dict[str, str] = {}

    def setTag(self, name: str, value: str) -> None:
        self.tags[name] = value


class SlicerRT:
    """Stands for the extension: takes its calls, and writes what it would write, or what it should not."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.answer = ""
        self.writes = list(DRAWN)
        self.names: dict[str, str] = {}
        self.exported: list[Exportable] = []
        self.studies: list[int] = []
        self.segments: list[str] = []

    def examineForExport(self, item: int) -> list[Exportable]:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        node = hierarchy.GetItemDataNode(item)
        self.studies.append(hierarchy.GetItemParent(item))
        if node.IsA("vtkMRMLSegmentationNode"):
            self.segments = list(node.GetSegmentation().GetSegmentIDs())
        return [Exportable(item)]

    def export(self, exportables: list[Exportable]) -> str:
        self.exported = exportables
        folder = Path(exportables[0].directory)
        (folder / "text.txt").write_text("not DICOM")
        for file in self.clinic.files:
            shutil.copy(file, folder)
        if self.writes:
            image, series, _ = read_series(self.clinic.dicom)
            structures = StructureSet(Geometry.of(image))
            for organ in self.writes:
                structures.add_mask(self.names.get(organ, organ), self.clinic.structures.crop(organ))
            write_rtstruct(structures, folder / "rtss.dcm", series)
        return self.answer


@pytest.fixture
def slicerrt(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> SlicerRT:
    plugin = SlicerRT(clinic)
    module = ModuleType(SLICERRT_PLUGIN)
    module.DicomRtImportExportPluginClass = lambda: plugin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, SLICERRT_PLUGIN, module)
    monkeypatch.setattr(slicer.modules, "dicomrtimportexport", SimpleNamespace(), raising=False)
    return plugin


def test_without_slicerrt_its_route_is_closed(clinic: Clinic, tmp_path: Path) -> None:
    assert "Extensions Manager" in route(clinic.ct, SLICERRT).why_not
    with pytest.raises(InputError, match="not installed"):
        export_by_slicerrt(clinic.node, clinic.ct, tmp_path / "rt")
    assert not (tmp_path / "rt").exists()


def test_slicerrt_gets_both_items_of_one_study_with_the_patients_tags(
    core: Any, clinic: Clinic, slicerrt: SlicerRT, tmp_path: Path
) -> None:
    hierarchy = core.subject_hierarchy
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(clinic.ct))
    hierarchy.SetItemAttribute(hierarchy.GetItemParent(study), "DICOM.PatientID", "P17")
    hierarchy.SetItemUID(study, "DICOM", "1.2.3")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(clinic.node), hierarchy.GetSceneItemID())
    assert route(clinic.ct, SLICERRT).available
    exported = export_by_slicerrt(clinic.node, clinic.ct, tmp_path / "rt")
    assert slicerrt.exported[0].subjectHierarchyItemID == hierarchy.GetItemByDataNode(clinic.ct)
    assert slicerrt.studies == [study, study]
    assert slicerrt.segments == list(DRAWN), "organs without voxels would cost as much as the others"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(clinic.node)) == hierarchy.GetSceneItemID()
    assert core.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    for exportable in slicerrt.exported:
        assert exportable.tags == {"PatientID": "P17", "StudyInstanceUID": "1.2.3"}
    assert exported.path == tmp_path / "rt" / "rtss.dcm" and exported.path.is_file()
    assert len(list((tmp_path / "rt").iterdir())) == 22 and "3 organs" in exported.what


def test_segments_have_their_own_names_in_slicerrts_file(
    clinic: Clinic, slicerrt: SlicerRT, tmp_path: Path
) -> None:
    """As those of contours that came from a clinic, whatever organ we know them as."""
    clinic.node.GetSegmentation().GetSegment("Eye_L").SetName("LEFT EYE")
    slicerrt.names = {"Eye_L": "LEFT EYE"}
    assert export_by_slicerrt(clinic.node, clinic.ct, tmp_path / "rt").path.is_file()
    slicerrt.names = {}
    with pytest.raises(InputError, match="without contours of LEFT EYE"):
        export_by_slicerrt(clinic.node, clinic.ct, tmp_path / "other")


def test_a_ct_in_no_study_has_no_such_route(core: Any, clinic: Clinic, slicerrt: SlicerRT) -> None:
    stray = core.add_ct(clinic.structures.geometry, name="stray", study=False)
    assert "belongs to no study" in route(stray, SLICERRT).why_not


@pytest.mark.parametrize("fault", ["answer", "nothing", "incomplete", "exception", "taken"])
def test_what_slicerrt_does_wrong_is_said_and_leaves_no_file(
    clinic: Clinic, slicerrt: SlicerRT, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {
        "answer": "could not write the RTSTRUCT: no planar contours",
        "nothing": "wrote no RTSTRUCT",
        "incomplete": "without contours of Lens_L",
        "exception": "SlicerRT failed: RuntimeError: oh",
        "taken": "already holds CT_0001.dcm",
    }
    folder = tmp_path / "rt"
    folder.mkdir()
    if fault == "answer":
        slicerrt.answer = "no planar contours"
    elif fault == "nothing":
        slicerrt.writes = []
    elif fault == "incomplete":
        slicerrt.writes = ["Brainstem", "Eye_L"]
    elif fault == "exception":

        def fail(exportables: list[Exportable]) -> str:
            raise RuntimeError("oh")

        monkeypatch.setattr(slicerrt, "export", fail)
    else:
        (folder / "CT_0001.dcm").touch()
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=words[fault]):
        export_by_slicerrt(clinic.node, clinic.ct, folder)
    assert sorted(folder.rglob("*")) == before


# --- in the window -----------------------------------------------------------------------------------------------
def test_contours_without_voxels_are_said_to_be_so(visit: Any) -> None:
    node = empty_segmentation(slicer.mrmlScene, visit.ct, ["Brainstem"], "nothing yet")
    visit.window.desk.put("segmentation", node)
    visit.window.export.export("slicerrt")
    assert visit.window.export.notice.text == "No organ has voxels: there is nothing to write."


@pytest.mark.skipif(os.name == "nt", reason="the playing child is a shell script")
def test_the_name_of_a_series_makes_the_name_of_a_file(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of "4: Neck" Windows takes "4:" for a disk, and would leave the folder out."""
    offered: list[str] = []
    visit.ct.SetName("4: Neck 1/2")
    visit.propose()
    monkeypatch.setattr(visit.qt.QFileDialog, "getSaveFileName", lambda *a: offered.append(a[2]) or "")
    visit.window.export.panel.button("seg_nrrd").click()
    folder = PureWindowsPath("C:/Users/R/Documents")
    assert (folder / Path(offered[0]).name).parent == folder
    assert Path(offered[0]).name == "4_ Neck 1_2 organs at risk.seg.nrrd"
