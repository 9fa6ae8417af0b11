"""Which files an ONNX graph refers to, read from its bytes alone.

Weights of an ONNX graph may lie outside it ("external data"), in a file that the graph names, relative to its own
folder. An engine that loads the graph by its path reads that file too, whatever it holds. So the graph is walked here
before any engine sees it. Source: onnx.proto (ONNX 1.16) and the protocol buffers' encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

from soars.errors import BundleError

Buffer = bytes | memoryview

_TENSOR, _ENTRY = "tensor", "entry"
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}
"""Of each kind of message, the fields whose messages can lead to a tensor, by their numbers."""
_MODEL_GRAPH = 7
_MOST_NESTED = 100
"""Messages within messages; protocol buffers' own limit."""


def external_files(data: Buffer) -> frozenset[str]:
    """Names (``location``) of the files that tensors of the graph are stored in; empty when the graph is whole.

    Raises `BundleError`, without the file's name, when the bytes are no ONNX model.
    """
    view = memoryview(data)
    if not any(number == _MODEL_GRAPH for number, _ in _messages(view)):
        raise BundleError("is not an ONNX model: it holds no graph")
    return frozenset(_walk(view, "model", 0))


def _walk(view: memoryview, kind: str, nested: int) -> Iterator[str]:
    if nested > _MOST_NESTED:
        raise BundleError("is not a usable ONNX model: its graphs are nested too deeply")
    inside = _INSIDE[kind]
    for number, part in _messages(view):
        child = inside.get(number)
        if child == _ENTRY:
            key, value = _entry(part)
            if key == "location":
                yield value
        elif child is not None:
            yield from _walk(part, child, nested + 1)


def _entry(view: memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto; of a repeated field the last one counts."""
    found = dict(_messages(view))
    return tuple(bytes(found.get(n, memoryview(b""))).decode("utf-8", "replace") for n in (1, 2))  # type: ignore[return-value]


def _messages(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of every length-delimited field of a message; the others are skipped."""
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            _, at = _varint(view, at)
            continue
        if wire == 2:
            size, at = _varint(view, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise BundleError("is not an ONNX model: its bytes are not protocol buffers")
        if size > end - at:
            raise BundleError("is not an ONNX model, or is cut short")
        if wire == 2:
            yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise BundleError("is not an ONNX model, or is cut short")
