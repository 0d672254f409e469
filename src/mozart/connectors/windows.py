"""The ends of a window as typed values, for connectors that bind them, and ranges of whole numbers.

A watermark reaches a connector as the text DuckDB gives it, and an operator's `since` and `until` as typed by hand. A
database that coerces silently (MySQL reads 'abc' as 0) must never see a text that is not of the column's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

from pyiceberg.types import (
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

from mozart.connectors.base import Chunk, SourceColumn, SourceTable, Window
from mozart.errors import TerminalError

WindowValue = int | float | Decimal | date | datetime | str
"""Datetimes are naive: UTC for a timestamptz column, the source's own for a timestamp column."""


def window_conditions(table: SourceTable, window: Window | None) -> Sequence[tuple[SourceColumn, str, WindowValue]]:
    """The window as (column, operator, value); `>` stands for `after`, which NULLs pass too."""
    if window is None:
        return ()
    column = table.column(window.column)
    ends = ((">", window.after), (">=", window.since), ("<", window.until))
    return tuple((column, sign, window_value(table, column, text)) for sign, text in ends if text is not None)


def window_value(table: SourceTable, column: SourceColumn, text: str) -> WindowValue:
    """`text` as a value of the column's type; TerminalError naming both when it is none."""
    try:
        return _parse(column.iceberg_type, text)
    except (ValueError, InvalidOperation):
        raise TerminalError(
            f"{table.qualified_name}: {text[:60]!r} is no value of column {column.name} ({column.iceberg_type}); "
            f"correct the window or choose another incremental_column"
        ) from None


def whole_number_chunks(column: str, low: int, high: int, parts: int) -> Sequence[Chunk]:
    """Ranges of equal width over the whole numbers from `low` to `high`; none where they would be fewer than two."""
    ends = sorted({low + (high - low) * number // parts for number in range(1, parts)} - {low}) if parts > 1 else []
    if not ends:
        return ()
    texts = [str(end) for end in ends]
    return tuple(Chunk(column, first, last) for first, last in zip([None, *texts], [*texts, None], strict=True))


def zone_of_offset(seconds: int) -> str:
    """A zone of whole hours that is never ahead of an offset from UTC: a bound in it may be early, never late."""
    hours = seconds // 3600
    return "UTC" if hours == 0 else f"Etc/GMT{-hours:+d}"


def _parse(kind: IcebergType, text: str) -> WindowValue:
    parse = _PARSERS.get(type(kind))
    if parse is None:
        raise ValueError(f"{kind} has no order that a watermark could follow")
    return parse(text)


def _naive(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        raise ValueError("a timestamp without time zone takes no offset")
    return moment


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


_PARSERS: Mapping[type[IcebergType], Callable[[str], WindowValue]] = {
    IntegerType: int,
    LongType: int,
    DecimalType: Decimal,
    FloatType: float,
    DoubleType: float,
    DateType: date.fromisoformat,
    TimestampType: _naive,
    TimestamptzType: _utc,
    StringType: str,
}
