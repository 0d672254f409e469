"""The outbox relay: committed rows of `event_outbox` into the event stream, at least once, by as many relays as run.

A batch is locked (rows that another relay holds are skipped), appended to the stream, marked as published and
committed, in this order: a relay that is killed in between publishes again, and no event is lost. The relay polls; it
needs no session state, so it works through a transaction pooler, and writers pay nothing for it.

Does not delete published rows (their table belongs to the application) and keeps no order between relays: events are
hints, and their readers take them in any order, more than once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from mozart.errors import TransientError
from mozart.olap.database import OlapDatabase
from mozart.olap.event_stream import EventStream, OutboxEvent
from mozart.sql import quote_qualified

OUTBOX = "event_outbox"
BATCH = 1000
POLL_SECONDS = 0.2
REPORT_SECONDS = 30.0

_LONGEST_WAIT = 5.0
_FULL = 0.9

Log = Callable[[str], None]


@dataclass(frozen=True)
class OutboxLag:
    """Events that are committed and not published: how many, and the age of the oldest in seconds (0 when none)."""

    unpublished: int
    oldest_seconds: float


class OutboxRelay:
    """One relay. Safe beside others, safe to kill at any point."""

    def __init__(
        self, database: OlapDatabase, stream: EventStream, *, batch: int = BATCH, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._database = database
        self._stream = stream
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._outbox = quote_qualified(database.source_schema, OUTBOX)
        self.published = 0

    def relay_batch(self, connection: psycopg.Connection) -> int:
        """Publish up to a batch of events; how many. Nothing is marked as published when Redis did not take it."""
        with connection.transaction():
            rows = connection.execute(
                f"SELECT id, topic, payload::text, created_at::text FROM {self._outbox} WHERE published_at IS NULL"
                " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED".encode(),
                [self._batch],
            ).fetchall()
            if not rows:
                return 0
            self._stream.publish([OutboxEvent(*row) for row in rows])
            connection.execute(
                f"UPDATE {self._outbox} SET published_at = clock_timestamp() WHERE id = ANY(%s)".encode(),
                [[row[0] for row in rows]],
            )
        self.published += len(rows)
        return len(rows)

    def drain(self, connection: psycopg.Connection) -> int:
        """Publish all that is there now; how many. Stops early when the stream is full."""
        self._stream.ensure()
        total = 0
        while self._has_room() and (count := self.relay_batch(connection)):
            total += count
        return total

    def lag(self, connection: psycopg.Connection) -> OutboxLag:
        """How far the outbox is ahead of the stream."""
        row = connection.execute(
            "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)"
            f" FROM {self._outbox} WHERE published_at IS NULL".encode()
        ).fetchone()
        return OutboxLag(int(row[0]), max(0.0, float(row[1]))) if row else OutboxLag(0, 0.0)

    def run(self, stop: threading.Event, log: Log, ready: Callable[[], None] = lambda: None) -> None:
        """Relay until `stop` is set. A lost database or Redis is waited for; what is refused for good is raised."""
        failures = 0
        while not stop.is_set():
            try:
                with self._database.connect(autocommit=True) as connection:
                    self._stream.ensure()
                    log(f"relaying {self._outbox} to {self._stream.name} at {self._stream.server}")
                    failures = 0
                    ready()
                    self._serve(connection, stop, log)
            except (psycopg.OperationalError, TransientError) as error:
                failures += 1
                if failures == 1:
                    log(f"waiting: {' '.join(str(error).split())}")
                stop.wait(min(self._poll_seconds * 2**failures, _LONGEST_WAIT))

    def _serve(self, connection: psycopg.Connection, stop: threading.Event, log: Log) -> None:
        reported, told = time.monotonic(), self.published
        while not stop.is_set():
            count = self.relay_batch(connection) if self._has_room() else 0
            if time.monotonic() - reported >= REPORT_SECONDS:
                lag = self.lag(connection)
                if lag.unpublished or self.published > told:
                    log(f"{self.published} events published, {lag.unpublished} to go, lag {lag.oldest_seconds:.1f} s")
                reported, told = time.monotonic(), self.published
            if count < self._batch:
                stop.wait(self._poll_seconds)

    def _has_room(self) -> bool:
        """Whether the stream may grow without trimming what nobody has acknowledged; the outbox keeps the rest."""
        return self._stream.backlog() < _FULL * self._stream.longest
