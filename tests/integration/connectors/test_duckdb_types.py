"""DuckDB's own types through the connector: exact, or refused by name."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from mozart.connectors.base import SourceConnection
from mozart.connectors.registry import create_connector
from mozart.errors import DataQualityError, TerminalError
from tests.contract.connectors.bench import read_table

# type, literal, Iceberg type, value as it must arrive
CASES: list[tuple[str, str, str, object]] = [
    ("UTINYINT", "255", "int", 255),
    ("UINTEGER", "4294967295", "long", 4294967295),
    ("BIGINT", "-9223372036854775808", "long", -9223372036854775808),
    ("UBIGINT", "18446744073709551615", "decimal(20, 0)", Decimal(18446744073709551615)),
    ("HUGEINT", "170141183460469231731687303715884105727", "string", "170141183460469231731687303715884105727"),
    ("DECIMAL(38,10)", "1.10", "decimal(38, 10)", Decimal("1.1000000000")),
    ("DOUBLE", "0.1::DOUBLE + 0.2::DOUBLE", "double", 0.1 + 0.2),
    ("BOOLEAN", "true", "boolean", True),
    ("VARCHAR", "'Größe 漢字 🎻'", "string", "Größe 漢字 🎻"),
    ("ENUM('a','ü')", "'ü'", "string", "ü"),
    ("BLOB", "'\\x00\\xFF'::BLOB", "binary", b"\x00\xff"),
    ("DATE", "'9999-12-31'", "date", date(9999, 12, 31)),
    ("TIME", "'23:59:59.999999'", "time", time(23, 59, 59, 999999)),
    ("TIMESTAMP_MS", "'2024-01-01 00:00:00.123'", "timestamp", datetime(2024, 1, 1, 0, 0, 0, 123000)),
    ("TIMESTAMP_NS", "'2024-01-01 00:00:00.123456789'", "string", "2024-01-01 00:00:00.123456789"),
    ("TIMESTAMPTZ", "'2024-06-01 02:00:00+02'", "timestamptz", datetime(2024, 6, 1, tzinfo=UTC)),
    ("UUID", "'0e37df36-f698-11e6-8dd4-cb9ced3df976'", "string", "0e37df36-f698-11e6-8dd4-cb9ced3df976"),
    ("INTEGER[]", "[1, NULL, 3]", "string", "[1,null,3]"),
    ("STRUCT(a INTEGER, b VARCHAR)", "{'a': 1, 'b': 'x'}", "string", '{"a":1,"b":"x"}'),
]


@pytest.fixture
def connection(tmp_path: Path) -> SourceConnection:
    return SourceConnection(type="duckdb", database=str(tmp_path / "it's.db"))


def fill(connection: SourceConnection, *statements: str) -> None:
    with duckdb.connect(connection.database) as source:
        for statement in statements:
            source.execute(statement)


def test_every_type_arrives_as_it_is(connection: SourceConnection, tmp_path: Path) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, (kind, *_rest) in enumerate(CASES))
    values = ", ".join(literal for _kind, literal, *_rest in CASES)
    fill(
        connection,
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})",
        f"INSERT INTO t VALUES (1, {values})",
        "INSERT INTO t (id) VALUES (2)",
    )
    types, rows = read_table(connection, tmp_path, "t")
    for number, (kind, literal, iceberg, value) in enumerate(CASES):
        assert types[f"c{number}"] == iceberg, kind
        arrived = rows[0][number + 1]
        assert type(arrived) is type(value), kind
        assert arrived == value, (kind, literal)
        assert rows[1][number + 1] is None, kind


@pytest.mark.parametrize(
    ("kind", "literal"), [("DATE", "'infinity'"), ("TIMESTAMP", "'0044-03-15 (BC)'"), ("TIMESTAMPTZ", "'-infinity'")]
)
def test_what_cannot_be_kept_is_refused_by_name(
    connection: SourceConnection, tmp_path: Path, kind: str, literal: str
) -> None:
    fill(connection, f'CREATE TABLE t (id INT PRIMARY KEY, "Wert" {kind})', f"INSERT INTO t VALUES (42, {literal})")
    with pytest.raises(DataQualityError, match="infinite, BC or far") as caught:
        read_table(connection, tmp_path, "t")
    assert '"Wert"' in str(caught.value) and "key 42" in str(caught.value)


def test_what_is_no_duckdb_file_is_refused(connection: SourceConnection) -> None:
    Path(connection.database).write_text("no database" * 1000)
    with pytest.raises(TerminalError, match="cannot be opened"):
        create_connector(connection).check()
