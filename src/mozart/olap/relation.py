"""A view's relation in the database: made, filled for the first time, and put in the place of an older one.

The first population is the only one that is not concurrent, and nobody reads it yet: a new relation is built under a
name of its own and takes the view's name in one transaction, once it is complete. Its rows are frozen, so that a
reader with an old snapshot sees the new rows and not an empty relation. The lock that the exchange needs is asked for
with a short timeout, again and again: readers never queue behind a waiting exchange for long.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence

from psycopg import errors as pg

from mozart.errors import ConfigurationError, TransientError
from mozart.olap.database import STATE_SCHEMA, Connection
from mozart.olap.maintain import fill_contributions
from mozart.olap.model import View
from mozart.olap.view_sql import (
    contribution_query,
    contribution_sum_query,
    contributions_name,
    contributions_of,
    full_query,
    relation_of,
)
from mozart.sql import quote_identifier, quote_literal, quote_qualified

LOCK_TIMEOUT = "100ms"
_LOCK_TRIES = 100
_IN_MEMORY_BYTES = 32_000_000


def build(connection: Connection, view: View, *, reader_role: str) -> None:
    """Make and fill the view's relation under a temporary name; the caller holds the view's lock in a transaction."""
    connection.execute(f"DROP TABLE IF EXISTS {contributions_of(view)}".encode())
    drop(connection, view.schema_name, _new_name(view))
    new = quote_qualified(view.schema_name, _new_name(view))
    if view.strategy == "refresh":
        connection.execute(f"CREATE MATERIALIZED VIEW {new} AS {full_query(view)}".encode())
    else:
        _make_contributions(connection, view)
        connection.execute(f"CREATE TABLE {new} WITH (fillfactor = 80) AS {full_query(view)} WITH NO DATA".encode())
        _copy_frozen(connection, f"SELECT * FROM ({contribution_sum_query(view)}) AS sums", new)
        _constrain(connection, view, new)
    keys = ", ".join(quote_identifier(key) for key in view.unique_key)
    connection.execute(f"CREATE UNIQUE INDEX {quote_identifier(_new_index(view))} ON {new} ({keys})".encode())
    kind = "MATERIALIZED VIEW" if view.strategy == "refresh" else "TABLE"
    connection.execute(f"COMMENT ON {kind} {new} IS {quote_literal(view.description)}".encode())
    connection.execute(f"GRANT SELECT ON {new} TO {quote_identifier(reader_role)}".encode())
    connection.execute(f"ANALYZE {new}".encode())


def exchange(connection: Connection, view: View) -> None:
    """Let what `build` made take the view's name, and drop what had it; TransientError when readers never let go."""
    schema = view.schema_name
    if kind_of(connection, schema, view.name) is not None:
        copy_grants(connection, relation_of(view), quote_qualified(schema, _new_name(view)))
        _drop_when_free(connection, schema, view.name)
    kind = "MATERIALIZED VIEW" if view.strategy == "refresh" else "TABLE"
    new = quote_qualified(schema, _new_name(view))
    connection.execute(f"ALTER {kind} {new} RENAME TO {quote_identifier(view.name)}".encode())
    index = quote_qualified(schema, _new_index(view))
    connection.execute(f"ALTER INDEX {index} RENAME TO {quote_identifier(view.index_name)}".encode())


def drop(connection: Connection, schema: str, name: str) -> None:
    """Drop a view's relation, whichever kind it has; nothing when there is none."""
    kind = kind_of(connection, schema, name)
    if kind is not None:
        connection.execute(f"DROP {kind} {quote_qualified(schema, name)}".encode())


def drop_contributions(connection: Connection, view_name: str) -> None:
    """Drop what the incremental strategy keeps of a view."""
    connection.execute(f"DROP TABLE IF EXISTS {quote_qualified(STATE_SCHEMA, contributions_name(view_name))}".encode())


def kind_of(connection: Connection, schema: str, name: str) -> str | None:
    """TABLE or MATERIALIZED VIEW; None when there is neither. ConfigurationError for anything else of that name."""
    row = connection.execute(
        "SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s",
        (schema, name),
    ).fetchone()
    if row is None:
        return None
    kinds = {"r": "TABLE", "m": "MATERIALIZED VIEW"}
    if row[0] not in kinds:
        raise ConfigurationError(f"{schema}.{name} exists and is no table or materialized view; rename it")
    return kinds[row[0]]


def is_complete(connection: Connection, view: View) -> bool:
    """Whether the relation of the right kind is there, populated, with its unique index and what maintains it."""
    row = connection.execute(
        "SELECT c.relkind::text, c.relispopulated, EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid ="
        " i.indexrelid WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND x.relname = %s)"
        " AND (c.relkind = 'm' OR to_regclass(%s) IS NOT NULL)"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (view.index_name, contributions_of(view), view.schema_name, view.name),
    ).fetchone()
    return row is not None and row[0] == ("m" if view.strategy == "refresh" else "r") and bool(row[1] and row[2])


def copy_grants(connection: Connection, old: str, new: str) -> None:
    """Give everybody who may select from `old` the same on `new`."""
    found = connection.execute(
        "SELECT DISTINCT grantee::regrole::text, grantee FROM pg_class, aclexplode(relacl)"
        " WHERE oid = %s::regclass AND privilege_type = 'SELECT'",
        (old,),
    ).fetchall()
    for name, oid in found:
        grantee = "PUBLIC" if int(oid) == 0 else str(name)  # regrole's text is quoted where it must be
        connection.execute(f"GRANT SELECT ON {new} TO {grantee}".encode())


def numeric_columns(connection: Connection, relation: str, names: Sequence[str]) -> list[str]:
    """Those of the columns that are numeric, which can hold NaN and infinity."""
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attname = ANY(%s)"
        " AND atttypid = 'numeric'::regtype",
        (relation, list(names)),
    ).fetchall()
    return [str(name) for (name,) in found]


def _make_contributions(connection: Connection, view: View) -> None:
    table = contributions_of(view)
    connection.execute(f"CREATE TABLE {table} AS {contribution_query(view)} WITH NO DATA".encode())
    required = ", ".join(
        f"ALTER COLUMN {quote_identifier(name)} SET NOT NULL" for name in (view.per or "", *view.unique_key)
    )
    connection.execute(f"ALTER TABLE {table} {required}".encode())
    # NaN and infinity never leave a sum by subtraction.
    for name in numeric_columns(connection, table, [measure.name for measure in view.measures]):
        column = quote_identifier(name)
        finite = f"CHECK ({column} > '-Infinity' AND {column} < 'Infinity')"
        connection.execute(f"ALTER TABLE {table} ADD {finite}".encode())
    fill_contributions(connection, view)


def _constrain(connection: Connection, view: View, new: str) -> None:
    required = [f"ALTER COLUMN {quote_identifier(key)} SET NOT NULL" for key in view.unique_key]
    rows = next(quote_identifier(measure.name) for measure in view.measures if measure.is_row_count)
    connection.execute(f"ALTER TABLE {new} {', '.join([*required, f'ADD CHECK ({rows} > 0)'])}".encode())


def _copy_frozen(connection: Connection, query: str, table: str) -> None:
    """Fill a table made in this transaction; only COPY can freeze, and it reads from the client."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
        with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT text)".encode()) as out:
            for block in out:
                spool.write(block)
        spool.seek(0)
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} FROM STDIN (FORMAT text, FREEZE)".encode()) as to,
        ):
            while block := spool.read(1 << 18):
                to.write(block)


def _drop_when_free(connection: Connection, schema: str, name: str) -> None:
    """Drop the old relation; nobody can read the name from here to the commit, which is a moment."""
    connection.execute(f"SET LOCAL lock_timeout = {quote_literal(LOCK_TIMEOUT)}".encode())
    for _ in range(_LOCK_TRIES):
        try:
            with connection.transaction():
                drop(connection, schema, name)
            return
        except pg.LockNotAvailable:
            time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - lets the readers pass that queued up behind
        except pg.DependentObjectsStillExist as error:
            detail = " ".join((error.diag.message_detail or "").split())
            raise ConfigurationError(
                f"{schema}.{name} cannot be replaced: {detail}. Drop those objects, run `mozart olap install`, and"
                " create them again"
            ) from error
    raise TransientError(f"{schema}.{name} is being read without a pause; end long transactions and run it again")


def _new_name(view: View) -> str:
    return f"mozart_new_{view.name}"


def _new_index(view: View) -> str:
    return f"mozart_new_{view.name}_pk"
