"""Sources for the behaviour suite: each a real, empty database and the words of its own SQL that the suite needs."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
from pydantic import SecretStr

from mozart.connectors.base import SourceConnection
from mozart.services.postgres import Database


class Source(ABC):
    """A database that a test may fill. `moment` is the type of an incremental column, `text` of long texts."""

    integer: ClassVar[str] = "BIGINT"
    moment: ClassVar[str]
    text: ClassVar[str] = "TEXT"
    key_text: ClassVar[str] = "VARCHAR(100)"
    has_login: ClassVar[bool] = True
    sees_transactions: ClassVar[bool] = True
    shares_snapshot: ClassVar[bool] = True
    tells_tables_apart: ClassVar[bool] = True  # else every write to the source means a full refresh
    has_times: ClassVar[bool] = True  # else a moment is text to the load engine, whose watermark takes two loads
    placeholder: ClassVar[str] = "%s"
    unfit: ClassVar[tuple[str, str, str]]
    """A column's type, a literal of it that Iceberg cannot hold, and one that it can."""
    chunks: ClassVar[bool] = True

    def __init__(self, connection: SourceConnection) -> None:
        self.connection = connection

    @abstractmethod
    def run(self, statement: str, rows: Sequence[Sequence[Any]] | None = None) -> list[tuple[Any, ...]]:
        """Execute and commit, once for each of `rows`; the rows it gives."""

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        marks = ", ".join([self.placeholder] * len(rows[0]))
        self.run(f"INSERT INTO {self.quote(table)} VALUES ({marks})", rows)

    def quote(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def at(self, moment: datetime) -> Any:
        """`moment`, UTC, as this database stores it."""
        return moment

    def analyze(self, table: str) -> None:  # noqa: B027 - most have nothing to do
        """Let the database count the table's rows."""

    @abstractmethod
    def close(self) -> None: ...


class PostgresqlSource(Source):
    moment = "timestamptz"
    unfit = ("numeric(9,2)", "'NaN'", "1.50")

    def __init__(self, place: Database) -> None:
        super().__init__(
            SourceConnection(
                type="postgresql",
                host=place.host,
                port=place.port,
                database=place.name,
                username=place.user,
                password=SecretStr(place.password),
            )
        )
        self._connection = place.connect(autocommit=True)

    def analyze(self, table: str) -> None:
        self.run(f"ANALYZE {table}")

    def run(self, statement: str, rows: Sequence[Sequence[Any]] | None = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            if rows is not None:
                cursor.executemany(statement, rows)
                return []
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._connection.close()


class MariadbSource(Source):
    moment = "TIMESTAMP(6) NULL"
    text = "LONGTEXT"
    unfit = ("DATE", "'0000-00-00'", "'2024-05-01'")
    shares_snapshot = False

    def __init__(self, admin: Any, port: int, login: tuple[str, str, str]) -> None:
        database, user, password = login
        super().__init__(
            SourceConnection(
                type="mysql",
                host="127.0.0.1",
                port=port,
                database=database,
                username=user,
                password=SecretStr(password),
            )
        )
        self._connection = admin
        self.run("SET time_zone = '+00:00'")

    def analyze(self, table: str) -> None:
        self.run(f"ANALYZE TABLE {table}")

    def run(self, statement: str, rows: Sequence[Sequence[Any]] | None = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            if rows is not None:
                cursor.executemany(statement, rows)
                return []
            cursor.execute(statement)
            return list(cursor.fetchall())

    def quote(self, name: str) -> str:
        return "`" + name.replace("`", "``").replace("%", "%%") + "`"

    def at(self, moment: datetime) -> Any:
        return moment.replace(tzinfo=None)

    def close(self) -> None:
        self._connection.close()


class SqliteSource(Source):
    key_text = "VARCHAR(100) COLLATE NOCASE"  # as loose as MariaDB's collations
    integer = "INTEGER"  # with PRIMARY KEY the row's own id, the only key without NULLs
    moment = "TEXT"
    has_times = False
    unfit = ("INTEGER", "'no number'", "5")
    has_login = False
    sees_transactions = False
    placeholder = "?"

    def __init__(self, file: Path) -> None:
        super().__init__(SourceConnection(type="sqlite", database=str(file)))
        self._connection = sqlite3.connect(file, isolation_level=None)
        self.run("PRAGMA journal_mode = wal")

    def run(self, statement: str, rows: Sequence[Sequence[Any]] | None = None) -> list[tuple[Any, ...]]:
        if rows is not None:
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
            return []
        return self._connection.execute(statement).fetchall()

    def at(self, moment: datetime) -> Any:
        return moment.isoformat(sep=" ", timespec="microseconds")

    def close(self) -> None:
        self._connection.close()


class DuckdbSource(Source):
    """DuckDB lets no one read a file that another process, or instance, has open for writing: opened for each call."""

    unfit = ("DATE", "'infinity'", "'2024-05-01'")
    chunks = False
    moment = "TIMESTAMPTZ"
    tells_tables_apart = False
    has_login = False
    placeholder = "?"

    def __init__(self, file: Path) -> None:
        super().__init__(SourceConnection(type="duckdb", database=str(file)))
        self._file = file
        self.run("SELECT 1")

    def run(self, statement: str, rows: Sequence[Sequence[Any]] | None = None) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self._file)) as connection:
            if rows is None:
                return connection.execute(statement).fetchall()
            head, _marks = statement.split(" VALUES ")  # executemany runs a statement for every row
            columns = [pa.array(values) for values in zip(*rows, strict=True)]
            connection.register("rows", pa.table(columns, names=[f"c{n}" for n in range(len(columns))]))
            connection.execute(f"{head} SELECT * FROM rows")
            return []

    def close(self) -> None:
        """Nothing is held."""
