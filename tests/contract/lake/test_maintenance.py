"""Compaction and expiry on tables of every history: the rows, the record and every referenced file stay."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import LongType, StringType

from mozart.errors import CommitConflictError, TerminalError
from mozart.lake import commit
from mozart.lake import session as session_module
from mozart.lake.commit import Column, CommitRecord
from mozart.lake.compaction import CompactionPolicy, CompactionResult, compact_after_load, compact_head, compact_table
from mozart.lake.expiry import ExpiryPolicy, ExpiryResult, expire_snapshots
from mozart.lake.head import CARRIED_LOAD_ID, has_foreign_rows
from mozart.lake.publish import FINGERPRINT, lake_state, published_fingerprint
from mozart.lake.session import LakeSession, open_lake
from tests.contract.lake.conftest import COLUMNS, LakeTable, people
from tests.contract.lake.test_history import FOREIGN
from tests.faults.proxy import Fault, FaultProxy, Rule

EAGER = CompactionPolicy(small_files=2, delete_files=1)
OLD = ExpiryPolicy(snapshots=1, age=timedelta())


@pytest.fixture
def session(loaded: LakeTable, tmp_path: Path) -> Iterator[LakeSession]:
    with open_lake(loaded.lakehouse, scratch=tmp_path / "scratch", memory="200MB") as lake:
        yield lake


def later() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def compact(table: LakeTable, lake: LakeSession, **options: object) -> CompactionResult:
    rows_changed = has_foreign_rows(table.head())
    result = compact_table(lake, table.identifier, run_id="m", policy=EAGER, **options)  # type: ignore[arg-type]
    if result.status == "compacted":
        note_maintenance(table, rows_changed=rows_changed)
    return result


def expire(table: LakeTable, policy: ExpiryPolicy = OLD) -> ExpiryResult:
    rows_changed = has_foreign_rows(table.head())
    result = expire_snapshots(table.catalog, table.identifier, run_id="m", policy=policy, now=later())
    if result.restamped:
        note_maintenance(table, rows_changed=rows_changed)
    return result


def note_maintenance(table: LakeTable, *, rows_changed: bool) -> None:
    """From here on the head's record must be the last load's, carried forward; not as that of rows others changed."""
    before, found = table.record, table.head().record
    assert before is not None and found is not None
    assert (found.watermark, found.mode) == (before.watermark, "maintenance")
    carried = before.details.get(CARRIED_LOAD_ID, before.load_id)
    kept = {name: text for name, text in before.details.items() if name != CARRIED_LOAD_ID}
    assert dict(found.details) == {**kept, "done_load_id" if rows_changed else CARRIED_LOAD_ID: carried}
    assert found.names(carried)
    table.record = found


def snapshots(table: LakeTable) -> int:
    return len(table.catalog.load_table(table.identifier).metadata.snapshots)


def test_compaction_keeps_rows_and_record(loaded: LakeTable, session: LakeSession) -> None:
    loaded.load("merge", people([3, 30], "second"))
    loaded.load("merge", people([4, 30], "third"))
    assert loaded.record is not None
    load_id = loaded.record.load_id
    result = compact(loaded, session)
    assert (result.status, result.before.delete_files, result.after_files) == ("compacted", 2, 1)
    table = loaded.check()
    assert table.current_snapshot().summary.operation.value == "replace"  # type: ignore[union-attr]
    assert commit.find_load(loaded.head(), load_id) is not None
    assert compact(loaded, session).status == "not due"
    assert compact(loaded, session, force=True).status == "not due"
    loaded.load("merge", people([5], "after"))
    loaded.check()


def test_what_is_borne_grows_with_the_deletes_and_nothing_is_due_for_few_files(
    loaded: LakeTable, session: LakeSession
) -> None:
    loaded.load("merge", people([3, 4], "second"))
    assert compact_table(session, loaded.identifier, run_id="m").status == "not due"
    lenient = CompactionPolicy(small_files=0, delete_files=0, rows_per_file=1)
    assert compact_table(session, loaded.identifier, run_id="m", policy=lenient).status == "not due"
    strict = CompactionPolicy(deleted_share=0.05, deleted_rows=0)
    result = compact_table(session, loaded.identifier, run_id="m", policy=strict, dry_run=True)
    assert (result.status, result.reason) == ("planned", "2 of 12 rows are marked deleted")
    assert snapshots(loaded) == 2


def test_a_table_emptied_by_deletes_becomes_no_file(loaded: LakeTable, session: LakeSession) -> None:
    head = loaded.head()
    everyone = "(SELECT range AS id FROM range(10))"
    folder = f"{loaded.lakehouse.landing_uri}/items/{secrets.token_hex(16)}"
    deletes = commit_deletes(loaded, head, everyone, folder)
    assert deletes == 10
    loaded.rows = []
    assert compact(loaded, session, force=True).after_files == 0
    loaded.check()


def commit_deletes(table: LakeTable, head: commit.TableHead, keys: str, folder: str) -> int:
    from mozart.lake.deltas import write_position_deletes

    assert head.table is not None and head.record is not None
    deletes = write_position_deletes(table.connection, head, keys, table.key, folder)
    table.record = CommitRecord(secrets.token_hex(8), "w", None, 0, "r", "delete_pass", head.record.details)
    commit.merge(table.catalog, head, head.table.schema(), (), deletes, table.record)
    return sum(file.rows for file in deletes)


def test_a_load_planned_before_a_compaction_conflicts(loaded: LakeTable, session: LakeSession) -> None:
    loaded.load("merge", people([3], "second"))
    plan = loaded.plan("merge", people([4], "stale"))
    compact(loaded, session, force=True)
    with pytest.raises(CommitConflictError):
        plan.send(loaded.catalog)
    loaded.load("merge", people([4], "again"))
    loaded.check()


def test_a_compaction_planned_before_a_load_is_dropped(loaded: LakeTable, session: LakeSession) -> None:
    loaded.load("merge", people([3], "second"))
    head = loaded.head()
    loaded.load("merge", people([4], "first"))
    result = compact_head(session, head, run_id="m", policy=EAGER, force=True)
    assert (result.status, result.reason) == ("skipped", "another writer was first")
    loaded.check()


def test_other_rows_than_the_heads_are_never_committed(
    loaded: LakeTable, session: LakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many rows, another value: only the digest can tell."""
    from mozart.lake import compaction

    loaded.load("merge", people([3], "second"))
    true_land = compaction.land

    def wrong_land(cursor: object, relation: str, *arguments: object, **options: object) -> object:
        wrong = f"(SELECT * REPLACE (CASE WHEN id = 7 THEN 'wrong' ELSE name END AS name) FROM {relation})"
        return true_land(cursor, wrong, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "land", wrong_land)
    with pytest.raises(TerminalError, match="other rows"):
        compact(loaded, session, force=True)
    assert snapshots(loaded) == 2
    loaded.check()


def test_a_published_fingerprint_and_the_version_outlive_compaction_and_expiry(
    loaded: LakeTable, session: LakeSession
) -> None:
    for name in ("one", "two"):
        plan = loaded.plan("append", people([50], name))
        record = CommitRecord(f"p-{name}", None, None, 1, "r", "publish", {FINGERPRINT: f"f-{name}"})
        commit.append(loaded.catalog, plan.head, plan.schema, plan.files, record)
        loaded.landed(plan)
        loaded.record = record
    before = lake_state(loaded.head()).version
    assert compact(loaded, session, force=True).status == "compacted"
    assert expire(loaded).expired == 3
    assert published_fingerprint(loaded.head()) == "f-two"
    assert lake_state(loaded.head()).version == before == "load:p-two"
    loaded.check()


def test_expiry_restamps_a_record_that_would_be_lost(loaded: LakeTable) -> None:
    assert loaded.record is not None
    load_id = loaded.record.load_id
    alien(loaded, 77)
    alien(loaded, 78)
    result = expire(loaded)
    assert (result.restamped, result.expired, result.kept) == (True, 3, 1)
    assert commit.find_load(loaded.head(), load_id) is not None
    loaded.check()


def alien(table: LakeTable, number: int) -> None:
    row = {"id": number, "name": "alien"}
    table.catalog.load_table(table.identifier).append(pa.Table.from_pylist([row], schema=FOREIGN))
    table.rows = [*table.rows, row]


def test_the_committer_itself_refuses_to_lose_the_record_or_the_head(loaded: LakeTable) -> None:
    first = loaded.head().snapshot_id
    alien(loaded, 77)
    head = loaded.head()
    with pytest.raises(TerminalError, match="restamp"):
        commit.expire(loaded.catalog, head, [first or 0])
    with pytest.raises(TerminalError, match="current"):
        commit.expire(loaded.catalog, head, [head.snapshot_id or 0])
    assert commit.expire(loaded.catalog, head, [1234]).status == "already_done"
    assert snapshots(loaded) == 2


def test_expiry_on_a_moved_head_conflicts(loaded: LakeTable) -> None:
    loaded.load("merge", people([3], "second"))
    head = loaded.head()
    assert head.table is not None
    old = head.table.metadata.snapshots[0].snapshot_id
    loaded.load("merge", people([4], "third"))
    with pytest.raises(CommitConflictError):
        commit.expire(loaded.catalog, head, [old])
    assert snapshots(loaded) == 3


def test_expiry_keeps_the_newest_the_young_and_the_named(loaded: LakeTable) -> None:
    for number in range(4):
        loaded.load("merge", people([number], "x"))
    table = loaded.catalog.load_table(loaded.identifier)
    first = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().create_tag(first, "audit").commit()
    assert expire(loaded, ExpiryPolicy(snapshots=1, age=timedelta(days=7))).expired == 0
    assert expire(loaded, ExpiryPolicy(snapshots=10, age=timedelta())).expired == 0
    assert expire(loaded, ExpiryPolicy(snapshots=2, age=timedelta())).expired == 2
    left = {s.snapshot_id for s in loaded.catalog.load_table(loaded.identifier).metadata.snapshots}
    assert first in left and len(left) == 3
    loaded.check()


@pytest.mark.faults
@pytest.mark.parametrize("fault", [Fault.DROP_AFTER, Fault.STATUS_AFTER, Fault.REPEAT])
def test_an_expiry_whose_reply_is_lost_is_found_out(
    loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog], fault: Fault
) -> None:
    loaded.load("merge", people([3], "second"))
    catalog = proxied()
    head = commit.read_head(catalog, loaded.identifier)
    assert head.table is not None
    proxy.inject(Rule(fault, path=r"/tables/[^/]+$", status=500))
    outcome = commit.expire(catalog, head, [head.table.metadata.snapshots[0].snapshot_id])
    assert (outcome.status, snapshots(loaded)) == ("committed", 1)
    loaded.check()


def test_a_rollback_and_a_foreign_commit_then_maintenance(loaded: LakeTable, session: LakeSession) -> None:
    """The watermark after it all is that of the rows one sees, not that of the load that was rolled back."""
    loaded.load("merge", people([3, 30], "kept"))
    kept, rows = loaded.head().snapshot_id, list(loaded.rows)
    record = loaded.record
    loaded.load("merge", people([4, 31], "rolled back"))
    loaded.catalog.load_table(loaded.identifier).manage_snapshots().rollback_to_snapshot(kept or 0).commit()
    loaded.rows, loaded.record = rows, record
    alien(loaded, 77)
    foreign = loaded.head()
    assert compact_table(session, loaded.identifier, run_id="m", policy=EAGER, force=True).status == "compacted"
    found = loaded.head().record
    assert found is not None and record is not None
    assert found.watermark == record.watermark
    # others' rows are among them now: whoever built on the load's rows has to build again
    assert lake_state(loaded.head()).version not in (f"load:{record.load_id}", lake_state(foreign).version)
    loaded.record = found
    loaded.check()
    assert expire(loaded).kept == 1
    loaded.check()


def test_a_changed_schema(lake_table: LakeTable, tmp_path: Path) -> None:
    lake_table.load("append", people(range(5)))
    wider = (*COLUMNS, Column("extra", StringType()))
    lake_table.load("merge", [{"id": 1, "name": "n", "extra": "e"}], columns=wider)
    lake_table.load("merge", [{"id": 9, "extra": "f"}], columns=(Column("id", LongType()), wider[2]))
    with open_lake(lake_table.lakehouse, scratch=tmp_path / "s") as lake:
        assert compact(lake_table, lake, force=True).status == "compacted"
    lake_table.check()


def test_rows_too_wide_for_the_memory_get_more_of_it(
    lake_table: LakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "COMPACTION_MEMORY", "20MB")
    lake_table.columns = (COLUMNS[0], *(Column(f"c{number}", StringType()) for number in range(200)))
    for start in (0, 1500):
        wide = [
            {"id": row, **{f"c{n}": f"{row * n} {'x' * 40}" for n in range(200)}} for row in range(start, start + 1500)
        ]
        lake_table.load("append", wide)
    with open_lake(lake_table.lakehouse, scratch=tmp_path / "s", memory="20MB", threads=1) as lake:
        assert compact(lake_table, lake, force=True).status == "compacted"
        assert lake.connection.execute("SELECT current_setting('memory_limit')").fetchone() == ("953.6 MiB",)
    lake_table.check()


def test_a_rewriting_keeps_within_its_own_limits_beside_a_larger_session(loaded: LakeTable, tmp_path: Path) -> None:
    """What a load's session may use stays as it is: other tables may be loading in it."""
    settings = "SELECT current_setting('memory_limit'), current_setting('threads')"
    with open_lake(loaded.lakehouse, scratch=tmp_path / "s", memory="1GB", threads=2) as lake:
        own = lake.connection.execute(settings).fetchall()
        with session_module.bounded_session(lake) as bounded:
            assert bounded.connection.execute(settings).fetchall() == [("122.0 MiB", 1)]
            assert lake.connection.execute(settings).fetchall() == own == [("953.6 MiB", 2)]
            with session_module.bounded_session(bounded) as same:
                assert same is bounded
            for session in (lake, bounded):  # a cursor does not have what was set for its connection alone
                uploads = "SELECT current_setting('s3_uploader_max_filesize')"
                assert session.cursor().execute(uploads).fetchall() == [("50GB",)]
            assert bounded.cursor().execute(f"SELECT count(*) FROM lake.{'.'.join(loaded.identifier)}").fetchall()
    assert not (tmp_path / "s").exists()


@pytest.mark.faults
def test_after_a_load_nothing_of_compaction_is_raised(
    loaded: LakeTable, lakehouse_store: FaultProxy, tmp_path: Path
) -> None:
    loaded.load("merge", people([3], "second"))
    loaded.load("merge", people([4], "third"))
    broken = loaded.lakehouse.model_copy(update={"s3_endpoint": lakehouse_store.url})
    lines: list[str] = []
    with open_lake(broken, scratch=tmp_path / "scratch") as lake:
        lakehouse_store.inject(Rule(Fault.STATUS_BEFORE, method="PUT", status=403))
        assert compact_after_load(lake, loaded.identifier, run_id="m", policy=EAGER, progress=lines.append) is None
    assert "left to the next" in lines[-1]
    loaded.check()


def test_any_order_of_loads_and_maintenance(loaded: LakeTable, session: LakeSession, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a seed to be repeated
    for number in range(14):
        step = chance.choice(["merge", "merge", "merge", "append", "compact", "compact", "expire", "foreign"])
        if step == "compact":
            if loaded.head().is_foreign:
                expire(loaded)
            if not loaded.head().is_foreign:
                compact(loaded, session, force=True)
        elif step == "expire":
            expire(loaded, ExpiryPolicy(snapshots=chance.randint(1, 3), age=timedelta()))
        elif step == "foreign":
            alien(loaded, 1000 + number)
        elif step == "append":
            loaded.load("append", people([2000 + number], f"{number}"))
        else:
            loaded.load("merge", people(chance.sample(range(20), 4), f"{number}"))
    loaded.check()
