"""Taking images by C-STORE (PS3.4 B): each is on the disk before it is acknowledged.

What is no CT is refused, or discarded where the settings say so. Unknown AE titles, too many associations, a full disk
or queue, and images that do not hold what they were announced as are refused with the status that DICOM has for it.
"""

from __future__ import annotations

import io
import logging
import ssl
import threading
import time
import warnings as python_warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import pydicom
from pydicom import config as pydicom_config
from pydicom.tag import Tag

from soars.ct.decode import LOSSLESS_SYNTAXES, LOSSY_SYNTAXES
from soars.errors import InputError
from soars.node.audit import Audit, Event, Reason
from soars.node.config import Listen, ServerTls
from soars.node.spool import Origin, Spool

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image
)
_VERIFICATION = "1.2.840.10008.1.1"
_AVAILABILITY = "1.2.840.10008.5.1.4.33"  # Instance Availability Notification (PS3.4 R)
_SUCCESS, _OUT_OF_RESOURCES, _OTHER_CONTENT, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
_NOT_SUPPORTED = 0x0122
_INVALID_VALUE, _RESOURCE_LIMIT = 0x0106, 0x0213
"""Of N-CREATE (PS3.7 C)."""
_REJECTED, _BY_USER, _CALLING_UNKNOWN, _CALLED_UNKNOWN = 0x01, 0x01, 0x03, 0x07
"""PS3.8 9.3.4: permanently, by the service user, and why."""
_ABORT_S = 0.5
"""For the peers of open associations to hear that the node ends."""
_REQUEST_S = 10.0
"""For a connection to ask for an association; until then it counts as one."""
_LAST_IDENTIFIER = Tag("SeriesInstanceUID")
_START = 1 << 20
"""Bytes of a data set in which its identifiers are looked for. They stand near its beginning, but behind a list of all
images that an enhanced CT was made from: some thousands, of a hundred bytes each."""

Room = Callable[[str, int], Reason]
"""Why an image of this series key and size cannot be taken, or ""."""


class Receiver:
    """The C-STORE SCP of a node, from `start` to `stop`."""

    def __init__(self, settings: Listen, spool: Spool, audit: Audit, room: Room, largest_image: int) -> None:
        self._settings, self._spool, self._audit = settings, spool, audit
        self._room, self._largest = room, largest_image
        self._lock = threading.Lock()
        self._open: dict[Any, set[str]] = {}
        self._connections: dict[Any, _Metered] = {}
        self._asked_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._touched: dict[str, float] = {}
        self._broken: dict[str, float] = {}
        self._told: WeakKeyDictionary[Any, set[tuple[str, str, str]]] = WeakKeyDictionary()
        self._began = time.monotonic()
        self._server: Any = None

    def start(self) -> None:
        """Raises `InputError` when the address cannot be used or pynetdicom is missing."""
        try:
            from pynetdicom import AE, evt
            from pynetdicom.presentation import AllStoragePresentationContexts
        except ImportError as error:
            raise InputError("pynetdicom is missing: pip install 'soars-segmentation[network]'") from error
        log = logging.getLogger("pynetdicom")
        if not log.isEnabledFor(logging.DEBUG):
            log.setLevel(logging.CRITICAL)
        entity = AE(ae_title=self._settings.ae_titles[0])
        entity.maximum_associations = self._settings.most_associations
        entity.network_timeout = entity.dimse_timeout = self._settings.idle_s
        entity.acse_timeout = min(_REQUEST_S, self._settings.idle_s)
        for kind in CT_CLASSES:
            entity.add_supported_context(kind, sorted(LOSSLESS_SYNTAXES | LOSSY_SYNTAXES))
        for context in AllStoragePresentationContexts:  # taken to be refused by name, and noted
            if context.abstract_syntax not in CT_CLASSES:
                entity.add_supported_context(str(context.abstract_syntax))
        entity.add_supported_context(_VERIFICATION)
        entity.add_supported_context(_AVAILABILITY)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._limited),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_CREATE, self._announced),
            (evt.EVT_RELEASED, lambda event: self._ended(event.assoc, in_order=True)),
            (evt.EVT_ABORTED, lambda event: self._ended(event.assoc, in_order=False)),
        ]
        address = self._settings.host, self._settings.port
        try:
            self._server = entity.start_server(
                address, block=False, ssl_context=server_context(self._settings.tls), evt_handlers=handlers
            )
        except OSError as error:
            raise InputError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; is another node running?"
            ) from error

    def stop(self) -> None:
        """Take no more; associations that are open are aborted, so that their senders know."""
        if self._server is None:
            return
        self._server.shutdown()
        open_ones = self._server.active_associations
        for association in open_ones:
            if association.is_established:
                association.abort(block=False)
        end = time.monotonic() + _ABORT_S
        for association in open_ones:
            association.join(max(0.0, end - time.monotonic()))
        with self._lock:
            connections = list(self._connections.values())
            self._connections.clear()
        for connection in connections:
            connection.finish()

    def close_ended(self) -> None:
        """Close the connections of associations that are over: pynetdicom leaves some to the garbage collector."""
        with self._lock:
            ended = [one for one in self._connections if _is_over(one)]
            connections = [self._connections.pop(one) for one in ended]
        for connection in connections:
            connection.finish()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def associations(self) -> int:
        """How many are open."""
        return len(self._server.active_associations) if self._server is not None else 0

    def quiet_s(self, key: str) -> float | None:
        """Seconds since the last image of a series came or its association ended; None while one is open."""
        with self._lock:
            dead = [association for association in self._open if not association.is_alive()]
        for association in dead:
            self._ended(association, in_order=False)
        with self._lock:
            if any(key in keys for keys in self._open.values()):
                return None
            return time.monotonic() - self._touched.get(key, self._began)

    def forget(self, key: str) -> None:
        """A series is received no more."""
        with self._lock:
            self._touched.pop(key, None)
            self._broken.pop(key, None)

    # --- an association ----------------------------------------------------------------------------------------------

    def _limited(self, event: Any) -> None:
        self.close_ended()
        connection = event.assoc.dul.socket
        connection.socket = _Metered(connection.socket, self._largest, event.assoc)
        with self._lock:
            self._connections[event.assoc] = connection.socket

    def _requested(self, event: Any) -> None:
        with self._lock:
            self._asked_at[event.assoc] = time.monotonic()
        asked = event.assoc.requestor.primitive
        called, calling = str(asked.called_ae_title).strip(), str(asked.calling_ae_title).strip()
        reason: Reason = ""
        if called not in self._settings.ae_titles:
            reason, code = "called-title", _CALLED_UNKNOWN
        elif self._settings.callers and calling not in self._settings.callers:
            reason, code = "calling-title", _CALLING_UNKNOWN
        if reason:
            self._audit.note(
                "association-refused", reason=reason, more={"called": called, "calling": calling}
            )
            event.assoc.acse.send_reject(_REJECTED, _BY_USER, code)
            event.assoc.kill()

    def _rejected(self, event: Any) -> None:
        self._audit.note("association-refused", reason="too-many-associations", more=_titles(event.assoc))

    def _ended(self, association: Any, *, in_order: bool) -> None:
        """An association is over. One that broke may have left images out; only one that was asked for after that, by a
        sender who knows of it, completes a series."""
        now = time.monotonic()
        with self._lock:
            keys = self._open.pop(association, set())
            for key in keys:
                self._touched[key] = now
                if not in_order:
                    self._broken[key] = now
            asked = self._asked_at.get(association, now)
            completed = [key for key in keys if asked >= self._broken.get(key, -1.0)]
        # not with the lock held: the collector asks us while it holds the spool's
        for key in keys:
            if not in_order:
                self._spool.release(key, False)
                self._audit.note("association-broken", key, more=_titles(association))
            elif key in completed:
                self._spool.release(key)

    # --- an image ----------------------------------------------------------------------------------------------------

    def _store(self, event: Any) -> int:
        titles = _titles(event.assoc)
        if event.request.AffectedSOPClassUID not in CT_CLASSES:
            discard = self._settings.others == "discard"
            kind = pydicom.uid.UID(event.request.AffectedSOPClassUID).name
            event_name: Event = "image-discarded" if discard else "image-refused"
            self._note_once(event.assoc, event_name, "", "no-ct", {**titles, "kind": kind})
            return _SUCCESS if discard else _NOT_SUPPORTED
        data = event.request.DataSet.getvalue()
        syntax = event.context.transfer_syntax
        series, instance, kind = _identifiers(data, syntax)
        reason: Reason = ""
        status = _NOT_UNDERSTOOD
        key = self._spool.pseudonym(series)
        if not (series and instance):
            reason = "no-identifiers"
        elif instance != event.request.AffectedSOPInstanceUID or kind != event.request.AffectedSOPClassUID:
            reason, status = "identifiers-differ", _OTHER_CONTENT
        else:
            reason, status = self._room(key, len(data)), _OUT_OF_RESOURCES
        if not reason:
            with self._lock:
                self._open.setdefault(event.assoc, set()).add(key)
            try:
                header = event.encoded_dataset()[: -len(data) or None]
                origin = Origin(titles["called"], titles["calling"])
                self._spool.keep_image(series, instance, (header, data), origin)
                with self._lock:
                    self._touched[key] = time.monotonic()
                return _SUCCESS
            except FileExistsError:
                reason, status = "other-content", _NOT_UNDERSTOOD
            except (OSError, InputError):
                reason, status = "disk-full", _OUT_OF_RESOURCES
        self._note_once(event.assoc, "image-refused", key if series else "", reason, titles)
        return status

    def _announced(self, event: Any) -> tuple[int, None]:
        """An Instance Availability Notification: which images a series has."""
        titles = _titles(event.assoc)
        try:
            series = announced_images(event.attribute_list)
        except Exception:  # whatever the parser raises over damaged bytes
            self._note_once(event.assoc, "image-refused", "", "no-identifiers", titles)
            return _INVALID_VALUE, None
        for series_uid, instances in series.items():
            key = self._spool.pseudonym(series_uid)
            reason: Reason = self._room(key, 0)
            if not reason:
                try:
                    with self._lock:
                        self._touched[key] = time.monotonic()
                    self._spool.announce(series_uid, instances, Origin(titles["called"], titles["calling"]))
                except (OSError, InputError):
                    reason = "disk-full"
            if reason:
                self._note_once(event.assoc, "image-refused", key, reason, titles)
                return _RESOURCE_LIMIT, None
            self._audit.note("announced", key, more={**titles, "images": len(instances)})
        return _SUCCESS, None

    def _note_once(
        self, association: Any, event: Event, case: str, reason: Reason, more: dict[str, str]
    ) -> None:
        """A line for the first image of an association to which this happens, not for each."""
        with self._lock:
            told = self._told.setdefault(association, set())
            new = (event, case, reason) not in told
            told.add((event, case, reason))
        if new:
            self._audit.note(event, case, reason, more)


class _Metered:
    """A socket that ends the association when one image is larger than allowed: its bytes are gathered in memory."""

    def __init__(self, connection: Any, largest: int, association: Any) -> None:
        self._connection, self._largest, self._association = connection, largest, association
        self._bytes = 0
        self._message: Any = None

    def recv(self, size: int) -> bytes:
        data: bytes = self._connection.recv(size)
        message = self._association.dimse.message  # another one for every image, None between them
        self._bytes = self._bytes + len(data) if message is self._message else len(data)
        self._message = message
        if self._bytes > self._largest:
            raise TimeoutError("an image is larger than this node takes")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def finish(self) -> None:
        with suppress(OSError):
            self._connection.close()


def server_context(tls: ServerTls | None) -> ssl.SSLContext | None:
    """Raises `InputError` for a certificate that cannot be used."""
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.clients is not None:
            context.load_verify_locations(tls.clients)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"listen.tls: the certificate or key cannot be used: {error}") from error
    return context


def announced_images(notification: pydicom.Dataset) -> dict[str, list[str]]:
    """The CT images that an Instance Availability Notification lists: SOP instance UIDs by series UID.

    Raises what pydicom raises over attributes that are missing or damaged.
    """
    found: dict[str, list[str]] = {}
    for series in notification.ReferencedSeriesSequence:
        uids = [
            str(image.ReferencedSOPInstanceUID)
            for image in series.ReferencedSOPSequence
            if image.ReferencedSOPClassUID in CT_CLASSES
        ]
        if uids:
            found.setdefault(str(series.SeriesInstanceUID), []).extend(uids)
    return found


def _is_over(association: Any) -> bool:
    """Whether both of its threads have ended; before they have begun it is not."""
    return association.ident is not None and not (association.is_alive() or association.dul.is_alive())


def _titles(association: Any) -> dict[str, str]:
    asked = association.requestor.primitive
    return {"called": str(asked.called_ae_title).strip(), "calling": str(asked.calling_ae_title).strip()}


def _identifiers(data: bytes, syntax: str) -> tuple[str, str, str]:
    """Series, SOP instance and SOP class UID of an encoded data set, "" each where it has none or is damaged."""
    try:
        with python_warnings.catch_warnings(), pydicom_config.disable_value_validation():
            python_warnings.simplefilter("ignore")
            uid = pydicom.uid.UID(syntax)
            if uid.is_deflated:
                import zlib

                start = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _START)
            else:
                start = data[:_START]
            tags: list[Any] = [Tag("SOPClassUID"), Tag("SOPInstanceUID"), Tag("SeriesInstanceUID")]
            found = pydicom.filereader.read_dataset(
                io.BytesIO(start), uid.is_implicit_VR, uid.is_little_endian,
                stop_when=lambda tag, vr, length: tag > _LAST_IDENTIFIER, specific_tags=tags,
            )  # fmt: skip
            return (
                str(found.get("SeriesInstanceUID") or ""),
                str(found.get("SOPInstanceUID") or ""),
                str(found.get("SOPClassUID") or ""),
            )
    except Exception:  # whatever the parser raises over damaged bytes
        return "", "", ""
