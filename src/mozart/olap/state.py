"""What the database knows about the views: how fresh, what is not applied yet, what was asked for, what happened.

Needs no Redis, no Prefect and no memory of its own: a process that starts anew sees what is due. Functions take a
connection and leave the transaction to the caller; each is one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mozart.errors import ConfigurationError
from mozart.olap.attempt import LOCK_KEY
from mozart.olap.database import STATE_SCHEMA, Connection, transaction
from mozart.olap.identity import server_identity
from mozart.olap.model import Strategy
from mozart.olap.registry import ViewRegistry
from mozart.olap.state_schema import NOT_APPLIED, log_of
from mozart.sql import quote_identifier

_SCHEMA = quote_identifier(STATE_SCHEMA)
HISTORY_DAYS = 90


@dataclass(frozen=True)
class ViewState:
    """One view as the database knows it. `lag_seconds` is the age of the oldest change not applied; None is fresh.

    `last_refreshed_at` is the commit time of the last success of any kind, UTC; `changed_since` when the oldest change
    of the OLTP tables that is not applied was made; `dirty_since` since when a refresh is asked for.
    """

    name: str
    strategy: Strategy
    installed: bool
    paused: bool
    dirty_since: datetime | None
    dirty_reason: str | None
    generation: int
    row_count: int | None
    last_refreshed_at: datetime | None
    last_duration_ms: float | None
    lag_seconds: float | None
    definition_hash: str | None
    changed_since: datetime | None = None
    seconds_since_refresh: float | None = None
    recompute_reason: str | None = None

    @property
    def is_stale(self) -> bool:
        """Whether there is anything that a refresh would bring in."""
        return self.lag_seconds is not None or self.dirty_since is not None or self.recompute_reason is not None


@dataclass(frozen=True)
class DueView:
    """A view that should be refreshed now, since when (UTC) and why."""

    name: str
    since: datetime
    reason: str


@dataclass(frozen=True)
class Attempt:
    """One row of the history. Times are UTC; `status` is started, completed, skipped, failed or killed."""

    id: int
    view: str
    kind: str
    strategy: str
    status: str
    reason: str | None
    started_at: datetime
    finished_at: datetime | None
    duration_seconds: float | None
    rows: int | None
    changed_rows: int | None
    drift_rows: int | None
    generation: int | None
    lag_seconds: float | None
    run_id: str | None
    sync_id: int | None


def require_installed(connection: Connection) -> None:
    """ConfigurationError with the cure when the database has no OLAP layer."""
    row = connection.execute("SELECT to_regclass(%s)", (f"{_SCHEMA}.view_state",)).fetchone()
    if row is None or row[0] is None:
        raise ConfigurationError(f"database {connection.info.dbname} has no OLAP layer; run `mozart olap install`")


def mark_dirty(connection: Connection, view: str, *, reason: str, since: datetime | None = None) -> None:
    """Ask durably for a refresh of `view`. Never waits for a running refresh; committed by the caller's transaction."""
    connection.execute(
        f"INSERT INTO {_SCHEMA}.dirty_mark (view, reason, since)"
        " VALUES (%s, %s, coalesce(%s, clock_timestamp()))".encode(),
        (view, reason, since),
    )


def read_states(connection: Connection, registry: ViewRegistry | None = None) -> list[ViewState]:
    """Every installed view; with a registry its views in its order, also those that are not installed."""
    require_installed(connection)
    rows = connection.execute(_STATES).fetchall()
    found = {str(row[0]): ViewState(*row) for row in rows}
    if registry is None:
        return list(found.values())
    return [found.get(view.name) or _absent(view.name, view.strategy) for view in registry.views]


def due_views(connection: Connection, registry: ViewRegistry, now: datetime | None = None) -> list[DueView]:
    """Views to refresh now, dimensions first: asked for or changed, not paused, their minimum interval over.

    A change that nobody asked for is due after the view's `debounce_max_wait_seconds`, for events may still be coming.
    """
    moment = now or datetime.now(UTC)
    states = {state.name: state for state in read_states(connection, registry)}
    identity = server_identity(connection)
    elsewhere = {
        str(name)
        for (name,) in connection.execute(
            f"SELECT name FROM {_SCHEMA}.view_state WHERE server_identity <> %s".encode(), (identity,)
        )
    }
    due: list[DueView] = []
    for view in registry.views:
        state = states[view.name]
        if not state.installed or state.paused:
            continue
        last = state.last_refreshed_at
        if last is not None and moment < last + timedelta(seconds=view.min_interval_seconds):
            continue
        asked = _reason_due(state, moment, view.debounce_max_wait_seconds, is_elsewhere=view.name in elsewhere)
        due += [asked] if asked else []
    return due


def _reason_due(state: ViewState, moment: datetime, patience: float, *, is_elsewhere: bool) -> DueView | None:
    if state.dirty_since is not None:
        return DueView(state.name, state.dirty_since, state.dirty_reason or "marked dirty")
    if state.changed_since is not None and moment >= state.changed_since + timedelta(seconds=patience):
        return DueView(state.name, state.changed_since, "changes that no event told of")
    if state.recompute_reason or is_elsewhere:
        reason = state.recompute_reason or "the database moved to another server"
        return DueView(state.name, state.last_refreshed_at or moment, reason)
    return None


def close_killed_attempts(connection: Connection, *, older_than_seconds: float = 5.0) -> list[Attempt]:
    """Give attempts that are `started` although nobody holds their view's lock the status `killed`; returns them.

    Each view's lock is held while its rows are closed. An attempt that had not taken its lock yet overwrites this with
    its own outcome. The connection must be idle.
    """
    closed: list[Attempt] = []
    candidates = connection.execute(
        f"SELECT DISTINCT view FROM {_SCHEMA}.refresh_history WHERE status = 'started'"
        " AND started_at < clock_timestamp() - make_interval(secs => %s)".encode(),
        (older_than_seconds,),
    ).fetchall()
    for (view,) in candidates:
        with transaction(connection):
            row = connection.execute(f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})".encode(), (view,)).fetchone()
            if not (row and row[0]):
                continue
            rows = connection.execute(_CLOSE_KILLED, {"view": view, "age": older_than_seconds}).fetchall()
            closed += [Attempt(*each) for each in rows]
            if rows:
                mark_dirty(connection, str(view), reason="a refresh was killed")
    return closed


def read_history(connection: Connection, *, view: str | None = None, limit: int = 50) -> list[Attempt]:
    """The newest attempts first."""
    require_installed(connection)
    rows = connection.execute(_HISTORY, {"view": view, "limit": limit}).fetchall()
    return [Attempt(*row) for row in rows]


def pause_view(connection: Connection, view: str, *, reason: str = "") -> None:
    """Let every refresh of the view be skipped until it is resumed."""
    connection.execute(
        f"INSERT INTO {_SCHEMA}.paused_view (view, reason) VALUES (%s, %s)"
        " ON CONFLICT (view) DO UPDATE SET reason = excluded.reason".encode(),
        (view, reason),
    )


def resume_view(connection: Connection, view: str) -> None:
    """Lift a pause; what was asked for meanwhile is due."""
    connection.execute(f"DELETE FROM {_SCHEMA}.paused_view WHERE view = %s".encode(), (view,))


def prune_change_log(connection: Connection) -> int:
    """Delete changes that every installed view has applied; returns how many. 0 when another prunes at the moment."""
    with transaction(connection):
        row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended('mozart:prune', 0))").fetchone()
        if not (row and row[0]):
            return 0
        applied = connection.execute(_APPLIED).fetchall()
        prune = "DELETE FROM {} WHERE xid < %s::xid8"
        return sum(connection.execute(prune.format(log_of(n)).encode(), (xid,)).rowcount for n, xid in applied)


def prune_history(connection: Connection, *, days: int = HISTORY_DAYS) -> int:
    """Delete attempts older than so many days; returns how many. A view keeps its newest of every status and kind."""
    return connection.execute(_PRUNE_HISTORY, {"days": days}).rowcount


def _absent(name: str, strategy: Strategy) -> ViewState:
    empty: Sequence[Any] = (None, None, 0, None, None, None, None, None)
    return ViewState(name, strategy, False, False, *empty)


_ATTEMPT = """id, view, kind, strategy, status, reason, started_at, finished_at,
    extract(epoch FROM finished_at - started_at)::float8, rows, changed_rows, drift_rows, generation, lag_seconds,
    run_id, sync_id"""

_STATES = f"""
SELECT s.name, s.strategy, true, p.view IS NOT NULL, d.since, d.reason, s.generation, s.row_count, s.last_refreshed_at,
    s.last_duration_ms, extract(epoch FROM clock_timestamp() - c.oldest)::float8, s.definition_hash,
    c.oldest, extract(epoch FROM clock_timestamp() - s.last_refreshed_at)::float8, s.recompute_reason
FROM {_SCHEMA}.view_state s
LEFT JOIN {_SCHEMA}.paused_view p ON p.view = s.name
LEFT JOIN LATERAL (
    SELECT since, reason FROM {_SCHEMA}.dirty_mark WHERE view = s.name ORDER BY since LIMIT 1) d ON true
LEFT JOIN LATERAL (
    SELECT min(l.changed_at) AS oldest FROM {NOT_APPLIED}) c ON true
ORDER BY s.name
""".encode()

_CLOSE_KILLED = f"""
UPDATE {_SCHEMA}.refresh_history SET status = 'killed', finished_at = clock_timestamp(),
    reason = 'its client or its server went away'
WHERE view = %(view)s AND status = 'started' AND started_at < clock_timestamp() - make_interval(secs => %(age)s)
RETURNING {_ATTEMPT}
""".encode()

_HISTORY = f"""
SELECT {_ATTEMPT} FROM {_SCHEMA}.refresh_history
WHERE %(view)s::text IS NULL OR view = %(view)s ORDER BY id DESC LIMIT %(limit)s
""".encode()

# Below the oldest number that a view of this source still asks about. A view of other sources that is seldom refreshed
# holds nothing back; else every look at the states would read all it has not applied.
_APPLIED = f"""
SELECT t.id, min(pg_snapshot_xmin(v.snapshot))::text
FROM {_SCHEMA}.view_state v JOIN {_SCHEMA}.tracked_source t ON t.name = ANY(v.sources) GROUP BY t.id
""".encode()

_PRUNE_HISTORY = f"""
DELETE FROM {_SCHEMA}.refresh_history
WHERE started_at < clock_timestamp() - make_interval(days => %(days)s) AND status <> 'started'
    AND id NOT IN (SELECT max(id) FROM {_SCHEMA}.refresh_history GROUP BY view, status, kind)
""".encode()
