"""The report in a real browser: a person scrolls, windows, switches organs and goes to them, and nothing is fetched.

Needs Debian's chromium and chromedriver (`.ci/run` installs both); skipped where they are not installed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from chromium import start_chromium
from report_scene import BALLS, CENTRE, COLOURS, record_of, scene

from soars.findings.finding import ExpectedDsc, Finding, Where
from soars.report.page import write_report

WIDE, NARROW = (1500, 950), (390, 800)
EVIL = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
SLICES = 42
WHERE = Where(31, "left", (35.0, -65.0, 338.0))  # in the lens, 8 mm above its middle
SMALL = Finding("Lens_L", "volume", "check", "it is small", "Compare it with the other side.", WHERE)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of four balls in a ball, one of them with a finding and a label that tries to break out."""
    ct, structures = scene()
    hu = sitk.GetArrayFromImage(ct)
    hu[hu > 0] = 40
    hu[:, :, 45:][hu[:, :, 45:] > 0] = 70  # the patient's left half is 30 HU denser
    changed = sitk.GetImageFromArray(hu)
    changed.CopyInformation(ct)
    record = record_of(structures)
    organs = {organ.name: organ for organ in record.organs}
    organs["Lens_L"] = replace(
        organs["Lens_L"], findings=(SMALL,), label=EVIL, expected_dsc=ExpectedDsc(0.61, 0.5, 0.72)
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    record = replace(record, organs=tuple(organs.values()), look_order=("Lens_L", "SpinalCord"))
    write_report(path, record, changed, structures)
    return path


class Browser:
    """Chromium on one page, with the words this test needs."""

    def __init__(self, size: tuple[int, int], *, scripts: bool = True) -> None:
        self.driver = start_chromium()
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        if not scripts:
            self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})

    def open(self, path: Path) -> None:
        self.driver.get(path.as_uri())

    def run(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def wait_for(self, condition: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20, poll_frequency=0.02).until(lambda _: self.run(f"return {condition}"))

    def settle(self) -> None:
        """Until the next frame has been drawn."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def words(self, view: str) -> str:
        self.settle()
        return self.find(f"[data-view={view}] output").text

    def slice(self) -> int:
        """The number of the axial slice that is shown."""
        return int(self.words("axial").split()[1])

    def pixels(self, view: str = "axial") -> np.ndarray:
        """What is drawn in a pane, [row, column, RGB]."""
        self.settle()
        code = f"""const canvas = document.querySelector('[data-view={view}] canvas');
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let text = '';
        for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
        return [canvas.width, canvas.height, btoa(text)];"""
        width, height, text = self.run(code)
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3].astype(int)

    def coloured(self, colour: tuple[int, int, int], view: str = "axial") -> np.ndarray:
        """Places (row, column) of the pixels of an organ's outline."""
        return np.argwhere(np.abs(self.pixels(view) - colour).max(axis=-1) < 12)

    def wheel(self, view: str, pixels: int) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        origin = ScrollOrigin.from_element(self.find(f"[data-view={view}] canvas"))
        ActionChains(self.driver).scroll_from_origin(origin, 0, pixels).perform()

    def press(self, selector: str, *keys: str) -> None:
        self.find(selector).send_keys(*keys)

    def requests(self) -> list[str]:
        """Addresses asked for, except those of pictures that are in the page itself."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    browser = Browser(WIDE)
    yield browser
    browser.driver.quit()


@pytest.fixture
def reader(chromium: Browser, page: Path) -> Browser:
    """The page, freshly opened, with its CT unpacked."""
    chromium.open(page)
    chromium.wait_for(f"document.getElementById('reader').dataset.loaded == {SLICES}")
    return chromium


def number_of(z_mm: float) -> int:
    """The slice that holds a place: 42 slices 4 mm apart around the centre, counted from the feet."""
    return round((z_mm - CENTRE[2]) / 4 + (SLICES - 1) / 2) + 1


def test_nothing_is_fetched_and_nothing_complains(reader: Browser, page: Path) -> None:
    for preset in ("bone", "brain", "soft"):
        reader.run(f"document.getElementById('window-{preset}').click()")
    reader.wheel("axial", 120)
    reader.run("document.querySelector('button[data-visit]').click()")
    reader.settle()
    assert reader.driver.get_log("browser") == []
    assert set(reader.requests()) == {page.as_uri()}


def test_the_page_runs_no_script_but_its_own(reader: Browser) -> None:
    assert reader.driver.title == "OARs: HEAD AND NECK"
    assert reader.find("li.check button.label").text == EVIL
    reader.run(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.org/x.png'}))"
    )
    reader.settle()
    assert reader.run("return document.images[0].naturalWidth") == 0
    assert "Content Security Policy" in "".join(
        entry["message"] for entry in reader.driver.get_log("browser")
    )


def test_the_wheel_and_the_keys_scroll_through_all_slices(reader: Browser) -> None:
    before = reader.slice()
    reader.wheel("axial", 120)
    assert reader.slice() < before, "turned towards oneself: towards the feet"
    reader.wheel("axial", -120)
    assert reader.slice() == before
    canvas = "[data-view=axial] canvas"
    for key, number in (
        ("\ue010", 1),
        ("\ue013", 2),
        ("\ue00e", 12),
        ("\ue011", SLICES),
        ("\ue015", SLICES - 1),
    ):
        reader.press(canvas, key)  # End, Up, Page Up, Home, Down
        assert reader.slice() == number
    reader.press("[data-view=axial] input", "\ue011")  # the slider's own Home key: its first value
    assert reader.slice() == 1
    assert reader.run("return scrollY") == 0, "the page stays where it is"


@pytest.mark.parametrize("view", ["sagittal", "coronal"])
def test_the_other_planes_scroll_too(reader: Browser, view: str) -> None:
    before = reader.words(view)
    reader.press(f"[data-view={view}] canvas", "\ue013")
    after = reader.words(view)
    letter, mm = before.split()[0], float(before.split()[1])
    assert after.split()[0] == letter and abs(float(after.split()[1]) - mm) == pytest.approx(2, abs=0.11)


def test_windows_show_the_grey_that_their_width_and_level_give(reader: Browser) -> None:
    reader.press("body", "h")  # no outlines
    reader.run("document.getElementById('cross-hair').click()")
    for key, width, level in (("1", 400, 40), ("2", 2000, 400), ("3", 80, 40)):
        reader.press("body", key)
        shown = reader.pixels()
        row, column = shown.shape[0] // 2, shown.shape[1] // 2
        for hu, at in ((40, column - 60), (70, column + 60)):
            grey = np.clip((hu - level) / width + 0.5, 0, 1) * 255
            assert shown[row, at] == pytest.approx(grey, abs=255 / width + 1), (key, hu)


def test_organs_switch_off_and_on(reader: Browser) -> None:
    reader.run("document.querySelector('button.label[data-visit=Parotid_L]').click()")
    assert len(reader.coloured(COLOURS["Parotid_L"])) > 50
    reader.run("document.querySelector('input[data-organ=Parotid_L]').click()")
    assert len(reader.coloured(COLOURS["Parotid_L"])) == 0
    reader.run("document.getElementById('all-organs').click()")
    reader.run("document.getElementById('all-organs').click()")
    assert len(reader.coloured(COLOURS["Parotid_L"])) > 50
    reader.press("body", "h")
    assert len(reader.coloured(COLOURS["Parotid_L"])) == 0


def test_going_to_an_organ_shows_it_on_all_planes(reader: Browser) -> None:
    for name, (offset, _) in BALLS.items():
        reader.run(f"document.querySelector('button.label[data-visit={name}]').click()")
        assert abs(reader.slice() - number_of(CENTRE[2] + offset[2])) <= 1, name
        for view in ("axial", "sagittal", "coronal"):
            assert len(reader.coloured(COLOURS[name], view)) > 20, (name, view)
        assert reader.find(f"li[data-organ={name}]").get_attribute("aria-current") == "true"


def test_an_outline_is_as_large_as_its_organ_and_as_thick_as_asked(reader: Browser) -> None:
    reader.run("document.querySelector('button.label[data-visit=Parotid_L]').click()")
    reader.run("document.getElementById('cross-hair').click()")
    for _ in range(2):
        reader.run("document.getElementById('farther').click()")
    left, right = (reader.coloured(COLOURS[name]) for name in ("Parotid_L", "Parotid_R"))
    left_middle, right_middle = ((p.min(axis=0) + p.max(axis=0)) / 2 for p in (left, right))
    pixel_mm = 80 / (left_middle[1] - right_middle[1])
    assert (np.ptp(left, axis=0) * pixel_mm).tolist() == pytest.approx([24, 24], abs=3), "a ball of 12 mm"
    reader.run(
        "const t = document.getElementById('thickness'); t.value = 4; t.dispatchEvent(new Event('input'))"
    )
    assert len(reader.coloured(COLOURS["Parotid_L"])) > 1.8 * len(left)


def test_a_flagged_organ_comes_first_with_a_picture_and_its_place(reader: Browser) -> None:
    first = reader.find(".list li")
    assert first.get_attribute("data-organ") == "Lens_L"
    assert first.find_elements("css selector", ".thumbnail image") and "It is small" in first.text
    assert first.find_elements("css selector", ".thumbnail circle.mark")
    assert "Compare it with the other side." in first.text
    reader.run("document.querySelector('.flag button.place').click()")
    assert reader.slice() == number_of(WHERE.point_mm[2])
    assert reader.words("sagittal") == "L 35.0 mm" or reader.words("sagittal") == "L 36.0 mm", (
        "the nearest voxels"
    )


def test_a_click_takes_all_planes_to_one_place(reader: Browser) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = reader.find("[data-view=coronal] canvas")
    ActionChains(reader.driver).move_to_element_with_offset(canvas, 40, -30).click().perform()
    sagittal, axial = reader.words("sagittal"), reader.words("axial")
    assert sagittal.startswith("L") and float(sagittal.split()[1]) > CENTRE[0]
    assert reader.slice() > number_of(CENTRE[2]), axial
    assert "HU" in reader.find("#pointed").text


def test_everything_is_reached_by_keyboard_and_has_a_name(reader: Browser) -> None:
    unnamed = reader.run("""const own = (e) => e.getAttribute('aria-label') || e.textContent.trim();
        const named = (e) => own(e) || (e.closest('label') && own(e.closest('label')));
        const controls = [...document.querySelectorAll('input, button, canvas')];
        return controls.filter((e) => !named(e)).map((e) => e.outerHTML)""")
    assert unnamed == []
    assert reader.run("return [...document.querySelectorAll('canvas')].every((c) => c.tabIndex === 0)")
    label = reader.find("[data-view=axial] canvas").get_attribute("aria-label")
    assert label.startswith("Axial CT with outlines, Slice ")


def test_a_narrow_screen_shows_all_without_scrolling_sideways(page: Path) -> None:
    browser = Browser(NARROW)
    try:
        browser.open(page)
        browser.wait_for(f"document.getElementById('reader').dataset.loaded == {SLICES}")
        assert browser.run("return document.documentElement.scrollWidth") <= NARROW[0]
        tables = "return [...document.querySelectorAll('.table')].map((t) => [t.scrollWidth, t.clientWidth])"
        assert all(inside <= outside for inside, outside in browser.run(tables))
        for view in ("axial", "sagittal", "coronal"):
            width, height = browser.pixels(view).shape[1::-1]
            assert 300 < width <= NARROW[0] and height > 200
    finally:
        browser.driver.quit()


def test_without_scripts_the_pictures_and_the_list_are_there(page: Path) -> None:
    browser = Browser(WIDE, scripts=False)
    try:
        browser.open(page)
        assert browser.find("#stills figure svg").is_displayed()
        assert "it is small" in browser.find(".list").text.lower()
        assert not browser.find("[data-view=axial]").is_displayed()
        assert not browser.driver.find_elements("css selector", ".list button")
        assert not browser.find("#all-organs").is_displayed()
    finally:
        browser.driver.quit()
