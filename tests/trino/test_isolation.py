"""One tenant's login against another tenant's objects: reading, writing, listing, dropping, and the ways around."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from mozart.engine.trino_client import TrinoAddress, TrinoSession, open_trino, tenant_login
from mozart.errors import ConfigurationError, MozartError, TerminalError
from mozart.lake.lakehouse import Lakehouse
from mozart.services.trino import Trino
from mozart.services.trino_access import TrinoUser, access_rules, standard_users
from mozart.tenancy.names import Namespaces, candidates_namespace, namespaces
from tests.trino.conftest import Login


@pytest.fixture(scope="module")
def tenants() -> tuple[Namespaces, Namespaces]:
    """Two whose names begin alike: a rule that matched a part of a name would let one into the other."""
    name = f"iso_{secrets.token_hex(3)}"
    return namespaces("iceberg", name), namespaces("iceberg", f"{name}_two")


@pytest.fixture(scope="module")
def theirs(trino: Trino, tenants: tuple[Namespaces, Namespaces]) -> Namespaces:
    """The other tenant, with a table in each of its namespaces."""
    with open_trino(trino.address) as session:
        for spaces in tenants:
            for name in (spaces.core, spaces.raw, candidates_namespace(spaces.core)):
                session.execute(f"CREATE SCHEMA iceberg.{name}")
                session.execute(f"CREATE TABLE iceberg.{name}.cases AS SELECT 1 AS id, '{name}' AS secret")
    return tenants[1]


@pytest.fixture
def mine(login: Login, theirs: Namespaces, tenants: tuple[Namespaces, Namespaces]) -> Iterator[TrinoSession]:
    """A session with the first tenant's login."""
    assert theirs
    with open_trino(login(tenants[0])) as session:
        yield session


def test_a_tenant_works_on_its_own(mine: TrinoSession, tenants: tuple[Namespaces, Namespaces]) -> None:
    spaces = tenants[0]
    assert mine.execute(f"SELECT secret FROM iceberg.{spaces.raw}.cases") == [(spaces.raw,)]
    mine.execute(f"CREATE OR REPLACE TABLE iceberg.{spaces.core}.mart_x AS SELECT 1 AS id")
    mine.execute(f"INSERT INTO iceberg.{spaces.core}.mart_x VALUES 2")
    assert mine.fetch_one(f"SELECT sum(id) FROM iceberg.{spaces.core}.mart_x") == (3,)
    mine.execute(f"DROP TABLE iceberg.{spaces.core}.mart_x")


ATTEMPTS = (
    "SELECT * FROM {table}",
    'SELECT * FROM iceberg.{schema}."cases$files"',
    "SELECT * FROM TABLE(iceberg.system.table_changes('{schema}', 'cases', 1, 2))",
    "INSERT INTO {table} VALUES (2, 'x')",
    "UPDATE {table} SET id = 2",
    "DELETE FROM {table}",
    "MERGE INTO {table} t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE",
    "CREATE OR REPLACE TABLE {table} AS SELECT 1 AS id",
    "CREATE TABLE iceberg.{schema}.mine AS SELECT 1 AS id",
    "ALTER TABLE {table} EXECUTE optimize",
    "ALTER TABLE {table} EXECUTE expire_snapshots(retention_threshold => '0s')",
    "ALTER TABLE {table} EXECUTE remove_orphan_files(retention_threshold => '0s')",
    "ALTER TABLE {table} SET PROPERTIES max_commit_retry = 1",
    "ALTER TABLE {table} RENAME TO iceberg.{own}.taken",
    "ALTER TABLE {table} ADD COLUMN mine integer",
    "COMMENT ON TABLE {table} IS 'mine'",
    "ANALYZE {table}",
    "SHOW CREATE TABLE {table}",
    "SHOW STATS FOR {table}",
    "DESCRIBE {table}",
    "GRANT SELECT ON {table} TO USER {user}",
    "DROP TABLE {table}",
    "DROP SCHEMA iceberg.{schema} CASCADE",
    "ALTER SCHEMA iceberg.{schema} RENAME TO {own}_more",
    "CALL iceberg.system.register_table('{own}', 'taken', 's3://warehouse/{schema}/cases')",
    "CALL iceberg.system.unregister_table('{schema}', 'cases')",
    "CALL iceberg.system.rollback_to_snapshot('{schema}', 'cases', 1)",
)


@pytest.mark.parametrize("layer", ["core", "raw", "candidates"])
def test_nothing_of_another_tenant_can_be_reached(
    mine: TrinoSession, operator: TrinoSession, tenants: tuple[Namespaces, Namespaces], layer: str
) -> None:
    own, other = tenants
    schema = {"core": other.core, "raw": other.raw, "candidates": candidates_namespace(other.core)}[layer]
    table = f"iceberg.{schema}.cases"
    granted: list[str] = []
    for attempt in ATTEMPTS:
        sql = attempt.format(table=table, schema=schema, own=own.core, user=own.core)
        try:
            mine.execute(sql)
            granted.append(sql)
        except TerminalError as error:
            assert schema not in str(error).split("(query")[0].replace(table, "").replace(schema, "", 1), error
    assert granted == []
    assert operator.execute(f"SELECT id, secret FROM {table}") == [(1, schema)]


def test_nothing_of_another_tenant_is_listed(mine: TrinoSession, tenants: tuple[Namespaces, Namespaces]) -> None:
    own, other = tenants
    listed = {row[0] for row in mine.execute("SHOW SCHEMAS FROM iceberg")}
    assert {own.core, own.raw, candidates_namespace(own.core)} <= listed
    assert not {other.core, other.raw, candidates_namespace(other.core)} & listed
    rows = mine.execute("SELECT DISTINCT table_schema FROM iceberg.information_schema.tables")
    assert other.core not in {row[0] for row in rows}
    seen = {row[0] for row in mine.execute("SELECT DISTINCT schema_name FROM system.metadata.table_comments")}
    assert other.core not in seen
    assert mine.execute(f"SELECT * FROM iceberg.information_schema.columns WHERE table_schema = '{other.core}'") == []
    with pytest.raises(TerminalError):
        assert mine.execute(f"SHOW TABLES FROM iceberg.{other.core}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT query FROM system.runtime.queries",
        "SHOW TABLES FROM system.runtime",
        "SET SESSION AUTHORIZATION mozart",
        "INSERT INTO iceberg.{raw}.cases VALUES (3, 'x')",
        "DROP TABLE iceberg.{raw}.cases",
        "CREATE SCHEMA iceberg.{core}_more",
    ],
)
def test_other_ways_are_closed(mine: TrinoSession, tenants: tuple[Namespaces, Namespaces], sql: str) -> None:
    """Others' statements in the server's own tables, another's name, and raw, which only loads write."""
    with pytest.raises(TerminalError):
        assert not mine.execute(sql.format(raw=tenants[0].raw, core=tenants[0].core))


def test_a_password_opens_one_tenant_only(trino: Trino, login: Login, tenants: tuple[Namespaces, Namespaces]) -> None:
    first, second = (login(spaces) for spaces in tenants)
    assert len({first.password, second.password, trino.address.password}) == 3
    swapped = second.model_copy(update={"password": first.password})
    with open_trino(swapped) as session, pytest.raises(TerminalError, match="refuses the login"):
        session.execute("SELECT 1")


def test_resource_groups_are_in_force(trino: Trino, mine: TrinoSession, operator: TrinoSession) -> None:
    mine.execute("SELECT 42")
    groups = operator.execute(  # a statement that failed before it was queued has none
        "SELECT DISTINCT resource_group_id FROM system.runtime.queries "
        f"WHERE resource_group_id IS NOT NULL AND \"user\" = '{mine.address.username}'"
    )
    assert [list(row[0]) for row in groups] == [["mozart", f"tenant-{mine.address.username}"]]


def test_the_rules_name_each_tenant_once_and_end_with_no() -> None:
    operator = TrinoAddress(host="h", port=1, username="mozart", password=SecretStr("p" * 20))
    users = standard_users(operator, [namespaces("iceberg", "acme")])
    rules = json.loads(access_rules(users))
    assert rules["catalogs"][-1] == {"allow": "none"}
    assert rules["tables"][-1] == {"privileges": []}
    assert rules["schemas"][-1] == {"owner": False}
    own = [rule for rule in rules["tables"] if rule.get("user") == "acme" and rule.get("catalog") == "iceberg"]
    assert [rule["schema"] for rule in own] == ["acme|acme__candidates", "acme_raw"]
    assert [rule["privileges"] for rule in own][1] == ["SELECT"]
    assert tenant_login(operator, "acme").password != tenant_login(operator, "acme_two").password


def test_a_name_that_is_no_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no name"):
        TrinoUser("a:b", SecretStr("x"))


def test_another_tenants_files_cannot_be_had_by_their_location(
    mine: TrinoSession, lakehouse: Lakehouse, operator: TrinoSession, tenants: tuple[Namespaces, Namespaces]
) -> None:
    """A table laid over another's folder, whose clean-up or removal would take the other's files."""
    own, other = tenants
    victim = lakehouse.catalog().load_table((other.core, "cases"))
    granted: list[str] = []
    for sql in (
        f"CREATE TABLE iceberg.{own.core}.over (id integer) WITH (location = '{victim.location()}')",
        f"ALTER TABLE iceberg.{own.core}.over EXECUTE remove_orphan_files(retention_threshold => '0s')",
        f"DROP TABLE iceberg.{own.core}.over",
    ):
        try:
            mine.execute(sql)
            granted.append(sql)
        except MozartError:
            pass
    assert operator.execute(f"SELECT id FROM iceberg.{other.core}.cases") == [(1,)], granted
