"""A story: source writes, loads, delete passes, maintenance, other hands, faults and crashes, in an order of chance.

The order follows from the seed, the length from the clock. After every chapter everything that holds at any moment is
checked, and after every load that was left alone raw is exact. A failure prints the chapters that led to it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from mozart.errors import MozartError
from tests.faults import crash
from tests.faults.jobs import Kind
from tests.faults.proxy import Fault, FaultProxy, Rule
from tests.faults.test_two_loaders import race
from tests.faults.world import World

pytestmark = pytest.mark.filterwarnings("ignore:Merge on read is not yet supported", "ignore:Delete operation did not")

_STEPS: dict[Kind, tuple[crash.Step, ...]] = {
    "load": (*crash.INCREMENTAL, *crash.COMPACTING_AFTER_LOAD, *crash.FOLDING_AFTER_LOAD),
    "delete pass": crash.DELETE_PASS,
    "compact": crash.COMPACTING,
    "fold": crash.FOLDING,
    "expire": (*crash.EXPIRING, *crash.RESTAMPING),
    "sweep": crash.SWEEPING,
}
_FAULTS = (Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.TRUNCATE, Fault.STATUS_BEFORE, Fault.STATUS_AFTER, Fault.REPEAT)
_METHODS = ("GET", "POST", "PUT", "HEAD")


class Story:
    """One world and the chapters that can happen in it."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.next_key = 1000
        self.deleted: list[int] = []
        self.late: psycopg.Connection[Any] | None = None
        self.late_keys: list[int] = []
        self.chapters: dict[Callable[[], None], int] = {
            self.insert: 6,
            self.update: 6,
            self.delete: 3,
            self.reuse_a_key: 3,
            self.begin_late: 3,
            self.end_late: 3,
            self.load: 10,
            self.load_in_full: 1,
            self.backfill: 1,
            self.load_disturbed: 6,
            self.load_killed: 6,
            self.maintain: 5,
            self.maintain_disturbed: 3,
            self.maintain_killed: 3,
            self.roll_back: 2,
            self.append_foreign_rows: 1,
            self.rewrite_foreign: 1,
            self.race: 1,
        }

    def tell(self, seconds: float) -> None:
        """Chapters until the time is up, then a last load, a delete pass and a sweep."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            chapter = self.rng.choices(list(self.chapters), list(self.chapters.values()))[0]
            self.world.tally.cases += 1
            self.world.log.append(chapter.__name__)
            chapter()
        self.end_late()
        self.world.load_exactly()
        self.world.run("delete pass")
        self.world.check()
        self.world.run("sweep")
        self.world.check_files()

    # -- the source ---------------------------------------------------------------------------------------------

    def insert(self) -> None:
        rows = self.rng.randint(1, 40)
        self.world.write(
            "INSERT INTO orders SELECT g, g, 'new' FROM generate_series(%s::int, %s::int) g",
            [self.next_key, self.next_key + rows - 1],
        )
        self.next_key += rows

    def update(self) -> None:
        keys = self.some_keys(30)
        self.world.write(
            "UPDATE orders SET note = %s, updated_at = now() WHERE id = ANY(%s)", [f"v{self.rng.random()}", keys]
        )

    def delete(self) -> None:
        keys = self.some_keys(5)
        self.world.write("DELETE FROM orders WHERE id = ANY(%s)", [keys])
        self.deleted += keys

    def reuse_a_key(self) -> None:
        """A key that was deleted, and may still be in raw, comes back as another row."""
        for key in self.deleted[-3:]:
            self.world.write("INSERT INTO orders VALUES (%s, 9, 'again') ON CONFLICT DO NOTHING", [key])

    def begin_late(self) -> None:
        """A transaction that writes now, with the time of now, and commits some chapters later."""
        if self.late is not None:
            return
        self.late = self.world.connect(autocommit=False)
        self.late_keys = [self.next_key, self.next_key + 1]
        self.next_key += 2
        self.late.execute(
            "INSERT INTO orders SELECT unnest(%s::bigint[]), 3, 'late'", [self.late_keys]
        )  # fmt: skip
        keys = self.some_keys(3)
        self.late.execute("UPDATE orders SET note = 'late', updated_at = now() WHERE id = ANY(%s)", [keys])
        self.late_keys += keys

    def end_late(self) -> None:
        if self.late is None:
            return
        if self.rng.random() < 0.8:
            self.late.commit()
        self.late.close()
        self.late, self.late_keys = None, []

    def some_keys(self, most: int) -> list[int]:
        """Keys that no open transaction holds."""
        keys = sorted({row.id for row in self.world.source_rows()} - set(self.late_keys))
        return self.rng.sample(keys, min(len(keys), self.rng.randint(1, most)))

    # -- loads and maintenance ----------------------------------------------------------------------------------

    def load(self) -> None:
        self.world.load_exactly()

    def load_in_full(self) -> None:
        self.world.load_exactly(options={"full_refresh": True})

    def backfill(self) -> None:
        if self.world.has_record:
            self.world.load_exactly(options={"since": "2000-01-01", "until": "2100-01-01"})

    def load_disturbed(self) -> None:
        self.disturbed("load")

    def load_killed(self) -> None:
        self.killed("load")

    def maintain(self) -> None:
        kind = self.some_maintenance()
        self.world.log.append(f"    {kind}")
        self.world.run(kind)
        self.world.check()

    def maintain_disturbed(self) -> None:
        self.disturbed(self.some_maintenance())

    def maintain_killed(self) -> None:
        self.killed(self.some_maintenance())

    def some_maintenance(self) -> Kind:
        return self.rng.choice(("compact", "fold", "fold", "expire", "delete pass", "sweep"))

    def disturbed(self, kind: Kind) -> None:
        for proxy in self.rng.choice(
            ([self.world.catalog_proxy], [self.world.store_proxy], [self.world.catalog_proxy, self.world.store_proxy])
        ):
            self.inject(proxy)
        self.world.log.append(f"    {kind}")
        self.world.run_disturbed(kind)
        self.world.check()

    def inject(self, proxy: FaultProxy) -> None:
        fault = self.rng.choice(_FAULTS)
        method = "GET" if fault is Fault.TRUNCATE else self.rng.choice(_METHODS)
        status = self.rng.choice((409, 500, 503))
        times = self.rng.choice((1, 1, 2, 5, None))
        self.world.log.append(f"    {fault.value} {method} {status} {times}")
        proxy.inject(Rule(fault, method, r"", status=status, times=times))

    def killed(self, kind: Kind) -> None:
        step = self.rng.choice(_STEPS[kind])
        ended = self.world.kill(step, kind)
        self.world.log.append(f"    {kind} killed at {step.name!r}: {ended}")
        self.world.check()

    # -- other hands --------------------------------------------------------------------------------------------

    def roll_back(self) -> None:
        if self.world.raw and self.world.roll_back(self.rng.randint(1, 3)):
            self.world.check()

    def append_foreign_rows(self) -> None:
        if self.world.raw:
            self.world.append_foreign_rows([-self.next_key])
            self.next_key += 1
            self.world.check()

    def rewrite_foreign(self) -> None:
        if self.world.raw:
            self.world.rewrite_foreign()
            self.world.check()

    def race(self) -> None:
        if self.late is None:
            race(self.world, self.rng, [1, 1])


def test_a_story_of_faults(world: World, rng: random.Random, seconds: float) -> None:
    world.fill(100)
    try:
        Story(world, rng).tell(seconds)
    except (AssertionError, MozartError):
        print("\n".join(world.log))
        raise
