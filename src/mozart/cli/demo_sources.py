"""The sources of `mozart demo`: three sample systems, made in the stack's PostgreSQL and in a file below `.mozart`.

What is there with the same scale is left as it is; with another, the sample's own error says so. Every function here
blocks, and different sources may be made side by side.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from mozart.services.postgres import Postgres
from mozart.settings import Settings

SOURCE_SECRETS = ("ACME_DB_PASSWORD", "HARBOR_DB_PASSWORD")
"""Passwords that the sources' databases get; the tenants' files name them."""

MakeSource = Callable[[Postgres, Settings, float], Mapping[str, int]]
"""Makes one source at a scale, readable for its tenant; rows by table."""


def _make_acme(postgres: Postgres, settings: Settings, scale: float) -> Mapping[str, int]:
    from samples import axiom_core  # noqa: PLC0415 - the samples are no part of the package; only the demo needs them

    name, role = _create_database(postgres, settings, "acme")
    with postgres.superuser(name).connect() as connection:
        counts = axiom_core.create(connection, scale=scale)
        axiom_core.grant_reader(connection, role)
    return counts


def _make_harbor(postgres: Postgres, settings: Settings, scale: float) -> Mapping[str, int]:
    from samples import harbor  # noqa: PLC0415 - see above

    name, role = _create_database(postgres, settings, "harbor")
    with postgres.superuser(name).connect() as connection:
        counts = harbor.create(connection, scale=scale)
        harbor.grant_reader(connection, role)
    return counts


def _make_atlas(_postgres: Postgres, settings: Settings, scale: float) -> Mapping[str, int]:
    from samples import atlas  # noqa: PLC0415 - see above

    file = settings.root / settings.values.get("ATLAS_DB_FILE", Path(".mozart", "samples", "atlas.db"))
    file.parent.mkdir(parents=True, exist_ok=True)
    counts = atlas.create(file, scale=scale)
    atlas.grant_reader(file)
    return counts


SOURCES: Mapping[str, tuple[str, MakeSource]] = {
    "acme": ("Axiom Core, a PostgreSQL database of its own", _make_acme),
    "harbor": ("a PostgreSQL database shared by four customers", _make_harbor),
    "atlas": ("a desktop program's SQLite file", _make_atlas),
}
"""What each sample tenant's source is, and how it is made."""


def change_acme(postgres: Postgres, settings: Settings) -> int:
    """Let business go on in acme's source; how many rows changed."""
    from samples import axiom_core  # noqa: PLC0415 - see above

    with postgres.superuser(_database_name(settings, "acme")).connect() as connection:
        changes = axiom_core.apply_changes(connection, seed=secrets.randbelow(1_000_000), inserts=20, updates=80)
    return sum(count for what, count in changes.items() if not what.startswith("event_outbox"))


def _create_database(postgres: Postgres, settings: Settings, tenant: str) -> tuple[str, str]:
    name, role = _database_name(settings, tenant), settings.values.get(f"{tenant.upper()}_DB_USER", tenant)
    postgres.create_database(name, owner=role, password=settings.get(f"{tenant.upper()}_DB_PASSWORD"))
    return name, role


def _database_name(settings: Settings, tenant: str) -> str:
    return settings.values.get(f"{tenant.upper()}_DB_NAME", tenant)
