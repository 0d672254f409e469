"""append, merge and replace: after each, DuckDB, pyiceberg and the record agree."""

from __future__ import annotations

import random
import secrets
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from mozart.errors import TerminalError, TransientError
from mozart.lake import commit
from mozart.lake.commit import Column, DataFileRef, DeleteFileRef
from mozart.lake.deltas import write_position_deletes
from tests.contract.lake.conftest import COLUMNS, LakeTable, people
from tests.contract.lake.oracle import live_entries, multiset


def test_append_creates_the_table_and_adds_to_it(lake_table: LakeTable) -> None:
    assert lake_table.head().table is None
    first = lake_table.load("append", people(range(3)))
    assert (first.rows_added, first.rows_deleted) == (3, 0)
    lake_table.check()
    lake_table.load("append", people(range(3, 5)))
    table = lake_table.check()
    assert table.metadata.format_version == 2
    assert table.properties["commit.retry.num-retries"] == "0"
    assert len(table.metadata.snapshots) == 2


def test_append_makes_the_namespace_too(lake_table: LakeTable) -> None:
    lake_table.identifier = (f"{lake_table.identifier[0]}_new", "items")
    lake_table.load("append", people([1]))
    lake_table.check()


def test_merge_updates_and_inserts_in_one_snapshot(loaded: LakeTable) -> None:
    outcome = loaded.load("merge", people([3, 4, 11], "second"))
    assert (outcome.rows_added, outcome.rows_deleted) == (3, 2)
    table = loaded.check()
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary.operation == Operation.OVERWRITE
    assert len(table.metadata.snapshots) == 2


def test_merge_of_new_keys_only_adds(loaded: LakeTable) -> None:
    plan = loaded.plan("merge", people([20, 21]))
    assert plan.deletes == []
    plan.send(loaded.catalog)
    loaded.landed(plan)
    table = loaded.check()
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary.operation == Operation.APPEND


def test_merge_into_a_table_that_does_not_exist(lake_table: LakeTable) -> None:
    lake_table.load("merge", people(range(4)))
    lake_table.check()


def test_merge_that_only_deletes(loaded: LakeTable) -> None:
    plan = loaded.plan("merge", people([1, 2]))
    outcome = commit.merge(loaded.catalog, plan.head, plan.schema, [], plan.deletes, plan.record)
    assert (outcome.rows_added, outcome.rows_deleted) == (0, 2)
    loaded.rows = [row for row in loaded.rows if row["id"] not in (1, 2)]
    loaded.record = plan.record
    loaded.check()


def test_merge_where_a_delete_file_is_already_present(loaded: LakeTable) -> None:
    loaded.load("merge", people([3, 4], "second"))
    outcome = loaded.load("merge", people([3, 5], "third"))
    assert outcome.rows_deleted == 2, "a row that was deleted before must not be deleted again"
    loaded.check()


def test_twenty_merges_in_a_row(loaded: LakeTable) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chosen = random.Random(seed)  # noqa: S311 - reproducible, not secret
    for number in range(20):
        loaded.load("merge", people(chosen.sample(range(30), 5), f"round {number}"))
    loaded.check()


def test_null_keys_match_null(lake_table: LakeTable) -> None:
    rows: list[dict[str, Any]] = [{"id": None, "name": "nobody"}, {"id": 1, "name": "one"}]
    lake_table.load("append", rows)
    lake_table.load("merge", [{"id": None, "name": "somebody"}])
    assert len(lake_table.rows) == 2
    lake_table.check()


def test_composite_keys_with_nulls(lake_table: LakeTable) -> None:
    lake_table.key = ("tenant", "number")
    lake_table.columns = [Column("tenant", StringType()), Column("number", LongType()), Column("v", LongType())]
    keys = [("a", 1), ("a", 2), ("a", None), (None, 1), (None, None), ("b", 1)]
    lake_table.load("append", [{"tenant": tenant, "number": number, "v": 0} for tenant, number in keys])
    lake_table.load("merge", [{"tenant": tenant, "number": number, "v": 1} for tenant, number in keys[1:5]])
    assert sorted(row["v"] for row in lake_table.rows) == [0, 0, 1, 1, 1, 1]
    lake_table.check()


def test_quoted_names_everywhere(lake_table: LakeTable) -> None:
    lake_table.columns = [Column('the "id"', LongType()), Column("it's a.column", StringType())]
    lake_table.key = ('the "id"',)
    lake_table.load("append", [{'the "id"': 1, "it's a.column": "x"}])
    lake_table.load("merge", [{'the "id"': 1, "it's a.column": "y"}])
    lake_table.check()


def test_replace_after_merges_leaves_only_its_own_files(loaded: LakeTable) -> None:
    loaded.load("merge", people([3, 4], "second"))
    loaded.load("merge", people([4, 5], "third"))
    before = loaded.head().snapshot_id
    old_rows = list(loaded.rows)
    outcome = loaded.load("replace", people(range(5, 9), "fresh"), mode="full_refresh")
    assert (outcome.rows_added, outcome.rows_deleted) == (4, 10)
    table = loaded.check()
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.parent_snapshot_id == before
    assert len(live_entries(table, snapshot)) == 1
    then = table.scan(snapshot_id=before).to_arrow().to_pylist()
    assert multiset(then, ["id", "name"]) == multiset(old_rows, ["id", "name"]), "the old snapshot must stay readable"
    loaded.load("merge", people([5, 99], "after"))
    loaded.check()


def test_replace_with_no_files_empties_the_table(loaded: LakeTable) -> None:
    loaded.load("merge", people([3], "second"))
    outcome = loaded.load("replace", [], mode="full_refresh")
    assert outcome.rows_deleted == 10
    loaded.check()
    loaded.load("merge", people([1, 2]))
    loaded.check()


def test_replace_creates_a_table_even_without_rows(lake_table: LakeTable) -> None:
    lake_table.load("replace", [], mode="full_refresh")
    lake_table.check()
    lake_table.load("append", people([1]))
    lake_table.check()


def test_compaction_is_marked_and_must_keep_the_rows(loaded: LakeTable) -> None:
    loaded.load("merge", people([3, 4], "second"))
    plan = loaded.plan("replace", loaded.rows)
    assert plan.head.record is not None
    carried = plan.head.record.carry_forward(load_id="compact-1", run_id="run-2")
    with pytest.raises(TerminalError, match="10 rows into 9"):
        nine = loaded.plan("replace", loaded.rows[:9])
        commit.replace(loaded.catalog, nine.head, nine.schema, nine.files, carried)
    loaded.check()
    commit.replace(loaded.catalog, plan.head, plan.schema, plan.files, carried)
    loaded.record = carried
    table = loaded.check()
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary.operation == Operation.REPLACE
    assert commit.find_load(loaded.head(), plan.head.record.load_id) is not None


@pytest.mark.parametrize("verb", ["append", "merge", "replace"])
def test_an_empty_delta_commits_nothing(lake_table: LakeTable, verb: str) -> None:
    lake_table.load("append", [])  # creating is a change of columns
    before = lake_table.head().snapshot_id
    outcome = lake_table.plan(verb, []).send(lake_table.catalog)
    assert (outcome.status, outcome.snapshot_id) == ("empty", before)
    assert lake_table.head().snapshot_id == before
    lake_table.check()


def test_a_file_without_rows_is_not_added(loaded: LakeTable) -> None:
    plan = loaded.plan("append", [])
    outcome = commit.append(loaded.catalog, plan.head, plan.schema, [DataFileRef("s3://landing/none", 0)], plan.record)
    assert outcome.status == "empty"
    loaded.check()


def test_a_load_id_lands_once(loaded: LakeTable) -> None:
    loaded.load("append", people([20]), load_id="once")
    loaded.load("append", people([21]))
    again = loaded.plan("append", people([20]), load_id="once").send(loaded.catalog)
    assert again.status == "already_done"
    assert again.snapshot_id == commit.find_load(loaded.head(), "once")
    loaded.check()


def test_every_type_survives(lake_table: LakeTable) -> None:
    address = StructType(
        NestedField(1, "city", StringType(), required=True), NestedField(2, "since", DateType(), required=False)
    )
    lake_table.columns = [
        Column("id", LongType()),
        Column("amount", DecimalType(18, 2)),
        Column("big", DecimalType(38, 9)),
        Column("at", TimestamptzType()),
        Column("local", TimestampType()),
        Column("day", DateType()),
        Column("uuid", StringType()),
        Column("bytes", BinaryType()),
        Column("ok", BooleanType()),
        Column("ratio", DoubleType()),
        Column("tags", ListType(1, StringType(), element_required=True)),
        Column("address", address),
        Column("history", ListType(1, address, element_required=False)),
        Column("attributes", MapType(1, StringType(), 2, LongType(), value_required=False)),
    ]
    full: dict[str, Any] = {
        "id": 1,
        "amount": Decimal("-12345678901234.56"),
        "big": Decimal("12345678901234567890123456789.123456789"),
        "at": datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        "local": datetime(1969, 12, 31, 23, 59, 59, 1),
        "day": date(1, 1, 1),
        "uuid": "7f0c7a3e-6a67-4a6e-9c1e-0d6f6a4a6a11",
        "bytes": b"\x00\xff'\"",
        "ok": False,
        "ratio": 0.1,
        "tags": ["a", None, ""],
        "address": {"city": "Zürich", "since": None},
        "history": [{"city": "Uster", "since": date(2020, 1, 1)}, None],
        "attributes": [("k", 1), ("l", None)],
    }
    # pyiceberg 0.12 reads a NULL list of structs as an empty list (DuckDB reads NULL); so the empty one is used here
    nothing: dict[str, Any] = {column.name: None for column in lake_table.columns} | {"id": 2, "history": []}
    lake_table.load("append", [full, nothing])
    lake_table.load("merge", [full | {"ratio": 2.5, "tags": []}])
    table = lake_table.check()
    entries = live_entries(table, table.current_snapshot())  # pyright: ignore[reportArgumentType]
    field_id = table.schema().find_field("day").field_id
    assert any(field_id in (entry.data_file.lower_bounds or {}) for entry in entries), "bounds must be kept"


def test_position_deletes_are_sorted_and_bounded(lake_table: LakeTable) -> None:
    for part in range(3):
        lake_table.load("append", people(range(part * 20_000, (part + 1) * 20_000)))
    changed = [number for number in range(60_000) if number % 7 == 0]
    plan = lake_table.plan("merge", people(changed, "changed"))
    (deletes,) = plan.deletes
    assert deletes.rows == len(changed)
    connection = lake_table.connection
    found = connection.execute(
        f"SELECT file_path, pos FROM read_parquet('{deletes.path}', file_row_number = true) ORDER BY file_row_number"
    ).fetchall()
    assert found == sorted(found)
    plan.send(lake_table.catalog)
    lake_table.landed(plan)
    table = lake_table.check()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    described = [entry.data_file for entry in live_entries(table, snapshot) if entry.data_file.content.value == 1]
    assert described[0].lower_bounds == {2147483546: found[0][0].encode()}
    assert described[0].upper_bounds == {2147483546: found[-1][0].encode()}


def test_deletes_found_on_another_head_are_refused(loaded: LakeTable) -> None:
    stale = loaded.plan("merge", people([3], "stale"))
    loaded.load("merge", people([3], "newer"))
    with pytest.raises(TerminalError, match="another snapshot"):
        commit.merge(loaded.catalog, loaded.head(), stale.schema, stale.files, stale.deletes, stale.record)
    loaded.check()


def test_a_file_that_does_not_fit_is_refused_before_anything_lands(loaded: LakeTable) -> None:
    plan = loaded.plan("append", people([50]))
    with pytest.raises(TerminalError, match="1 rows and the load counted 7"):
        wrong = [DataFileRef(plan.files[0].path, 7)]
        commit.append(loaded.catalog, plan.head, plan.schema, wrong, plan.record)
    with pytest.raises(TerminalError, match="twice"):
        commit.append(loaded.catalog, plan.head, plan.schema, [*plan.files, *plan.files], plan.record)
    with pytest.raises(TerminalError, match="does not fit"):
        other = commit.plan_schema(plan.head, [*COLUMNS, Column("name2", LongType())], drop_missing=True)
        smaller = other.select("id", "name2")
        commit.append(loaded.catalog, plan.head, smaller, plan.files, plan.record)
    with pytest.raises(TerminalError, match="position-delete"):
        bad = [DeleteFileRef(plan.files[0].path, 1, plan.head.snapshot_id or 0)]
        commit.merge(loaded.catalog, plan.head, plan.schema, plan.files, bad, plan.record)
    with pytest.raises(TransientError, match="preparing"):
        gone = [DataFileRef(f"{plan.files[0].path}.gone", 1)]
        commit.append(loaded.catalog, plan.head, plan.schema, gone, plan.record)
    loaded.check()


def test_keys_the_table_does_not_have(loaded: LakeTable) -> None:
    with pytest.raises(TerminalError, match="primary_key"):
        write_position_deletes(loaded.connection, loaded.head(), "(SELECT 1 AS no)", ["no"], "s3://landing/x")
    assert write_position_deletes(loaded.connection, loaded.head(), "(SELECT 77 AS id)", ["id"], "s3://landing/x") == []


def test_a_connection_in_an_older_transaction_says_so(loaded: LakeTable) -> None:
    loaded.connection.execute("BEGIN")
    loaded.connection.execute(f"SELECT count(*) FROM lake.{loaded.identifier[0]}.items").fetchone()
    other = commit.append(
        loaded.catalog,
        (plan := loaded.plan("append", people([30]))).head,
        plan.schema,
        plan.files,
        plan.record,
    )
    assert other.status == "committed"
    with pytest.raises(TransientError, match="transaction that began before"):
        write_position_deletes(loaded.connection, loaded.head(), "(SELECT 1 AS id)", ["id"], "s3://landing/x")
    loaded.connection.execute("ROLLBACK")
    loaded.landed(plan)
    loaded.check()
    # the same connection, outside the transaction, sees the new snapshot at once
    (found,) = write_position_deletes(loaded.connection, loaded.head(), "(SELECT 30 AS id)", ["id"], "s3://landing/x")
    assert found.rows == 1
