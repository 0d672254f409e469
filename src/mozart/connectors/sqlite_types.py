"""SQLite's declared types → Iceberg types, and which of its five storage classes each may hold.

SQLite stores any class in any column (but STRICT tables): the declared type only says what is preferred. The affinity
of the declared type decides the Iceberg type; a value of a class that does not fit it fails the read by column, key
and class. What SQLite has no class for (DATE, DATETIME, NUMERIC without precision, no type at all) becomes text: each
value's own, integers as digits, reals as the shortest text that reads back as the same number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from pyiceberg.types import BinaryType, BooleanType, DecimalType, DoubleType, IcebergType, LongType, StringType

from mozart.connectors.row_stream import CLASSES, RefusedValueError

_MAX_DECIMAL = 38
_WIDE = Context(prec=400)
_PRECISION = re.compile(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)", re.ASCII)


@dataclass(frozen=True)
class Mapping:
    """The answer for one declared type; `exact` and `convert` as `StreamColumn` has them."""

    iceberg: IcebergType
    exact: frozenset[type]
    convert: Callable[[Any], Any] | None = None


def map_type(declared: str) -> Mapping:
    """The answer for a declared type, in the order of SQLite's own rules of affinity."""
    name = declared.upper()
    if "INT" in name:
        return Mapping(LongType(), frozenset({int}))
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return Mapping(StringType(), frozenset({str}))
    if "BLOB" in name:
        return Mapping(BinaryType(), frozenset({bytes}))
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return Mapping(DoubleType(), frozenset({float}))
    if "BOOL" in name:
        return Mapping(BooleanType(), frozenset(), _boolean)
    return _map_decimal(name) or Mapping(StringType(), frozenset({str}), _text)


def has_comparing_affinity(declared: str) -> bool:
    """Whether a column compares with a text as its own values would: not so with BLOB affinity."""
    name = declared.upper()
    return bool(name) and ("BLOB" not in name or any(part in name for part in ("INT", "CHAR", "CLOB", "TEXT")))


def _map_decimal(name: str) -> Mapping | None:
    found = _PRECISION.search(name) if "DEC" in name or "NUM" in name else None
    if found is None:
        return None
    precision, scale = int(found.group(1)), int(found.group(2) or 0)
    if not 0 < precision <= _MAX_DECIMAL or scale > precision:
        return None
    return Mapping(DecimalType(precision, scale), frozenset(), lambda value: _decimal(value, precision, scale))


def _boolean(value: object) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise RefusedValueError(f"{_class(value)} other than 0 and 1")


def _decimal(value: object, precision: int, scale: int) -> Decimal:
    if not isinstance(value, int | float):
        raise RefusedValueError(f"{_class(value)} that decimal({precision}, {scale}) cannot hold")
    exact = Decimal(repr(value))  # a real's shortest text: 1.1 is the number 1.1 that was written
    shifted = exact.scaleb(scale, _WIDE)
    if not exact.is_finite() or shifted != shifted.to_integral_value() or abs(shifted) >= 10**precision:
        raise RefusedValueError(f"{_class(value)} that decimal({precision}, {scale}) cannot hold")
    return exact


def _text(value: object) -> str:
    if isinstance(value, bytes):
        raise RefusedValueError("a blob")
    return value if isinstance(value, str) else repr(value)


def _class(value: object) -> str:
    return CLASSES.get(type(value), type(value).__name__)
