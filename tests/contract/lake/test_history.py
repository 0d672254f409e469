"""Rollbacks and foreign commits: the record is always that of an ancestor of the rows one sees, never a lie."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mozart.errors import CommitConflictError, TransientError
from mozart.lake import commit
from mozart.lake.commit import CommitRecord
from tests.contract.lake.conftest import LakeTable, people

FOREIGN = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def test_after_a_rollback_the_record_is_that_of_the_rows(loaded: LakeTable) -> None:
    rows, record, first = list(loaded.rows), loaded.record, loaded.head().snapshot_id
    loaded.load("merge", people([3, 30], "lost"), load_id="lost")
    loaded.catalog.load_table(loaded.identifier).manage_snapshots().rollback_to_snapshot(first or 0).commit()
    loaded.rows, loaded.record = rows, record
    loaded.check()
    assert commit.find_load(loaded.head(), "lost") is None
    loaded.load("merge", people([3, 31], "again"), load_id="lost")
    loaded.check()


def test_a_load_planned_before_a_rollback_conflicts(loaded: LakeTable) -> None:
    first = loaded.head().snapshot_id
    rows, record = list(loaded.rows), loaded.record
    loaded.load("merge", people([3], "second"))
    plan = loaded.plan("merge", people([4], "third"))
    loaded.catalog.load_table(loaded.identifier).manage_snapshots().rollback_to_snapshot(first or 0).commit()
    with pytest.raises(CommitConflictError):
        plan.send(loaded.catalog)
    loaded.rows, loaded.record = rows, record
    loaded.check()


@pytest.mark.filterwarnings("ignore:Merge on read is not yet supported")
@pytest.mark.parametrize("foreign", ["append", "overwrite", "delete"])
def test_the_record_is_found_through_foreign_commits(loaded: LakeTable, foreign: str) -> None:
    loaded.load("merge", people([3, 30], "second"))
    table = loaded.catalog.load_table(loaded.identifier)
    alien = {"id": 77, "name": "alien"}
    arrow = pa.Table.from_pylist([alien], schema=FOREIGN)
    if foreign == "append":
        table.append(arrow)
        loaded.rows = [*loaded.rows, alien]
    elif foreign == "overwrite":
        table.overwrite(arrow)
        loaded.rows = [alien]
    else:
        table.delete("id >= 5")
        loaded.rows = [row for row in loaded.rows if row["id"] < 5]
    head = loaded.head()
    assert head.is_foreign
    loaded.check()
    loaded.load("merge", people([2, 77, 78], "after"))
    assert not loaded.head().is_foreign
    loaded.check()


def test_restamp_carries_the_record_over_a_foreign_commit(loaded: LakeTable) -> None:
    assert commit.restamp(loaded.catalog, loaded.head(), run_id="r").status == "empty"
    assert loaded.record is not None
    load_id, watermark = loaded.record.load_id, loaded.record.watermark
    loaded.catalog.load_table(loaded.identifier).append(pa.Table.from_pylist(people([40]), schema=FOREIGN))
    loaded.rows = [*loaded.rows, *people([40])]
    head = loaded.head()
    assert commit.restamp(loaded.catalog, head, run_id="r").status == "committed"
    stamped = loaded.head()
    assert not stamped.is_foreign and stamped.record is not None
    loaded.record = stamped.record
    assert (stamped.record.watermark, stamped.record.mode) == (watermark, "maintenance")
    loaded.check()
    # the older snapshots go: the load is still named by the one that carries it
    expire = loaded.catalog.load_table(loaded.identifier).maintenance.expire_snapshots()
    for snapshot in loaded.catalog.load_table(loaded.identifier).metadata.snapshots:
        if snapshot.snapshot_id != stamped.snapshot_id:
            expire = expire.by_id(snapshot.snapshot_id)
    expire.commit()
    assert commit.find_load(loaded.head(), load_id) == stamped.snapshot_id
    loaded.check()


def test_a_table_nobody_of_us_has_written(lake_table: LakeTable) -> None:
    table = lake_table.catalog.create_table(lake_table.identifier, schema=FOREIGN)
    head = lake_table.head()
    assert (head.snapshot_id, head.record, head.is_foreign) == (None, None, False)
    table.append(pa.Table.from_pylist(people([1, 2]), schema=FOREIGN))
    lake_table.rows = people([1, 2])
    head = lake_table.head()
    assert head.record is None and head.is_foreign
    assert commit.restamp(lake_table.catalog, head, run_id="r").status == "empty"
    lake_table.load("merge", people([2, 3], "ours"))
    lake_table.check()


def test_a_table_that_exists_without_a_snapshot(lake_table: LakeTable) -> None:
    lake_table.catalog.create_table(lake_table.identifier, schema=FOREIGN)
    first, second = lake_table.plan("append", people([1])), lake_table.plan("append", people([2]))
    first.send(lake_table.catalog)
    with pytest.raises(CommitConflictError):
        second.send(lake_table.catalog)
    lake_table.landed(first)
    lake_table.check()


def test_a_table_dropped_and_made_again_conflicts(loaded: LakeTable) -> None:
    plan = loaded.plan("merge", people([3], "stale"))
    loaded.catalog.drop_table(loaded.identifier)
    with pytest.raises(TransientError):
        plan.send(loaded.catalog)
    loaded.load("replace", people([1], "new table"))
    with pytest.raises(TransientError):
        plan.send(loaded.catalog)
    loaded.check()


def test_details_and_absent_values_survive(loaded: LakeTable) -> None:
    details = {"source.identity": "7391 ü", "high mark": "2024-01-01T00:00:00Z", "quoted": '{"a": "b"}', "empty": ""}
    plan = loaded.plan("append", people([50]))
    record = CommitRecord("d-1", None, None, 1, "run", "incremental", details)
    commit.append(loaded.catalog, plan.head, plan.schema, plan.files, record)
    found = loaded.head().record
    assert found is not None
    assert (dict(found.details), found.watermark, found.base) == (details, None, plan.head.snapshot_id)
