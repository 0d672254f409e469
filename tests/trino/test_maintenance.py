"""Maintenance by Trino beside loads of ours: no row, no watermark and no file that is needed is lost."""

from __future__ import annotations

import threading
from datetime import timedelta

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io
from pyiceberg.types import IcebergType, LongType, StringType

from mozart.engine import trino_maintenance
from mozart.engine.duckdb import connect
from mozart.engine.trino_client import TrinoSession
from mozart.engine.trino_maintenance import TrinoMaintenanceResult, maintain_table
from mozart.errors import CommitConflictError, CommitInDoubtError, TerminalError
from mozart.lake.commit import Column, CommitRecord, append, merge, plan_schema, read_head
from mozart.lake.deltas import write_position_deletes
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land

COLUMNS: dict[str, IcebergType] = {"id": LongType(), "text": StringType()}
TABLE = "cases"


class Loads:
    """Incremental loads of one table: load n adds row n and changes row n-1; the watermark is n."""

    def __init__(self, lakehouse: Lakehouse, namespace: str) -> None:
        self.lakehouse = lakehouse
        self.catalog: Catalog = lakehouse.catalog()
        self.identifier = (namespace, TABLE)
        self.conflicts = 0

    def load(self, number: int) -> None:
        while True:
            try:
                self._try(number)
            except (CommitConflictError, CommitInDoubtError):
                self.conflicts += 1
            else:
                return

    def _try(self, number: int) -> None:
        head = read_head(self.catalog, self.identifier)
        schema = plan_schema(head, [Column(name, kind) for name, kind in COLUMNS.items()])
        rows = [(number, f"new {number}")] + ([(number - 1, f"changed {number}")] if number > 1 else [])
        folder = f"{self.lakehouse.landing_uri}/{TABLE}/load-{number}"
        with connect(lakehouse=self.lakehouse) as connection:
            data = pa.table([[row[0] for row in rows], [row[1] for row in rows]], names=list(COLUMNS))
            connection.register("data", data)
            io = load_file_io(self.lakehouse.catalog_properties(), folder)
            files = land(connection, "data", schema, list(COLUMNS), folder=folder, io=io).files
            record = CommitRecord(f"load-{number}", str(number), None, len(rows), "test", "incremental")
            if head.table is None:
                append(self.catalog, head, schema, files, record)
                return
            deletes = write_position_deletes(connection, head, "(SELECT id FROM data)", ["id"], folder)
            merge(self.catalog, head, schema, files, deletes, record)

    def expected(self, last: int) -> list[tuple[int, str]]:
        return [(n, f"changed {n + 1}" if n < last else f"new {n}") for n in range(1, last + 1)]

    def check(self, session: TrinoSession, last: int) -> None:
        """Three readers see the rows, and the record says how far they reach."""
        table = ".".join(self.identifier)
        scanned = self.catalog.load_table(self.identifier).scan().to_arrow().to_pylist()
        assert sorted(tuple(row.values()) for row in scanned) == self.expected(last)
        with connect(lakehouse=self.lakehouse) as connection:
            assert connection.execute(f"FROM lake.{table} ORDER BY id").fetchall() == self.expected(last)
        assert session.execute(f"SELECT id, text FROM iceberg.{table} ORDER BY id") == self.expected(last)
        head = read_head(self.catalog, self.identifier)
        assert head.record
        assert head.record.watermark == str(last)

    def files(self, session: TrinoSession) -> int:
        return int(session.fetch_one(f'SELECT count(*) FROM iceberg.{self.identifier[0]}."{TABLE}$files"')[0])


@pytest.fixture
def loads(lakehouse: Lakehouse, namespace: str) -> Loads:
    return Loads(lakehouse, namespace)


def test_the_record_outlives_optimize_expiry_and_orphans(
    operator: TrinoSession, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time to live at all, which the module refuses otherwise: only the current snapshot is left."""
    for number in range(1, 6):
        loads.load(number)
    files = loads.files(operator)
    with pytest.raises(TerminalError, match="at least"):
        maintain_table(operator, loads.catalog, loads.identifier, run_id="m", retention=timedelta(0))
    monkeypatch.setattr(trino_maintenance, "LEAST_RETENTION", timedelta(0))
    result = maintain_table(operator, loads.catalog, loads.identifier, run_id="m", retention=timedelta(0))
    assert (result.done, result.skipped) == (("optimize", "expire", "orphans", "analyze"), {})
    assert loads.files(operator) == 1 < files
    assert len(loads.catalog.load_table(loads.identifier).metadata.snapshots) < 3
    loads.check(operator, 5)
    loads.load(6)  # the next load goes on from there
    loads.check(operator, 6)


def test_what_the_next_load_plans_on_after_a_bare_optimize(operator: TrinoSession, loads: Loads) -> None:
    """Somebody optimizes by hand: the record of the ancestor holds."""
    for number in (1, 2):
        loads.load(number)
    operator.execute(f"ALTER TABLE iceberg.{'.'.join(loads.identifier)} EXECUTE optimize")
    assert read_head(loads.catalog, loads.identifier).is_foreign
    loads.load(3)
    loads.check(operator, 3)


def test_loads_and_maintenance_at_once(operator: TrinoSession, loads: Loads) -> None:
    loads.load(1)
    loaded = [1]
    problems: list[BaseException] = []
    over = threading.Event()

    def load_on() -> None:
        try:
            while not over.is_set():
                loads.load(loaded[-1] + 1)
                loaded.append(loaded[-1] + 1)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            problems.append(error)

    def maintain(number: int) -> TrinoMaintenanceResult:
        return maintain_table(
            operator,
            loads.lakehouse.catalog(),
            loads.identifier,
            run_id=f"m{number}",
            retention=timedelta(hours=1),
            steps=("optimize", "expire", "analyze"),
        )

    loader = threading.Thread(target=load_on)
    loader.start()
    try:
        results = [maintain(number) for number in range(4)]
    finally:
        over.set()
        loader.join(120)
    assert not problems
    skipped = sum("optimize" in result.skipped for result in results)
    print(f"{loaded[-1]} loads, {loads.conflicts} of them planned again; optimize gave way {skipped} times of 4")
    assert skipped + loads.conflicts > 0  # else they never met
    loads.check(operator, loaded[-1])
    assert maintain(4).done == ("optimize", "expire", "analyze")
    loads.check(operator, loaded[-1])
