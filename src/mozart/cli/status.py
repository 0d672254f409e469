"""`mozart status`: the tenants' last runs, and whether each is well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import click

from mozart.cli.connect import prefect_client
from mozart.fleet.plan import DeploymentSpec, FleetEnvironment, plan_fleet
from mozart.fleet.status import TenantStatus, read_status
from mozart.settings import Settings, load_settings
from mozart.tenancy.load import load_fleet

UNWELL = 1


@click.command(epilog="Example: mozart status --json")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; times in ISO 8601, UTC.")
def command(as_json: bool) -> None:
    """Show each tenant's last run, its last good one and the next.

    Exits 1 when a tenant is unwell: not deployed, its last run failed, or its schedule passed twice without a good run.
    A tenant whose file is broken is named; what is deployed of it goes on.
    """
    settings = load_settings()
    fleet = load_fleet(settings.root)
    plan = plan_fleet(fleet.tenants, FleetEnvironment.of(settings))
    statuses = asyncio.run(_read(settings, plan.deployments))
    broken = [str(problem) for problem in fleet.problems]
    if as_json:
        click.echo(json.dumps({"tenants": [_json(status) for status in statuses], "broken": broken}))
    else:
        for status in statuses:
            click.echo(_line(status, datetime.now(UTC)))
        for problem in broken:
            click.echo(problem, err=True)
    if broken or any(status.problem for status in statuses):
        raise SystemExit(UNWELL)


async def _read(settings: Settings, deployments: Sequence[DeploymentSpec]) -> list[TenantStatus]:
    async with prefect_client(settings) as client:
        return await read_status(client, deployments)


def _json(status: TenantStatus) -> dict[str, object]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(status).items()}


def _line(status: TenantStatus, now: datetime) -> str:
    if status.last_state is None:
        last = "no run yet"
    else:
        took = f", took {status.seconds:.0f} s" if status.seconds is not None else ""
        last = f"{status.last_state} {_ago(status.last_ended_at, now)}{took}"
    coming = f"next {status.next_at:%H:%M} UTC" if status.next_at else "not scheduled"
    parts = [f"{status.tenant:<12} {last}", *([f"now {status.under_way}"] if status.under_way else []), coming]
    text = "; ".join(parts)
    return f"{text}\n    {status.problem}" if status.problem else text


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "at an unknown time"
    minutes = int((now - moment).total_seconds() // 60)
    if minutes < 60:
        return f"{max(minutes, 0)} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days ago"
