"""A tiny tenant written by the test: two raw tables, two staging models, two marts, in a project of its own."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.io import load_file_io
from pyiceberg.types import IcebergType, LongType, StringType

from mozart.engine.dbt_run import ModelEvent, ModelRequest, ModelResult, build_models
from mozart.engine.duckdb import connect
from mozart.lake.commit import Column, CommitRecord, plan_schema, read_head
from mozart.lake.commit import replace as replace_table
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land

CHECKOUT = Path(__file__).parents[3]

SOURCES = """\
version: 2
sources:
  - name: tiny_raw
    database: lake
    schema: "{{ env_var('MOZART_SCHEMA') }}_raw"
    tables:
      - name: cases
      - name: flows
"""

STAGING_CASES = """\
{{ config(alias='stg_cases') }}
select id, title, amount from {{ source('tiny_raw', 'cases') }}
"""

STAGING_FLOWS = """\
{{ config(alias='stg_flows') }}
select id, case_id, amount from {{ source('tiny_raw', 'flows') }}
"""

MART_CASE = """\
{{ config(alias='mart_case') }}
select cases.id as case_id, cases.title, cast(coalesce(sum(flows.amount), 0) as bigint) as total
from {{ ref('tiny__stg_cases') }} cases left join {{ ref('tiny__stg_flows') }} flows on flows.case_id = cases.id
group by 1, 2
"""

MART_TITLE = """\
{{ config(alias='mart_title') }}
select title, count(*) as cases from {{ ref('tiny__stg_cases') }} group by title
"""

PROPERTIES = """\
version: 2
models:
  - name: tiny__stg_cases
    columns:
      - {name: id, data_type: bigint, data_tests: [not_null, unique]}
      - {name: title, data_type: varchar}
      - {name: amount, data_type: bigint}
  - name: tiny__stg_flows
    columns:
      - {name: id, data_type: bigint, data_tests: [unique]}
      - {name: case_id, data_type: bigint}
      - {name: amount, data_type: bigint}
  - name: tiny__mart_case
    columns:
      - {name: case_id, data_type: bigint, data_tests: [unique]}
      - {name: title, data_type: varchar}
      - {name: total, data_type: bigint, data_tests: [{non_negative: {}}]}
  - name: tiny__mart_title
    columns:
      - {name: title, data_type: varchar, data_tests: [not_null]}
      - {name: cases, data_type: bigint}
"""

CASES: dict[str, IcebergType] = {"id": LongType(), "title": StringType(), "amount": LongType()}
FLOWS: dict[str, IcebergType] = {"id": LongType(), "case_id": LongType(), "amount": LongType()}


@dataclass
class TinyTenant:
    """A project folder, a namespace in the running lake, and what was seen while its models ran."""

    root: Path
    lakehouse: Lakehouse
    namespace: str
    runs: int = 0
    events: list[ModelEvent] = field(default_factory=list)

    @property
    def models(self) -> Path:
        return self.root / "tenants" / "tiny" / "models"

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.models / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    @property
    def base(self) -> Path:
        return self.root / ".mozart" / "dbt" / "tiny" / "default"

    def write(self, name: str, text: str) -> None:
        (self.models / name).parent.mkdir(parents=True, exist_ok=True)
        (self.models / name).write_text(text)

    def load(self, table: str, columns: dict[str, IcebergType], rows: list[tuple[object, ...]]) -> int | None:
        """Replace a raw table's rows as a load does; the snapshot id."""
        catalog = self.lakehouse.catalog()
        head = read_head(catalog, (f"{self.namespace}_raw", table))
        schema = plan_schema(head, [Column(name, kind) for name, kind in columns.items()])
        connection = connect(lakehouse=self.lakehouse)
        data = pa.table([[row[i] for row in rows] for i in range(len(columns))], names=list(columns))
        connection.register("data", data)
        load_id = secrets.token_hex(8)
        folder = f"{self.lakehouse.landing_uri}/{table}/{load_id}"
        io = load_file_io(self.lakehouse.catalog_properties(), folder)
        landing = land(connection, "data", schema, list(columns), folder=folder, io=io)
        record = CommitRecord(load_id, None, None, len(rows), "test", "full_refresh")
        return replace_table(catalog, head, schema, landing.files, record).snapshot_id

    def request(self, **changes: object) -> ModelRequest:
        self.runs += 1
        plain = ModelRequest(
            tenant="tiny",
            run_id=f"run-{self.runs}",
            root=self.root,
            state=self.root / ".mozart",
            namespace=self.namespace,
            raw_namespace=f"{self.namespace}_raw",
            product=None,
            memory="256MB",
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    def build(self, **changes: object) -> dict[str, ModelResult]:
        """Build once; results by table name. `self.events` holds what was reported meanwhile."""
        self.events = []
        results = build_models(self.request(**changes), self.lakehouse, self.events.append)
        return {result.name: result for result in results}

    def rows(self, table: str) -> list[tuple[object, ...]]:
        """The published rows, in order, as a reader with an engine of its own sees them."""
        with connect(lakehouse=self.lakehouse) as connection:
            return connection.execute(f"FROM lake.{self.namespace}.{table} ORDER BY ALL").fetchall()

    def snapshots(self, table: str) -> list[int]:
        catalog = self.lakehouse.catalog()
        return [s.snapshot_id for s in catalog.load_table((self.namespace, table)).metadata.snapshots]

    def is_published(self, table: str) -> bool:
        return self.lakehouse.catalog().table_exists((self.namespace, table))

    def secrets_in_state(self) -> list[Path]:
        """Files of the local state that hold the lake's secret."""
        secret = self.lakehouse.secret_access_key.get_secret_value().encode()
        files = [path for path in (self.root / ".mozart").rglob("*") if path.is_file()]
        assert files
        return [path for path in files if secret in path.read_bytes()]


NAMESPACE = f"tiny_{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the checkout's dbt folder. Its parse state is kept between tests: a cold parse costs 3 CPU s more.

    For the same reason all tests share one namespace and `tiny` empties it: dbt parses anew when it changes.
    """
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(CHECKOUT / "dbt", root / "dbt", ignore=shutil.ignore_patterns("target", "logs", "dbt_packages"))
    (root / "pyproject.toml").touch()
    return root


@pytest.fixture
def tiny(tiny_root: Path, lakehouse: Lakehouse) -> TinyTenant:
    """The tenant with both raw tables loaded and nothing published. Its models are the unbroken ones."""
    return make_tiny(tiny_root, lakehouse)


def make_tiny(tiny_root: Path, lakehouse: Lakehouse, core: str = NAMESPACE) -> TinyTenant:
    """The tenant of `tiny` in namespace `core`, for a fixture that lives longer; it is the only one at a time."""
    catalog = lakehouse.catalog()
    for namespace in (core, f"{core}_raw"):
        catalog.create_namespace_if_not_exists(namespace)
        for identifier in catalog.list_tables(namespace):
            catalog.drop_table(identifier)
    shutil.rmtree(tiny_root / "tenants", ignore_errors=True)
    tenant = TinyTenant(tiny_root, lakehouse, core)
    tenant.write("_sources.yml", SOURCES)
    tenant.write("_models.yml", PROPERTIES)
    tenant.write("staging/tiny__stg_cases.sql", STAGING_CASES)
    tenant.write("staging/tiny__stg_flows.sql", STAGING_FLOWS)
    tenant.write("mart/tiny__mart_case.sql", MART_CASE)
    tenant.write("mart/tiny__mart_title.sql", MART_TITLE)
    tenant.load("cases", CASES, [(1, "a", 10), (2, "b", 20)])
    tenant.load("flows", FLOWS, [(1, 1, 5), (2, 1, 7)])
    return tenant


@contextlib.contextmanager
def polled(ask: Callable[[], object], *, pause: float = 0.1) -> Generator[list[object]]:
    """What a reader sees who asks all the time, `pause` seconds apart: answers, and the errors in the place of some."""
    seen: list[object] = []
    over = threading.Event()

    def poll() -> None:
        while not over.wait(pause):
            try:
                seen.append(ask())
            except Exception as error:  # noqa: BLE001 - any failure to read is the finding
                seen.append(error)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        yield seen
    finally:
        over.set()
        reader.join()
