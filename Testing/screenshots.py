"""Make the pictures of the README that show patients: `python Testing/screenshots.py phantom|demo|ct`.

phantom   Resources/Screenshots/phantom.png: three planes of the synthetic patient with its true organs
demo      Resources/Screenshots/demo.png: the report that `make demo` wrote into out/demo
ct DIR    Resources/Screenshots/ct.png: the report in DIR of a real CT, at the parotids

Needs Debian's chromium and chromedriver, and selenium. Look at what it made before it is committed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "SOARSSegmentation"))
PICTURES = ROOT / "Resources" / "Screenshots"

WHOLE_PATIENT = """
document.querySelector('button.label[data-visit=Parotid_L]').click();
for (let i = 0; i < 2; i++) document.getElementById('farther').click();
document.getElementById('cross-hair').click();
const thickness = document.getElementById('thickness');
thickness.value = 2;
thickness.dispatchEvent(new Event('input'));
scrollTo(0, 0);
"""

STYLE = """
body { margin: 0; background: #000; display: flex; }
svg { display: block; }
.contours path { fill-opacity: .22; stroke-width: 2px; vector-effect: non-scaling-stroke; fill-rule: evenodd; }
text { fill: #fff; text-anchor: middle; dominant-baseline: central; paint-order: stroke; stroke: #000;
  stroke-width: .22em; font: 600 7px system-ui; }
.scale path { fill: none; stroke: #fff; stroke-width: 2px; vector-effect: non-scaling-stroke; }
.scale .edge { stroke: #000; stroke-width: 5px; }
"""


def chromium(width: int, height: int) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return driver


def phantom() -> None:
    """Planes through the parotids, the mandible and the spinal cord of phantom 7."""
    from soars.catalogue import CATALOGUE
    from soars.phantom import make_phantom
    from soars.report.pictures import Style, draw
    from soars.report.planes import plane_through

    made = make_phantom(7, artefact=False)
    styles = {name: Style(CATALOGUE[name].label, CATALOGUE[name].colour) for name in made.structures}
    svgs, widths = [], []
    for name, view in (("Parotid_L", "axial"), ("Parotid_L", "coronal"), ("SpinalCord", "sagittal")):
        plane = plane_through(made.ct, made.structures, name, view)
        assert plane is not None
        picture = draw(made.ct, made.structures, plane, styles, title=view, pixel_mm=0.5)
        widths.append(round(470 * picture.size_mm[0] / picture.size_mm[1]))
        svgs.append(picture.svg.replace("<svg ", f'<svg width="{widths[-1]}" height="470" ', 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "planes.html"
        path.write_text(
            f"<!DOCTYPE html><meta charset=utf-8><style>{STYLE}</style>{''.join(svgs)}", encoding="utf-8"
        )
        driver = chromium(sum(widths), 470)
        driver.get(path.as_uri())
        driver.save_screenshot(str(PICTURES / "phantom.png"))
        driver.quit()


def report(page: Path, picture: Path, *, script: str = "") -> None:
    """The viewer of a report, 1280 x 860, after a script has moved it to what the picture is to show."""
    driver = chromium(1280, 860)
    driver.get(page.resolve().as_uri())
    while not driver.execute_script("return document.getElementById('reader').dataset.loaded || ''"):
        time.sleep(0.1)
    driver.execute_script(script)
    time.sleep(0.5)
    driver.save_screenshot(str(picture))
    driver.quit()


def main(what: str, *folder: str) -> None:
    if what == "phantom":
        phantom()
    elif what == "demo":
        report(ROOT / "out" / "demo" / "report.html", PICTURES / "demo.png")
    else:
        report(Path(*folder) / "report.html", PICTURES / "ct.png", script=WHOLE_PATIENT)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("phantom", "demo", "ct"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
