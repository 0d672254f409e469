"""The same rows on every engine: raw tables read by three readers, the samples' models built on two engines.

The sample tenants are loaded once and built on DuckDB (`fleet`); Trino then builds the same models from the same raw
tables over them, and what pyiceberg reads from either is compared row by row, types included.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.io import load_file_io
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

from mozart.engine.dbt_run import ModelRequest, build_models
from mozart.engine.duckdb import connect
from mozart.engine.trino_client import TrinoSession
from mozart.engine.trino_models import TrinoModels
from mozart.lake.commit import Column, CommitRecord, append, merge, plan_schema, read_head
from mozart.lake.deltas import write_position_deletes
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land
from mozart.tenancy.product_schema import load_product_schema
from tests.integration.tenants.conftest import SampleTenant
from tests.trino.conftest import Login

TYPES: dict[str, IcebergType] = {
    "id": LongType(),
    "flag": BooleanType(),
    "small": IntegerType(),
    "ratio": DoubleType(),
    "share": FloatType(),
    "amount": DecimalType(38, 10),
    "name": StringType(),
    "data": BinaryType(),
    "day": DateType(),
    "hour": TimeType(),
    "local_at": TimestampType(),
    "at": TimestamptzType(),
    "tags": ListType(1, StringType(), element_required=False),
    "place": StructType(NestedField(1, "x", IntegerType(), required=False), NestedField(2, "y", StringType(), False)),
    "counts": MapType(1, StringType(), 2, LongType(), value_required=False),
}
SQL_TYPES = (
    "bigint, boolean, integer, double, real, decimal(38,10), varchar, varbinary, date, time(6), timestamp(6), "
    "timestamp(6) with time zone, array(varchar), row(x integer, y varchar), map(varchar, bigint)"
)


def _row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "flag": number % 2 == 0,
        "small": -number,
        "ratio": number / 3,
        "share": number / 4,
        "amount": Decimal("1234567890123456789012345678.0123456789") - number,
        "name": f"Ünïcode {number} 'x' \"y\"",
        "data": bytes([number, 0, 255]),
        "day": date(1600 + number, 2, 28),
        "hour": time(23, 59, 59, 999_990 + number),
        "local_at": datetime(1969, 12, 31, 23, 59, 59, 999_990 + number),
        "at": datetime(2024, 3, 31, 1, 30, 0, number, tzinfo=UTC),
        "tags": ["a", None, str(number)],
        "place": {"x": number, "y": None},
        "counts": {"one": number},
    }


def _empty(number: int) -> dict[str, Any]:
    return {**dict.fromkeys(TYPES, None), "id": number}


ARROW = pa.schema(
    [
        ("id", pa.int64()),
        ("flag", pa.bool_()),
        ("small", pa.int32()),
        ("ratio", pa.float64()),
        ("share", pa.float32()),
        ("amount", pa.decimal128(38, 10)),
        ("name", pa.string()),
        ("data", pa.binary()),
        ("day", pa.date32()),
        ("hour", pa.time64("us")),
        ("local_at", pa.timestamp("us")),
        ("at", pa.timestamp("us", tz="UTC")),
        ("tags", pa.list_(pa.string())),
        ("place", pa.struct([("x", pa.int32()), ("y", pa.string())])),
        ("counts", pa.map_(pa.string(), pa.int64())),
    ]
)


class RawTable:
    """A raw table written as loads write it: files from DuckDB, commits of ours."""

    def __init__(self, lakehouse: Lakehouse, namespace: str) -> None:
        self.lakehouse = lakehouse
        self.identifier = (namespace, "everything")
        self.catalog = lakehouse.catalog()

    def write(self, rows: list[dict[str, Any]], columns: Mapping[str, IcebergType], deleted: list[int]) -> None:
        """Add `rows` with these columns, and take away by position deletes the rows whose ids are in `deleted`."""
        head = read_head(self.catalog, self.identifier)
        schema = plan_schema(head, [Column(name, kind) for name, kind in columns.items()])
        arrow = pa.schema([ARROW.field(name) if name in ARROW.names else (name, pa.string()) for name in columns])
        connection = connect(lakehouse=self.lakehouse)
        connection.register("data", pa.Table.from_pylist(rows, schema=arrow))
        load_id = secrets.token_hex(8)
        folder = f"{self.lakehouse.landing_uri}/everything/{load_id}"
        io = load_file_io(self.lakehouse.catalog_properties(), folder)
        files = land(connection, "data", schema, list(columns), folder=folder, io=io).files
        record = CommitRecord(load_id, None, None, len(rows), "test", "incremental")
        if not deleted:
            append(self.catalog, head, schema, files, record)
            return
        connection.execute("CREATE TEMP TABLE gone AS SELECT unnest(?::BIGINT[]) AS id", [deleted])
        deletes = write_position_deletes(connection, head, "gone", ["id"], folder)
        merge(self.catalog, head, schema, files, deletes, record)


def _plain(value: Any) -> Any:
    """One spelling for what the readers' libraries spell differently: maps, rows, times."""
    if isinstance(value, dict):
        return tuple(sorted((key, _plain(inner)) for key, inner in value.items()))
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return (
            tuple(sorted(items)) if items and all(isinstance(i, tuple) and len(i) == 2 for i in items) else tuple(items)
        )
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=UTC)
    return value


def _by_id(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted((tuple(_plain(value) for value in row) for row in rows), key=lambda row: row[0])


def test_raw_tables_are_read_alike(operator: TrinoSession, lakehouse: Lakehouse, namespace: str) -> None:
    """All types, NULLs, position deletes, a column that was added and one that left."""
    raw = RawTable(lakehouse, namespace)
    raw.write([_row(1), _row(2), _row(3), _empty(4)], TYPES, [])
    raw.write([_row(5) | {"id": 2}], TYPES, [2, 4])
    without = {name: kind for name, kind in TYPES.items() if name != "small"} | {"added": StringType()}
    raw.write([{**_row(6), "added": "new"}], without, [])
    table = f"{namespace}.everything"

    by_trino = _by_id(operator.execute(f"SELECT * FROM iceberg.{table}"))
    with connect(lakehouse=lakehouse) as connection:
        by_duckdb = _by_id(connection.execute(f"SELECT * FROM lake.{table}").fetchall())
    scanned = raw.catalog.load_table(raw.identifier).scan().to_arrow()
    by_pyiceberg = _by_id([tuple(row.values()) for row in scanned.to_pylist()])

    assert [row[0] for row in by_trino] == [1, 2, 3, 6]
    assert by_trino == by_pyiceberg
    assert by_trino == by_duckdb
    expected = dict(zip(scanned.column_names, by_trino[0], strict=True))
    assert expected == {name: _plain(value) for name, value in (_row(1) | {"added": None}).items()}
    described = operator.execute(f"DESCRIBE iceberg.{table}")
    assert ", ".join(row[1] for row in described if row[0] != "added") == SQL_TYPES


TENANTS = ("acme", "harbor", "atlas")


@pytest.mark.parametrize("name", TENANTS)
def test_models_give_the_same_tables_on_both_engines(
    fleet: Mapping[str, SampleTenant], login: Login, name: str
) -> None:
    """Every staging and mart table of a sample tenant, row by row, with the types that the catalog holds."""
    tenant = fleet[name]
    assert {result.status for result in tenant.models} == {"published"}
    tables = sorted(result.name for result in tenant.models)
    on_duckdb = {table: _published(tenant, table) for table in tables}
    results = _build_on_trino(tenant, login)
    assert {result.name: (result.status, result.reason) for result in results} == dict.fromkeys(
        tables, ("published", None)
    )
    for table in tables:
        columns, rows = _published(tenant, table)
        assert columns == on_duckdb[table][0], table
        assert rows == on_duckdb[table][1], table
        assert rows


def _build_on_trino(tenant: SampleTenant, login: Login) -> list[Any]:
    spaces = tenant.place.namespaces
    request = ModelRequest(
        tenant=tenant.name,
        run_id=f"trino-{secrets.token_hex(4)}",
        root=tenant.root,
        state=tenant.root / ".mozart",
        namespace=spaces.core,
        raw_namespace=spaces.raw,
        product=load_product_schema(tenant.root),
    )
    engine = TrinoModels(login(replace(spaces)))
    return build_models(replace(request, full_refresh=True), tenant.place.lakehouse, lambda _event: None, engine)


def _published(tenant: SampleTenant, table: str) -> tuple[list[tuple[str, str, bool]], list[tuple[Any, ...]]]:
    """Columns as the catalog has them, and all rows in an order of their own, as pyiceberg reads them."""
    loaded = tenant.place.lakehouse.catalog().load_table((tenant.place.namespaces.core, table))
    columns = [(field.name, str(field.field_type), field.required) for field in loaded.schema().fields]
    rows = [tuple(map(_plain, row.values())) for row in loaded.scan().to_arrow().to_pylist()]
    return columns, sorted(rows, key=repr)
