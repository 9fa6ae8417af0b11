"""Figures with matplotlib, which is imported only here and only when a figure is asked for; no screen is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soars.errors import InputError
from soars.files import replacing_file
from soars.places import keep_matplotlib_in_cache

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
MAKER = "SOARSSegmentation"
"""Recorded in every picture as the program that made it."""

_STRATUM_TINT = {"anchor": "#2c7fb8", "mid_level": "#41ab5d", "small_hard": "#e6842a"}
_OTHER_TINT = "#8c8c8c"


def stratum_tint(stratum: str) -> str:
    """The colour of a stratum's organs in every figure; grey for all others."""
    return _STRATUM_TINT.get(stratum, _OTHER_TINT)


def check_figure_path(path: Path) -> None:
    """Raise `InputError` when no figure can be written under this name, or matplotlib is missing."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a picture ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    _figure_class()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, ``width`` x ``height`` in inches. `InputError` when matplotlib is not installed."""
    return _figure_class()(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure, all or nothing, in the format of its ending; ``dpi`` is of a .png."""
    check_figure_path(path)
    key = "Software" if path.suffix.lower() == ".png" else "Creator"
    with replacing_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={key: MAKER})


def is_own_figure(path: Path) -> bool:
    """Whether this program drew the picture."""
    return MAKER.encode() in path.read_bytes()


def _figure_class() -> type[Figure]:
    keep_matplotlib_in_cache()
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "pictures need matplotlib, which is not installed: pip install 'soars-segmentation[study]'"
        ) from error
    return Figure
