"""`mozart tenant drop`: remove the data of a tenant that has left the project. Nothing else removes a tenant's data."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from mozart.cli.connect import prefect_client
from mozart.errors import ConfigurationError, Problem
from mozart.fleet.branch_removal import require_no_runs
from mozart.fleet.plan import LAKEHOUSE_TAG, TENANT_FLOWS, FleetEnvironment
from mozart.fleet.prune import find_deployments
from mozart.lake.lakehouse import Lakehouse, lakehouse_from_settings
from mozart.lake.removal import find_tenant_data, remove_tenant_data
from mozart.settings import Settings, load_settings
from mozart.tenancy import names
from mozart.tenancy.footprint import Footprint, collisions, declared_footprint
from mozart.tenancy.load import load_fleet


@click.command("drop", epilog="Example: mozart tenant drop acme --dry-run")
@click.argument("tenant_id", metavar="TENANT")
@click.option("--schema", help="Its iceberg.schema, when that was not its id.")
@click.option("--bucket", help="Its storage.bucket, when that was not the project's.")
@click.option("--prefix", help="Its storage.prefix, when that was not raw/{id}.")
@click.option("--dry-run", is_flag=True, help="Say what is there and remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def drop_tenant(
    tenant_id: str, *, schema: str | None, bucket: str | None, prefix: str | None, dry_run: bool, yes: bool
) -> None:
    """Remove the tables and landing files of a tenant that has left the project.

    First remove its folder and run `mozart deploy`, which says where its data lies. Refused while the folder, a
    deployment or a run of it is there, and when another tenant writes to any of these places. Cannot be undone.
    """
    settings = load_settings()
    if settings.branch:
        raise ConfigurationError("a branch is removed whole, with `mozart deploy --remove`")
    mistake = names.namespace_mistake(tenant_id) or (schema and names.namespace_mistake(schema))
    if mistake:
        raise ConfigurationError(Problem("command line", "TENANT or --schema", mistake))
    lakehouse = lakehouse_from_settings(settings)
    lakehouse = lakehouse.model_copy(
        update={"bucket": bucket or lakehouse.bucket, "prefix": prefix or names.landing_prefix(tenant_id)}
    )
    spaces = names.namespaces("iceberg", schema or tenant_id)
    _require_left(settings, tenant_id, spaces, lakehouse)
    asyncio.run(_require_idle(settings, tenant_id))
    found = find_tenant_data(lakehouse, spaces)
    if found.is_empty:
        click.echo(f"There is no data of {tenant_id} in {spaces.raw}, {spaces.core} and {lakehouse.landing_uri}.")
        return
    click.echo(f"{spaces.raw}, {spaces.core} and {lakehouse.landing_uri}: {found.line}.")
    if dry_run:
        return
    if not yes:
        click.confirm("Remove all of it, for good?", abort=True)
    remove_tenant_data(lakehouse, spaces, lambda line: click.echo(f"  {line}"))
    click.echo(f"The data of {tenant_id} is gone.")


def _require_left(settings: Settings, tenant_id: str, spaces: names.Namespaces, lakehouse: Lakehouse) -> None:
    fleet = load_fleet(settings.root)
    if tenant_id in fleet.broken or any(tenant.id == tenant_id for tenant in fleet.tenants):
        raise ConfigurationError(f"tenants/{tenant_id} is still there; remove the folder and run `mozart deploy` first")
    if fleet.broken:
        # Where a tenant writes whose file cannot be read is not known: it could be here.
        raise ConfigurationError([Problem("command line", "TENANT", "mend these files first"), *fleet.problems])
    prefix = tuple(part for part in lakehouse.prefix.split("/") if part)
    leaving = Footprint(tenant_id, spaces.catalog, spaces.core, lakehouse.bucket, prefix)
    _require_own([leaving, *(declared_footprint(tenant) for tenant in fleet.tenants)], tenant_id)


def _require_own(footprints: Sequence[Footprint], tenant_id: str) -> None:
    for other in footprints[1:]:
        if collisions([footprints[0], other]):
            raise ConfigurationError(f"tenant {other.tenant_id!r} writes there too; nothing of {tenant_id} was removed")


async def _require_idle(settings: Settings, tenant_id: str) -> None:
    """No deployment left and no run under way, as the Prefect API says."""
    tag = names.tenant_tag(tenant_id)
    async with prefect_client(settings) as client:
        for flow_name in TENANT_FLOWS:
            for deployment in await find_deployments(client, flow_name, FleetEnvironment.of(settings)):
                if tag in deployment.tags:
                    raise ConfigurationError(f"deployment {flow_name}/{deployment.name} is there; run `mozart deploy`")
        await require_no_runs(client, [LAKEHOUSE_TAG, tag])
