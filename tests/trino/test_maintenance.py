"""Maintenance by Trino beside loads of ours: no row, no watermark and no file that is needed is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io
from pyiceberg.types import IcebergType, LongType, StringType

from mozart.engine import trino_maintenance
from mozart.engine.duckdb import connect
from mozart.engine.trino_client import TrinoSession
from mozart.engine.trino_maintenance import TrinoUpkeep
from mozart.errors import CommitConflictError, CommitInDoubtError
from mozart.lake.commit import Column, CommitRecord, Identifier, append, merge, plan_schema, read_head
from mozart.lake.compaction import DEFAULT_POLICY, CompactionResult
from mozart.lake.deltas import write_position_deletes
from mozart.lake.expiry import ExpiryPolicy, ExpiryResult
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land
from mozart.lake.session import COMPACTION_MEMORY, LakeSession, open_lake
from mozart.services.trino import Trino

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


@dataclass(frozen=True)
class Maintenance:
    """Maintenance of one table as the flow does it. `snapshots` and `age` of the policy, `grace` for orphans."""

    upkeep: TrinoUpkeep
    lake: LakeSession
    identifier: Identifier

    def compact(self, *, force: bool = True, dry_run: bool = False) -> CompactionResult:
        return self.upkeep.compact(
            self.lake, self.identifier, run_id="m", policy=DEFAULT_POLICY, force=force, dry_run=dry_run
        )

    def expire(self, age: timedelta, *, dry_run: bool = False) -> ExpiryResult:
        policy = ExpiryPolicy(snapshots=1, age=age)
        return self.upkeep.expire(
            self.lake.catalog, self.identifier, run_id="m", policy=policy, grace=age, dry_run=dry_run
        )


@pytest.fixture
def maintenance(trino: Trino, loads: Loads, tmp_path: Path) -> Iterator[Maintenance]:
    with open_lake(loads.lakehouse, scratch=tmp_path, memory=COMPACTION_MEMORY, threads=1) as lake:
        yield Maintenance(TrinoUpkeep(trino.address), lake, loads.identifier)


def _statistics(loads: Loads) -> int:
    return len(loads.catalog.load_table(loads.identifier).metadata.statistics)


def test_the_record_outlives_optimize_expiry_and_orphans(
    operator: TrinoSession, loads: Loads, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time to live at all, which the module refuses otherwise: only the current snapshot is left."""
    for number in range(1, 6):
        loads.load(number)
    files, snapshots = loads.files(operator), len(loads.catalog.load_table(loads.identifier).metadata.snapshots)
    assert maintenance.expire(timedelta(0), dry_run=True).expired == snapshots - 1
    assert maintenance.expire(timedelta(0)).expired == 0  # all are younger than an hour
    assert maintenance.compact(dry_run=True).status == "planned"
    assert (loads.files(operator), _statistics(loads)) == (files, 0)
    compacted = maintenance.compact()
    assert (compacted.status, compacted.after_files, compacted.before.rows) == ("compacted", 1, 9)
    assert loads.files(operator) == 1
    assert _statistics(loads) >= 1  # optimize brings some of its own
    monkeypatch.setattr(trino_maintenance, "LEAST_RETENTION", timedelta(hours=-1))  # so that what is asked for is 0 s
    expired = maintenance.expire(timedelta(0))
    assert (expired.expired, expired.kept, expired.skipped) == (snapshots + 1, 1, None)  # of optimize's two, one stays
    loads.check(operator, 5)
    loads.load(6)  # the next load goes on from there
    loads.check(operator, 6)


def test_what_is_not_due_is_left_alone(operator: TrinoSession, loads: Loads, maintenance: Maintenance) -> None:
    loads.load(1)
    before = loads.catalog.load_table(loads.identifier).metadata.current_snapshot_id
    assert maintenance.compact(force=False).status == "not due"
    assert _statistics(loads) == 1  # it had none
    assert maintenance.expire(timedelta(days=7)).expired == 0
    assert loads.catalog.load_table(loads.identifier).metadata.current_snapshot_id == before
    loads.check(operator, 1)


def test_what_the_next_load_plans_on_after_a_bare_optimize(operator: TrinoSession, loads: Loads) -> None:
    """Somebody optimizes by hand: the record of the ancestor holds."""
    for number in (1, 2):
        loads.load(number)
    operator.execute(f"ALTER TABLE iceberg.{'.'.join(loads.identifier)} EXECUTE optimize")
    assert read_head(loads.catalog, loads.identifier).is_foreign
    loads.load(3)
    loads.check(operator, 3)


def test_loads_and_maintenance_at_once(operator: TrinoSession, loads: Loads, maintenance: Maintenance) -> None:
    loads.load(1)
    loads.load(2)
    loaded = [2]
    problems: list[BaseException] = []
    over = threading.Event()

    def load_on() -> None:
        try:
            while not over.is_set():
                loads.load(loaded[-1] + 1)
                loaded.append(loaded[-1] + 1)
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            problems.append(error)

    loader = threading.Thread(target=load_on)
    loader.start()
    results: list[CompactionResult] = []
    try:
        for _ in range(3):
            results.append(maintenance.compact())
            maintenance.expire(timedelta(hours=1))
    finally:
        over.set()
        loader.join(120)
    assert not problems
    skipped = sum(result.status == "skipped" for result in results)
    print(f"{loaded[-1]} loads, {loads.conflicts} of them planned again; optimize gave way {skipped} times of 3")
    assert skipped + loads.conflicts > 0  # else they never met
    loads.check(operator, loaded[-1])
    assert maintenance.compact().status == "compacted"
    loads.check(operator, loaded[-1])
