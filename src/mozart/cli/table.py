"""`mozart table`: what a load would do, what a raw table went through, and back to one of its snapshots."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

import click

from blocks.tenant_place import load_place
from mozart.cli.connect import prefect_client
from mozart.errors import ConfigurationError, MozartError, Problem
from mozart.lake.load import LoadResult
from mozart.lake.replay import ReplayResult, SnapshotEntry, replay_table, table_history
from mozart.lake.session import LakeSession, open_lake
from mozart.lake.tenant_run import RunOptions, TenantPlace, TenantRun
from mozart.settings import Settings, load_settings
from mozart.tenancy.load import load_tenant
from mozart.tenancy.model import Tenant


@click.group()
def command() -> None:
    """Look at a tenant's raw tables, plan a load, replay a snapshot. Needs the tenant deployed (`mozart deploy`)."""


@command.command("plan", epilog="Example: mozart table plan acme cases --full-refresh")
@click.argument("tenant_id", metavar="TENANT")
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option("--full-refresh", is_flag=True, help="As a load with full_refresh.")
@click.option("--since", help="As a backfill of rows at or above this value of the incremental column.")
@click.option("--until", help="The backfill's end, exclusive.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def plan(  # noqa: PLR0917 - click hands the options over by name
    tenant_id: str, tables: tuple[str, ...], full_refresh: bool, since: str | None, until: str | None, as_json: bool
) -> None:
    """Say what a load would read and commit, table by table, and do nothing (a dry run).

    Rows are counted at the source, in one snapshot. Exits 1 when a table could not be loaded as it is.
    """
    settings = load_settings()
    tenant = load_tenant(settings.tenants_folder / tenant_id)
    options = RunOptions(tables or None, full_refresh, since, until, dry_run=True)
    outcomes: dict[str, LoadResult | MozartError] = {}
    with TenantRun(tenant, _place(settings, tenant), options, _run_id("plan"), settings.state) as run:
        for request in run.requests:
            try:
                outcomes[request.spec.name] = run.load(request, lambda _line: None)
            except MozartError as error:
                outcomes[request.spec.name] = error
    if as_json:
        click.echo(json.dumps({name: _planned(outcome) for name, outcome in outcomes.items()}))
    else:
        for name, outcome in outcomes.items():
            click.echo(_plan_line(name, outcome))
    if any(isinstance(outcome, MozartError) for outcome in outcomes.values()):
        raise SystemExit(1)


@command.command("history", epilog="Example: mozart table history acme cases")
@click.argument("tenant_id", metavar="TENANT")
@click.argument("table", metavar="TABLE")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def history(tenant_id: str, table: str, as_json: bool) -> None:
    """List the snapshots of a raw table, newest first: those that it can be replayed from."""
    settings = load_settings()
    tenant = _tenant_with(settings, tenant_id, table)
    place = _place(settings, tenant)
    with _lake(settings, place, "history") as lake:
        entries = table_history(lake, (place.namespaces.raw, table))
    if as_json:
        click.echo(json.dumps([{**asdict(entry), "made_at": entry.made_at.isoformat()} for entry in entries]))
        return
    for entry in entries:
        click.echo(_history_line(entry))
    if not entries:
        click.echo(f"{place.namespaces.raw}.{table} has no snapshot; load it", err=True)


@command.command("replay", epilog="Example: mozart table replay acme cases --snapshot 4855618688200068097 --dry-run")
@click.argument("tenant_id", metavar="TENANT")
@click.argument("table", metavar="TABLE")
@click.option("--snapshot", "snapshot_id", type=int, required=True, help="One that `mozart table history` lists.")
@click.option("--dry-run", is_flag=True, help="Say what would become of the table and do nothing.")
@click.option("--yes", is_flag=True, help="Replay without asking.")
def replay(tenant_id: str, table: str, snapshot_id: int, dry_run: bool, yes: bool) -> None:
    """Make a raw table hold the rows of one of its snapshots, as a new commit.

    Its watermark of then is in force again, so that the next incremental load brings what the source changed since. A
    table of mode full_refresh is as the source again after its next load. Nothing of the history is lost.
    """
    settings = load_settings()
    place = _place(settings, _tenant_with(settings, tenant_id, table))
    identifier = (place.namespaces.raw, table)
    with _lake(settings, place, "replay") as lake:
        planned = replay_table(lake, identifier, snapshot_id, "", dry_run=True)
        click.echo(_replay_line(planned))
        if dry_run:
            return
        if not yes:
            click.confirm("Put them in the place of what is there?", abort=True)
        done = replay_table(lake, identifier, snapshot_id, _run_id("replay"), lambda line: click.echo(f"  {line}"))
    click.echo(f"{done.table} is at snapshot {done.snapshot_id} with {done.rows_after} rows.")


def _place(settings: Settings, tenant: Tenant) -> TenantPlace:
    async def ask() -> TenantPlace:
        async with prefect_client(settings):
            return await load_place(tenant.id, settings.suffix)

    return asyncio.run(ask())


def _tenant_with(settings: Settings, tenant_id: str, table: str) -> Tenant:
    tenant = load_tenant(settings.tenants_folder / tenant_id)
    if tenant.table(table) is None:
        known = ", ".join(spec.name for spec in tenant.tables)
        raise ConfigurationError(Problem(tenant.file, "tables", f"no table {table}; there are {known}"))
    return tenant


@contextmanager
def _lake(settings: Settings, place: TenantPlace, purpose: str) -> Generator[LakeSession]:
    with open_lake(place.lakehouse, scratch=settings.state / "scratch" / _run_id(purpose)) as lake:
        yield lake


def _run_id(purpose: str) -> str:
    return f"{purpose}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def _planned(outcome: LoadResult | MozartError) -> dict[str, object]:
    if isinstance(outcome, MozartError):
        return {"status": "failed", "reason": str(outcome)}
    return {
        "status": outcome.status,
        "mode": outcome.mode,
        "reason": outcome.reason,
        "window": outcome.window,
        "rows": outcome.rows_read,
        "watermark": outcome.watermark,
        "drift": outcome.drift.line,
    }


def _plan_line(name: str, outcome: LoadResult | MozartError) -> str:
    if isinstance(outcome, MozartError):
        return f"{name}: would fail: {outcome}"
    why = f" ({outcome.reason})" if outcome.reason else ""
    does = "replace raw by" if outcome.mode == "full_refresh" else "merge"
    drift = f"; columns differ: {outcome.drift.line}" if outcome.drift else ""
    return f"{name}: {outcome.mode}{why}: would read {outcome.window} and {does} {outcome.rows_read} rows{drift}"


def _history_line(entry: SnapshotEntry) -> str:
    rows = "?" if entry.rows is None else entry.rows
    mark = f", watermark {entry.watermark}" if entry.watermark else ""
    return (
        f"{entry.snapshot_id}  {entry.made_at:%Y-%m-%d %H:%M:%S}Z  {entry.mode or 'another writer'}: {rows} rows{mark}"
    )


def _replay_line(planned: ReplayResult) -> str:
    mark = f"; the watermark would be {planned.watermark}" if planned.watermark else "; the next load reads in full"
    return (
        f"{planned.table}: {planned.rows_after} rows of snapshot {planned.from_snapshot} "
        f"in the place of {planned.rows_before}{mark}"
    )
