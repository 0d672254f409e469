"""An OLAP database of each test's own: Axiom Core with 400 cases and the project's views, owned by no superuser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from olap_case import SCALE, Olap, olap_database

from mozart.olap.database import READER_ROLE
from mozart.olap.install import install
from mozart.olap.registry import ViewRegistry, read_views
from mozart.services.postgres import Postgres
from samples import axiom_core
from tests.conftest import DatabaseFactory
from tests.projects import PROJECT


@pytest.fixture(scope="session")
def project_views() -> ViewRegistry:
    return read_views(Path(PROJECT))


@pytest.fixture(scope="session")
def reader_role(postgres: Postgres) -> str:
    """The role exists once in the server; owners of databases may not create roles."""
    with postgres.superuser().connect(autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (READER_ROLE,)).fetchone():
            connection.execute(f"CREATE ROLE {READER_ROLE} NOLOGIN".encode())
    return READER_ROLE


@pytest.fixture
def sample(database: DatabaseFactory, postgres: Postgres, project_views: ViewRegistry, reader_role: str) -> Olap:
    """Axiom Core and the registry; nothing is installed yet."""
    made = database()
    with made.connect() as connection:
        axiom_core.create(connection, scale=SCALE)
    return Olap(olap_database(made), project_views, postgres)


@pytest.fixture
def olap(sample: Olap) -> Olap:
    """The same with everything installed; recomputing counts as dear, so that no noise makes it the cheaper way."""
    install(sample.database, sample.registry)
    sample.execute("UPDATE mozart.view_state SET recompute_ms = 1e9")
    return sample


@pytest.fixture
def server_log(olap: Olap) -> Callable[[], Iterator[str]]:
    """`server_log()`: what the server logged since the test began, every statement of this database with its end."""
    with olap.superuser() as connection:
        name = olap.database.database
        connection.execute(f"ALTER DATABASE {name} SET log_min_duration_statement = 0".encode())
    start = olap.server.log.stat().st_size

    def lines() -> Iterator[str]:
        with olap.server.log.open("rb") as file:
            file.seek(start)
            yield from file.read().decode(errors="replace").splitlines()

    return lines
