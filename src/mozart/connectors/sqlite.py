"""SQLite files as a source: every table of a run in one read transaction, values by their own storage class.

Python's sqlite3 reads, not DuckDB's sqlite extension: the extension reads decimals as doubles, gives reals as text of
15 digits, dates as what it takes them for, and fails on a value of another class without naming its row.

One connection holds one read transaction and serves all tables, also from several threads. In WAL mode nobody waits
for it. In any other journal mode a reader keeps writers from committing, so the file is copied first (SQLite's backup,
in one step; writers wait that long) and the copy is read and then removed. The file is opened read-only and is never
created; the path is relative to the process's working directory. In WAL mode the folder must be writable for the
reader, or `-wal` and `-shm` must exist.

Whether a writer is inside a transaction cannot be seen from outside: the bound of a watermark is the declared lag.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from duckdb import DuckDBPyConnection
from pyiceberg.types import LongType, StringType

from mozart.connectors.base import (
    BaseConnector,
    Chunk,
    SourceColumn,
    SourceConnection,
    SourcePosition,
    SourceReader,
    SourceTable,
    TableRead,
    reject_case_collisions,
)
from mozart.connectors.errors import read_error
from mozart.connectors.row_stream import StreamColumn, register_rows
from mozart.connectors.sqlite_types import has_comparing_affinity, map_type
from mozart.connectors.windows import whole_number_chunks, window_conditions
from mozart.errors import TerminalError, TransientError
from mozart.sql import quote_identifier, quote_qualified

_HIDDEN = 1
_FIRST_READ = "SELECT count(*) FROM main.sqlite_master"
_TABLE = "SELECT type, sql FROM main.sqlite_master WHERE type IN ('table', 'view') AND name = ?"
_COLUMNS = 'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid'
_UNIQUE_INDEXES = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial ORDER BY seq'
_INDEX_COLUMNS = "SELECT name FROM pragma_index_info(?)"
_IDENTITY = "SELECT application_id, schema_version FROM pragma_application_id, pragma_schema_version"


class SqliteConnector(BaseConnector):
    """SQLite 3 database files; `database` is the file's path."""

    type: ClassVar[str] = "sqlite"

    def __init__(self, connection: SourceConnection, *, application: str = "mozart") -> None:
        super().__init__(connection, application=application)
        if connection.host or connection.port or connection.username or connection.password:
            raise TerminalError(f"{connection.address}: a SQLite file has no host, port or login; remove them")
        self._busy_seconds = int(connection.options.get("busy_timeout", "10"))
        self._copy_folder = connection.options.get("copy_folder")

    def check(self) -> None:
        self._connect().close()

    def open_reader(self) -> SourceReader:
        asked_at = datetime.now(UTC)
        opened = self._connect()
        inode = Path(self.connection.database).stat().st_ino
        try:
            wal = opened.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            copy = None if wal else tempfile.TemporaryDirectory(prefix="mozart-sqlite-", dir=self._copy_folder)
            return SqliteReader(self.connection, _copied(opened, copy) if copy else opened, copy, asked_at, inode)
        except sqlite3.Error as error:
            opened.close()
            raise _open_error(self.connection.address, error) from None

    def _connect(self) -> sqlite3.Connection:
        path = Path(self.connection.database)
        where = self.connection.address
        if not path.is_file():
            raise TerminalError(f"{where}: there is no such file, seen from {Path.cwd()}; correct source.database")
        try:
            opened = _open_file(path, "ro", self._busy_seconds)
            opened.execute(_FIRST_READ).fetchone()
        except sqlite3.Error as error:
            raise _open_error(where, error) from None
        return opened


class SqliteReader(SourceReader):
    """One run's view of a SQLite file: one connection inside one read transaction."""

    def __init__(
        self,
        source: SourceConnection,
        connection: sqlite3.Connection,
        copy: tempfile.TemporaryDirectory[str] | None,
        asked_at: datetime,
        inode: int,
    ) -> None:
        self._source = source
        self._connection = connection
        self._copy = copy
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        _hold_snapshot(connection)
        application, schema_version = connection.execute(_IDENTITY).fetchone()
        self._identity = f"{inode}/{application}/{schema_version}"
        self.position = SourcePosition(asked_at, None, False, "UTC", shared_snapshot=True)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        if self._copy:
            self._copy.cleanup()

    def describe(self, schema: str | None, table: str) -> SourceTable:
        where = f"{self._source.address}: table {table}"
        if schema not in (None, "main"):
            raise TerminalError(f"{where}: SQLite has no schema {schema!r}; remove source_schema")
        if not self._rows(where, _TABLE, table):
            raise TerminalError(f"{where} does not exist; correct source_table (case counts), or create it")
        described = [row for row in self._rows(where, _COLUMNS, table) if row[4] != _HIDDEN]
        reject_case_collisions(where, [row[0] for row in described])
        columns = tuple(_column(row[0], row[1]) for row in described)
        return SourceTable(None, table, columns, self._unique_keys(where, table, described), self._identity)

    def _unique_keys(self, where: str, table: str, columns: Sequence[Any]) -> tuple[frozenset[str], ...]:
        """SQLite lets NULLs into a primary key, except one that is the row's own id."""
        filled = {row[0] for row in columns if row[2]}
        key = [row for row in columns if row[3]]
        if len(key) == 1 and key[0][1].upper() == "INTEGER":
            filled.add(key[0][0])
        candidates = [{row[0] for row in key}]
        for (index,) in self._rows(where, _UNIQUE_INDEXES, table):
            candidates.append({name for (name,) in self._rows(where, _INDEX_COLUMNS, index)})
        usable = dict.fromkeys(frozenset(c.lower() for c in names) for names in candidates if names and names <= filled)
        return tuple(usable)

    def _rows(self, where: str, statement: str, *parameters: str) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise TransientError(f"{where} cannot be described: {error}") from None

    def attach(self, connection: DuckDBPyConnection) -> None:
        """Nothing to do: rows come through Python."""

    def begin(self, cursor: DuckDBPyConnection) -> str:
        cursor.execute("BEGIN")
        return self.snapshot_name()

    def snapshot_name(self) -> str:
        return self.position.asked_at.isoformat()

    def relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        key = min(read.table.unique_keys, key=len, default=frozenset[str]())
        keys = [column.expression for column in read.table.columns if column.name in key]
        select = ", ".join([*(column.expression for column in read.columns), *keys])
        source, values = _from_where(read)
        rows = self._execute(read, f"SELECT {select} {source}", values)
        columns = [_stream_column(column, read) for column in read.columns]
        nulled = read.counts if read.unfit == "null" else None
        return register_rows(cursor, f"source_rows_{next(self._numbers)}", columns, partial(self._fetch, rows), nulled)

    def chunks(self, read: TableRead) -> Sequence[Chunk]:
        """Ranges of a whole-numbered key. One connection reads them one after another; they make a load resumable."""
        keys = [key for key in read.table.unique_keys if len(key) == 1]
        column = read.table.column(next(iter(keys[0]))) if keys else None
        if column is None or not isinstance(column.iceberg_type, LongType) or self.limits.chunk_by in ("none", "place"):
            return ()
        where = f"{self._source.address}: table {read.table.name}"
        table = quote_qualified("main", read.table.name)
        statement = f"SELECT count(*), min({column.expression}), max({column.expression}) FROM {table} AS t"
        rows, low, high = self._rows(where, statement)[0]
        if not (isinstance(low, int) and isinstance(high, int)):
            return ()
        return whole_number_chunks(column.name, low, high, rows // self.limits.chunk_rows)

    def count_relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        source, values = _from_where(read)
        count = self._fetch(self._execute(read, f"SELECT count(*) {source}", values), 1)[0][0]
        return f"(SELECT {int(count)}::BIGINT AS rows)"

    def _execute(self, read: TableRead, statement: str, values: Sequence[Any]) -> sqlite3.Cursor:
        with self._lock:
            try:
                return self._connection.execute(statement, values)
            except sqlite3.Error as error:
                raise read_error(f"{self._source.address}: table {read.table.name}", error) from None

    def _fetch(self, rows: sqlite3.Cursor, count: int) -> list[Any]:
        with self._lock:  # one connection serves all threads, and an error belongs to whoever stepped last
            return rows.fetchmany(count)


def _column(name: str, declared: str) -> SourceColumn:
    # Qualified: SQLite reads a quoted name that is no column as a text.
    expression = f"t.{quote_identifier(name)}"
    return SourceColumn(name.lower(), name, declared, map_type(declared).iceberg, expression)


def _stream_column(column: SourceColumn, read: TableRead) -> StreamColumn:
    mapping = map_type(column.source_type)
    # Text watermarks follow the order of texts, and a number has no place in it.
    ordered = read.window is not None and read.window.column == column.name
    convert = None if ordered and isinstance(mapping.iceberg, StringType) else mapping.convert
    return StreamColumn(column.name, mapping.iceberg, mapping.exact, convert)


def _from_where(read: TableRead) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for name, value in sorted(read.equals.items()):
        column = read.table.column(name)
        if has_comparing_affinity(column.source_type):
            # This one can use an index; a collation such as NOCASE takes more for equal than the next one does.
            conditions.append(f"{column.expression} = ?")
            values.append(value)
        conditions.append(f"CAST({column.expression} AS TEXT) = ? COLLATE BINARY")
        values.append(value)
    if read.chunk and read.chunk.column:
        key = read.table.column(read.chunk.column).expression
        ends = ((">=", read.chunk.low), ("<", read.chunk.high))
        conditions += [f"{key} {sign} {int(end)}" for sign, end in ends if end is not None]
    for column, sign, value in window_conditions(read.table, read.window):
        conditions.append(_window_condition(column, sign))
        values.append(value if isinstance(value, int | float | str) else str(value))
    table = quote_qualified("main", read.table.name)
    return f"FROM {table} AS t" + (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values


def _window_condition(column: SourceColumn, sign: str) -> str:
    condition = f"{column.expression} {sign} ? COLLATE BINARY"
    if isinstance(column.iceberg_type, StringType):
        # Numbers are read to be refused: they have no place in the order of texts.
        condition = f"{condition} OR typeof({column.expression}) NOT IN ('text', 'null')"
    return f"({condition} OR {column.expression} IS NULL)" if sign == ">" else f"({condition})"


def _open_file(path: Path, mode: str, busy_seconds: int) -> sqlite3.Connection:
    opened = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?mode={mode}",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    # A text that is not UTF-8 must reach the column's check, which names its row.
    opened.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    return opened


def _hold_snapshot(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute(_FIRST_READ).fetchone()  # BEGIN alone reads nothing, and holds nothing


def _copied(opened: sqlite3.Connection, copy: tempfile.TemporaryDirectory[str]) -> sqlite3.Connection:
    _hold_snapshot(opened)  # with its time limit: backup() alone would wait for a writer for ever
    target = _open_file(Path(copy.name) / "copy.db", "rwc", 0)
    opened.backup(target)
    opened.close()
    return target


def _open_error(address: str, error: sqlite3.Error) -> TransientError | TerminalError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return TransientError(f"{address}: a writer holds the file: {text}")
    cure = "check that it is a SQLite 3 file, and that this user may read it (and, in WAL mode, write to its folder)"
    return TerminalError(f"{address}: cannot be opened: {text}; {cure}")
