"""`mozart demo`: the whole way on this machine, through the real worker, with what happened in figures.

It makes nothing twice: a running stack, an existing sample and an unchanged deployment are left as they are, so a
second demo shows two incremental runs more.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Any

import click

from mozart.cli.connect import prefect_client
from mozart.cli.deploy import deploy
from mozart.cli.sync import write_generated
from mozart.cli.up import start_stack
from mozart.engine.query import CATALOG, open_session
from mozart.errors import MozartError
from mozart.fleet.runs import FinishedRun, read_table_artifact, run_to_end
from mozart.lake.lakehouse import lakehouse_from_settings
from mozart.services.secrets import ensure_secrets
from mozart.services.stack import Stack
from mozart.settings import Settings, find_root, load_settings
from mozart.sql import quote_literal, quote_qualified
from mozart.tenancy.load import load_tenant
from mozart.tenancy.resolve import resolve

TENANT = "acme"
_SECRETS = ("ACME_DB_PASSWORD",)


@dataclass(frozen=True)
class RunFigures:
    """One run of the tenant, as its artifacts tell it."""

    run: FinishedRun
    tables: list[dict[str, Any]]
    models: list[dict[str, Any]]


@click.command(epilog="Example: mozart demo --scale 0.2")
@click.option("--scale", default=1.0, show_default=True, help="Size of the sample; 1 is 40,000 cases.")
def command(scale: float) -> None:
    """From nothing to a tenant's marts and an incremental run, through the real worker.

    Starts the stack, makes the sample database, syncs and deploys, runs tenant acme, changes some source rows, runs it
    again, and prints what happened. Exits 1 if anything failed.
    """
    began = time.monotonic()
    root = find_root()
    ensure_secrets(root, _SECRETS)
    stack = start_stack(root)
    settings = load_settings(root)
    _heading("Sample database")
    _make_sample(stack, settings, scale)
    _heading("Deployments")
    write_generated(root)
    deploy(settings)
    first = _run(settings, "First run")
    changed = _change(stack, settings)
    second = _run(settings, f"Second run, after {changed} changed source rows")
    _show_lake(settings)
    _farewell(stack, first, second, time.monotonic() - began)


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _make_sample(stack: Stack, settings: Settings, scale: float) -> None:
    from samples import axiom_core  # noqa: PLC0415 - the sample is no part of the package; only the demo needs it

    database, role = settings.values.get("ACME_DB_NAME", "acme"), settings.values.get("ACME_DB_USER", "acme")
    stack.postgres.create_database(database, owner=role, password=settings.get("ACME_DB_PASSWORD"))
    with stack.postgres.superuser(database).connect() as connection:
        counts = axiom_core.create(connection, scale=scale)
        axiom_core.grant_reader(connection, role)
    click.echo(
        f"  Axiom Core: {sum(counts.values()):,} rows in {len(counts)} tables; the largest has {max(counts.values()):,}"
    )


def _change(stack: Stack, settings: Settings) -> int:
    from samples import axiom_core  # noqa: PLC0415 - see above

    with stack.postgres.superuser(settings.values.get("ACME_DB_NAME", "acme")).connect() as connection:
        changes = axiom_core.apply_changes(connection, seed=secrets.randbelow(1_000_000), inserts=20, updates=80)
    return sum(count for what, count in changes.items() if not what.startswith("event_outbox"))


def _run(settings: Settings, title: str) -> RunFigures:
    _heading(title)

    async def run() -> RunFigures:
        async with prefect_client(settings) as client:
            finished = await run_to_end(
                client, f"tenant-pipeline/{TENANT}", on_state=lambda state: click.echo(f"  {state} ...")
            )
            tables = await read_table_artifact(client, finished.id, f"{TENANT}-tables")
            models = await read_table_artifact(client, finished.id, f"{TENANT}-models")
            return RunFigures(finished, tables, models)

    figures = asyncio.run(run())
    _show_run(figures)
    if not figures.run.is_completed:
        raise MozartError(f"the run {figures.run.name} ended {figures.run.state}: {figures.run.message}")
    return figures


def _show_run(figures: RunFigures) -> None:
    for table in figures.tables:
        click.echo(
            f"  {table['table']:<22} {table['status']:<10} {table['mode'].replace('_', ' '):<12} "
            f"read {table['read']:>8,}  committed {table['committed']:>8,}  {table['seconds']:>5.1f} s"
        )
    for model in figures.models:
        rows = f"{model['rows']:>8,} rows" if model["rows"] is not None else ""
        click.echo(f"  {model['model']:<22} {model['status']:<10} {rows}")


def _show_lake(settings: Settings) -> None:
    tenant = resolve(load_tenant(settings.tenants_folder / TENANT), settings.values)
    spaces = tenant.namespaces(settings.suffix)
    schemas = ", ".join(quote_literal(space) for space in (spaces.raw, spaces.core))
    _heading("In the lake now")
    with open_session(lakehouse_from_settings(settings)) as session:
        tables = session.run(
            f"SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN ({schemas}) "
            "ORDER BY table_schema DESC, table_name"
        )
        for schema, table in list(tables.rows):
            count = next(session.run(f"SELECT count(*) FROM {quote_qualified(CATALOG, schema, table)}").rows)[0]
            click.echo(f"  {f'{CATALOG}.{schema}.{table}':<44} {count:>9,} rows")


def _farewell(stack: Stack, first: RunFigures, second: RunFigures, seconds: float) -> None:
    read = [sum(table["read"] for table in figures.tables) for figures in (first, second)]
    committed = [sum(table["committed"] for table in figures.tables) for figures in (first, second)]
    _heading("What happened")
    click.echo(f"  First run:  {read[0]:>9,} rows read, {committed[0]:>9,} committed, {first.run.seconds:.1f} s")
    click.echo(f"  Second run: {read[1]:>9,} rows read, {committed[1]:>9,} committed, {second.run.seconds:.1f} s")
    click.echo(f"  Everything: {seconds:.0f} s")
    _heading("Look and try")
    click.echo(f"  Prefect UI      {stack.prefect.ui_url}")
    # Without the address Prefect's own command starts a server of its own and finds no deployment there.
    run_again = f"PREFECT_API_URL={stack.prefect.api_url} .venv/bin/prefect deployment run tenant-pipeline/{TENANT}"
    click.echo(f"  Run it again    {run_again}")
    click.echo('  Ask the lake    .venv/bin/mozart query "select * from iceberg.acme.mart_case limit 5"')
    click.echo("  Stop it all     make down")
