"""Microsoft SQL Server as a source, through pymssql. NO SERVER WAS RUN: SQL and types are tested, a read is not.

Reads run under SNAPSHOT isolation when the option `isolation: snapshot` says that the database allows it, else under
the database's default, READ COMMITTED, where a long read may miss or double rows that move meanwhile.
Types: see docs/types/sqlserver.md.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar

from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimeType,
)

from mozart.connectors.base import SourceColumn
from mozart.connectors.dbapi import Answer, DbapiConnector, DescribedTable
from mozart.connectors.windows import WindowValue
from mozart.errors import TerminalError, TransientError

_MICROSECONDS = 6
_DECLARED = re.compile(r"^(\w+)(?:\((\d+)(?:,(\d+))?\))?$", re.ASCII)
_BINARY_ORDER = "COLLATE Latin1_General_100_BIN2"
_LOGIN_FAILED = ("Login failed", "18456", "Cannot open database", "4060")

_TABLE = """
SELECT s.name, o.object_id, CONVERT(varchar(33), o.create_date, 126)
FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id
WHERE o.type IN ('U', 'V') AND s.name = COALESCE(%s, SCHEMA_NAME()) AND o.name = %s
"""
_COLUMNS = """
SELECT c.name, t.name, c.precision, c.scale
FROM sys.columns c JOIN sys.types t ON t.user_type_id = c.system_type_id OR (t.user_type_id = c.user_type_id
     AND c.system_type_id = 240)
WHERE c.object_id = %s ORDER BY c.column_id
"""
_UNIQUE_KEYS = """
SELECT i.index_id, c.name, c.is_nullable
FROM sys.indexes i
JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = i.index_id AND k.is_included_column = 0
JOIN sys.columns c ON c.object_id = i.object_id AND c.column_id = k.column_id
WHERE i.object_id = %s AND i.is_unique = 1 AND i.has_filter = 0 AND i.is_disabled = 0
"""
_SERVER = "SELECT CONVERT(varchar(128), SERVERPROPERTY('ServerName')), CONVERT(varchar(36), d.service_broker_guid)"
_CLOCK = "SELECT SYSUTCDATETIME(), DATEDIFF(second, SYSUTCDATETIME(), SYSDATETIME())"


class SqlserverConnector(DbapiConnector):
    """SQL Server 2016 and newer."""

    type: ClassVar[str] = "sqlserver"
    driver_module: ClassVar[str] = "pymssql"
    default_port: ClassVar[int | None] = 1433

    def connect(self) -> Any:
        source = self.connection
        encryption = {"encryption": source.options["encryption"]} if "encryption" in source.options else {}
        try:
            connection = self.driver.connect(
                server=source.host,
                port=str(source.port or self.default_port),
                user=source.username,
                password=source.password.get_secret_value() if source.password else "",
                database=source.database,
                appname=self.application,
                login_timeout=int(source.options.get("connect_timeout", "10")),
                timeout=int(source.options.get("statement_timeout", "3600")),
                **encryption,
            )
            if source.options.get("isolation") == "snapshot":
                connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL SNAPSHOT")
        except self.driver.Error as error:
            # The driver's text is not passed on: it holds what the server was sent.
            if any(sign in str(error) for sign in _LOGIN_FAILED):
                raise TerminalError(f"{source.address}: the server refuses the login") from None
            raise TransientError(f"{source.address}: cannot be reached ({type(error).__name__})") from None
        return connection

    def describe(self, connection: Any, schema: str | None, table: str) -> DescribedTable | None:
        cursor = connection.cursor()
        cursor.execute(_TABLE, (schema, table))
        found = cursor.fetchone()
        if found is None:
            return None
        namespace, object_id, created = found
        cursor.execute(_COLUMNS, (object_id,))
        columns = [(str(name), _declared(str(kind), precision, scale)) for name, kind, precision, scale in cursor]
        cursor.execute(_UNIQUE_KEYS, (object_id,))
        parts: dict[int, list[tuple[str, bool]]] = {}
        for index, name, nullable in cursor:
            parts.setdefault(index, []).append((str(name).lower(), bool(nullable)))
        keys = [frozenset(n for n, _ in part) for part in parts.values() if not any(nullable for _, nullable in part)]
        cursor.execute(f"{_SERVER} FROM sys.databases d WHERE d.name = DB_NAME()")
        server, database = cursor.fetchone()
        return DescribedTable(str(namespace), columns, keys, f"{server}/{database}/{object_id}/{created}")

    def clock(self, connection: Any) -> tuple[datetime, int]:
        cursor = connection.cursor()
        cursor.execute(_CLOCK)
        moment, offset = cursor.fetchone()
        return moment, int(offset)

    def answer(self, declared: str) -> Answer:
        return map_type(declared)

    def placeholder(self, number: int) -> str:
        return "%s"

    def filter_condition(self, column: SourceColumn, quoted: str, mark: str) -> str:
        if column.source_type == "uniqueidentifier":
            return f"{quoted} = TRY_CONVERT(uniqueidentifier, {mark})"
        # As bytes: `=` ignores case under most collations, and trailing blanks under all.
        text, bound = (f"CONVERT(nvarchar(max), {value})" for value in (quoted, mark))
        return f"CONVERT(varbinary(max), {text}) = CONVERT(varbinary(max), {bound})"

    def window_sides(self, column: SourceColumn, quoted: str, mark: str, value: WindowValue) -> tuple[str, str, Any]:
        text = value.isoformat(timespec="microseconds") if isinstance(value, datetime) else str(value)
        kind = column.source_type
        if kind.startswith("datetimeoffset"):
            raise TerminalError(
                f"column {column.name}: {kind} arrives as text, which has another order; "
                f"choose another incremental_column, or a view that gives it as datetime2(6)"
            )
        if kind.startswith(("datetime", "smalldatetime")):
            return quoted, f"CONVERT(datetime2(7), {mark})", text
        if isinstance(column.iceberg_type, StringType):
            return f"{quoted} {_BINARY_ORDER}", f"CONVERT(nvarchar(max), {mark}) {_BINARY_ORDER}", text
        return quoted, f"CONVERT({kind}, {mark})", text


def map_type(declared: str) -> Answer:
    """The answer for a type such as `decimal(10,2)` or `datetime2(7)`. Unknown types become their nvarchar text."""
    match = _DECLARED.match(declared.lower())
    name = match.group(1) if match else ""
    first, second = (int(part) if part else 0 for part in match.groups()[1:]) if match else (0, 0)
    if name in ("decimal", "numeric"):
        return Answer(DecimalType(first, second), str, frozenset({Decimal}))
    if name in ("datetime", "datetime2", "smalldatetime", "time") and first <= _MICROSECONDS:
        return _TIME if name == "time" else _MOMENT
    return _SCALARS.get(name, _TEXT)


def _declared(name: str, precision: int, scale: int) -> str:
    if name in ("decimal", "numeric"):
        return f"{name}({precision},{scale})"
    return f"{name}({scale})" if name in ("datetime2", "datetimeoffset", "time") else name


def _convert(kind: str, style: str = "") -> Any:
    return lambda column: f"CONVERT({kind}, {column}{style})"


_INTEGER = frozenset({int})
_TEXT = Answer(StringType(), _convert("nvarchar(max)"), frozenset({str}))
_LONG_MOMENT = Answer(StringType(), _convert("varchar(40)", ", 121"), frozenset({str}))
_MOMENT = Answer(TimestampType(), _convert("varchar(40)", ", 126"), frozenset(), datetime.fromisoformat)
_TIME = Answer(TimeType(), _convert("varchar(20)", ", 121"), frozenset(), time.fromisoformat)
_BYTES = Answer(BinaryType(), _convert("varbinary(max)"), frozenset({bytes}))

_SCALARS: dict[str, Answer] = {
    **dict.fromkeys(("tinyint", "smallint", "int"), Answer(IntegerType(), str, _INTEGER)),
    "bigint": Answer(LongType(), str, _INTEGER),
    "bit": Answer(BooleanType(), str, frozenset({bool})),
    "float": Answer(DoubleType(), str, frozenset({float})),
    "real": Answer(FloatType(), str, frozenset({float})),
    "money": Answer(DecimalType(19, 4), _convert("decimal(19,4)"), frozenset({Decimal})),
    "smallmoney": Answer(DecimalType(10, 4), _convert("decimal(10,4)"), frozenset({Decimal})),
    "date": Answer(DateType(), _convert("varchar(10)", ", 23"), frozenset(), date.fromisoformat),
    **dict.fromkeys(("datetime2", "datetimeoffset", "time"), _LONG_MOMENT),
    **dict.fromkeys(("binary", "varbinary", "image", "timestamp", "rowversion"), _BYTES),
    **dict.fromkeys(("geometry", "geography", "hierarchyid"), _BYTES),
}
