"""PostgreSQL's types → Iceberg types, and the SQL that takes each value there exactly.

A value travels in two steps: `wire` is SQL of PostgreSQL, `arrive` is SQL of DuckDB for what came. As much as possible
happens in DuckDB, which works on vectors: the server of the tenant then does little more than a bare COPY. Where
Iceberg has no type, a value becomes PostgreSQL's own text (numeric without precision, jsonb, uuid, enum, interval as
ISO 8601, timetz, bit, geometry, ranges, anything unknown).

A value of a mapped type that Iceberg cannot hold (NaN in numeric, infinite or BC times, arrays of more than one
dimension) is *unfit*: it makes the read fail, or becomes NULL and is counted. `unfit_at_source` finds those that
DuckDB's reader would change or drop without a word; `unfit_on_arrival` those it passes on.
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

_LISTED_PADS = 64
"""Up to this length the blanks of `char(n)` are given back from a list: 25 blanks for 1M values in 0.07 CPU s, with
rpad, which goes letter by letter, in 0.25."""

Sql = Callable[[str], str]


@dataclass(frozen=True)
class PostgresqlType:
    """A column's type as the catalog gives it: base type's name, type modifier, and the element's for arrays."""

    name: str
    modifier: int = -1
    element: PostgresqlType | None = None


def _as_it_is(value: str) -> str:
    return value


@dataclass(frozen=True)
class Mapping:
    """The answer for one type. `wire` takes the quoted column, `arrive` what came of it; the conditions say of either
    that it is `unfit`. `cast` is PostgreSQL's name of the wire's type, needed with `unfit_at_source`."""

    iceberg: IcebergType
    wire: Sql
    arrive: Sql = _as_it_is
    cast: str = ""
    unfit: str = ""
    unfit_at_source: Sql | None = None
    unfit_on_arrival: Sql | None = None

    def guarded_wire(self, column: str, key: str) -> str:
        """SQL of PostgreSQL that fails the statement, naming column and `key` (SQL for its text), at an unfit value."""
        if self.unfit_at_source is None:
            return self.wire(column)
        # PostgreSQL has no RAISE in SQL: a telling text is cast to a number. Not a constant one: PostgreSQL would
        # evaluate the failing cast while planning, and refuse tables without such a value.
        said = quote_literal(f"{GUARD_MARK}{self.unfit} in column {column}, key ")
        failing = f"(({said} || {key} || left({column}::text, 0))::int4)::text::{self.cast}"
        return f"CASE WHEN {self.unfit_at_source(column)} THEN {failing} ELSE {self.wire(column)} END"

    def fitting_wire(self, column: str) -> str:
        """SQL of PostgreSQL that is NULL at a value that is unfit at the source."""
        if self.unfit_at_source is None:
            return self.wire(column)
        return f"CASE WHEN NOT ({self.unfit_at_source(column)}) THEN {self.wire(column)} END"


def map_type(source: PostgresqlType) -> Mapping:
    """The answer for `source`. Every type has one: unknown types become their text."""
    if source.element is not None:
        return _map_array(source.element)
    if source.name == "numeric":
        return _map_numeric(source.modifier)
    if source.name == "bpchar":
        return _map_char(source.modifier)
    return _SCALARS.get(source.name, _TEXT)


def _plain(cast: str) -> Sql:
    return lambda column: f"{column}::{cast}"


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
    return Mapping(
        DecimalType(precision, scale),
        _plain(cast),
        cast=cast,
        unfit="NaN or infinity in numeric",
        # DuckDB reads NaN as 0. An infinity cannot stand in a column with a precision.
        unfit_at_source=lambda column: f"{column} = 'NaN'",
    )


def _map_char(modifier: int) -> Mapping:
    if modifier < _VARIABLE_HEADER:  # no length: the cast to text would strip blanks, the output function keeps them
        return Mapping(StringType(), lambda column: f"CASE WHEN {column} IS NOT NULL THEN concat({column}) END")
    length = modifier - _VARIABLE_HEADER
    # DuckDB's reader strips the blanks; each value has exactly `length` characters, so they can be given back.
    if length == 1:
        return Mapping(
            StringType(), _plain("char(1)"), lambda value: f"CASE WHEN {value} = '' THEN ' ' ELSE {value} END"
        )
    return Mapping(StringType(), _plain(f"char({length})"), _padded(length))


def _padded(length: int) -> Sql:
    """SQL of DuckDB that makes a text as long as `length` characters, which it never exceeds, by blanks at its end."""
    if length > _LISTED_PADS:
        return lambda value: f"rpad({value}, {length}, ' ')"
    pads = ", ".join(quote_literal(" " * (length - present)) for present in range(length + 1))
    return lambda value: f"({value} || ([{pads}])[length({value}) + 1])"


def _time(cast: str, iceberg: IcebergType) -> Mapping:
    kind = cast.upper()

    def unfit(value: str) -> str:
        # Infinities are outside as well, and so is what wrapped around the end of DuckDB's range.
        return f"({value} < {kind} '0001-01-01' OR {value} >= {kind} '10000-01-01')"

    return Mapping(iceberg, _plain(cast), unfit=f"infinite, BC or far {cast}", unfit_on_arrival=unfit)


def _map_array(element: PostgresqlType) -> Mapping:
    if element.name not in _ARRAY_ELEMENTS:
        return Mapping(StringType(), lambda column: f"to_jsonb({column})::text")
    cast = f"{_ARRAY_ELEMENTS[element.name]}[]"
    inner = map_type(element)
    return Mapping(
        ListType(element_id=1, element=inner.iceberg, element_required=False),
        _plain(cast),
        arrive=(lambda value: f"{value}::VARCHAR[]") if element.name == "uuid" else _as_it_is,
        cast=cast,
        unfit="array of several dimensions or another lower bound",
        unfit_at_source=lambda column: f"array_ndims({column}) > 1 OR array_lower({column}, 1) <> 1",
    )


_TEXT = Mapping(StringType(), _plain("text"))

_SCALARS: dict[str, Mapping] = {
    "int2": Mapping(IntegerType(), _plain("int2"), "{}::INTEGER".format),
    "int4": Mapping(IntegerType(), _plain("int4")),
    "int8": Mapping(LongType(), _plain("int8")),
    "float4": Mapping(FloatType(), _plain("float4")),
    "float8": Mapping(DoubleType(), _plain("float8")),
    "bool": Mapping(BooleanType(), _plain("bool")),
    "bytea": Mapping(BinaryType(), _plain("bytea")),
    "uuid": Mapping(StringType(), _plain("uuid"), "{}::VARCHAR".format),
    "date": _time("date", DateType()),
    "time": Mapping(TimeType(), _plain("time")),
    "timestamp": _time("timestamp", TimestampType()),
    "timestamptz": _time("timestamptz", TimestamptzType()),
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
    "uuid": "uuid",
}


def key_text(key_columns: tuple[str, ...]) -> str:
    """SQL for the row's key as text, for a guard's message; the row's own name where no key is known."""
    if not key_columns:
        return "'(no key)'"
    parts = [f"coalesce({quote_identifier(name)}::text, 'NULL')" for name in key_columns]
    return "concat_ws(', ', " + ", ".join(parts) + ")"
