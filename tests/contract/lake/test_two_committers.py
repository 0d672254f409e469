"""Several committers on one table: one lands, the others hear of it, and in the end every load is there once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from mozart.errors import CommitConflictError
from mozart.lake import commit
from mozart.lake.commit import _CREATION_PAUSES, CommitOutcome
from tests.contract.lake.conftest import LakeTable, Plan, people


@pytest.mark.parametrize("verb", ["append", "merge", "replace"])
def test_a_stale_plan_is_refused_and_never_rebased(loaded: LakeTable, verb: str) -> None:
    stale = loaded.plan(verb, people([3, 30] if verb != "append" else [30], "stale"))
    loaded.load("merge", people([3, 31], "first"))
    before = loaded.head().snapshot_id
    with pytest.raises(CommitConflictError, match="plan the load again"):
        stale.send(loaded.catalog)
    assert loaded.head().snapshot_id == before
    loaded.check()


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
