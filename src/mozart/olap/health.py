"""Is the OLAP layer fresh? One answer for people, scripts and the UI.

Asks PostgreSQL and nothing else: the answer is right when Redis and Prefect are down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Literal

import psycopg
from pydantic import BaseModel, ConfigDict

from mozart.olap.database import STATE_SCHEMA, OlapDatabase, translate
from mozart.olap.model import View
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import ViewState, read_states
from mozart.sql import quote_identifier

FULL_SYNC_EVERY = timedelta(hours=25)
"""A daily sync and an hour for it to run late."""

_SCHEMA = quote_identifier(STATE_SCHEMA)


class ViewHealth(BaseModel):
    """One view. Milliseconds and seconds as named; times are UTC. `lag_seconds` None: nothing is left to apply."""

    model_config = ConfigDict(frozen=True)

    name: str
    row_count: int | None
    last_refreshed: datetime | None
    refresh_duration_ms: float | None
    lag_seconds: float | None
    lag_target_seconds: float
    dirty: bool
    paused: bool
    installed: bool
    strategy: str
    generation: int
    problem: str | None = None


class SyncHealth(BaseModel):
    """The state of the whole layer; `problems` say in words why it is stale."""

    model_config = ConfigDict(frozen=True)

    health: Literal["healthy", "stale"]
    last_full_sync: datetime | None
    last_incremental_sync: datetime | None
    views: tuple[ViewHealth, ...]
    problems: tuple[str, ...] = ()


def get_sync_health(database: OlapDatabase, registry: ViewRegistry) -> SyncHealth:
    """Ask the database once; `stale` without a full sync for 25 h, or with a view's lag over its target."""
    with closing(database.connect()) as connection:
        try:
            states = read_states(connection, registry)
            row = connection.execute(_LAST).fetchone()
        except psycopg.Error as error:
            raise translate(error, "health of the OLAP layer") from error
    last_full, last_incremental = row or (None, None)
    views = [_view_health(view, state) for view, state in zip(registry.views, states, strict=True)]
    problems = [*_sync_problems(last_full), *(view.problem for view in views if view.problem)]
    return SyncHealth(
        health="stale" if problems else "healthy",
        last_full_sync=last_full,
        last_incremental_sync=last_incremental,
        views=tuple(views),
        problems=tuple(problems),
    )


def _view_health(view: View, state: ViewState) -> ViewHealth:
    return ViewHealth(
        name=view.name,
        row_count=state.row_count,
        last_refreshed=state.last_refreshed_at,
        refresh_duration_ms=state.last_duration_ms,
        lag_seconds=state.lag_seconds,
        lag_target_seconds=view.lag_target_seconds,
        dirty=state.is_stale,
        paused=state.paused,
        installed=state.installed,
        strategy=state.strategy,
        generation=state.generation,
        problem=_view_problem(view, state),
    )


def _view_problem(view: View, state: ViewState) -> str | None:
    if not state.installed:
        return f"{view.name} is not installed; run `mozart olap install`"
    if state.lag_seconds is not None and state.lag_seconds > view.lag_target_seconds:
        paused = "; it is paused: `mozart olap resume`" if state.paused else ""
        lag, target = round(state.lag_seconds), round(view.lag_target_seconds)
        return f"{view.name} lags by {lag} s, over its target of {target} s{paused}"
    return None


def _sync_problems(last_full: datetime | None) -> Iterator[str]:
    if last_full is None:
        yield "no full sync has succeeded yet; run `prefect deployment run olap-full-sync/daily`"
    elif datetime.now(UTC) - last_full > FULL_SYNC_EVERY:
        yield f"the last successful full sync ended {last_full:%Y-%m-%d %H:%M} UTC, more than 25 h ago"


_LAST = f"""
SELECT (SELECT max(finished_at) FROM {_SCHEMA}.full_sync WHERE status = 'completed'),
    (SELECT max(finished_at) FROM {_SCHEMA}.refresh_history
        WHERE status = 'completed' AND kind IN ('incremental', 'event', 'sweep'))
""".encode()
