"""Reading a source, alone and through the load engine, as a run of a tenant does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyiceberg.table import Table

from mozart.connectors.base import SourceConnection, TableRead
from mozart.connectors.errors import read_error
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.load import LoadResult, load_table
from mozart.lake.load_plan import LoadRequest
from mozart.lake.session import open_lake
from mozart.tenancy.model import TableSpec
from tests.contract.connectors.sources import Source


def read_table(
    connection: SourceConnection, extensions: Path, table: str, schema: str | None = None
) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """The table's Iceberg types by column, and its rows as DuckDB receives them, ordered by the first column."""
    connector = create_connector(connection, application="mozart/test")
    with connector.open() as reader, connect(extensions=connector.extensions, extension_folder=extensions) as duck:
        reader.attach(duck)
        described = reader.describe(schema, table)
        cursor = duck.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        reader.begin(cursor)
        try:
            relation = reader.relation(cursor, TableRead(described, described.columns))
            rows = cursor.execute(f"SELECT * FROM {relation} ORDER BY 1").fetchall()
        except Exception as error:
            raise read_error(table, error) from error
        return {column.name: str(column.iceberg_type) for column in described.columns}, rows


@dataclass
class Bench:
    """One source and one namespace of the lake."""

    source: Source
    lakehouse: Lakehouse
    namespace: str
    folder: Path
    extensions: Path
    runs: int = 0

    def load(self, spec: TableSpec, *, connection: SourceConnection | None = None, **options: Any) -> LoadResult:
        """Load one table in a run of its own."""
        self.runs += 1
        connector = create_connector(connection or self.source.connection, application="mozart/test")
        request = LoadRequest("test", self.namespace, spec, f"run{self.runs}", **options)
        with (
            open_lake(
                self.lakehouse,
                scratch=self.folder / f"scratch{self.runs}",
                extensions=connector.extensions,
                extension_folder=self.extensions,
            ) as lake,
            connector.open() as reader,
        ):
            reader.attach(lake.connection)
            return load_table(request, reader, lake)

    def raw(self, table: str, columns: str = "*", order: str = "ALL") -> list[tuple[Any, ...]]:
        """The rows of a raw table as DuckDB reads them."""
        with connect(lakehouse=self.lakehouse) as lake:
            return lake.execute(f'SELECT {columns} FROM lake."{self.namespace}"."{table}" ORDER BY {order}').fetchall()

    def unordered(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """The rows as they lie in the files."""
        with connect(lakehouse=self.lakehouse) as lake:
            lake.execute("SET threads = 1")
            lake.execute("SET preserve_insertion_order = true")
            return lake.execute(f'SELECT {columns} FROM lake."{self.namespace}"."{table}"').fetchall()

    def table(self, name: str) -> Table:
        """The table as the catalog has it."""
        return self.lakehouse.catalog().load_table((self.namespace, name))

    def snapshots(self, table: str) -> int:
        """How many commits the table has."""
        return len(self.table(table).metadata.snapshots)
