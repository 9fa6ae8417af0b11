"""Fetching new CTs from an archive by DICOMweb: the other way in, for archives that do not send by themselves."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from datetime import date, timedelta

from soars.archive.web import SeriesEntry, fetch_series, find_series
from soars.errors import InputError
from soars.files import write_json
from soars.node.audit import Audit, Reason
from soars.node.config import Config
from soars.node.rules import ARCHIVE, CALLED, CALLING, holds
from soars.node.spool import Origin, Spool

_A_SLICE = 1 << 20
"""Bytes for which there must be room for each image of a series, before they are known."""


class Poller:
    """Asks one archive. A series is fetched when the archive has listed it twice with the same number of images, once;
    again only when it has more of them."""

    def __init__(
        self, name: str, config: Config, spool: Spool, audit: Audit, room: Callable[[str, int], Reason]
    ) -> None:
        self.name = name
        self._config, self._spool, self._audit, self._room = config, spool, audit, room
        self._settings = config.poll[name]
        self._node = self._settings.node(name)
        self._seen = spool.home / "polled" / name
        self._seen.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._counts: dict[str, int | None] = {}
        self._not_before = 0.0
        self.problem = ""

    def step(self) -> None:
        """Ask, when it is time, and fetch what is new."""
        if time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + self._settings.every_s
        since = (date.today() - timedelta(days=self._settings.days)).strftime("%Y%m%d")
        try:
            listed = find_series(self._node, since=since)
            problem = ""
        except InputError as error:
            listed, problem = [], str(error)
        for entry in listed:
            try:
                self._consider(entry)
            except InputError as error:  # one series that cannot be fetched must not keep the others
                problem = str(error)
        if problem and not self.problem:
            self._audit.note("not-polled", reason="archive", more={"archive": self.name})
        elif not problem:
            self._forget_others({self._spool.pseudonym(entry.series_uid) for entry in listed})
        self.problem = problem

    def _consider(self, entry: SeriesEntry) -> None:
        key = self._spool.pseudonym(entry.series_uid)
        count = entry.instances
        before = self._counts.get(key, -1)
        self._counts[key] = count
        mark = self._seen / f"{key}.json"
        if (mark.exists() and mark.read_text().strip() == str(count)) or before != count:
            return
        known = {
            "Modality": "CT",
            "SeriesDescription": entry.description,
            "PatientID": entry.patient_id,
            "StudyDate": entry.date,
            ARCHIVE: self.name,
            CALLED: "",
            CALLING: "",
        }
        known = {name: value for name, value in known.items() if value or name in (CALLED, CALLING)}
        wanted = any(holds(rule.conditions, known, unknown=True) for rule in self._config.rules)
        if not wanted:
            return  # nothing is noted: after a restart another rule may be for it
        if self._room(key, (count or 0) * _A_SLICE):
            return  # tried again at the next poll
        self._fetch(entry, key)
        write_json(mark, count)

    def _fetch(self, entry: SeriesEntry, key: str) -> None:
        folder = self._spool.home / "incoming" / uuid.uuid4().hex
        try:
            fetch_series(self._node, entry.study_uid, entry.series_uid, folder)
            self._spool.admit(folder, entry.series_uid, Origin(archive=self.name))
            self._audit.note("polled", key, more={"archive": self.name})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _forget_others(self, listed: set[str]) -> None:
        """Series that are too old to be listed."""
        for key in self._counts.keys() - listed:
            del self._counts[key]
        for mark in self._seen.glob("*.json"):
            if mark.stem not in listed:
                mark.unlink(missing_ok=True)
