"""`mozart tenant drop`: remove the data of a tenant that has left the project. Nothing else removes a tenant's data."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import click
from pydantic import SecretStr

from mozart.cli.connect import prefect_client
from mozart.errors import ConfigurationError, Problem
from mozart.fleet.branch_removal import require_no_runs
from mozart.fleet.plan import LAKEHOUSE_TAG, TENANT_FLOWS, FleetEnvironment
from mozart.fleet.prune import find_deployments
from mozart.lake.lakehouse import Lakehouse, lakehouse_from_settings
from mozart.lake.removal import find_tenant_data, remove_tenant_data
from mozart.settings import Settings, load_settings
from mozart.tenancy import names
from mozart.tenancy.footprint import Footprint, collisions, declared_footprint, prefix_parts, resolved_footprint
from mozart.tenancy.load import load_fleet
from mozart.tenancy.model import Tenant
from mozart.tenancy.names import SHARED_CATALOG
from mozart.tenancy.resolve import resolve

_OWN_OPTIONS = ("--catalog", "--warehouse", "--bucket", "--access-key-id", "--secret-access-key")


@dataclass(frozen=True)
class _OwnLake:
    """The lake of the tenant's own; the identity by the names of the variables that hold it."""

    catalog: str
    warehouse: str
    bucket: str
    access_key_id: str
    secret_access_key: str


@click.command("drop", epilog="Example: mozart tenant drop acme --dry-run")
@click.argument("tenant_id", metavar="TENANT")
@click.option("--schema", help="Its iceberg.schema, when that was not its id.")
@click.option("--bucket", help="Its storage.bucket, when that was not the project's.")
@click.option("--prefix", help="Its storage.prefix, when that was not raw/{id}.")
@click.option("--catalog", help="Its iceberg.catalog, when it had a lake of its own.")
@click.option("--warehouse", help="Its iceberg.warehouse, then.")
@click.option("--access-key-id", metavar="VARIABLE", help="The variable that holds its storage.access_key_id, then.")
@click.option("--secret-access-key", metavar="VARIABLE", help="The variable that holds the secret of that key, then.")
@click.option("--dry-run", is_flag=True, help="Say what is there and remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def drop_tenant(
    tenant_id: str,
    *,
    schema: str | None,
    bucket: str | None,
    prefix: str | None,
    catalog: str | None,
    warehouse: str | None,
    access_key_id: str | None,
    secret_access_key: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove the tables and landing files of a tenant that has left the project.

    First remove its folder and run `mozart deploy`, which says where its data lies. Refused while the folder, a
    deployment or a run of it is there, and when another tenant writes to any of these places. A lake of the tenant's
    own is named by --catalog, --warehouse, --bucket, --access-key-id and --secret-access-key, all five; the last two
    take the names of variables, from the environment or .env. Cannot be undone.
    """
    settings = load_settings()
    if settings.branch:
        raise ConfigurationError("a branch is removed whole, with `mozart deploy --remove`")
    mistake = names.namespace_mistake(tenant_id) or (schema and names.namespace_mistake(schema))
    if mistake:
        raise ConfigurationError(Problem("command line", "TENANT or --schema", mistake))
    own = _own_lake((catalog, warehouse, bucket, access_key_id, secret_access_key))
    lakehouse = _place(settings, own).model_copy(update={"prefix": prefix or names.landing_prefix(tenant_id)})
    if bucket:
        lakehouse = lakehouse.model_copy(update={"bucket": bucket})
    spaces = names.namespaces(own.catalog if own else SHARED_CATALOG, schema or tenant_id)
    _require_left(settings, tenant_id, spaces, lakehouse)
    asyncio.run(_require_idle(settings, tenant_id))
    found = find_tenant_data(lakehouse, spaces)
    places = f"{spaces.raw} and {spaces.core} of warehouse {lakehouse.warehouse}, and {lakehouse.landing_uri}"
    if found.is_empty:
        hint = "" if own else f"; a lake of its own is named by {', '.join(_OWN_OPTIONS)}"
        click.echo(f"There is no data of {tenant_id} in {places}{hint}.")
        return
    click.echo(f"{places}: {found.line}.")
    if dry_run:
        return
    if not yes:
        click.confirm("Remove all of it, for good?", abort=True)
    remove_tenant_data(lakehouse, spaces, lambda line: click.echo(f"  {line}"))
    click.echo(f"The data of {tenant_id} is gone.")
    if own:
        click.echo(
            f"Not Mozart's to remove: bucket {own.bucket}, warehouse {own.warehouse}, the identity in"
            f" {own.access_key_id}, and on Trino the catalog {own.catalog}."
        )


def _own_lake(values: Sequence[str | None]) -> _OwnLake | None:
    """The lake that the options name, in their order; a bucket alone is one of the shared lake."""
    given = [option for option, value in zip(_OWN_OPTIONS, values, strict=True) if value]
    if given in ([], ["--bucket"]):
        return None
    missing = [option for option in _OWN_OPTIONS if option not in given]
    if missing:
        raise ConfigurationError(f"a lake of the tenant's own needs also {', '.join(missing)}")
    own = _OwnLake(*(value or "" for value in values))
    if own.catalog == SHARED_CATALOG:
        raise ConfigurationError(Problem("command line", "--catalog", f"{SHARED_CATALOG} is the shared lake's"))
    return own


def _place(settings: Settings, own: _OwnLake | None) -> Lakehouse:
    """The shared lake, or the tenant's own on the same store and catalog."""
    shared = lakehouse_from_settings(settings)
    if own is None:
        return shared
    if own.warehouse == shared.warehouse:
        raise ConfigurationError(Problem("command line", "--warehouse", f"{own.warehouse} is the shared lake's"))
    identity = {
        "access_key_id": _variable(settings, "--access-key-id", own.access_key_id),
        "secret_access_key": SecretStr(_variable(settings, "--secret-access-key", own.secret_access_key)),
    }
    return shared.model_copy(update={"warehouse": own.warehouse, "bucket": own.bucket, **identity})


def _variable(settings: Settings, option: str, name: str) -> str:
    """The variable's value. A name that is none is not repeated: it may be the secret itself."""
    if name not in settings.values:
        message = "takes the name of a variable that is set in the environment or .env, and there is none of this name"
        raise ConfigurationError(Problem("command line", option, message))
    return settings.get(name)


def _require_left(settings: Settings, tenant_id: str, spaces: names.Namespaces, lakehouse: Lakehouse) -> None:
    fleet = load_fleet(settings.root)
    if tenant_id in fleet.broken or any(tenant.id == tenant_id for tenant in fleet.tenants):
        raise ConfigurationError(f"tenants/{tenant_id} is still there; remove the folder and run `mozart deploy` first")
    if fleet.broken:
        # Where a tenant writes whose file cannot be read is not known: it could be here.
        raise ConfigurationError([Problem("command line", "TENANT", "mend these files first"), *fleet.problems])
    leaving = Footprint(
        tenant_id=tenant_id,
        warehouse=lakehouse.warehouse,
        catalog=spaces.catalog,
        schema=spaces.core,
        bucket=lakehouse.bucket,
        prefix=prefix_parts(lakehouse.prefix),
    )
    for tenant in fleet.tenants:
        if any(collisions([leaving, place]) for place in _footprints(settings, tenant)):
            raise ConfigurationError(f"tenant {tenant.id!r} writes there too; nothing of {tenant_id} was removed")


def _footprints(settings: Settings, tenant: Tenant) -> list[Footprint]:
    """Where the tenant writes: with the values known here, and in any case with what its file tells."""
    declared = declared_footprint(tenant, settings.get("ICEBERG_WAREHOUSE"))
    try:
        return [declared, resolved_footprint(resolve(tenant, settings.values), settings.get("ICEBERG_WAREHOUSE"))]
    except ConfigurationError:  # its secrets need not be known here
        return [declared]


async def _require_idle(settings: Settings, tenant_id: str) -> None:
    """No deployment left and no run under way, as the Prefect API says."""
    tag = names.tenant_tag(tenant_id)
    async with prefect_client(settings) as client:
        for flow_name in TENANT_FLOWS:
            for deployment in await find_deployments(client, flow_name, FleetEnvironment.of(settings)):
                if tag in deployment.tags:
                    raise ConfigurationError(f"deployment {flow_name}/{deployment.name} is there; run `mozart deploy`")
        await require_no_runs(client, [LAKEHOUSE_TAG, tag])
