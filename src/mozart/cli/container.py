"""What the containers of `docker-compose.yml` and `deploy/kubernetes` do beside the commands that people type.

They prepare what `mozart up` prepares for the local stack: work pools, Trino's certificate and first logins, the sample
sources; and they say whether a server or a worker is well. Each may be run again without harm. No part of the `mozart`
command: a person has no use for them.

Pitfall: the pools are made by plain HTTP without a login. For Prefect Cloud, or a server that asks for one, make them
with Prefect's own command (docs/guides/deployment.md).

Run as `python -m mozart.cli.container pools`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import click
import httpx

from mozart.errors import ConfigurationError, MozartError
from mozart.services import loopback
from mozart.services.pools import ensure_pools
from mozart.settings import Settings, load_settings

_SILENT = timedelta(seconds=90)
"""How long a worker may say nothing; it says that it is alive every 30 seconds."""


@click.group()
def cli() -> None:
    """Prepare and check the containers of the distributed stack."""


@cli.command()
def pools() -> None:
    """Make the work pools at the Prefect API, or give those that are there their job templates."""
    settings = load_settings()
    ensure_pools(settings.prefect_api_url, settings.root)
    click.echo(f"the work pools stand at {settings.prefect_api_url}")


@cli.command("trino-access")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", required=True, help="The name or the address by which clients know the coordinator.")
def trino_access(folder: Path, host: str) -> None:
    """Write what Trino needs before its first start: a certificate, and the logins of operator and reader.

    Tenants that have a login keep it; `mozart deploy` gives them theirs.
    """
    from mozart.engine.trino_client import trino_from_settings  # noqa: PLC0415 - other commands need no Trino client
    from mozart.services.trino_certificate import ensure_certificate  # noqa: PLC0415
    from mozart.services.trino_logins import TrinoLogins  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    ensure_certificate(folder / "server.pem", folder / "certificate.pem", host)
    TrinoLogins(folder, trino_from_settings(load_settings())).write()
    click.echo(f"certificate and logins of Trino are in {folder}")


@cli.command()
@click.option("--scale", default=1.0, show_default=True, help="Size of the samples; 1 is 40,000 cases of acme.")
def samples(scale: float) -> None:
    """Fill the sample sources and the sample OLTP tables; those that are there stay as they are."""
    settings = load_settings()
    makers: dict[str, Callable[[Settings, float], int]] = {
        "acme": _make_acme,
        "harbor": _make_harbor,
        "atlas": _make_atlas,
        "axiom": _make_axiom,
    }
    for name, make in makers.items():
        click.echo(f"{name}: {make(settings, scale):,} rows")


@cli.command()
@click.option("--server", help="The Prefect API whose health is asked.")
@click.option("--pool", help="The work pool that --worker serves.")
@click.option("--worker", help="The worker whose heartbeat is looked for, at the API of the settings.")
def health(server: str | None, pool: str | None, worker: str | None) -> None:
    """Exit 0 if the server answers, or the worker was heard of lately; else 1 with the reason."""
    try:
        problem = _server_problem(server) if server else _worker_problem(pool, worker)
    except httpx.HTTPError as error:
        problem = loopback.reason(error)
    if problem:
        click.echo(problem, err=True)
        sys.exit(1)


def _server_problem(api_url: str) -> str | None:
    answer = loopback.client().get(f"{api_url}/health")
    return None if answer.is_success else f"{api_url}/health answers {answer.status_code}"


def _worker_problem(pool: str | None, worker: str | None) -> str | None:
    if not pool or not worker:
        raise ConfigurationError("name a server with --server, or a worker with --pool and --worker")
    api_url = load_settings().prefect_api_url
    answer = loopback.client().post(f"{api_url}/work_pools/{pool}/workers/filter", json={})
    answer.raise_for_status()
    known = {item["name"]: item["last_heartbeat_time"] for item in cast(list[dict[str, Any]], answer.json())}
    heard = known.get(worker)
    if heard is None:
        return f"pool {pool} knows no worker {worker}"
    silence = datetime.now(UTC) - datetime.fromisoformat(heard.replace("Z", "+00:00"))
    return None if silence < _SILENT else f"worker {worker} was last heard of {silence.total_seconds():.0f} s ago"


def _make_acme(settings: Settings, scale: float) -> int:
    from samples import axiom_core  # noqa: PLC0415 - the samples are no part of the package

    with _as_superuser(settings, "acme") as connection:
        counts = axiom_core.create(connection, scale=scale)
        axiom_core.grant_reader(connection, _role(settings, "acme"))
    return sum(counts.values())


def _make_harbor(settings: Settings, scale: float) -> int:
    from samples import harbor  # noqa: PLC0415 - see above

    with _as_superuser(settings, "harbor") as connection:
        counts = harbor.create(connection, scale=scale)
        harbor.grant_reader(connection, _role(settings, "harbor"))
    return sum(counts.values())


def _make_atlas(settings: Settings, scale: float) -> int:
    from samples import atlas  # noqa: PLC0415 - see above

    file = settings.root / settings.get("ATLAS_DB_FILE")
    file.parent.mkdir(parents=True, exist_ok=True)
    counts = atlas.create(file, scale=scale)
    atlas.grant_reader(file)
    return sum(counts.values())


def _make_axiom(settings: Settings, scale: float) -> int:
    from mozart.olap.database import olap_database_from_settings  # noqa: PLC0415 - other commands need no database
    from mozart.sql import quote_identifier  # noqa: PLC0415
    from samples import axiom_core  # noqa: PLC0415 - see above

    database = olap_database_from_settings(settings)
    with database.connect(autocommit=False) as connection:
        # The login is called as Mozart's own schema is, which by default would come first.
        connection.execute(f"SET search_path = {quote_identifier(database.source_schema)}".encode())
        connection.commit()
        return sum(axiom_core.create(connection, scale=scale).values())


def _as_superuser(settings: Settings, tenant: str) -> Any:
    from mozart.services.postgres import SUPERUSER, Database  # noqa: PLC0415 - other commands need no database

    prefix = tenant.upper()
    database = Database(
        host=settings.get(f"{prefix}_DB_HOST"),
        port=settings.port(f"{prefix}_DB_PORT"),
        name=settings.values.get(f"{prefix}_DB_NAME") or tenant,
        user=SUPERUSER,
        password=settings.get("MOZART_POSTGRES_PASSWORD"),
    )
    return database.connect()


def _role(settings: Settings, tenant: str) -> str:
    return settings.values.get(f"{tenant.upper()}_DB_USER") or tenant


def main() -> None:
    """Run one of the commands; a Mozart error becomes one line and exit code 1."""
    try:
        cli.main()
    except MozartError as error:
        click.echo(f"mozart: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
