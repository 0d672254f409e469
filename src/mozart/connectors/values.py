"""Values that Iceberg cannot hold, where a table may turn them into NULL: each one is counted, by column.

A read that runs in DuckDB counts with a sequence: `null_of` gives an expression that is NULL and takes a number, so
that one pass over the rows both writes and counts, exactly for the rows it read. A read through Python calls `add`.
Pitfall: an expression of `null_of` must be evaluated once a row; behind a filter or in two places it counts wrongly.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Mapping

from duckdb import DuckDBPyConnection

from mozart.sql import quote_literal, quote_qualified


class ValueCounts:
    """How many values of each column became NULL in one statement. One object for one statement of one cursor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._sequences: dict[str, str] = {}

    def add(self, column: str, count: int = 1) -> None:
        """Count values that Python turned into NULL."""
        with self._lock:
            self._counts[column] += count

    def null_of(self, cursor: DuckDBPyConnection, column: str, value: str) -> str:
        """SQL of DuckDB that is NULL of the type of `value` (SQL) and counts one for `column`."""
        name = self._sequences.get(column)
        if name is None:
            name = f"mozart_nulled_{secrets.token_hex(8)}"
            cursor.execute(f"CREATE SEQUENCE {quote_qualified('memory', 'main', name)}")
            self._sequences[column] = name
        place = quote_literal(quote_qualified("memory", "main", name))
        return f"CASE WHEN nextval({place}) < 0 THEN {value} END"

    def collect(self, cursor: DuckDBPyConnection) -> Mapping[str, int]:
        """The counts by column, zeros left out; on the statement's own cursor, after it and before its COMMIT."""
        for column, name in self._sequences.items():
            row = cursor.execute("SELECT last_value FROM duckdb_sequences() WHERE sequence_name = ?", [name]).fetchone()
            self._counts[column] += int(row[0] or 0) if row else 0
            cursor.execute(f"DROP SEQUENCE {quote_qualified('memory', 'main', name)}")
        self._sequences.clear()
        return {column: count for column, count in sorted(self._counts.items()) if count}
