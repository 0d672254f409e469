"""PostgreSQL as a source: one COPY stream a table, all tables in one exported snapshot.

A holder connection exports its snapshot; each reading cursor of DuckDB imports it. The holder keeps the tenant's
vacuum back while it lives, so it is closed as soon as the last table is read, and let go at the age that the option
`snapshot_age` sets. Before the snapshot the holder asks which transactions run: what began earlier may still commit
rows behind the snapshot, with timestamps of its start. An ordinary role cannot see that (`pg_read_all_stats` is
needed), and a standby does not know it: both say so in the position, and the load engine falls back to the declared
lag.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, LiteralString

import psycopg
from duckdb import DuckDBPyConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from mozart.connectors.base import (
    BaseConnector,
    Chunk,
    SourceColumn,
    SourcePosition,
    SourceReader,
    SourceTable,
    TableRead,
    reject_case_collisions,
)
from mozart.connectors.options import duration
from mozart.connectors.postgresql_sql import from_where, plan_chunks, remote, select_lists
from mozart.connectors.postgresql_types import PostgresqlType, map_type
from mozart.errors import TerminalError, TransientError
from mozart.sql import quote_identifier, quote_literal

_ATTACHED = "source"
_DEFAULT_STATEMENT_TIMEOUT = "1h"

_ONE_PROCESS = {"max_parallel_workers_per_gather": "0", "jit": "off"}
"""A read takes one process of the tenant's server. The guards of values look costly to its planner, which then shared
the scan of lineitem out to two workers: their rows through a queue cost 0.3 of the server's 1.45 CPU s a million. What
a compiler makes of the guards is not worth its time either, for they are plain comparisons."""

_TLS_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey")

_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS shown, t.oid, a.atttypmod AS modifier
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attnum, b.attname, b.shown, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE b.modifier END
    FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd'
)
SELECT b.attname, b.shown, t.typname, b.modifier, e.typname
FROM base b
JOIN pg_type t ON t.oid = b.oid
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' AND t.typlen = -1
WHERE t.typtype <> 'd'
ORDER BY b.attnum
"""

_TABLE = """
SELECT c.oid, c.reltuples::bigint,
       has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

_UNIQUE_KEYS = """
SELECT array_agg(a.attname::text)
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(attnum)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %(table)s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid
HAVING bool_and(a.attnotnull)
"""

_POSITION = """
SELECT clock_timestamp(),
       (SELECT min(xact_start) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND backend_type IN ('client backend', 'background worker', 'parallel worker')
          AND application_name NOT LIKE 'mozart/%%'),
       pg_has_role('pg_read_all_stats', 'USAGE') AND NOT pg_is_in_recovery()
           AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()),
       (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone')
"""


_IDENTITY = """
SELECT s.system_identifier, c.timeline_id, d.oid
FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d
WHERE d.datname = current_database()
"""


class PostgresqlConnector(BaseConnector):
    """PostgreSQL 12 and newer, primary or standby."""

    type: ClassVar[str] = "postgresql"
    extensions: ClassVar[tuple[str, ...]] = ("postgres",)
    default_port: ClassVar[int | None] = 5432

    def check(self) -> None:
        self.connect().close()

    def open_reader(self) -> SourceReader:
        return PostgresqlReader(self)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A login of psycopg, for the snapshot and the catalog."""
        source = self.connection
        try:
            return psycopg.connect(
                make_conninfo("", **self.tls()),
                host=source.host,
                port=source.port or self.default_port,
                dbname=source.database,
                user=source.username,
                password=source.password.get_secret_value() if source.password else None,
                application_name=self.application,
                connect_timeout=int(source.options.get("connect_timeout", "10")),
                autocommit=True,
                row_factory=tuple_row,
            )
        except psycopg.OperationalError as error:
            raise _login_error(source.address, error) from None

    def tls(self) -> dict[str, str]:
        return {name: self.connection.options[name] for name in _TLS_OPTIONS if name in self.connection.options}


class PostgresqlReader(SourceReader):
    """One run's view of a PostgreSQL database: the holder of the snapshot, and what every table reader needs.

    A snapshot older than the limits allow, or whose holder was cut off, is let go; the next read begins in a new one.
    Reads that had joined the old one keep it to their own end, which `statement_timeout` bounds.
    """

    streams_at_once: ClassVar[int] = 2

    def __init__(self, connector: PostgresqlConnector) -> None:
        self._connector = connector
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._holder = connector.connect()
        try:
            self._take_snapshot()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._holder.close()

    def _take_snapshot(self) -> None:
        self.position = self._take_position()
        self._identity = self._read_identity()
        self._holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._snapshot = str(self._one_row("SELECT pg_export_snapshot()")[0])
        age = self._connector.limits.snapshot_age.total_seconds()
        self._timer = threading.Timer(age, self._expire, (self._holder,))
        self._timer.daemon = True
        self._timer.start()

    def _expire(self, holder: psycopg.Connection[tuple[Any, ...]]) -> None:
        with self._lock:
            holder.close()

    def _current_snapshot(self) -> str:
        """The snapshot in force; a new one where the old one was let go or lost. Call with the lock held."""
        if not self._is_held():
            self._take_another()
        return self._snapshot

    def _take_another(self) -> None:
        self.close()
        self._holder = self._connector.connect()
        self._take_snapshot()

    def renew(self, since: datetime) -> bool:
        with self._lock:
            if self.position.asked_at >= since:
                return False
            self._take_another()
            return True

    def _is_held(self) -> bool:
        try:
            self._holder.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _take_position(self) -> SourcePosition:
        row = self._one_row(_POSITION)
        asked_at: datetime = row[0]
        oldest: datetime | None = row[1]
        return SourcePosition(asked_at, oldest, bool(row[2]), str(row[3]), shared_snapshot=True)

    def _read_identity(self) -> str:
        """Changes when another server, a restored one or a failed-over one answers under the same address."""
        row = self._one_row(_IDENTITY)
        return "/".join(str(part) for part in row)

    def _one_row(self, statement: LiteralString) -> tuple[Any, ...]:
        try:
            return self._holder.execute(statement).fetchall()[0]
        except psycopg.OperationalError as error:
            raise TransientError(f"{self._connector.connection.address}: {_first_line(error)}") from None

    def describe(self, schema: str | None, table: str) -> SourceTable:
        namespace = schema or "public"
        where = f"{self._connector.connection.address}: table {namespace}.{table}"
        found = self._query(where, _TABLE, {"schema": namespace, "table": table})
        if not found:
            raise TerminalError(f"{where} does not exist; correct source_schema and source_table, or create it")
        oid, estimate, may_read = found[0]
        if not may_read:
            login = self._connector.connection.username
            raise TerminalError(f"{where} may not be read by {login!r}; grant SELECT on it")
        parameters = {"table": oid}
        keys = self._query(where, _UNIQUE_KEYS, parameters)
        unique_keys = tuple(frozenset(str(name).lower() for name in row[0]) for row in keys)
        columns = _columns(where, self._query(where, _COLUMNS, parameters))
        identity = f"{self._identity}/{oid}"
        return SourceTable(namespace, table, columns, unique_keys, identity, int(estimate) if estimate >= 0 else None)

    def _query(self, where: str, statement: LiteralString, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        try:
            with self._lock:
                self._current_snapshot()
                # The holder's snapshot also fixes the catalog: a table dropped since is described, and still read.
                return self._holder.execute(statement, parameters).fetchall()
        except psycopg.OperationalError as error:
            raise TransientError(f"{where}: the source went away: {_first_line(error)}") from None

    def attach(self, connection: DuckDBPyConnection) -> None:
        source = self._connector.connection
        password = source.password.get_secret_value() if source.password else ""
        # CREATE SECRET, never a conninfo with a password: a failed ATTACH prints its conninfo.
        connection.execute(
            f"CREATE OR REPLACE SECRET source_login (TYPE postgres, HOST {quote_literal(source.host or '')}, "
            f"PORT {source.port or self._connector.default_port}, USER {quote_literal(source.username or '')}, "
            f"PASSWORD {quote_literal(password)}, DATABASE {quote_literal(source.database)})"
        )
        conninfo = " ".join(f"{key}={_conninfo_value(value)}" for key, value in self._conninfo().items())
        try:
            connection.execute(
                f"ATTACH {quote_literal(conninfo)} AS {quote_identifier(_ATTACHED)} "
                "(TYPE postgres, SECRET source_login, READ_ONLY)"
            )
        except Exception as error:  # noqa: BLE001 - DuckDB's error may quote the login; only its class may leave
            raise TransientError(f"{source.address}: cannot be attached ({type(error).__name__})") from None

    def _conninfo(self) -> dict[str, str]:
        options = self._connector.connection.options
        settings = {
            "statement_timeout": _milliseconds(options.get("statement_timeout", _DEFAULT_STATEMENT_TIMEOUT)),
            "intervalstyle": "iso_8601",
            "extra_float_digits": "1",
            "bytea_output": "hex",
            "datestyle": "ISO",
            **_ONE_PROCESS,
        }
        return {
            "application_name": self._connector.application,
            "connect_timeout": options.get("connect_timeout", "10"),
            "options": " ".join(f"-c{name}={value}" for name, value in settings.items()),
            **self._connector.tls(),
        }

    def begin(self, cursor: DuckDBPyConnection) -> str:
        cursor.execute("BEGIN")
        with self._lock:
            name = self.snapshot_name()
            statement = f"SET TRANSACTION SNAPSHOT {quote_literal(self._snapshot)}"
            cursor.execute(f"CALL postgres_execute({quote_literal(_ATTACHED)}, {quote_literal(statement)})")
            return name

    def snapshot_name(self) -> str:
        with self._lock:
            # PostgreSQL gives a snapshot's name again after a restart.
            return f"{self._current_snapshot()} of {self.position.asked_at.isoformat()}"

    def relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        wire, arrive = select_lists(cursor, read)
        return f"(SELECT {arrive} FROM {remote(_ATTACHED, f'SELECT {wire} {from_where(read)}')} AS wire)"

    def count_relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        return remote(_ATTACHED, f"SELECT count(*) AS rows {from_where(read)}")

    def chunks(self, read: TableRead) -> Sequence[Chunk]:
        where = f"{self._connector.connection.address}: table {read.table.qualified_name}"
        try:
            # Not the holder's session: the table may be locked at the source, and every other would wait with it.
            with self.slots, self._connector.connect() as planner:
                return plan_chunks(planner, read.table, self.limits)
        except psycopg.OperationalError as error:
            raise TransientError(f"{where}: the source went away: {_first_line(error)}") from None


def _columns(where: str, rows: Sequence[tuple[Any, ...]]) -> tuple[SourceColumn, ...]:
    reject_case_collisions(where, [str(row[0]) for row in rows])
    return tuple(_column(row) for row in rows)


def _column(row: tuple[Any, ...]) -> SourceColumn:
    name, shown, type_name, modifier, element = row
    element_type = PostgresqlType(str(element)) if element else None
    answer = map_type(PostgresqlType(str(type_name), int(modifier), element_type))
    expression = answer.wire(quote_identifier(name))
    return SourceColumn(str(name).lower(), str(name), str(shown), answer.iceberg, expression, answer)


def _milliseconds(text: str) -> str:
    return str(int(duration(text).total_seconds() * 1000))


def _conninfo_value(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


_DISTRUST = ("does not support SSL", "certificate")
"""What libpq says where client and server do not agree on TLS; a lost TLS connection has neither."""


def _login_error(address: str, error: psycopg.OperationalError) -> TransientError | TerminalError:
    text = _first_line(error)
    refused = (
        "authentication failed",
        "does not exist",
        "no pg_hba.conf entry",
        "permission denied",
    )
    distrust = [line for line in str(error).splitlines() if any(sign in line for sign in _DISTRUST)]
    if distrust:
        return TerminalError(
            f"{address}: TLS as asked for is not to be had: {distrust[0].strip()}; correct sslmode, sslrootcert, "
            "sslcert or sslkey in source.options, or the server's certificate"
        )
    if any(sign in str(error) for sign in refused):
        return TerminalError(f"{address}: the server refuses the login: {text}")
    return TransientError(f"{address}: cannot be reached: {text}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
