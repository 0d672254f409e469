"""The tables of schema `mozart`: what is installed, what changed, what was asked for, what happened.

`view_state` is written by whoever holds the view's lock and read by all. Marks and pauses are tables of their own, so
that asking never waits for a refresh that holds the state row. `changed_key` is written by the triggers in the writers'
own transactions, with the transaction's number: a cursor over it is a stored snapshot, never a number or a time. It is
a view of one table a source: a writer waits for that row, so it is small, nothing is checked, and its one index only
ever grows at the end. (A partitioned table would check every row against its bounds.)
"""

from __future__ import annotations

from collections.abc import Iterable

from mozart.olap.database import STATE_SCHEMA
from mozart.sql import quote_identifier, quote_qualified

_SCHEMA = quote_identifier(STATE_SCHEMA)

CREATE_STATE = f"""
CREATE SCHEMA IF NOT EXISTS {_SCHEMA};
CREATE TABLE IF NOT EXISTS {_SCHEMA}.view_state (
    name               text PRIMARY KEY,
    schema_name        text NOT NULL,
    strategy           text NOT NULL CHECK (strategy IN ('refresh', 'incremental')),
    definition_hash    text NOT NULL,
    sources            text[] NOT NULL,
    keyed_sources      text[] NOT NULL,
    key_type           text,
    generation         bigint NOT NULL DEFAULT 0,
    row_count          bigint,
    last_refreshed_at  timestamptz,
    last_duration_ms   double precision,
    snapshot           pg_snapshot NOT NULL,
    server_identity    text NOT NULL,
    source_signature   text NOT NULL,
    recompute_reason   text,
    ms_per_key         double precision,
    recompute_ms       double precision,
    installed_at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 40);
CREATE TABLE IF NOT EXISTS {_SCHEMA}.tracked_source (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    key_column text,
    bulk_rows  bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (name, key_column)
);
CREATE TABLE IF NOT EXISTS {_SCHEMA}.dirty_mark (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    view      text NOT NULL,
    reason    text NOT NULL,
    since     timestamptz NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS dirty_mark_view ON {_SCHEMA}.dirty_mark (view);
CREATE TABLE IF NOT EXISTS {_SCHEMA}.paused_view (
    view      text PRIMARY KEY,
    reason    text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS {_SCHEMA}.full_sync (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status      text NOT NULL DEFAULT 'started' CHECK (status IN ('started', 'completed', 'failed')),
    reason      text,
    run_id      text,
    source_rows jsonb NOT NULL DEFAULT '{{}}',
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE TABLE IF NOT EXISTS {_SCHEMA}.refresh_history (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    view         text NOT NULL,
    kind         text NOT NULL,
    strategy     text NOT NULL,
    status       text NOT NULL DEFAULT 'started'
        CHECK (status IN ('started', 'completed', 'skipped', 'failed', 'killed')),
    reason       text,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    rows         bigint,
    changed_rows bigint,
    drift_rows   bigint,
    generation   bigint,
    lag_seconds  double precision,
    run_id       text,
    sync_id      bigint
);
CREATE INDEX IF NOT EXISTS refresh_history_view ON {_SCHEMA}.refresh_history (view, id);
CREATE INDEX IF NOT EXISTS refresh_history_started ON {_SCHEMA}.refresh_history (id) WHERE status = 'started';
CREATE INDEX IF NOT EXISTS refresh_history_sync ON {_SCHEMA}.refresh_history (sync_id) WHERE sync_id IS NOT NULL;
"""


def log_of(number: int) -> str:
    """The quoted table that holds one source's part of the log."""
    return quote_qualified(STATE_SCHEMA, f"changed_key_{number}")


def create_log(number: int) -> str:
    """The statements that make that table."""
    return f"""
        CREATE TABLE {log_of(number)} (
            xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
            changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            key        text COLLATE "C"
        );
        CREATE INDEX ON {log_of(number)} (xid)"""


def create_log_view(numbers: Iterable[int]) -> str:
    """The statement that makes `changed_key`: all changes, each with the number of its source."""
    parts = (f"SELECT {number} AS source, key, xid, changed_at FROM {log_of(number)}" for number in sorted(numbers))
    return f"CREATE OR REPLACE VIEW {_SCHEMA}.changed_key AS {' UNION ALL '.join(parts)}"


NOT_APPLIED = f"""{_SCHEMA}.tracked_source t CROSS JOIN LATERAL (
        SELECT c.key, c.xid, c.changed_at FROM {_SCHEMA}.changed_key c
        WHERE c.source = t.id AND c.xid >= pg_snapshot_xmin(s.snapshot)
            AND c.xid < pg_snapshot_xmax(pg_current_snapshot()) AND NOT pg_visible_in_snapshot(c.xid, s.snapshot)
        OFFSET 0) l
    WHERE t.name = ANY(s.sources)"""
"""FROM and WHERE of what a view, the row `s` of view_state, has not applied yet: `l` is the change, `t` its source.

One short range of an index for each of the view's sources, whatever else is in the log. For that the planner needs two
hints. The upper bound leaves nothing out, for nothing from there on is visible, but with the lower one alone it expects
a third of all rows, and reads the whole log. OFFSET 0 makes it go source by source, or it would read them all.
"""
