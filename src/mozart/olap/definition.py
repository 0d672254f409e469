"""What PostgreSQL itself thinks of a view's SQL: columns, tables and columns read, functions called.

The SQL is made a view inside a savepoint that is rolled back, and the catalog is asked: dependencies by column, and the
parse tree for functions, since built-in functions leave no dependency. So nothing here guesses by text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from mozart.errors import Problem
from mozart.olap.database import STATE_SCHEMA, Connection
from mozart.olap.model import View
from mozart.olap.tracking import Column
from mozart.olap.view_sql import full_query
from mozart.sql import quote_qualified

_EXACT = frozenset(("smallint", "integer", "bigint", "numeric"))
# Types whose text is the same in every session, for the log keeps keys as text.
_KEYS = frozenset((*_EXACT, "uuid", "text", "character varying", "character"))
# Stable functions whose answer depends on the moment or the session; every volatile one is refused anyway.
_UNSTABLE = ("now", "transaction_timestamp", "statement_timestamp", "current_setting", "current_schema", "current_user")


@dataclass(frozen=True)
class SourceInfo:
    """An OLTP table: columns, an estimate of rows, first columns of indexes; `odd` says why it cannot be followed."""

    columns: Mapping[str, Column]
    rows: float
    indexed: frozenset[str]
    odd: str | None


@dataclass(frozen=True)
class Definition:
    """`rows` are the columns of view.sql with their types, `output` those of the view; `read` is by table.

    A table's read columns are None when a whole row is used and so every column counts.
    """

    rows: Mapping[str, str]
    output: Mapping[str, str]
    read: Mapping[tuple[str, str], frozenset[str] | None]
    unstable: tuple[str, ...]


def read_sources_info(connection: Connection, schema: str, tables: Sequence[str]) -> dict[str, SourceInfo]:
    """Those of the tables that exist in the schema."""
    found = connection.execute(_SOURCES, {"schema": schema, "tables": list(tables)}).fetchall()
    return {
        str(name): SourceInfo(
            columns={str(column): Column(str(column), str(kind)) for column, kind in columns},
            rows=float(rows),
            indexed=frozenset(indexed or ()),
            odd=_oddity(str(relkind), bool(inherits)),
        )
        for name, relkind, inherits, rows, columns, indexed in found
    }


def inspect_definition(connection: Connection, view: View) -> Definition | Problem:
    """Ask PostgreSQL about the view's SQL in the present search_path; a Problem when it refuses the SQL."""
    probe = quote_qualified(STATE_SCHEMA, f"probe_{view.name}")
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"CREATE VIEW {probe} AS {view.sql}".encode())
            rows = _columns(connection, probe)
            read, unstable = _read(connection, probe), _unstable(connection, probe)
            output = rows
            if view.measures:
                connection.execute(f"DROP VIEW {probe}; CREATE VIEW {probe} AS {full_query(view)}".encode())
                output = _columns(connection, probe)
            return Definition(rows, output, read, unstable)
    except psycopg.errors.InsufficientPrivilege:
        raise
    except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        text = " ".join(str(error.diag.message_primary or error).split())
        hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
        return Problem(f"views/{view.name}/view.sql", "", f"PostgreSQL refuses it: {text}{hint}")


def definition_problems(
    view: View, definition: Definition, sources: Mapping[str, SourceInfo], schema: str
) -> Iterator[Problem]:
    """Everything that keeps the view from being installed; with strategy incremental, from being maintained."""
    file = f"views/{view.name}/view.yaml"
    for key in view.unique_key:
        if key not in definition.output:
            yield Problem(file, "unique_key", f"the view has no column {key!r}; it has {', '.join(definition.output)}")
    for name in definition.unstable:
        message = f"{name} gives another result on the same data; take it out"
        yield Problem(f"views/{view.name}/view.sql", "", message)
    yield from _source_problems(view, definition, sources, schema)
    if view.per is not None:
        yield from _key_problems(view, definition, sources)
    if view.strategy == "incremental":
        yield from _exactness_problems(view, definition)


def _source_problems(
    view: View, definition: Definition, sources: Mapping[str, SourceInfo], schema: str
) -> Iterator[Problem]:
    file = f"views/{view.name}/view.yaml"
    read = {table for place, table in definition.read if place == schema}
    for table in view.sources:
        info = sources.get(table)
        if info is None:
            yield Problem(file, "sources", f"there is no table {table!r} in schema {schema!r}")
        elif info.odd:
            yield Problem(file, "sources", f"{table} {info.odd}; its changes cannot be followed")
        elif table not in read:
            yield Problem(file, "sources", f"view.sql does not read {table}; take it out")
    for table in sorted(read - set(view.sources)):
        yield Problem(file, "sources", f"view.sql reads {table}; add it, or its changes would not be seen")
    for place, table in definition.read:
        if place == schema or place in ("pg_catalog", "information_schema"):
            continue
        if table not in view.depends_on:
            yield Problem(file, "depends_on", f"view.sql reads {place}.{table}; only views named here may be read")
        elif view.strategy == "incremental":
            yield Problem(file, "strategy", f"a view that reads the view {table} cannot be incremental; join it later")


def _key_problems(view: View, definition: Definition, sources: Mapping[str, SourceInfo]) -> Iterator[Problem]:
    file, per = f"views/{view.name}/view.yaml", view.per or ""
    if per not in definition.rows:
        yield Problem(file, "per", f"view.sql has no column {per!r}; it has {', '.join(definition.rows)}")
        return
    kind = definition.rows[per].partition("(")[0]
    if kind not in _KEYS:
        yield Problem(file, "per", f"{per} is {kind}; changes are followed by {', '.join(sorted(_KEYS))}")
    keyed = [table for table in view.sources if table in sources and per in sources[table].columns]
    if not keyed:
        yield Problem(file, "per", f"no table of sources has a column {per!r}, so no change could be followed by it")
    if view.strategy != "incremental":
        return
    for table in keyed:
        if per not in sources[table].indexed:
            cure = f"CREATE INDEX CONCURRENTLY ON {table} ({per})"
            yield Problem(file, "per", f"{table} has no index that begins with {per}; run {cure}")


def _exactness_problems(view: View, definition: Definition) -> Iterator[Problem]:
    file = f"views/{view.name}/view.yaml"
    for measure in view.measures:
        kind = definition.rows.get(measure.argument, "bigint")
        if measure.function == "sum" and kind.partition("(")[0] not in _EXACT:
            message = (
                f"{measure} adds up {kind}, whose sums are not exact; cast it to numeric, or use strategy: refresh"
            )
            yield Problem(file, f"measures.{measure.name}", message)


def _columns(connection: Connection, relation: str) -> dict[str, str]:
    found = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (relation,),
    ).fetchall()
    return {str(name): str(kind) for name, kind in found}


def _read(connection: Connection, relation: str) -> dict[tuple[str, str], frozenset[str] | None]:
    found = connection.execute(_READ, (relation,)).fetchall()
    return {
        (str(schema), str(table)): None if whole else frozenset(columns or ())
        for schema, table, columns, whole in found
    }


def _unstable(connection: Connection, relation: str) -> tuple[str, ...]:
    found = connection.execute(_FUNCTIONS, {"relation": relation, "names": list(_UNSTABLE)}).fetchall()
    return tuple(str(name) for (name,) in found)


def _oddity(relkind: str, inherits: bool) -> str | None:
    if relkind == "p" or inherits:
        return "is partitioned or inherited from"
    return None if relkind == "r" else "is no ordinary table"


_SOURCES = """
SELECT c.relname, c.relkind, EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhparent, i.inhrelid)),
    greatest(c.reltuples, 0),
    (SELECT json_agg(json_build_array(a.attname, CASE WHEN t.typtype = 'e' THEN 'enum'
            WHEN a.attcollation <> 0 AND NOT o.collisdeterministic THEN 'unlike'
            ELSE format_type(a.atttypid, NULL) END) ORDER BY a.attnum)
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation o ON o.oid = a.attcollation
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT array_agg(DISTINCT a.attname::text) FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = ANY(%(tables)s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

# A whole-row reference depends on the table alone; the tree shows it as column number 0.
_READ = """
SELECT n.nspname, c.relname, array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attname IS NOT NULL),
    bool_or(r.ev_action::text ~ ':varattno 0 ')
FROM pg_rewrite r
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
WHERE r.ev_class = %s::regclass AND c.oid <> r.ev_class AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
GROUP BY 1, 2
"""

_FUNCTIONS = """
WITH tree AS (SELECT ev_action::text AS text FROM pg_rewrite WHERE ev_class = %(relation)s::regclass),
called AS (SELECT DISTINCT m[1]::oid AS oid FROM tree,
    regexp_matches(tree.text, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') AS m)
SELECT p.proname || '()' FROM called JOIN pg_proc p USING (oid)
WHERE p.provolatile = 'v'
    OR p.provolatile = 's' AND (p.proname = ANY(%(names)s) OR p.proname = 'age' AND p.pronargs = 1
        OR p.pronamespace <> 'pg_catalog'::regnamespace)
UNION SELECT 'current_date, current_timestamp or current_user' FROM tree WHERE tree.text ~ 'SQLVALUEFUNCTION'
ORDER BY 1
"""
