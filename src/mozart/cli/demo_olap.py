"""The OLAP part of `mozart demo`: views over Axiom Core, a full sync, a burst of business events, and fresh views.

The sample and the views are left as they are when they are there. Works in the local stack only.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import click
from prefect.client.orchestration import PrefectClient

from mozart.errors import MozartError
from mozart.fleet.runs import FinishedRun, run_to_end
from mozart.olap.database import Connection, OlapDatabase, olap_database_from_settings
from mozart.olap.health import SyncHealth, get_sync_health
from mozart.olap.install import install
from mozart.olap.registry import ViewRegistry, read_views
from mozart.olap.state import read_states
from mozart.olap.verify import verify_view
from mozart.services.olap_daemons import enable_daemons
from mozart.services.postgres import Postgres
from mozart.services.stack import Progress, Stack
from mozart.settings import Settings
from mozart.sql import quote_identifier

SOURCE = "axiom"
_FRESH_WITHIN = 90.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class OlapFigures:
    """What happened: the sync's run, the burst, seconds from its last commit to each fresh fact, drift, health."""

    full_sync: FinishedRun
    changes: Mapping[str, int]
    fresh_after: Mapping[str, float]
    inexact: tuple[str, ...]
    health: SyncHealth


def make_axiom(postgres: Postgres, settings: Settings, scale: float) -> Mapping[str, int]:
    """The OLAP database with the sample and the views in it; rows by table."""
    from samples import axiom_core  # noqa: PLC0415 - the samples are no part of the package; only the demo needs them

    database, registry = _project(settings)
    login = database.password.get_secret_value()
    postgres.create_database(database.database, owner=database.username, password=login)
    with _business(database) as connection:
        counts = axiom_core.create(connection, scale=scale)
    install(database, registry)
    return counts


def start_daemons(stack: Stack, report: Callable[[Progress], None]) -> None:
    """Make relay and listener parts of the stack, and start them."""
    enable_daemons(stack.settings.state)
    names = (stack.relay.name, stack.listen.name)
    stack.up(lambda progress: report(progress) if progress.service in names else None)


async def run_olap(client: PrefectClient, settings: Settings) -> OlapFigures:
    """A full sync through the worker, then a burst of business events and the wait for fresh facts."""
    finished = await run_to_end(client, "olap-full-sync/daily")
    if not finished.is_completed:
        raise MozartError(f"the full sync {finished.name} ended {finished.state}: {finished.message}")
    return await asyncio.to_thread(_burst, settings, finished)


def _burst(settings: Settings, finished: FinishedRun) -> OlapFigures:
    from samples import axiom_core  # noqa: PLC0415 - see above

    database, registry = _project(settings)
    with _business(database) as connection:
        changes = axiom_core.apply_changes(connection, seed=secrets.randbelow(1_000_000), inserts=150, updates=150)
    fresh_after = _wait_fresh(database, [view.name for view in registry.facts])
    inexact = [view.name for view in registry.facts if not verify_view(database, registry, view.name).is_exact]
    return OlapFigures(finished, changes, fresh_after, tuple(inexact), get_sync_health(database, registry))


@contextmanager
def _business(database: OlapDatabase) -> Generator[Connection]:
    """A connection as the application has it: it finds and makes its tables in the OLTP schema.

    The stack's superuser is called as Mozart's own schema is, which by default would come first.
    """
    with database.connect(autocommit=False) as connection:
        connection.execute(f"SET search_path = {quote_identifier(database.source_schema)}".encode())
        connection.commit()
        yield connection


def _wait_fresh(database: OlapDatabase, views: list[str]) -> dict[str, float]:
    began = time.monotonic()
    found: dict[str, float] = {}
    with closing(database.connect()) as connection:
        while len(found) < len(views):
            seconds = time.monotonic() - began
            if seconds > _FRESH_WITHIN:
                late = ", ".join(view for view in views if view not in found)
                raise MozartError(f"{late}: not fresh {_FRESH_WITHIN:.0f} s after the events; see `mozart ps`")
            for state in read_states(connection):
                if state.name in views and not state.is_stale:
                    found.setdefault(state.name, seconds)
            time.sleep(_POLL_SECONDS)
    return found


def show_olap(figures: OlapFigures) -> None:
    """What happened, in figures."""
    events = figures.changes.get("event_outbox.inserted", 0)
    rows = sum(count for what, count in figures.changes.items() if not what.startswith("event_outbox"))
    click.echo(f"  full sync: {figures.full_sync.state} after {figures.full_sync.seconds:.1f} s")
    click.echo(f"  a burst of {events:,} business events, {rows:,} rows changed")
    for view, seconds in figures.fresh_after.items():
        exact = "differs from its query!" if view in figures.inexact else "equal to its full query, row by row"
        click.echo(f"    {view:<22} fresh {seconds:>5.1f} s after the last event, {exact}")
    for view in figures.health.views:
        click.echo(
            f"    {view.name:<22} {view.row_count or 0:>9,} rows  {view.strategy:<12} generation {view.generation}"
        )
    click.echo(f"  health: {figures.health.health}")
    for problem in figures.health.problems:
        click.echo(f"    {problem}")


def _project(settings: Settings) -> tuple[OlapDatabase, ViewRegistry]:
    database = olap_database_from_settings(settings)
    return database, read_views(settings.root, default_schema=database.view_schema)
