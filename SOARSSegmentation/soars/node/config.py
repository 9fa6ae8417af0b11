"""The settings of a node, from one YAML file; every field is explained in docs/node.md.

What can be wrong in the file is found when it is read (`read_config`), not when the first patient has arrived.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from soars.archive.nodes import CALLING_AE_TITLE, Node, is_this_computer
from soars.catalogue import resolve
from soars.devices import EXPECTED, is_device
from soars.dicom.rtstruct import read_roi_names
from soars.errors import InputError
from soars.node.fields import build, json_schema
from soars.node.rules import Conditions, read_conditions
from soars.service.segmenter import BatchOptions
from soars.texts import parse_yaml, read_bytes

SCHEMA = 1
_NAME = re.compile(r"[\w.-]{1,64}")
_LONGEST_AGO = 36500


@dataclass(frozen=True)
class ServerTls:
    """TLS for those who send to the node. With ``clients`` (a CA's certificate) they must show one that it signed."""

    certificate: Path
    key: Path
    clients: Path | None = None


@dataclass(frozen=True)
class ClientTls:
    """TLS to a destination. ``ca`` has signed its certificate; ours, with its key, where it wants to see one."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Listen:
    """Where images are taken. Empty ``callers``: from anybody. ``others``: what to do with objects that are no CT."""

    host: str = "127.0.0.1"
    port: int = 11112
    ae_titles: tuple[str, ...] = (CALLING_AE_TITLE,)
    callers: tuple[str, ...] = ()
    others: Literal["refuse", "discard"] = "refuse"
    most_associations: int = 20
    idle_s: float = 60.0
    tls: ServerTls | None = None

    def __post_init__(self) -> None:
        for title in (*self.ae_titles, *self.callers):
            Node("listen", self.host, self.port, title)
        if not self.ae_titles:
            raise InputError("ae_titles must name at least one title")
        _at_least(1, most_associations=self.most_associations, idle_s=self.idle_s)


@dataclass(frozen=True)
class Complete:
    """When a series is complete: ``quiet_s`` after its last image, the associations being closed in order. One whose
    association broke, or that lacks images, is given up after ``give_up_s``."""

    quiet_s: float = 30.0
    give_up_s: float = 3600.0

    def __post_init__(self) -> None:
        _at_least(0, quiet_s=self.quiet_s, give_up_s=self.give_up_s)


@dataclass(frozen=True)
class Limits:
    """What the node may take: of the disk, cases that wait, one image, one case's time."""

    disk_gb: float = 100.0
    free_gb: float = 2.0
    cases: int = 500
    image_mb: float = 2048.0
    case_s: float = 3600.0

    def __post_init__(self) -> None:
        _at_least(0, disk_gb=self.disk_gb, free_gb=self.free_gb, image_mb=self.image_mb, case_s=self.case_s)
        _at_least(1, cases=self.cases)


@dataclass(frozen=True)
class Rule:
    """Which CTs are contoured how, and where the contours go. The first rule whose conditions all hold counts."""

    name: str
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    send: tuple[str, ...] = ()
    bundle: str = "starter"
    organs: tuple[str, ...] | None = None
    device: str = "auto"
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"

    def __post_init__(self) -> None:
        _ = self.conditions
        for organ in self.organs or ():
            resolve(organ)
        if not is_device(self.device):
            raise InputError(f"device: {EXPECTED} is wanted, not {self.device!r}")

    @cached_property
    def conditions(self) -> Conditions:
        return read_conditions(self.when)

    @property
    def options(self) -> BatchOptions:
        return BatchOptions(self.bundle, self.device, self.engine, self.organs, overwrite=True)


@dataclass(frozen=True)
class Destination:
    """Who gets contours: by C-STORE (``host``, ``port``, ``ae_title``) or by STOW-RS (``web``). ``names`` is a table of
    its own names of structures (see `soars.dicom.roi_names`)."""

    host: str = ""
    port: int = 0
    ae_title: str = ""
    calling_ae_title: str = CALLING_AE_TITLE
    web: str = ""
    token_over_http: bool = False
    tls: ClientTls | None = None
    rtstruct: bool = True
    seg: bool = False
    names: Path | None = None

    def __post_init__(self) -> None:
        if bool(self.web) == bool(self.host or self.port or self.ae_title):
            raise InputError("give either host, port and ae_title, or web")
        if self.web and self.tls is not None:
            raise InputError("tls is for DIMSE; web has it when its address begins with https")
        if not (self.rtstruct or self.seg):
            raise InputError("it gets neither RTSTRUCT nor SEG")
        _ = self.node("destination")

    def node(self, name: str) -> Node:
        """As the archive's modules know it."""
        if self.web:
            return Node(name, "web", 1, CALLING_AE_TITLE, web=self.web, token_over_http=self.token_over_http)
        return Node(name, self.host, self.port, self.ae_title, self.calling_ae_title)

    @cached_property
    def roi_names(self) -> dict[str, str]:
        """Raises `InputError` for a table that cannot be used."""
        return read_roi_names(self.names) if self.names is not None else {}


@dataclass(frozen=True)
class Poll:
    """An archive that is asked for new CTs of the last ``days``."""

    web: str
    every_s: float = 60.0
    days: int = 2
    token_over_http: bool = False

    def __post_init__(self) -> None:
        _at_least(1, every_s=self.every_s)
        _at_least(0, days=self.days)
        if self.days > _LONGEST_AGO:
            raise InputError(f"days: {_LONGEST_AGO} or fewer are wanted, not {self.days}")
        _ = self.node("archive")

    def node(self, name: str) -> Node:
        return Node(name, "web", 1, CALLING_AE_TITLE, web=self.web, token_over_http=self.token_over_http)


@dataclass(frozen=True)
class Status:
    """Where the health page and the metrics are; port 0: nowhere."""

    host: str = "127.0.0.1"
    port: int = 8112


@dataclass(frozen=True)
class Keep:
    """Days for which results that were sent, and cases that failed, stay on the disk."""

    done_days: float = 7.0
    failed_days: float = 30.0

    def __post_init__(self) -> None:
        _at_least(0, done_days=self.done_days, failed_days=self.failed_days)


@dataclass(frozen=True)
class Retry:
    """Pauses between attempts to send, doubled from ``first_s`` to ``most_s``, until ``give_up_days`` have passed."""

    first_s: float = 10.0
    most_s: float = 1800.0
    give_up_days: float = 7.0

    def __post_init__(self) -> None:
        _at_least(0.01, first_s=self.first_s, most_s=self.most_s, give_up_days=self.give_up_days)


@dataclass(frozen=True)
class Config:
    """All settings. ``state`` is the folder in which everything lies that the node keeps."""

    schema: int
    state: Path
    rules: tuple[Rule, ...]
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    listen: Listen = field(default_factory=Listen)
    complete: Complete = field(default_factory=Complete)
    limits: Limits = field(default_factory=Limits)
    poll: Mapping[str, Poll] = field(default_factory=dict)
    status: Status = field(default_factory=Status)
    keep: Keep = field(default_factory=Keep)
    retry: Retry = field(default_factory=Retry)

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: {SCHEMA} is known here, not {self.schema}")
        if not self.rules:
            raise InputError("rules: at least one is needed, else no CT is contoured")
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise InputError("rules: two have the same name")
        for name in (*self.destinations, *self.poll):
            if not _NAME.fullmatch(name):  # it becomes part of a file's
                raise InputError(f"{name!r}: a name has letters, digits and . _ -, at most 64 of them")
        for name, destination in self.destinations.items():
            destination.node(name)
        for name, archive in self.poll.items():
            archive.node(name)
        for number, rule in enumerate(self.rules):
            unknown = [name for name in rule.send if name not in self.destinations]
            if unknown:
                raise InputError(f"rules[{number}].send: there is no destination {', '.join(unknown)}")

    def rule(self, name: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.name == name), None)


def read_config(path: Path) -> Config:
    """The settings in a file; paths in it are relative to it. Raises `InputError`."""
    try:
        content = parse_yaml(read_bytes(path))
    except ImportError as error:
        raise InputError("PyYAML is missing: pip install PyYAML") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not YAML: {error}") from error
    try:
        config: Config = build(Config, content)
        config = _placed(config, path.parent)
        for name, destination in config.destinations.items():
            _check_files(f"destinations.{name}.tls", destination.tls)
            _ = destination.roi_names
        _check_files("listen.tls", config.listen.tls)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config


def schema_text() -> str:
    """The JSON Schema of the file."""
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Settings of soars serve"}
    return json.dumps(about | json_schema(Config), indent=1)


def remarks(config: Config) -> Sequence[str]:
    """What is allowed but rarely meant."""
    found = []
    open_to_all = not is_this_computer(config.listen.host)
    if open_to_all and config.listen.tls is None:
        found.append(f"listen: images come to {config.listen.host} unencrypted")
    if open_to_all and not config.listen.callers:
        found.append("listen.callers: every AE title may send")
    if config.status.port and not is_this_computer(config.status.host):
        found.append(f"status: everybody who reaches {config.status.host} can see the health page")
    unused = sorted(set(config.destinations) - {name for rule in config.rules for name in rule.send})
    if unused:
        found.append(f"destinations: no rule sends to {', '.join(unused)}")
    return found


def _placed(config: Config, home: Path) -> Config:
    def tls(one: Any) -> Any:
        if one is None:
            return None
        paths = {k: home / v for k, v in vars(one).items() if isinstance(v, Path)}
        return replace(one, **paths)

    def destination(one: Destination) -> Destination:
        names = home / one.names if one.names is not None else None
        return replace(one, tls=tls(one.tls), names=names)

    def rule(one: Rule) -> Rule:
        is_path = "/" in one.bundle or "\\" in one.bundle
        return replace(one, bundle=str(home / one.bundle)) if is_path else one

    return replace(
        config,
        state=home / config.state,
        listen=replace(config.listen, tls=tls(config.listen.tls)),
        destinations={name: destination(one) for name, one in config.destinations.items()},
        rules=tuple(rule(one) for one in config.rules),
    )


def _check_files(where: str, tls: ServerTls | ClientTls | None) -> None:
    for name, value in vars(tls).items() if tls is not None else ():
        if isinstance(value, Path) and not value.is_file():
            raise InputError(f"{where}.{name}: there is no file {value}")
    if isinstance(tls, ClientTls) and (tls.certificate is None) != (tls.key is None):
        raise InputError(f"{where}: a certificate needs its key, and a key its certificate")


def _at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:
            raise InputError(f"{name}: {least:g} or more is wanted, not {value:g}")
