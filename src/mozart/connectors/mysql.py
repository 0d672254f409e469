"""MySQL and MariaDB as a source: one streamed SELECT a table, each in a snapshot of its own.

The server cannot share a snapshot between connections, so the tables of one run are each consistent, but not with
one another (`shared_snapshot=False`). DuckDB's mysql extension reads in the binary protocol; PyMySQL describes.

Values are bound; names are quoted with backticks, which hold in every sql_mode. The extension takes a connection of its
pool for every statement, so session settings cannot be made once: they go with each statement.

The bound of a watermark: `innodb_trx` shows running transactions and `processlist` statements that have fixed NOW()
but not begun one; both need the PROCESS privilege. On a replica rows arrive late with the primary's times. Without the
privilege, or on a replica, the position says that it cannot know, and the declared lag is the bound. A time that the
client made itself before its transaction began, or wrote in a zone of its own, is covered by a declared lag only.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar

from duckdb import DuckDBPyConnection
from pyiceberg.types import DecimalType, IntegerType, LongType, StringType

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
from mozart.connectors.drivers import import_driver
from mozart.connectors.mysql_types import map_type
from mozart.connectors.windows import WindowValue, whole_number_chunks, window_conditions, zone_of_offset
from mozart.errors import TerminalError, TransientError
from mozart.sql import quote_identifier, quote_literal

_ATTACHED = "source"
_DEFAULT_STATEMENT_TIMEOUT = 3600

_TLS_OPTIONS = ("ssl_mode", "ssl_ca", "ssl_cert", "ssl_key")
_UNREACHABLE = frozenset({2002, 2003, 2006, 2013, 1040, 1053, 1203})
_NEEDS_PRIVILEGE = frozenset({1142, 1227})

# The zone in which the server fills DATETIME columns by default; of the offsets of one day the lower.
_OFFSET = """
SELECT LEAST(TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW()),
             TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP() - INTERVAL 1 DAY, FROM_UNIXTIME(UNIX_TIMESTAMP() - 86400)))
"""

_SERVER = "SELECT @@version, @@server_id"
_SERVER_UUID = "SELECT @@server_uuid"

_TABLES = """
SELECT t.TABLE_NAME, t.TABLE_ROWS, UNIX_TIMESTAMP(t.CREATE_TIME), t.ENGINE
FROM information_schema.TABLES t WHERE t.TABLE_SCHEMA = %s AND t.TABLE_NAME = %s
"""

_COLUMNS = """
SELECT c.COLUMN_NAME, c.COLUMN_TYPE
FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = %s AND c.TABLE_NAME = %s ORDER BY c.ORDINAL_POSITION
"""

_UNIQUE_KEYS = """
SELECT s.INDEX_NAME, s.COLUMN_NAME, s.NULLABLE = '' AND s.SUB_PART IS NULL AND s.COLUMN_NAME IS NOT NULL
FROM information_schema.STATISTICS s WHERE s.TABLE_SCHEMA = %s AND s.TABLE_NAME = %s AND s.NON_UNIQUE = 0
"""

_FIRST_KEY_COLUMN = """
SELECT s.COLUMN_NAME FROM information_schema.STATISTICS s
WHERE s.TABLE_SCHEMA = %s AND s.TABLE_NAME = %s AND s.INDEX_NAME = 'PRIMARY' AND s.SEQ_IN_INDEX = 1
"""

# innodb_trx writes the server's local time, whatever the session's zone is: this one is set to SYSTEM. A day in which
# the local clock was moved adds the move, for the times of one hour stand for two.
_OLDEST = """
SELECT GREATEST(
    COALESCE((SELECT MAX(TIMESTAMPDIFF(MICROSECOND, trx_started, NOW(6))) FROM information_schema.INNODB_TRX
              WHERE trx_is_read_only = 0 AND trx_mysql_thread_id <> CONNECTION_ID()), -1),
    COALESCE((SELECT MAX(TIME + 1) * 1000000 FROM information_schema.PROCESSLIST
              WHERE COMMAND NOT IN ('Sleep', 'Daemon', 'Binlog Dump') AND ID <> CONNECTION_ID()), -1)),
  ABS(TIMESTAMPDIFF(SECOND, FROM_UNIXTIME(UNIX_TIMESTAMP() - 86400), NOW()) - 86400),
  (SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'system user' AND COMMAND <> 'Daemon')
"""


class MysqlConnector(BaseConnector):
    """MariaDB 10.5 and newer, MySQL 8.0 and newer."""

    type: ClassVar[str] = "mysql"
    extensions: ClassVar[tuple[str, ...]] = ("mysql",)
    default_port: ClassVar[int | None] = 3306

    def __init__(self, connection: SourceConnection, *, application: str = "mozart") -> None:
        super().__init__(connection, application=application)
        self.statement_timeout = int(connection.options.get("statement_timeout", _DEFAULT_STATEMENT_TIMEOUT))
        self.connect_timeout = int(connection.options.get("connect_timeout", 10))
        self.null_dates = connection.options.get("zero_dates") == "null"

    @cached_property
    def driver(self) -> Any:
        """PyMySQL; TerminalError when it is not installed."""
        return import_driver("pymysql", package="PyMySQL", kind=self.type)

    def check(self) -> None:
        self.connect().close()

    def open_reader(self) -> SourceReader:
        return MysqlReader(self, self.connect())

    def connect(self) -> Any:
        """A login of PyMySQL, for the catalog and the clock."""
        source = self.connection
        try:
            return self.driver.connect(
                host=source.host,
                port=source.port or self.default_port,
                user=source.username,
                # As bytes: PyMySQL would encode a text as Latin-1.
                password=source.password.get_secret_value().encode() if source.password else b"",
                database=source.database,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=self.connect_timeout,
                read_timeout=self.statement_timeout,
                program_name=self.application,
                # Some times of information_schema are the server's local ones.
                init_command="SET SESSION time_zone = 'SYSTEM'",
                **self._driver_tls(),
            )
        except self.driver.MySQLError as error:
            raise _login_error(source.address, error) from None

    def tls(self) -> dict[str, str]:
        return {name: self.connection.options[name] for name in _TLS_OPTIONS if name in self.connection.options}

    def _driver_tls(self) -> dict[str, Any]:
        options = self.tls()
        mode = options.pop("ssl_mode", "preferred").lower()
        if mode == "disabled":
            return {"ssl_disabled": True}
        if mode == "required" and not options:
            return {"ssl": {"check_hostname": False, "verify_mode": "none"}}
        verify = {"ssl_verify_cert": True} if mode.startswith("verify") else {}
        identity = {"ssl_verify_identity": True} if mode == "verify_identity" else {}
        return {**options, **verify, **identity}


class MysqlReader(SourceReader):
    """One run's view of a MySQL or MariaDB server."""

    def __init__(self, connector: MysqlConnector, control: Any) -> None:
        self._connector = connector
        self._control = control
        self._lock = threading.Lock()
        try:
            self._is_mariadb, self._identity = self._read_server()
            self.position = self._take_position()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the server may be gone already
            self._control.close()

    def _read_server(self) -> tuple[bool, str]:
        """Whether it is MariaDB, and its identity: MySQL's own uuid; MariaDB has none, there it is the server's id."""
        version, server_id = self._query("the server", _SERVER)[0]
        if "mariadb" in str(version).lower():
            return True, f"mariadb/{server_id}"
        return False, f"mysql/{self._query('the server', _SERVER_UUID)[0][0]}"

    def _take_position(self) -> SourcePosition:
        asked_at: datetime = self._query("the clock", "SELECT UTC_TIMESTAMP(6)")[0][0].replace(tzinfo=UTC)
        self._execute("SET SESSION time_zone = @@GLOBAL.time_zone")
        zone = zone_of_offset(int(self._query("the clock", _OFFSET)[0][0]))
        age = self._oldest_age()
        oldest = asked_at - age if age is not None else None
        return SourcePosition(asked_at, oldest, age is not None, zone, shared_snapshot=False)

    def _oldest_age(self) -> timedelta | None:
        """How long the oldest transaction that may still commit has run (zero: none); None where nobody can tell."""
        try:
            self._execute("SET SESSION time_zone = 'SYSTEM'")
            age, moved, replicating = self._execute(_OLDEST)[0]
        except self._connector.driver.MySQLError as error:
            if _code(error) in _NEEDS_PRIVILEGE:
                return None
            raise TransientError(f"{self._address}: the running transactions cannot be read: {_text(error)}") from None
        return None if replicating else timedelta(microseconds=max(int(age), 0), seconds=int(moved))

    @property
    def _address(self) -> str:
        return self._connector.connection.address

    def _query(self, where: str, statement: str, parameters: Sequence[str] = ()) -> Sequence[tuple[Any, ...]]:
        try:
            return self._execute(statement, parameters)
        except self._connector.driver.MySQLError as error:
            raise TransientError(f"{self._address}: {where} cannot be read: {_text(error)}") from None

    def _execute(self, statement: str, parameters: Sequence[str] = ()) -> Sequence[tuple[Any, ...]]:
        with self._lock:  # tables are described from several threads, the last ones perhaps long after the first
            try:
                self._control.ping(reconnect=False)
            except self._connector.driver.MySQLError:
                self._control = self._connector.connect()
            cursor = self._control.cursor()
            cursor.execute(statement, parameters or None)
            return cursor.fetchall()

    def describe(self, schema: str | None, table: str) -> SourceTable:
        schema = schema or self._connector.connection.database
        where = f"table {schema}.{table}"
        found = [row for row in self._query(where, _TABLES, (schema, table)) if row[0] == table]
        if not found:
            login = self._connector.connection.username
            raise TerminalError(
                f"{self._address}: {where} does not exist, or {login!r} has no right on it; "
                f"correct source_schema and source_table (case counts), create it, or grant SELECT"
            )
        _name, estimate, created, engine = found[0]
        columns = self._columns(where, schema, table)
        # Some servers give the file's time: it changes with a rebuild or a restore, and then a full read is due.
        identity = f"{self._identity}/{engine}/{created or ''}"
        keys = self._unique_keys(where, schema, table)
        return SourceTable(schema, table, columns, keys, identity, int(estimate) if estimate is not None else None)

    def _columns(self, where: str, schema: str, table: str) -> tuple[SourceColumn, ...]:
        rows = [(str(name), _decoded(kind)) for name, kind in self._query(where, _COLUMNS, (schema, table))]
        reject_case_collisions(f"{self._address}: {where}", [name for name, _kind in rows])
        return tuple(_column(name, kind) for name, kind in rows)

    def _unique_keys(self, where: str, schema: str, table: str) -> tuple[frozenset[str], ...]:
        parts: dict[str, list[tuple[str, bool]]] = {}
        for index, column, usable in self._query(where, _UNIQUE_KEYS, (schema, table)):
            parts.setdefault(str(index), []).append((str(column).lower(), bool(usable)))
        return tuple(
            frozenset(name for name, _usable in columns)
            for columns in parts.values()
            if all(usable for _name, usable in columns)
        )

    def attach(self, connection: DuckDBPyConnection) -> None:
        source = self._connector.connection
        login = {
            "HOST": source.host or "",
            "PORT": str(source.port or self._connector.default_port),
            "USER": source.username or "",
            "PASSWORD": source.password.get_secret_value() if source.password else "",
            "DATABASE": source.database,
            **{name.upper(): value for name, value in self._connector.tls().items()},
        }
        settings = ", ".join(f"{name} {quote_literal(value)}" for name, value in login.items())
        connection.execute("SET GLOBAL mysql_session_time_zone = '+00:00'")
        connection.execute(f"CREATE OR REPLACE SECRET source_login (TYPE mysql, {settings})")
        try:
            connection.execute(
                f"ATTACH '' AS {quote_identifier(_ATTACHED)} (TYPE mysql, SECRET source_login, READ_ONLY)"
            )
        except Exception as error:  # noqa: BLE001 - DuckDB's error may quote the login; only its class may leave
            raise TransientError(f"{source.address}: cannot be attached ({type(error).__name__})") from None

    def begin(self, cursor: DuckDBPyConnection) -> str:
        # The statement of a table's read has a snapshot of its own; DuckDB's transaction does not reach it.
        cursor.execute("BEGIN")
        return ""

    def relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        wire, arrive = self._select_lists(cursor, read)
        source, values = _from_where(read)
        return f"(SELECT {arrive} FROM {self._remote(f'{wire} {source}', values)} AS wire)"

    def chunks(self, read: TableRead) -> Sequence[Chunk]:
        """Ranges of the first column of the primary key, where it is a whole number."""
        schema, name = read.table.schema or "", read.table.name
        where = f"table {schema}.{name}"
        found = self._query(where, _FIRST_KEY_COLUMN, (schema, name))
        if not found or self.limits.chunk_by in ("none", "place"):
            return ()
        column = read.table.column(str(found[0][0]).lower())
        parts = (read.table.estimated_rows or 0) // self.limits.chunk_rows
        if parts < 2 or not isinstance(column.iceberg_type, IntegerType | LongType):
            return ()
        quoted = quote(column.source_name)
        low, high = self._query(where, f"SELECT MIN({quoted}), MAX({quoted}) FROM {quote(schema)}.{quote(name)}")[0]
        return whole_number_chunks(column.name, int(low or 0), int(high or 0), parts)

    def count_relation(self, cursor: DuckDBPyConnection, read: TableRead) -> str:
        source, values = _from_where(read)
        return f"(SELECT n AS rows FROM {self._remote(f'count(*) AS n {source}', values)})"

    def _remote(self, statement: str, values: Sequence[str]) -> str:
        """The FROM item of a SELECT's remainder; a `?` in it for each of `values`."""
        timeout = self._connector.statement_timeout
        if self._is_mariadb:
            # A slow object store must not look to the server like a dead client.
            limits = f"max_statement_time = {timeout}, net_write_timeout = {timeout}"
            statement = f"SET STATEMENT {limits} FOR SELECT {statement}"
        else:
            statement = f"SELECT /*+ MAX_EXECUTION_TIME({timeout}000) */ {statement}"
        bound = f", params = row({', '.join(quote_literal(value) for value in values)})" if values else ""
        return f"mysql_query({quote_literal(_ATTACHED)}, {quote_literal(statement)}, stream_results = true{bound})"

    def _select_lists(self, cursor: DuckDBPyConnection, read: TableRead) -> tuple[str, str]:
        """What is asked of the source, and what DuckDB makes of it; key columns come along for refusals' messages."""
        key = min(read.table.unique_keys, key=len, default=frozenset[str]())
        keys = [column for column in read.table.columns if column.name in key]
        parts = [f'"wire"."k{number}"::VARCHAR' for number, _column in enumerate(keys)]
        key_text = f"concat_ws(', ', {', '.join(parts)})" if parts else "'(no key)'"
        wire = [f"{column.expression} AS c{number}" for number, column in enumerate(read.columns)]
        wire += [f"CAST({quote(column.source_name)} AS CHAR) AS k{n}" for n, column in enumerate(keys)]
        arrive = [
            f"{self._arrived(cursor, read, number, key_text)} AS {quote_identifier(column.name)}"
            for number, column in enumerate(read.columns)
        ]
        return ", ".join(wire), ", ".join(arrive)

    def _arrived(self, cursor: DuckDBPyConnection, read: TableRead, number: int, key_text: str) -> str:
        column, value = read.columns[number], f'"wire"."c{number}"'
        mapping = map_type(column.source_type)
        if mapping.unfit is None:
            return mapping.arrive(value)
        if read.unfit == "null" or self._connector.null_dates:
            otherwise = read.counts.null_of(cursor, column.name, mapping.arrive(value))
        else:
            otherwise = mapping.refuse(value, quote_identifier(column.source_name), key_text)
        return f"CASE WHEN {mapping.unfit(value)} THEN {otherwise} ELSE {mapping.arrive(value)} END"


def quote(name: str) -> str:
    """`name` as MySQL quotes it in every sql_mode; its double quotes may mean a text."""
    quote_identifier(name)  # refuses what is no name
    return "`" + name.replace("`", "``") + "`"


def _column(name: str, declared: str) -> SourceColumn:
    mapping = map_type(declared)
    return SourceColumn(name.lower(), name, declared, mapping.iceberg, mapping.wire(quote(name)))


def _from_where(read: TableRead) -> tuple[str, Sequence[str]]:
    """FROM and WHERE with a `?` for each value."""
    conditions: list[str] = []
    values: list[str] = []
    for name, value in sorted(read.equals.items()):
        column = quote(read.table.column(name).source_name)
        # The first condition can use an index; MySQL's own `=` ignores case and reads 'abc' as 0, so the text decides.
        conditions.append(f"{column} = ? AND CAST(CAST({column} AS CHAR) AS BINARY) = CAST(? AS BINARY)")
        values += [value, value]
    for column, sign, value in window_conditions(read.table, read.window):
        left, right, text = _comparison(column, value)
        condition = f"{left} {sign} {right}"
        conditions.append(f"({condition} OR {left} IS NULL)" if sign == ">" else condition)
        values.append(text)
    if read.chunk and read.chunk.column:
        key = quote(read.table.column(read.chunk.column).source_name)
        ends = ((">=", read.chunk.low), ("<", read.chunk.high))
        conditions += [f"{key} {sign} {int(end)}" for sign, end in ends if end is not None]
    table = f"{quote(read.table.schema or '')}.{quote(read.table.name)}"
    return f"FROM {table}" + (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values


def _comparison(column: SourceColumn, value: WindowValue) -> tuple[str, str, str]:
    """Left side, right side with its `?`, and the bound text; both sides of one type, in the order DuckDB has."""
    left = quote(column.source_name)
    if isinstance(column.iceberg_type, StringType):
        return f"CAST({left} AS CHAR) COLLATE utf8mb4_bin", "CAST(? AS CHAR) COLLATE utf8mb4_bin", str(value)
    if isinstance(value, datetime):
        return left, "CAST(? AS DATETIME(6))", value.isoformat(sep=" ")
    if isinstance(value, date):
        return left, "CAST(? AS DATE)", value.isoformat()
    if isinstance(value, Decimal) and isinstance(column.iceberg_type, DecimalType):
        return left, f"CAST(? AS DECIMAL({column.iceberg_type.precision},{column.iceberg_type.scale}))", f"{value:f}"
    return left, "CAST(? AS DOUBLE)" if isinstance(value, float) else "CAST(? AS SIGNED)", repr(value)


def _decoded(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _code(error: BaseException) -> int | None:
    first: object = error.args[0] if error.args else None
    return first if isinstance(first, int) else None


def _text(error: BaseException) -> str:
    return " ".join(str(error.args[1] if len(error.args) > 1 else error).split())[:300]


def _login_error(address: str, error: BaseException) -> TransientError | TerminalError:
    if _code(error) in _UNREACHABLE:
        return TransientError(f"{address}: cannot be reached: {_text(error)}")
    return TerminalError(f"{address}: the server refuses the login: {_text(error)}")
