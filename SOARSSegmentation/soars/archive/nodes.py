"""The archives that the user has configured, in one JSON file::

    {"schema": 1,
     "nodes": {"pacs": {"host": "10.0.0.5", "port": 104, "ae_title": "ARCHIVE", "calling_ae_title": "SOARS",
                        "web": "https://pacs.example.org/dicom-web"}}}

It lies in the user's application data (`nodes_file`). No password is kept in it: where an archive's DICOMweb wants a
token, it is taken from the environment (`soars.archive.http.TOKEN`).
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from soars.errors import InputError
from soars.files import replacing_file
from soars.places import user_data

SCHEMA = 1
_LONGEST_LIST = 1 << 20
CALLING_AE_TITLE = "SOARS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
"""PS3.5 6.2, value representation AE: at most 16 characters of ASCII, no backslash, no control characters."""


@dataclass(frozen=True)
class Node:
    """An archive. DIMSE needs ``host``, ``port`` (1 to 65535) and both application entity titles, DICOMweb ``web``,
    the address that ends before ``/studies``, or "" where there is none. ``token_over_http``: whether a token may be
    sent to it unencrypted."""

    name: str
    host: str
    port: int
    ae_title: str
    calling_ae_title: str = CALLING_AE_TITLE
    web: str = ""
    token_over_http: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} cannot be a node's name: use letters, digits and . _ -")
        if not self.host or any(c.isspace() or c in "/@" for c in self.host):
            raise InputError(
                f"{self.host!r} is not a host: give a name such as pacs.example.org, or an IP address"
            )
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 < self.port < 65536:
            raise InputError(f"{self.port} is not a port: give a number from 1 to 65535, often 104 or 11112")
        for title in (self.ae_title, self.calling_ae_title):
            if not _AE_TITLE.fullmatch(title) or not title.strip():
                raise InputError(
                    f"{title!r} is not an AE title: at most 16 characters of ASCII, no backslash"
                )
        if self.web:
            _check_address(self.web)


def _check_address(web: str) -> None:
    """Raise `InputError`, which does not repeat a secret, for an address that cannot be kept or used."""
    try:
        address = urlsplit(web)
        hidden = address.username is not None or address.password is not None
        usable = address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        hidden, usable = "@" in web, False
    if hidden:
        raise InputError(
            "a DICOMweb address with a user or a password in it would be stored and shown readable: leave them out; a "
            "token is taken from the environment (SOARS_DICOMWEB_TOKEN)"
        )
    if not usable or not web.isprintable() or " " in web:
        raise InputError(f"{web!r} is not a DICOMweb address: it begins with http:// or https://")
    if address.query or address.fragment:
        raise InputError("a DICOMweb address ends before any ? or #, which may hold secrets: leave that out")


def is_this_computer(host: str | None) -> bool:
    """Whether the host is this computer."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def nodes_file() -> Path:
    """``$SOARS_NODES``, else ``nodes.json`` in the user's application data."""
    chosen = os.environ.get("SOARS_NODES")
    return Path(chosen).expanduser() if chosen else user_data() / "nodes.json"


def read_nodes() -> dict[str, Node]:
    """All configured nodes by name; none where there is no file. `InputError` when the file is damaged."""
    path = nodes_file()
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LONGEST_LIST).decode("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as the list of archives ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("nodes"), dict):
        raise InputError(
            f"{path}: not a list of archives; remove it, or write a new one with soars network add"
        )
    if content.get("schema") != SCHEMA:
        raise InputError(f"{path}: written by another version (schema {content.get('schema')}, not {SCHEMA})")
    return {name: _node(path, name, fields) for name, fields in content["nodes"].items()}


def find_node(name: str) -> Node:
    """The node of that name. `InputError` lists the known ones."""
    nodes = read_nodes()
    if name not in nodes:
        known = f"known: {', '.join(sorted(nodes))}" if nodes else "none is configured"
        raise InputError(f"there is no archive {name!r} ({known}); add it with: soars network add")
    return nodes[name]


def add_node(node: Node, *, overwrite: bool = False) -> None:
    """Keep a node. `InputError` when there is one of that name and ``overwrite`` is False."""
    nodes = read_nodes()
    if node.name in nodes and not overwrite:
        raise InputError(f"there is a node {node.name!r} already; use --overwrite to replace it")
    _write({**nodes, node.name: node})


def remove_node(name: str) -> None:
    """Forget a node. `InputError` when there is none of that name."""
    find_node(name)
    _write({other: node for other, node in read_nodes().items() if other != name})


def _node(path: Path, name: str, fields: Any) -> Node:
    try:
        return Node(name=name, **fields)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}: node {name!r}: {error}") from error


def _write(nodes: Mapping[str, Node]) -> None:
    path = nodes_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: {k: v for k, v in asdict(node).items() if k != "name"} for name, node in nodes.items()}
    text = json.dumps({"schema": SCHEMA, "nodes": fields}, indent=1) + "\n"
    with replacing_file(path) as temporary:
        # Readable by this user only, from its first byte on and whatever the umask.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
