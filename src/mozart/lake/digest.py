"""Whether two relations hold the same rows, whatever their order: a count and two independent 64-bit sums.

Streams both; memory does not grow with the rows. Digests of one process only are comparable: DuckDB may hash otherwise
in its next version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duckdb import DuckDBPyConnection

from mozart.sql import quote_identifier

Digest = tuple[Any, ...]

EMPTY_DIGEST: Digest = (0, None, None)


def digest_rows(cursor: DuckDBPyConnection, relation: str, names: Sequence[str]) -> Digest:
    """The digest of `names` over `relation` (SQL for a FROM clause): (rows, sum, sum)."""
    columns = ", ".join(quote_identifier(name) for name in names)
    rows = cursor.execute(
        f"SELECT count(*), sum(hash({columns})::HUGEINT), sum(hash('mozart', {columns})::HUGEINT) FROM {relation}"
    ).fetchall()
    return tuple(rows[0])
