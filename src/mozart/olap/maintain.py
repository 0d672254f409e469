"""The work of a refresh, by strategy; runs inside the transaction of an attempt that holds the view's lock.

`refresh`: REFRESH MATERIALIZED VIEW CONCURRENTLY, and nothing else, ever: an error never becomes a blocking refresh.
`incremental`: the keys changed since the stored snapshot are computed anew and the view is moved by the difference;
when too many changed, or the cursor is worth nothing, everything is computed and only rows that differ are touched.
What is cheaper is learned: milliseconds per key and of the last recomputation are kept with the view.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from mozart.errors import ConfigurationError
from mozart.olap.attempt import LockedState, Work
from mozart.olap.database import STATE_SCHEMA, Connection
from mozart.olap.identity import server_identity, source_signature
from mozart.olap.model import View
from mozart.olap.state_schema import NOT_APPLIED
from mozart.olap.view_sql import (
    apply_changes,
    apply_difference,
    contribution_query,
    contribution_sum_query,
    contributions_index,
    contributions_of,
    relation_of,
)
from mozart.sql import quote_identifier, quote_qualified

FIRST_MS_PER_KEY = 0.2
"""What one changed key is taken to cost before it was measured, in milliseconds."""

_KEYS_WORTH_LEARNING_FROM = 200  # below, what every refresh costs would count as the keys' cost
_WEIGHT_OF_NEWEST = 0.3


@dataclass(frozen=True)
class Changes:
    """What changed since the view's snapshot: an array literal of keys, how many, and whether more than keys did."""

    keys: str
    count: int
    is_unbounded: bool


def do_refresh(connection: Connection, view: View, state: LockedState, schema: str, *, is_full: bool) -> Work:
    """Bring the view up to date in the present transaction."""
    identity = server_identity(connection)
    signature, is_tracked = source_signature(connection, schema, view.sources)
    if state.strategy == "refresh":
        work = _refresh_concurrently(connection, view)
    else:
        if not is_tracked:
            why: str | None = "change tracking is off; run `mozart olap install`"
        elif identity != state.server_identity:
            why = "the cursor belongs to another server"
        elif signature != state.source_signature:
            why = "a source table was rewritten or changed"
        else:
            why = state.recompute_reason
        work = _maintain(connection, view, state, why, is_full=is_full)
    return replace(work, signature=signature, identity=identity)


def _refresh_concurrently(connection: Connection, view: View) -> Work:
    relation = relation_of(view)
    row = connection.execute("SELECT relispopulated FROM pg_class WHERE oid = %s::regclass", (relation,)).fetchone()
    if not (row and row[0]):
        raise ConfigurationError(f"view {view.name} was never populated; run `mozart olap install`")
    connection.execute(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {relation}".encode())
    return Work(rows=count_rows(connection, view))


def _maintain(connection: Connection, view: View, state: LockedState, why: str | None, *, is_full: bool) -> Work:
    """Apply what changed; compute everything for `why`, for too many changes, and to check a full sync."""
    changes = None if why else read_changes(connection, view, state)
    if changes and changes.is_unbounded:
        why = "a table was truncated, changed in bulk, or cannot be followed by key"
    elif changes and _is_cheaper_to_recompute(changes.count, state):
        why = f"{changes.count} changed keys cost more than computing everything"
    if why or changes is None:
        work = recompute(connection, view)
        return replace(work, rows=count_rows(connection, view), reason=why)
    work = _apply(connection, view, state, changes)
    if not is_full:
        return work
    checked = recompute(connection, view)
    rows = count_rows(connection, view)
    return replace(work, rows=rows, drift_rows=checked.changed_rows, recompute_ms=checked.recompute_ms)


def read_changes(connection: Connection, view: View, state: LockedState) -> Changes:
    """The keys that changed and were committed after the view's snapshot, as the present snapshot sees them."""
    row = connection.execute(
        _CHANGES, {"view": view.name, "keyed": list(state.keyed_sources), "per": view.per}
    ).fetchone()
    keys, count, unbounded = row or (None, 0, False)
    return Changes(keys=str(keys or "{}"), count=int(count), is_unbounded=bool(unbounded))


def recompute(connection: Connection, view: View) -> Work:
    """Compute all contributions anew and bring the view to their sums; touches only groups that differ."""
    started = time.perf_counter()
    fill_contributions(connection, view)
    row = connection.execute(apply_difference(view, contribution_sum_query(view)).encode()).fetchone()
    changed = sum(int(count) for count in row or ())
    return Work(rows=0, changed_rows=changed, recompute_ms=(time.perf_counter() - started) * 1000)


def fill_contributions(connection: Connection, view: View) -> None:
    """Replace all rows of the contributions; the index is built once, after them."""
    table, index = contributions_of(view), contributions_index(view.name)
    per = quote_identifier(view.per or "")
    columns = ", ".join(
        quote_identifier(name) for name in (view.per or "", *view.unique_key, *(m.name for m in view.measures))
    )
    connection.execute(f"TRUNCATE {table}".encode())
    connection.execute(f"DROP INDEX IF EXISTS {quote_qualified(STATE_SCHEMA, index)}".encode())
    connection.execute(f"INSERT INTO {table} ({columns}) {contribution_query(view)}".encode())
    connection.execute(f"CREATE INDEX {quote_identifier(index)} ON {table} ({per})".encode())
    connection.execute(f"ANALYZE {table}".encode())


def count_rows(connection: Connection, view: View) -> int:
    """How many rows the view has."""
    row = connection.execute(f"SELECT count(*) FROM {relation_of(view)}".encode()).fetchone()
    return int(row[0]) if row else 0


def _apply(connection: Connection, view: View, state: LockedState, changes: Changes) -> Work:
    if not changes.count:
        return Work(rows=state.row_count, changed_rows=0)
    started = time.perf_counter()
    statement = apply_changes(view, state.key_type or "text")
    row = connection.execute(statement.encode(), {"keys": changes.keys}).fetchone()
    spent = (time.perf_counter() - started) * 1000
    inserted, updated, deleted = row or (0, 0, 0)
    return Work(
        rows=state.row_count + int(inserted) - int(deleted),
        changed_rows=int(inserted) + int(updated) + int(deleted),
        ms_per_key=_learned(spent, changes.count, state),
    )


def _learned(spent_ms: float, keys: int, state: LockedState) -> float | None:
    if keys < _KEYS_WORTH_LEARNING_FROM:
        return None
    seen = spent_ms / keys
    before = seen if state.ms_per_key is None else state.ms_per_key
    return before + (seen - before) * _WEIGHT_OF_NEWEST


def _is_cheaper_to_recompute(keys: int, state: LockedState) -> bool:
    if state.recompute_ms is None:
        return False
    return keys * (state.ms_per_key or FIRST_MS_PER_KEY) > state.recompute_ms


# A table that has the view's key column is followed by it; any other change, a row without a key, and more rows of one
# transaction than the triggers log of a statement are unbounded.
_CHANGES = f"""
WITH changed AS MATERIALIZED (
    SELECT t.id, t.bulk_rows, l.xid, l.key, l.key IS NULL OR NOT t.name = ANY(%(keyed)s::text[]) AS is_unbounded
    FROM {quote_identifier(STATE_SCHEMA)}.view_state s, {NOT_APPLIED}
        AND s.name = %(view)s AND (NOT t.name = ANY(%(keyed)s::text[]) OR t.key_column IS NOT DISTINCT FROM %(per)s))
SELECT array_agg(DISTINCT key)::text, count(DISTINCT key), bool_or(is_unbounded)
    OR EXISTS (SELECT FROM changed GROUP BY id, xid, bulk_rows HAVING count(*) > bulk_rows)
FROM changed
""".encode()
