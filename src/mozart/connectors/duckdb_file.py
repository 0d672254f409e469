"""DuckDB database files as a source; the shortest connector, and the one that the guide makes.

The lake's own DuckDB attaches the file read-only, so no other process can write it meanwhile, and one that writes it
keeps us out: both are worth a retry. The path is relative to the process's working directory; a missing file is an
error and is never made. DuckDB leaves no trace of a table that was made anew (the usual way to rebuild one), so every
write to the file changes the source's identity, and every table is then read in full.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
from duckdb import DuckDBPyConnection

from mozart.connectors.base import (
    BaseConnector,
    SourceColumn,
    SourcePosition,
    SourceReader,
    SourceTable,
    TableRead,
)
from mozart.connectors.duckdb_types import map_type
from mozart.connectors.windows import window_conditions
from mozart.engine.duckdb import CONFIG
from mozart.errors import TerminalError, TransientError
from mozart.sql import quote_identifier, quote_literal, quote_qualified

_ATTACHED = "source"
_DEFAULT_SCHEMA = "main"
_HELD = ("lock", "already open", "already attached")

_TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_catalog = ? AND table_schema = ? AND table_name = ?
"""
_COLUMNS = """
SELECT column_name, data_type FROM duckdb_columns()
WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index
"""
_KEYS = """
SELECT constraint_column_names FROM duckdb_constraints()
WHERE database_name = ? AND schema_name = ? AND table_name = ? AND constraint_type = 'PRIMARY KEY'
"""


class DuckdbConnector(BaseConnector):
    """Files of DuckDB; `database` is the file's path."""

    type: ClassVar[str] = "duckdb"

    def check(self) -> None:
        self.open().close()

    def open_reader(self) -> SourceReader:
        path = Path(self.connection.database)
        if not path.is_file():
            raise TerminalError(
                f"{self.connection.address}: there is no such file, seen from {Path.cwd()}; correct source.database"
            )
        return DuckdbReader(self.connection.address, path)


class DuckdbReader(SourceReader):
    """One run's view of a file, which nobody can write while it is open."""

    def __init__(self, address: str, path: Path) -> None:
        self._address = address
        self._path = path
        asked_at = datetime.now(UTC)
        self._catalog = duckdb.connect(config=dict(CONFIG))
        try:
            self.attach(self._catalog)
        except BaseException:
            self.close()
            raise
        state = path.stat()
        self._identity = f"{state.st_ino}/{state.st_mtime_ns}/{state.st_size}"
        self.position = SourcePosition(asked_at, None, True, "UTC", shared_snapshot=True)

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self._catalog.close()

    def describe(self, schema: str | None, table: str) -> SourceTable:
        schema = schema or _DEFAULT_SCHEMA
        where = (_ATTACHED, schema, table)
        if not self._query(_TABLES, where):
            raise TerminalError(
                f"{self._address}: table {schema}.{table} does not exist; correct source_schema and source_table"
            )
        keys = tuple(frozenset(str(name).lower() for name in row[0]) for row in self._query(_KEYS, where))
        rows = self._query(_COLUMNS, where)
        parts = [f"{quote_identifier(str(name))}::VARCHAR" for name, _ in rows if keys and str(name).lower() in keys[0]]
        key = f"concat_ws(', ', {', '.join(parts)})" if parts else "'(no key)'"
        columns = tuple(_column(str(name), str(declared), key) for name, declared in rows)
        return SourceTable(schema, table, columns, keys, self._identity)

    def _query(self, statement: str, parameters: Sequence[str]) -> list[tuple[Any, ...]]:
        with self._catalog.cursor() as cursor:
            return cursor.execute(statement, list(parameters)).fetchall()

    def attach(self, connection: DuckDBPyConnection) -> None:
        try:
            connection.execute(
                f"ATTACH {quote_literal(str(self._path))} AS {quote_identifier(_ATTACHED)} (TYPE duckdb, READ_ONLY)"
            )
        except duckdb.Error as error:
            text = " ".join(str(error).split())[:300]
            if any(sign in text for sign in _HELD):
                raise TransientError(f"{self._address}: another process has it open for writing: {text}") from None
            raise TerminalError(f"{self._address}: cannot be opened: {text}") from None

    def begin(self, cursor: DuckDBPyConnection) -> str:
        cursor.execute("BEGIN")
        return self.snapshot_name()

    def snapshot_name(self) -> str:
        return self.position.asked_at.isoformat()

    def relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        columns = ", ".join(
            f"{_expression(cursor, read, column)} AS {quote_identifier(column.name)}" for column in read.columns
        )
        return f"(SELECT {columns} {_from_where(read)})"

    def count_relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        return f"(SELECT count(*) AS rows {_from_where(read)})"


def _expression(cursor: DuckDBPyConnection, read: TableRead, column: SourceColumn) -> str:
    mapping, quoted = map_type(column.source_type), quote_identifier(column.source_name)
    if read.unfit == "fail" or mapping.unfit is None:
        return column.expression
    value = mapping.plain(quoted)
    return f"CASE WHEN {mapping.unfit(quoted)} THEN {read.counts.null_of(cursor, column.name, value)} ELSE {value} END"


def _column(name: str, declared: str, key: str) -> SourceColumn:
    mapping = map_type(declared)
    return SourceColumn(name.lower(), name, declared, mapping.iceberg, mapping.expression(quote_identifier(name), key))


def _from_where(read: TableRead) -> str:
    conditions: list[str] = []
    for name, value in sorted(read.equals.items()):
        column = quote_identifier(read.table.column(name).source_name)
        conditions.append(f"{column}::VARCHAR = {quote_literal(value)}")
    for column, sign, value in window_conditions(read.table, read.window):
        left = quote_identifier(column.source_name)
        condition = f"{left} {sign} {quote_literal(str(value))}::{_comparable(column.source_type)}"
        conditions.append(f"({condition} OR {left} IS NULL)" if sign == ">" else condition)
    table = quote_qualified(_ATTACHED, read.table.schema or _DEFAULT_SCHEMA, read.table.name)
    return f"FROM {table}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


def _comparable(declared: str) -> str:
    """The type of a bound; a moment was made UTC, as the session is."""
    return "VARCHAR" if declared.startswith("ENUM(") else declared
