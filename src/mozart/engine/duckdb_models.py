"""Models on DuckDB: dbt builds into a local database file, what passed is copied from it into the lake.

dbt's process gets the file, the lake's address and the state of each table it may read (`mozart.engine.dbt_plugin`).

The delta of an incremental model lies in a schema of its own in that file, and the model's name is a view: on the
published rows at first (`this`), on the merged ones when the delta is there. Pitfall: those views read a `lake` that
only dbt's process has; here the same rows are read from the catalog, at the same snapshot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog

from mozart.engine.choice import DUCKDB
from mozart.engine.dbt_graph import Node
from mozart.engine.dbt_project import CANDIDATES
from mozart.engine.duckdb import LAKE, Limits, connect, create_store_secret
from mozart.engine.model_delta import delta_message, merged_rows
from mozart.engine.model_engine import Answer, LakeTable, Work
from mozart.engine.product_check import require_product_mart
from mozart.lake.duckdb_errors import duckdb_translated
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.publish import Publication, Published, publish
from mozart.sql import quote_qualified
from mozart.tenancy.product_schema import ProductSchema

DELTAS = "__deltas"
"""The suffix of the schema of deltas, beside that of the models."""


class DuckDBModels:
    """The embedded engine (see `mozart.engine.model_engine.ModelEngine`)."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse

    @property
    def name(self) -> str:
        return DUCKDB

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self._lakehouse.secret_access_key.get_secret_value(),)

    def build_message(self, catalog: Catalog, work: Work) -> Mapping[str, Any]:
        secret = self._lakehouse.secret_access_key.get_secret_value()
        bases = [delta.base for delta in work.deltas.values()]
        tables = {table.unique_id: table for table in (*work.tables, *bases)}  # a unit-tested model is in both
        return {
            "lakehouse": {**self._lakehouse.model_dump(mode="json"), "secret_access_key": secret},
            "candidates": _file(work),
            "spill": str(work.folder / "spill"),
            "memory": work.memory,
            "tables": [_table_message(table) for table in tables.values()],
            "deltas": {
                unique_id: delta_message(
                    _delta_place(delta.base),
                    quote_qualified(LAKE, delta.base.schema, delta.base.table),
                    delta.columns,
                    delta.key,
                )
                for unique_id, delta in work.deltas.items()
            },
        }

    def is_transient(self, message: str) -> bool:
        return False  # dbt works on a file of this machine

    def retried(self, call: Callable[[], Answer]) -> Answer:
        return call()

    @contextlib.contextmanager
    def candidates(self, work: Work) -> Generator[DuckDBCandidates]:
        limits = Limits(work.memory, work.threads, work.folder / "spill")
        # The catalog is attached only for who needs it: it costs some requests.
        lake = self._lakehouse if work.deltas else None
        with duckdb_translated(f"opening the lake at {self._lakehouse.catalog_uri}"):
            opened = connect(
                database=_file(work), read_only=True, limits=limits, extensions=("httpfs",), lakehouse=lake
            )
        with contextlib.closing(opened) as connection:
            create_store_secret(connection, self._lakehouse)
            yield DuckDBCandidates(connection, self._lakehouse, work)


class DuckDBCandidates:
    """An open file of candidates."""

    def __init__(self, connection: DuckDBPyConnection, lakehouse: Lakehouse, work: Work) -> None:
        self._connection = connection
        self._lakehouse = lakehouse
        self._work = work

    def relation(self, node: Node) -> str:
        delta, rows = self._work.deltas.get(node.unique_id), self.delta(node)
        if delta is None or rows is None:
            return quote_qualified(node.database, node.schema, node.alias)
        published = f"{quote_qualified(LAKE, node.schema, node.alias)} AT (VERSION => {delta.base.snapshot_id})"
        return f"({merged_rows(published, rows, delta.columns, delta.key)})"

    def delta(self, node: Node) -> str | None:
        delta = self._work.deltas.get(node.unique_id)
        return quote_qualified(*_delta_place(delta.base)) if delta else None

    def publish(self, catalog: Catalog, publication: Publication, product: ProductSchema | None) -> Published:
        require_product_mart(self._connection, product, publication)
        return publish(self._connection, self._lakehouse, catalog, publication)


def _file(work: Work) -> str:
    return str(work.folder / f"{CANDIDATES}.duckdb")


def _delta_place(table: LakeTable) -> tuple[str, str, str]:
    """Database, schema and name of a delta; in a schema that no model can have."""
    return CANDIDATES, f"{table.schema}{DELTAS}", table.table


def _table_message(table: LakeTable) -> dict[str, Any]:
    return {
        "schema": table.schema,
        "table": table.table,
        "metadata_location": table.metadata_location,
        "snapshot_id": table.snapshot_id,
    }
