"""`mozart olap status | health | history`: look at the views. Changes nothing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from mozart.cli.olap_project import json_option, open_project, print_json, print_table, root_option
from mozart.olap.health import ViewHealth, get_sync_health
from mozart.olap.state import Attempt, ViewState, read_history, read_states

STALE = 1


@click.command(epilog="Example: mozart olap status --json")
@json_option
@root_option
def status(as_json: bool, root: Path | None) -> None:
    """Show every view. Lag is the age in seconds of the oldest change not applied yet; - is fresh."""
    database, registry = open_project(root)
    with closing(database.connect()) as connection:
        states = read_states(connection, registry)
    if as_json:
        print_json([asdict(state) for state in states])
        return
    print_table(
        ("view", "strategy", "rows", "generation", "refreshed (UTC)", "ms", "lag s", "asked for", "paused"),
        [_state_row(state) for state in states],
    )


@click.command(epilog="Example: mozart olap health --json")
@json_option
@root_option
def health(as_json: bool, root: Path | None) -> None:
    """Say whether the layer is healthy; exits 1 when it is stale, with the reasons."""
    found = get_sync_health(*open_project(root))
    if as_json:
        click.echo(found.model_dump_json())
    else:
        click.echo(f"{found.health}; last full sync {found.last_full_sync or 'never'}")
        print_table(
            ("view", "rows", "refreshed (UTC)", "ms", "lag s", "target s", "dirty", "paused"),
            [_health_row(view) for view in found.views],
        )
        for problem in found.problems:
            click.echo(problem, err=True)
    if found.health == "stale":
        raise SystemExit(STALE)


@click.command(epilog="Example: mozart olap history mv_business_fact --limit 10")
@click.argument("view", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many attempts.")
@json_option
@root_option
def history(view: str | None, limit: int, as_json: bool, root: Path | None) -> None:
    """The latest attempts, newest first, of one view or of all."""
    database, registry = open_project(root)
    if view is not None:
        registry.get(view)
    with closing(database.connect()) as connection:
        attempts = read_history(connection, view=view, limit=limit)
    if as_json:
        print_json([asdict(attempt) for attempt in attempts])
        return
    print_table(
        ("id", "view", "kind", "status", "started (UTC)", "s", "rows", "changed", "drift", "reason"),
        [_attempt_row(attempt) for attempt in attempts],
    )


def _state_row(state: ViewState) -> tuple[object, ...]:
    figures = (state.row_count, state.generation, state.last_refreshed_at, state.last_duration_ms, state.lag_seconds)
    return (
        state.name,
        state.strategy,
        *figures,
        state.dirty_reason,
        state.paused if state.installed else "not installed",
    )


def _health_row(view: ViewHealth) -> tuple[object, ...]:
    freshness = (view.last_refreshed, view.refresh_duration_ms, view.lag_seconds, view.lag_target_seconds)
    return view.name, view.row_count, *freshness, view.dirty, view.paused


def _attempt_row(attempt: Attempt) -> tuple[object, ...]:
    what = (attempt.id, attempt.view, attempt.kind, attempt.status, attempt.started_at, attempt.duration_seconds)
    return *what, attempt.rows, attempt.changed_rows, attempt.drift_rows, attempt.reason
