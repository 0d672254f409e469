"""A source behind a Python driver of the DB-API: what SQL Server and Oracle have in common.

Every table is read through a connection of its own in a snapshot of its own (`shared_snapshot=False`), its rows
streamed into Arrow batches. Nobody here knows which transactions run: the bound of a watermark is the declared lag.
A dialect gives the login, the catalog's queries, the answers for its types and the form of its statements.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar

from duckdb import DuckDBPyConnection
from pyiceberg.types import IcebergType

from mozart.connectors.base import (
    BaseConnector,
    SourceColumn,
    SourcePosition,
    SourceReader,
    SourceTable,
    TableRead,
    reject_case_collisions,
)
from mozart.connectors.drivers import import_driver
from mozart.connectors.errors import read_error
from mozart.connectors.row_stream import StreamColumn, register_rows
from mozart.connectors.windows import WindowValue, window_conditions, zone_of_offset
from mozart.errors import TerminalError
from mozart.sql import quote_identifier, quote_qualified


@dataclass(frozen=True)
class Answer:
    """The answer for one type: SQL of the source from the quoted column, and what its driver's values become."""

    iceberg: IcebergType
    expression: Callable[[str], str]
    exact: frozenset[type]
    convert: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class DescribedTable:
    """What a dialect's catalog says of a table: (name, declared type) of its columns, and keys that hold no NULL."""

    schema: str
    columns: Sequence[tuple[str, str]]
    unique_keys: Sequence[frozenset[str]]
    identity: str


class DbapiConnector(BaseConnector):
    """A database behind a DB-API driver, which is imported on first use."""

    driver_module: ClassVar[str]

    @cached_property
    def driver(self) -> Any:
        """The driver's module; TerminalError when it is not installed."""
        return import_driver(self.driver_module, package=self.driver_module, kind=self.type)

    @abstractmethod
    def connect(self) -> Any:
        """A new connection, ready to read; TransientError or TerminalError, never with the password."""

    @abstractmethod
    def describe(self, connection: Any, schema: str | None, table: str) -> DescribedTable | None:
        """The table, or None when it is not there or may not be read."""

    @abstractmethod
    def clock(self, connection: Any) -> tuple[datetime, int]:
        """The source's time in UTC, without a zone, and the seconds its local time is ahead of UTC."""

    @abstractmethod
    def answer(self, declared: str) -> Answer:
        """The answer for a declared type."""

    @abstractmethod
    def placeholder(self, number: int) -> str:
        """The mark of the statement's value `number`, from 1."""

    @abstractmethod
    def filter_condition(self, column: SourceColumn, quoted: str, mark: str) -> str:
        """SQL: the column's own text equals the bound text `mark`, case and all."""

    @abstractmethod
    def window_sides(self, column: SourceColumn, quoted: str, mark: str, value: WindowValue) -> tuple[str, str, Any]:
        """SQL of the column, SQL of the bound `mark`, and what to bind: comparable, in the order the lake has."""

    def check(self) -> None:
        self.connect().close()

    def open_reader(self) -> SourceReader:
        return DbapiReader(self)


class DbapiReader(SourceReader):
    """One run's view of the source: a connection for the catalog, and one for each table while it is read."""

    def __init__(self, connector: DbapiConnector) -> None:
        self._connector = connector
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._reading: list[Any] = []
        self._catalog = connector.connect()
        try:
            moment, offset = connector.clock(self._catalog)
        except BaseException:
            self.close()
            raise
        asked_at = moment.replace(tzinfo=UTC)
        self.position = SourcePosition(asked_at, None, False, zone_of_offset(offset), shared_snapshot=False)

    def close(self) -> None:
        for connection in (*self._reading, self._catalog):
            with contextlib.suppress(Exception):  # the server may be gone already
                connection.close()

    def describe(self, schema: str | None, table: str) -> SourceTable:
        connector = self._connector
        where = f"{connector.connection.address}: table {f'{schema}.' if schema else ''}{table}"
        with self._lock:
            try:
                found = connector.describe(self._catalog, schema, table)
            except connector.driver.Error as error:
                raise read_error(where, error) from None
        if found is None:
            raise TerminalError(
                f"{where} does not exist, or the login has no right on it; "
                f"correct source_schema and source_table (case counts), create it, or grant SELECT"
            )
        reject_case_collisions(where, [name for name, _declared in found.columns])
        columns = tuple(self._column(name, declared) for name, declared in found.columns)
        return SourceTable(found.schema, table, columns, tuple(found.unique_keys), found.identity)

    def _column(self, name: str, declared: str) -> SourceColumn:
        answer = self._connector.answer(declared)
        expression = answer.expression(quote_identifier(name))
        return SourceColumn(name.lower(), name, declared, answer.iceberg, expression)

    def attach(self, connection: DuckDBPyConnection) -> None:
        """Nothing to do: rows come through Python."""

    def begin(self, cursor: DuckDBPyConnection) -> str:
        cursor.execute("BEGIN")
        return ""

    def relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        statement, values = select(self._connector, read)
        rows = self._execute(read, statement, values)
        columns = [self._stream_column(column) for column in read.columns]
        nulled = read.counts if read.unfit == "null" else None
        return register_rows(cursor, f"source_rows_{next(self._numbers)}", columns, rows.fetchmany, nulled)

    def count_relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        source, values = from_where(self._connector, read)
        rows = self._execute(read, f"SELECT count(*) {source}", values).fetchall()
        return f"(SELECT {int(rows[0][0])}::BIGINT AS rows)"

    def _stream_column(self, column: SourceColumn) -> StreamColumn:
        answer = self._connector.answer(column.source_type)
        return StreamColumn(column.name, answer.iceberg, answer.exact, answer.convert)

    def _execute(self, read: TableRead, statement: str, values: Sequence[Any]) -> Any:
        connection = self._connector.connect()
        with self._lock:
            self._reading.append(connection)
        rows = connection.cursor()
        try:
            rows.execute(statement, list(values))
        except self._connector.driver.Error as error:
            raise read_error(read.table.qualified_name, error) from None
        return rows


def select(connector: DbapiConnector, read: TableRead) -> tuple[str, list[Any]]:
    """The SELECT of a read, the key's columns behind its own, and the values to bind."""
    key = min(read.table.unique_keys, key=len, default=frozenset[str]())
    keys = [column.expression for column in read.table.columns if column.name in key]
    source, values = from_where(connector, read)
    return f"SELECT {', '.join([*(column.expression for column in read.columns), *keys])} {source}", values


def from_where(connector: DbapiConnector, read: TableRead) -> tuple[str, list[Any]]:
    """FROM and WHERE, and the values to bind."""
    conditions: list[str] = []
    values: list[Any] = []
    for name, value in sorted(read.equals.items()):
        values.append(value)
        column = read.table.column(name)
        mark = connector.placeholder(len(values))
        conditions.append(connector.filter_condition(column, quote_identifier(column.source_name), mark))
    for column, sign, value in window_conditions(read.table, read.window):
        mark = connector.placeholder(len(values) + 1)
        left, right, bound = connector.window_sides(column, quote_identifier(column.source_name), mark, value)
        values.append(bound)
        condition = f"{left} {sign} {right}"
        conditions.append(f"({condition} OR {left} IS NULL)" if sign == ">" else condition)
    table = quote_qualified(read.table.schema or "", read.table.name)
    return f"FROM {table}" + (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values
