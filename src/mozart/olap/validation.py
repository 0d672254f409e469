"""What must hold of the OLTP tables before a full sync touches a view.

Tables and columns are there; no table is below its minimum of rows or below its share of what the last successful sync
counted; rows that point nowhere are below their threshold. The rules stand in `views/sources.yaml`. Reads only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import psycopg

from mozart.errors import ConfigurationError, DataQualityError, Problem
from mozart.olap.database import STATE_SCHEMA, Connection, OlapDatabase, transaction, translate
from mozart.olap.model import SourceTable
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import require_installed
from mozart.sql import quote_identifier, quote_qualified

_FILE = "views/sources.yaml"
_PATIENCE = {"statement_timeout": "10min", "lock_timeout": "30s"}
"""A table that somebody rewrites is tried again by the task; a validation that hangs holds up the whole sync."""


@dataclass(frozen=True)
class ValidationReport:
    """What validation counted: rows by table, and orphans by `table.column`."""

    rows: Mapping[str, int]
    orphans: Mapping[str, int]
    duration_seconds: float


def validate_source(database: OlapDatabase, registry: ViewRegistry) -> ValidationReport:
    """Check the OLTP tables before anything is touched; DataQualityError or ConfigurationError with every finding."""
    started = time.perf_counter()
    rules = _rules(registry)
    schema = database.source_schema
    with closing(database.connect()) as connection:
        try:
            require_installed(connection)
            with transaction(connection, repeatable_read=True, settings=_PATIENCE):
                missing = list(_missing(connection, schema, rules))
                if missing:
                    raise ConfigurationError(missing)
                rows = {rule.name: _count(connection, schema, rule.name) for rule in rules}
                orphans = {
                    f"{rule.name}.{column}": _count_orphans(connection, schema, rule.name, (column, table, key))
                    for rule in rules
                    for column, table, key in rule.references
                }
                findings = [*_row_findings(connection, rules, rows), *_orphan_findings(rules, rows, orphans)]
        except psycopg.Error as error:
            raise translate(error, "validation of the OLTP tables") from error
    if findings:
        raise DataQualityError("the OLTP tables are not fit for a full sync:\n" + "\n".join(findings))
    return ValidationReport(rows, orphans, time.perf_counter() - started)


def _rules(registry: ViewRegistry) -> list[SourceTable]:
    """The declared tables, and without rules those that a view reads and nobody declared."""
    declared = {rule.name: rule for rule in registry.sources}
    read = {table for view in registry.views for table in view.sources}
    return [*registry.sources, *(SourceTable(name=name) for name in sorted(read - set(declared)))]


def _missing(connection: Connection, schema: str, rules: list[SourceTable]) -> Iterator[Problem]:
    found = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p') GROUP BY 1",
        (schema,),
    ).fetchall()
    columns = {str(table): set(names) for table, names in found}
    needed = [(rule.name, column) for rule in rules for column in (*rule.columns, *(r[0] for r in rule.references))]
    needed += [(table, key) for rule in rules for _, table, key in rule.references]
    for rule in rules:
        if rule.name not in columns:
            yield Problem(_FILE, f"tables.{rule.name}", f"there is no such table in schema {schema}")
    for table, column in dict.fromkeys(needed):
        if table in columns and column not in columns[table]:
            yield Problem(_FILE, f"tables.{table}", f"the table has no column {column!r}")
        elif table not in columns and table not in {rule.name for rule in rules}:
            yield Problem(_FILE, "references", f"there is no table {table!r} in schema {schema}")


def _count(connection: Connection, schema: str, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {quote_qualified(schema, table)}".encode()).fetchone()
    return int(row[0]) if row else 0


def _count_orphans(connection: Connection, schema: str, table: str, reference: tuple[str, str, str]) -> int:
    column, target, key = reference
    row = connection.execute(
        f"SELECT count(*) FROM {quote_qualified(schema, table)} AS r WHERE r.{quote_identifier(column)} IS NOT NULL"
        f" AND NOT EXISTS (SELECT FROM {quote_qualified(schema, target)} AS t"
        f" WHERE t.{quote_identifier(key)} = r.{quote_identifier(column)})".encode()
    ).fetchone()
    return int(row[0]) if row else 0


def _row_findings(connection: Connection, rules: list[SourceTable], rows: Mapping[str, int]) -> Iterator[str]:
    last = connection.execute(
        f"SELECT source_rows FROM {quote_identifier(STATE_SCHEMA)}.full_sync"
        " WHERE status = 'completed' ORDER BY id DESC LIMIT 1".encode()
    ).fetchone()
    before: Mapping[str, int] = last[0] if last else {}
    for rule in rules:
        count = rows[rule.name]
        if count < rule.minimum_rows:
            yield f"{rule.name}: {count} rows, below minimum_rows {rule.minimum_rows} of {_FILE}"
        least = before.get(rule.name, 0) * rule.minimum_share_of_last
        if count < least:
            yield (
                f"{rule.name}: {count} rows after {before[rule.name]} at the last sync, below minimum_share_of_last"
                f" {rule.minimum_share_of_last} of {_FILE}; if that is right, lower it for one sync"
            )


def _orphan_findings(rules: list[SourceTable], rows: Mapping[str, int], orphans: Mapping[str, int]) -> Iterator[str]:
    for rule in rules:
        for column, table, key in rule.references:
            count = orphans[f"{rule.name}.{column}"]
            if count > rows[rule.name] * rule.maximum_orphan_share:
                yield (
                    f"{rule.name}.{column}: {count} of {rows[rule.name]} rows point to no {table}.{key}, above"
                    f" maximum_orphan_share {rule.maximum_orphan_share} of {_FILE}"
                )
