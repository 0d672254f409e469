"""The one quoter of identifiers and the one quoter of typed literals.

Values are bound wherever a driver can bind them. `quote_literal` exists for the places that cannot: DuckDB's
`postgres_query()`, secrets and COPY options. Both are fuzzed in `tests/unit/test_sql.py`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID


def quote_identifier(name: str) -> str:
    """`name` as a standard SQL delimited identifier (PostgreSQL, DuckDB, SQLite, Trino, Oracle)."""
    if not name or "\x00" in name:
        raise ValueError(f"not an identifier: {name!r}")
    return '"' + name.replace('"', '""') + '"'


def quote_qualified(*parts: str) -> str:
    """`schema`, `table` → `"schema"."table"`."""
    return ".".join(quote_identifier(part) for part in parts)


def quote_literal(value: str | int | bool | Decimal | date | datetime | UUID | None) -> str:
    """`value` as a literal of standard SQL, safe under standard_conforming_strings (DuckDB, PostgreSQL ≥ 9.1).

    Datetimes must carry a timezone and are written in UTC. Strings must not contain NUL.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | Decimal):
        return _finite(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a datetime literal needs a timezone")
        return f"TIMESTAMPTZ '{value.astimezone(UTC).isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    text = str(value)
    if "\x00" in text:
        raise ValueError("a string literal cannot contain NUL")
    return "'" + text.replace("'", "''") + "'"


def _finite(value: int | Decimal) -> str:
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError(f"not a finite number: {value}")
    return str(value) if isinstance(value, int) else format(value, "f")
