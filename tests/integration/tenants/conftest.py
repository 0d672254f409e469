"""The three sample tenants, each with its real source and one lake, loaded and built as a run of the pipeline does it.

No Prefect here: what a run's tasks call is called directly. `fleet` holds one project folder for all of them; sources
have changed between a first and a second load, so that what is in raw came by full and by incremental reads.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mozart.connectors.base import SourceConnection
from mozart.engine.dbt_run import ModelRequest, ModelResult, RawInput, build_models
from mozart.engine.duckdb import connect
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.load import LoadResult
from mozart.lake.tenant_run import RunOptions, TenantPlace, TenantRun
from mozart.services.postgres import Database, Postgres
from mozart.services.seaweedfs import SeaweedFS
from mozart.tenancy.load import load_tenant
from mozart.tenancy.model import Tenant
from mozart.tenancy.names import namespaces
from mozart.tenancy.product_schema import load_product_schema
from mozart.tenancy.resolve import resolve
from samples import atlas, axiom_core, harbor

CHECKOUT = Path(__file__).parents[3]
SCALE = 0.05
PASSWORD = "reader-pw"

Rows = list[tuple[Any, ...]]


@dataclass
class SampleTenant:
    """One tenant: its definition, its place, and `ask`, which puts an SQL question to its source."""

    tenant: Tenant
    place: TenantPlace
    root: Path
    ask: Callable[[str], Rows]
    loads: list[dict[str, LoadResult]] = field(default_factory=list[dict[str, LoadResult]])
    models: list[ModelResult] = field(default_factory=list[ModelResult])

    @property
    def name(self) -> str:
        return self.tenant.id

    def load(self, tables: Sequence[str] | None = None, *, full_refresh: bool = False) -> dict[str, LoadResult]:
        """Load the tables in one run; what became of each."""
        options = RunOptions(tuple(tables) if tables else None, full_refresh)
        with TenantRun(self.tenant, self.place, options, f"run-{len(self.loads)}", self.root / ".mozart") as run:
            loaded = {request.spec.name: run.load(request, lambda _line: None) for request in run.requests}
        self.loads.append(loaded)
        return loaded

    def build(self) -> list[ModelResult]:
        """Build and publish the models on what is in raw."""
        request = ModelRequest(
            tenant=self.name,
            run_id=f"build-{len(self.loads)}",
            root=self.root,
            state=self.root / ".mozart",
            namespace=self.place.namespaces.core,
            raw_namespace=self.place.namespaces.raw,
            product=load_product_schema(self.root),
            inputs={name: RawInput(load.snapshot_id, "loaded") for name, load in self.loads[-1].items()},
            memory="512MB",
        )
        self.models = build_models(request, self.place.lakehouse, lambda _event: None)
        return self.models

    def mart(self, name: str) -> Rows:
        """The published rows of a table of staging or marts, as a reader of its own sees them."""
        return self._rows(self.place.namespaces.core, name)

    def raw(self, name: str, columns: str = "*") -> Rows:
        return self._rows(self.place.namespaces.raw, name, columns)

    def _rows(self, namespace: str, table: str, columns: str = "*") -> Rows:
        with connect(lakehouse=self.place.lakehouse) as lake:
            return lake.execute(f'SELECT {columns} FROM lake."{namespace}"."{table}"').fetchall()

    def describe_raw(self, name: str) -> list[tuple[str, str]]:
        """(name, type) of each column of a raw table, in DuckDB's spelling."""
        with connect(lakehouse=self.place.lakehouse) as lake:
            rows = lake.execute(f'DESCRIBE lake."{self.place.namespaces.raw}"."{name}"').fetchall()
        return [(row[0], row[1]) for row in rows]

    def schema(self, table: str) -> list[tuple[str, str, bool]]:
        """(name, type, required) of each column of a published table, in its order, from the catalog."""
        fields = self.place.lakehouse.catalog().load_table((self.place.namespaces.core, table)).schema().fields
        return [(column.name, str(column.field_type), column.required) for column in fields]


@dataclass(frozen=True)
class Sources:
    """Where the sample tenants' data is."""

    acme: Database
    harbor: Database
    atlas: Path


@pytest.fixture(scope="session")
def sources(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """The three samples, small."""
    databases = [f"t_{secrets.token_hex(6)}" for _ in range(2)]
    first, second = (postgres.create_database(name, owner=f"{name}_r", password=PASSWORD) for name in databases)
    file = tmp_path_factory.mktemp("atlas") / "atlas.db"
    for sample, database in ((axiom_core, first), (harbor, second)):
        with postgres.superuser(database.name).connect() as connection:
            sample.create(connection, scale=SCALE)
            sample.grant_reader(connection, database.user)
    atlas.create(file, scale=SCALE * 3)
    yield Sources(first, second, file)
    for name in databases:
        postgres.drop_database(name)


@pytest.fixture(scope="session")
def project_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the checkout's dbt folder and tenants."""
    root = tmp_path_factory.mktemp("fleet")
    for name in ("dbt", "tenants"):
        shutil.copytree(CHECKOUT / name, root / name, ignore=shutil.ignore_patterns("target", "logs"))
    (root / "pyproject.toml").touch()
    return root


def make_tenant(
    root: Path, name: str, lakehouse: Lakehouse, source: Database | Path, values: Mapping[str, str] | None = None
) -> SampleTenant:
    """A tenant of the project on this source and lake; `values` are variables of its file."""
    tenant = load_tenant(root / "tenants" / name)
    connection = _connection(tenant.source.type, source)
    given = {f"{name.upper()}_DB_PASSWORD": PASSWORD, **(values or {})}
    params = {key: str(value) for key, value in resolve(tenant, given).source.params.items()}
    spaces = namespaces("iceberg", f"{name}_{secrets.token_hex(3)}")
    own_lake = lakehouse.model_copy(update={"prefix": f"raw/{spaces.core}"})
    ask = partial(ask_file, source) if isinstance(source, Path) else partial(ask_server, source)
    return SampleTenant(tenant, TenantPlace(connection, params, own_lake, spaces), root, ask)


def _connection(kind: str, source: Database | Path) -> SourceConnection:
    if isinstance(source, Path):
        return SourceConnection(type=kind, database=str(source))
    return SourceConnection(
        type=kind,
        host=source.host,
        port=source.port,
        database=source.name,
        username=source.user,
        password=source.password,
    )


def ask_server(source: Database, question: str) -> Rows:
    """The answer of a PostgreSQL database, with moments in UTC.

    In an hour that a zone has twice, Python finds its times equal to no other zone's.
    """
    with source.connect() as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        return connection.execute(question.encode()).fetchall()


def ask_file(source: Path, question: str) -> Rows:
    """The answer of a SQLite file."""
    connection = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


@pytest.fixture(scope="session")
def fleet(sources: Sources, seaweedfs: SeaweedFS, postgres: Postgres, project_root: Path) -> Mapping[str, SampleTenant]:
    """All three loaded, changed at the source, loaded again and built."""
    places = {"acme": sources.acme, "harbor": sources.harbor, "atlas": sources.atlas}
    made = {name: make_tenant(project_root, name, seaweedfs.lakehouse, place) for name, place in places.items()}
    for tenant in made.values():
        tenant.load()
    with postgres.superuser(sources.acme.name).connect() as connection:
        axiom_core.apply_changes(connection, seed=3, inserts=24, updates=24)
    with postgres.superuser(sources.harbor.name).connect() as connection:
        harbor.apply_changes(connection, seed=3, inserts=50, updates=36, deletes=6)
    atlas.apply_changes(sources.atlas, seed=3, inserts=12, updates=24, deletes=9)
    for tenant in made.values():
        tenant.load()
        tenant.build()
    return made
