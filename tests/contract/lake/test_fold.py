"""Folding: small files become one, the large file stays, and rows, record and every referenced file stay too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.types import LongType, StringType

from mozart.errors import CommitConflictError, TerminalError
from mozart.lake import commit, fold
from mozart.lake.commit import Column, DataFileRef
from mozart.lake.compaction import CompactionPolicy, CompactionResult, compact_after_load, compact_head, compact_table
from mozart.lake.expiry import ExpiryPolicy, expire_snapshots
from mozart.lake.session import LakeSession, open_lake
from tests.contract.lake.conftest import COLUMNS, LakeTable, people
from tests.contract.lake.oracle import live_entries
from tests.contract.lake.test_maintenance import alien, note_maintenance

BASE = 400
EAGER = CompactionPolicy(small_files=2, delete_files=2, deleted_rows=10**6)


@pytest.fixture
def large(lake_table: LakeTable) -> LakeTable:
    """A table of one file that is large beside what the tests add to it."""
    lake_table.load("append", people(range(BASE)))
    return lake_table


@pytest.fixture
def session(large: LakeTable, tmp_path: Path) -> Iterator[LakeSession]:
    with open_lake(large.lakehouse, scratch=tmp_path / "scratch", memory="200MB") as lake:
        yield lake


def policy_of(table: LakeTable) -> CompactionPolicy:
    """Two small files are borne, and the table's largest file is none."""
    return replace(EAGER, small_bytes=max(file.file_size_in_bytes for file in files_of(table)))


def files_of(table: LakeTable, content: DataFileContent = DataFileContent.DATA) -> list[DataFile]:
    loaded = table.catalog.load_table(table.identifier)
    snapshot = loaded.current_snapshot()
    assert snapshot is not None
    files = [entry.data_file for entry in live_entries(loaded, snapshot)]
    return [file for file in files if file.content == content]


def deletes_of(table: LakeTable) -> list[DataFile]:
    return files_of(table, DataFileContent.POSITION_DELETES)


def fold_it(table: LakeTable, lake: LakeSession) -> CompactionResult:
    changed = table.head().is_foreign
    result = compact_table(lake, table.identifier, run_id="m", policy=policy_of(table))
    if result.status == "compacted":
        note_maintenance(table, rows_changed=changed)
    return result


def merge_thrice(table: LakeTable) -> None:
    """Old rows, new rows, and rows of the merges before."""
    table.load("merge", people([3, 4, BASE + 1], "second"))
    table.load("merge", people([4, 5, BASE + 1, BASE + 2], "third"))
    table.load("merge", people([3, 70], "fourth"))


def test_small_files_become_one_and_the_large_one_stays(large: LakeTable, session: LakeSession) -> None:
    base = files_of(large)[0].file_path
    merge_thrice(large)
    assert large.record is not None
    load_id = large.record.load_id
    result = fold_it(large, session)
    assert (result.status, result.reason, result.after_files) == ("compacted", "3 small data files, 3 delete files", 3)
    table = large.check()
    assert table.current_snapshot().summary.operation.value == "replace"  # type: ignore[union-attr]
    assert commit.find_load(large.head(), load_id) is not None
    paths = [file.file_path for file in files_of(large)]
    assert base in paths and len(paths) == 2
    # the live rows of the small files, and what they replaced in the large one
    assert {file.record_count for file in files_of(large)} == {BASE, 6}
    assert [file.record_count for file in deletes_of(large)] == [4]
    assert result.after_size == sum(file.file_size_in_bytes for file in (*files_of(large), *deletes_of(large)))
    assert fold_it(large, session).status == "not due"


def test_loads_and_folds_in_turns(large: LakeTable, session: LakeSession) -> None:
    for _ in range(3):
        merge_thrice(large)
        assert fold_it(large, session).status == "compacted"
        large.check()
    assert (len(files_of(large)), len(deletes_of(large))) == (2, 1)


def test_many_new_rows_are_folded_without_deletes(large: LakeTable, session: LakeSession) -> None:
    for number in range(3):
        large.load("append", people([BASE + number]))
    assert fold_it(large, session).after_files == 2
    large.check()


def test_deletes_alone_are_folded(large: LakeTable, session: LakeSession) -> None:
    from tests.contract.lake.test_maintenance import commit_deletes

    for key in (1, 2, 3):
        folder = f"{large.lakehouse.landing_uri}/items/d{key}"
        commit_deletes(large, large.head(), f"(SELECT {key} AS id)", folder)
        large.rows = [row for row in large.rows if row["id"] != key]
    before = files_of(large)[0].file_path
    assert fold_it(large, session).after_files == 2
    assert [file.file_path for file in files_of(large)] == [before]
    large.check()


def test_a_fold_of_all_there_is_leaves_no_delete(large: LakeTable, session: LakeSession) -> None:
    merge_thrice(large)
    everything = replace(EAGER, small_bytes=10**9)
    large.load("append", people(range(BASE * 2, BASE * 3)))
    assert compact_table(session, large.identifier, run_id="m", policy=everything).after_files == 1
    note_maintenance(large, rows_changed=False)
    large.check()


def test_which_files_are_small() -> None:
    def sized(*sizes: int) -> list[DataFile]:
        return [DataFile.from_args(file_path=f"f{n}", file_size_in_bytes=size) for n, size in enumerate(sizes)]

    def chosen(*sizes: int) -> list[int]:
        return [file.file_size_in_bytes for file in fold.choose(sized(*sizes), 1_000)]

    assert chosen(900, 10, 20, 5) == [5, 10, 20]
    assert chosen(20, 80, 5) == [5, 20, 80]
    assert chosen(21, 5) == [5]
    assert chosen(1_000, 2_000) == []
    assert chosen(1_000, 999) == [999]


def test_a_load_planned_before_a_fold_conflicts(large: LakeTable, session: LakeSession) -> None:
    merge_thrice(large)
    plans = [large.plan("merge", people([4], "stale")), large.plan("append", people([BASE + 9]))]
    fold_it(large, session)
    for plan in plans:
        with pytest.raises(CommitConflictError):
            plan.send(large.catalog)
    large.load("merge", people([4], "again"))
    large.check()


def test_a_fold_planned_before_a_load_is_dropped(large: LakeTable, session: LakeSession) -> None:
    merge_thrice(large)
    head, policy = large.head(), policy_of(large)
    large.load("merge", people([4], "first"))
    result = compact_head(session, head, run_id="m", policy=policy)
    assert (result.status, result.reason) == ("skipped", "another writer was first")
    large.check()


def test_other_rows_or_deletes_than_the_heads_are_never_committed(
    large: LakeTable, session: LakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_thrice(large)
    true_land, true_deletes = fold.land, fold.write_folded_deletes

    def wrong_land(cursor: Any, relation: str, *arguments: Any, **options: Any) -> Any:
        wrong = f"(SELECT * REPLACE (CASE WHEN id = 5 THEN 'wrong' ELSE name END AS name) FROM {relation})"
        return true_land(cursor, wrong, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fold, "land", wrong_land)
        with pytest.raises(TerminalError, match="other rows"):
            fold_it(large, session)

    def too_few_deletes(cursor: Any, head: Any, marking: list[str], *arguments: Any) -> Any:
        return true_deletes(cursor, head, marking[:-1], *arguments)

    monkeypatch.setattr(fold, "write_folded_deletes", too_few_deletes)
    with pytest.raises(TerminalError, match="4 rows marked deleted into"):
        fold_it(large, session)
    large.check()


def test_a_file_that_is_not_there_is_refused(large: LakeTable) -> None:
    head = large.head()
    assert head.record is not None
    record = head.record.carry_forward(load_id="f", run_id="m")
    with pytest.raises(TerminalError, match="not in its head"):
        commit.fold(large.catalog, head, [DataFileRef("s3://landing/none", 0)], [], ["s3://landing/none"], record)
    large.check()


def test_columns_are_matched_by_their_ids(large: LakeTable, session: LakeSession) -> None:
    """A column that was dropped and added again is another one: the small files' old values are not its own."""
    wider = (*COLUMNS, Column("extra", StringType()))
    large.load("merge", [{"id": 1, "name": "n", "extra": "old"}], columns=wider)
    large.load("merge", [{"id": 2, "name": "n"}], drop_missing=True)
    large.load("merge", [{"id": 9, "extra": "new"}], columns=(Column("id", LongType()), wider[2]))
    large.rows = [{**row, "extra": None if row["id"] == 1 else row.get("extra")} for row in large.rows]
    large.check()
    assert fold_it(large, session).status == "compacted"
    large.check()


def test_deletes_that_another_writer_left_behind_or_doubled(large: LakeTable, session: LakeSession) -> None:
    """The same row marked by two files, and marks of a file that is no more: neither is carried along."""
    merge_thrice(large)
    head = large.head()
    plan = large.plan("merge", people([BASE + 5], "fifth"), head=head)
    twice = [replace(plan.deletes[0], planned_on=head.snapshot_id) for _ in plan.deletes]
    assert not twice, "a new key has nothing to delete"
    again = [_copy_of(large, file) for file in deletes_of(large)[:1]]
    commit.merge(large.catalog, head, plan.schema, plan.files, again, plan.record)
    large.landed(plan)
    assert fold_it(large, session).status == "compacted"
    assert [file.record_count for file in deletes_of(large)] == [4]
    large.check()


def _copy_of(table: LakeTable, file: DataFile) -> commit.DeleteFileRef:
    """Another delete file that says the same."""
    path = f"{file.file_path}-again.parquet"
    io = table.catalog.load_table(table.identifier).io
    with io.new_input(file.file_path).open() as source, io.new_output(path).create() as target:
        target.write(source.read())
    head = table.head().snapshot_id
    assert head is not None
    return commit.DeleteFileRef(path, file.record_count, head)


def test_a_load_looks_only_when_files_have_come(
    large: LakeTable, session: LakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mozart.lake import compaction

    merge_thrice(large)
    fold_it(large, session)
    looked: list[int] = []
    true_read = compaction.read_live_files
    monkeypatch.setattr(compaction, "read_live_files", lambda io, snapshot: looked.append(1) or true_read(io, snapshot))
    for number, expected in enumerate((False, True)):
        large.load("merge", people([number], "next"))
        result = compact_after_load(
            session, large.identifier, run_id="m", policy=policy_of(large), progress=lambda _line: None
        )
        assert (bool(looked), result is not None) == (expected, expected)
    note_maintenance(large, rows_changed=False)
    large.check()


def test_any_order_of_loads_folds_and_other_maintenance(large: LakeTable, session: LakeSession, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a seed to be repeated
    for number in range(14):
        step = chance.choice(["merge", "merge", "merge", "append", "fold", "fold", "expire", "foreign", "compact"])
        if step == "fold":
            fold_it(large, session)
            large.check()
        elif step == "compact":
            changed = large.head().is_foreign
            if compact_table(session, large.identifier, run_id="m", force=True).status == "compacted":
                note_maintenance(large, rows_changed=changed)
        elif step == "expire":
            changed = large.head().is_foreign
            policy = ExpiryPolicy(snapshots=chance.randint(1, 3), age=timedelta())
            later = datetime.now(UTC) + timedelta(minutes=1)
            if expire_snapshots(large.catalog, large.identifier, run_id="m", policy=policy, now=later).restamped:
                note_maintenance(large, rows_changed=changed)
        elif step == "foreign":
            alien(large, 10**6 + number)
        elif step == "append":
            large.load("append", people([10**5 + number], f"{number}"))
        else:
            large.load("merge", people([*chance.sample(range(BASE), 3), BASE + number // 2], f"{number}"))
    large.check()
