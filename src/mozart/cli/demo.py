"""`mozart demo`: the whole way on this machine, through the real worker, with what happened in figures.

It makes nothing twice: a running stack, existing samples and unchanged deployments are left as they are, so a second
demo shows incremental runs only. Samples are made while the Prefect server starts, and two tenants run at a time:
acme twice, beside it the others one after the other, and beside both the OLAP layer (`demo_olap`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from prefect.client.orchestration import PrefectClient

from mozart.cli.connect import prefect_client
from mozart.cli.demo_olap import SOURCE as AXIOM
from mozart.cli.demo_olap import OlapFigures, make_axiom, run_olap, show_olap, start_daemons
from mozart.cli.demo_sources import SOURCE_SECRETS, SOURCES, change_acme
from mozart.cli.deploy import deploy
from mozart.cli.sync import write_generated
from mozart.engine.base import Session, open_query_session
from mozart.errors import ConfigurationError, MozartError
from mozart.fleet.plan import TENANT_FLOW
from mozart.fleet.runs import FinishedRun, read_table_artifact, run_to_end
from mozart.services.secrets import ensure_secrets
from mozart.services.stack import Progress, Stack, load_stack
from mozart.settings import Settings, find_root
from mozart.sql import quote_literal, quote_qualified
from mozart.tenancy.load import load_tenant
from mozart.tenancy.names import Namespaces, deployment_name
from mozart.tenancy.product_schema import load_product_schema
from mozart.tenancy.resolve import resolve

LAKE = "iceberg"
"""The lake's name in SQL, on every engine."""
FIRST, OTHERS = "acme", ("harbor", "atlas")

_MADE = {**SOURCES, AXIOM: ("Axiom Core again, with the OLAP views", make_axiom)}

Counts = Mapping[str, int]


@dataclass(frozen=True)
class RunFigures:
    """One run of a tenant, as its artifacts tell it. `what` is its heading."""

    what: str
    run: FinishedRun
    tables: list[dict[str, Any]]
    models: list[dict[str, Any]]

    def total(self, figure: str) -> int:
        return sum(int(table[figure]) for table in self.tables)


@click.command(epilog="Example: mozart demo --scale 0.2")
@click.option("--scale", default=1.0, show_default=True, help="Size of the samples; 1 is 40,000 cases of acme.")
def command(scale: float) -> None:
    """From nothing to three tenants' marts, an incremental run, and OLAP views that follow business events.

    Starts the stack, makes three sample sources (two PostgreSQL databases, a SQLite file) and the OLAP database, syncs
    and deploys, runs the tenants, changes some rows of acme's source, runs it again; beside that a full sync of the
    OLAP views, and a burst of business events. Prints what happened. Exits 1 if anything failed.
    """
    began = time.monotonic()
    root = find_root()
    ensure_secrets(root, SOURCE_SECRETS)
    stack = load_stack(root)
    samples = _start(stack, scale)
    _heading("Sample sources")
    for tenant, counts in samples.items():
        click.echo(f"  {tenant:<7} {_MADE[tenant][0]}: {sum(counts.values()):,} rows in {len(counts)} tables")
    _heading("Deployments")
    write_generated(root)
    deployed = deploy(stack.settings)
    if deployed.problems:
        raise ConfigurationError(deployed.problems)
    figures, olap = asyncio.run(_run_all(stack))
    _show_lake(stack.settings)
    _heading("OLAP views")
    show_olap(olap)
    _farewell(stack, figures, time.monotonic() - began)


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _start(stack: Stack, scale: float) -> Mapping[str, Counts]:
    """Bring the stack up, and make the samples as soon as PostgreSQL is there; rows by table of each."""
    made: dict[str, Future[Counts]] = {}
    with ThreadPoolExecutor(len(_MADE)) as threads:

        def report(progress: Progress) -> None:
            click.echo(f"  {progress.service:<10} {progress.event} ({progress.seconds:.1f} s)")
            if progress.service == stack.postgres.name and progress.event != "failed":
                for tenant, (_, make) in _MADE.items():
                    made[tenant] = threads.submit(make, stack.postgres, stack.settings, scale)

        _heading(f"The stack of {stack.settings.root}")
        stack.up(report)
        counts = {tenant: made_by.result() for tenant, made_by in made.items()}
    start_daemons(stack, lambda progress: click.echo(f"  {progress.service:<10} {progress.event}"))
    return counts


async def _run_all(stack: Stack) -> tuple[list[RunFigures], OlapFigures]:
    """Run all tenants, acme's two runs first in the answer, and the OLAP layer. The first error, after all ended."""
    _heading(f"Runs: {FIRST} twice, {' and '.join(OTHERS)} beside it, and the OLAP views")
    async with prefect_client(stack.settings) as client:
        run = partial(_run, client, stack.settings)

        async def run_first() -> list[RunFigures]:
            first = await run(FIRST, f"{FIRST}, first run")
            changed = await asyncio.to_thread(change_acme, stack.postgres, stack.settings)
            return [first, await run(FIRST, f"{FIRST}, second run, after {changed} changed source rows")]

        async def run_others() -> list[RunFigures]:
            return [await run(tenant, tenant) for tenant in OTHERS]

        tenants = [asyncio.ensure_future(run_first()), asyncio.ensure_future(run_others())]
        olap = asyncio.ensure_future(run_olap(client, stack.settings))
        await asyncio.wait([*tenants, olap])
    failed = [error for task in (*tenants, olap) if (error := task.exception())]
    if failed:
        raise failed[0]
    return [figures for task in tenants for figures in task.result()], olap.result()


async def _run(client: PrefectClient, settings: Settings, tenant: str, what: str) -> RunFigures:
    deployment = f"{TENANT_FLOW}/{deployment_name(tenant, settings.suffix)}"
    finished = await run_to_end(client, deployment)
    tables = await read_table_artifact(client, finished.id, f"{tenant}-tables")
    models = await read_table_artifact(client, finished.id, f"{tenant}-models")
    figures = RunFigures(what, finished, tables, models)
    _show_run(figures)
    if not finished.is_completed:
        raise MozartError(f"the run {finished.name} of {tenant} ended {finished.state}: {finished.message}")
    return figures


def _show_run(figures: RunFigures) -> None:
    click.secho(f"  {figures.what}: {figures.run.state} after {figures.run.seconds:.1f} s", bold=True)
    for table in figures.tables:
        click.echo(
            f"    {table['table']:<24} {table['status']:<10} {table['mode'].replace('_', ' '):<12} "
            f"read {table['read']:>8,}  committed {table['committed']:>8,}  {table['seconds']:>5.1f} s"
        )
    for model in figures.models:
        rows = f"{model['rows']:>8,} rows" if model["rows"] is not None else ""
        click.echo(f"    {model['model']:<24} {model['status']:<10} {rows}".rstrip())


def _show_lake(settings: Settings) -> None:
    """The rows of raw and staging as a whole and of every mart, tenant by tenant."""
    _heading("In the lake now: the same marts, whatever the source")
    tenants = (FIRST, *OTHERS)
    click.echo(f"  {'rows of':<22}" + "".join(f"{tenant:>12}" for tenant in tenants))
    spaces = [_namespaces(settings, tenant) for tenant in tenants]
    with open_query_session(settings) as session:
        layers = {
            "raw, all tables": [_total(session, space.raw, "") for space in spaces],
            "staging, all tables": [_total(session, space.core, "stg_") for space in spaces],
        }
        for layer, totals in layers.items():
            click.echo(f"  {layer:<22}" + "".join(f"{total:>12,}" for total in totals))
        for mart in load_product_schema(settings.root).marts:
            counts = [_count(session, space.core, mart.name) for space in spaces]
            click.echo(f"  {mart.name:<22}" + "".join(f"{count:>12,}" for count in counts))


def _namespaces(settings: Settings, tenant: str) -> Namespaces:
    return resolve(load_tenant(settings.tenants_folder / tenant), settings.values).namespaces(settings.suffix)


def _total(session: Session, schema: str, prefix: str) -> int:
    tables = session.run(
        "SELECT table_name FROM information_schema.tables "
        f"WHERE table_schema = {quote_literal(schema)} AND starts_with(table_name, {quote_literal(prefix)})"
    )
    return sum(_count(session, schema, str(row[0])) for row in list(tables.rows))


def _count(session: Session, schema: str, table: str) -> int:
    return next(session.run(f"SELECT count(*) FROM {quote_qualified(LAKE, schema, table)}").rows)[0]


def _farewell(stack: Stack, figures: Sequence[RunFigures], seconds: float) -> None:
    _heading("What happened")
    for run in figures:
        read, committed = run.total("read"), run.total("committed")
        click.echo(f"  {run.what:<52} {read:>9,} rows read, {committed:>9,} committed, {run.run.seconds:>5.1f} s")
    click.echo(f"  Everything: {seconds:.0f} s")
    _heading("Look and try")
    click.echo(f"  Prefect UI      {stack.prefect.ui_url}")
    # Prefect's own command knows this server by its address only; without it, it starts another and finds nothing.
    run_again = f"PREFECT_API_URL={stack.prefect.api_url} .venv/bin/prefect deployment run {TENANT_FLOW}/{FIRST}"
    click.echo(f"  Run it again    {run_again}")
    click.echo('  Ask the lake    .venv/bin/mozart query "select * from iceberg.harbor.mart_case limit 5"')
    click.echo("  Stop it all     make down")
