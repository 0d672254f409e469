"""One source table is gone: the run fails naming it, and everything that does not need it is fresh."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
from psycopg import sql

from mozart.tenancy.load import load_tenant
from samples import axiom_core, axiom_schema
from tests.e2e.deployment import TENANT, Deployed

pytestmark = pytest.mark.e2e

RAW = f"{TENANT}_raw"

# What cannot be built without the table; everything else must be.
NEEDED_BY = {
    "assets": {"stg_assets"},
    "cash_flow_entries": {"stg_cash_flow_entries", "mart_case", "mart_cashflow_monthly"},
}


@contextmanager
def _dropped(deployed: Deployed, table: str) -> Generator[None]:
    """The source without this table. Afterwards a table of the same name, shape and rows, but another one."""
    name, kept = sql.Identifier(table), sql.Identifier(f"kept_{table}")
    with deployed.connect_source() as source:
        source.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(kept, name))
        source.execute(sql.SQL("INSERT INTO {} SELECT * FROM {}").format(kept, name))
        source.execute(sql.SQL("DROP TABLE {}").format(name))
    try:
        yield
    finally:
        with deployed.connect_source() as source:
            source.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(kept, name))
            key = axiom_schema.IDENTITY_COLUMNS[table]
            source.execute(
                sql.SQL("SELECT setval(pg_get_serial_sequence({}, {}), (SELECT max({}) FROM {}))").format(
                    table, key, sql.Identifier(key), name
                )
            )
            source.execute(
                sql.SQL(
                    "CREATE TRIGGER touch BEFORE UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION touch_updated_at()"
                ).format(name)
            )
            source.commit()
            axiom_core.grant_reader(source, TENANT)


def _touch_every_table(deployed: Deployed) -> None:
    """A change in each table, so that what is not fresh can be seen."""
    deployed.change_source(seed=201)
    with deployed.connect_source() as source:
        for table in load_tenant(deployed.root / "tenants" / TENANT).tables:
            column = "updated_at" if table.mode == "incremental" else "name"
            value = "now()" if table.mode == "incremental" else "name || '.'"
            keys = sql.SQL(", ").join(sql.Identifier(key) for key in table.primary_key)
            source.execute(
                sql.SQL("UPDATE {0} SET {1} = {2} WHERE ({3}) = (SELECT {3} FROM {0} ORDER BY {3} LIMIT 1)").format(
                    sql.Identifier(table.source_table),
                    sql.Identifier(column),
                    sql.SQL(value),
                    keys,  # type: ignore[arg-type]
                )
            )


def test_dropped_source_table_fails_the_run_by_name_and_only_what_needs_it_stays_old(deployed: Deployed) -> None:
    first, second = NEEDED_BY
    _fails_by_name(deployed, first)
    _fails_by_name(deployed, second)
    before = deployed.snapshots()
    deployed.complete()
    after = deployed.snapshots()
    assert {(TENANT, model) for model in NEEDED_BY[second]} <= {name for name in after if after[name] != before[name]}


def _fails_by_name(deployed: Deployed, table: str) -> None:
    _touch_every_table(deployed)
    before = deployed.snapshots()
    last_good = {model: deployed.read_by_pyiceberg(TENANT, model).num_rows for model in NEEDED_BY[table]}
    with _dropped(deployed, table):
        run, state = deployed.run()
    assert state.type == "FAILED"
    assert f"table {TENANT}.{table}: " in state.message
    assert f"public.{table} does not exist" in state.message

    after = deployed.snapshots()
    stale = {(RAW, table)} | {(TENANT, model) for model in NEEDED_BY[table]}
    assert {name for name in before if after[name] == before[name]} == stale
    for model, rows in last_good.items():
        assert deployed.read_by_duckdb(TENANT, model).num_rows == rows > 0
    _states_are_true(deployed, run, table)


def _states_are_true(deployed: Deployed, run: str, table: str) -> None:
    states = deployed.task_states(run)
    failed = states.pop(f"load {TENANT}.{table}")
    assert failed.type == "FAILED"
    assert f"public.{table}" in failed.message
    for name, state in states.items():
        kind, _, subject = name.partition(" ")
        if kind == "model" and subject in NEEDED_BY[table]:
            assert (state.type, state.name) == ("CANCELLED", "Skipped"), name
            assert f"{RAW}.{table} failed to load" in state.message
            assert "last good version" in state.message
        else:
            assert (state.type, state.name) == ("COMPLETED", "Completed"), f"{name}: {state}"
