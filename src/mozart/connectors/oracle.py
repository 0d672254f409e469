"""Oracle Database as a source, through python-oracledb. NO SERVER WAS RUN: its SQL and its types are tested, a read is
not.

Each table is read by one SELECT, which Oracle answers as of its start. An empty text is NULL in Oracle, and arrives
so. `database` is the service's name. Types: see docs/types/oracle.md; values of object types, XMLTYPE and BFILE are
refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

from pyiceberg.types import (
    BinaryType,
    DecimalType,
    DoubleType,
    FloatType,
    StringType,
    TimestampType,
    TimestamptzType,
)

from mozart.connectors.base import SourceColumn
from mozart.connectors.dbapi import Answer, DbapiConnector, DescribedTable
from mozart.connectors.windows import WindowValue
from mozart.errors import TerminalError, TransientError

_MAX_DECIMAL = 38
_MICROSECONDS = 6
_NUMBER = re.compile(r"NUMBER\((\d+),(-?\d+)\)")
_TIMESTAMP = re.compile(r"TIMESTAMP\((\d)\)( WITH TIME ZONE| WITH LOCAL TIME ZONE)?")
_REFUSED = ("ORA-01017", "ORA-28000", "ORA-28001", "ORA-01045", "ORA-12514", "ORA-12505", "DPY-6001", "DPY-6003")

_TABLE = """
SELECT o.OWNER, o.OBJECT_ID, TO_CHAR(o.CREATED, 'YYYY-MM-DD"T"HH24:MI:SS')
FROM ALL_OBJECTS o WHERE o.OBJECT_TYPE IN ('TABLE', 'VIEW', 'MATERIALIZED VIEW')
  AND o.OWNER = COALESCE(:1, SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA')) AND o.OBJECT_NAME = :2
ORDER BY o.OBJECT_ID FETCH FIRST 1 ROWS ONLY
"""
_COLUMNS = """
SELECT c.COLUMN_NAME, c.DATA_TYPE, c.DATA_PRECISION, c.DATA_SCALE
FROM ALL_TAB_COLUMNS c WHERE c.OWNER = :1 AND c.TABLE_NAME = :2 ORDER BY c.COLUMN_ID
"""
_UNIQUE_KEYS = """
SELECT k.CONSTRAINT_NAME, k.COLUMN_NAME
FROM ALL_CONSTRAINTS c JOIN ALL_CONS_COLUMNS k ON k.OWNER = c.OWNER AND k.CONSTRAINT_NAME = c.CONSTRAINT_NAME
WHERE c.OWNER = :1 AND c.TABLE_NAME = :2 AND c.CONSTRAINT_TYPE = 'P' AND c.STATUS = 'ENABLED'
"""
_SERVER = "SELECT SYS_CONTEXT('USERENV', 'DB_UNIQUE_NAME'), SYS_CONTEXT('USERENV', 'CON_NAME') FROM DUAL"
_CLOCK = """
SELECT TO_CHAR(SYS_EXTRACT_UTC(SYSTIMESTAMP), 'YYYY-MM-DD"T"HH24:MI:SS.FF6'),
       EXTRACT(TIMEZONE_HOUR FROM SYSTIMESTAMP) * 3600 + EXTRACT(TIMEZONE_MINUTE FROM SYSTIMESTAMP) * 60
FROM DUAL
"""


class OracleConnector(DbapiConnector):
    """Oracle Database 19c and newer."""

    type: ClassVar[str] = "oracle"
    driver_module: ClassVar[str] = "oracledb"
    default_port: ClassVar[int | None] = 1521

    def connect(self) -> Any:
        source = self.connection
        self.driver.defaults.fetch_lobs = False
        try:
            connection = self.driver.connect(
                host=source.host,
                port=source.port or self.default_port,
                service_name=source.database,
                user=source.username,
                password=source.password.get_secret_value() if source.password else "",
                tcp_connect_timeout=float(source.options.get("connect_timeout", "10")),
            )
            connection.call_timeout = int(source.options.get("statement_timeout", "3600")) * 1000
        except self.driver.Error as error:
            text = str(error).splitlines()[0][:200]
            if any(sign in text for sign in _REFUSED):
                raise TerminalError(f"{source.address}: the server refuses the login: {text}") from None
            raise TransientError(f"{source.address}: cannot be reached: {text}") from None
        return connection

    def describe(self, connection: Any, schema: str | None, table: str) -> DescribedTable | None:
        cursor = connection.cursor()
        cursor.execute(_TABLE, [schema, table])
        found = cursor.fetchone()
        if found is None:
            return None
        owner, object_id, created = found
        cursor.execute(_COLUMNS, [owner, table])
        columns = [(str(name), _declared(str(kind), precision, scale)) for name, kind, precision, scale in cursor]
        cursor.execute(_UNIQUE_KEYS, [owner, table])
        keys: dict[str, set[str]] = {}
        for constraint, name in cursor:
            keys.setdefault(str(constraint), set()).add(str(name).lower())
        cursor.execute(_SERVER)
        server, container = cursor.fetchone()
        identity = f"{server}/{container}/{object_id}/{created}"
        return DescribedTable(str(owner), columns, [frozenset(key) for key in keys.values()], identity)

    def clock(self, connection: Any) -> tuple[datetime, int]:
        cursor = connection.cursor()
        cursor.execute(_CLOCK)
        moment, offset = cursor.fetchone()
        return datetime.fromisoformat(moment), int(offset)

    def answer(self, declared: str) -> Answer:
        return map_type(declared)

    def placeholder(self, number: int) -> str:
        return f":{number}"

    def filter_condition(self, column: SourceColumn, quoted: str, mark: str) -> str:
        return f"TO_CHAR({quoted}) = {mark}"

    def window_sides(self, column: SourceColumn, quoted: str, mark: str, value: WindowValue) -> tuple[str, str, Any]:
        if isinstance(column.iceberg_type, TimestamptzType):
            return quoted, f"FROM_TZ({mark}, 'UTC')", value
        if not isinstance(column.iceberg_type, StringType):
            return quoted, mark, value
        if column.source_type not in _TEXTS:
            raise TerminalError(
                f"column {column.name}: {column.source_type} arrives as text, which has another order; "
                f"choose another incremental_column, or a view that gives it as a NUMBER(p,s) or a TIMESTAMP(6)"
            )
        return f"NLSSORT({quoted}, 'NLS_SORT=BINARY')", f"NLSSORT({mark}, 'NLS_SORT=BINARY')", value


_NLS = "'NLS_NUMERIC_CHARACTERS=''.,'''"


def map_type(declared: str) -> Answer:
    """The answer for a type such as `NUMBER(10,2)`. What the driver gives no text for is refused while reading."""
    number = _NUMBER.fullmatch(declared)
    if number:
        return _map_number(int(number.group(1)), int(number.group(2)))
    timestamp = _TIMESTAMP.fullmatch(declared)
    if timestamp:
        return _map_timestamp(int(timestamp.group(1)), timestamp.group(2) or "")
    if declared.startswith("INTERVAL"):
        return Answer(StringType(), "TO_CHAR({})".format, frozenset({str}))
    return _SCALARS.get(declared, _TEXT)


def _declared(name: str, precision: int | None, scale: int | None) -> str:
    if name == "NUMBER" and scale is not None:
        return f"NUMBER({precision or _MAX_DECIMAL},{scale})"
    return name


def _map_number(precision: int, scale: int) -> Answer:
    if not 0 <= scale <= precision <= _MAX_DECIMAL:
        return _NUMBER_TEXT
    return Answer(DecimalType(precision, scale), _NUMBER_TEXT.expression, frozenset(), Decimal)


def _map_timestamp(digits: int, zone: str) -> Answer:
    if digits > _MICROSECONDS or zone == " WITH TIME ZONE":
        suffix = " TZH:TZM" if zone else ""
        return Answer(StringType(), _to_char(f"SYYYY-MM-DD HH24:MI:SS.FF{digits or 6}{suffix}"), frozenset({str}))
    if zone:
        local = _to_char('SYYYY-MM-DD"T"HH24:MI:SS.FF6')
        return Answer(TimestamptzType(), lambda column: local(f"SYS_EXTRACT_UTC({column})"), frozenset(), _utc)
    return Answer(TimestampType(), _to_char('SYYYY-MM-DD"T"HH24:MI:SS.FF6'), frozenset(), _moment)


def _to_char(form: str) -> Any:
    return lambda column: f"TO_CHAR({column}, '{form}')"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.strip())  # a year before 1 has a sign, and fails


def _utc(text: str) -> datetime:
    return _moment(text).replace(tzinfo=UTC)


_NUMBER_TEXT = Answer(StringType(), f"TO_CHAR({{}}, 'TM9', {_NLS})".format, frozenset({str}))
_TEXTS = ("VARCHAR2", "NVARCHAR2", "CHAR", "NCHAR")
_TEXT = Answer(StringType(), str, frozenset({str}))
_BYTES = Answer(BinaryType(), str, frozenset({bytes}))

_SCALARS: dict[str, Answer] = {
    "NUMBER": _NUMBER_TEXT,
    "FLOAT": _NUMBER_TEXT,
    "BINARY_FLOAT": Answer(FloatType(), str, frozenset({float})),
    "BINARY_DOUBLE": Answer(DoubleType(), str, frozenset({float})),
    **dict.fromkeys((*_TEXTS, "CLOB", "NCLOB", "LONG"), _TEXT),
    **dict.fromkeys(("ROWID", "UROWID"), Answer(StringType(), "ROWIDTOCHAR({})".format, frozenset({str}))),
    "JSON": Answer(StringType(), "JSON_SERIALIZE({} RETURNING CLOB)".format, frozenset({str})),
    **dict.fromkeys(("RAW", "LONG RAW", "BLOB"), _BYTES),
    "DATE": Answer(TimestampType(), _to_char('SYYYY-MM-DD"T"HH24:MI:SS'), frozenset(), _moment),
}
