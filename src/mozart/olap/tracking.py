"""Change tracking: statement-level triggers on the OLTP tables that log which keys changed, and in which transaction.

A trigger writes keys, never values, in the writer's own transaction; a rolled back change leaves nothing. An UPDATE is
logged only where a column that some view reads has changed. A statement over `bulk_rows` rows logs that many and one:
who reads so many of one transaction computes anew. A TRUNCATE, or a table without the view's key column, logs one row
without a key, which says the same.

The triggers are ENABLE ALWAYS, so they fire under `session_replication_role = replica` too. What they cannot see: a
disabled trigger, a rewrite by ALTER TABLE, another server. `signature_query` and `mozart.olap.attempt` look for those.
Not followed: partitioned or inherited tables (refused), changes applied by logical replication (no statement triggers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mozart.olap.database import STATE_SCHEMA
from mozart.olap.state_schema import log_of
from mozart.sql import quote_identifier, quote_qualified

PREFIX = "mozart_log_"
LEAST_BULK_ROWS = 50_000
BULK_SHARE = 0.02

# Types whose equality is identity: an update that leaves them equal leaves every view's result equal.
_COMPARED_AS_THEY_ARE = frozenset(
    (
        *(
            "smallint",
            "integer",
            "bigint",
            "numeric",
            "boolean",
            "date",
            "uuid",
            "oid",
            "bytea",
            "time without time zone",
        ),
        *("timestamp without time zone", "timestamp with time zone", "text", "character varying", "character", "enum"),
    )
)
_COMPARED_BY = {"real": "pg_catalog.float4send({})", "double precision": "pg_catalog.float8send({})"}


@dataclass(frozen=True)
class Column:
    """A column of an OLTP table; `type` is the bare type's name, `enum` for any enum."""

    name: str
    type: str


@dataclass(frozen=True)
class Tracked:
    """One table to follow by one key column (None: only that something changed).

    `columns` are those that views read; None when it is not known which, and then every update counts. `number` stands
    for table and key in the log, 0 until the install has given one. It and `bulk_rows` stay as they were first
    (`tracked_source`): what is logged is read by the same bound.
    """

    schema: str
    table: str
    key: str | None
    columns: tuple[Column, ...] | None
    bulk_rows: int = LEAST_BULK_ROWS
    number: int = 0


def trigger_statements(tracked: Tracked) -> Iterator[str]:
    """CREATE FUNCTION and CREATE TRIGGER statements, each to be run once in the install's transaction.

    The functions run as their owner, so that writers need no right on the log. Every name in them is qualified, which
    is as safe as a fixed search_path and saves each write the cost of setting it.
    """
    table = quote_qualified(tracked.schema, tracked.table)
    for event, transition, body in (
        ("INSERT", "NEW TABLE AS new_rows", f"BEGIN\n{_log(tracked, 'new_rows')}"),
        ("DELETE", "OLD TABLE AS old_rows", f"BEGIN\n{_log(tracked, 'old_rows')}"),
        ("UPDATE", "OLD TABLE AS old_rows NEW TABLE AS new_rows", _log_update(tracked)),
        ("TRUNCATE", "", f"BEGIN\n    {_log_everything(tracked)}"),
    ):
        name = trigger_name(tracked, event)
        function = quote_qualified(STATE_SCHEMA, name)
        yield (
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $mozart$\n"
            f"{body}\n    RETURN NULL;\nEND $mozart$"
        )
        referencing = f" REFERENCING {transition}" if transition else ""
        yield f"DROP TRIGGER IF EXISTS {quote_identifier(name)} ON {table}"
        yield (
            f"CREATE TRIGGER {quote_identifier(name)} AFTER {event} ON {table}{referencing}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
        yield f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {quote_identifier(name)}"


def trigger_names(tracked: Tracked) -> tuple[str, ...]:
    """The names of its four triggers, which are their functions' names as well."""
    return tuple(trigger_name(tracked, event) for event in ("INSERT", "DELETE", "UPDATE", "TRUNCATE"))


def trigger_name(tracked: Tracked, event: str) -> str:
    """`mozart_log_{table}_{key}_{event}`, with a hash in place of what PostgreSQL would cut off."""
    stem = f"{PREFIX}{tracked.table}_{tracked.key or 'any'}"
    full = f"{stem}_{event.lower()}"
    if len(full) <= 63:
        return full
    mark = hashlib.sha256(f"{tracked.schema}.{stem}".encode()).hexdigest()[:8]
    return f"{stem[:44]}_{mark}_{event.lower()}"


def fingerprint(tracked: Tracked) -> str:
    """Changes when the triggers would; kept in the trigger's comment so that install rewrites only what differs."""
    return hashlib.sha256("\n".join(trigger_statements(tracked)).encode()).hexdigest()[:16]


def plan_tracking(
    schema: str,
    sources_by_view: Mapping[str, tuple[Sequence[str], str | None]],
    columns_by_table: Mapping[str, Mapping[str, Column]],
    read_columns: Mapping[str, frozenset[str] | None],
    row_estimates: Mapping[str, float],
) -> list[Tracked]:
    """What to follow for all views together: `sources_by_view` gives each view's tables and its `per` column."""
    wanted: dict[str, set[str | None]] = {}
    for tables, per in sources_by_view.values():
        for table in tables:
            keys = wanted.setdefault(table, set())
            keys.add(per if per in columns_by_table[table] else None)
    plan: list[Tracked] = []
    for table, keys in sorted(wanted.items()):
        # A table followed by some key needs no second set of triggers to know that something changed.
        for key in sorted(key for key in keys if key is not None) or [None]:
            plan.append(
                Tracked(
                    schema=schema,
                    table=table,
                    key=key,
                    columns=_compared(columns_by_table[table], read_columns.get(table), key),
                    bulk_rows=max(LEAST_BULK_ROWS, int(row_estimates.get(table, 0) * BULK_SHARE)),
                )
            )
    return plan


def _compared(columns: Mapping[str, Column], read: frozenset[str] | None, key: str | None) -> tuple[Column, ...] | None:
    if read is None:
        return None
    chosen = tuple(columns[name] for name in sorted(read | ({key} if key else set())) if name in columns)
    known = all(column.type in _COMPARED_AS_THEY_ARE or column.type in _COMPARED_BY for column in chosen)
    return chosen if known else None


def _log(tracked: Tracked, rows: str) -> str:
    """Log a key for each row; keys may repeat, for telling them apart costs a one-row write more than it saves.

    One row more than `bulk_rows` says that it was not all (`mozart.olap.maintain`): to look at the number here, and log
    a row for it, costs each durable one-row write another 1 to 2 %.
    """
    if tracked.key is None:
        return f"    {_insert(tracked)} SELECT NULL FROM {rows} LIMIT 1;"
    return f"    {_insert(tracked)} SELECT {_key(tracked)} FROM {rows} LIMIT {tracked.bulk_rows + 1};"


def _log_update(tracked: Tracked) -> str:
    if tracked.columns is None and tracked.key is None:
        return f"BEGIN\n{_log(tracked, 'new_rows')}"
    if tracked.columns is None:
        each = f"SELECT {_key(tracked)} FROM"
        both = f"{each} new_rows UNION ALL {each} old_rows LIMIT {tracked.bulk_rows + 1}"
        return f"BEGIN\n    {_insert(tracked)} {both};"
    compared = ", ".join(_COMPARED_BY.get(c.type, "{}").format(quote_identifier(c.name)) for c in tracked.columns)
    before, after = (f"SELECT {_key(tracked)} AS key, {compared or 'true'} FROM {rows}" for rows in _BOTH)
    either = f"({before} EXCEPT ALL {after}) UNION ALL ({after} EXCEPT ALL {before})"
    # An updated row differs before and after, mostly under one key: counted twice it would pass for a bulk.
    differing = f"SELECT DISTINCT key FROM ({either}) AS differing LIMIT {tracked.bulk_rows + 1}"
    # Most updates are of one row and leave its key: one query tells, and one comparison in this language, which is dear
    # in it. Only others are compared as sets, and large ones not at all, for that would cost more than it could save.
    return (
        "DECLARE\n    lone_key text;\n    is_more boolean;\n    updated bigint;\nBEGIN\n"
        f"{_look_at_first_pair(tracked)}\n"
        f"    IF lone_key IS NOT NULL THEN\n        {_insert(tracked)} VALUES (lone_key);\n"
        f"    ELSIF is_more THEN\n"
        f"        IF updated OPERATOR(pg_catalog.>) {tracked.bulk_rows} THEN\n            {_log_everything(tracked)}\n"
        f"        ELSE\n            {_insert(tracked)} {differing};\n        END IF;\n    END IF;"
    )


def _look_at_first_pair(tracked: Tracked) -> str:
    """Set `lone_key` for one row that differs under one key, `is_more` for whatever else there is to log.

    Compares images of values, so that a difference is never missed.
    """
    old, new = (
        f"ROW({', '.join(f'{alias}.{quote_identifier(column.name)}' for column in tracked.columns or ())})::record"
        for alias in ("o", "n")
    )
    key = quote_identifier(tracked.key) if tracked.key else None
    texts = (f"o.{key}::pg_catalog.text", f"n.{key}::pg_catalog.text")
    same, own = (" OPERATOR(pg_catalog.=) ".join(texts), texts[1]) if key else ("false", "NULL")
    few = f"(SELECT pg_catalog.count(*) AS rows FROM (SELECT FROM new_rows LIMIT {tracked.bulk_rows + 1}) AS bounded)"
    return (
        "    SELECT CASE WHEN few.rows OPERATOR(pg_catalog.=) 1 AND pair.differs AND pair.is_same THEN pair.key END,\n"
        "        few.rows OPERATOR(pg_catalog.>) 1 OR (pair.differs AND pair.is_same IS NOT TRUE), few.rows\n"
        "    INTO lone_key, is_more, updated\n"
        f"    FROM {few} AS few, (SELECT {old} OPERATOR(pg_catalog.*<>) {new} AS differs, {same} AS is_same,"
        f" {own} AS key FROM old_rows AS o, new_rows AS n LIMIT 1) AS pair;"
    )


_BOTH = ("old_rows", "new_rows")


def _log_everything(tracked: Tracked) -> str:
    return f"{_insert(tracked)} VALUES (NULL);"


def _insert(tracked: Tracked) -> str:
    return f"INSERT INTO {log_of(tracked.number)} (key)"


def _key(tracked: Tracked) -> str:
    return f"{quote_identifier(tracked.key)}::pg_catalog.text" if tracked.key else "NULL::pg_catalog.text"
