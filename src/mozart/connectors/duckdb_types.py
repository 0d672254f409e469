"""DuckDB's own types → Iceberg types: exact, or the read fails naming table, column, key and class of value.

Nested types become their JSON; what Iceberg has no type for (HUGEINT, UUID, INTERVAL, BIT, TIMETZ, nanoseconds, enums)
becomes its text. Infinite dates, and years before 1 and after 9999, are refused.
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
    TimeType,
)

from mozart.connectors.errors import GUARD_MARK
from mozart.sql import quote_literal

_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


@dataclass(frozen=True)
class Mapping:
    """The answer for one type, and SQL that takes the quoted column there; the key's SQL is for refusals. `unfit`,
    where there is one, says of the column that its value has no place in the Iceberg type; `plain` takes the others."""

    iceberg: IcebergType
    expression: Callable[[str, str], str]
    unfit: Callable[[str], str] | None = None
    plain: Callable[[str], str] = "{}".format


def map_type(declared: str) -> Mapping:
    """The answer for a type as DuckDB writes it. Every type has one: unknown types become their text."""
    decimal = _DECIMAL.fullmatch(declared)
    if decimal:
        return Mapping(DecimalType(int(decimal.group(1)), int(decimal.group(2))), _as_it_is)
    if declared.endswith("]") or declared.startswith(("STRUCT(", "MAP(", "UNION(")):
        return Mapping(StringType(), lambda column, _key: f"to_json({column})::VARCHAR")
    return _SCALARS.get(declared) or Mapping(StringType(), _cast("VARCHAR"))


def _as_it_is(column: str, _key: str) -> str:
    return column


def _cast(kind: str) -> Callable[[str, str], str]:
    return lambda column, _key: f"{column}::{kind}"


def _guarded(kind: str, iceberg: IcebergType) -> Mapping:
    def unfit(column: str) -> str:
        return f"(NOT isfinite({column}) OR year({column}) NOT BETWEEN 1 AND 9999)"

    def expression(column: str, key: str) -> str:
        # left(…, 0): a constant message would be evaluated, and fail, while DuckDB plans.
        what = f"infinite, BC or far {kind.lower()} in column {column}, key "
        message = f"{quote_literal(GUARD_MARK + what)} || {key} || left({column}::VARCHAR, 0)"
        return f"CASE WHEN {unfit(column)} THEN error({message})::{kind} ELSE {column}::{kind} END"

    return Mapping(iceberg, expression, unfit, lambda column: f"{column}::{kind}")


_SCALARS: dict[str, Mapping] = {
    "BOOLEAN": Mapping(BooleanType(), _as_it_is),
    **dict.fromkeys(
        ("TINYINT", "UTINYINT", "SMALLINT", "USMALLINT", "INTEGER"), Mapping(IntegerType(), _cast("INTEGER"))
    ),
    **dict.fromkeys(("UINTEGER", "BIGINT"), Mapping(LongType(), _cast("BIGINT"))),
    "UBIGINT": Mapping(DecimalType(20, 0), _cast("DECIMAL(20,0)")),
    "FLOAT": Mapping(FloatType(), _as_it_is),
    "DOUBLE": Mapping(DoubleType(), _as_it_is),
    "BLOB": Mapping(BinaryType(), _as_it_is),
    "TIME": Mapping(TimeType(), _as_it_is),
    "DATE": _guarded("DATE", DateType()),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"), _guarded("TIMESTAMP", TimestampType())),
    "TIMESTAMP WITH TIME ZONE": _guarded("TIMESTAMPTZ", TimestamptzType()),
}
