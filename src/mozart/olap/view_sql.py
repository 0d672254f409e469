"""The SQL of a view, all of it generated from the one definition in its folder.

A view with measures is `view.sql` grouped by its unique key. Its *contributions* are the same rows grouped by the key
*and* the column changes are followed by: what each case adds to each group. Sums and counts of contributions are the
view, so the view can be moved by the difference between a case's old and new contributions.

Knows no connection. Unqualified names in view.sql are found by the transaction's search_path.
`sum()` of nothing is 0 in every view with measures: NULL could not be kept up to date.
"""

from __future__ import annotations

from collections.abc import Sequence

from mozart.olap.database import STATE_SCHEMA
from mozart.olap.model import Measure, View
from mozart.sql import quote_identifier, quote_qualified

ROWS = "mozart_rows"


def relation_of(view: View) -> str:
    """The view's quoted name."""
    return quote_qualified(view.schema_name, view.name)


def contributions_of(view: View) -> str:
    """The quoted name of the table that keeps the view's contributions."""
    return quote_qualified(STATE_SCHEMA, contributions_name(view.name))


def contributions_name(view_name: str) -> str:
    """The unquoted name of that table."""
    return f"contribution_{view_name}"


def contributions_index(view_name: str) -> str:
    """The unquoted name of its index."""
    return f"idx_contribution_{view_name}"


def full_query(view: View) -> str:
    """The query whose result the view shows, whatever its strategy."""
    if not view.measures:
        return view.sql
    keys = _names(view.unique_key)
    aggregates = ", ".join(f"{_aggregate(measure)} AS {quote_identifier(measure.name)}" for measure in view.measures)
    return f"SELECT {keys}, {aggregates} FROM (\n{view.sql}\n) AS {ROWS} GROUP BY {keys}"


def contribution_query(view: View) -> str:
    """What every case adds to every group: columns `per`, the unique key, the measures."""
    keys = _names((_per(view), *view.unique_key))
    aggregates = ", ".join(f"{_aggregate(measure)} AS {quote_identifier(measure.name)}" for measure in view.measures)
    return f"SELECT {keys}, {aggregates} FROM (\n{view.sql}\n) AS {ROWS} GROUP BY {keys}"


def contribution_sum_query(view: View) -> str:
    """The view, made of the contributions instead of the OLTP tables."""
    keys = _names(view.unique_key)
    sums = ", ".join(f"sum({quote_identifier(m.name)}) AS {quote_identifier(m.name)}" for m in view.measures)
    return f"SELECT {keys}, {sums} FROM {contributions_of(view)} GROUP BY {keys}"


def apply_changes(view: View, key_type: str) -> str:
    """Replace the contributions of the bound `keys` (an array literal) and move the view by the difference.

    One statement; returns one row: groups inserted, updated, deleted. The LATERAL with OFFSET 0 hands each key down as
    a constant, so that every table of view.sql is read by its index, also below GROUP BY.
    """
    per, keys, measures = quote_identifier(_per(view)), list(view.unique_key), [m.name for m in view.measures]
    columns = _names((*keys, *measures))
    aggregates = ", ".join(f"{_aggregate(measure)} AS {quote_identifier(measure.name)}" for measure in view.measures)
    negative = ", ".join([*(quote_identifier(key) for key in keys), *(f"-{quote_identifier(m)}" for m in measures)])
    sums = ", ".join(f"sum({quote_identifier(name)}) AS {quote_identifier(name)}" for name in measures)
    moved = " OR ".join(f"sum({quote_identifier(name)}) <> 0" for name in measures)
    rows = quote_identifier(row_count_of(view).name)
    added = ", ".join(f"{quote_identifier(m)} = t.{quote_identifier(m)} + d.{quote_identifier(m)}" for m in measures)
    return f"""
WITH changed AS MATERIALIZED (SELECT unnest(%(keys)s::{key_type}[]) AS key),
fresh AS MATERIALIZED (
    SELECT c.key AS {per}, n.* FROM changed AS c CROSS JOIN LATERAL (
        SELECT {_names(keys)}, {aggregates} FROM (
{view.sql}
        ) AS {ROWS} WHERE {ROWS}.{per} = c.key GROUP BY {_names(keys)} OFFSET 0) AS n),
stale AS (DELETE FROM {contributions_of(view)} AS o WHERE o.{per} = ANY(%(keys)s::{key_type}[]) RETURNING o.*),
kept AS (INSERT INTO {contributions_of(view)} ({per}, {columns}) SELECT {per}, {columns} FROM fresh),
delta AS (
    SELECT {_names(keys)}, {sums} FROM (
        SELECT {columns} FROM fresh UNION ALL SELECT {negative} FROM stale) AS both_sides
    GROUP BY {_names(keys)} HAVING {moved}),
merged AS (
    MERGE INTO {relation_of(view)} AS t USING delta AS d ON {_same(keys)}
    WHEN MATCHED AND t.{rows} + d.{rows} = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET {added}
    WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({_names((*keys, *measures), "d")})
    RETURNING merge_action() AS action)
{_ACTIONS}"""


def apply_difference(view: View, query: str) -> str:
    """Bring the table to `query`, touching only rows that differ; returns groups inserted, updated, deleted."""
    keys, measures = list(view.unique_key), [measure.name for measure in view.measures]
    columns = (*keys, *measures)
    old, new = _names(measures, "t"), _names(measures, "d")
    changes = ", ".join(f"{quote_identifier(name)} = d.{quote_identifier(name)}" for name in measures)
    return f"""
WITH merged AS (
    MERGE INTO {relation_of(view)} AS t USING ({query}) AS d ON {_same(keys)}
    WHEN MATCHED AND ROW({old}) IS DISTINCT FROM ROW({new}) THEN UPDATE SET {changes}
    WHEN NOT MATCHED BY TARGET THEN INSERT ({_names(columns)}) VALUES ({_names(columns, "d")})
    WHEN NOT MATCHED BY SOURCE THEN DELETE
    RETURNING merge_action() AS action)
{_ACTIONS}"""


def compare_query(view: View) -> str:
    """One row: how many rows the view has too many, and how many are missing, against its full query."""
    full = full_query(view)
    return f"""
WITH truth AS MATERIALIZED ({full}), shown AS MATERIALIZED (SELECT * FROM {relation_of(view)})
SELECT (SELECT count(*) FROM (SELECT * FROM shown EXCEPT ALL SELECT * FROM truth) AS e),
       (SELECT count(*) FROM (SELECT * FROM truth EXCEPT ALL SELECT * FROM shown) AS m)"""


def row_count_of(view: View) -> Measure:
    """The measure `count(*)`, which an incremental view has."""
    return next(measure for measure in view.measures if measure.is_row_count)


_ACTIONS = """SELECT count(*) FILTER (WHERE action = 'INSERT'), count(*) FILTER (WHERE action = 'UPDATE'),
    count(*) FILTER (WHERE action = 'DELETE') FROM merged"""


def _aggregate(measure: Measure) -> str:
    if measure.argument == "*":
        return "count(*)"
    distinct = "DISTINCT " if measure.distinct else ""
    call = f"{measure.function}({distinct}{quote_identifier(measure.argument)})"
    return f"coalesce({call}, 0)" if measure.function == "sum" else call


def _names(names: Sequence[str], alias: str = "") -> str:
    prefix = f"{alias}." if alias else ""
    return ", ".join(f"{prefix}{quote_identifier(name)}" for name in names)


def _same(keys: Sequence[str]) -> str:
    return " AND ".join(f"t.{quote_identifier(key)} = d.{quote_identifier(key)}" for key in keys)


def _per(view: View) -> str:
    if view.per is None:
        raise ValueError(f"{view.name} has no column that changes are followed by")
    return view.per
