"""Several committers on one table: one lands, the others hear of it, and in the end every load is there once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pyiceberg.table import Table
from pyiceberg.table.update import (
    AssertCreate,
    AssertRefSnapshotId,
    AssertTableUUID,
    TableRequirement,
    TableUpdate,
)

from mozart.errors import CommitConflictError
from mozart.lake import commit
from mozart.lake.commit import _CREATION_PAUSES, CommitOutcome
from tests.contract.lake.conftest import LakeTable, Plan, people
from tests.contract.lake.test_maintenance import alien


@pytest.mark.parametrize("verb", ["append", "merge", "replace"])
def test_a_stale_plan_is_refused_and_never_rebased(loaded: LakeTable, verb: str) -> None:
    stale = loaded.plan(verb, people([3, 30] if verb != "append" else [30], "stale"))
    loaded.load("merge", people([3, 31], "first"))
    before = loaded.head().snapshot_id
    with pytest.raises(CommitConflictError, match="plan the load again"):
        stale.send(loaded.catalog)
    assert loaded.head().snapshot_id == before
    loaded.check()


@pytest.mark.parametrize("verb", ["append", "merge", "replace", "fold", "restamp", "stamp", "expire"])
def test_every_commit_says_on_which_head_it_was_planned(
    loaded: LakeTable, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Looked at as it is sent: SeaweedFS refuses a stale snapshot by its sequence number as well, so that no race of
    two shows whether this was asked of it. Other catalogs need not."""
    first = loaded.head().snapshot_id
    if verb == "restamp":
        alien(loaded, 77)
    elif verb == "expire":
        loaded.load("merge", people([4], "second"))
    head, sent = loaded.head(), list[TableRequirement]()
    record_requirements(loaded, sent, monkeypatch)
    assert head.table is not None and head.record is not None and first is not None
    maintained = head.record.carry_forward(load_id="m", run_id="m")
    if verb in ("append", "merge", "replace"):
        loaded.plan(verb, people([3])).send(loaded.catalog)
    elif verb == "fold":
        commit.fold(loaded.catalog, head, [], [], [], maintained)
    elif verb == "restamp":
        commit.restamp(loaded.catalog, head, run_id="m")
    elif verb == "stamp":
        commit.stamp(loaded.catalog, head, maintained)
    else:
        commit.expire(loaded.catalog, head, [first])
    heads = [wanted.snapshot_id for wanted in sent if isinstance(wanted, AssertRefSnapshotId) and wanted.ref == "main"]
    assert heads == [head.snapshot_id]
    uuids = [wanted.uuid for wanted in sent if isinstance(wanted, AssertTableUUID)]
    assert uuids and set(uuids) == {head.table.metadata.table_uuid}


def test_a_creation_says_that_there_must_be_no_table(lake_table: LakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = list[TableRequirement]()
    record_requirements(lake_table, sent, monkeypatch)
    lake_table.load("append", people([1]))
    assert any(isinstance(wanted, AssertCreate) for wanted in sent)


def record_requirements(table: LakeTable, sent: list[TableRequirement], monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on what the table's commits demand of the catalog goes into `sent`."""
    true_commit = table.catalog.commit_table

    def recorded(changed: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]) -> Any:
        sent.extend(requirements)
        return true_commit(changed, requirements, updates)

    monkeypatch.setattr(table.catalog, "commit_table", recorded)


def test_retries_allowed_by_the_table_change_nothing(loaded: LakeTable) -> None:
    """A table that someone else made asks for retries; a stale plan is refused all the same."""
    loaded.catalog.load_table(loaded.identifier).transaction().set_properties(
        {"commit.retry.num-retries": "4"}
    ).commit_transaction()
    stale = loaded.plan("append", people([30], "stale"))
    loaded.load("merge", people([3, 31], "first"))
    with pytest.raises(CommitConflictError):
        stale.send(loaded.catalog)
    loaded.check()


@pytest.mark.parametrize("number", range(3))
def test_of_several_creators_one_wins(lake_table: LakeTable, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The catalog itself lets several win (three rounds, for it does so in one of four)."""
    monkeypatch.setattr(commit, "_CREATION_PAUSES", _CREATION_PAUSES)
    lake_table.identifier = (lake_table.identifier[0], f"items_{number}")
    plans = [lake_table.plan("append", people([position])) for position in range(3)]
    results = _at_once([lambda plan=plan: plan.send(lake_table.lakehouse.catalog()) for plan in plans])
    winners = [plan for plan, result in zip(plans, results, strict=True) if isinstance(result, CommitOutcome)]
    assert len(winners) == 1, results
    assert sum(isinstance(result, CommitConflictError) for result in results) == 2, results
    lake_table.landed(winners[0])
    lake_table.check()


def test_a_creator_with_other_columns_loses(lake_table: LakeTable) -> None:
    late = lake_table.plan("append", people([1]))
    lake_table.load("append", [{"id": 2, "name": "x"}])
    with pytest.raises(CommitConflictError):
        late.send(lake_table.catalog)
    lake_table.check()


def test_of_two_that_merge_at_once_one_wins(loaded: LakeTable) -> None:
    plans = [loaded.plan("merge", people([3, 40 + number], f"writer {number}")) for number in range(3)]
    results = _at_once([lambda plan=plan: plan.send(loaded.lakehouse.catalog()) for plan in plans])
    winners = [plan for plan, result in zip(plans, results, strict=True) if isinstance(result, CommitOutcome)]
    assert len(winners) == 1, results
    assert sum(isinstance(result, CommitConflictError) for result in results) == 2, results
    loaded.landed(winners[0])
    loaded.check()


def test_loads_that_plan_again_all_land_once(loaded: LakeTable) -> None:
    """Two writers, three loads each, planning again after every conflict."""
    planning = threading.Lock()  # DuckDB's connection is one; only the commits race

    def write(writer: int) -> list[Plan]:
        catalog = loaded.lakehouse.catalog()
        return [_land(loaded, planning, f"w{writer}-{load}", [100 * writer + load], catalog) for load in range(3)]

    results = _at_once([lambda writer=writer: write(writer) for writer in (1, 2)])
    for landed in results:
        assert not isinstance(landed, Exception), landed
        for plan in landed:
            loaded.rows = [*loaded.rows, *plan.rows]
    newest = loaded.head().record
    assert newest is not None and newest.load_id in ("w1-2", "w2-2")
    loaded.record = newest
    loaded.check()


def _land(table: LakeTable, planning: threading.Lock, load_id: str, ids: Sequence[int], catalog: object) -> Plan:
    for _attempt in range(20):
        with planning:
            plan = table.plan("merge", people(ids, load_id), load_id=load_id)
        try:
            assert plan.send(catalog).status == "committed"  # pyright: ignore[reportArgumentType]
        except CommitConflictError:
            continue
        return plan
    raise AssertionError(f"{load_id} never landed")


def _at_once(actions: Sequence[Callable[[], object]]) -> list[object]:
    """Run the actions in threads from one barrier; the results, or what they raised, in order."""
    results: list[object] = [None] * len(actions)
    barrier = threading.Barrier(len(actions))

    def run(position: int, action: Callable[[], object]) -> None:
        barrier.wait()
        try:
            results[position] = action()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[position] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
