"""The daily full sync, in pieces that tasks call: validate, begin, refresh each view, record.

A sync is a row in `mozart.full_sync`; what it has done is the history of the views with its id. So a killed sync goes
on where it stopped, whoever starts it again, and two schedulers at once share one sync instead of doing work twice.
The order of the views, retries and alerts are the caller's.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import psycopg

from mozart.errors import ConfigurationError
from mozart.olap.attempt import Request
from mozart.olap.database import STATE_SCHEMA, OlapDatabase, transaction, translate
from mozart.olap.refresh import SyncResult, attempt_refresh
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import prune_change_log, prune_history, require_installed
from mozart.olap.validation import ValidationReport, validate_source
from mozart.sql import quote_identifier

__all__ = [
    "FullSync",
    "ValidationReport",
    "begin_full_sync",
    "has_unfinished_sync",
    "record_full_sync",
    "refresh_in_full_sync",
    "validate_source",
]

RESUMABLE_HOURS = 20
"""An unfinished sync that is older is given up: the next day's sync is due anyway."""

_SCHEMA = quote_identifier(STATE_SCHEMA)


@dataclass(frozen=True)
class FullSync:
    """A full sync under way. `resumed`: an unfinished one goes on; `done` are the views it has refreshed already."""

    id: int
    resumed: bool
    done: frozenset[str]


def begin_full_sync(
    database: OlapDatabase, *, report: ValidationReport | None = None, run_id: str | None = None
) -> FullSync:
    """Start a sync, or go on with the unfinished one of a killed run. `report` is kept for the next validation."""
    with closing(database.connect()) as connection:
        try:
            require_installed(connection)
            with transaction(connection):
                connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('mozart:full-sync', 0))")
                connection.execute(_GIVE_UP, (RESUMABLE_HOURS,))
                row = connection.execute(_UNFINISHED).fetchone()
                if row is not None:
                    return FullSync(int(row[0]), True, frozenset(row[1] or ()))
                rows = json.dumps(dict(report.rows) if report else {})
                row = connection.execute(_BEGIN, (run_id, rows)).fetchone()
                return FullSync(int(row[0]) if row else 0, False, frozenset())
        except psycopg.Error as error:
            raise translate(error, "begin of a full sync") from error


def has_unfinished_sync(database: OlapDatabase) -> bool:
    """Whether a sync was begun, not ended, and is young enough to go on with."""
    with closing(database.connect()) as connection:
        require_installed(connection)
        return connection.execute(_RESUMABLE, (RESUMABLE_HOURS,)).fetchone() is not None


def refresh_in_full_sync(
    database: OlapDatabase, registry: ViewRegistry, sync_id: int, view_name: str, *, run_id: str | None = None
) -> SyncResult:
    """Refresh one view in a sync: no interval, waits for the lock; skipped when the sync has done it already.

    An incremental view is brought up to date, then recomputed; `drift_rows` counts the groups that had to be repaired.
    Raises as `refresh_view`; TransientError when another holds the view for longer than its timeout.
    """
    view = registry.get(view_name)
    request = Request(view, "full", run_id=run_id, sync_id=sync_id)
    with closing(database.connect()) as connection:
        return attempt_refresh(database, connection, request, wait_seconds=view.timeout_seconds)


def record_full_sync(
    database: OlapDatabase,
    sync_id: int,
    *,
    status: Literal["completed", "failed"],
    reason: str | None = None,
    run_id: str | None = None,
) -> None:
    """Close the sync with its outcome; a sync that is closed already keeps it. Prunes change log and history."""
    with closing(database.connect()) as connection:
        try:
            done = connection.execute(_RECORD, (status, reason, run_id, sync_id)).rowcount
            if not done and not connection.execute(_KNOWN, (sync_id,)).fetchone():
                raise ConfigurationError(f"there is no full sync {sync_id}")
            prune_change_log(connection)
            prune_history(connection)
        except psycopg.Error as error:
            raise translate(error, f"record of full sync {sync_id}") from error


_GIVE_UP = f"""
UPDATE {_SCHEMA}.full_sync SET status = 'failed', finished_at = clock_timestamp(), reason = 'given up unfinished'
WHERE status = 'started' AND started_at < clock_timestamp() - make_interval(hours => %s)
""".encode()

_UNFINISHED = f"""
SELECT f.id, (SELECT array_agg(DISTINCT h.view) FROM {_SCHEMA}.refresh_history h
    WHERE h.sync_id = f.id AND h.status = 'completed')
FROM {_SCHEMA}.full_sync f WHERE f.status = 'started' ORDER BY f.id DESC LIMIT 1
""".encode()

_RESUMABLE = f"""
SELECT 1 FROM {_SCHEMA}.full_sync
WHERE status = 'started' AND started_at >= clock_timestamp() - make_interval(hours => %s) LIMIT 1
""".encode()

_BEGIN = f"INSERT INTO {_SCHEMA}.full_sync (run_id, source_rows) VALUES (%s, %s::jsonb) RETURNING id".encode()

_RECORD = f"""
UPDATE {_SCHEMA}.full_sync SET status = %s, reason = %s, finished_at = clock_timestamp(),
    run_id = coalesce(%s, run_id) WHERE id = %s AND status = 'started'
""".encode()

_KNOWN = f"SELECT 1 FROM {_SCHEMA}.full_sync WHERE id = %s".encode()
