"""`mozart doctor`: what keeps the fleet from working, with the cure of each finding."""

from __future__ import annotations

import asyncio
import json

import click

from mozart.cli.connect import prefect_client
from mozart.fleet.doctor import Finding, end_stuck_runs, examine
from mozart.fleet.plan import FleetEnvironment, plan_fleet
from mozart.settings import Settings, load_settings
from mozart.tenancy.load import load_fleet

UNWELL = 1


@click.command(epilog="Example: mozart doctor --fix")
@click.option("--fix", is_flag=True, help="End runs that a worker took and that never started.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of what was looked at.")
def command(fix: bool, as_json: bool) -> None:
    """Look for what keeps the fleet from working: server, workers, automations, blocks, sources, the lake, Trino.

    Says the cure of each finding and changes nothing without --fix. Exits 1 when something is wrong.
    """
    findings = asyncio.run(_examine(load_settings(), fix=fix, quiet=as_json))
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings]))
    if any(finding.problem for finding in findings):
        raise SystemExit(UNWELL)


async def _examine(settings: Settings, *, fix: bool, quiet: bool) -> list[Finding]:
    fleet = load_fleet(settings.root)
    plan = plan_fleet(fleet.tenants, FleetEnvironment.of(settings))

    def report(finding: Finding) -> None:
        if not quiet:
            _show(finding)

    async with prefect_client(settings) as client:
        if fix:
            for run in await end_stuck_runs(client):
                report(Finding(f"run {run.name}: ended as Crashed"))
        findings = await examine(client, plan, settings, report)
    broken = [Finding(problem.file, f"{problem.key}: {problem.message}") for problem in fleet.problems]
    for finding in broken:
        report(finding)
    return [*findings, *broken]


def _show(finding: Finding) -> None:
    if finding.problem is None:
        click.echo(f"  ok  {finding.what}")
    else:
        click.secho(f"  !!  {finding.what}: {finding.problem}", fg="red")
