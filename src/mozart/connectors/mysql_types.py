"""MySQL and MariaDB types → Iceberg types: exact, or the read fails naming table, column, key and class of value.

A value travels in two steps. `wire` is SQL of the source that gives it in a form DuckDB's mysql extension passes on
unchanged; `arrive` is SQL of DuckDB that makes the Iceberg type of it, or fails. The extension's own types are not
trusted: it reads TINYINT(1) as a boolean, zero dates as NULL, decimals of more than 38 digits as doubles, and text of
a binary collation (JSON among it) as a BLOB. DuckDB raises the refusals, for a SELECT of MySQL cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
)

from mozart.connectors.errors import GUARD_MARK
from mozart.sql import quote_literal

_MAX_DECIMAL = 38
_DECLARED = re.compile(r"^(\w+)(?:\(([^)]*)\))?", re.ASCII)


Sql = Callable[[str], str]


@dataclass(frozen=True)
class Mapping:
    """The answer for one type. `wire` takes the quoted column of the source; `arrive` takes the wire's column in
    DuckDB. `unfit`, where there is one, says in DuckDB that the value has no place in the Iceberg type."""

    iceberg: IcebergType
    wire: Sql
    arrive: Sql
    unfit: Sql | None = None

    def refuse(self, column: str, name: str, key: str) -> str:
        """SQL of DuckDB that fails, naming the column and the row's key (SQL for its text)."""
        # left(…, 0): a constant message would be evaluated, and fail, while DuckDB plans.
        said = quote_literal(f"{GUARD_MARK}a date that no calendar has in column {name}, key ")
        return f"error({said} || {key} || left({column}, 0))::{_DATE_TYPES[type(self.iceberg)]}"


def map_type(declared: str) -> Mapping:
    """The answer for a COLUMN_TYPE such as `bigint(20) unsigned`; unknown types become their text."""
    match = _DECLARED.match(declared.lower())
    name = match.group(1) if match else ""
    size = match.group(2) if match else None
    if name == "bigint" and "unsigned" in declared.lower():
        return Mapping(DecimalType(20, 0), "CAST({} AS UNSIGNED)".format, _cast("DECIMAL(20,0)"))
    if name == "int" and "unsigned" in declared.lower():
        return Mapping(LongType(), _SIGNED, _cast("BIGINT"))
    if name in ("decimal", "numeric"):
        return _map_decimal(size or "10,0")
    if name == "bit":
        return _map_bit(int(size or 1))
    if name in _DATES:
        return _map_date(name)
    return _SCALARS.get(name, _TEXT)


def _cast(kind: str) -> Sql:
    return lambda column: f"{column}::{kind}"


def _as_it_is(column: str) -> str:
    return column


def _map_decimal(size: str) -> Mapping:
    precision, _, scale = size.partition(",")
    if int(precision) > _MAX_DECIMAL:
        return _TEXT
    kind = DecimalType(int(precision), int(scale or 0))
    return Mapping(kind, _CHAR, _cast(f"DECIMAL({kind.precision},{kind.scale})"))


def _map_bit(width: int) -> Mapping:
    if width == 1:
        return Mapping(BooleanType(), "CAST({} AS UNSIGNED)".format, lambda column: f"{column} = 1")
    return Mapping(
        StringType(), lambda column: f"LPAD(BIN(CAST({column} AS UNSIGNED)), {width}, '0')", _cast("VARCHAR")
    )


def _map_date(name: str) -> Mapping:
    iceberg, suffix = _DATES[name]

    def arrive(column: str) -> str:
        return f"TRY_CAST({column}{suffix} AS {_DATE_TYPES[type(iceberg)]})"

    def unfit(column: str) -> str:
        return f"{column} IS NOT NULL AND (left({column}, 4) = '0000' OR {arrive(column)} IS NULL)"

    return Mapping(iceberg, _CHAR, arrive, unfit)


_CHAR = "CAST({} AS CHAR)".format
_SIGNED = "CAST({} AS SIGNED)".format
_TEXT = Mapping(StringType(), _CHAR, _cast("VARCHAR"))
_BYTES = Mapping(BinaryType(), _as_it_is, _cast("BLOB"))

# name → Iceberg type, and what the text lacks of it; the session's time zone is UTC.
_DATES: dict[str, tuple[IcebergType, str]] = {
    "date": (DateType(), ""),
    "datetime": (TimestampType(), ""),
    "timestamp": (TimestamptzType(), " || '+00'"),
}
_DATE_TYPES: dict[type[IcebergType], str] = {
    DateType: "DATE",
    TimestampType: "TIMESTAMP",
    TimestamptzType: "TIMESTAMPTZ",
}

_SCALARS: dict[str, Mapping] = {
    **dict.fromkeys(
        ("tinyint", "smallint", "mediumint", "int", "year"), Mapping(IntegerType(), _SIGNED, _cast("INTEGER"))
    ),
    "bigint": Mapping(LongType(), _SIGNED, _cast("BIGINT")),
    "float": Mapping(FloatType(), _as_it_is, _cast("FLOAT")),
    "double": Mapping(DoubleType(), _as_it_is, _cast("DOUBLE")),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), _BYTES),
    # The server's own form: SRID in four bytes, then WKB.
    **dict.fromkeys(
        (
            *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"),
            *("geometrycollection", "geomcollection"),
        ),
        _BYTES,
    ),
}
