"""The node as a whole: its parts, each in a thread, from start to end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from soars.errors import InputError
from soars.node.audit import Audit, Reason
from soars.node.collect import Collector
from soars.node.config import Config
from soars.node.deliver import Deliverer, finish_sent
from soars.node.poll import Poller
from soars.node.receive import Receiver
from soars.node.spool import STATES, Spool
from soars.node.status import Snapshot, StatusServer
from soars.node.work import Work
from soars.staging import keep_no_account

log = logging.getLogger(__name__)

STEP_S = 0.25
"""Between two looks of a part at the disk."""
_LAST_STEP_S = 0.2
"""For a part to end the step that it is in; one that talks to a peer is not waited for longer."""
_USED_EVERY_S = 30.0
_CLEAN_EVERY_S = 3600.0
_GB, _MB = 10**9, 10**6


class Node:
    """A running node. Raises `InputError` when it cannot start."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spool = Spool(config.state)
        try:
            self._begin(config)
        except BaseException:
            self.spool.close()
            raise

    def _begin(self, config: Config) -> None:
        self.audit = Audit(config.state / "audit")
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._disk_full = False
        self._used, self._used_at = self.spool.used_bytes(), time.monotonic()
        self._cleaned_at = -_CLEAN_EVERY_S
        self.receiver = Receiver(
            config.listen, self.spool, self.audit, self.room, int(config.limits.image_mb * _MB)
        )
        self.work = Work(config, self.spool, self.audit, self._stop)
        self._collector = Collector(
            config, self.spool, self.audit, self.receiver.quiet_s, self.receiver.forget, self.work.is_busy
        )
        self._deliverers = [Deliverer(name, config, self.spool, self.audit) for name in config.destinations]
        self._pollers = [Poller(name, config, self.spool, self.audit, self.room) for name in config.poll]
        self._parts = [
            _Part("collect", self._collect, self._stop),
            _Part("work", self.work.step, self._stop),
            *(_Part(f"deliver-{one.name}", one.step, self._stop) for one in self._deliverers),
            *(_Part(f"poll-{one.name}", one.step, self._stop) for one in self._pollers),
        ]
        self.receiver.start()
        try:
            self._status = StatusServer(config.status, self.snapshot) if config.status.port else None
        except InputError:
            self.receiver.stop()
            raise
        self.audit.note("started")
        for part in self._parts:
            part.start()

    def run(self) -> None:
        """Until a part fails with an error of the program, which is raised, or this thread is interrupted."""
        while True:
            for part in self._parts:
                if part.fault is not None:
                    raise part.fault
            time.sleep(STEP_S)

    def stop(self) -> None:
        """Take no more and end; what was begun goes on at the next start."""
        self._stop.set()
        self.audit.note("stopped")
        self.work.close()
        stopping = [threading.Thread(target=self.receiver.stop)]
        if self._status is not None:
            stopping.append(threading.Thread(target=self._status.stop))
        for each in stopping:  # each waits up to half a second
            each.start()
        for each in stopping:
            each.join()
        for part in self._parts:
            part.join(_LAST_STEP_S)
        if not any(part.is_alive() for part in self._parts):  # else the lock is freed with the process
            self.spool.close()

    def room(self, key: str, size: int) -> Reason:
        """Why a series cannot have an image of this size, or ""; one that has begun is not stopped by the queue."""
        limits = self.config.limits
        full = (
            self._used + size > limits.disk_gb * _GB or self.spool.free_bytes() - size < limits.free_gb * _GB
        )
        self._disk_full = full
        if full:
            return "disk-full"
        self._used += size
        if not self.spool.folder("receiving", key).exists():
            waiting = len(self.spool.cases("receiving")) + len(self.spool.cases("queued"))
            if waiting >= limits.cases:
                return "queue-full"
        return ""

    def snapshot(self) -> Snapshot:
        problems = [f"part {part.name}: {part.problem}" for part in self._parts if part.problem]
        if self._disk_full:
            problems.append("the disk is full; images are refused")
        if self.work.problem == "disk-full":
            problems.append("the disk is full; cases wait")
        elif self.work.problem:
            problems.append("the bundle or the engine of a rule cannot be used; its cases wait")
        peers = [f"destination {one.name} does not take results" for one in self._deliverers if one.problem]
        peers += [f"archive {one.name} does not give its CTs" for one in self._pollers if one.problem]
        return Snapshot(
            cases={state: len(self.spool.cases(state)) for state in STATES},
            events=dict(self.audit.counts),
            problems=tuple(problems),
            waits_for=tuple(peers),
            associations=self.receiver.associations,
            used_bytes=self._used,
            free_bytes=self.spool.free_bytes(),
            segmented=self.work.count,
            segment_seconds=self.work.seconds,
            uptime_s=time.monotonic() - self._began,
        )

    def _collect(self) -> None:
        self.receiver.close_ended()
        self._collector.step()
        finish_sent(self.config, self.spool, self.audit)
        now = time.monotonic()
        if now - self._cleaned_at > _CLEAN_EVERY_S:
            self._collector.clean()
            self._cleaned_at = now
        if now - self._used_at > _USED_EVERY_S or self._disk_full:
            self._used, self._used_at = self.spool.used_bytes(), now
            limits = self.config.limits
            self._disk_full = (
                self._used > limits.disk_gb * _GB or self.spool.free_bytes() < limits.free_gb * _GB
            )


class _Part(threading.Thread):
    """Repeats a step. What the disk or the network is to blame for is tried again; any other error ends the node, whose
    supervisor starts it anew: nothing is lost by that."""

    def __init__(self, name: str, step: Callable[[], None], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._step, self._stop_event = step, stop
        self.problem = ""
        self.fault: Exception | None = None

    def run(self) -> None:
        while not self._stop_event.wait(STEP_S):
            try:
                self._step()
                self.problem = ""
            except (InputError, OSError) as error:
                if not self.problem:
                    log.warning("%s: %s", self.name, type(error).__name__)
                    log.debug("%s: %s", self.name, error)
                self.problem = "cannot read or write its files; is the disk full?"
            except Exception as error:
                self.fault = error
                return


def serve(config: Config, started: Callable[[Node], None] = lambda node: None) -> None:
    """Run a node until this thread is interrupted. Raises `InputError` when it cannot start."""
    keep_no_account()
    node = Node(config)
    try:
        started(node)
        node.run()
    finally:
        node.stop()
