"""Is a view what its SQL says, row by row; and what would its next refresh do?

Both look inside a transaction that is rolled back. `verify_view` applies what is pending first, so that a difference is
a mistake and not a delay; a view of strategy `refresh` cannot be moved there, so its pending changes are reported.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

import psycopg

from mozart.errors import TransientError
from mozart.olap.attempt import Request, failure, lock_state, try_lock, view_transaction
from mozart.olap.database import Connection, OlapDatabase
from mozart.olap.maintain import FIRST_MS_PER_KEY, do_refresh, read_changes
from mozart.olap.model import Strategy
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import read_states, require_installed
from mozart.olap.view_sql import apply_changes, compare_query, full_query

_LOCK_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Verification:
    """`extra` rows the view shows and its SQL does not, `missing` the other way round.

    `pending`: changes wait to be applied to a view of strategy `refresh`, so differences may be a delay only.
    """

    view: str
    extra: int
    missing: int
    pending: bool
    duration_seconds: float

    @property
    def is_exact(self) -> bool:
        return not self.extra and not self.missing


@dataclass(frozen=True)
class Explanation:
    """What the next refresh would do. `changed_keys` None: not counted (strategy refresh). Milliseconds as learned."""

    view: str
    strategy: Strategy
    plan: str
    changed_keys: int | None
    ms_per_key: float | None
    recompute_ms: float | None
    full_query: str
    delta_statement: str | None


def verify_view(database: OlapDatabase, registry: ViewRegistry, view_name: str) -> Verification:
    """Compare the view with its full query under one snapshot; changes nothing.

    Holds the view's lock meanwhile. TransientError when another holds it for longer than a minute.
    """
    view = registry.get(view_name)
    started = time.perf_counter()
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    with closing(database.connect()) as connection:
        try:
            require_installed(connection)
            while True:
                with view_transaction(connection, view, database.source_schema):
                    if try_lock(connection, view_name):
                        pending, (extra, missing) = _compare(connection, database, view_name, registry)
                        return Verification(view_name, extra, missing, pending, time.perf_counter() - started)
                if time.monotonic() > deadline:
                    raise TransientError(f"view {view_name} is being refreshed all the time; verify it later")
                time.sleep(0.2)
        except psycopg.Error as error:
            raise failure(error, view_name) from error


def _compare(
    connection: Connection,
    database: OlapDatabase,
    view_name: str,
    registry: ViewRegistry,
) -> tuple[bool, tuple[int, int]]:
    view = registry.get(view_name)
    state = lock_state(connection, Request(view, "verify"))
    pending = False
    with connection.transaction(force_rollback=True):
        if view.strategy == "incremental":
            do_refresh(connection, view, state, database.source_schema, is_full=False)
        else:
            pending = any(each.is_stale for each in read_states(connection) if each.name == view_name)
        row = connection.execute(compare_query(view).encode()).fetchone()
    extra, missing = row or (0, 0)
    return pending, (int(extra), int(missing))


def explain_view(database: OlapDatabase, registry: ViewRegistry, view_name: str) -> Explanation:
    """What the next refresh of the view would do and why; changes nothing."""
    view = registry.get(view_name)
    with closing(database.connect()) as connection:
        try:
            require_installed(connection)
            with view_transaction(connection, view, database.source_schema):
                state = lock_state(connection, Request(view, "explain"))
                changes = read_changes(connection, view, state) if view.strategy == "incremental" else None
        except psycopg.Error as error:
            raise failure(error, view_name) from error
    if changes is None:
        plan = "REFRESH MATERIALIZED VIEW CONCURRENTLY: computes everything, replaces the rows that differ"
    elif state.recompute_reason or changes.is_unbounded:
        plan = f"compute everything, touch what differs: {state.recompute_reason or 'a change without bounds'}"
    else:
        cost = changes.count * (state.ms_per_key or FIRST_MS_PER_KEY)
        whole = f"{state.recompute_ms:.0f} ms" if state.recompute_ms else "not measured"
        plan = f"{changes.count} changed keys, about {cost:.0f} ms; computing everything: {whole}"
    return Explanation(
        view=view_name,
        strategy=view.strategy,
        plan=plan,
        changed_keys=None if changes is None else changes.count,
        ms_per_key=state.ms_per_key,
        recompute_ms=state.recompute_ms,
        full_query=full_query(view),
        delta_statement=apply_changes(view, state.key_type or "text") if view.strategy == "incremental" else None,
    )
