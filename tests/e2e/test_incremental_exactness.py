"""After an incremental run raw is the source, row by row and type by type; a run that finds nothing commits nothing.

Three readers that share no code compare: psycopg at the source, pyiceberg and DuckDB in the lake. What each type of the
source must be in the lake is said here once more, independently of the connector.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pytest
from psycopg import sql

from mozart.tenancy.load import load_tenant
from mozart.tenancy.model import TableSpec
from tests.e2e.deployment import TENANT, Deployed

pytestmark = pytest.mark.e2e

RAW = f"{TENANT}_raw"

# PostgreSQL's name of a type → what Iceberg calls it in raw. Types that Iceberg lacks arrive as PostgreSQL's own text.
ICEBERG_TYPES = {
    "smallint": "int",
    "integer": "int",
    "bigint": "long",
    "boolean": "boolean",
    "real": "float",
    "double precision": "double",
    "numeric(6,2)": "decimal(6, 2)",
    "numeric(14,2)": "decimal(14, 2)",
    "numeric(16,4)": "decimal(16, 4)",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "bytea": "binary",
    "text": "string",
    "text[]": "list<string>",
    "integer[]": "list<int>",
    "uuid": "string",
    "jsonb": "string",
    "interval": "string",
    "inet": "string",
    "case_status": "string",
    "flow_type": "string",
}
AS_TEXT = ("uuid", "jsonb", "interval", "inet", "case_status", "flow_type")

Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def incremental(deployed: Deployed) -> str:
    """The run after inserts and updates at the source (the first run was a full one); its id."""
    deployed.change_source(seed=101, inserts=40, updates=60)
    return deployed.complete()


def _tables(deployed: Deployed) -> tuple[TableSpec, ...]:
    return load_tenant(deployed.root / "tenants" / TENANT).tables


def test_only_the_changes_were_loaded(deployed: Deployed, incremental: str) -> None:
    tables = {row["table"]: row for row in deployed.rows_of(incremental, f"{TENANT}-tables")}
    assert {table.name for table in _tables(deployed)} == set(tables)
    for table in _tables(deployed):
        if table.mode == "incremental" and tables[table.name]["status"] == "committed":
            assert tables[table.name]["mode"] == "incremental", table.name
            assert 0 < tables[table.name]["read"] < 200, table.name
    assert {row["status"] for row in tables.values()} == {"committed", "unchanged"}
    assert tables["cases"]["replaced"] > 0
    assert tables["cash_flow_entries"]["committed"] > tables["cash_flow_entries"]["replaced"]


def test_every_raw_table_equals_its_source_row_by_row_types_included(deployed: Deployed, incremental: str) -> None:
    with _source_as_read(deployed) as source:
        for table in _tables(deployed):
            types = _source_types(source, table)
            expected = _source_rows(source, table, types)
            assert expected, table.name
            _same_types(deployed, table.name, types)
            for reader in (deployed.read_by_pyiceberg, deployed.read_by_duckdb):
                _same_rows(table.name, expected, _lake_rows(reader(RAW, table.name), table, types))


def test_comparison_notices_a_blank_a_cent_and_a_last_bit(deployed: Deployed, incremental: str) -> None:
    table = next(table for table in _tables(deployed) if table.name == "cases")
    with _source_as_read(deployed) as source:
        types = _source_types(source, table)
        found = _lake_rows(deployed.read_by_duckdb(RAW, table.name), table, types)
        _same_rows(table.name, _source_rows(source, table, types), found)
        source.execute("SET LOCAL session_replication_role = replica")  # or the trigger would touch updated_at too
        for change in (b"title = title || ' '", b"amount = amount + 0.01", b"risk_score = risk_score * (1 + 1e-15)"):
            with source.transaction(force_rollback=True):
                one = b"(SELECT min(case_id) FROM cases WHERE risk_score > 0)"
                source.execute(b"UPDATE cases SET " + change + b" WHERE case_id = " + one)
                with pytest.raises(AssertionError):
                    _same_rows(table.name, _source_rows(source, table, types), found)


@contextmanager
def _source_as_read(deployed: Deployed) -> Generator[psycopg.Connection]:
    """The source in the zone and the text forms that raw is said to hold; nothing is kept of what is changed here."""
    with deployed.connect_source() as source:
        source.execute("SET TimeZone = 'UTC'; SET intervalstyle = 'iso_8601'")
        yield source
        source.rollback()


def _source_types(source: psycopg.Connection, table: TableSpec) -> dict[str, str]:
    """The loaded columns of the source's table with their declared types, in the source's order."""
    rows = source.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (f"{table.source_schema}.{table.source_table}",),
    ).fetchall()
    found = {str(name): str(kind) for name, kind in rows}
    return {name: kind for name, kind in found.items() if not table.columns or name in table.columns}


def _source_rows(source: psycopg.Connection, table: TableSpec, types: dict[str, str]) -> list[Row]:
    columns = [
        sql.SQL("{}::text").format(sql.Identifier(name)) if kind in AS_TEXT else sql.Identifier(name)
        for name, kind in types.items()
    ]
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(columns), sql.Identifier(table.source_schema or "public", table.source_table)
    )
    # Binary, so that a float4 arrives as the four bytes it is and not as a shorter decimal text.
    with source.cursor(binary=True) as cursor:
        return _sorted(cursor.execute(query).fetchall(), list(types), table)


def _lake_rows(data: pa.Table, table: TableSpec, types: dict[str, str]) -> list[Row]:
    assert data.column_names == list(types), table.name
    return _sorted(zip(*(column.to_pylist() for column in data.columns), strict=True), list(types), table)


def _sorted(rows: Iterable[Row], names: list[str], table: TableSpec) -> list[Row]:
    places = [names.index(name) for name in table.primary_key]
    return sorted(([*row] for row in rows), key=lambda row: tuple(row[place] for place in places))  # type: ignore[misc]


def _same_types(deployed: Deployed, table: str, types: dict[str, str]) -> None:
    schema = deployed.catalog.load_table((RAW, table)).schema()
    found = {field.name: str(field.field_type) for field in schema.fields}
    wanted = {name: "string" if kind.startswith("character") else ICEBERG_TYPES[kind] for name, kind in types.items()}
    assert found == wanted, table


def _same_rows(table: str, expected: list[Row], found: list[Row]) -> None:
    """Equal values of equal Python types: 1 is not 1.0, 2.5 is not 2.50, and a moment keeps its zone."""
    assert len(found) == len(expected), table
    for wanted, row in zip(expected, found, strict=True):
        assert [_exact(value) for value in row] == [_exact(value) for value in wanted], table


def _exact(value: Any) -> tuple[str, str]:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return "moment", value.astimezone(UTC).isoformat()
    if isinstance(value, memoryview):
        return "bytes", repr(bytes(value))
    return type(value).__name__, repr(value)


def test_record_holds_the_sources_highest_watermark(deployed: Deployed, incremental: str) -> None:
    with deployed.connect_source() as source:
        for table in _tables(deployed):
            record = deployed.head(RAW, table.name).record
            assert record is not None
            if table.mode != "incremental":
                assert record.watermark is None
                continue
            newest = source.execute(
                sql.SQL("SELECT max(updated_at) FROM {}").format(sql.Identifier(table.source_table))
            ).fetchone()
            assert newest is not None
            assert record.watermark is not None
            assert datetime.fromisoformat(record.watermark) == newest[0], table.name


def test_third_run_commits_nothing_and_starts_no_dbt(deployed: Deployed, incremental: str) -> None:
    before = deployed.snapshots()
    assert {schema for schema, _ in before} == {TENANT, RAW}
    with _watched_commands(deployed) as seen:
        run = deployed.complete()
    assert deployed.snapshots() == before
    assert any("prefect.engine" in command for command in seen), "the watch sees the run's process"
    assert not any("dbt_child" in command for command in seen)
    tasks = deployed.task_states(run)
    models = {name: state.name for name, state in tasks.items() if name.startswith("model ")}
    assert len(models) == len(deployed.tables(TENANT))
    assert set(models.values()) == {"Unchanged"}
    tables = deployed.rows_of(run, f"{TENANT}-tables")
    assert {row["status"] for row in tables} == {"unchanged"}


def test_rows_of_a_transaction_open_during_a_run_come_with_the_next_one(deployed: Deployed, incremental: str) -> None:
    """The watermark stays below what may still be committed, while what is committed is loaded at once."""
    with deployed.connect_source() as late:
        began, case_id = late.execute(
            "UPDATE cases SET title = title || ' *' WHERE case_id = (SELECT min(case_id) FROM cases)"
            " RETURNING updated_at, case_id"
        ).fetchone() or (None, None)
        assert isinstance(began, datetime)
        deployed.change_source(seed=102, inserts=4, updates=0)
        with _watched_commands(deployed) as seen:
            deployed.complete(tables=["cases"])
        assert any("dbt_child" in command for command in seen), "the watch sees dbt"
        record = deployed.head(RAW, "cases").record
        assert record is not None
        assert datetime.fromisoformat(record.watermark or "") < began
        late.commit()
    deployed.complete()
    cases = deployed.read_by_duckdb(RAW, "cases").select(["case_id", "title"]).to_pylist()
    assert next(row["title"] for row in cases if row["case_id"] == case_id).endswith(" *")


@contextmanager
def _watched_commands(deployed: Deployed) -> Generator[set[str]]:
    """The command lines of every process below the worker while the block runs, looked at without a pause."""
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            for process in deployed.family():
                try:
                    seen.add(" ".join(process.cmdline()))
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()
