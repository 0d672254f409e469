"""Refresh one view: who may, when, in which order, and what came of it.

The order of every refresh: a `started` row in the history; then in one transaction the view's lock, the interval, the
work, the new generation and the outcome. Two askers never work on one view at once, whoever they are. A request that is
skipped leaves a dirty mark, so that `due_views` brings it back.

Does not know Prefect, caches or events. Callers invalidate caches after this returns, for then it is committed.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import closing
from datetime import datetime
from typing import Literal

import psycopg
from pydantic import BaseModel, ConfigDict

from mozart.errors import MozartError, TerminalError, TransientError
from mozart.olap.attempt import (
    LockedState,
    Outcome,
    Request,
    close_completed,
    close_failed,
    close_skipped,
    failure,
    lock_state,
    open_attempt,
    try_lock,
    view_transaction,
    with_retries,
)
from mozart.olap.database import Connection, OlapDatabase
from mozart.olap.maintain import do_refresh
from mozart.olap.model import Strategy
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import prune_change_log, read_states

RefreshKind = Literal["full", "incremental", "event", "sweep"]

TOO_RECENT = "Too recent"
IN_PROGRESS = "Another sync in progress"
PAUSED = "Paused"
DONE_IN_SYNC = "Already done in this sync"
ANSWERED = "Already refreshed since it was asked for"

_FOR_GOOD = (DONE_IN_SYNC, ANSWERED)

_LOCK_POLL_SECONDS = 0.2
_PRUNE_EVERY = 16


class SyncResult(BaseModel):
    """What became of one request. Times are UTC.

    `lag_seconds` is the age, at the commit, of the oldest change this refresh brought in; None when there was none.
    `drift_rows` is set when a full sync checked an incremental view; anything but 0 is a mistake worth a look.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    view: str
    status: Literal["completed", "skipped", "failed"]
    reason: str | None = None
    duration_seconds: float
    kind: RefreshKind
    strategy: Strategy
    rows: int | None = None
    changed_rows: int | None = None
    drift_rows: int | None = None
    generation: int
    lag_seconds: float | None = None
    run_id: str | None = None
    started_at: datetime
    finished_at: datetime


def refresh_view(
    database: OlapDatabase,
    registry: ViewRegistry,
    view_name: str,
    *,
    kind: RefreshKind,
    force: bool = False,
    run_id: str | None = None,
    asked_at: datetime | None = None,
) -> SyncResult:
    """Refresh one view, its stale dimensions first; returns completed or skipped.

    `force` lifts the minimum interval, never the lock or a pause. With `asked_at` a request that came late is skipped
    when a refresh begun after it has brought in everything: the sweep did what this one was to do.

    A failure is recorded in the history and raised: TransientError (lost connection, lock, time), DataQualityError
    (duplicate keys), ConfigurationError (not installed) or TerminalError.
    """
    view = registry.get(view_name)
    interval = None if force or kind == "full" else view.min_interval_seconds
    request = Request(view, kind, interval, run_id, asked_at=None if force else asked_at)
    with closing(database.connect()) as connection:
        for dimension in _stale_dependencies(connection, registry, view_name, interval):
            note = f"stale before {view_name}"
            try:
                attempt_refresh(database, connection, Request(registry.get(dimension), kind, run_id=run_id, note=note))
            except MozartError as error:
                _record_blocked(database, request, dimension, error)
                raise
        result = attempt_refresh(database, connection, request)
        if result.status == "completed" and result.generation % _PRUNE_EVERY == 0:
            with contextlib.suppress(psycopg.Error):  # the next one prunes; this refresh is committed
                prune_change_log(connection)
        return result


def attempt_refresh(
    database: OlapDatabase, connection: Connection, request: Request, *, wait_seconds: float = 0.0
) -> SyncResult:
    """One attempt with its row in the history; waits up to `wait_seconds` for whoever holds the view."""
    try:
        attempt = open_attempt(connection, request)
    except psycopg.Error as error:
        raise failure(error, request.view.name) from error
    deadline = time.monotonic() + wait_seconds
    try:
        while True:
            outcome = with_retries(
                connection, lambda: _transact(database, connection, attempt, request, time.monotonic() >= deadline)
            )
            if outcome is not None:
                break
            time.sleep(_LOCK_POLL_SECONDS)
    except (psycopg.Error, MozartError) as error:
        outcome = close_failed(database, attempt, request, error)
        if outcome is None:
            raise failure(error, request.view.name) from error
    if wait_seconds and outcome.reason == IN_PROGRESS:
        raise TransientError(f"view {request.view.name} is still being refreshed by another; waited {wait_seconds} s")
    return _result(request, outcome)


def _transact(
    database: OlapDatabase, connection: Connection, attempt: int, request: Request, is_last: bool
) -> Outcome | None:
    """The transaction of an attempt; None when the view is held and there is time to wait."""
    with view_transaction(connection, request.view, database.source_schema):
        if not try_lock(connection, request.view.name):
            return close_skipped(connection, attempt, request, IN_PROGRESS, again=True) if is_last else None
        state = lock_state(connection, request)
        reason = _skip_reason(request, state)
        if reason:
            return close_skipped(connection, attempt, request, reason, again=reason not in _FOR_GOOD)
        work = do_refresh(connection, request.view, state, database.source_schema, is_full=request.is_full)
        return close_completed(connection, attempt, request, work)


def _skip_reason(request: Request, state: LockedState) -> str | None:
    if state.is_paused:
        return PAUSED
    if request.sync_id is not None and state.is_done_in_sync:
        return DONE_IN_SYNC
    if state.is_answered:
        return ANSWERED
    age = state.seconds_since_refresh
    if request.interval_seconds is not None and age is not None and age < request.interval_seconds:
        return TOO_RECENT
    return None


def _record_blocked(database: OlapDatabase, request: Request, dimension: str, error: MozartError) -> None:
    """The history says as well of the view itself that it was not refreshed; its marks stay."""
    with contextlib.suppress(psycopg.Error, MozartError), closing(database.connect()) as connection:
        reason = TerminalError(f"not refreshed, for {dimension} failed: {error}")
        close_failed(database, open_attempt(connection, request), request, reason)


def _stale_dependencies(
    connection: Connection, registry: ViewRegistry, view_name: str, interval: float | None
) -> list[str]:
    """Views below this one with something to apply, dependencies first; none when the view itself has to wait."""
    wanted = _dependencies(registry, view_name)
    if not wanted:
        return []
    states = {state.name: state for state in read_states(connection)}
    own = states.get(view_name)
    if own is None or own.paused or (interval and (own.seconds_since_refresh or interval) < interval):
        return []
    return [
        view.name
        for view in registry.views
        if view.name in wanted and view.name in states and states[view.name].is_stale and not states[view.name].paused
    ]


def _dependencies(registry: ViewRegistry, view_name: str) -> set[str]:
    found: set[str] = set()
    pending = list(registry.get(view_name).depends_on)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += registry.get(name).depends_on
    return found


def _result(request: Request, outcome: Outcome) -> SyncResult:
    return SyncResult.model_validate(
        {
            "view": request.view.name,
            "status": outcome.status,
            "reason": outcome.reason,
            "duration_seconds": (outcome.finished_at - outcome.started_at).total_seconds(),
            "kind": request.kind,
            "strategy": outcome.strategy,
            "rows": outcome.rows,
            "changed_rows": outcome.changed_rows,
            "drift_rows": outcome.drift_rows,
            "generation": outcome.generation,
            "lag_seconds": outcome.lag_seconds,
            "run_id": request.run_id,
            "started_at": outcome.started_at,
            "finished_at": outcome.finished_at,
        }
    )
