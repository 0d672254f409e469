"""SQL Server and Oracle: what would be asked of a server, and what its types become. No server is needed or run."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest

from mozart.connectors import oracle, sqlserver
from mozart.connectors.base import SourceColumn, SourceConnection, SourceTable, TableRead, Window
from mozart.connectors.dbapi import DbapiConnector, DbapiReader, from_where, select
from mozart.connectors.errors import read_error
from mozart.connectors.registry import create_connector, registered_types
from mozart.engine.duckdb import connect
from mozart.errors import ConfigurationError, DataQualityError, TerminalError
from mozart.sql import quote_identifier

HOSTILE = "'; DROP TABLE t; -- \\"


def connector(kind: str) -> DbapiConnector:
    made = create_connector(SourceConnection(type=kind, host="h", database="d", username="u"))
    assert isinstance(made, DbapiConnector)
    return made


def table(made: DbapiConnector, *columns: tuple[str, str]) -> SourceTable:
    described = tuple(
        SourceColumn(
            name.lower(), name, kind, made.answer(kind).iceberg, made.answer(kind).expression(quote_identifier(name))
        )
        for name, kind in columns
    )
    return SourceTable("S", 'Or"der', described, (frozenset({columns[0][0].lower()}),))


def test_sql_server_reads_with_bound_values() -> None:
    made = connector("sqlserver")
    orders = table(made, ("Id", "int"), ("When", "datetime2(6)"), ("Who", "nvarchar"))
    read = TableRead(orders, orders.columns[1:], {"who": HOSTILE}, Window("when", after="2024-01-02 03:04:05.6"))
    assert select(made, read) == (
        'SELECT CONVERT(varchar(40), "When", 126), CONVERT(nvarchar(max), "Who"), "Id" FROM "S"."Or""der" '
        'WHERE CONVERT(varbinary(max), CONVERT(nvarchar(max), "Who")) = '
        "CONVERT(varbinary(max), CONVERT(nvarchar(max), %s)) "
        'AND ("When" > CONVERT(datetime2(7), %s) OR "When" IS NULL)',
        [HOSTILE, "2024-01-02T03:04:05.600000"],
    )


def test_oracle_reads_with_bound_values() -> None:
    made = connector("oracle")
    orders = table(made, ("ID", "NUMBER(10,0)"), ("CHANGED", "TIMESTAMP(6)"), ("WHO", "VARCHAR2"))
    window = Window("changed", since="2024-01-02 00:00:00", until="2024-01-03 00:00:00")
    read = TableRead(orders, orders.columns[:1], {"who": HOSTILE}, window)
    statement, values = select(made, read)
    assert statement == (
        "SELECT TO_CHAR(\"ID\", 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,'''), "
        "TO_CHAR(\"ID\", 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''') FROM \"S\".\"Or\"\"der\" "
        'WHERE TO_CHAR("WHO") = :1 AND "CHANGED" >= :2 AND "CHANGED" < :3'
    )
    assert values == [HOSTILE, datetime(2024, 1, 2), datetime(2024, 1, 3)]


@pytest.mark.parametrize("kind", ["sqlserver", "oracle"])
def test_a_window_that_is_no_value_of_the_column_is_refused(kind: str) -> None:
    made = connector(kind)
    orders = table(made, ("ID", "int" if kind == "sqlserver" else "NUMBER(9,0)"))
    with pytest.raises(TerminalError, match="is no value of column id"):
        from_where(made, TableRead(orders, orders.columns, window=Window("id", after="1 OR 1=1")))


@pytest.mark.parametrize(("kind", "column"), [("sqlserver", "datetimeoffset(7)"), ("oracle", "NUMBER")])
def test_a_watermark_whose_text_has_another_order_is_refused(kind: str, column: str) -> None:
    made = connector(kind)
    orders = table(made, ("AT", column))
    with pytest.raises(TerminalError, match="another order"):
        from_where(made, TableRead(orders, orders.columns, window=Window("at", after="1")))


SQLSERVER: list[tuple[str, str, str]] = [
    ("tinyint", "int", '"c"'),
    ("bigint", "long", '"c"'),
    ("bit", "boolean", '"c"'),
    ("decimal(38,10)", "decimal(38, 10)", '"c"'),
    ("money", "decimal(19, 4)", 'CONVERT(decimal(19,4), "c")'),
    ("float", "double", '"c"'),
    ("real", "float", '"c"'),
    ("date", "date", 'CONVERT(varchar(10), "c", 23)'),
    ("time(6)", "time", 'CONVERT(varchar(20), "c", 121)'),
    ("time(7)", "string", 'CONVERT(varchar(40), "c", 121)'),
    ("datetime", "timestamp", 'CONVERT(varchar(40), "c", 126)'),
    ("datetime2(7)", "string", 'CONVERT(varchar(40), "c", 121)'),
    ("datetimeoffset(3)", "string", 'CONVERT(varchar(40), "c", 121)'),
    ("uniqueidentifier", "string", 'CONVERT(nvarchar(max), "c")'),
    ("xml", "string", 'CONVERT(nvarchar(max), "c")'),
    ("rowversion", "binary", 'CONVERT(varbinary(max), "c")'),
    ("geography", "binary", 'CONVERT(varbinary(max), "c")'),
]

_NUMBER = "TO_CHAR(\"c\", 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"
ORACLE: list[tuple[str, str, str]] = [
    ("NUMBER(10,2)", "decimal(10, 2)", _NUMBER),
    ("NUMBER", "string", _NUMBER),
    ("NUMBER(3,5)", "string", _NUMBER),
    ("NUMBER(5,-2)", "string", _NUMBER),
    ("FLOAT", "string", _NUMBER),
    ("BINARY_DOUBLE", "double", '"c"'),
    ("DATE", "timestamp", """TO_CHAR("c", 'SYYYY-MM-DD"T"HH24:MI:SS')"""),
    ("TIMESTAMP(6)", "timestamp", """TO_CHAR("c", 'SYYYY-MM-DD"T"HH24:MI:SS.FF6')"""),
    ("TIMESTAMP(9)", "string", """TO_CHAR("c", 'SYYYY-MM-DD HH24:MI:SS.FF9')"""),
    ("TIMESTAMP(6) WITH TIME ZONE", "string", """TO_CHAR("c", 'SYYYY-MM-DD HH24:MI:SS.FF6 TZH:TZM')"""),
    (
        "TIMESTAMP(6) WITH LOCAL TIME ZONE",
        "timestamptz",
        """TO_CHAR(SYS_EXTRACT_UTC("c"), 'SYYYY-MM-DD"T"HH24:MI:SS.FF6')""",
    ),
    ("INTERVAL DAY(2) TO SECOND(6)", "string", 'TO_CHAR("c")'),
    ("CLOB", "string", '"c"'),
    ("RAW", "binary", '"c"'),
    ("XMLTYPE", "string", '"c"'),
]


@pytest.mark.parametrize(("declared", "iceberg", "expression"), SQLSERVER)
def test_sql_server_types(declared: str, iceberg: str, expression: str) -> None:
    answer = sqlserver.map_type(declared)
    assert (str(answer.iceberg), answer.expression('"c"')) == (iceberg, expression)


@pytest.mark.parametrize(("declared", "iceberg", "expression"), ORACLE)
def test_oracle_types(declared: str, iceberg: str, expression: str) -> None:
    answer = oracle.map_type(declared)
    assert (str(answer.iceberg), answer.expression('"c"')) == (iceberg, expression)


class Driver:
    """Stands where a driver would: gives prepared rows, whatever is asked."""

    Error = RuntimeError

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def connect(self) -> Driver:
        return self

    cursor = connect

    def execute(self, _statement: str, _values: Any) -> None:
        """Nothing is asked."""

    def fetchmany(self, count: int) -> list[tuple[Any, ...]]:
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken

    def close(self) -> None:
        """Nothing is held."""


def arrived(
    kind: str, columns: list[tuple[str, str]], rows: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Any, ...]]:
    made = connector(kind)
    described = table(made, *columns)
    monkeypatch.setattr(made, "connect", lambda: Driver(rows))
    monkeypatch.setattr(made, "clock", lambda _connection: (datetime(2024, 1, 1), 0))
    with DbapiReader(made) as reader, connect() as duck:
        relation = reader.relation(duck, TableRead(described, described.columns))
        return duck.execute(f"SELECT * FROM {relation}").fetchall()


def test_what_a_driver_gives_becomes_exact_values(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [("id", "int"), ("d", "decimal(5,2)"), ("at", "datetime2(3)"), ("day", "date"), ("t", "time(3)")]
    row = (1, Decimal("1.10"), "2024-01-02T03:04:05.678", "2024-01-02", "03:04:05.678")
    assert arrived("sqlserver", columns, [(*row, 1)], monkeypatch) == [
        (1, Decimal("1.10"), datetime(2024, 1, 2, 3, 4, 5, 678000), date(2024, 1, 2), time(3, 4, 5, 678000))
    ]
    columns = [("id", "NUMBER(5,0)"), ("at", "TIMESTAMP(6) WITH LOCAL TIME ZONE"), ("day", "DATE")]
    rows: list[tuple[Any, ...]] = [("7", " 2024-01-02T03:04:05.678901", " 2024-01-02T00:00:00", "7")]
    assert arrived("oracle", columns, rows, monkeypatch) == [
        (Decimal(7), datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), datetime(2024, 1, 2))
    ]


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [("oracle", "DATE", "-0044-03-15T00:00:00"), ("oracle", "XMLTYPE", object()), ("sqlserver", "int", 1.5)],
)
def test_what_cannot_be_kept_is_refused(kind: str, column: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [("id", "NUMBER(5,0)" if kind == "oracle" else "int"), ("c", column)]
    key = "7" if kind == "oracle" else 7
    with pytest.raises(Exception, match='column "c", key 7') as caught:
        arrived(kind, columns, [(key, value, key)], monkeypatch)
    assert isinstance(read_error("t", caught.value), DataQualityError)


@pytest.mark.parametrize("kind", ["sqlserver", "oracle"])
def test_a_missing_driver_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = connector(kind)
    monkeypatch.setitem(sys.modules, made.driver_module, None)
    with pytest.raises(TerminalError, match=f"Python package {made.driver_module}"):
        made.check()


def test_the_registry_names_what_it_has() -> None:
    assert registered_types() == ("duckdb", "mysql", "oracle", "postgresql", "sqlite", "sqlserver")
    with pytest.raises(ConfigurationError, match="no connector for 'db2'; registered: duckdb, mysql"):
        create_connector(SourceConnection(type="db2", database="x"))
    for kind in registered_types():
        assert create_connector(SourceConnection(type=kind, database="x")).type == kind
