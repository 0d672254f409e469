"""PostgreSQL types → Iceberg types: exact, or the query fails naming table, column, key and class of value.

Nothing here may change a value silently. Where Iceberg has no type for it, a value becomes PostgreSQL's own text
(numeric without precision, jsonb, uuid, enum, interval as ISO 8601, timetz, bit, geometry, ranges, anything unknown).
A value of a mapped type that Iceberg cannot hold (NaN in numeric, infinite or BC timestamps, arrays of more than one
dimension) makes the SELECT fail: PostgreSQL has no RAISE in SQL, so the guard casts a telling text to a number.
"""

from __future__ import annotations

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
    ListType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

from mozart.connectors.errors import GUARD_MARK
from mozart.sql import quote_identifier, quote_literal

_MAX_DECIMAL = 38
_VARIABLE_HEADER = 4


@dataclass(frozen=True)
class PostgresqlType:
    """A column's type as the catalog gives it: base type's name, type modifier, and the element's for arrays."""

    name: str
    modifier: int = -1
    element: PostgresqlType | None = None


@dataclass(frozen=True)
class Mapping:
    """The answer for one type: where it goes, and the SQL that takes it there from the quoted column and a key text."""

    iceberg: IcebergType
    expression: Callable[[str, str], str]


def map_type(source: PostgresqlType) -> Mapping:
    """The answer for `source`. Every type has one: unknown types become their text."""
    if source.element is not None:
        return _map_array(source.element)
    if source.name == "numeric":
        return _map_numeric(source.modifier)
    return _SCALARS.get(source.name, _TEXT)


def _plain(cast: str) -> Callable[[str, str], str]:
    return lambda column, _key: f"{column}::{cast}"


def _refuse_when(condition: str, what: str, column: str, key: str, cast: str) -> str:
    """`column` as `cast`, or a failing cast whose message says `what` and `key` when `condition` holds."""
    # Not a constant: PostgreSQL would evaluate the failing cast while planning, and refuse tables without such a value.
    message = f"{quote_literal(GUARD_MARK + what + ', key ')} || {key} || left({column}::text, 0)"
    return f"CASE WHEN {condition} THEN (({message})::int4)::text::{cast} ELSE {column}::{cast} END"


def _map_numeric(modifier: int) -> Mapping:
    if modifier < _VARIABLE_HEADER:
        return _TEXT  # no precision declared: 131072 digits fit, and 38 are all Iceberg has
    packed = modifier - _VARIABLE_HEADER
    precision = (packed >> 16) & 0xFFFF
    scale = packed & 0x7FF
    if scale >= 1024:  # an 11-bit signed number since PostgreSQL 15
        scale -= 2048
    if precision > _MAX_DECIMAL or not 0 <= scale <= precision:
        return _TEXT
    cast = f"numeric({precision},{scale})"

    def expression(column: str, key: str) -> str:
        odd = f"{column} IN ('NaN', 'Infinity', '-Infinity')"
        return _refuse_when(odd, f"NaN or infinity in numeric column {column}", column, key, cast)

    return Mapping(DecimalType(precision, scale), expression)


def _guarded_time(cast: str) -> Callable[[str, str], str]:
    def expression(column: str, key: str) -> str:
        odd = f"{column} < '0001-01-01'::{cast} OR {column} >= '10000-01-01'::{cast}"  # infinities included
        return _refuse_when(odd, f"infinite, BC or far {cast} in column {column}", column, key, cast)

    return expression


def _char_text(column: str, _key: str) -> str:
    # The cast bpchar → text strips trailing blanks; concat() uses the output function, which keeps them.
    return f"CASE WHEN {column} IS NOT NULL THEN concat({column}) END"


def _map_array(element: PostgresqlType) -> Mapping:
    if element.name not in _ARRAY_ELEMENTS:
        return Mapping(StringType(), lambda column, _key: f"to_jsonb({column})::text")
    inner = map_type(element)

    def expression(column: str, key: str) -> str:
        odd = f"array_ndims({column}) > 1 OR array_lower({column}, 1) <> 1"
        what = f"array of several dimensions or another lower bound in column {column}"
        return _refuse_when(odd, what, column, key, f"{_ARRAY_ELEMENTS[element.name]}[]")

    return Mapping(ListType(element_id=1, element=inner.iceberg, element_required=False), expression)


_TEXT = Mapping(StringType(), _plain("text"))

_SCALARS: dict[str, Mapping] = {
    "int2": Mapping(IntegerType(), _plain("int4")),
    "int4": Mapping(IntegerType(), _plain("int4")),
    "int8": Mapping(LongType(), _plain("int8")),
    "float4": Mapping(FloatType(), _plain("float4")),
    "float8": Mapping(DoubleType(), _plain("float8")),
    "bool": Mapping(BooleanType(), _plain("bool")),
    "bytea": Mapping(BinaryType(), _plain("bytea")),
    "date": Mapping(DateType(), _guarded_time("date")),
    "time": Mapping(TimeType(), _plain("time")),
    "timestamp": Mapping(TimestampType(), _guarded_time("timestamp")),
    "timestamptz": Mapping(TimestamptzType(), _guarded_time("timestamptz")),
    "bpchar": Mapping(StringType(), _char_text),
}

# Elements whose arrays become lists; arrays of anything else become JSON text, which is exact.
_ARRAY_ELEMENTS: dict[str, str] = {
    "int2": "int4",
    "int4": "int4",
    "int8": "int8",
    "float4": "float4",
    "float8": "float8",
    "bool": "bool",
    "text": "text",
    "varchar": "text",
    "uuid": "text",
}


def key_text(key_columns: tuple[str, ...]) -> str:
    """SQL for the row's key as text, for a guard's message; the row's own name where no key is known."""
    if not key_columns:
        return "'(no key)'"
    parts = [f"coalesce({quote_identifier(name)}::text, 'NULL')" for name in key_columns]
    return "concat_ws(', ', " + ", ".join(parts) + ")"
