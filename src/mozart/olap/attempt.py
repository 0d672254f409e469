"""One attempt to refresh one view: history row, lock, decision, work, outcome.

The history row `started` is committed first, so that a killed attempt leaves a trace. Everything else is one
transaction under REPEATABLE READ: the view's advisory lock, the checks, the work, the new generation and the history's
outcome are committed together or not at all. The lock belongs to the transaction, so no death of a client, a backend or
a pooler can leave it held.

Pitfall: the snapshot is older than the lock by a moment. The state row is locked too (`FOR UPDATE`); when somebody
committed in that moment PostgreSQL raises a serialization failure and the attempt is made again.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors as pg

from mozart.errors import ConfigurationError, MozartError
from mozart.olap.database import STATE_SCHEMA, Connection, OlapDatabase, transaction, translate
from mozart.olap.model import Strategy, View
from mozart.olap.state_schema import NOT_APPLIED
from mozart.sql import quote_identifier, quote_qualified

_SCHEMA = quote_identifier(STATE_SCHEMA)
_TRIES = 6
LOCK_WAIT = "5s"

LOCK_KEY = "hashtextextended('mv:' || %s, 0)"


@dataclass(frozen=True)
class Request:
    """Who wants what: `interval_seconds` None means at any time; `sync_id` is the full sync it belongs to.

    `asked_at` is when a run was asked for because data changed; None asks for a refresh whatever happened since.
    """

    view: View
    kind: str
    interval_seconds: float | None = None
    run_id: str | None = None
    sync_id: int | None = None
    note: str | None = None
    asked_at: datetime | None = None

    @property
    def is_full(self) -> bool:
        return self.kind == "full"


@dataclass(frozen=True)
class LockedState:
    """The view's state row, held until the transaction ends."""

    strategy: Strategy
    definition_hash: str
    generation: int
    row_count: int
    keyed_sources: list[str]
    key_type: str | None
    server_identity: str
    source_signature: str
    recompute_reason: str | None
    ms_per_key: float | None
    recompute_ms: float | None
    seconds_since_refresh: float | None
    is_paused: bool
    is_done_in_sync: bool
    is_answered: bool


@dataclass(frozen=True)
class Work:
    """What a strategy did. `reason` says why it computed everything; the milliseconds are what it learned."""

    rows: int
    changed_rows: int | None = None
    drift_rows: int | None = None
    reason: str | None = None
    ms_per_key: float | None = None
    recompute_ms: float | None = None
    signature: str = ""
    identity: str = ""


@dataclass(frozen=True)
class Outcome:
    """The history's row when the attempt ended. Times UTC, as the database's clock has them."""

    status: str
    reason: str | None
    strategy: Strategy
    rows: int | None
    changed_rows: int | None
    drift_rows: int | None
    generation: int
    lag_seconds: float | None
    started_at: datetime
    finished_at: datetime


def open_attempt(connection: Connection, request: Request) -> int:
    """Commit a `started` row; returns its id."""
    row = connection.execute(
        f"INSERT INTO {_SCHEMA}.refresh_history (view, kind, strategy, run_id, sync_id)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING id".encode(),
        (request.view.name, request.kind, request.view.strategy, request.run_id, request.sync_id),
    ).fetchone()
    return int(row[0]) if row else 0


@contextlib.contextmanager
def view_transaction(
    connection: Connection, view: View, source_schema: str, *, repeatable_read: bool = True
) -> Generator[None]:
    """The transaction of one refresh, with its limits and the OLTP tables locked against DDL before the snapshot."""
    settings = {
        "lock_timeout": LOCK_WAIT,
        "statement_timeout": f"{int(view.timeout_seconds * 1000)}ms",
        # A stopped client may not hold the view, and a killed one must be noticed while a query runs.
        "idle_in_transaction_session_timeout": "60s",
        "client_connection_check_interval": "1s",
        "work_mem": "64MB",
        # A few hundred keys are looked up by index; the default makes the planner read whole tables instead.
        "random_page_cost": "1.1",
        "maintenance_work_mem": "256MB",
    }
    tables = [quote_qualified(source_schema, table) for table in view.sources]
    with transaction(
        connection,
        repeatable_read=repeatable_read,
        settings=settings,
        search_path=(source_schema, "pg_catalog", "pg_temp"),
        lock_shared=tables,
    ):
        yield


def try_lock(connection: Connection, view_name: str) -> bool:
    """Take the view's lock for the rest of the transaction, without waiting."""
    row = connection.execute(f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})".encode(), (view_name,)).fetchone()
    return bool(row and row[0])


def lock_state(connection: Connection, request: Request) -> LockedState:
    """Lock and read the view's state row; ConfigurationError when the view is not installed as its folder says."""
    view = request.view
    values: Any = {"view": view.name, "sync": request.sync_id, "asked_at": request.asked_at}
    row = connection.execute(_LOCK_STATE, values).fetchone()
    if row is None:
        raise ConfigurationError(f"view {view.name} is not installed; run `mozart olap install`")
    found: Any = row
    state = LockedState(*found)
    if state.definition_hash != view.definition_hash or state.strategy != view.strategy:
        raise ConfigurationError(f"views/{view.name} differs from what is installed; run `mozart olap install`")
    return state


def close_completed(connection: Connection, attempt: int, request: Request, work: Work) -> Outcome:
    """Write generation, cursor, figures and the history's outcome; the caller commits."""
    values: dict[str, Any] = {
        "id": attempt,
        "view": request.view.name,
        "rows": work.rows,
        "changed": work.changed_rows,
        "drift": work.drift_rows,
        "reason": work.reason or request.note,
        "ms_per_key": work.ms_per_key,
        "recompute_ms": work.recompute_ms,
        "signature": work.signature,
        "identity": work.identity,
    }
    return _outcome(connection.execute(_COMPLETE, values).fetchone())


def close_skipped(connection: Connection, attempt: int, request: Request, reason: str, *, again: bool) -> Outcome:
    """Write the reason, and with `again` ask durably for the refresh that did not happen; the caller commits."""
    if again:
        connection.execute(
            f"INSERT INTO {_SCHEMA}.dirty_mark (view, reason, since) VALUES (%s, %s, clock_timestamp())".encode(),
            (request.view.name, f"skipped: {reason}"),
        )
    return _outcome(connection.execute(_SKIP, {"id": attempt, "reason": reason}).fetchone())


def close_failed(
    database: OlapDatabase, attempt: int, request: Request, error: psycopg.Error | MozartError
) -> Outcome | None:
    """Record a failure on a connection of its own; returns the outcome when the attempt had in truth committed."""
    reason = str(failure(error, request.view.name))[:1000]
    with contextlib.suppress(MozartError, psycopg.Error), closing(database.connect()) as connection:
        if connection.execute(_FAIL, {"id": attempt, "reason": reason}).rowcount == 0:
            row = connection.execute(_READ, {"id": attempt}).fetchone()
            return Outcome(*row) if row else None
        broken = _breaks_increments(error)
        if broken:
            connection.execute(
                f"UPDATE {_SCHEMA}.view_state SET recompute_reason = %s WHERE name = %s".encode(),
                (broken, request.view.name),
            )
    return None


def with_retries(connection: Connection, action: Any) -> Any:
    """Run `action()`, again after a serialization failure or a deadlock, each a new transaction."""
    for left in reversed(range(_TRIES)):
        try:
            return action()
        except (pg.SerializationFailure, pg.DeadlockDetected):
            if not left or connection.closed:
                raise
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - spreads refreshers, guards nothing
    raise AssertionError("unreachable")


def failure(error: psycopg.Error | MozartError, view: str) -> MozartError:
    """The error to raise for a failed attempt."""
    return error if isinstance(error, MozartError) else translate(error, f"refresh of {view}")


def _breaks_increments(error: BaseException) -> str | None:
    """Why the next refresh must compute everything: the kept contributions do not fit the view any more."""
    cause = error.__cause__ or error
    return "a difference could not be applied" if isinstance(cause, psycopg.IntegrityError) else None


def _outcome(row: tuple[Any, ...] | None) -> Outcome:
    if row is None:
        raise ConfigurationError("the history lost the row of this attempt; run `mozart olap install`")
    return Outcome(*row)


_LOCK_STATE = f"""
SELECT s.strategy, s.definition_hash, s.generation, coalesce(s.row_count, 0), s.keyed_sources, s.key_type,
    s.server_identity, s.source_signature, s.recompute_reason, s.ms_per_key, s.recompute_ms,
    extract(epoch FROM clock_timestamp() - s.last_refreshed_at)::float8,
    EXISTS (SELECT FROM {_SCHEMA}.paused_view p WHERE p.view = s.name),
    EXISTS (SELECT FROM {_SCHEMA}.refresh_history h WHERE h.sync_id = %(sync)s AND h.view = s.name
        AND h.status = 'completed'),
    EXISTS (SELECT FROM {_SCHEMA}.refresh_history h WHERE h.view = s.name AND h.status = 'completed'
            AND h.started_at >= %(asked_at)s::timestamptz)
        AND s.recompute_reason IS NULL
        AND NOT EXISTS (SELECT FROM {_SCHEMA}.dirty_mark d WHERE d.view = s.name)
        AND NOT EXISTS (SELECT FROM {NOT_APPLIED})
FROM {_SCHEMA}.view_state s WHERE s.name = %(view)s FOR UPDATE OF s
""".encode()

_RETURNING = """RETURNING h.status, h.reason, h.strategy, h.rows, h.changed_rows, h.drift_rows,
    coalesce(h.generation, (SELECT v.generation FROM mozart.view_state v WHERE v.name = h.view), 0), h.lag_seconds,
    h.started_at, h.finished_at"""

# The oldest change is looked up before the cursor moves on; clock_timestamp() is the commit's time but for its flush.
_COMPLETE = f"""
WITH before AS (
    SELECT least(
        (SELECT min(l.changed_at) FROM {NOT_APPLIED}),
        (SELECT min(d.since) FROM {_SCHEMA}.dirty_mark d WHERE d.view = s.name)) AS oldest
    FROM {_SCHEMA}.view_state s WHERE s.name = %(view)s),
answered AS (DELETE FROM {_SCHEMA}.dirty_mark WHERE view = %(view)s),
moved AS (
    UPDATE {_SCHEMA}.view_state SET generation = generation + 1, row_count = %(rows)s, snapshot = pg_current_snapshot(),
        last_refreshed_at = clock_timestamp(), source_signature = %(signature)s, recompute_reason = NULL,
        ms_per_key = coalesce(%(ms_per_key)s, ms_per_key), recompute_ms = coalesce(%(recompute_ms)s, recompute_ms),
        last_duration_ms = extract(epoch FROM clock_timestamp()
            - (SELECT started_at FROM {_SCHEMA}.refresh_history WHERE id = %(id)s)) * 1000,
        server_identity = %(identity)s
    WHERE name = %(view)s RETURNING generation)
UPDATE {_SCHEMA}.refresh_history h SET status = 'completed', finished_at = clock_timestamp(), rows = %(rows)s,
    changed_rows = %(changed)s, drift_rows = %(drift)s, reason = %(reason)s,
    generation = (SELECT generation FROM moved),
    lag_seconds = extract(epoch FROM clock_timestamp() - (SELECT oldest FROM before))::float8
WHERE h.id = %(id)s {_RETURNING}
""".encode()

_SKIP = f"""
UPDATE {_SCHEMA}.refresh_history h SET status = 'skipped', reason = %(reason)s, finished_at = clock_timestamp()
WHERE h.id = %(id)s {_RETURNING}
""".encode()

# The update waits for a commit that is still under way and then finds the row closed.
_FAIL = f"""
UPDATE {_SCHEMA}.refresh_history h SET status = 'failed', reason = %(reason)s, finished_at = clock_timestamp()
WHERE h.id = %(id)s AND h.status IN ('started', 'killed')
""".encode()

_READ = f"""
SELECT h.status, h.reason, h.strategy, h.rows, h.changed_rows, h.drift_rows, coalesce(h.generation, 0),
    h.lag_seconds, h.started_at, coalesce(h.finished_at, clock_timestamp())
FROM {_SCHEMA}.refresh_history h WHERE h.id = %(id)s AND h.status = 'completed'
""".encode()
