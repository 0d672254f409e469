"""Axiom Core, the sample OLTP database: cases, their stakeholders, assets, performance and cash flows.

`create` builds it, `apply_changes` lets business go on, `grant_reader` lets a loader read it. Does not create
databases or roles and makes no OLAP views. Everything lands in the first schema of the connection's search_path.

Pitfalls: the connection must be idle, for the functions end the transactions they start. The seed and scale of a
database stand in a comment on `cases`; a database made with other values is refused, never mixed.
"""

from __future__ import annotations

import argparse
import os

import psycopg
from psycopg.pq import TransactionStatus

from mozart.errors import ConfigurationError, TerminalError
from mozart.sql import quote_identifier, quote_literal
from samples.axiom_changes import ChangePlan, run_changes
from samples.axiom_rows import Sizes, fill_statements, helper_functions
from samples.axiom_schema import (
    BUILD_KEYS,
    CREATE_TABLES,
    CREATE_TRIGGER_FUNCTION,
    IDENTITY_COLUMNS,
    MUTABLE_TABLES,
    TABLES,
)

_MARK = "Axiom Core sample"


def create(connection: psycopg.Connection, *, scale: float = 1.0, seed: int = 7) -> dict[str, int]:
    """Build the sample in one transaction and return the rows of each table.

    Scale 1 is 40k cases and 200k cash flows, 25 is 1M and 5M. The same seed and scale give the same rows, byte for
    byte. When the sample is already there with them, only counts. Raises ConfigurationError when it is there with
    others, or when a foreign table named `cases` is in the way.
    """
    _require_idle(connection)
    with connection.transaction():
        found = _mark(connection)
        if found is None:
            _build(connection, scale=scale, seed=seed)
        elif found != _mark_of(scale, seed):
            raise ConfigurationError(
                f"database {connection.info.dbname} holds a table cases marked {found!r}, not"
                f" {_mark_of(scale, seed)!r}; use another database or drop the old tables"
            )
        return {table: _count(connection, table) for table in TABLES}


def exists(connection: psycopg.Connection) -> bool:
    """Whether the sample was created here, with any seed and scale."""
    _require_idle(connection)
    with connection.transaction():
        return (_mark(connection) or "").startswith(_MARK)


def apply_changes(
    connection: psycopg.Connection, *, seed: int, inserts: int, updates: int, deletes: int = 0
) -> dict[str, int]:
    """Run that many small business transactions of each sort; see `axiom_changes` for what they do.

    Each inserts, updates or deletes what belongs together and writes its events into event_outbox. An update touches
    exactly one row (and its event). Returns row counts by `table.inserted`, `table.updated`, `table.deleted`.
    """
    _require_idle(connection)
    return run_changes(connection, ChangePlan(seed=seed, inserts=inserts, updates=updates, deletes=deletes))


def grant_reader(connection: psycopg.Connection, role: str) -> None:
    """Let an existing role read every table, and see running transactions (pg_read_all_stats).

    Without the second grant a loader cannot know which transactions are still open and would lose rows in silence.
    """
    _require_idle(connection)
    reader = quote_identifier(role)
    with connection.transaction():
        row = connection.execute("SELECT current_schema()").fetchone()
        schema = quote_identifier(str(row[0]) if row else "public")
        tables = ", ".join(f"{schema}.{quote_identifier(table)}" for table in TABLES)
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {reader}".encode())
        connection.execute(f"GRANT SELECT ON {tables} TO {reader}".encode())
        connection.execute(f"GRANT pg_read_all_stats TO {reader}".encode())


def _build(connection: psycopg.Connection, *, scale: float, seed: int) -> None:
    sizes = Sizes.of_scale(scale)
    connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
    connection.execute(CREATE_TABLES)
    connection.execute(helper_functions(seed).encode())
    for statement in fill_statements(sizes):
        connection.execute(statement.encode())
    connection.execute(BUILD_KEYS)
    for table, column in IDENTITY_COLUMNS.items():
        connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}".encode()
        )
    connection.execute(CREATE_TRIGGER_FUNCTION)
    for table in MUTABLE_TABLES:
        connection.execute(
            f"CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION touch_updated_at()".encode()
        )
    connection.execute(f"COMMENT ON TABLE cases IS {quote_literal(_mark_of(scale, seed))}".encode())
    connection.execute(f"ANALYZE {', '.join(TABLES)}".encode())


def _mark_of(scale: float, seed: int) -> str:
    return f"{_MARK}: scale={float(scale)} seed={int(seed)}"


def _mark(connection: psycopg.Connection) -> str | None:
    """The comment on `cases`; None when there is no such table in the first schema of the search_path."""
    row = connection.execute(
        "SELECT coalesce(obj_description(c.oid, 'pg_class'), 'foreign') FROM pg_class c"
        " WHERE c.relname = 'cases' AND c.relnamespace = current_schema()::regnamespace"
    ).fetchone()
    return str(row[0]) if row else None


def _count(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return int(row[0]) if row else 0


def _require_idle(connection: psycopg.Connection) -> None:
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise TerminalError("Axiom Core needs an idle connection: commit or roll back the open transaction first")


def main() -> None:
    """Create the sample in the database that libpq's PG* variables name; the password never stands in argv."""
    parser = argparse.ArgumentParser(
        prog="python -m samples.axiom_core",
        description=(main.__doc__ or "").strip(),
        epilog="example: PGHOST=127.0.0.1 PGPORT=5433 PGDATABASE=acme PGUSER=postgres python -m samples.axiom_core",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 40k cases and 200k cash flows (default 1)")
    parser.add_argument("--seed", type=int, default=7, help="same seed and scale, same rows (default 7)")
    options = parser.parse_args()
    with psycopg.connect(dbname=os.environ.get("PGDATABASE", "postgres"), autocommit=True) as connection:
        for table, rows in create(connection, scale=options.scale, seed=options.seed).items():
            print(f"{table:<20} {rows:>10,}")


if __name__ == "__main__":
    main()
