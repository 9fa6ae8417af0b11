"""The house: what the extension hands to Slicer, what the distribution holds, and that the core stays light."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from soars.systems.packages import REQUIREMENTS

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "SOARSSegmentation"
CORE = MODULE / "soars"

HEAVY = (
    "torch",
    "monai",
    "onnxruntime",
    "onnx",
    "lightning",
    "matplotlib",
    "slicer",
    "qt",
    "ctk",
    "vtk",
)
"""Never imported by importing the core: Slicer must start, and the command line answer, without them."""

ENGINE_ROOMS = (
    "soars.networks.blocks",
    "soars.networks.build",
    "soars.networks.phnn",
    "soars.networks.unet",
    "soars.networks.slice_net",
    "soars.networks.pointwise",
    "soars.networks.region_net",
    "soars.cascade.torch_engine",
    "soars.cascade.onnx_engine",
)
"""The modules of the core that are an engine; only the choice of that engine, and training, imports them."""


# --- what CMake hands to Slicer ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What Slicer's macros receive when the extension is configured: one list a call, name first."""
    cmake = shutil.which(
        "cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if cmake is None:
        pytest.skip("cmake is not installed: pip install cmake")
    folder = tmp_path_factory.mktemp("configured")
    result = subprocess.run(
        [
            cmake,
            *("-S", str(ROOT), "-B", str(folder), "-G", "Unix Makefiles"),
            f"-DSlicer_DIR={Path(__file__).parent / 'stand_in_slicer'}",
            f"-DSTAND_IN_RECORD={folder / 'record.txt'}",
            # Nothing is compiled here: no working C++ compiler is needed.
            *("-DCMAKE_C_COMPILER_FORCED=ON", "-DCMAKE_CXX_COMPILER_FORCED=ON"),
            *(f"-DCMAKE_{language}_COMPILER={sys.executable}" for language in ("C", "CXX")),
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return [line.split("|") for line in (folder / "record.txt").read_text().splitlines()]


def _calls(record: list[list[str]], name: str) -> list[list[str]]:
    return [arguments for macro, *arguments in record if macro == name]


def _files_on_disk(folder: Path) -> list[str]:
    """Every file below `folder` that belongs to the project, as POSIX paths relative to it, sorted."""
    found = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(
            p.startswith(".") or p in ("__pycache__", "CMakeLists.txt") for p in parts
        ):
            found.append("/".join(parts))
    return sorted(found)


@pytest.mark.parametrize("kind", ["scripts", "resources"])
def test_cmake_lists_exactly_the_files_on_disk(record: list[list[str]], kind: str) -> None:
    (listed,) = _calls(record, kind)
    on_disk = [file for file in _files_on_disk(MODULE) if file.endswith(".py") == (kind == "scripts")]
    missing, gone = sorted(set(on_disk) - set(listed)), sorted(set(listed) - set(on_disk))
    whole = f"whole MODULE_PYTHON_{kind.upper()}, sorted:\n" + "".join(f"  {file}\n" for file in on_disk)
    assert not missing and not gone, (
        f"SOARSSegmentation/CMakeLists.txt: add {missing}, remove {gone}; {whole}"
    )
    assert listed == on_disk, f"SOARSSegmentation/CMakeLists.txt: not sorted; {whole}"


def test_the_module_is_built_under_its_own_name(record: list[list[str]]) -> None:
    assert _calls(record, "module") == [["SOARSSegmentation", str(MODULE)]]
    assert _calls(record, "cpack") == [["SOARSSegmentation"]]


def test_every_test_script_for_slicer_is_registered_and_exists(record: list[list[str]]) -> None:
    scripts = {Path(script) for (script,) in _calls(record, "unittest")}
    assert scripts == {MODULE / "SOARSSegmentation.py", *(ROOT / "Testing" / "slicer").glob("*Test.py")}


# --- what the catalogue reads -----------------------------------------------------------------------------------


def _s4ext() -> dict[str, str]:
    lines = (ROOT / "SOARSSegmentation.s4ext").read_text().splitlines()
    return {
        key: value for key, _, value in (line.partition(" ") for line in lines if line and line[0] != "#")
    }


def test_s4ext_has_every_field_with_a_value() -> None:
    # Utilities/Templates/Extensions/extension_description.s4ext.in of Slicer
    fields = (
        "scm scmurl scmrevision depends build_subdirectory homepage contributors category iconurl status tier"
    )
    assert list(_s4ext()) == [*fields.split(), "description", "screenshoturls", "enabled"]
    assert all(_s4ext().values())


def test_catalogue_entry_has_what_its_schema_knows() -> None:
    entry = json.loads((ROOT / "SOARSSegmentation.json").read_text())
    # Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json of Slicer; no other property is allowed
    types = {
        "$schema": str,
        "category": str,
        "scm_url": str,
        "scm_revision": str,
        "scm_type": str,
        "tier": int,
    }
    types |= {"build_dependencies": list, "build_subdirectory": str, "enabled": bool}
    assert {key: type(value) for key, value in entry.items()} == types
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["scm_type"] == "git" and 1 <= entry["tier"] <= 5


def test_cmake_s4ext_and_catalogue_entry_agree(record: list[list[str]]) -> None:
    cmake = dict(_calls(record, "extension"))
    s4ext = _s4ext()
    entry = json.loads((ROOT / "SOARSSegmentation.json").read_text())
    for field in (
        "HOMEPAGE",
        "CATEGORY",
        "CONTRIBUTORS",
        "DESCRIPTION",
        "ICONURL",
        "SCREENSHOTURLS",
        "STATUS",
    ):
        assert cmake[field] == s4ext[field.lower()], field
    assert (cmake["ENABLED"], cmake["DEPENDS"]) == (s4ext["enabled"], s4ext["depends"]) == ("1", "NA")
    assert (entry["category"], entry["scm_url"]) == (s4ext["category"], s4ext["scmurl"])
    assert (entry["scm_type"], entry["scm_revision"]) == (s4ext["scm"], s4ext["scmrevision"])
    assert (str(entry["tier"]), entry["build_subdirectory"]) == (s4ext["tier"], s4ext["build_subdirectory"])
    assert (entry["build_dependencies"], entry["enabled"]) == ([], True)


def test_addresses_are_written_out_where_the_extensions_index_reads_them() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    for name in ("HOMEPAGE", "ICONURL", "SCREENSHOTURLS"):
        (value,) = re.findall(rf'^set\(EXTENSION_{name} "([^"]*)"\)', text, re.MULTILINE)
        assert all(url.startswith("http") and "$" not in url for url in value.split()), value


def test_files_named_by_the_metadata_exist(record: list[list[str]]) -> None:
    cmake = dict(_calls(record, "extension"))
    assert Path(cmake["README_FILE"]).is_file()
    assert "Apache License" in Path(cmake["LICENSE_FILE"]).read_text()
    for url in (cmake["ICONURL"], *cmake["SCREENSHOTURLS"].split()):
        path = url.removeprefix(cmake["HOMEPAGE"] + "/raw/main/")
        assert (ROOT / path).is_file(), f"{url} would be {path}, which is not in the repository"


def test_icon_is_a_png_of_128_by_128() -> None:
    data = (MODULE / "Resources" / "Icons" / "SOARSSegmentation.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (128, 128)


def test_citation_names_this_version_and_both_papers() -> None:
    import soars

    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(soars.__version__)}$", text, re.MULTILINE)
    assert "doi: 10.1109/CVPR42600.2020.00428" in text
    assert "doi: 10.1038/s41467-022-33178-z" in text


# --- what the distribution holds --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pyproject() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="part of Python since 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_data_file_of_the_core_is_packaged(pyproject: dict) -> None:
    patterns = pyproject["tool"]["setuptools"]["package-data"]["soars"]
    data = [file for file in _files_on_disk(CORE) if not file.endswith(".py")]
    forgotten = [file for file in data if not any(_matches(file, pattern) for pattern in patterns)]
    assert not forgotten, f"pyproject.toml, package-data of soars: no pattern for {forgotten}"


def _matches(file: str, pattern: str) -> bool:
    parts, patterns = file.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch, parts, patterns))


@pytest.mark.parametrize(
    "folder", [CORE, ROOT / "training" / "soars_training"], ids=lambda folder: folder.name
)
def test_every_folder_of_python_files_is_a_package(folder: Path) -> None:
    folders = {path.parent for path in folder.rglob("*.py")}
    without = sorted(str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file())
    assert not without, f"no __init__.py, so left out of the distribution: {without}"


def test_slicer_is_asked_for_what_the_distribution_asks_for(pyproject: dict) -> None:
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    ways = ("run", "torch", "nnunet", "totalsegmentator")
    known = {*project["dependencies"], *(one for way in ways for one in extras[way])}
    lines = REQUIREMENTS.read_text().splitlines()
    asked = {line for line in lines if line and not line.startswith("#")}
    with_slicer = {"numpy", "scipy", "SimpleITK", "pydicom"}
    assert asked == {
        requirement for requirement in known if re.split(r"[<>=]", requirement)[0] not in with_slicer
    }


def test_scripts_for_people_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# --- the scripted module, which cannot run here -----------------------------------------------------------------


def test_scripted_module_imports_at_file_scope_only_what_slicer_has() -> None:
    tree = ast.parse((MODULE / "SOARSSegmentation.py").read_text())
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names - sys.stdlib_module_names <= {
        "ctk",
        "qt",
        "slicer",
        "vtk",
        "numpy",
        "soars",
        "SOARSSegmentationLib",
    }


def test_scripted_module_has_the_classes_slicer_looks_for() -> None:
    tree = ast.parse((MODULE / "SOARSSegmentation.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"SOARSSegmentation" + kind for kind in ("", "Widget", "Logic", "Test")} <= classes


# --- the core stays light ---------------------------------------------------------------------------------------


def _core_modules() -> list[str]:
    """The names of all modules of the core but the engines, and what runs something when imported."""
    names = []
    for path in sorted(CORE.rglob("*.py")):
        parts = ["soars", *path.relative_to(CORE).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        if parts[-1] != "__main__":
            names.append(".".join(parts))
    return [name for name in names if name not in ENGINE_ROOMS]


def _run_python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(MODULE)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_core_imports_nothing_heavy() -> None:
    code = "import importlib, sys\n"
    code += f"for name in {_core_modules()!r}:\n"
    code += "    importlib.import_module(name)\n"
    code += f"    came = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
    code += "    assert not came, f'{name} imports {came}'\n"
    _run_python(code)


def test_importing_the_package_alone_imports_no_dependency() -> None:
    code = "import sys, soars, soars.errors\n"
    code += "print([name for name in ('numpy', 'scipy', 'SimpleITK', 'pydicom') if name in sys.modules])"
    assert _run_python(code).strip() == "[]"


@pytest.mark.parametrize(
    ("modules", "most"),
    [(("soars.run.case", "soars.formats"), 6), (None, 12)],
    ids=["what segmenting imports", "every module"],
)
def test_core_imports_within_its_budget(modules: tuple[str, ...] | None, most: float) -> None:
    """In processor time, as a multiple of what numpy and SimpleITK take in the same process, the best of three."""
    code = "import importlib, time\nstart = time.process_time()\nimport numpy, SimpleITK\n"
    code += "libraries = time.process_time() - start\n"
    code += f"for name in {modules or _core_modules()!r}:\n    importlib.import_module(name)\n"
    code += "print((time.process_time() - start) / libraries - 1)"
    best = min(float(_run_python(code)) for _ in range(3))
    assert best < most, f"{best:.1f} times what numpy and SimpleITK take"


# --- what the texts refer to ------------------------------------------------------------------------------------

_PACKAGES = {"soars": MODULE, "soars_training": ROOT / "training", "SOARSSegmentationLib": MODULE}


def _texts() -> list[Path]:
    """Documentation and code that name modules, functions and classes; the list of changes may name what is gone."""
    folders = (
        ROOT / "docs",
        MODULE,
        ROOT / "training" / "soars_training",
        ROOT / "Testing",
        ROOT / "examples",
    )
    found = [path for folder in folders for kind in ("*.md", "*.py") for path in folder.rglob(kind)]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *found]


def _names_in(nodes: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What a module's or a class's statements define or import -> the statements of that, where it is a class."""
    names: dict[str, list[ast.stmt]] = {}
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = node.body if isinstance(node, ast.ClassDef) else []
        elif isinstance(node, ast.If):  # TYPE_CHECKING
            names |= _names_in(node.body)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name): [] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id: [] for one in targets for name in ast.walk(one) if isinstance(name, ast.Name)}
    return names


def _is_there(dotted: str) -> bool:
    package, *parts = dotted.split(".")
    place = _PACKAGES[package] / package
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    module = place / "__init__.py"
    if parts and (place / f"{parts[0]}.py").is_file():
        module = place / f"{parts.pop(0)}.py"
    nodes = ast.parse(module.read_text("utf-8")).body
    for part in parts:
        names = _names_in(nodes)
        if part not in names:
            return False
        nodes = names[part]
    return True


def test_texts_name_only_what_is_there() -> None:
    name = re.compile(rf"`((?:{'|'.join(_PACKAGES)})(?:\.\w+)+)`")
    named = {(path, dotted) for path in _texts() for dotted in name.findall(path.read_text("utf-8"))}
    assert len(named) > 100
    gone = [f"{path.relative_to(ROOT)}: {dotted}" for path, dotted in named if not _is_there(dotted)]
    assert not gone, f"renamed or removed since: {sorted(gone)}"
