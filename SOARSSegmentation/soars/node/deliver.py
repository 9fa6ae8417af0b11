"""Sending results to the destinations: each has a thread and pauses of its own, so that none waits for another."""

from __future__ import annotations

import shutil
import ssl
import time
from dataclasses import replace

from soars.archive.dimse import send
from soars.archive.stow import store
from soars.errors import InputError
from soars.node.audit import Audit
from soars.node.config import ClientTls, Config
from soars.node.spool import CT, GAVE_UP, RESULTS, SENT, Spool, State, write_problem
from soars.node.work import files_for

_SECONDS_A_DAY = 86400


class Deliverer:
    """Sends to one destination. A case that was sent just before the node was killed is sent again: it is the same
    object, with the same identifier, so the destination has it once."""

    def __init__(self, name: str, config: Config, spool: Spool, audit: Audit) -> None:
        self.name = name
        self._config, self._spool, self._audit = config, spool, audit
        self._destination = config.destinations[name]
        self._node = self._destination.node(name)
        self._tls = client_context(self._destination.tls)
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._pause_until = 0.0
        self.problem = ""

    def step(self) -> None:
        """Send the cases that wait, those first that have failed least, in the order in which they came. After a
        failure that case waits, longer each time, and all others for the shortest pause."""
        records = self._spool.records("sending")
        for record in sorted(records, key=lambda one: self._failures.get(one.id, 0)):
            rule = self._config.rule(record.rule)
            if rule is None or self.name not in rule.send or self.name in record.settled:
                continue
            now = time.monotonic()
            if now < self._pause_until:
                return
            if now >= self._not_before.get(record.id, 0.0):
                self._send(record.id, record.arrived)

    def _send(self, case: str, arrived: float) -> None:
        folder = self._spool.folder("sending", case) / RESULTS
        paths = [folder / name for name in files_for(self.name, self._destination)]
        if not all(path.is_file() for path in paths):
            self._make(case)
            return
        try:
            if self._destination.web:
                store(self._node, paths)
            else:
                send(self._node, paths, tls=self._tls)
        except InputError as error:
            self._failed(case, arrived, str(error))
            return
        self._failures.pop(case, None)
        self._not_before.pop(case, None)
        self._pause_until, self.problem = 0.0, ""
        self._audit.note("sent", case, more={"destination": self.name})
        note_settled(self._spool, case, self.name, SENT)

    def _make(self, case: str) -> None:
        """Have files made that this destination gets only since the settings were changed."""
        with self._spool.lock:
            self._audit.note("queued", case, more={"destination": self.name})
            self._spool.move(case, "sending", "queued")

    def _failed(self, case: str, arrived: float, message: str) -> None:
        retry = self._config.retry
        failures = self._failures[case] = self._failures.get(case, 0) + 1
        pause = min(retry.first_s * 2 ** min(failures - 1, 30), retry.most_s)
        now = time.monotonic()
        self._not_before[case], self._pause_until, self.problem = now + pause, now + retry.first_s, message
        more = {"destination": self.name, "failures": failures, "pause_s": pause}
        self._audit.note("not-sent", case, "destination", more)
        write_problem(self._spool.folder("sending", case), f"{self.name}: {message}")
        if time.time() - arrived > retry.give_up_days * _SECONDS_A_DAY:
            note_settled(self._spool, case, self.name, GAVE_UP)


def note_settled(spool: Spool, case: str, destination: str, how: str) -> None:
    """Keep what became of a case at a destination."""
    with spool.lock:
        # another destination may have wanted it made again meanwhile
        state: State = "sending" if spool.folder("sending", case).exists() else "queued"
        record = spool.record(state, case)
        spool.write(state, replace(record, settled={**record.settled, destination: how}))


def finish_sent(config: Config, spool: Spool, audit: Audit) -> None:
    """Cases that wait for no destination any more leave ``sending``."""
    for record in spool.records("sending"):
        case = record.id
        with spool.lock:
            record = spool.record("sending", case)
            rule = config.rule(record.rule)
            if rule is None:
                audit.note("failed", case, "no-rule")
                spool.fail(record, "sending", "no-rule", f"there is no rule {record.rule!r} any more")
            elif not set(rule.send) <= record.settled.keys():
                continue
            elif GAVE_UP in record.settled.values():
                audit.note("failed", case, "gave-up")
                spool.fail(record, "sending", "gave-up", "")
            else:
                shutil.rmtree(spool.folder("sending", case) / CT, ignore_errors=True)
                audit.note("done", case)
                spool.move(case, "sending", "done")


def client_context(tls: ClientTls | None) -> ssl.SSLContext | None:
    """Raises `InputError` for a certificate that cannot be used."""
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"tls: the certificate or key cannot be used: {error}") from error
    return context
