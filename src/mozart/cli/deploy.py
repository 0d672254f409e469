"""`mozart deploy`: apply the fleet to the Prefect API, or take a branch away."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from mozart.cli.connect import prefect_client
from mozart.cli.sync import project_views
from mozart.errors import ConfigurationError, Problem
from mozart.fleet.apply import apply_plan
from mozart.fleet.branch_removal import remove_branch
from mozart.fleet.changes import Applied
from mozart.fleet.logins import apply_logins, find_login_clashes
from mozart.fleet.olap_apply import apply_olap_automations, apply_olap_blocks, olap_access_from_settings
from mozart.fleet.olap_plan import with_olap
from mozart.fleet.plan import FleetEnvironment, plan_fleet
from mozart.fleet.rehearsal import rehearsing
from mozart.lake.lakehouse import lakehouse_from_settings
from mozart.olap.registry import ViewRegistry
from mozart.settings import Settings, load_settings
from mozart.tenancy.footprint import check_resolved, declared_footprint
from mozart.tenancy.load import load_fleet
from mozart.tenancy.model import ResolvedTenant, Tenant
from mozart.tenancy.names import Namespaces, dbt_target_folder, namespaces
from mozart.tenancy.resolve import resolve

BROKEN = 2


@dataclass(frozen=True)
class DeployResult:
    """What was done, and the mistakes of the tenants and views that were left as they are."""

    applied: list[Applied]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Tenants:
    """The tenants that can be deployed, and the mistakes of the others by folder."""

    good: list[tuple[Tenant, ResolvedTenant]]
    broken: Mapping[str, tuple[Problem, ...]]


@click.command(epilog="Example: mozart deploy   or, to end a trial: MOZART_BRANCH=trial mozart deploy --remove")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--remove", is_flag=True, help="Take the branch away: deployments, runs, tables, files, blocks.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def command(as_json: bool, remove: bool, yes: bool) -> None:
    """Apply the tenants' deployments, blocks, limits and automations to the Prefect API, and their logins to Trino.

    Resolves the ${…} of every tenant.yaml from the environment or .env, puts the values into blocks, changes only what
    differs and removes what left the project (a tenant's data stays: see `mozart tenant drop`). A tenant whose file is
    broken or lacks a value keeps what it has; the others are deployed, and the exit code is 2.
    """
    settings = load_settings()
    if remove:
        _remove(settings, ask=not yes, quiet=as_json)
        return
    result = deploy(settings, quiet=as_json)
    if as_json:
        click.echo(json.dumps(as_plain(result)))
    else:
        _summarise(result)
    if result.problems:
        raise SystemExit(BROKEN)


def deploy(settings: Settings, *, quiet: bool = False, is_rehearsal: bool = False) -> DeployResult:
    """Apply the whole fleet of the project; reports each change as it is made, unless `quiet`.

    A rehearsal goes the same way and writes nothing; logins of tenants are not part of it.
    """
    tenants = _read_tenants(settings, with_logins=not is_rehearsal)
    views, view_problems = _read_views(settings)
    plan = with_olap(plan_fleet([tenant for tenant, _ in tenants.good], FleetEnvironment.of(settings)), views)
    lakehouse = lakehouse_from_settings(settings)
    access = olap_access_from_settings(settings) if plan.olap else None

    def report(item: Applied) -> None:
        if not quiet and item.change != "unchanged":
            click.echo(f"  {item.kind} {item.name}: {item.change}{f'; {item.note}' if item.note else ''}")

    async def run() -> list[Applied]:
        resolved = [resolved for _, resolved in tenants.good]
        async with prefect_client(settings) as connected:
            client = rehearsing(connected) if is_rehearsal else connected
            olap = await apply_olap_blocks(access, report, is_rehearsal=is_rehearsal) if access else []
            fleet = await apply_plan(
                client, plan, resolved, lakehouse, report, untouched=tenants.broken, is_rehearsal=is_rehearsal
            )
            if not view_problems:  # a view whose file is broken has not left
                olap += await apply_olap_automations(client, plan, access, report, is_rehearsal=is_rehearsal)
            return [*logins, *fleet, *olap]

    spaces = [resolved.namespaces(settings.suffix) for _, resolved in tenants.good]
    logins = [] if is_rehearsal else apply_logins(settings, spaces, report, keep=bool(tenants.broken))
    applied = asyncio.run(run())
    problems = [problem for folder in tenants.broken.values() for problem in folder]
    return DeployResult(applied, (*problems, *view_problems))


def _read_views(settings: Settings) -> tuple[ViewRegistry, tuple[Problem, ...]]:
    """The views; with mistakes in their files none, and then the OLAP layer is left as it was."""
    try:
        return project_views(settings.root), ()
    except ConfigurationError as error:
        return ViewRegistry(()), error.problems


def _read_tenants(settings: Settings, *, with_logins: bool = True) -> _Tenants:
    if not settings.tenants_folder.is_dir():
        # An empty fleet removes every tenant: it must be an empty folder, never a wrong path.
        raise ConfigurationError(f"there is no folder {settings.tenants_folder}; run from the project's folder")
    fleet = load_fleet(settings.root)
    broken = dict(fleet.broken)
    good: dict[str, tuple[Tenant, ResolvedTenant]] = {}
    for tenant in fleet.tenants:
        try:
            good[tenant.id] = (tenant, resolve(tenant, settings.values))
        except ConfigurationError as error:
            broken[tenant.id] = error.problems
    ready = [resolved for _, resolved in good.values()]
    for tenant_id, problems in check_resolved(ready, settings.get("ICEBERG_WAREHOUSE")).items():
        broken[tenant_id] = problems
        del good[tenant_id]
    if with_logins:
        left = [tenant for tenant in fleet.tenants if tenant.id in broken]
        for tenant_id, problem in _login_problems(settings, [one for _, one in good.values()], left).items():
            broken[tenant_id] = (problem,)
            del good[tenant_id]
    return _Tenants(list(good.values()), broken)


def _login_problems(
    settings: Settings, tenants: Sequence[ResolvedTenant], left: Sequence[Tenant]
) -> dict[str, Problem]:
    """The tenants that cannot have a login on Trino; `left` are those that are left as they are."""
    mine = {tenant.namespaces(settings.suffix): tenant.id for tenant in tenants}
    held: dict[Namespaces, str] = {}
    for place in map(declared_footprint, left):
        held[namespaces(place.catalog, place.schema, settings.suffix)] = place.tenant_id
    names = {**held, **mine}
    found: dict[str, Problem] = {}
    for spaces, other in find_login_clashes(settings, list(mine), held).items():
        owner = other if isinstance(other, str) else f"tenant {names[other]!r}"
        message = (
            f"tenant {mine[spaces]!r} would have the login {spaces.core!r} on Trino, which is taken by {owner};"
            f" give tenant {mine[spaces]!r} another schema"
        )
        found[mine[spaces]] = Problem(f"tenants/{mine[spaces]}/tenant.yaml", "tenant.iceberg.schema", message)
    return found


def as_plain(result: DeployResult) -> dict[str, object]:
    """The result as JSON has it."""
    return {
        "applied": [vars(item) for item in result.applied],
        "problems": [vars(problem) for problem in result.problems],
    }


def _summarise(result: DeployResult) -> None:
    counts = Counter(item.change for item in result.applied)
    summary = ", ".join(f"{count} {change}" for change, count in sorted(counts.items())) or "an empty project"
    click.echo(f"Nothing to change: {summary}." if set(counts) <= {"unchanged"} else f"Deployed: {summary}.")
    show_problems(result)


def show_problems(result: DeployResult) -> None:
    """One line each, on stderr."""
    for problem in result.problems:
        click.secho(f"not deployed, left as it was: {problem}", fg="red", err=True)


def _remove(settings: Settings, *, ask: bool, quiet: bool) -> None:
    branch = settings.branch
    if branch is None:
        raise ConfigurationError(
            "--remove takes a branch away and there is none: name it with MOZART_BRANCH. A tenant leaves production"
            " by removing its folder and `mozart deploy`; its data goes by `mozart tenant drop`"
        )
    if ask:
        click.confirm(f"Remove branch {branch} with its deployments, runs, tables and files?", abort=True)
    removed: list[str] = []

    def report(line: str) -> None:
        removed.append(line)
        if not quiet:
            click.echo(f"  {line}")

    async def run() -> None:
        async with prefect_client(settings) as client:
            await remove_branch(client, FleetEnvironment.of(settings), report)

    asyncio.run(run())
    for login in apply_logins(settings, ()):
        report(f"login {login.name} on Trino: {login.change}")
    for folder in (settings.state / "dbt").glob(f"*/{dbt_target_folder(settings.state, 'any', settings.suffix).name}"):
        shutil.rmtree(folder)
    if quiet:
        click.echo(json.dumps({"branch": branch, "removed": removed}))
        return
    click.echo(f"Branch {branch} is gone." if removed else f"There is nothing of branch {branch}.")
