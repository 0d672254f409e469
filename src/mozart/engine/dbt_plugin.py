"""The dbt-duckdb plugin: opens the candidates' database and shows dbt the lake, for reading only.

The session (credentials, paths, which tables) is held by this module, set in the same process by
`mozart.engine.dbt_child`: nothing of it stands in a profile, an environment variable, an argument or a file.

dbt does not get the Iceberg catalog. `lake` is an in-memory database in which every table that this run reads is a
view over `iceberg_scan(metadata file, snapshot)`. So all models of a run read the one snapshot per table that was
current when the run was planned, whatever commits meanwhile; nothing dbt does can reach the catalog; and dbt's
listing of relations, which scans `information_schema` over every attached database, does not visit every tenant's
tables. Files of the machine are closed to models. Pitfall: a table that was not announced does not exist for dbt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.plugins import BasePlugin
from duckdb import DuckDBPyConnection

from mozart.engine.duckdb import (
    CONFIG,
    LAKE,
    LAKE_EXTENSIONS,
    Limits,
    apply_limits,
    close_local_files,
    create_store_secret,
    load_extensions,
)
from mozart.errors import TerminalError
from mozart.lake.lakehouse import Lakehouse
from mozart.sql import quote_identifier, quote_literal, quote_qualified


@dataclass(frozen=True)
class LakeTable:
    """A table dbt may read, at one state. `snapshot_id` None: it exists and has no rows yet."""

    schema: str
    table: str
    metadata_location: str
    snapshot_id: int | None


@dataclass(frozen=True)
class EmptyTable:
    """A table without rows in the place of one of the lake's. `columns`: names with types as DuckDB spells them."""

    schema: str
    table: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DeltaPlace:
    """An incremental model, by its schema and table, and the schema in which its delta is made."""

    schema: str
    table: str
    delta_schema: str


@dataclass(frozen=True)
class Session:
    """What one dbt run may reach: the store, the tables it reads, and the file its candidates go into.

    `lakehouse` None: there is no lake and every table is an `EmptyTable` (`mozart validate`). `deltas` are the models
    of which only the changed rows are computed.
    """

    lakehouse: Lakehouse | None
    candidates: Path
    tables: tuple[LakeTable | EmptyTable, ...]
    limits: Limits
    deltas: tuple[DeltaPlace, ...] = ()


_sessions: list[Session] = []


def open_session(session: Session) -> None:
    """Hand the session to the plugin of this process; there is one per process."""
    _sessions[:] = [session]


class Plugin(BasePlugin):
    """Called by dbt-duckdb around every connection; the names and arguments are its own."""

    def update_connection_config(self, creds: DuckDBCredentials, config: dict[str, Any]) -> None:
        # The profile keeps a constant path: a changing one would make dbt parse everything anew in every run.
        creds.path = str(_session().candidates)
        config.update(CONFIG)

    def configure_connection(self, conn: DuckDBPyConnection) -> None:
        session = _session()
        apply_limits(conn, session.limits)
        conn.execute("SET TimeZone = 'UTC'")
        if session.lakehouse:
            load_extensions(conn, LAKE_EXTENSIONS)
            create_store_secret(conn, session.lakehouse)
        conn.execute(f"ATTACH ':memory:' AS {quote_identifier(LAKE)}")
        for table in session.tables:
            if isinstance(table, EmptyTable):
                create_empty_view(conn, table)
            else:
                create_lake_view(conn, table)
        for delta in session.deltas:
            prepare_delta(conn, delta)
        close_local_files(conn)

    def configure_cursor(self, cursor: DuckDBPyConnection) -> None:
        # A cursor does not inherit the session settings of its connection.
        cursor.execute("SET TimeZone = 'UTC'")


def create_lake_view(connection: DuckDBPyConnection, table: LakeTable) -> None:
    """`lake.{schema}.{table}` as a view on one snapshot of an Iceberg table."""
    pinned = f", snapshot_from_id => {int(table.snapshot_id)}" if table.snapshot_id is not None else ""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote_qualified(LAKE, table.schema)}")
    connection.execute(
        f"CREATE VIEW {quote_qualified(LAKE, table.schema, table.table)} AS "
        f"FROM iceberg_scan({quote_literal(table.metadata_location)}{pinned})"
    )


def prepare_delta(connection: DuckDBPyConnection, delta: DeltaPlace) -> None:
    """Show the published rows under the model's name, and make room for its delta.

    Before dbt compiles anything: a model may ask `this` for its newest row while it is rendered.
    """
    for schema in (delta.schema, delta.delta_schema):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(schema)}")
    connection.execute(
        f"CREATE VIEW {quote_qualified(delta.schema, delta.table)} AS "
        f"FROM {quote_qualified(LAKE, delta.schema, delta.table)}"
    )


def create_empty_view(connection: DuckDBPyConnection, table: EmptyTable) -> None:
    """`lake.{schema}.{table}` with the declared columns. The types were checked by whoever declared them."""
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {quote_identifier(name)}" for name, kind in table.columns)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote_qualified(LAKE, table.schema)}")
    connection.execute(
        f"CREATE VIEW {quote_qualified(LAKE, table.schema, table.table)} AS SELECT {columns} WHERE false"
    )


def read_tables(raw: list[Mapping[str, Any]]) -> tuple[LakeTable, ...]:
    """Tables as they come over the pipe."""
    return tuple(LakeTable(**table) for table in raw)


def _session() -> Session:
    if not _sessions:
        raise TerminalError("this dbt project connects only when Mozart runs it: use the tenant's deployment")
    return _sessions[0]
