"""A source database, a lake and the loader between them, as one run of a tenant uses them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mozart.connectors.base import SourceConnection, SourceReader
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.lake.compaction import DEFAULT_POLICY, CompactionPolicy
from mozart.lake.extract import OnRows
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.load import LoadResult, load_table
from mozart.lake.load_plan import LoadRequest
from mozart.lake.object_store import ObjectStore
from mozart.lake.session import LakeSession, open_lake
from mozart.tenancy.model import TableSpec


@dataclass
class Bench:
    """One source database and one namespace of the lake."""

    source: psycopg.Connection[Any]
    connection: SourceConnection
    lakehouse: Lakehouse
    namespace: str
    folder: Path
    runs: int = 0

    def load(
        self,
        spec: TableSpec,
        *,
        compaction: CompactionPolicy | None = DEFAULT_POLICY,
        on_rows: OnRows | None = None,
        **options: Any,
    ) -> LoadResult:
        """Load one table in a run of its own. `options` are the request's."""
        with self.run() as (reader, lake):
            request = LoadRequest("test", self.namespace, spec, f"run{self.runs}", **options)
            return load_table(request, reader, lake, compaction=compaction, on_rows=on_rows)

    @contextmanager
    def run(self) -> Generator[tuple[SourceReader, LakeSession]]:
        """A run of its own: the source in its snapshot, and the lake."""
        self.runs += 1
        connector = create_connector(self.connection, application="mozart/test")
        with (
            open_lake(
                self.lakehouse,
                scratch=self.folder / f"scratch{self.runs}",
                extensions=connector.extensions,
                extension_folder=self.folder / "extensions",
            ) as lake,
            connector.open() as reader,
        ):
            reader.attach(lake.connection)
            yield reader, lake

    def load_together(self, specs: Sequence[TableSpec]) -> list[LoadResult]:
        """Load several tables at the same time in one run."""
        with self.run() as (reader, lake), ThreadPoolExecutor(len(specs)) as threads:
            requests = [LoadRequest("test", self.namespace, spec, f"run{self.runs}") for spec in specs]
            return list(threads.map(lambda request: load_table(request, reader, lake), requests))

    def raw(self, table: str, columns: str = "*", order: str = "1") -> list[tuple[Any, ...]]:
        """The rows of a raw table as DuckDB reads them."""
        with connect(lakehouse=self.lakehouse) as lake:
            return lake.execute(f'SELECT {columns} FROM lake."{self.namespace}"."{table}" ORDER BY {order}').fetchall()

    def snapshots(self, table: str) -> int:
        """How many commits the table has."""
        return len(self.lakehouse.catalog().load_table((self.namespace, table)).metadata.snapshots)

    def metadata(self, table: str) -> str:
        """Where the table's metadata file is: another one after every commit."""
        return self.lakehouse.catalog().load_table((self.namespace, table)).metadata_location

    def landed(self, table: str) -> set[str]:
        """Every file below the table's landing folder."""
        return {file.path for file in ObjectStore(self.lakehouse).list_files(f"{self.lakehouse.landing_uri}/{table}")}

    def record(self, table: str) -> dict[str, str]:
        """The summary of the table's newest snapshot."""
        snapshot = self.lakehouse.catalog().load_table((self.namespace, table)).current_snapshot()
        assert snapshot is not None and snapshot.summary is not None
        return dict(snapshot.summary.additional_properties)


@pytest.fixture
def bench(database: Callable[..., Any], lakehouse: Lakehouse, namespace: str, tmp_path: Path) -> Any:
    place = database(superuser=True)
    connection = SourceConnection(
        type="postgresql",
        host=place.host,
        port=place.port,
        database=place.name,
        username=place.user,
        password=place.password,
    )
    source = place.connect(autocommit=True)
    yield Bench(source, connection, lakehouse, namespace, tmp_path)
    source.close()
