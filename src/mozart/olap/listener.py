"""The listener: events of the stream into dirty marks, and a quiet moment later into one announcement per view.

The order is what makes it safe: the mark is committed in PostgreSQL, then the entry is acknowledged. From then on
everything is latency: the window of a view is in memory, and if it is lost with this process, another listener's start
or the sweep finds the mark. What cannot be understood goes to the dead letters with the reason.

At the end of a window the view is announced (`Announce`, the Prefect event in production) and left for a while to the
run that this starts; after that, or when the announcement failed, the sweep does the work. Several listeners share the
stream; who announces a view is settled by a short claim in Redis, and a view that is fresh by then is not announced.

Does not refresh anything itself, and knows no Prefect.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg

from mozart.errors import MozartError, TransientError
from mozart.olap.database import STATE_SCHEMA, Connection, OlapDatabase
from mozart.olap.debounce import Debouncer
from mozart.olap.event_stream import Entry, EventStream
from mozart.olap.model import View
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import ViewState, mark_dirty, read_states
from mozart.olap.sweep import EVENT_MARK, GRACE_SECONDS, Handover
from mozart.sql import quote_qualified

BATCH = 1000
MOST_DELIVERIES = 5
RECLAIM_IDLE_SECONDS = 30.0

_LONGEST_BLOCK = 0.5
_GATHER_SECONDS = 0.2
_UPKEEP_SECONDS = 5.0
_TURN_SECONDS = 5.0
_TURN_PAUSE = 0.5
_LONGEST_WAIT = 5.0
_REPORT_SECONDS = 30.0
# A window is counted from the event's own time, for the way here took some of the quiet; no more than this share of it,
# for clocks may differ, a long transaction's event is older than its commit, and a backlog's events are not the last.
_SHARE_OF_THE_WAY = 0.05

Log = Callable[[str], None]


@dataclass(frozen=True)
class Announcement:
    """A view whose data changed, and how many events said so (0: a mark that an earlier listener left)."""

    view: str
    events: int


Announce = Callable[[Announcement], None]
"""Tells the world that a view should be refreshed. Raises TransientError when nobody could be told."""


@dataclass
class _Batch:
    """Entries read and not yet acknowledged, by what is to become of them."""

    known: list[Entry] = field(default_factory=list[Entry])
    dead: list[tuple[Entry, str]] = field(default_factory=list[tuple[Entry, str]])
    events: Counter[str] = field(default_factory=Counter[str])
    since: dict[str, datetime] = field(default_factory=dict[str, datetime])
    newest: dict[str, datetime] = field(default_factory=dict[str, datetime])

    @property
    def size(self) -> int:
        return len(self.known) + len(self.dead)

    def take(self, entry: Entry, registry: ViewRegistry) -> None:
        """Sort one entry in. An entry that keeps coming back is marked all the same, then put aside."""
        views, made_at, problem = read_event(entry.fields, registry)
        if entry.deliveries > MOST_DELIVERIES and not problem:
            problem = f"given out {entry.deliveries} times and never acknowledged"
        if problem:
            self.dead.append((entry, problem))
        else:
            self.known.append(entry)
        for view in views:
            self.events[view.name] += 1
            self.since[view.name] = min(made_at, self.since.get(view.name, made_at))
            self.newest[view.name] = max(made_at, self.newest.get(view.name, made_at))


def read_event(fields: Mapping[str, str], registry: ViewRegistry) -> tuple[tuple[View, ...], datetime, str | None]:
    """The views an entry touches, when the event was made, and what is wrong with it (None: nothing)."""
    now = datetime.now(UTC)
    topic = fields.get("topic")
    if not topic:
        return (), now, "malformed: it has no topic"
    views = registry.of_event(topic)
    if not views:
        return (), now, f"unknown topic {topic!r}: no view's file names it under events"
    try:
        payload = json.loads(fields.get("payload", ""))
    except ValueError:
        return (), now, "malformed: its payload is no JSON"
    if not isinstance(payload, dict):
        return (), now, "malformed: its payload is no JSON object"
    return views, min(_moment(fields.get("created_at"), now), now), None


def _moment(text: str | None, otherwise: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return otherwise
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class EventListener:
    """One listener. Safe beside others, safe to kill at any point. `views` gives the registry where it may change."""

    def __init__(
        self,
        database: OlapDatabase,
        registry: ViewRegistry,
        stream: EventStream,
        announce: Announce,
        *,
        handover: Handover | None = None,
        grace_seconds: float = GRACE_SECONDS,
        reclaim_idle_seconds: float = RECLAIM_IDLE_SECONDS,
        consumer: str | None = None,
        views: Callable[[], ViewRegistry] | None = None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._views = views or (lambda: registry)
        self._stream = stream
        self._announce = announce
        self._handover = handover or Handover()
        self._grace_seconds = grace_seconds
        self._reclaim_idle_seconds = reclaim_idle_seconds
        self.consumer = consumer or f"{socket.gethostname()}-{os.getpid()}"
        self.debouncer = Debouncer()
        self.handled = 0
        self._identity = ""
        self._batch = _Batch()

    def run(self, stop: threading.Event, log: Log, ready: Callable[[], None] = lambda: None) -> None:
        """Listen until `stop` is set. A lost database or Redis is waited for; what is refused for good is raised."""
        failures = 0
        while not stop.is_set():
            try:
                with self._database.connect() as connection:
                    self._begin(connection)
                    log(f"listening to {self._stream.name} at {self._stream.server} as {self.consumer}")
                    failures = 0
                    ready()
                    self._serve(connection, stop, log)
            except (psycopg.OperationalError, TransientError) as error:
                failures += 1
                if failures == 1:
                    log(f"waiting: {' '.join(str(error).split())}")
                stop.wait(min(0.2 * 2**failures, _LONGEST_WAIT))
                self._end_windows_without_redis(log)
        self._retire()

    # -- the loop -----------------------------------------------------------------------------------------------

    def _begin(self, connection: Connection) -> None:
        self._stream.ensure()
        self.check_identity(connection)
        self.handle(connection, self._batch)  # what was read before the database or Redis went away
        known = {view.name for view in self._registry.views}
        for state in read_states(connection):
            # A mark that this process knows nothing of: of a listener that is gone, or of a lost stream.
            if (
                state.name in known
                and state.dirty_since
                and not state.paused
                and state.name not in self.debouncer.windows
            ):
                self._count(state.name, 0)

    def _serve(self, connection: Connection, stop: threading.Event, log: Log) -> None:
        upkeep = reported = time.monotonic()
        told = self.handled
        while not stop.is_set():
            batch = self._gather(stop)
            if time.monotonic() - upkeep >= min(_UPKEEP_SECONDS, self._reclaim_idle_seconds):
                self._registry = self._views()
                self.check_identity(connection)
                for entry in self._stream.reclaim(self.consumer, self._reclaim_idle_seconds, BATCH):
                    batch.take(entry, self._registry)
                upkeep = time.monotonic()
            self.handle(connection, batch)
            self.end_windows(connection, log)
            if time.monotonic() - reported >= _REPORT_SECONDS:
                reported = time.monotonic()
                told = self._report(told, log)

    def _gather(self, stop: threading.Event) -> _Batch:
        """Entries of a short while, so that a steady stream costs a few marks a second and not one an event."""
        batch = self._batch = _Batch()
        first = 0.0
        while not stop.is_set() and batch.size < BATCH:
            left = self.debouncer.seconds_to_next(time.monotonic())
            block = min(_LONGEST_BLOCK, _LONGEST_BLOCK if left is None else left)
            if batch.size:
                block = first + _GATHER_SECONDS - time.monotonic()
                if block <= 0:
                    break
            entries = self._stream.read(self.consumer, BATCH, block)
            if not entries and not batch.size:
                break
            first = first or time.monotonic()
            for entry in entries:
                batch.take(entry, self._registry)
        return batch

    def handle(self, connection: Connection, batch: _Batch) -> None:
        """Commit the marks, then acknowledge; killed in between, the entries come again."""
        if not batch.size:
            return
        with connection.transaction():
            for view, since in sorted(batch.since.items()):
                mark_dirty(connection, view, reason=f"{EVENT_MARK}s: {batch.events[view]}", since=since)
        self._stream.acknowledge(batch.known)
        for entry, reason in batch.dead:
            self._stream.dead_letter(entry, reason)
        self.handled += batch.size
        now = datetime.now(UTC)
        for view, events in batch.events.items():
            self._count(view, events, way=(now - batch.newest[view]).total_seconds())
        self._batch = _Batch()

    def _count(self, name: str, events: int, *, way: float = 0.0) -> None:
        """Count events of the view, the newest of which took `way` seconds to get here."""
        if not self._knows(name):
            return
        view = self._registry.get(name)
        self.debouncer.add(
            name,
            time.monotonic() - min(max(way, 0.0), _SHARE_OF_THE_WAY * view.debounce_seconds),
            quiet=view.debounce_seconds,
            longest=view.debounce_max_wait_seconds,
            events=events,
        )
        self._handover.open(name, view.debounce_max_wait_seconds + self._grace_seconds)

    # -- the end of a window ------------------------------------------------------------------------------------

    def end_windows(self, connection: Connection, log: Log) -> None:
        """Announce the views whose window has ended and that are still to be refreshed."""
        due = self.debouncer.due(time.monotonic())
        if not due:
            return
        states = {state.name: state for state in read_states(connection)}
        for view in due:
            self._end_window(view, states.get(view), log)

    def _end_window(self, name: str, state: ViewState | None, log: Log) -> None:
        if not self._knows(name) or state is None or not state.installed or state.paused or not _is_changed(state):
            self.debouncer.close(name)
            self._handover.forget(name)
            return
        now = time.monotonic()
        wait = _seconds_to_interval(self._registry.get(name), state)
        if wait > 0:
            self.debouncer.postpone(name, now + wait)
            self._handover.open(name, wait + self._grace_seconds)
        elif not self._has_turn(name):
            self.debouncer.postpone(name, now + _TURN_PAUSE)
        else:
            self._announce_now(name, state, log)

    def _knows(self, name: str) -> bool:
        """Whether the view is still in `views/`; one that left while its window was open is nobody's any more."""
        return any(view.name == name for view in self._registry.views)

    def _announce_now(self, name: str, state: ViewState, log: Log) -> None:
        window = self.debouncer.close(name)
        try:
            self._announce(Announcement(name, window.events))
        except TransientError as error:
            log(f"{name}: not announced ({error}); the sweep refreshes it")
            self._handover.promise(name, state.last_refreshed_at, 0)
        else:
            log(f"{name}: announced after {window.events} events in {window.last - window.first:.1f} s")
            self._handover.promise(name, state.last_refreshed_at, self._grace_seconds)

    def _has_turn(self, name: str) -> bool:
        seconds = min(_TURN_SECONDS, self._registry.get(name).debounce_seconds)
        try:
            return seconds <= 0 or self._stream.claim_turn(name, seconds)
        except TransientError:  # alone or not: a refresh too many is better than none
            return True

    def _end_windows_without_redis(self, log: Log) -> None:
        """While Redis is away, windows end all the same."""
        if not self.debouncer.due(time.monotonic()):
            return
        try:
            with self._database.connect() as connection:
                self.end_windows(connection, log)
        except (psycopg.OperationalError, TransientError):
            return

    # -- what Redis may lose ------------------------------------------------------------------------------------

    def check_identity(self, connection: Connection) -> None:
        """Take every view for changed when Redis was restarted, replaced or emptied since a listener last looked.

        Even an append-only file may miss the last second of what Redis acknowledged, and those events are marked as
        published. Which Redis was last seen stands in PostgreSQL, so that it survives this process as well.
        """
        identity = self._stream.identity()
        if identity == self._identity:
            return
        table = quote_qualified(STATE_SCHEMA, "event_stream")
        with connection.transaction():
            # Listeners that start together would make the table together, which IF NOT EXISTS does not bear.
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('mozart:event_stream', 0))")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (name text PRIMARY KEY, identity text NOT NULL,"
                " seen_at timestamptz NOT NULL)".encode()
            )
            row = connection.execute(
                f"SELECT identity FROM {table} WHERE name = %s FOR UPDATE".encode(), [self._stream.name]
            ).fetchone()
            if row is not None and row[0] != identity:
                for view in self._registry.views:
                    if view.events:
                        mark_dirty(connection, view.name, reason=f"{EVENT_MARK}s may be lost: Redis is another one now")
                        self._count(view.name, 0)
            connection.execute(
                f"INSERT INTO {table} VALUES (%s, %s, now()) ON CONFLICT (name)"
                " DO UPDATE SET identity = excluded.identity, seen_at = excluded.seen_at".encode(),
                [self._stream.name, identity],
            )
        self._identity = identity

    def _report(self, told: int, log: Log) -> int:
        status = self._stream.status()
        if self.handled > told or status.backlog:
            log(
                f"{self.handled} events handled, {status.backlog} to go, {status.dead_letters} dead letters,"
                f" {len(self.debouncer.windows)} views waiting"
            )
        return self.handled

    def _retire(self) -> None:
        try:
            self._stream.retire(self.consumer)
        except MozartError:
            return


def _is_changed(state: ViewState) -> bool:
    return state.dirty_since is not None or state.lag_seconds is not None


def _seconds_to_interval(view: View, state: ViewState) -> float:
    """Seconds until the view's minimum interval is over; 0 or less when it is."""
    if state.last_refreshed_at is None:
        return 0.0
    return view.min_interval_seconds - (datetime.now(UTC) - state.last_refreshed_at).total_seconds()
