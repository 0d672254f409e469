"""Two tenants with a lake of their own each, on one Trino: a catalog, a login and an identity of the store for each.

What the identities may do without Trino is tested in `tests/integration/services/test_dedicated_lakes.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mozart.engine.dbt_run import build_models
from mozart.engine.trino_client import open_trino
from mozart.engine.trino_models import TrinoModels
from mozart.errors import MozartError, TerminalError
from mozart.lake.lakehouse import Lakehouse
from mozart.services.trino import Trino
from mozart.tenancy.names import Namespaces, namespaces
from tests.integration.engine.conftest import make_tiny
from tests.trino.conftest import Login

ATTEMPTS = (
    "SHOW SCHEMAS FROM {catalog}",
    "SHOW TABLES FROM {catalog}.{schema}",
    "SELECT * FROM {table}",
    "INSERT INTO {table} VALUES (2, 'x')",
    "DELETE FROM {table}",
    "CREATE OR REPLACE TABLE {table} AS SELECT 1 AS id",
    "CREATE TABLE {catalog}.{schema}.mine AS SELECT 1 AS id",
    "CREATE SCHEMA {catalog}.{own}",
    "ALTER TABLE {table} EXECUTE optimize",
    "DROP TABLE {table}",
    "DROP SCHEMA {catalog}.{schema} CASCADE",
    "SELECT * FROM iceberg.information_schema.tables",
)


@pytest.fixture(scope="module")
def tenants(trino: Trino, dedicated_lakes: Mapping[str, Lakehouse]) -> tuple[Namespaces, ...]:
    """Each with a table in its own lake."""
    found = tuple(namespaces(catalog, f"ded_{secrets.token_hex(3)}") for catalog in dedicated_lakes)
    with open_trino(trino.address) as session:
        for spaces in found:
            session.execute(f"CREATE SCHEMA {spaces.catalog}.{spaces.core}")
            session.execute(f"CREATE TABLE {spaces.catalog}.{spaces.core}.cases AS SELECT 1 AS id, 'x' AS secret")
    return found


def test_a_login_reaches_its_own_lake_and_no_other(login: Login, trino: Trino, tenants: tuple[Namespaces, ...]) -> None:
    first, second = tenants
    table = f"{second.catalog}.{second.core}.cases"
    granted: list[str] = []
    with open_trino(login(first)) as session:
        assert session.execute(f"SELECT id FROM {first.core}.cases") == [(1,)]  # its catalog is the session's
        session.execute(f"CREATE OR REPLACE TABLE {first.core}.mart_x AS SELECT 2 AS id")
        assert session.execute("SHOW CATALOGS") == [(first.catalog,), ("system",)]
        for attempt in ATTEMPTS:
            sql = attempt.format(catalog=second.catalog, schema=second.core, table=table, own=first.core)
            try:
                session.execute(sql)
                granted.append(sql)
            except TerminalError:
                continue
    assert granted == []
    with open_trino(trino.address) as session:
        assert session.execute(f"SELECT id FROM {table}") == [(1,)]


def test_not_even_the_operator_reaches_one_lake_through_the_catalog_of_another(
    trino: Trino, tenants: tuple[Namespaces, ...], dedicated_lakes: Mapping[str, Lakehouse]
) -> None:
    """Whom Trino's rules let do everything, the identity of the catalog stops: no rule stands between the lakes."""
    first, second = tenants
    victim = dedicated_lakes[second.catalog].catalog().load_table((second.core, "cases"))
    with open_trino(trino.address) as session:
        for sql in (
            f"CREATE TABLE {first.catalog}.{first.core}.over (id integer) WITH (location = '{victim.location()}')",
            f"CALL {first.catalog}.system.register_table('{first.core}', 'taken', '{victim.location()}')",
        ):
            with pytest.raises(MozartError):
                session.execute(sql)
        assert session.execute(f"SELECT id FROM {second.catalog}.{second.core}.cases") == [(1,)]


def test_models_are_built_in_the_lake_of_the_tenant(
    login: Login, tiny_root: Path, dedicated_lakes: Mapping[str, Lakehouse]
) -> None:
    spaces = namespaces("first_lake", f"own_{secrets.token_hex(3)}")
    tiny = make_tiny(tiny_root, dedicated_lakes[spaces.catalog], spaces.core)
    engine = TrinoModels(login(spaces))
    request = replace(tiny.request(), catalog=spaces.catalog)
    results = build_models(request, tiny.lakehouse, tiny.events.append, engine)
    assert {result.status for result in results} == {"published"}, [result.reason for result in results]
    assert tiny.rows("mart_case") == [(1, "a", 12), (2, "b", 0)]
