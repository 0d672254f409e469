"""The statements PostgreSQL is asked: what of a table, in which form, and in which parts.

Texts only; nothing is sent from here but the questions of `plan_chunks`. Values cannot be bound in DuckDB's
`postgres_query`, so each goes through the one quoter of literals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import psycopg
from duckdb import DuckDBPyConnection
from psycopg import sql
from pyiceberg.types import DateType, IcebergType, TimestampType, TimestamptzType

from mozart.connectors.base import Chunk, SourceColumn, SourceTable, TableRead
from mozart.connectors.errors import GUARD_MARK
from mozart.connectors.options import ReadLimits
from mozart.connectors.postgresql_types import Mapping, key_text
from mozart.sql import quote_identifier, quote_literal, quote_qualified

_SAMPLED_ROWS = 20_000
_TID_RANGES_SINCE = 140_000
_RESUMABLE_PARTS = 16
"""From so many parts on `auto` prefers ranges of a key, which another run can take up, to pages, which are read in the
order in which they lie and are taken up within the run only."""

_ORDERED = 0.8
"""How far the rows' places must follow a key (pg_stats.correlation) for reading by its ranges to cost like reading on:
below it each range would touch most pages of the table."""

_SHAPE = """
SELECT c.relkind::text, greatest(c.reltuples, 0)::bigint, pg_relation_size(c.oid), current_setting('block_size')::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s
"""

_KEY = """
SELECT a.attname::text, coalesce(abs(s.correlation), 0)::float8
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
LEFT JOIN pg_stats s
  ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
  AND i.indexprs IS NULL AND a.attnotnull
ORDER BY i.indisprimary DESC, coalesce(abs(s.correlation), 0) DESC LIMIT 1
"""

_DUCKDB_TIMES: dict[type[IcebergType], str] = {
    DateType: "DATE",
    TimestampType: "TIMESTAMP",
    TimestamptzType: "TIMESTAMPTZ",
}


def answer_of(column: SourceColumn) -> Mapping:
    """What `describe` found out about the column's type."""
    return cast(Mapping, column.answer)


def remote(attached: str, statement: str) -> str:
    """The FROM item of DuckDB that runs a statement at the source."""
    return f"postgres_query({quote_literal(attached)}, {quote_literal(statement)})"


def select_lists(cursor: DuckDBPyConnection, read: TableRead) -> tuple[str, str]:
    """What is asked of the source (`c0`, `c1`, …), and what DuckDB makes of it, by the read's policy."""
    parts = [_strict(read, number) if read.unfit == "fail" else _counting(cursor, read, number)
             for number in range(len(read.columns))]  # fmt: skip
    wire = [text for asked, _arrived in parts for text in asked]
    if read.unfit == "fail":
        wire += _unread_key(read)
    arrive = [
        f"{arrived} AS {quote_identifier(column.name)}"
        for column, (_asked, arrived) in zip(read.columns, parts, strict=True)
    ]
    return ", ".join(wire), ", ".join(arrive)


def _strict(read: TableRead, number: int) -> tuple[list[str], str]:
    """A column whose unfit values fail the statement, by column and key."""
    column = read.columns[number]
    quoted, answer, wire = quote_identifier(column.source_name), answer_of(column), f"wire.c{number}"
    asked = f"{answer.guarded_wire(quoted, key_text(_key_names(read.table)))} AS c{number}"
    value = answer.arrive(wire)
    if answer.unfit_on_arrival is None:
        return [asked], value
    said = quote_literal(f"{GUARD_MARK}{answer.unfit} in column {quoted}, key ")
    # left(…, 0): a constant message would be evaluated, and fail, while DuckDB plans.
    refuse = (
        f"error({said} || {_key_on_arrival(read)} || left({wire}::VARCHAR, 0))::{_DUCKDB_TIMES[type(answer.iceberg)]}"
    )
    return [asked], f"CASE WHEN {answer.unfit_on_arrival(wire)} THEN {refuse} ELSE {value} END"


def _counting(cursor: DuckDBPyConnection, read: TableRead, number: int) -> tuple[list[str], str]:
    """A column whose unfit values become NULL and are counted."""
    column = read.columns[number]
    quoted, answer, wire = quote_identifier(column.source_name), answer_of(column), f"wire.c{number}"
    asked, value, unfit = [f"{answer.fitting_wire(quoted)} AS c{number}"], answer.arrive(wire), ""
    if answer.unfit_at_source:
        asked.append(f"({answer.unfit_at_source(quoted)}) AS u{number}")
        unfit = f"wire.u{number}"
    elif answer.unfit_on_arrival:
        unfit = answer.unfit_on_arrival(wire)
    if not unfit:
        return asked, value
    return asked, f"CASE WHEN {unfit} THEN {read.counts.null_of(cursor, column.name, value)} ELSE {value} END"


def _key_names(table: SourceTable) -> tuple[str, ...]:
    key = min(table.unique_keys, key=len, default=frozenset[str]())
    return tuple(column.source_name for column in table.columns if column.name in key)


def _unread_key(read: TableRead) -> list[str]:
    """Columns of the key that the read itself leaves out, as texts: only where DuckDB may have to name a row."""
    if not any(answer_of(column).unfit_on_arrival for column in read.columns):
        return []
    missing = set(_key_names(read.table)) - {column.source_name for column in read.columns}
    return [f"{quote_identifier(name)}::text AS k{number}" for number, name in enumerate(sorted(missing))]


def _key_on_arrival(read: TableRead) -> str:
    read_as = {column.source_name: f"wire.c{number}" for number, column in enumerate(read.columns)}
    names = _key_names(read.table)
    missing = {name: f"wire.k{number}" for number, name in enumerate(sorted(set(names) - set(read_as)))}
    parts = [f"{read_as.get(name) or missing[name]}::VARCHAR" for name in names]
    return f"concat_ws(', ', {', '.join(parts)})" if parts else "'(no key)'"


def from_where(read: TableRead) -> str:
    """FROM and WHERE of the read: its table, filter, window and part."""
    conditions = [f"{_quoted(read, name)} = {quote_literal(value)}" for name, value in sorted(read.equals.items())]
    window = read.window
    if window:
        column = _quoted(read, window.column)
        if window.after is not None:
            conditions.append(f"({column} > {quote_literal(window.after)} OR {column} IS NULL)")
        if window.since is not None:
            conditions.append(f"{column} >= {quote_literal(window.since)}")
        if window.until is not None:
            conditions.append(f"{column} < {quote_literal(window.until)}")
    conditions += _chunk_conditions(read)
    table = quote_qualified(read.table.schema or "public", read.table.name)
    return f"FROM {table}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


def _chunk_conditions(read: TableRead) -> list[str]:
    chunk = read.chunk
    if chunk is None:
        return []
    column, cast_to = (_quoted(read, chunk.column), "") if chunk.column else ("ctid", "::tid")
    low = [f"{column} >= {quote_literal(chunk.low)}{cast_to}"] if chunk.low is not None else []
    high = [f"{column} < {quote_literal(chunk.high)}{cast_to}"] if chunk.high is not None else []
    return low + high


def _quoted(read: TableRead, name: str) -> str:
    return quote_identifier(read.table.column(name).source_name)


def plan_chunks(source: psycopg.Connection[tuple[Any, ...]], table: SourceTable, limits: ReadLimits) -> Sequence[Chunk]:
    """The table in parts of about `limits.chunk_rows` rows; none when it is small or cannot be divided.

    By ranges of a key where the rows' places follow it and the parts are many, or where that is asked for; else by
    pages.
    """
    names = {"schema": table.schema or "public", "table": table.name}
    found = source.execute(_SHAPE, names).fetchall()
    if not found or limits.chunk_by == "none":
        return ()
    kind, estimate, size, block = found[0]
    rows = int(estimate) or int(size) // 100  # never analysed: a guess at the rows of a file is enough here
    parts = rows // limits.chunk_rows
    if parts < 2 or kind not in ("r", "m", "p"):
        return ()
    has_places = kind != "p" and source.info.server_version >= _TID_RANGES_SINCE
    wants_key = limits.chunk_by == "key" or (
        limits.chunk_by == "auto" and (parts >= _RESUMABLE_PARTS or not has_places)
    )
    by_key = _key_ranges(source, table, limits, rows) if wants_key else ()
    if by_key or limits.chunk_by == "key" or not has_places:
        return by_key
    pages = int(size) // int(block)
    ends = [f"({pages * number // parts},0)" for number in range(1, parts)]
    return _ranges(None, ends)


def _key_ranges(
    source: psycopg.Connection[tuple[Any, ...]], table: SourceTable, limits: ReadLimits, rows: int
) -> Sequence[Chunk]:
    found = source.execute(_KEY, {"schema": table.schema or "public", "table": table.name}).fetchall()
    if not found or (found[0][1] < _ORDERED and limits.chunk_by != "key"):
        return ()
    column = str(found[0][0])
    statement = sql.SQL(
        "SELECT unnest(percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY {column}))::text "
        "FROM {table} TABLESAMPLE SYSTEM (%(percent)s)"
    ).format(column=sql.Identifier(column), table=sql.Identifier(table.schema or "public", table.name))
    parts = rows // limits.chunk_rows
    shares = [number / parts for number in range(1, parts)]
    percent = min(100.0, 100.0 * _SAMPLED_ROWS / max(rows, 1))
    ends = source.execute(statement, {"shares": shares, "percent": percent}).fetchall()
    return _ranges(column.lower(), list(dict.fromkeys(str(row[0]) for row in ends if row[0] is not None)))


def _ranges(column: str | None, ends: Sequence[str]) -> Sequence[Chunk]:
    if not ends:
        return ()
    return tuple(Chunk(column, low, high) for low, high in zip([None, *ends], [*ends, None], strict=True))
