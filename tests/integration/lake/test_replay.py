"""Raw as an older snapshot had it, and the loads after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mozart.errors import TerminalError
from mozart.lake.replay import ReplayResult, replay_table, table_history
from mozart.lake.session import LakeSession, open_lake
from tests.integration.lake.test_load import ORDERS, PLAIN, assert_equal


@contextmanager
def lake(bench: Any) -> Iterator[LakeSession]:
    bench.runs += 1
    with open_lake(bench.lakehouse, scratch=bench.folder / f"replay{bench.runs}") as opened:
        yield opened


def replay(bench: Any, table: str, snapshot: int, **options: Any) -> ReplayResult:
    with lake(bench) as opened:
        return replay_table(opened, (bench.namespace, table), snapshot, "replay", **options)


@pytest.fixture
def orders(bench: Any) -> Any:
    bench.source.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note text, updated_at timestamptz)")
    bench.source.execute("INSERT INTO orders SELECT g, 'one', now() - interval '1 hour' FROM generate_series(1, 100) g")
    return bench


def change(bench: Any, note: str, condition: str, age: str) -> None:
    bench.source.execute(f"UPDATE orders SET note = '{note}', updated_at = now() - interval '{age}' WHERE {condition}")


def test_a_replay_brings_rows_and_watermark_back_and_the_next_load_catches_up(orders: Any) -> None:
    first = orders.load(ORDERS)
    change(orders, "two", "id <= 10", "30 minutes")
    orders.load(ORDERS)
    change(orders, "three", "id <= 5", "10 minutes")
    orders.load(ORDERS)
    before = orders.snapshots("orders")
    planned = replay(orders, "orders", first.snapshot_id, dry_run=True)
    assert (planned.rows_before, planned.rows_after, planned.snapshot_id) == (100, 100, None)
    assert orders.snapshots("orders") == before
    done = replay(orders, "orders", first.snapshot_id)
    assert orders.raw("orders", "DISTINCT note") == [("one",)]
    assert orders.snapshots("orders") == before + 1
    assert done.watermark == first.watermark == orders.record("orders")["mozart.watermark"]
    again = orders.load(ORDERS)
    assert (again.mode, again.rows_committed) == ("incremental", 10)
    assert_equal(orders)


def test_the_history_names_every_commit(orders: Any) -> None:
    first = orders.load(ORDERS)
    change(orders, "two", "id <= 10", "30 minutes")
    second = orders.load(ORDERS)
    replay(orders, "orders", first.snapshot_id)
    with lake(orders) as opened:
        entries = table_history(opened, (orders.namespace, "orders"))
    assert [(entry.mode, entry.rows) for entry in entries] == [
        ("replay", 100),
        ("incremental", 100),
        ("full_refresh", 100),
    ]
    assert [entry.snapshot_id for entry in entries[1:]] == [second.snapshot_id, first.snapshot_id]


def test_a_column_that_came_later_reads_null_and_the_next_load_reads_in_full(orders: Any) -> None:
    first = orders.load(ORDERS)
    orders.source.execute("ALTER TABLE orders ADD COLUMN extra int DEFAULT 42")
    orders.load(ORDERS)
    replay(orders, "orders", first.snapshot_id)
    assert orders.raw("orders", "count(*), count(extra)") == [(100, 0)]
    assert orders.load(ORDERS).mode == "full_refresh"
    assert orders.raw("orders", "DISTINCT extra") == [(42,)]


def test_a_full_refresh_after_a_replay_commits_what_differs(bench: Any) -> None:
    bench.source.execute("CREATE TABLE plain (a int, b text)")
    bench.source.execute("INSERT INTO plain VALUES (1, 'x')")
    first = bench.load(PLAIN)
    bench.source.execute("INSERT INTO plain VALUES (2, 'y')")
    bench.load(PLAIN)
    replay(bench, "plain", first.snapshot_id)
    assert bench.raw("plain") == [(1, "x")]
    assert bench.load(PLAIN).status == "committed"
    assert bench.raw("plain") == [(1, "x"), (2, "y")]


def test_a_snapshot_that_is_not_there_is_refused(orders: Any) -> None:
    orders.load(ORDERS)
    with pytest.raises(TerminalError, match=r"snapshot 17 is not in its history.*mozart table history"):
        replay(orders, "orders", 17)
    with pytest.raises(TerminalError, match="has no rows to replay"):
        replay(orders, "nothing", 17)
