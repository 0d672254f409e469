"""Reading the lake with SQL, and nothing but reading.

The catalog is attached as `iceberg`, so that a query reads the same here and on Trino: `iceberg.acme.mart_case`, or
`acme.mart_case`. Four things keep a query from writing, each enough for what it covers: only statements that DuckDB
itself classifies as SELECT (or EXPLAIN of one) run; the catalog is attached read-only; files outside S3 are closed to
the session; its configuration is locked. Nothing of a result is kept in memory that the caller does not keep.

Pitfalls: with an S3 identity that may read other buckets, so may a query. `PIVOT` without an explicit IN list needs a
second statement and is refused. An unqualified table name resolves in the catalog's first namespace, not in any
tenant's: write the namespace.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection, StatementType

from mozart.engine.dbt_project import DUCKDB_OUTPUT
from mozart.engine.duckdb import (
    LAKE_EXTENSIONS,
    Limits,
    attach_lake,
    close_local_files,
    connect,
    create_lake_secrets,
    load_extensions,
)
from mozart.engine.rows import Rows
from mozart.errors import MozartError, TerminalError, TransientError
from mozart.lake.lakehouse import Lakehouse
from mozart.sql import quote_identifier, quote_literal

CATALOG = "iceberg"
_BATCH_ROWS = 1000
_EXPLAIN = re.compile(r"\s*explain\s+(?:analyze\s+)?", re.IGNORECASE)


class QuerySession:
    """A connection that can read the lake and change nothing. Made by `open_session`."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection

    def run(self, sql: str) -> Rows:
        """Start one statement. Raises TerminalError when it is no query or fails, also while its rows are read."""
        self._start(sql)
        columns = tuple(str(column[0]) for column in self._connection.description or ())
        return Rows(columns, self._rows())

    def table(self, sql: str) -> pa.Table:
        """The whole result as an Arrow table."""
        with _query_errors():
            return self._start(sql).to_arrow_table()

    def _start(self, sql: str) -> DuckDBPyConnection:
        with _query_errors():
            check_reads_only(sql)
            return self._connection.execute(sql)

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        while True:
            with _query_errors():
                batch = self._connection.fetchmany(_BATCH_ROWS)
            if not batch:
                return
            yield from batch


@contextlib.contextmanager
def open_session(
    lakehouse: Lakehouse, *, catalog: str = CATALOG, memory: str = "1GB", threads: int = 2
) -> Generator[QuerySession]:
    """A session on the lake, whose catalog SQL calls `catalog`; spilled data goes to a temporary folder.

    Raises TransientError when the lake does not answer, TerminalError when it refuses the identity.
    """
    with tempfile.TemporaryDirectory(prefix="mozart-query-") as folder:
        connection = connect(limits=Limits(memory, threads, Path(folder)))
        try:
            load_extensions(connection, LAKE_EXTENSIONS)
            _attach(connection, lakehouse, catalog)
            close_local_files(connection)
            connection.execute("SET lock_configuration = true")
            yield QuerySession(connection)
        finally:
            connection.close()


def check_reads_only(sql: str) -> None:
    """Refuse what is not exactly one reading statement; raises TerminalError, or DuckDB's ParserException."""
    text = _EXPLAIN.sub("", sql, count=1) if _EXPLAIN.match(sql) else sql
    statements = duckdb.extract_statements(text)
    if len(statements) != 1:
        raise TerminalError(f"one query at a time, please: found {len(statements)} statements")
    kind = statements[0].type
    if kind != StatementType.SELECT:
        raise TerminalError(f"only queries can be run here, and this is a {kind.name} statement; the lake is read-only")


def _attach(connection: DuckDBPyConnection, lakehouse: Lakehouse, catalog: str) -> None:
    try:
        create_lake_secrets(connection, lakehouse)
        attach_lake(connection, lakehouse, name=catalog)
        first = connection.execute(
            "SELECT min(schema_name) FROM duckdb_schemas() WHERE database_name = ?", [catalog]
        ).fetchone()
    except duckdb.Error as error:
        raise _attach_error(error, lakehouse) from error
    if first and first[0]:
        # DuckDB resolves `acme.mart_case` within the current catalog only, and a catalog is chosen by a schema in it.
        path = f"{quote_identifier(catalog)}.{quote_identifier(first[0])}"
        connection.execute(f"SET search_path = {quote_literal(path)}")


def _attach_error(error: duckdb.Error, lakehouse: Lakehouse) -> MozartError:
    text = _first_line(error)
    if re.search(r"\b40[0-9]\b|Unauthorized|Forbidden|invalid_client|does not exist", text):
        return TerminalError(f"the catalog at {lakehouse.catalog_uri} refused warehouse {lakehouse.warehouse}: {text}")
    return TransientError(
        f"the catalog at {lakehouse.catalog_uri} does not answer: {text}; is the stack up? (`mozart ps`)"
    )


@contextlib.contextmanager
def _query_errors() -> Generator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.HTTPException) as error:
        raise TransientError(f"reading the lake failed: {_first_line(error)}") from error
    except duckdb.Error as error:
        raise TerminalError(_first_line(error)) from error


def _first_line(error: duckdb.Error) -> str:
    """DuckDB's message without the quoted statement, on one line."""
    return " ".join(str(error).split("\n\nLINE ")[0].split())


class DuckDBEngine:
    """The embedded engine (see `mozart.engine.base.Engine`)."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse

    @property
    def name(self) -> str:
        return "duckdb"

    def query(self, sql: str) -> pa.Table:
        with open_session(self._lakehouse) as session:
            return session.table(sql)

    def dbt_output(self) -> Mapping[str, Any]:
        return DUCKDB_OUTPUT
