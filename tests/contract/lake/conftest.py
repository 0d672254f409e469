"""A table under test: it is loaded through the committer, and it knows the rows it should have."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import LongType, StringType

from mozart.engine.duckdb import connect
from mozart.lake import commit
from mozart.lake.commit import Column, CommitOutcome, CommitRecord, DataFileRef, DeleteFileRef, TableHead
from mozart.lake.deltas import write_position_deletes
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land
from tests.contract.lake.oracle import Row, check_table
from tests.faults.proxy import FaultProxy

COLUMNS = (Column("id", LongType()), Column("name", StringType()))

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Plan:
    """A load that is ready to be committed, by `send`, on the head it was planned on."""

    verb: str
    head: TableHead
    schema: Schema
    files: Sequence[DataFileRef]
    deletes: Sequence[DeleteFileRef]
    record: CommitRecord
    rows: Sequence[Row]

    def send(self, catalog: Catalog) -> CommitOutcome:
        if self.verb == "merge":
            return commit.merge(catalog, self.head, self.schema, self.files, self.deletes, self.record)
        verb = commit.append if self.verb == "append" else commit.replace
        return verb(catalog, self.head, self.schema, self.files, self.record)


@dataclass
class LakeTable:
    """One table: plans and sends loads, keeps `rows` as the table should have them, and checks."""

    lakehouse: Lakehouse
    catalog: Catalog
    connection: DuckDBPyConnection
    identifier: tuple[str, str]
    key: tuple[str, ...] = ("id",)
    columns: Sequence[Column] = COLUMNS
    rows: list[Row] = field(default_factory=list[Row])
    record: CommitRecord | None = None

    def head(self) -> TableHead:
        return commit.read_head(self.catalog, self.identifier)

    def plan(
        self,
        verb: str,
        rows: Sequence[Row],
        *,
        load_id: str | None = None,
        mode: str = "incremental",
        columns: Sequence[Column] | None = None,
        head: TableHead | None = None,
        **planning: bool,
    ) -> Plan:
        """Write the files of a load of `rows`; nothing is committed. `planning`: `drop_missing`, `retype`."""
        columns = self.columns if columns is None else columns
        head = head or self.head()
        schema = commit.plan_schema(head, columns, **planning)
        names = [column.name for column in columns]
        number = next(_numbers)
        folder = f"{self.lakehouse.landing_uri}/{self.identifier[1]}/{number}"
        relation = f"delta_{number}"
        arrow = schema_to_pyarrow(schema.select(*names), include_field_ids=False)
        self.connection.register(relation, pa.Table.from_pylist([dict(row) for row in rows], schema=arrow))
        io = load_file_io(self.lakehouse.catalog_properties(), location=folder)
        landing = land(self.connection, relation, schema, names, folder=folder, io=io)
        deletes = write_position_deletes(self.connection, head, relation, self.key, folder) if verb == "merge" else []
        self.connection.unregister(relation)
        record = CommitRecord(
            load_id or f"load-{number}", f"wm-{number}", None, len(rows), "run-1", mode, {"n": str(number)}
        )
        return Plan(verb, head, schema, landing.files, deletes, record, rows)

    def load(self, verb: str, rows: Sequence[Row], **options: Any) -> CommitOutcome:
        """Plan, send, and expect it to land."""
        plan = self.plan(verb, rows, **options)
        outcome = plan.send(self.catalog)
        assert outcome.status == "committed"
        self.landed(plan)
        return outcome

    def landed(self, plan: Plan) -> None:
        """Note that this load is in the table."""
        keys = {self.key_of(row) for row in plan.rows}
        kept = {"append": self.rows, "replace": []}.get(
            plan.verb, [row for row in self.rows if self.key_of(row) not in keys]
        )
        self.rows = [*kept, *plan.rows]
        self.record = plan.record

    def key_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in self.key)

    def check(self) -> Table:
        """The oracle, and the record: DuckDB, pyiceberg and the record agree."""
        table = check_table(self.catalog, self.connection, self.identifier, self.rows)
        found = self.head().record
        if self.record is None:
            assert found is None
        else:
            assert found is not None
            assert (found.load_id, found.watermark, found.rows, found.run_id, found.mode, found.details) == (
                self.record.load_id,
                self.record.watermark,
                self.record.rows,
                self.record.run_id,
                self.record.mode,
                self.record.details,
            )
        return table


@pytest.fixture
def connection(lakehouse: Lakehouse) -> Iterator[DuckDBPyConnection]:
    opened = connect(lakehouse=lakehouse)
    yield opened
    opened.close()


@pytest.fixture
def lake_table(
    lakehouse: Lakehouse, namespace: str, connection: DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> LakeTable:
    """A table that does not exist yet, and whose only creator is the test: no need to wait for others."""
    monkeypatch.setattr(commit, "_CREATION_PAUSES", (0.0, 0.3))
    return LakeTable(lakehouse, lakehouse.catalog(), connection, (namespace, "items"))


@pytest.fixture
def loaded(lake_table: LakeTable) -> LakeTable:
    """A table with ten rows."""
    lake_table.load("append", people(range(10)))
    return lake_table


@pytest.fixture
def proxy(lakehouse: Lakehouse) -> Iterator[FaultProxy]:
    """A fault proxy in front of the catalog."""
    with FaultProxy(lakehouse.catalog_uri) as running:
        yield running


@pytest.fixture
def proxied(proxy: FaultProxy, lakehouse: Lakehouse) -> Callable[[], Catalog]:
    """Makes catalog clients that go through the proxy."""
    return lambda: lakehouse.model_copy(update={"catalog_uri": proxy.url}).catalog()


@pytest.fixture
def lakehouse_store(lakehouse: Lakehouse) -> Iterator[FaultProxy]:
    """A fault proxy in front of the object store."""
    with FaultProxy(lakehouse.s3_endpoint) as running:
        yield running


def people(ids: Sequence[int], name: str = "first") -> list[Row]:
    return [{"id": number, "name": f"{name} {number}"} for number in ids]
