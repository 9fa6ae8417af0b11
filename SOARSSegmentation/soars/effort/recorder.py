"""What happens while a reader edits, turned into records of the effort log.

A recorder belongs to one session and is called from the thread of the user interface. It takes some microseconds a
call, because it is called for every movement of the mouse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from soars.effort.change import OrganChange
from soars.effort.records import ACTS, Event, one_line, validate
from soars.effort.writer import LogWriter

MOVES = frozenset({"move", "tablet", "touch"})
"""Inputs that arrive in streams."""
MOVES_A_SECOND = 5
MOVE_INTERVAL_NS = 250_000_000
"""Shortest time between two recorded moves of a stream; with the stream's last move that makes at most five a
second."""
SECOND_NS = 1_000_000_000
BLOCKED_NS = 1_000_000_000
"""Ticks further apart than this mean that the application did not respond in between."""


class Recorder:
    """Writes the events of a session; ``listener`` gets each one too, for figures on the screen.

    Nothing is recorded after `end`, and no `interaction` while the session is paused.
    """

    def __init__(self, writer: LogWriter, listener: Callable[[Event], None] | None = None) -> None:
        self.writer = writer
        self.paused = False
        self.ended = False
        self._listener = listener
        self._busy = 0
        self._last_record = 0
        self._moves: deque[int] = deque(maxlen=MOVES_A_SECOND)
        self._held_back: Event | None = None
        self._last_tick: int | None = None
        self._restored = 0

    def now(self) -> int:
        """Nanoseconds since the start of the session."""
        return self.writer.now()

    def select(self, organ: str | None) -> None:
        """The reader selects an organ; None: nothing that belongs to the session."""
        self._record("select", organ=organ)

    def interaction(self, kind: str) -> None:
        """The reader used mouse, keyboard, pen or touch; ``kind`` is one of `records.INPUTS`."""
        if self.paused or self.ended:
            return
        now = self.writer.now()
        if kind in MOVES:
            if self._moves and (now - self._moves[-1] < MOVE_INTERVAL_NS or not self._room_for_move(now)):
                if self._held_back is not None and now - self._held_back.t >= SECOND_NS:
                    self._write_held_back()
                self._held_back = Event(now, "interaction", input=kind)
                return
            self._moves.append(now)
        self._record("interaction", now, input=kind)

    def effect(self, name: str | None) -> None:
        self._record("effect", name=name)

    def edit(self, organ: str | None) -> None:
        """Voxels of an organ were edited; None: of a segment that is no organ of the session."""
        self._record("edit", organ=organ)

    def undo(self) -> None:
        self._record("undo")

    def redo(self) -> None:
        self._record("redo")

    @contextmanager
    def busy(self, why: str) -> Iterator[None]:
        """The application computes and the reader waits. May be nested: the outermost counts."""
        if self._busy == 0:
            self._record("busy_begin", why=why)
        self._busy += 1
        try:
            yield
        finally:
            if self._busy == 1:
                self._record("busy_end")
            self._busy -= 1

    def pause(self) -> None:
        if not self.paused:
            self._record("pause")
            self.paused = True

    def resume(self) -> None:
        if self.paused:
            self._record("resume")
            self.paused = False

    def accept(self, organ: str, change: OrganChange) -> None:
        self._record("accept", organ=organ, change=change)
        self.writer.sync()

    def reopen(self, organ: str, cause: str = "reader") -> None:
        """The organ is no longer accepted; ``cause`` is one of `records.REOPEN_CAUSES`."""
        self._record("reopen", organ=organ, cause=cause)

    def view_only(self, on: bool) -> None:
        self._record("view_only", on=on)

    def snapshot(self, organ: str, change: OrganChange) -> None:
        self._record("snapshot", organ=organ, change=change)

    def judge(
        self, organ: str, score: int | None = None, reason: str | None = None, comment: str | None = None
    ) -> None:
        """The reader's judgement of an organ: a score (one of `records.SCORES`) or why it cannot be judged, and a
        comment; texts are made `records.one_line`. `InputError` when that is no judgement."""
        reason, comment = one_line(reason), one_line(comment)
        validate(Event(0, "judge", organ, score=score, reason=reason, comment=comment).to_json())
        self._record("judge", organ=organ, score=score, reason=reason, comment=comment)

    def saved(self, file: str) -> None:
        """A file was written beside the log; ``file`` is its name there."""
        self._record("saved", file=file)

    def tick(self) -> None:
        """Called by a timer several times a second while the session runs.

        It distinguishes a reader who looks at the images without touching anything from an application that was killed,
        and notices when the application did not respond.
        """
        if self.ended:
            return
        now = self.writer.now()
        if self._held_back is not None and now - self._held_back.t >= SECOND_NS:
            self._write_held_back()
        self._notice_block(now)
        if self.writer.restored > self._restored:
            self._restored = self.writer.restored
            self._record("restored", now)
        self._last_tick = now
        if now - self._last_record >= SECOND_NS and not self.paused:
            self._record("alive", now)

    def end(self, cause: str = "finished") -> None:
        """The last record; ``cause`` is one of `records.END_CAUSES`. The log is closed."""
        if self.ended:
            return
        self._record("end", cause=cause)
        self.ended = True
        self.writer.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A session that fails leaves a log without an end, as a crash would: it can be resumed.
        if kind is None:
            self.end()
        else:
            self.ended = True
            self.writer.close()

    def _record(
        self,
        kind: str,
        t: int | None = None,
        *,
        organ: str | None = None,
        input: str | None = None,
        name: str | None = None,
        why: str | None = None,
        since: int | None = None,
        on: bool | None = None,
        cause: str | None = None,
        file: str | None = None,
        change: OrganChange | None = None,
        score: int | None = None,
        reason: str | None = None,
        comment: str | None = None,
    ) -> None:
        if self.ended:
            return
        now = self.writer.now() if t is None else t
        if self._held_back is not None and (kind not in ACTS or now - self._held_back.t >= SECOND_NS):
            self._write_held_back()
        self._held_back = None
        if kind != "blocked":
            self._notice_block(now)
        self._write(
            Event(now, kind, organ, input, name, why, since, on, cause, file, change, score, reason, comment)
        )

    def _write_held_back(self) -> None:
        """Record the last move of a stream: the reader's idle time starts exactly there."""
        held_back, self._held_back = self._held_back, None
        if held_back is not None and self._room_for_move(held_back.t):
            self._moves.append(held_back.t)
            self._write(held_back)

    def _room_for_move(self, t: int) -> bool:
        return len(self._moves) < MOVES_A_SECOND or t - self._moves[0] >= SECOND_NS

    def _notice_block(self, now: int) -> None:
        since = self._last_tick
        if since is None:
            return
        since = max(since, self._last_record)
        if now - since >= BLOCKED_NS and not self._busy and not self.paused:
            self._last_tick = now
            self._record("blocked", now, since=since)

    def _write(self, event: Event) -> None:
        self._last_record = event.t
        self.writer.write(event)
        if self._listener is not None:
            self._listener(event)
