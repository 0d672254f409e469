"""Bring the database to what `views/` says: state, change tracking, views, the readers' role. Idempotent.

First everything is checked against the database and nothing is touched when one view is wrong. Then the triggers, one
table a transaction, with short waits for locks; then each view that is new or differs, in a transaction of its own,
built beside the old one and exchanged. A change of strategy or of SQL is the same exchange: readers see the old or the
new relation. What an unfinished install left is finished by the next.

Pitfall: views that left `views/` are dropped from the database when nothing depends on them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import psycopg
from psycopg import errors as pg

from mozart.errors import ConfigurationError, MozartError, Problem, TransientError
from mozart.olap import relation
from mozart.olap.attempt import Request, close_failed, open_attempt, try_lock, view_transaction
from mozart.olap.database import STATE_SCHEMA, Connection, OlapDatabase, transaction, translate
from mozart.olap.definition import Definition, SourceInfo, definition_problems, inspect_definition, read_sources_info
from mozart.olap.identity import server_identity, source_signature
from mozart.olap.maintain import count_rows
from mozart.olap.model import View
from mozart.olap.reader_role import ensure_reader, require_views_only
from mozart.olap.registry import ViewRegistry
from mozart.olap.state_schema import CREATE_STATE, create_log, create_log_view
from mozart.olap.tracking import PREFIX, Tracked, fingerprint, plan_tracking, trigger_names, trigger_statements
from mozart.sql import quote_identifier, quote_literal, quote_qualified

OLDEST_SERVER = 170000
_LOCK_TRIES = 60
_BUILD_WAIT_SECONDS = 120.0
_SCHEMA = quote_identifier(STATE_SCHEMA)


@dataclass(frozen=True)
class InstallReport:
    """What was done by view (created, replaced, switched, unchanged), views removed, tables whose tracking changed."""

    views: dict[str, str]
    removed: tuple[str, ...] = ()
    tracked: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Following:
    """The view's tables that have its key column, that column's type, and the schema it is in up to now."""

    keyed: list[str]
    key_type: str | None
    old_schema: str


def install(database: OlapDatabase, registry: ViewRegistry) -> InstallReport:
    """Install or bring up to date; ConfigurationError with the cure when a view cannot be installed."""
    with closing(database.connect()) as connection:
        try:
            _require_server(connection)
            _create_state(connection, database, registry)
            definitions, sources = _checked(connection, database, registry)
            tracking = _numbered(connection, _plan(database, registry, definitions, sources))
            tracked = _track(connection, tracking)
            _retire_first_log(connection)
            done = {
                view.name: _install_view(database, connection, view, definitions[view.name], sources)
                for view in registry.views
            }
            removed = _remove_others(connection, registry)
            _untrack_others(connection, database.source_schema, tracking)
            require_views_only(
                connection, database.reader_role, [(view.schema_name, view.name) for view in registry.views]
            )
        except psycopg.Error as error:
            raise translate(error, "mozart olap install") from error
    return InstallReport(done, removed, tracked)


def is_installed(connection: Connection) -> bool:
    """Whether `mozart olap install` was run in this database."""
    row = connection.execute("SELECT to_regclass(%s)", (f"{_SCHEMA}.view_state",)).fetchone()
    return bool(row and row[0])


def check(database: OlapDatabase, registry: ViewRegistry) -> None:
    """Refuse what `install` would refuse, and change nothing."""
    with closing(database.connect()) as connection, connection.transaction(force_rollback=True):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}".encode())
        _checked(connection, database, registry)


def _require_server(connection: Connection) -> None:
    if connection.info.server_version < OLDEST_SERVER:
        raise ConfigurationError(
            f"the OLAP database runs PostgreSQL {connection.info.server_version // 10000}; Mozart needs 17 or newer"
            " (MERGE with RETURNING keeps incremental views)"
        )


def _create_state(connection: Connection, database: OlapDatabase, registry: ViewRegistry) -> None:
    schemas = sorted({view.schema_name for view in registry.views} | {database.view_schema})
    with transaction(connection, settings={"lock_timeout": "5s", "client_min_messages": "warning"}):
        connection.execute(_INSTALL_LOCK)
        connection.execute(CREATE_STATE.encode())
        for schema in schemas:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(schema)}".encode())
        ensure_reader(connection, database.reader_role, schemas)


def _checked(
    connection: Connection, database: OlapDatabase, registry: ViewRegistry
) -> tuple[dict[str, Definition], dict[str, SourceInfo]]:
    """What PostgreSQL says about every view and table; ConfigurationError with every problem at once."""
    schema = database.source_schema
    tables = sorted({table for view in registry.views for table in view.sources})
    definitions: dict[str, Definition] = {}
    problems: list[Problem] = []
    with transaction(connection, search_path=(schema, "pg_catalog", "pg_temp")):
        sources = read_sources_info(connection, schema, tables)
        for view in registry.views:
            found = inspect_definition(connection, view)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                definitions[view.name] = found
                problems += definition_problems(view, found, sources, schema)
    if problems:
        raise ConfigurationError(problems)
    return definitions, sources


def _plan(
    database: OlapDatabase,
    registry: ViewRegistry,
    definitions: dict[str, Definition],
    sources: dict[str, SourceInfo],
) -> list[Tracked]:
    return plan_tracking(
        database.source_schema,
        {view.name: (view.sources, view.per) for view in registry.views},
        {table: info.columns for table, info in sources.items()},
        _read_columns(database.source_schema, definitions.values()),
        {table: info.rows for table, info in sources.items()},
    )


def _numbered(connection: Connection, plan: list[Tracked]) -> list[Tracked]:
    """The plan with each source's number in the log; one that has none gets it, and a table there."""
    if {(tracked.table, tracked.key) for tracked in plan} - set(_numbers(connection)):
        _with_short_locks(connection, "mozart.changed_key", partial(_give_numbers, connection, plan))
    given = _numbers(connection)
    numbered = ((tracked, *given[tracked.table, tracked.key]) for tracked in plan)
    return [replace(tracked, number=number, bulk_rows=bulk_rows) for tracked, number, bulk_rows in numbered]


def _numbers(connection: Connection) -> dict[tuple[str, str | None], tuple[int, int]]:
    """By table and key: the number in the log, and how many rows of a statement are logged."""
    rows = connection.execute(f"SELECT name, key_column, id, bulk_rows FROM {_SCHEMA}.tracked_source".encode())
    return {(str(name), key): (int(number), int(bulk_rows)) for name, key, number, bulk_rows in rows.fetchall()}


def _give_numbers(connection: Connection, plan: list[Tracked]) -> None:
    connection.execute(_INSTALL_LOCK)
    for tracked in plan:
        given = connection.execute(_GIVE_NUMBER, (tracked.table, tracked.key, tracked.bulk_rows)).fetchone()
        if given:
            connection.execute(create_log(int(given[0])).encode())
    connection.execute(create_log_view(number for number, _ in _numbers(connection).values()).encode())


def _retire_first_log(connection: Connection) -> None:
    """Drop the log of Mozart 0.1's first form, which no trigger writes any more; every view is then computed anew."""
    row = connection.execute("SELECT to_regclass(%s)", (f"{_SCHEMA}.change_log",)).fetchone()
    if row and row[0]:
        _with_short_locks(connection, "mozart.change_log", partial(_execute, connection, _RETIRE_FIRST_LOG))


def _execute(connection: Connection, statements: bytes) -> None:
    connection.execute(statements)


def _track(connection: Connection, plan: list[Tracked]) -> tuple[str, ...]:
    """Make the triggers that are missing or would differ; returns what they follow."""
    changed = [tracked for tracked in plan if not _is_tracked(connection, tracked)]
    for tracked in changed:
        _with_short_locks(connection, tracked.table, partial(_create_triggers, connection, tracked))
    return tuple(f"{tracked.table} by {tracked.key or 'any change'}" for tracked in changed)


def _untrack_others(connection: Connection, schema: str, plan: list[Tracked]) -> None:
    """Drop triggers that no view needs any more, and their functions; writers pay for none of them then."""
    wanted = {(tracked.table, name) for tracked in plan for name in trigger_names(tracked)}
    found = connection.execute(
        "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND starts_with(t.tgname, %s)",
        (schema, PREFIX),
    ).fetchall()
    for table, name in found:
        if (str(table), str(name)) not in wanted:
            drop = partial(_drop_trigger, connection, quote_qualified(schema, str(table)), str(name))
            _with_short_locks(connection, str(table), drop)


def _read_columns(schema: str, definitions: Iterable[Definition]) -> dict[str, frozenset[str] | None]:
    """Per table, the columns that any view reads; None when one of them reads whole rows."""
    merged: dict[str, frozenset[str] | None] = {}
    for definition in definitions:
        for (place, table), columns in definition.read.items():
            if place == schema:
                known = merged.get(table, frozenset())
                merged[table] = None if known is None or columns is None else known | columns
    return merged


def _is_tracked(connection: Connection, tracked: Tracked) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s AND t.tgname = ANY(%s) AND t.tgenabled = 'A'"
        " AND obj_description(t.tgfoid, 'pg_proc') = %s",
        (tracked.schema, tracked.table, list(trigger_names(tracked)), fingerprint(tracked)),
    ).fetchone()
    return row is not None and row[0] == len(trigger_names(tracked))


def _create_triggers(connection: Connection, tracked: Tracked) -> None:
    for statement in trigger_statements(tracked):
        connection.execute(statement.encode())
    for name in trigger_names(tracked):
        function = quote_qualified(STATE_SCHEMA, name)
        connection.execute(
            f"COMMENT ON FUNCTION {function}() IS {quote_literal(fingerprint(tracked))};"
            f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC".encode()
        )


def _drop_trigger(connection: Connection, table: str, name: str) -> None:
    connection.execute(f"DROP TRIGGER {quote_identifier(name)} ON {table}".encode())
    connection.execute(f"DROP FUNCTION IF EXISTS {quote_qualified(STATE_SCHEMA, name)}()".encode())


def _with_short_locks(connection: Connection, table: str, action: Callable[[], None]) -> None:
    """Run `action` in a short transaction; its DDL waits for writers, so it gives up quickly and comes again."""
    for _ in range(_LOCK_TRIES):
        try:
            with transaction(connection, settings={"lock_timeout": "300ms", "client_min_messages": "warning"}):
                action()
            return
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            time.sleep(random.uniform(0.1, 0.4))  # noqa: S311 - lets writers pass
    raise TransientError(f"table {table} is written without a pause; end long transactions and run it again")


def _install_view(
    database: OlapDatabase, connection: Connection, view: View, definition: Definition, sources: dict[str, SourceInfo]
) -> str:
    row = connection.execute(
        f"SELECT definition_hash, strategy, schema_name FROM {_SCHEMA}.view_state WHERE name = %s".encode(),
        (view.name,),
    ).fetchone()
    if row and (row[0], row[1]) == (view.definition_hash, view.strategy) and relation.is_complete(connection, view):
        connection.execute(f"GRANT SELECT ON {_relation(view)} TO {quote_identifier(database.reader_role)}".encode())
        return "unchanged"
    what = "created" if row is None else "replaced" if row[0] != view.definition_hash else "switched"
    keyed = [table for table in view.sources if view.per in sources[table].columns]
    old_schema = str(row[2]) if row else view.schema_name
    _build_view(database, connection, view, _Following(keyed, definition.rows.get(view.per or ""), old_schema))
    return what


def _build_view(database: OlapDatabase, connection: Connection, view: View, follow: _Following) -> None:
    request = Request(view, "install")
    attempt = open_attempt(connection, request)
    deadline = time.monotonic() + _BUILD_WAIT_SECONDS
    try:
        while not _try_build(database, connection, view, follow, attempt):
            if time.monotonic() > deadline:
                raise TransientError(f"view {view.name} is being refreshed all the time; run the install again")
            time.sleep(0.2)
    except (psycopg.Error, MozartError) as error:
        close_failed(database, attempt, request, error)
        if isinstance(error, psycopg.Error):
            raise translate(error, f"building view {view.name}") from error
        raise


def _try_build(database: OlapDatabase, connection: Connection, view: View, follow: _Following, attempt: int) -> bool:
    """Build and exchange in one transaction; False when another holds the view.

    READ COMMITTED, because COPY FREEZE refuses under an older snapshot. The stored cursor is older than what is read
    after it, which is harmless: a change that is applied twice replaces a case's contribution by the same one.
    """
    with view_transaction(connection, view, database.source_schema, repeatable_read=False):
        if not try_lock(connection, view.name):
            return False
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
        snapshot = str(row[0]) if row else ""
        signature, _ = source_signature(connection, database.source_schema, view.sources)
        started = time.perf_counter()
        relation.build(connection, view, reader_role=database.reader_role)
        spent = (time.perf_counter() - started) * 1000
        relation.exchange(connection, view)
        if follow.old_schema != view.schema_name:
            relation.drop(connection, follow.old_schema, view.name)
        values = {
            "name": view.name,
            "schema": view.schema_name,
            "strategy": view.strategy,
            "hash": view.definition_hash,
            "sources": list(view.sources),
            "keyed": follow.keyed,
            "key_type": follow.key_type,
            "rows": count_rows(connection, view),
            "ms": spent,
            "snapshot": snapshot,
            "identity": server_identity(connection),
            "signature": signature,
            "attempt": attempt,
        }
        connection.execute(_SAVE, values)
        return True


def _remove_others(connection: Connection, registry: ViewRegistry) -> tuple[str, ...]:
    """Drop views that left the project, the ones made last first; what somebody depends on is refused by name."""
    keep = [view.name for view in registry.views]
    found = connection.execute(
        f"SELECT name, schema_name FROM {_SCHEMA}.view_state WHERE name <> ALL(%s) ORDER BY installed_at DESC".encode(),
        (keep,),
    ).fetchall()
    for name, schema in found:
        with transaction(connection, settings={"lock_timeout": "5s"}):
            try:
                relation.drop(connection, str(schema), str(name))
            except pg.DependentObjectsStillExist as error:
                detail = " ".join((error.diag.message_detail or "").split())
                raise ConfigurationError(f"view {name} left views/ but is still needed: {detail}") from error
            relation.drop_contributions(connection, str(name))
            connection.execute(f"DELETE FROM {_SCHEMA}.view_state WHERE name = %s".encode(), (name,))
            connection.execute(f"DELETE FROM {_SCHEMA}.dirty_mark WHERE view = %s".encode(), (name,))
    return tuple(str(name) for name, _ in found)


def _relation(view: View) -> str:
    return quote_qualified(view.schema_name, view.name)


# Two installs at once would race for the same names.
_INSTALL_LOCK = b"SELECT pg_advisory_xact_lock(hashtextextended('mozart:install', 0))"

_GIVE_NUMBER = f"""
INSERT INTO {_SCHEMA}.tracked_source (name, key_column, bulk_rows) VALUES (%s, %s, %s)
ON CONFLICT DO NOTHING RETURNING id
""".encode()

_RETIRE_FIRST_LOG = f"""
DROP TABLE {_SCHEMA}.change_log;
UPDATE {_SCHEMA}.view_state SET recompute_reason = 'changes are logged in another form now'
""".encode()

_SAVE = f"""
WITH saved AS (
    INSERT INTO {_SCHEMA}.view_state AS s (name, schema_name, strategy, definition_hash, sources, keyed_sources,
        key_type, generation, row_count, last_refreshed_at, last_duration_ms, snapshot, server_identity,
        source_signature, recompute_ms)
    VALUES (%(name)s, %(schema)s, %(strategy)s, %(hash)s, %(sources)s, %(keyed)s, %(key_type)s, 1, %(rows)s,
        clock_timestamp(), %(ms)s, %(snapshot)s::pg_snapshot, %(identity)s, %(signature)s, %(ms)s)
    ON CONFLICT (name) DO UPDATE SET schema_name = excluded.schema_name, strategy = excluded.strategy,
        definition_hash = excluded.definition_hash, sources = excluded.sources,
        keyed_sources = excluded.keyed_sources, key_type = excluded.key_type, generation = s.generation + 1,
        row_count = excluded.row_count, last_refreshed_at = excluded.last_refreshed_at,
        last_duration_ms = excluded.last_duration_ms, snapshot = excluded.snapshot,
        server_identity = excluded.server_identity, source_signature = excluded.source_signature,
        recompute_reason = NULL, recompute_ms = excluded.recompute_ms, installed_at = clock_timestamp()
    RETURNING generation)
UPDATE {_SCHEMA}.refresh_history SET status = 'completed', rows = %(rows)s, finished_at = clock_timestamp(),
    generation = (SELECT generation FROM saved)
WHERE id = %(attempt)s
""".encode()
