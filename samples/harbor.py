"""Harbor, the sample of a source that is not the tenant's alone: a ship-finance database of one vendor's customers.

`create` builds it, `apply_changes` lets business go on, `grant_reader` lets a loader read it: all customers' rows, as
such logins can. What the tenant `harbor` reads is its `tenant_filter`'s doing. Does not create databases or roles.

Pitfalls: the connection must be idle, for the functions end the transactions they start. `create` sets the database's
time zone, so it needs the owner or a superuser, and sessions that are open keep their own. The seed and scale stand in
a comment on `desk.matters`; a database made with other values is refused, never mixed.
"""

from __future__ import annotations

import psycopg
from psycopg.pq import TransactionStatus

from mozart.errors import ConfigurationError, TerminalError
from mozart.sql import quote_identifier, quote_literal, quote_qualified
from samples.axiom_rows import helper_functions
from samples.harbor_changes import ChangePlan, run_changes
from samples.harbor_rows import CUSTOMER, CUSTOMERS, Sizes, fill_statements
from samples.harbor_schema import BUILD_KEYS, CREATE_TABLES, IDENTITY_COLUMNS, SCHEMA, TABLES, ZONE

__all__ = ["CUSTOMER", "CUSTOMERS", "SCHEMA", "TABLES", "apply_changes", "create", "exists", "grant_reader"]

_MARK = "Harbor sample"


def create(connection: psycopg.Connection, *, scale: float = 1.0, seed: int = 11) -> dict[str, int]:
    """Build the sample in one transaction and return the rows of each table, of all customers.

    Scale 1 has 12k matters and 60k postings of the tenant's customer and as many of the three others together. The same
    seed and scale give the same rows. When the sample is already there with them, only counts. Raises
    ConfigurationError when it is there with others, or when a foreign table `desk.matters` is in the way.
    """
    _require_idle(connection)
    with connection.transaction():
        found = _mark(connection)
        if found is None:
            _build(connection, scale=scale, seed=seed)
        elif found != _mark_of(scale, seed):
            raise ConfigurationError(
                f"database {connection.info.dbname} holds a table {SCHEMA}.matters marked {found!r}, not"
                f" {_mark_of(scale, seed)!r}; use another database or drop the schema {SCHEMA}"
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
    """Run that many small business transactions of each sort; see `harbor_changes` for what they do and for whom.

    Returns row counts by `table.inserted`, `table.updated`, `table.deleted`.
    """
    _require_idle(connection)
    return run_changes(connection, ChangePlan(seed=seed, inserts=inserts, updates=updates, deletes=deletes))


def grant_reader(connection: psycopg.Connection, role: str) -> None:
    """Let an existing role read every table, all customers' rows, and see running transactions (pg_read_all_stats)."""
    _require_idle(connection)
    reader, schema = quote_identifier(role), quote_identifier(SCHEMA)
    tables = ", ".join(quote_qualified(SCHEMA, table) for table in TABLES)
    with connection.transaction():
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {reader}".encode())
        connection.execute(f"GRANT SELECT ON {tables} TO {reader}".encode())
        connection.execute(f"GRANT pg_read_all_stats TO {reader}".encode())


def _build(connection: psycopg.Connection, *, scale: float, seed: int) -> None:
    connection.execute("SET LOCAL maintenance_work_mem = '128MB'")
    connection.execute(CREATE_TABLES)
    connection.execute(helper_functions(seed).encode())
    for statement in fill_statements(Sizes.of_scale(scale)):
        connection.execute(statement.encode())
    connection.execute(BUILD_KEYS)
    for table, column in IDENTITY_COLUMNS.items():
        name = f"{SCHEMA}.{table}"
        connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), max({column})) FROM {name}".encode()
        )
    database = quote_identifier(connection.info.dbname)
    connection.execute(f"ALTER DATABASE {database} SET timezone = {quote_literal(ZONE)}".encode())
    connection.execute(f"COMMENT ON TABLE {SCHEMA}.matters IS {quote_literal(_mark_of(scale, seed))}".encode())
    connection.execute(f"ANALYZE {', '.join(f'{SCHEMA}.{table}' for table in TABLES)}".encode())


def _mark_of(scale: float, seed: int) -> str:
    return f"{_MARK}: scale={float(scale)} seed={int(seed)}"


def _mark(connection: psycopg.Connection) -> str | None:
    """The comment on `desk.matters`; None when there is no such table."""
    row = connection.execute(
        "SELECT coalesce(obj_description(c.oid, 'pg_class'), 'foreign') FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'matters' AND n.nspname = %s",
        (SCHEMA,),
    ).fetchone()
    return str(row[0]) if row else None


def _count(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {quote_qualified(SCHEMA, table)}".encode()).fetchone()
    return int(row[0]) if row else 0


def _require_idle(connection: psycopg.Connection) -> None:
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise TerminalError("the Harbor sample needs an idle connection: end the open transaction first")
