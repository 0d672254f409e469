"""Every registered connector that has a real server here, filled by a test and loaded into the real lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mozart.lake.lakehouse import Lakehouse
from mozart.services.postgres import Database
from tests.contract.connectors.bench import Bench
from tests.contract.connectors.mariadb import MariaDB, mariadb
from tests.contract.connectors.sources import (
    DuckdbSource,
    MariadbSource,
    PostgresqlSource,
    Source,
    SqliteSource,
)

__all__ = ("mariadb",)


@pytest.fixture(scope="session")
def extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extensions")


@pytest.fixture(params=["postgresql", "mariadb", "sqlite", "duckdb"])
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
def bench(
    source: Source,
    lakehouse: Lakehouse,
    namespace: str,
    tmp_path: Path,
    extensions: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    # The suite leaves no transaction open, so that a load may trust the one just before it.
    monkeypatch.setattr("mozart.lake.load_plan._MARGIN", timedelta())
    return Bench(source, lakehouse, namespace, tmp_path, extensions)
