"""A bundle from a stranger: nothing runs that its manifest does not list, and nothing in it can hurt."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import SimpleITK as sitk
from made_bundles import change_manifest, empty_home
from onnx.external_data_helper import convert_model_to_external_data
from tiny_bundle import patient, write_tiny_bundle

from soars.bundle.card import card_sections
from soars.bundle.install import import_bundle, remove_bundle
from soars.bundle.integrity import read_weights
from soars.bundle.onnx_graph import external_files
from soars.bundle.store import list_bundles, load_bundle
from soars.cascade.engine import EngineInfo, open_engine
from soars.cli import main
from soars.commands.program import report_fault
from soars.errors import BundleError
from soars.run.segment import segment

ONNX = EngineInfo("onnxruntime", "cpu", "fp32", "asked for")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_home(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def list_in_manifest(folder: Path, *names: str) -> None:
    """Make the manifest say of these files what they are now."""

    def change(manifest: dict[str, Any]) -> None:
        for name in names:
            data = (folder / name).read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    change_manifest(folder, change)


def with_external_weights(folder: Path, name: str = "anchor.data") -> None:
    """Move the network's weights into a file beside it, as `onnx.save(save_as_external_data=True)` does."""
    model = onnx.load(str(folder / "anchor.onnx"))
    convert_model_to_external_data(model, location=name, size_threshold=44)  # Python's own 33 bytes included
    onnx.save(model, str(folder / "anchor.onnx"))
    list_in_manifest(folder, "anchor.onnx")


# --- weights outside the manifest ---------------------------------------------------------------------------------
def test_a_file_that_the_graph_refers_to_must_be_listed(folder: Path, tmp_path: Path) -> None:
    with_external_weights(folder)
    assert (folder / "anchor.data").stat().st_size > 0
    with pytest.raises(BundleError, match="keeps weights in 'anchor.data', which the manifest does not list"):
        load_bundle(folder)
    with pytest.raises(BundleError, match="does not list"):
        import_bundle(folder)
    assert not (tmp_path / "home").exists()


def test_a_listed_file_of_weights_gives_what_the_whole_graph_gives(folder: Path) -> None:
    window = np.random.default_rng(0).uniform(-1, 1, (1, 1, 16, 16, 16)).astype(np.float32)
    whole = open_engine(load_bundle(folder), "anchor", ONNX).run(window)
    with_external_weights(folder)
    list_in_manifest(folder, "anchor.data")
    np.testing.assert_array_equal(open_engine(load_bundle(folder), "anchor", ONNX).run(window), whole)


@pytest.mark.parametrize("name", ["../outside.data", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "a/b.data"])
def test_a_graph_that_refers_out_of_its_folder_is_refused(folder: Path, name: str) -> None:
    model = onnx.load(str(folder / "anchor.onnx"))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=name)
    (folder / "anchor.onnx").write_bytes(model.SerializeToString())
    list_in_manifest(folder, "anchor.onnx")
    with pytest.raises(BundleError, match="does not list"):
        load_bundle(folder)


def external_tensor(location: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=location, dims=[1], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_references_are_found_wherever_a_graph_can_hide_a_tensor() -> None:
    """In initializers, sparse ones, constants, loops' bodies, functions and training graphs."""
    body = onnx.GraphProto(name="body", initializer=[external_tensor("body")])
    constant = onnx.helper.make_node("Constant", [], ["c"], value=external_tensor("constant"))
    loop = onnx.helper.make_node("Loop", [""], ["y"], body=body)
    sparse = onnx.SparseTensorProto(values=external_tensor("values"), indices=external_tensor("indices"))
    graph = onnx.GraphProto(
        name="g", node=[constant, loop], initializer=[external_tensor("plain")], sparse_initializer=[sparse]
    )
    function = onnx.FunctionProto(
        name="f", node=[onnx.helper.make_node("Constant", [], ["z"], value=external_tensor("function"))]
    )
    model = onnx.ModelProto(ir_version=8, graph=graph, functions=[function])
    model.training_info.add().algorithm.initializer.append(external_tensor("training"))
    found = external_files(model.SerializeToString())
    assert found == {"plain", "body", "constant", "values", "indices", "function", "training"}


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0ORTM" + bytes(60), b"\x3a\xff\xff\xff\xff\x0f", b"\x0b\x0c"])
def test_what_is_no_onnx_graph_never_reaches_the_engine(folder: Path, data: bytes) -> None:
    (folder / "anchor.onnx").write_bytes(data)
    list_in_manifest(folder, "anchor.onnx")
    with pytest.raises(BundleError, match="anchor.onnx: is not an ONNX model"):
        load_bundle(folder)


def test_what_was_hashed_is_what_is_loaded(folder: Path) -> None:
    """A file that is exchanged between the check and the loading is refused, whatever it holds."""
    bundle = load_bundle(folder)
    data = (folder / "anchor.onnx").read_bytes()
    assert read_weights(bundle, "anchor", "onnx").data == data
    (folder / "anchor.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="anchor.onnx was changed after it was checked"):
        segment(patient(), bundle)


@pytest.mark.skipif(os.name != "posix", reason="permissions of this kind are POSIX's")
@pytest.mark.parametrize("open_to_all", ["", "manifest.json", "anchor.onnx"])
def test_a_bundle_that_everybody_can_change_is_reported(folder: Path, open_to_all: str) -> None:
    assert load_bundle(folder).warnings == ()
    (folder / open_to_all).chmod(0o777)
    (warning,) = load_bundle(folder).warnings
    assert "every user of this computer can change" in warning and str(folder / open_to_all) in warning


# --- odd bundles --------------------------------------------------------------------------------------------------
def at(*keys: str, to: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = to

    return change


ODD = {
    "huge spacing": at("branches", "anchor", "spacing_mm", to=[10**400, 1, 1]),
    "tiny spacing": at("branches", "anchor", "spacing_mm", to=[1e-9, 1, 1]),
    "huge window": at("window_hu", to=[0, 10**310]),
    "huge patch": at("branches", "anchor", "patch", to=[10**30, 16, 16]),
    "large patch": at("branches", "anchor", "patch", to=[1 << 20, 16, 16]),
    "huge network": at("branches", "anchor", "architecture", "features", to=[1 << 40, 4]),
    "infinite channels": at("branches", "anchor", "architecture", "in_channels", to=1e308),
    "huge stride": at("branches", "anchor", "architecture", "strides", to=[[1 << 40, 1, 1]]),
    "huge version": at("format_version", to=10**100),
    "half a surrogate pair": at("description", to="\ud800"),
    "half a pair as a key": lambda manifest: manifest["files"].update({"\udfff": {}}),
    "a list of lists": at("branches", "anchor", "classes", to=[[]] * 1000),
    "a list for text": at("name", to=["tiny"]),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_manifest_is_one_sentence_and_does_not_stop_the_list(
    folder: Path, home: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import_bundle(folder, "good")
    (home / "odd").mkdir()
    for path in folder.iterdir():
        (home / "odd" / path.name).write_bytes(path.read_bytes())
    change_manifest(home / "odd", ODD[kind])
    assert main(["bundle", "verify", "odd"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("soars: error: ") and said.count("\n") == 1 and len(said) < 1000
    assert main(["bundle", "list"]) == 0
    listed = capsys.readouterr().out
    assert "good" in listed and "damaged" in listed
    assert [entry.name for entry in list_bundles() if entry.bundle is None] == ["odd"]


@pytest.mark.parametrize("text", ["[" * 200_000, "1" * 5_000, "", '{"a": ' * 100_000, "\ufeff{}"])
def test_json_that_is_made_to_hurt_is_one_sentence(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    assert main(["bundle", "verify", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_manifest_or_card_of_any_length_is_not_read_whole(folder: Path) -> None:
    with (folder / "card.md").open("r+b") as card:
        card.truncate(1 << 40)  # sparse: takes no space
    with pytest.raises(BundleError, match="card.md is longer than 1 MB"):
        load_bundle(folder)
    with (folder / "manifest.json").open("r+b") as manifest:
        manifest.truncate(1 << 40)
    with pytest.raises(BundleError, match="manifest.json is longer than 4 MB"):
        load_bundle(folder)


def test_a_manifest_that_is_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(BundleError, match="has no manifest.json"):
        load_bundle(folder)


def test_a_network_that_gives_a_sequence_is_refused(folder: Path) -> None:
    helper = onnx.helper
    shape = ["b", 1, "z", "y", "x"]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("SequenceConstruct", ["x"], ["y"])],
            "sequence",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, shape)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (folder / "anchor.onnx").write_bytes(model.SerializeToString())
    list_in_manifest(folder, "anchor.onnx")
    with pytest.raises(BundleError, match="expected one input .* and one output"):
        segment(patient(), load_bundle(folder))


# --- zip bombs ----------------------------------------------------------------------------------------------------
def zipped(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bundles are unpacked."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def test_an_archive_that_grows_as_no_weights_do_is_refused_before_it_is_unpacked(
    folder: Path, tmp_path: Path, unpacked: Path
) -> None:
    with (folder / "zeros.bin").open("wb") as file:
        file.truncate(200 << 20)
    list_in_manifest(folder, "zeros.bin")
    path = zipped(folder, tmp_path / "bomb.zip")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(BundleError, match="which weights never do"):
        load_bundle(path)
    assert not list(unpacked.iterdir())


def test_an_archive_larger_than_the_free_disk_is_refused_before_it_is_unpacked(
    folder: Path, tmp_path: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(folder, tmp_path / "tiny.zip")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 100}))
    with pytest.raises(BundleError, match="only 100 are free"):
        load_bundle(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_of_a_kind_whose_growth_cannot_be_bounded_is_refused(
    folder: Path, tmp_path: Path, method: int
) -> None:
    with pytest.raises(BundleError, match="neither stored nor deflated"):
        load_bundle(zipped(folder, tmp_path / "odd.zip", method))


def test_an_archive_with_one_name_twice_or_ten_thousand_names_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    path = zipped(folder, tmp_path / "tiny.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("anchor.onnx", b"other")
    with pytest.raises(BundleError, match="two files of one name"):
        load_bundle(path)
    path = zipped(folder, tmp_path / "many.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for index in range(10_001):
            archive.writestr(f"{index}.txt", b"")
    with pytest.raises(BundleError, match="more than any bundle"):
        load_bundle(path)


# --- removing -----------------------------------------------------------------------------------------------------
def test_an_imported_bundle_can_be_removed_and_a_damaged_one_too(
    folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_bundle(folder, "one")
    import_bundle(folder, "two")
    (home / "two" / "manifest.json").write_text("{")
    assert main(["bundle", "remove", "one"]) == 0
    assert main(["bundle", "remove", "two"]) == 0
    assert list(home.iterdir()) == []
    capsys.readouterr()
    assert main(["bundle", "remove", "one"]) == 2
    assert "no bundle one was imported" in capsys.readouterr().err


def test_nothing_but_an_imported_bundle_is_removed_or_replaced(
    folder: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "shipped" / "starter")
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "thesis.txt").write_text("years of work")
    for name in ("starter", "mine", "../tiny", ".", ""):
        assert main(["bundle", "remove", name]) == 2
    (home / "also").mkdir()
    (home / "also" / "manifest.json").write_text('{"name": "a program of mine", "manifest_version": 3}')
    (home / "also" / "program.js").write_text("years of work")
    import_bundle(folder, "full")
    (home / "full" / "notes.txt").write_text("what I thought of it")
    for name, why in (("mine", "is not a bundle"), ("also", "holds program.js"), ("full", "holds notes.txt")):
        with pytest.raises(BundleError, match=f"{why}.*so it is not replaced"):
            import_bundle(folder, name, overwrite=True)
        with pytest.raises(BundleError):
            remove_bundle(name)
    assert (home / "mine" / "thesis.txt").read_text() == "years of work"
    assert (home / "also" / "program.js").exists() and (home / "full" / "notes.txt").exists()
    assert (tmp_path / "shipped" / "starter" / "manifest.json").exists() and folder.exists()


def test_removing_a_link_leaves_what_it_points_to(folder: Path, home: Path) -> None:
    home.mkdir()
    (home / "linked").symlink_to(folder)
    assert main(["bundle", "remove", "linked"]) == 0
    assert not (home / "linked").exists() and load_bundle(folder).name == "tiny"


def test_a_bundle_object_with_another_file_table_gives_no_weights(folder: Path) -> None:
    bundle = load_bundle(folder)
    entry = replace(bundle.files["anchor.onnx"], sha256="0" * 64)
    with pytest.raises(BundleError, match="changed after it was checked"):
        read_weights(replace(bundle, files={**bundle.files, "anchor.onnx": entry}), "anchor", "onnx")


# --- a bundle that asks for too much --------------------------------------------------------------------------------
def test_a_grid_that_no_memory_holds_is_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Voxels of 0.05 mm, which a manifest may ask for, are 20 billion in a head."""
    change_manifest(folder, at("branches", "anchor", "spacing_mm", to=[0.05, 0.05, 0.05]))
    sitk.WriteImage(patient().image, str(tmp_path / "ct.nrrd"))
    arguments = ["--bundle", str(folder), "--device", "cpu", "--progress", "none"]
    assert main(["segment", str(tmp_path / "ct.nrrd"), "--output", str(tmp_path / "out"), *arguments]) == 2
    assert "of memory, and" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "Exception thrown in SimpleITK ResampleImageFilter_Execute: Failed to allocate memory for image.",
        "std::bad_alloc",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_whatever_reports_that_memory_ran_out_ends_in_the_same_sentence(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_fault("soars", RuntimeError(text), debug=False) == 2
    assert capsys.readouterr().err.startswith("soars: error: not enough memory")


@pytest.mark.parametrize("line", ["# x" + " #" * 200_000, "# " + " " * 400_000 + "x", "#" * 400_000])
def test_a_heading_of_any_length_does_not_take_minutes(line: str) -> None:
    assert "licence" in card_sections(f"{line}\n# Licence ##\nCC0\n")
