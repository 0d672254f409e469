"""The result of a query as it streams, the same from every engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rows:
    """Column names, and rows as tuples of Python values (exact decimals, aware datetimes)."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]
