"""The report shows every organ, rightly placed and proportioned, is one file, and runs nothing but its own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from report_scene import BALLS, CENTRE, record_of, scene

from soars.errors import InputError
from soars.findings.finding import ExpectedDsc, Finding, Where
from soars.report.isolines import isolines
from soars.report.page import render_report, write_report
from soars.report.pictures import Style, draw, png
from soars.report.planes import AXIS, Plane, choose_planes, plane_through
from soars.report.record import (
    ABSENT,
    NOT_COVERED,
    PRESENT,
    RESEARCH_NOTICE,
    EngineRecord,
    OrganRecord,
    orientation_of,
    read_run,
)
from soars.structures import StructureSet


@pytest.fixture(scope="module")
def usual() -> tuple[sitk.Image, StructureSet]:
    return scene()


def box_of(svg: str, label: str) -> np.ndarray:
    """Left, top, right, bottom in mm of the outline with this label."""
    path = re.search(rf'<path d="([^"]+)"[^>]*><title>{label}</title>', svg)
    assert path, label
    points = []
    for start, steps in re.findall(r"M([^l]+)l([^z]*)z", path.group(1)):
        numbers = [float(n) for n in steps.split()]
        moves = np.array([[float(n) for n in start.split()], *zip(numbers[::2], numbers[1::2], strict=True)])
        points.append(np.cumsum(moves, axis=0))
    points_mm = np.concatenate(points)
    return np.concatenate([points_mm.min(axis=0), points_mm.max(axis=0)])


# The file


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what matters."""

    EMPTY = {"meta", "br", "image", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.styles: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.tags[-1][1].get("type"), data))
        elif self.open and self.open[-1] == "style":
            self.styles.append(data)
        else:
            self.text.append(data)

    @property
    def policy(self) -> dict[str, str]:
        """The directives of the content policy."""
        (text,) = [
            a["content"]
            for t, a in self.tags
            if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
        ]
        return {
            name: values
            for name, _, values in (part.strip().partition(" ") for part in (text or "").split(";"))
        }


def sha256_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_report_is_one_file_that_fetches_nothing(usual):
    text = render_report(record_of(usual[1]), *usual)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"iframe", "link", "object", "embed", "form", "base"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in text and "@import" not in text
    assert len(text) < 3_000_000
    assert page.tags[0][1]["lang"] == "en"


def test_policy_allows_the_scripts_and_the_style_of_the_page_and_nothing_else(usual):
    page = Page(render_report(record_of(usual[1]), *usual))
    run = [script for kind, script in page.scripts if kind is None]
    assert len(run) == 3 and len(page.styles) == 1
    policy = page.policy
    assert policy["script-src"].split() == [sha256_source(script) for script in run]
    assert policy["style-src"].split() == [sha256_source(style) for style in page.styles]
    assert (policy["default-src"], policy["img-src"]) == ("'none'", "data:")
    assert "unsafe" not in "".join(policy.values()) and "eval(" not in "".join(run)


def test_report_says_what_was_done_with_what(usual):
    record = record_of(usual[1], warnings=("the CT has a gap",))
    text = " ".join(Page(render_report(record, *usual)).text)
    for said in (
        RESEARCH_NOTICE, "HEAD AND NECK", "1.2.3.4", "90 × 90 × 42", "2 × 2 × 4 mm", "LPS", "starter 1.2.0", "ab" * 32,
        "MIT", "170 CTs", "the CT has a gap", "onnxruntime 1.20, cpu, fp32", "12.8 s", "Parotid_L", "numpy 2.0",
    ):  # fmt: skip
        assert said in text, said


def test_texts_of_others_are_shown_not_run(usual):
    evil = "<script>alert('x')</script><img src=x onerror=alert(1)>\"' & $title {0}"
    record = record_of(usual[1], warnings=(evil,))
    record = replace(
        record,
        ct=replace(record.ct, description=evil, source=evil, series_uid=evil),
        bundle=replace(
            record.bundle, name=evil, description=evil, licence=evil, notes={evil: evil, "b": f"- {evil}"}
        ),
        organs=tuple(
            replace(
                o, label=evil, warnings=(evil,), findings=(Finding(o.name, "other", "check", evil, evil),)
            )
            for o in record.organs
        ),
        engine=EngineRecord(evil, evil, evil, evil),
        timings_s={evil: 1.0},
        options={evil: evil},
    )
    text = render_report(record, *usual)
    page = Page(text)
    assert "img" not in {tag for tag, _ in page.tags}
    assert [kind for kind, _ in page.scripts] == ["application/json", "text/plain", None, None, None]
    assert page.policy == Page(render_report(record_of(usual[1]), *usual)).policy, (
        "no script is new or changed"
    )
    assert json.loads(page.scripts[0][1])["organs"][0]["label"] == evil
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert evil in "".join(page.text)


def test_what_was_written_is_listed(usual):
    record = replace(
        record_of(usual[1]), outputs=("segmentation.seg.nrrd", "rtstruct.dcm", "report.html", "run.json")
    )
    text = render_report(record, *usual)
    files = text[text.index('id="files"') : text.index('id="times"')]
    assert [name in files for name in record.outputs] == [True] * 4
    assert (
        f"{len(record.in_state(PRESENT))} organs on the original CT (series {record.ct.series_uid})" in files
    )
    without = render_report(
        replace(record, outputs=("segmentation.seg.nrrd", "report.html", "run.json")), *usual
    )
    assert "No RTSTRUCT: the CT did not come from DICOM files." in without


def test_the_card_is_shown_without_its_commands(usual):
    record = record_of(usual[1])
    text = "Patients, see `soars`.\n\n```\nsoars-train fit a b\n```\n\nAnd more."
    notes = {"Trained on": text, "What it cannot do": "- Lungs"}
    html = render_report(replace(record, bundle=replace(record.bundle, notes=notes)), *usual)
    assert "<p>Patients, see <code>soars</code>.</p><p>And more.</p>" in html
    assert "soars-train" not in html and "```" not in html
    assert "<details open><summary>What it cannot do</summary><ul><li>Lungs</li></ul></details>" in html


def test_states_and_reasons_are_told(usual):
    extra = (
        OrganRecord("Eye_L", "Left eye", "anchor", ABSENT, reason="outside the scan"),
        OrganRecord("Cochlea_L", "Left cochlea", "small_hard", NOT_COVERED),
        OrganRecord("Cochlea_R", "Right cochlea", "small_hard", NOT_COVERED),
    )
    record = record_of(usual[1])
    text = " ".join(Page(render_report(replace(record, organs=record.organs + extra), *usual)).text)
    assert "Not contoured, see the table for why: Left eye" in text
    assert "outside the scan" in text
    assert "Not covered by this bundle: Left cochlea, right cochlea" in text


def test_findings_stand_with_their_organ_the_one_first_that_most_needs_a_look(usual):
    where = Where(30, "left", (35.0, -65.0, 334.0))
    hole = Finding("Lens_L", "hole", "serious", "a third of it is missing", "Fill it.", where)
    unsure = Finding("Parotid_R", "confidence", "note", "its border is unclear", "Compare both sides.")
    gone = Finding("Eye_L", "absent", "check", "nothing that can be an eye was found", "Draw it.")
    record = record_of(usual[1], look_order=("Eye_L", "Lens_L", "Parotid_R", "SpinalCord", "Parotid_L"))
    found = {"Lens_L": (hole,), "Parotid_R": (unsure,)}
    organs = [
        replace(o, findings=found.get(o.name, ()), expected_dsc=ExpectedDsc(0.8, 0.7, 0.9))
        for o in record.organs
    ]
    eye = OrganRecord("Eye_L", "Left eye", "anchor", ABSENT, findings=(gone,))
    html = render_report(replace(record, organs=(*organs, eye)), *usual)
    items = re.findall(r'<li data-organ="(\w+)" class="(\w*)">(.*?)</li>', html, re.DOTALL)
    assert [(name, severity) for name, severity, _ in items] == [
        ("Eye_L", "check"), ("Lens_L", "serious"), ("Parotid_R", "note"), ("SpinalCord", ""), ("Parotid_L", ""),
    ]  # fmt: skip
    texts = {name: text for name, _, text in items}
    for said in (
        "Probably wrong:",
        "A third of it is missing.",
        "Fill it.",
        "expected DSC 0.80 (0.70 to 0.90)",
    ):
        assert said in texts["Lens_L"]
    assert "slice 30 of 42, left · L 35, A 65, S 334 mm" in texts["Lens_L"]
    assert 'data-visit="Lens_L" data-point="35.0 -65.0 334.0"' in texts["Lens_L"]
    assert 'class="mark"' in texts["Lens_L"] and 'class="mark"' not in texts["Parotid_R"]
    assert "<image" in texts["Parotid_R"], "the whole organ, where a finding has no place"
    assert (
        "data-visit" not in texts["Eye_L"] and "checkbox" not in texts["Eye_L"] and "absent" in texts["Eye_L"]
    )


def test_a_finding_is_ringed_where_it_is(usual):
    at = CENTRE + BALLS["Lens_L"][0]
    picture = draw(
        *usual,
        Plane("axial", at[2]),
        {"Lens_L": Style("l", (0, 0, 0))},
        title="t",
        close_up_of=["Lens_L"],
        mark_lps_mm=at,
    )
    ring = re.search(r'<circle class="mark" cx="([\d.]+)" cy="([\d.]+)"', picture.svg)
    box = box_of(picture.svg, "l")
    assert ring and [float(v) for v in ring.groups()] == pytest.approx((box[:2] + box[2:]) / 2, abs=1)


def test_nothing_contoured_is_a_report_too(usual):
    record = replace(record_of(usual[1]), organs=(OrganRecord("Eye_L", "Left eye", "anchor", ABSENT),))
    text = render_report(record, usual[0], StructureSet(usual[1].geometry))
    assert "No organ was contoured" in text
    Page(text)


def test_empty_structures_do_no_harm(usual):
    structures = usual[1].subset(usual[1].names)
    structures.add("Pituitary", np.zeros(structures.geometry.shape, bool))
    Page(render_report(record_of(structures), usual[0], structures))


def test_every_organ_is_in_a_legend(usual):
    text = render_report(record_of(usual[1]), *usual)
    shown = "".join(re.findall(r'<ul class="legend">.*?</ul>', text))
    for name in BALLS:
        assert f"Label of {name}" in shown


def test_pictures_have_texts_for_those_who_cannot_see_them(usual):
    page = Page(render_report(record_of(usual[1]), *usual))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg" and "viewbox" in attributes]
    assert pictures and all(attributes.get("role") == "img" for attributes in pictures)
    assert any(
        re.match(r"Axial CT slice with organ contours at slice \d+ of 42, S \d+\.\d mm", text)
        for text in page.text
    )


def test_report_appears_whole_or_not_at_all(usual, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, record_of(usual[1]), *usual)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(InputError):
        write_report(path, record_of(usual[1]), *usual)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"] and path.read_bytes() == before


# The pictures


@pytest.mark.parametrize("code", ["LPS", "RAS", "LPI", "PIR", "SAL"])
@pytest.mark.parametrize("view", list(AXIS))
def test_pictures_do_not_depend_on_the_orientation_of_the_image(code, view):
    styles = {name: Style(name, (255, 0, 0)) for name in BALLS}
    plane = Plane(view, float(CENTRE[AXIS[view]]))
    reference, other = (draw(*scene(c), plane, styles, title=view) for c in ("LPS", code))
    assert other.organs == reference.organs
    assert other.size_mm == pytest.approx(reference.size_mm, abs=2)
    for name in reference.organs:
        assert box_of(other.svg, name) == pytest.approx(box_of(reference.svg, name), abs=1.5)


@pytest.mark.parametrize("tilt_deg", [0.0, 12.0])
def test_outlines_are_where_the_organs_are(tilt_deg):
    ct, structures = scene(tilt_deg=tilt_deg)
    plane = Plane("axial", float(CENTRE[2]))
    picture = draw(ct, structures, plane, {n: Style(n, (1, 2, 3)) for n in BALLS}, title="t")
    left, right = box_of(picture.svg, "Parotid_L"), box_of(picture.svg, "Parotid_R")
    assert left[0] > picture.size_mm[0] / 2 > right[2], "the patient's left is on the right"
    assert (left[0] + left[2]) / 2 - (right[0] + right[2]) / 2 == pytest.approx(80, abs=1)
    assert left[2] - left[0] == pytest.approx(24, abs=2.5)
    assert re.findall(r'">([A-Z])</text>', picture.svg) == ["R", "L", "A", "P"]


def test_head_is_up_and_face_is_left_in_sagittal_planes(usual):
    picture = draw(
        *usual, Plane("sagittal", float(CENTRE[0] + 25)), {"Lens_L": Style("l", (0, 0, 0))}, title="t"
    )
    box = box_of(picture.svg, "l")
    width, height = picture.size_mm
    assert box[2] < width / 2 and box[3] < height / 2
    assert re.findall(r'">([A-Z])</text>', picture.svg) == ["A", "P", "H", "F"]


def test_balls_are_round_although_voxels_are_not(usual):
    picture = draw(
        *usual, Plane("coronal", float(CENTRE[1])), {"Parotid_L": Style("p", (0, 0, 0))}, title="t"
    )
    left, top, right, bottom = box_of(picture.svg, "p")
    assert right - left == pytest.approx(24, abs=2)
    assert bottom - top == pytest.approx(24, abs=4)
    assert np.divide(*picture.size_mm) == pytest.approx(1, abs=0.1), "so is the body"


def test_close_up_shows_its_organ_large(usual):
    plane = plane_through(*usual, "Lens_L", "axial")
    picture = draw(*usual, plane, {"Lens_L": Style("l", (0, 0, 0))}, title="t", close_up_of=["Lens_L"])
    assert max(picture.size_mm) <= 75 and picture.organs == ("Lens_L",)


def test_planes_show_every_organ_and_no_more_than_needed(usual):
    planes = choose_planes(*usual, list(BALLS), "axial")
    assert len(planes) <= len(BALLS)
    styles = {name: Style(name, (0, 0, 0)) for name in BALLS}
    seen = {name for p in planes for name in draw(*usual, p, styles, title="t").organs}
    assert seen == set(BALLS)
    assert [p.position_mm for p in planes] == sorted((p.position_mm for p in planes), reverse=True)
    assert len(choose_planes(*usual, list(BALLS), "axial", most=1)) >= 2, "nobody is left out"
    assert len(choose_planes(*usual, list(BALLS), "axial", most=1, everybody=False)) == 1
    assert len(choose_planes(*usual, list(BALLS), "axial", least=7)) == 7
    assert choose_planes(*usual, [], "axial") == []


def test_planes_lie_on_the_slices_of_the_ct(usual):
    z = [usual[1].geometry.to_physical((k, 0, 0))[2] for k in range(42)]
    for plane in choose_planes(*usual, list(BALLS), "axial"):
        assert np.abs(np.array(z) - plane.position_mm).min() < 1e-6


def test_png_is_what_other_programs_read(tmp_path):
    hu = np.linspace(-1000, 1000, 12 * 7, dtype=np.float32).reshape(12, 7)
    (tmp_path / "a.png").write_bytes(png(hu, (-160, 240)))
    grey = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png"))).astype(float)
    assert grey.shape == hu.shape
    assert grey == pytest.approx(255 * np.clip((hu + 160) / 400, 0, 1), abs=2.1)


def test_pictures_hold_their_png(usual):
    picture = draw(*usual, Plane("axial", float(CENTRE[2])), {}, title="t")
    data = re.search(r"base64,([^\"]+)", picture.svg)
    assert data and base64.b64decode(data.group(1)).startswith(b"\x89PNG") and picture.organs == ()


# Outlines


def test_isolines_follow_a_circle():
    y, x = np.mgrid[:60, :80]
    lines = isolines(20 - np.hypot(x - 40.3, y - 29.6), 0.0)
    assert len(lines) == 1
    assert np.hypot(*(lines[0] - (40.3, 29.6)).T) == pytest.approx(20, abs=0.02)


def test_isolines_close_at_the_border_and_keep_holes():
    values = np.ones((9, 9))
    values[4, 4] = 0
    lines = isolines(values, 0.5)
    assert sorted(len(line) for line in lines) == [4, 36]
    assert isolines(np.zeros((3, 3)), 0.5) == []
    assert len(isolines(np.ones((1, 1)), 0.5)) == 1


# The record


def test_run_record_survives_its_file(usual, tmp_path):
    record = record_of(usual[1], warnings=("ä",), options={"organs": ("a", "b"), "device": None})
    path = tmp_path / "run.json"
    path.write_text(record.to_json(), encoding="utf-8")
    assert read_run(path).to_json() == record.to_json()
    assert read_run(path).organs == tuple(replace(o, volume_cc=round(o.volume_cc, 6)) for o in record.organs)


def test_run_record_has_numbers_only(usual):
    record = record_of(usual[1], timings_s={"read": float("nan"), "anchor": np.float32(1.5)})
    assert '"read": null' in record.to_json() and '"anchor": 1.5' in record.to_json()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "not a run record"),
        ("{}", "not a run record"),
        ('{"schema_version": 99}', "newer"),
        ('{"schema_version": 1}', "incomplete"),
    ],
)
def test_other_files_are_not_run_records(tmp_path, text, said):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_run(path)


def test_orientation_is_three_letters():
    for code in ("LPS", "RAI", "PSR"):
        assert orientation_of(scene(code)[0].GetDirection()) == code
    assert orientation_of(scene(tilt_deg=10)[0].GetDirection()) == "LPS*"
