"""Models on DuckDB: dbt builds into a local database file, what passed is copied from it into the lake.

dbt's process gets the file, the lake's address and the state of each table it may read (`mozart.engine.dbt_plugin`).
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
from mozart.engine.duckdb import Limits, connect, create_store_secret
from mozart.engine.model_engine import Answer, Work
from mozart.engine.product_check import require_product_mart
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.publish import Publication, Published, publish
from mozart.sql import quote_qualified
from mozart.tenancy.product_schema import ProductSchema


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
        tables = [
            {
                "schema": table.schema,
                "table": table.table,
                "metadata_location": table.metadata_location,
                "snapshot_id": table.snapshot_id,
            }
            for table in work.tables
        ]
        return {
            "lakehouse": {**self._lakehouse.model_dump(mode="json"), "secret_access_key": secret},
            "candidates": _file(work),
            "spill": str(work.folder / "spill"),
            "memory": work.memory,
            "tables": tables,
        }

    def is_transient(self, message: str) -> bool:
        return False  # dbt works on a file of this machine

    def retried(self, call: Callable[[], Answer]) -> Answer:
        return call()

    @contextlib.contextmanager
    def candidates(self, work: Work) -> Generator[DuckDBCandidates]:
        limits = Limits(work.memory, work.threads, work.folder / "spill")
        with contextlib.closing(
            connect(database=_file(work), read_only=True, limits=limits, extensions=("httpfs",))
        ) as connection:
            create_store_secret(connection, self._lakehouse)
            yield DuckDBCandidates(connection, self._lakehouse)


class DuckDBCandidates:
    """An open file of candidates."""

    def __init__(self, connection: DuckDBPyConnection, lakehouse: Lakehouse) -> None:
        self._connection = connection
        self._lakehouse = lakehouse

    def relation(self, node: Node) -> str:
        return quote_qualified(node.database, node.schema, node.alias)

    def publish(self, catalog: Catalog, publication: Publication, product: ProductSchema | None) -> Published:
        require_product_mart(self._connection, product, publication)
        return publish(self._connection, self._lakehouse, catalog, publication)


def _file(work: Work) -> str:
    return str(work.folder / f"{CANDIDATES}.duckdb")
