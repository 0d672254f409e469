"""Loads that compact by themselves, and maintenance beside loads: raw stays what the source is."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mozart.errors import CommitConflictError
from mozart.lake import commit
from mozart.lake.compaction import CompactionPolicy, compact_table
from mozart.lake.expiry import ExpiryPolicy, expire_snapshots
from mozart.lake.object_store import ObjectStore
from mozart.lake.session import open_lake
from mozart.lake.sweep import Sweep, SweepPolicy
from mozart.tenancy.names import Namespaces
from tests.integration.lake.test_load import ORDERS, assert_equal

EAGER = CompactionPolicy(small_files=20, delete_files=2)


@pytest.fixture
def orders(bench: Any) -> Any:
    bench.source.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2), tags text[], day date, "
        "updated_at timestamptz NOT NULL DEFAULT now())"
    )
    bench.source.execute(
        "INSERT INTO orders SELECT g, g * 1.5, ARRAY['a', NULL, 'ü' || g], DATE '2024-01-01' + g::int, "
        "now() - interval '1 hour' + g * interval '1 second' FROM generate_series(1, 500) g"
    )
    return bench


def change(bench: Any, number: int) -> None:
    bench.source.execute(
        "UPDATE orders SET amount = amount + 1, updated_at = clock_timestamp() WHERE id %% 50 = %s", [number]
    )
    bench.source.execute("INSERT INTO orders VALUES (%s, 0, NULL, NULL, clock_timestamp())", [1000 + number])


def files_of(bench: Any) -> tuple[int, int]:
    summary = bench.record("orders")
    return int(summary["total-data-files"]), int(summary["total-delete-files"])


def test_a_load_compacts_when_files_pile_up(orders: Any) -> None:
    orders.load(ORDERS, compaction=EAGER)
    watermark = ""
    for number in range(3):
        change(orders, number)
        loaded = orders.load(ORDERS, compaction=EAGER)
        watermark = loaded.watermark
    record = orders.record("orders")
    assert files_of(orders) == (1, 0)
    assert (record["mozart.mode"], record["mozart.watermark"]) == ("maintenance", watermark)
    assert record["mozart.details.carried_load_id"] == loaded.load_id
    assert_equal(orders)
    assert orders.load(ORDERS, compaction=EAGER).status == "unchanged"
    change(orders, 7)
    assert orders.load(ORDERS, compaction=EAGER).mode == "incremental"
    assert_equal(orders)


def test_a_load_leaves_its_files_alone_where_nothing_is_due_or_nobody_asks(orders: Any) -> None:
    orders.load(ORDERS)
    for number in range(3):
        change(orders, number)
        orders.load(ORDERS, compaction=None if number else EAGER)
    assert files_of(orders) == (4, 3)


def test_another_writer_first_costs_the_load_nothing(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    orders.load(ORDERS)
    change(orders, 1)
    true_replace = commit.replace

    def too_late(*arguments: Any) -> Any:
        if arguments[-1].mode == "maintenance":
            raise CommitConflictError("someone was first")
        return true_replace(*arguments)

    monkeypatch.setattr(commit, "replace", too_late)
    strict = CompactionPolicy(delete_files=0, rows_per_file=10**9)
    loaded = orders.load(ORDERS, compaction=strict)
    assert (loaded.status, loaded.attempts) == ("committed", 1)
    assert_equal(orders)


def test_loads_and_all_of_maintenance_at_once(orders: Any) -> None:
    """Two loaders, a compactor, an expirer and a sweeper of what was garbage before; then raw is compared."""
    catalog = orders.lakehouse.catalog()
    identifier = (orders.namespace, "orders")
    spaces = Namespaces("iceberg", f"{orders.namespace}_core", orders.namespace)
    for number in range(2):
        change(orders, number)
        orders.load(ORDERS)
    compact(orders)
    cut = past(ObjectStore(orders.lakehouse), orders.lakehouse.landing_uri)
    done = threading.Event()
    swept: list[int] = []

    def load(writer: int) -> None:
        for number in range(3):
            change(orders, 10 * writer + number)
            orders.load(ORDERS, compaction=EAGER if writer == 1 else None)

    def maintain() -> None:
        compact(orders)
        later = datetime.now(UTC) + timedelta(minutes=1)
        policy = ExpiryPolicy(snapshots=2, age=timedelta())
        expire_snapshots(catalog, identifier, run_id="m", policy=policy, now=later)
        clock = lambda: cut + SweepPolicy().grace  # noqa: E731
        swept.append(Sweep(orders.lakehouse, catalog, spaces, clock=clock).run().deleted)

    def keep_maintaining() -> None:
        while not done.is_set():
            maintain()

    failures = run_together([lambda: load(1), lambda: load(2)], [keep_maintaining], done)
    assert not failures, failures
    maintain()  # beside loads it may have been late each time
    orders.load(ORDERS)
    assert_equal(orders)
    assert sum(swept) > 0, "the sweeper had nothing to do, so nothing was shown"
    assert commit.read_head(catalog, identifier).record is not None


def past(store: ObjectStore, uri: str) -> datetime:
    """A time of the store after all that is there and before all that comes. Its clock shows whole seconds."""
    first = store.now(uri)
    while store.now(uri) <= first + timedelta(seconds=1):
        time.sleep(0.05)
    return first + timedelta(seconds=1)


def compact(bench: Any) -> None:
    with open_lake(bench.lakehouse, scratch=bench.folder / secrets.token_hex(4)) as lake:
        compact_table(lake, (bench.namespace, "orders"), run_id="m", force=True)


def run_together(
    workers: list[Callable[[], None]], helpers: list[Callable[[], None]], done: threading.Event
) -> list[BaseException]:
    """Run all in threads; `done` is set when the workers have ended. What any of them raised."""
    failures: list[BaseException] = []

    def guarded(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(action,)) for action in (*workers, *helpers)]
    for thread in threads:
        thread.start()
    for thread in threads[: len(workers)]:
        thread.join()
    done.set()
    for thread in threads[len(workers) :]:
        thread.join()
    return failures
