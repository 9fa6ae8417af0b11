"""From images to cases: when a series is complete, whether it is known already, and which rule is for it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from soars.errors import InputError
from soars.node.audit import Audit, Event, Reason
from soars.node.config import Config, Rule
from soars.node.rules import holds, values_of_most
from soars.node.spool import CT, Record, Spool, State, sha256_of, write_problem

_BROKEN = "the association that sent the series did not end in order"


class Collector:
    """Looks through the series that are being received.

    ``quiet_s`` says for how long nothing has come for a series (None: its association is open), ``is_busy`` whether a
    queued case is being segmented, ``forget`` that a series has left.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        audit: Audit,
        quiet_s: Callable[[str], float | None],
        forget: Callable[[str], None],
        is_busy: Callable[[str], bool],
    ) -> None:
        self._config, self._spool, self._audit = config, spool, audit
        self._quiet_s, self._forget, self._is_busy = quiet_s, forget, is_busy
        self._said: dict[str, tuple[Event, Reason]] = {}
        """What the audit log has of a series that could not leave since, as the disk is full."""

    def step(self) -> None:
        """Settle every series for which it is time. One whose files cannot be read or written keeps no other: what it
        raises, `OSError` or `InputError`, is raised after all have had their turn."""
        problem: OSError | InputError | None = None
        for key in self._spool.cases("receiving"):
            try:
                self._look_at(key)
            except (OSError, InputError) as error:
                problem = error
        if problem is not None:
            raise problem

    def _look_at(self, key: str) -> None:
        announced = self._spool.announced(key)
        if announced is not None and announced <= self._images(key):
            self._settle(key, "", quiet_s=None)
        elif not self._is_quiet(key, self._config.complete.quiet_s):
            return
        elif announced is None and self._spool.is_released(key):
            self._settle(key, "", self._config.complete.quiet_s)
        elif self._is_quiet(key, self._config.complete.give_up_s):
            self._settle(key, "incomplete", self._config.complete.give_up_s)

    def clean(self) -> None:
        """Forget what has been kept long enough."""
        for state, days in (
            ("done", self._config.keep.done_days),
            ("refused", self._config.keep.done_days),
            ("failed", self._config.keep.failed_days),
        ):
            for case in self._spool.expired(state, days):  # type: ignore[arg-type]
                self._spool.remove(state, case)  # type: ignore[arg-type]
                self._audit.note("removed", case, "expired", {"state": state})

    def _is_quiet(self, key: str, seconds: float) -> bool:
        quiet = self._quiet_s(key)
        return quiet is not None and quiet >= seconds

    def _images(self, key: str) -> set[str]:
        """What has come of a series, by name."""
        return {path.name for path in (self._spool.folder("receiving", key) / CT).glob("*.dcm")}

    def _settle(self, key: str, reason: Reason, quiet_s: float | None) -> None:
        """``quiet_s``: for how long nothing must have come; None when it is known that nothing will."""
        folder = self._spool.folder("receiving", key)
        images = {path.name: sha256_of(path) for path in sorted((folder / CT).glob("*.dcm"))}
        with self._spool.lock:
            if self._images(key) != images.keys() or (
                quiet_s is not None and not self._is_quiet(key, quiet_s)
            ):
                return  # more came meanwhile
            announced = self._spool.announced(key)
            if not images:
                if announced:
                    self._audit.note("removed", key, "incomplete", {"images": 0, "announced": len(announced)})
                self._spool.remove("receiving", key)
                self._gone(key)
                return
            if not self._join_earlier(key, folder, images):
                return
            if announced and announced <= images.keys():
                reason = ""  # the rest had come earlier
            missing = self._missing(key, images)
            record = Record(self._new_id(key), self._spool.origin(key), time.time(), images)
            if reason == "incomplete":
                of = f"{len(images)} of {len(announced)} images" if announced else f"{len(images)} images"
                why = "not all images came that were announced" if announced else _BROKEN
                message = f"{why}; {of} came: send the series again"
            elif missing:
                reason = "late-images"
                message = (
                    f"{len(images)} images came after the series had been contoured and its CT removed, without the "
                    f"{missing} others: send the whole series again"
                )
            else:
                self._apply_rules(key, folder, record)
                return
            self._fail(key, record, reason, message)

    def _join_earlier(self, key: str, folder: Path, images: dict[str, str]) -> bool:
        """Add what came earlier of the same series and has led to nothing yet; False when all of it is known."""
        for state, earlier in list(self._spool.of_series(key)):
            case = earlier.id
            if state in ("queued", "sending", "done") and images.items() <= earlier.images.items():
                self._spool.remove("receiving", key)
                self._gone(key)
                self._audit.note("duplicate", case, more={"images": len(images), "state": state})
                return False
        for state, earlier in list(self._spool.of_series(key)):
            case = earlier.id
            for name, sha256 in earlier.images.items():
                source = self._spool.folder(state, case) / CT / name
                if name not in images and source.is_file():
                    os.link(source, folder / CT / name)
                    images[name] = sha256
            if state in ("failed", "refused") or (state == "queued" and not self._is_busy(case)):
                self._spool.remove(state, case)
                self._audit.note("joined", case, more={"state": state})
        return True

    def _missing(self, key: str, images: Mapping[str, str]) -> int:
        """How many images of the series were here and are neither among these nor kept."""
        known = {name for _, earlier in self._spool.of_series(key) for name in earlier.images}
        return len(known - images.keys())

    def _apply_rules(self, key: str, folder: Path, record: Record) -> None:
        images = [folder / CT / name for name in sorted(record.images)]
        keys = {name for rule in self._config.rules for name in rule.conditions}
        try:
            values = values_of_most(images, keys) | asdict(record.origin)
        except InputError as error:
            self._fail(key, record, "unreadable", str(error))
            return
        except Exception as error:  # whatever the parser raises over a damaged file
            self._fail(key, record, "unreadable", f"the header is damaged ({type(error).__name__})")
            return
        rule = matching(self._config.rules, values)
        if rule is None:
            shutil.rmtree(folder / CT, ignore_errors=True)
            self._note(key, "refused", record, "no-rule")
            self._leave(key, record, "refused", reason="no-rule")
            return
        self._note(key, "queued", record, "", {"rule": rule.name, **_came(record)})
        self._leave(key, record, "queued", rule=rule.name)

    def _fail(self, key: str, record: Record, reason: Reason, message: str) -> None:
        write_problem(self._spool.folder("receiving", key), message)
        self._note(key, "failed", record, reason)
        self._leave(key, record, "failed", reason=reason)

    def _note(
        self, key: str, event: Event, record: Record, reason: Reason, more: Mapping[str, str] | None = None
    ) -> None:
        """Say what becomes of a series; once, however often it is tried."""
        if self._said.get(key) != (event, reason):
            self._audit.note(event, record.id, reason, {"images": len(record.images), **(more or {})})
            self._said[key] = event, reason

    def _leave(self, key: str, record: Record, state: State, rule: str = "", reason: Reason = "") -> None:
        self._spool.write("receiving", replace(record, rule=rule, reason=reason), key)
        self._spool.move(key, "receiving", state, record.id)
        self._gone(key)

    def _gone(self, key: str) -> None:
        """A series is no longer among those that are received."""
        self._said.pop(key, None)
        self._forget(key)

    def _new_id(self, key: str) -> str:
        taken = {earlier.id for _, earlier in self._spool.of_series(key)}
        names = (key if number == 1 else f"{key}-{number}" for number in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)


def matching(rules: tuple[Rule, ...], values: Mapping[str, str]) -> Rule | None:
    """The first rule whose conditions all hold."""
    return next((rule for rule in rules if holds(rule.conditions, values)), None)


def _came(record: Record) -> dict[str, str]:
    return {name: value for name, value in asdict(record.origin).items() if value}
