"""`kill -9` at every step of a load and of maintenance: the next load finds everything as the protocol promises.

The steps are those of `tests.faults.crash`. A step that a job never comes to fails the test. Where a step cannot be
named by a function (in the middle of a read, with a request on its way), the child is held there, and killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mozart.lake.compaction import CompactionPolicy
from tests.faults import crash
from tests.faults.crash import Step
from tests.faults.jobs import FOLDING, Kind
from tests.faults.proxy import Fault, Rule
from tests.faults.world import World

COMMIT = r"/tables/[^/]+$"


def _kill(world: World, step: Step, kind: Kind = "load", **changes: Any) -> None:
    """Kill a job at a step and check what holds at any moment."""
    world.tally.cases += 1
    ended = world.kill(step, kind, **changes)
    assert ended == crash.KILLED, f"{kind} never came to the step {step.name!r}"
    world.check()


def test_a_first_load_is_killed(world: World, does_all: bool) -> None:
    """Each step on a table that may not exist yet; the short form leaves out those before anything is planned."""
    world.fill(50)
    for number, step in enumerate(crash.FULL_REFRESH if does_all else crash.FULL_REFRESH[2:]):
        _kill(world, step)
        world.change(1000 + 10 * number)
    world.load_exactly()


def test_a_full_refresh_is_killed(loaded: World, does_all: bool) -> None:
    for number, step in enumerate(_some(crash.FULL_REFRESH, does_all)):
        loaded.change(1000 + 10 * number)
        _kill(loaded, step, options={"full_refresh": True})
        loaded.load_exactly()


def test_a_load_is_killed(loaded: World, does_all: bool) -> None:
    """The next load is killed one step later, and so on; in the long form each has a load in between."""
    for number, step in enumerate(crash.INCREMENTAL if does_all else crash.INCREMENTAL[2:]):
        loaded.change(1000 + 10 * number)
        _kill(loaded, step)
        if does_all:
            loaded.load_exactly()
    loaded.load_exactly()
    loaded.check_files()


def test_a_backfill_is_killed(loaded: World, does_all: bool) -> None:
    """The window reaches far below the watermark; the watermark stays, and the next load is incremental again."""
    window = {"since": "2020-01-01", "until": "2100-01-01"}
    for number, step in enumerate(_some(crash.INCREMENTAL, does_all)):
        # no load that looks above the watermark sees this row
        loaded.write(
            "UPDATE orders SET note = %s, updated_at = now() - interval '50 minutes' WHERE id %% 11 = 3",
            [f"old {number}"],
        )
        loaded.has_backdated_rows = True
        _kill(loaded, step, options=window)
        assert loaded.run(options=window).mode == "backfill"
        loaded.has_backdated_rows = False
        loaded.check_exact("backfill")


def test_a_compaction_after_a_load_is_killed(loaded: World, does_all: bool) -> None:
    always = CompactionPolicy(small_files=1, delete_files=1, deleted_share=0.0, deleted_rows=0)  # never a fold
    steps = crash.COMPACTING_AFTER_LOAD
    loaded.change(1000)
    loaded.load_exactly(compaction=None)
    for number, step in enumerate(steps if does_all else steps[-1:]):
        loaded.change(1100 + 100 * number)
        _kill(loaded, step, compaction=always)
        loaded.change(1150 + 100 * number)
        loaded.load_exactly(compaction=None)
    loaded.check_files()


def test_a_fold_after_a_load_is_killed(loaded: World, does_all: bool) -> None:
    steps = crash.FOLDING_AFTER_LOAD
    for number, step in enumerate(steps if does_all else (steps[2], steps[-1])):
        loaded.change(1000 + 100 * number)
        loaded.load_exactly(compaction=None)
        loaded.change(1050 + 100 * number)
        _kill(loaded, step, compaction=FOLDING)
    assert len(data_files(loaded)) > 1, "nothing was folded: all was rewritten"
    loaded.load_exactly()
    loaded.check_files()


def data_files(world: World) -> list[str]:
    return [task.file.file_path for task in world.catalog.load_table((world.namespace, "orders")).scan().plan_files()]


def test_a_read_in_parts_is_killed(world: World) -> None:
    """Between parts, in the middle of one, and between a part's files and its note; then what was landed is taken up.

    The source changes in between, so that the parts are of several states: the load says so, and the next is exact.
    """
    in_parts = {"chunk_rows": "1000", "chunk_by": "key"}
    world.fill(6000)
    world.write("ANALYZE orders")
    _kill(world, crash.PART_NOTED, source=in_parts)
    world.change(10_000)
    world.store_proxy.inject(Rule(Fault.HOLD, method="PUT", path=r"\.parquet"))
    child = crash.start(world.job(source=in_parts))
    world.store_proxy.wait_until_held()
    child.kill()
    assert crash.wait(child) == crash.KILLED
    world.tally.faults["kill -9"] += 1
    world.count_faults()
    world.change(20_000)
    _kill(world, crash.PART_LANDED, source=in_parts)
    result = world.run("load", source=in_parts)
    assert (result.mode, result.parts) == ("full_refresh", 6) and 1 <= result.resumed < 6 and result.snapshots > 1
    world.check()
    assert world.load_exactly(source=in_parts).mode == "incremental"
    world.check_files()


def test_a_compaction_is_killed(loaded: World, does_all: bool) -> None:
    for number, step in enumerate(_some(crash.COMPACTING, does_all)):
        loaded.change(1000 + 10 * number)
        loaded.load_exactly(compaction=None)
        _kill(loaded, step, "compact")
    assert loaded.run("compact").status in ("compacted", "not due")
    loaded.load_exactly()


def test_a_delete_pass_is_killed(loaded: World, does_all: bool) -> None:
    for number, step in enumerate(_some(crash.DELETE_PASS, does_all)):
        loaded.write("DELETE FROM orders WHERE id %% 10 = %s", [number])
        _kill(loaded, step, "delete pass")
    loaded.run("delete pass")
    loaded.check_exact("full_refresh")
    loaded.load_exactly()


def test_expiry_after_a_compaction_is_killed(loaded: World, does_all: bool) -> None:
    steps = (*crash.EXPIRING, *crash.RESTAMPING)
    for number, step in enumerate(steps if does_all else (steps[1], steps[2])):
        loaded.change(1000 + 10 * number)
        loaded.load_exactly(compaction=None)
        if step in crash.RESTAMPING:
            loaded.append_foreign_rows([-number])
        else:
            loaded.run("compact")
        _kill(loaded, step, "expire")
        loaded.run("expire")
        loaded.check()
        loaded.load_exactly()
    loaded.check_files()


def test_a_sweep_is_killed(loaded: World, does_all: bool) -> None:
    for number, step in enumerate(crash.SWEEPING if does_all else crash.SWEEPING[-1:]):
        loaded.change(1000 + 10 * number)
        _kill(loaded, crash.COMMITTING[0])  # leaves files that nobody needs
        _kill(loaded, step, "sweep")
        loaded.check_files()
        loaded.load_exactly()
    loaded.run("sweep")
    loaded.check_files()
    assert loaded.run("sweep").orphans == 0


def test_a_load_is_killed_while_it_reads(loaded: World) -> None:
    """The source's table is locked, so that the child stands in the middle of its read when it is killed."""
    loaded.tally.cases += 1
    loaded.change(1000)
    with loaded.connect(autocommit=False) as locking:
        locking.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        child = crash.start(loaded.job())
        loaded.wait_until_somebody_waits()
        child.kill()
        assert crash.wait(child) == crash.KILLED
        loaded.tally.faults["kill -9"] += 1
    loaded.check()
    loaded.load_exactly()


@pytest.mark.parametrize(
    ("service", "rule"),
    [
        ("store", Rule(Fault.HOLD, method="PUT", path=r"\.parquet")),
        ("store", Rule(Fault.HOLD, method="PUT", path=r"\.avro")),
        ("catalog", Rule(Fault.HOLD, path=COMMIT)),
    ],
    ids=["upload of rows", "upload of a manifest", "commit"],
)
def test_a_load_is_killed_with_a_request_on_its_way(loaded: World, service: str, rule: Rule) -> None:
    """What is on its way arrives after its sender's death, and after the next load has planned on the same head."""
    loaded.tally.cases += 1
    loaded.change(1000)
    proxy = loaded.store_proxy if service == "store" else loaded.catalog_proxy
    proxy.inject(Rule(rule.fault, rule.method, rule.path, times=1))
    child = crash.start(loaded.job())
    proxy.wait_until_held()
    child.kill()
    assert crash.wait(child) == crash.KILLED
    loaded.tally.faults["kill -9"] += 1
    loaded.check()
    loaded.change(1100)
    loaded.load_exactly()
    proxy.clear()
    proxy.wait_until_idle()
    loaded.count_faults()
    loaded.check()
    loaded.load_exactly()


def _some(steps: Sequence[Step], does_all: bool) -> Sequence[Step]:
    """All steps, or the two around the commit, which matter most."""
    return steps if does_all else [step for step in steps if step.name.startswith("commit")]
