"""C-ECHO and C-STORE, by pynetdicom (PS3.7 9.1)."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from soars.archive.nodes import Node
from soars.errors import InputError
from soars.progress import Progress, Reporter, ignore

TIMEOUT_S = 10.0
"""For connecting, and for waiting for an answer."""
SLOWEST_BYTES_S = 16_000
"""The speed, of both sides together, below which a transfer is abandoned."""
MOST_ANSWER_BYTES = 1 << 20
"""Bytes a node may send us in one association, besides `ANSWER_BYTES` per file; its answers have a few hundred."""
ANSWER_BYTES = 1 << 14
_MOST_CONTEXTS = 128
"""Kinds of files that one association can propose (PS3.8 9.3.2.2)."""


@dataclass(frozen=True)
class Sent:
    """A file that the node accepted; ``remark`` is any warning it gave ("" for a plain success)."""

    path: Path
    remark: str = ""


def echo(node: Node, timeout_s: float = TIMEOUT_S, *, tls: ssl.SSLContext | None = None) -> None:
    """Check that a node responds and knows us (C-ECHO), over ``tls`` if given. `InputError` says what is wrong."""
    limits = _Limits(timeout_s * 3, MOST_ANSWER_BYTES)
    with _association(node, [("1.2.840.10008.1.1", None)], timeout_s, limits, tls) as association:
        _check(node, association.send_c_echo(), "answered the echo")


def send(
    node: Node,
    paths: Iterable[Path],
    *,
    report: Reporter = ignore,
    timeout_s: float = TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
) -> list[Sent]:
    """Store DICOM files on a node, one association for all (C-STORE), over ``tls`` if given.

    Every file is checked before the first one is sent. Raises `InputError` when a file is not DICOM, or the node
    cannot be reached, refuses us, or refuses a file; the message says how many it had accepted by then.
    """
    files = [(path, *_kind(path)) for path in paths]
    if not files:
        raise InputError("there is nothing to send")
    kinds = list(dict.fromkeys((sop_class, syntax) for _, sop_class, syntax in files))
    if len(kinds) > _MOST_CONTEXTS:
        raise InputError(f"{len(kinds)} kinds of files are too many for one transfer: send them in parts")
    sent: list[Sent] = []
    size = sum(path.stat().st_size for path, _, _ in files)
    limits = _Limits(timeout_s * 3 + size / SLOWEST_BYTES_S, MOST_ANSWER_BYTES + ANSWER_BYTES * len(files))
    with _association(node, kinds, timeout_s, limits, tls) as association:
        for path, _, _ in files:
            report(Progress("send", len(sent), len(files), path.name))
            try:
                dataset = pydicom.dcmread(path)
                status = association.send_c_store(dataset)
            except ValueError as error:  # no context was accepted for this kind of file
                raise InputError(f"{node.name} does not take {path}: {error}{_so_far(sent)}") from error
            except RuntimeError as error:
                raise InputError(
                    f"the connection to {node.name} was lost at {path}{_so_far(sent)}"
                ) from error
            remark = _check(node, status, f"took {path}", _so_far(sent))
            sent.append(Sent(path, remark))
    report(Progress("send", len(sent), len(files)))
    return sent


def _kind(path: Path) -> tuple[str, str]:
    """SOP class and transfer syntax of a file."""
    try:
        dataset = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"]
        )
        if dataset.SOPInstanceUID and dataset.SOPClassUID:
            return str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: this is a folder; give the files in it") from error
    except Exception as error:  # whatever the parser raises over a damaged file
        raise InputError(f"{path}: not a DICOM file that can be sent ({type(error).__name__})") from error
    raise InputError(f"{path}: not a DICOM file that can be sent: it lacks its class or its identifier")


@contextmanager
def _association(
    node: Node,
    kinds: Iterable[tuple[str, str | None]],
    timeout_s: float,
    limits: _Limits,
    tls: ssl.SSLContext | None,
) -> Iterator[Any]:
    try:
        from pynetdicom import AE, evt
    except ImportError as error:
        raise InputError("pynetdicom is missing: pip install 'soars-segmentation[network]'") from error
    log = logging.getLogger("pynetdicom")
    if not log.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.CRITICAL)  # our one sentence says what it would log
    _check_reachable(node, timeout_s)
    entity = AE(ae_title=node.calling_ae_title)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = (
        timeout_s
    )
    for sop_class, syntax in kinds:
        if syntax is None:
            entity.add_requested_context(sop_class)
        else:
            entity.add_requested_context(sop_class, syntax)
    handlers = [(evt.EVT_CONN_OPEN, limits.apply)]
    association: Any = entity.associate(
        node.host,
        node.port,
        ae_title=node.ae_title,
        evt_handlers=handlers,  # type: ignore[arg-type]
        tls_args=None if tls is None else (tls, node.host),
    )
    if not association.is_established:
        if association.is_rejected:
            raise InputError(
                f"{node.name} refuses the connection: it does not know {node.calling_ae_title!r}, or is not called "
                f"{node.ae_title!r}; compare the AE titles with its administrator's"
            )
        raise InputError(
            f"{node.name} does not answer as a DICOM node on {node.host}:{node.port}, or takes none of these files"
            + (", or one side does not trust the other's certificate" if tls is not None else "")
        )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        else:  # lost on the way
            association.abort()


class _Limits:
    """How long an association may last and how much the node may send, however slowly and in whatever units:
    pynetdicom's own time-outs restart with every byte, and it accepts message lengths up to 4 GB."""

    def __init__(self, seconds: float, largest: int) -> None:
        self._end, self._left = time.monotonic() + seconds, largest
        self._socket: Any = None

    def apply(self, event: Any) -> None:
        """Wrap pynetdicom's socket; the handler of ``EVT_CONN_OPEN``."""
        connection = event.assoc.dul.socket
        self._socket, connection.socket = connection.socket, self

    def recv(self, size: int) -> bytes:
        data: bytes = self._socket.recv(size)
        self._left -= len(data)
        if self._left < 0 or time.monotonic() > self._end:
            raise TimeoutError("the node sends too much or too slowly")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def _check_reachable(node: Node, timeout_s: float) -> None:
    where = f"{node.name} ({node.host}:{node.port})"
    try:
        socket.create_connection((node.host, node.port), timeout=timeout_s).close()
    except socket.gaierror as error:
        raise InputError(f"{where}: there is no computer of that name") from error
    except TimeoutError as error:
        raise InputError(
            f"{where}: no answer within {timeout_s:g} s; is the address right, and the way free?"
        ) from error
    except OSError as error:
        raise InputError(f"{where}: cannot be reached ({error.strerror or error})") from error


def _check(node: Node, status: Any, what: str, so_far: str = "") -> str:
    """The remark on a status (PS3.7 annex C): "" for success, its text for a warning, `InputError` for any other."""
    code = status.get("Status") if status is not None else None
    if code is None:
        raise InputError(f"{node.name} stopped answering{so_far}")
    if code == 0:
        return ""
    comment = str(status.get("ErrorComment", "") or "")
    text = f"status 0x{code:04X}" + (f", {comment}" if comment else "")
    if code >> 12 == 0xB or code in (0x0001, 0x0107, 0x0116):
        return text
    if code >> 8 == 0xA7:
        text += ", out of resources"
    raise InputError(f"{node.name} has not {what}: {text}{so_far}")


def _so_far(sent: list[Sent]) -> str:
    return f"; {len(sent)} files had been taken before" if sent else ""
