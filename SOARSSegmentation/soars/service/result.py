"""What a batch writes beside the files of a case: by which inputs it was made, and a small picture."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from soars import __version__
from soars.errors import InputError
from soars.files import write_json, write_text
from soars.report.outputs import OUTPUTS, RECORD
from soars.report.pictures import Style, draw
from soars.report.planes import Plane, choose_planes
from soars.run.case import Case, Request
from soars.structures import Geometry
from soars.texts import read_json

BATCH, PICTURE = "batch.json", "picture.svg"
FILES = (*OUTPUTS, BATCH, PICTURE)
"""All files of a case in a batch."""

_PIXEL_MM = 2.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Made:
    """Content of ``batch.json``. ``key`` stands for everything that decides the result; ``seconds`` of work."""

    case: str
    key: str
    seconds: float
    soars_batch: int = 1


def key_of(request: Request, bundle_sha256: str) -> str:
    """SHA-256 over the CT's files, the bundle, the options and the version of this program.

    Raises `InputError` when a file cannot be read.
    """
    decides = {
        "ct": _sha256_of_ct(request.ct),
        "series": request.series,
        "bundle": bundle_sha256,
        "device": request.device,
        "engine": request.engine,
        "organs": None if request.organs is None else sorted(request.organs),
        "soars": __version__,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def is_made(folder: Path, key: str) -> bool:
    """Whether the results in a folder are those of this key, none of them missing."""
    try:
        made = read_json(folder / BATCH)
        outputs = read_json(folder / RECORD)["outputs"]
        return bool(made["key"] == key) and all((folder / name).is_file() for name in (*outputs, PICTURE))
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return False


def seconds_of(folder: Path) -> float:
    """How long the case took. Raises `InputError` when the folder's record cannot be read."""
    try:
        return float(read_json(folder / BATCH)["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / BATCH}: cannot be read: {error}") from error


def write_made(folder: Path, case: Case, made: Made) -> None:
    """Write the picture and the record of a case that `segment_case` has written into ``folder``."""
    write_text(folder / PICTURE, _picture(case))
    write_json(folder / BATCH, asdict(made))


def _picture(case: Case) -> str:
    """The coronal plane that shows most organs, as an SVG file that needs no style sheet."""
    styles = {organ.name: Style(organ.label, organ.colour) for organ in case.record.organs if organ.voxels}
    image, structures = case.ct.image, case.structures
    planes = choose_planes(image, structures, list(styles), "coronal", most=1, everybody=False)
    middle = Plane("coronal", float(Geometry.of(image).corners()[:, 1].mean()))
    plane = planes[0] if planes else middle
    svg = draw(image, structures, plane, styles, title="Contours, coronal", pixel_mm=_PIXEL_MM).svg
    svg = svg.replace('class="contours"', 'fill-opacity="0.25" stroke-width="0.8" fill-rule="evenodd"')
    svg = svg.replace('class="scale"', 'display="none"').replace('class="letters"', 'display="none"')
    return svg + "\n"


def _sha256_of_ct(ct: Path) -> str:
    """Over names and contents of everything in the CT's folder, since reading a series looks at all of it; of an image
    file, its own and of those that its header names."""
    total = hashlib.sha256()
    try:
        folder, files = _files_of(ct)
        for path in files:
            total.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    total.update(chunk)
    except OSError as error:
        raise InputError(f"{error.filename or ct}: cannot be read: {error.strerror}") from error
    return total.hexdigest()


def _files_of(ct: Path) -> tuple[Path, list[Path]]:
    if ct.is_dir():
        return ct, _visible_files(ct)
    name = ct.name.lower()
    if name.endswith((".mhd", ".nhdr")):
        header = ct.read_bytes().decode("utf-8", "replace")
        named = [p for p in _visible_files(ct.parent) if p.relative_to(ct.parent).as_posix() in header]
        return ct.parent, sorted({ct, *named})
    if name.endswith((".nii", ".nii.gz", ".nrrd", ".mha")):
        return ct.parent, [ct]
    return ct.parent, _visible_files(ct.parent)  # one slice stands for its series


def _visible_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
