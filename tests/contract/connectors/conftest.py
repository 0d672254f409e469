"""Every registered connector that has a real server here, filled by a test and loaded into the real lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mozart.connectors.base import SourceConnection
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.load import LoadResult, load_table
from mozart.lake.load_plan import LoadRequest
from mozart.lake.session import open_lake
from mozart.services.postgres import Database
from mozart.tenancy.model import TableSpec
from tests.contract.connectors.mariadb import MariaDB, run_mariadb
from tests.contract.connectors.sources import (
    DuckdbSource,
    MariadbSource,
    PostgresqlSource,
    Source,
    SqliteSource,
)


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

    def snapshots(self, table: str) -> int:
        """How many commits the table has."""
        return len(self.lakehouse.catalog().load_table((self.namespace, table)).metadata.snapshots)


@pytest.fixture(scope="session")
def extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extensions")


@pytest.fixture(scope="session")
def mariadb(state_folder: Path) -> Iterator[MariaDB]:
    with run_mariadb(state_folder) as server:
        yield server


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    """An empty database of each kind in turn."""
    if request.param == "mariadb":
        server: MariaDB = request.getfixturevalue("mariadb")
        with server.database() as login:
            opened = MariadbSource(server.admin(login[0]), server.port, login)
            yield opened
            opened.close()
        return
    if request.param == "postgresql":
        database: Callable[..., Database] = request.getfixturevalue("database")
        made: Source = PostgresqlSource(database(superuser=True))
    else:
        made = {"sqlite": SqliteSource, "duckdb": DuckdbSource}[request.param](tmp_path / "source.db")
    yield made
    made.close()


@pytest.fixture
def bench(source: Source, lakehouse: Lakehouse, namespace: str, tmp_path: Path, extensions: Path) -> Bench:
    return Bench(source, lakehouse, namespace, tmp_path, extensions)
