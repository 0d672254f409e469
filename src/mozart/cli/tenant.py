"""`mozart tenant`: look at the tenants as Mozart reads them, and drop one's data (a module of its own).

Looking resolves no variable, so it can show no secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mozart.cli.lazy import Entry, LazyGroup
from mozart.errors import ConfigurationError
from mozart.settings import find_root
from mozart.tenancy.load import Fleet, load_fleet
from mozart.tenancy.model import Tenant

BROKEN = 2

Option = Callable[[Callable[..., None]], Callable[..., None]]
_json: Option = click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
_root: Option = click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="The project's folder.")


COMMANDS = {
    "list": Entry("tenant:list_tenants", "List every tenant; exits 2 when one is broken."),
    "show": Entry("tenant:show_tenant", "Show one tenant, ${VARIABLES} unresolved."),
    "drop": Entry("tenant_drop:drop_tenant", "Remove the data of a tenant that has left the project."),
}


@click.group(cls=LazyGroup, entries=COMMANDS)
def command() -> None:
    """List and show tenants; drop the data of one that has left."""


@click.command("list", epilog="Example: mozart tenant list --json")
@_json
@_root
def list_tenants(as_json: bool, root: Path | None) -> None:
    """List every tenant; exits 2 when one is broken."""
    fleet = load_fleet((root or find_root()).resolve())
    if as_json:
        click.echo(json.dumps(_fleet_report(fleet)))
    else:
        for tenant in fleet.tenants:
            click.echo(_line(tenant))
        for folder in sorted(fleet.broken):
            click.echo(f"{folder}: broken")
        for problem in fleet.problems:
            click.echo(str(problem), err=True)
    if fleet.broken:
        raise SystemExit(BROKEN)


@click.command("show", epilog="Example: mozart tenant show acme")
@click.argument("tenant_id", metavar="TENANT")
@_json
@_root
def show_tenant(tenant_id: str, as_json: bool, root: Path | None) -> None:
    """Show one tenant, ${VARIABLES} unresolved; exits 2 when it is broken or unknown."""
    try:
        tenant = load_fleet((root or find_root()).resolve()).tenant(tenant_id)
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        raise SystemExit(BROKEN) from error
    report = tenant.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(_line(tenant))
    for key, text in tenant.source.connection.items():
        click.echo(f"  {key}: {text}")
    click.echo(f"  storage: {tenant.storage.bucket}/{tenant.storage.prefix}")
    click.echo(f"  iceberg: {tenant.iceberg.catalog}.{tenant.iceberg.schema_name}")
    for table in tenant.tables:
        source = f"{table.source_schema}.{table.source_table}" if table.source_schema else table.source_table
        click.echo(f"  table {table.name}: {source}, {table.mode}")


def _line(tenant: Tenant) -> str:
    schedule = f"{tenant.schedule} {tenant.timezone}" if tenant.schedule else "on request"
    count = len(tenant.tables)
    return f"{tenant.id}: {tenant.source.type}, {count} table{'' if count == 1 else 's'}, {schedule}"


def _fleet_report(fleet: Fleet) -> dict[str, Any]:
    tenants = [
        {"id": t.id, "type": t.source.type, "tables": len(t.tables), "schedule": t.schedule, "timezone": t.timezone}
        for t in fleet.tenants
    ]
    problems = [{"file": p.file, "key": p.key, "message": p.message} for p in fleet.problems]
    return {"tenants": tenants, "broken": sorted(fleet.broken), "problems": problems}
