"""Rows of a Python driver as a stream of Arrow batches of exact types, or a refusal that names column and key.

For databases that DuckDB does not read itself. Each column says which Python classes its values may have; a value of
another class, or one that its Arrow type cannot hold, fails the stream. Batches are bounded by bytes, not by rows, so
that memory does not grow with long texts. A read whose policy is `null` turns such a value into NULL and counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection
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
from mozart.connectors.values import ValueCounts
from mozart.errors import DataQualityError
from mozart.sql import quote_identifier

_BATCH_BYTES = 8 * 1024 * 1024
_FIRST_ROWS = 64
_MOST_ROWS = 65_536


class RefusedValueError(ValueError):
    """A value that its column cannot hold exactly; the text is its class, never the value."""


@dataclass(frozen=True)
class StreamColumn:
    """A column of the stream. `exact`: classes that Arrow takes as they are; `convert`, for a column with values of any
    other class, gives the value to store or raises RefusedValueError. None needs neither."""

    name: str
    iceberg_type: IcebergType
    exact: frozenset[type]
    convert: Callable[[Any], Any] | None = None


FetchMany = Callable[[int], Sequence[Sequence[Any]]]
"""At most so many further rows; none at the end. Rows carry the columns first, then the key's."""


def register_rows(
    cursor: DuckDBPyConnection,
    name: str,
    columns: Sequence[StreamColumn],
    fetch: FetchMany,
    nulled: ValueCounts | None = None,
) -> str:
    """Make the rows known to `cursor` under `name`, to be read once; returns the FROM item.

    With `nulled`, a value that its column cannot hold becomes NULL and is counted there; without, it fails the read.
    """
    schema = pa.schema([pa.field(column.name, arrow_type(column.iceberg_type)) for column in columns])
    batches = _batches(schema, columns, fetch, nulled)
    cursor.register(name, pa.RecordBatchReader.from_batches(schema, batches))
    return quote_identifier(name)


def arrow_type(iceberg: IcebergType) -> pa.DataType:
    """The Arrow type that holds `iceberg` exactly."""
    if isinstance(iceberg, DecimalType):
        return pa.decimal128(iceberg.precision, iceberg.scale)
    return _ARROW_TYPES[type(iceberg)]


def _batches(
    schema: pa.Schema, columns: Sequence[StreamColumn], fetch: FetchMany, nulled: ValueCounts | None
) -> Iterator[pa.RecordBatch]:
    size = _FIRST_ROWS
    while rows := fetch(size):
        values = list(zip(*rows, strict=True))
        keys = values[len(columns) :]
        arrays = [_array(column, values[index], keys, nulled) for index, column in enumerate(columns)]
        batch = pa.record_batch(arrays, schema=schema)
        yield batch
        fitting = _BATCH_BYTES * len(rows) // max(batch.nbytes, 1)
        size = max(1, min(2 * size, fitting, _MOST_ROWS))


def _array(
    column: StreamColumn, values: Sequence[Any], keys: Sequence[Sequence[Any]], nulled: ValueCounts | None
) -> pa.Array:
    try:
        return _exact_array(column, values)
    except _UNFIT:
        if nulled is None:
            raise _refusal(column, values, keys) from None
    fitting = [value if _fits(column, value) else None for value in values]
    nulled.add(column.name, sum(value is not None for value in values) - sum(value is not None for value in fitting))
    return _exact_array(column, fitting)


def _fits(column: StreamColumn, value: Any) -> bool:
    try:
        _exact_array(column, [value])
    except _UNFIT:
        return False
    return True


def _exact_array(column: StreamColumn, values: Sequence[Any]) -> pa.Array:
    if set(map(type, values)) - column.exact - {type(None)}:
        if column.convert is None:
            raise RefusedValueError(_unfit(column, values[0]))
        convert = column.convert
        values = [None if value is None else convert(value) for value in values]
    return pa.array(values, arrow_type(column.iceberg_type))


def _refusal(column: StreamColumn, values: Sequence[Any], keys: Sequence[Sequence[Any]]) -> DataQualityError:
    """Names the first value that cannot be kept by its class and its row's key."""
    what, row = f"a value that {column.iceberg_type} cannot hold", 0
    for number, value in enumerate(values):
        try:
            _exact_array(column, [value])
        except RefusedValueError as error:
            what, row = str(error), number
            break
        except _UNFIT:
            what, row = _unfit(column, value), number
            break
    key = ", ".join(str(part[row]) for part in keys) or "(no key)"
    return DataQualityError(f"{GUARD_MARK}{what} in column {quote_identifier(column.name)}, key {key}")


def _unfit(column: StreamColumn, value: object) -> str:
    return f"{CLASSES.get(type(value), type(value).__name__)} that {column.iceberg_type} cannot hold"


_UNFIT = (RefusedValueError, pa.ArrowException, UnicodeError, OverflowError, ValueError, TypeError)

CLASSES: dict[type, str] = {
    int: "an integer",
    float: "a real",
    str: "a text",
    bytes: "a blob",
    Decimal: "a decimal",
    bool: "a boolean",
}
"""What a refusal calls a value of a Python class."""

_ARROW_TYPES: dict[type[IcebergType], pa.DataType] = {
    BooleanType: pa.bool_(),
    IntegerType: pa.int32(),
    LongType: pa.int64(),
    FloatType: pa.float32(),
    DoubleType: pa.float64(),
    DateType: pa.date32(),
    TimeType: pa.time64("us"),
    TimestampType: pa.timestamp("us"),
    TimestamptzType: pa.timestamp("us", tz="UTC"),
    StringType: pa.large_string(),
    BinaryType: pa.large_binary(),
}
