"""Two loaders of one table at once, beside a source that is written to: both end, and raw is exact."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.faults.proxy import Fault, Rule
from tests.faults.world import World

_LOADS = 3


def test_two_loaders_at_once(loaded: World, rng: random.Random, does_all: bool) -> None:
    loads = 4 * _LOADS if does_all else _LOADS
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


def test_a_loader_beside_maintenance(loaded: World, rng: random.Random) -> None:
    """Compaction, expiry and the delete pass of others come between a load's plan and its commit."""
    others = [lambda: loaded.run("compact"), lambda: loaded.run("expire"), lambda: loaded.run("delete pass")]
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
