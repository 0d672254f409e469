"""`mozart deploy`: apply the fleet to the Prefect API: blocks, limits, automations, deployments."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import click

from mozart.cli.connect import prefect_client
from mozart.errors import ConfigurationError
from mozart.fleet.apply import apply_plan
from mozart.fleet.changes import Applied
from mozart.fleet.plan import FleetEnvironment, plan_fleet
from mozart.lake.lakehouse import lakehouse_from_settings
from mozart.settings import Settings, load_settings
from mozart.tenancy.load import load_fleet
from mozart.tenancy.model import ResolvedTenant, Tenant
from mozart.tenancy.resolve import resolve


@click.command(epilog="Example: mozart deploy")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def command(as_json: bool) -> None:
    """Apply the tenants' deployments, blocks, limits and automations to the Prefect API.

    Resolves the ${…} of every tenant.yaml from the environment or .env, puts the values into blocks, and changes only
    what differs. Exits 2 when a tenant's file is broken or a value is missing; nothing is applied then.
    """
    applied = deploy(load_settings(), quiet=as_json)
    if as_json:
        click.echo(json.dumps([vars(item) for item in applied]))
        return
    counts = Counter(item.change for item in applied)
    summary = ", ".join(f"{count} {change}" for change, count in sorted(counts.items()))
    click.echo(f"Deployed: {summary}." if set(counts) != {"unchanged"} else f"Nothing to change: {summary}.")


def deploy(settings: Settings, *, quiet: bool = False) -> list[Applied]:
    """Apply the whole fleet of the project; reports each change as it is made, unless `quiet`."""
    tenants, resolved = _read_tenants(settings)
    plan = plan_fleet(tenants, FleetEnvironment.of(settings))
    lakehouse = lakehouse_from_settings(settings)

    def report(item: Applied) -> None:
        if not quiet and item.change != "unchanged":
            click.echo(f"  {item.kind} {item.name}: {item.change}")

    async def run() -> list[Applied]:
        async with prefect_client(settings) as client:
            return await apply_plan(client, plan, resolved, lakehouse, report)

    return asyncio.run(run())


def _read_tenants(settings: Settings) -> tuple[list[Tenant], list[ResolvedTenant]]:
    fleet = load_fleet(settings.root)
    problems = list(fleet.problems)
    resolved: list[ResolvedTenant] = []
    for tenant in fleet.tenants:
        try:
            resolved.append(resolve(tenant, settings.values))
        except ConfigurationError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigurationError(problems)
    return list(fleet.tenants), resolved
