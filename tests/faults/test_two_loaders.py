"""Two loaders of one table at once, beside a source that is written to: both end, and raw is exact."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.faults.jobs import Kind
from tests.faults.proxy import Fault, Rule
from tests.faults.world import World

_LOADS = 2


def test_two_loaders_at_once(loaded: World, rng: random.Random, does_all: bool) -> None:
    loads = 6 * _LOADS if does_all else _LOADS
    tries = race(loaded, rng, [loads, loads])
    assert tries, "no load was done"


def test_two_creators_at_once(world: World, rng: random.Random) -> None:
    """The table does not exist yet, for either; the catalog decides such races by the last writer."""
    world.fill(100)
    race(world, rng, [1, 1])
    assert world.run().mode == "incremental"


def test_a_creator_that_stalls_does_not_take_the_table(world: World) -> None:
    """Its request is on its way while another creates the table and loads twice; then it arrives, and is refused."""
    world.tally.cases += 1
    world.fill(50)
    world.catalog_proxy.inject(Rule(Fault.HOLD, path=r"/tables/[^/]+$", times=1))
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(world.job().run)
        world.catalog_proxy.wait_until_held()
        world.load_exactly()
        world.change(1000)
        world.load_exactly()
        world.catalog_proxy.release()
        slow.result(60)
    world.catalog_proxy.wait_until_idle()
    world.count_faults()
    world.check()
    world.load_exactly()


@pytest.mark.parametrize(
    ("late", "options"),
    [("load", {}), ("load", {"full_refresh": True}), ("delete pass", {}), ("compact", {}), ("fold", {})],
    ids=["load", "full refresh", "delete pass", "compaction", "fold"],
)
def test_a_commit_that_comes_after_anothers_is_refused(
    loaded: World, late: Kind, options: dict[str, bool], does_all: bool
) -> None:
    """It was planned first and is on its way while another load commits: what it arrives with is stale.

    Were it taken, the other's rows would be gone, which the oracle sees.
    """
    if (late == "delete pass" or options) and not does_all:
        pytest.skip("in the long form")
    loaded.tally.cases += 1
    loaded.change(1000)
    loaded.load_exactly(compaction=None)
    loaded.write("DELETE FROM orders WHERE id %% 10 = 7")
    loaded.change(2000)
    if late == "fold":  # takes two small files
        loaded.load_exactly(compaction=None)
    loaded.catalog_proxy.inject(Rule(Fault.HOLD, path=r"/tables/[^/]+$", times=1))
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(loaded.job(late, compaction=None, options=options).run)
        loaded.catalog_proxy.wait_until_held()
        loaded.change(3000)
        loaded.load_exactly(compaction=None)
        loaded.catalog_proxy.release()
        result = slow.result(60)
    loaded.catalog_proxy.wait_until_idle()
    loaded.count_faults()
    loaded.check()
    assert result.status == "skipped" if late in ("compact", "fold") else result.attempts > 1
    loaded.load_exactly()
    loaded.check_files()


def test_a_loader_beside_maintenance(loaded: World, rng: random.Random) -> None:
    """Compaction, folding, expiry and the delete pass of others come between a load's plan and its commit."""
    kinds: tuple[Kind, ...] = ("compact", "fold", "expire", "delete pass")
    others = [partial(loaded.run, kind) for kind in kinds]
    race(loaded, rng, [2], others)
    loaded.check_files()


def race(
    world: World, rng: random.Random, loaders: Sequence[int], others: Sequence[Callable[[], Any]] = ()
) -> list[int]:
    """Loaders of so many loads each, and others, from one barrier; the source is written to all the time.

    Returns the tries of each load. Every load must end without an error.
    """
    world.tally.races += 1
    done = threading.Event()
    barrier = threading.Barrier(len(loaders) + bool(others))
    changes = rng.sample(range(2_000, 900_000), 500)

    def load(times: int) -> list[int]:
        barrier.wait()
        return [world.run("load").attempts for _ in range(times)]

    def maintain() -> list[int]:
        barrier.wait()
        for other in others:
            other()
        return []

    with ThreadPoolExecutor() as pool:
        writer = pool.submit(_write, world, changes, done)
        runs: list[Future[list[int]]] = [pool.submit(load, times) for times in loaders]
        if others:
            runs.append(pool.submit(maintain))
        try:
            tries = [number for run in runs for number in run.result(120)]
        finally:
            done.set()
        writer.result(30)
    world.tally.most_tries = max([world.tally.most_tries, *tries])
    world.check()
    world.load_exactly()
    return tries


def _write(world: World, changes: Sequence[int], done: threading.Event) -> None:
    """Change rows until told to stop, by a session of its own; some transactions end late."""
    with world.connect(autocommit=False) as source:
        for number in changes:
            source.execute("INSERT INTO orders VALUES (%s, 2, 'raced')", [number])
            source.execute(
                "UPDATE orders SET note = %s, updated_at = now() WHERE id %% 13 = %s", [f"race {number}", number % 13]
            )
            source.execute("DELETE FROM orders WHERE id = %s", [number - 1])
            if done.wait(0.02):
                source.commit()
                return
            source.commit()
