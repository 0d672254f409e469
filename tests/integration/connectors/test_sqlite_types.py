"""SQLite's storage classes through the connector into DuckDB: exact, or refused by column, key and class."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mozart.connectors.base import SourceConnection, TableRead, Window
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.errors import DataQualityError, TerminalError, TransientError
from tests.contract.connectors.bench import read_table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "häuser %41 #1?.db"


@pytest.fixture
def source(file: Path) -> Any:
    opened = sqlite3.connect(file, isolation_level=None)
    opened.execute("PRAGMA journal_mode = wal")
    yield opened
    opened.close()


@pytest.fixture
def connection(file: Path) -> SourceConnection:
    return SourceConnection(type="sqlite", database=str(file))


# declared type, literal, Iceberg type, value as it must arrive
CASES: list[tuple[str, str, str, object]] = [
    ("INTEGER", "-9223372036854775808", "long", -9223372036854775808),
    ("UNSIGNED BIG INT", "9223372036854775807", "long", 9223372036854775807),
    ("CHARINT", "5", "long", 5),
    ("TEXT", "'Größe 漢字 🎻'", "string", "Größe 漢字 🎻"),
    ("VARCHAR(3)", "'longer than three'", "string", "longer than three"),
    ("TEXT", "12", "string", "12"),
    ("TEXT", "'a' || char(0) || 'b'", "string", "a\0b"),
    ("CHAR(5)", "'ab '", "string", "ab "),
    ("BLOB", "x'00ff27'", "binary", b"\x00\xff'"),
    ("REAL", "0.1 + 0.2", "double", 0.1 + 0.2),
    ("DOUBLE PRECISION", "3", "double", 3.0),
    ("FLOAT", "9e999", "double", float("inf")),
    ("BOOLEAN", "TRUE", "boolean", True),
    ("DECIMAL(10,2)", "1.10", "decimal(10, 2)", Decimal("1.10")),
    ("DECIMAL(10,2)", "7", "decimal(10, 2)", Decimal("7.00")),
    ("NUMERIC(38,0)", "9007199254740993", "decimal(38, 0)", Decimal(9007199254740993)),
    ("NUMERIC(20, 10)", "1e-10", "decimal(20, 10)", Decimal("0.0000000001")),
    ("NUMERIC", "1.5", "string", "1.5"),
    ("NUMERIC(50,2)", "15", "string", "15"),
    ("DATE", "'2024-01-31'", "string", "2024-01-31"),
    ("DATETIME", "1700000000", "string", "1700000000"),
    ("TIMESTAMP", "'2024-01-31T00:00:00Z'", "string", "2024-01-31T00:00:00Z"),
    ("", "42", "string", "42"),
    ("", "'any'", "string", "any"),
    ("JSON", """'{"a": 1.10}'""", "string", '{"a": 1.10}'),
]


def test_every_type_arrives_as_it_is(connection: SourceConnection, source: Any, tmp_path: Path) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, (kind, *_rest) in enumerate(CASES))
    values = ", ".join(literal for _kind, literal, *_rest in CASES)
    source.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})")
    source.execute(f"INSERT INTO t VALUES (1, {values})")
    source.execute("INSERT INTO t (id) VALUES (2)")
    types, rows = read_table(connection, tmp_path, "t")
    for number, (kind, literal, iceberg, value) in enumerate(CASES):
        assert types[f"c{number}"] == iceberg, kind
        arrived = rows[0][number + 1]
        assert type(arrived) is type(value), kind
        assert arrived == value, (kind, literal)
        assert rows[1][number + 1] is None, kind


@pytest.mark.parametrize(
    ("kind", "literal", "said"),
    [
        ("INTEGER", "'abc'", "a text that long cannot hold"),
        ("INTEGER", "1.5", "a real that long cannot hold"),
        ("INTEGER", "x'00'", "a blob that long cannot hold"),
        ("TEXT", "x'00'", "a blob that string cannot hold"),
        ("TEXT", "CAST(x'ff41' AS TEXT)", "a text that string cannot hold"),
        ("BLOB", "'text'", "a text that binary cannot hold"),
        ("REAL", "'zwölf'", "a text that double cannot hold"),
        ("BOOLEAN", "2", "an integer other than 0 and 1"),
        ("DECIMAL(10,2)", "1.125", r"a real that decimal\(10, 2\) cannot hold"),
        ("DECIMAL(10,2)", "123456789", r"an integer that decimal\(10, 2\) cannot hold"),
        ("DECIMAL(10,2)", "'1,10'", r"a text that decimal\(10, 2\) cannot hold"),
        ("DECIMAL(10,2)", "9e999", r"a real that decimal\(10, 2\) cannot hold"),
        ("DATE", "x'00'", "a blob"),
    ],
)
def test_a_value_of_another_class_is_refused_by_name(
    connection: SourceConnection, source: Any, tmp_path: Path, kind: str, literal: str, said: str
) -> None:
    source.execute(f'CREATE TABLE t (id INTEGER PRIMARY KEY, "Wert" {kind})')
    source.execute(f"INSERT INTO t VALUES (41, NULL), (42, {literal})")
    with pytest.raises(DataQualityError, match=said) as caught:
        read_table(connection, tmp_path, "t")
    assert '"wert"' in str(caught.value) and "key 42" in str(caught.value)


VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
)


@given(st.lists(VALUES, min_size=1, max_size=30))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_values_in_a_column_without_a_type(
    connection: SourceConnection, source: Any, tmp_path: Path, values: list[Any]
) -> None:
    source.execute("DROP TABLE IF EXISTS t")
    source.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    source.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(values)))
    _types, rows = read_table(connection, tmp_path, "t")
    assert [row[1] for row in rows] == [v if v is None or isinstance(v, str) else repr(v) for v in values]


def test_a_missing_file_is_an_error_and_is_not_made(connection: SourceConnection, file: Path) -> None:
    with pytest.raises(TerminalError, match="no such file"):
        create_connector(connection).check()
    assert not file.exists()


def test_what_is_no_database_is_refused(connection: SourceConnection, file: Path) -> None:
    file.write_text("not a database, but long enough to have a header of some hundred bytes" * 10)
    with pytest.raises(TerminalError, match="not a database"):
        create_connector(connection).check()


def test_a_writer_does_not_wait_for_a_reader_in_wal_mode(connection: SourceConnection, source: Any) -> None:
    source.execute("CREATE TABLE t (a)")
    with create_connector(connection).open():
        source.execute("INSERT INTO t VALUES (1)")
        source.execute("PRAGMA wal_checkpoint")


def test_a_writer_does_not_wait_for_a_reader_in_rollback_mode(
    connection: SourceConnection, source: Any, tmp_path: Path
) -> None:
    source.execute("PRAGMA journal_mode = delete")
    source.execute("PRAGMA busy_timeout = 0")
    source.execute("CREATE TABLE t (a)")
    copies = tmp_path / "copies"
    copies.mkdir()
    copying = connection.model_copy(update={"options": {"copy_folder": str(copies)}})
    with create_connector(copying).open() as reader:
        source.execute("INSERT INTO t VALUES (1)")
        assert list(copies.iterdir()) and reader.describe(None, "t").columns
    assert not list(copies.iterdir())


def test_a_writer_that_holds_the_file_is_worth_a_retry(connection: SourceConnection, source: Any) -> None:
    source.execute("PRAGMA journal_mode = delete")
    source.execute("CREATE TABLE t (a)")
    source.execute("BEGIN EXCLUSIVE")
    impatient = connection.model_copy(update={"options": {"busy_timeout": "0"}})
    with pytest.raises(TransientError, match="a writer holds the file"):
        create_connector(impatient).open()


def test_a_file_that_was_replaced_is_another_source(connection: SourceConnection, source: Any, file: Path) -> None:
    source.execute("CREATE TABLE t (a)")
    connector = create_connector(connection)
    with connector.open() as reader:
        before = reader.describe(None, "t").identity
    source.execute("PRAGMA journal_mode = delete")
    other = file.with_suffix(".new")
    other.write_bytes(file.read_bytes())
    other.replace(file)
    with connector.open() as reader:
        assert reader.describe(None, "t").identity != before


def test_keys_that_may_hold_nulls_are_not_promised(connection: SourceConnection, source: Any) -> None:
    source.execute("CREATE TABLE loose (a TEXT PRIMARY KEY, b TEXT NOT NULL UNIQUE, c TEXT UNIQUE)")
    source.execute("CREATE UNIQUE INDEX some ON loose (c) WHERE c IS NOT NULL")
    with create_connector(connection).open() as reader:
        assert reader.describe(None, "loose").unique_keys == (frozenset({"b"}),)


def test_views_and_generated_columns_are_read(connection: SourceConnection, source: Any, tmp_path: Path) -> None:
    source.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, twice INTEGER GENERATED ALWAYS AS (id * 2))")
    source.execute("INSERT INTO t VALUES (3)")
    source.execute("CREATE VIEW v AS SELECT id, twice + 0.5 AS more FROM t")
    assert read_table(connection, tmp_path, "t")[1] == [(3, 6)]
    assert read_table(connection, tmp_path, "v") == ({"id": "long", "more": "string"}, [(3, "6.5")])


def test_a_number_in_a_text_watermark_is_refused_not_skipped(
    connection: SourceConnection, source: Any, tmp_path: Path
) -> None:
    source.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME)")
    source.execute("INSERT INTO t VALUES (1, '2024-01-01'), (2, '2024-01-02'), (3, NULL), (4, 5)")
    windows = (Window("at", after="2024-01-01"), Window("at", since="2024-01-01", until="2024-01-02"))

    def read(window: Window) -> list[Any]:
        with create_connector(connection).open() as reader, connect() as duck:
            table = reader.describe(None, "t")
            return duck.execute(
                f"SELECT id FROM {reader.relation(duck, TableRead(table, table.columns, window=window))}"
            ).fetchall()

    for window in windows:
        with pytest.raises(Exception, match='an integer that string cannot hold in column "at", key 4'):
            read(window)
    source.execute("DELETE FROM t WHERE id = 4")
    assert [read(window) for window in windows] == [[(2,), (3,)], [(1,)]]
