"""The load protocol against a real PostgreSQL, a real object store and a real catalog."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from mozart.connectors.registry import create_connector
from mozart.errors import DataQualityError, TerminalError
from mozart.lake.extract import RowsRead
from mozart.lake.landing import land
from mozart.lake.load import load_table
from mozart.lake.load_plan import LoadRequest
from mozart.tenancy.model import TableSpec

ORDERS = TableSpec(
    name="orders",
    source_schema="public",
    source_table="orders",
    primary_key=("id",),
    incremental_column="updated_at",
    mode="incremental",
)
PLAIN = TableSpec(name="plain", source_schema="public", source_table="plain")


@pytest.fixture
def orders(bench: Any) -> Any:
    bench.source.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2), note text, "
        "updated_at timestamptz NOT NULL DEFAULT now())"
    )
    bench.source.execute(
        "INSERT INTO orders SELECT g, g * 1.5, 'nöte ' || g, now() - interval '1 hour' + g * interval '1 second' "
        "FROM generate_series(1, 1000) g"
    )
    return bench


def rows_of(bench: Any, table: str = "orders") -> list[tuple[Any, ...]]:
    return bench.source.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def as_utc(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(v.isoformat() if hasattr(v, "utcoffset") else v for v in row) for row in rows]


def assert_equal(bench: Any, table: str = "orders") -> None:
    assert [tuple(map(str, r)) for r in bench.raw(table)] == [tuple(map(str, r)) for r in rows_of(bench, table)]


def test_first_load_is_full_then_only_changes_are_read(orders: Any) -> None:
    first = orders.load(ORDERS)
    assert (first.status, first.mode, first.rows_committed) == ("committed", "full_refresh", 1000)
    assert_equal(orders)
    orders.source.execute("UPDATE orders SET amount = 0, updated_at = now() - interval '30 seconds' WHERE id <= 5")
    orders.source.execute("INSERT INTO orders VALUES (2000, 7, NULL, now() - interval '20 seconds')")
    second = orders.load(ORDERS)
    assert (second.status, second.mode) == ("committed", "incremental")
    assert (second.rows_read, second.rows_committed, second.rows_replaced) == (6, 6, 5)
    assert_equal(orders)
    third = orders.load(ORDERS)
    assert (third.status, third.rows_read, orders.snapshots("orders")) == ("unchanged", 0, 2)


def scans_of(bench: Any, table: str) -> int:
    """How often the table was scanned, as ended sessions and this one have counted; making a key's index is a scan."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + 60
    while bench.source.execute(others).fetchone()[0]:
        assert time.monotonic() < deadline, "a session of the load is still there"
        time.sleep(0.02)
    bench.source.execute("SELECT pg_stat_force_next_flush()")
    counted = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = %s"
    return bench.source.execute(counted, [table]).fetchone()[0]


def test_finding_nothing_new_costs_one_query_and_leaves_no_trace(orders: Any) -> None:
    orders.load(ORDERS)
    scans, metadata, landed = scans_of(orders, "orders"), orders.metadata("orders"), orders.landed("orders")
    for _ in range(2):
        assert orders.load(ORDERS).status == "unchanged"
        scans += 1
        assert scans_of(orders, "orders") == scans
        assert orders.metadata("orders") == metadata, "a commit"
        assert orders.landed("orders") == landed, "a file"


def test_rows_newer_than_the_safe_bound_are_loaded_and_not_committed_again(orders: Any) -> None:
    orders.load(ORDERS)
    orders.source.execute("INSERT INTO orders VALUES (3000, 1, 'now', clock_timestamp())")
    assert orders.load(ORDERS).rows_committed == 1
    again = orders.load(ORDERS)
    assert (again.status, again.rows_read) == ("unchanged", 1)
    assert orders.snapshots("orders") == 2
    assert_equal(orders)


def test_a_row_committed_late_below_what_was_loaded_is_not_missed(orders: Any) -> None:
    orders.load(ORDERS)
    late = psycopg.connect(orders.source.info.dsn, password=orders.source.info.password)
    late.execute("INSERT INTO orders VALUES (4000, 1, 'late', now())")
    orders.source.execute("INSERT INTO orders VALUES (4001, 1, 'early', clock_timestamp())")
    assert orders.load(ORDERS).rows_committed == 1
    late.commit()
    late.close()
    assert orders.load(ORDERS).rows_committed == 1
    assert_equal(orders)


def test_the_bound_is_what_keeps_the_late_row(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same story with a bound that trusts the newest row loses the late one: the test above can fail."""
    monkeypatch.setattr("mozart.lake.load_plan._safe_value", lambda *_: "9999-01-01 00:00:00+00")
    orders.load(ORDERS)
    late = psycopg.connect(orders.source.info.dsn, password=orders.source.info.password)
    late.execute("INSERT INTO orders VALUES (4000, 1, 'late', now())")
    orders.source.execute("INSERT INTO orders VALUES (4001, 1, 'early', clock_timestamp())")
    orders.load(ORDERS)
    late.commit()
    late.close()
    assert orders.load(ORDERS).rows_read == 0


def test_an_integer_column_misses_no_row_that_was_committed_late(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mozart.lake.load_plan._MARGIN", timedelta())  # else the loads would have to be seconds apart
    spec = ORDERS.model_copy(update={"name": "events", "source_table": "events", "incremental_column": "id"})
    bench.source.execute("CREATE TABLE events (id bigint PRIMARY KEY, note text)")
    bench.source.execute("INSERT INTO events SELECT g, 'e' FROM generate_series(1, 100) g")
    assert bench.load(spec).watermark is None, "a transaction of that moment might still commit below 100"
    assert bench.load(spec).watermark == "100"
    late = psycopg.connect(bench.source.info.dsn, password=bench.source.info.password)
    late.execute("INSERT INTO events VALUES (101, 'late')")
    bench.source.execute("INSERT INTO events VALUES (102, 'early')")
    result = bench.load(spec)
    assert (result.mode, result.rows_committed, result.watermark) == ("incremental", 1, "100")
    late.commit()
    late.close()
    result = bench.load(spec)
    assert (result.rows_read, result.rows_committed, result.watermark) == (2, 1, "102")
    assert bench.load(spec).rows_read == 0
    assert_equal(bench, "events")


def test_null_watermarks_are_read_every_time(orders: Any) -> None:
    orders.source.execute("ALTER TABLE orders ALTER updated_at DROP NOT NULL")
    orders.load(ORDERS)
    orders.source.execute("INSERT INTO orders VALUES (5000, 1, 'no time', NULL)")
    assert orders.load(ORDERS).rows_committed == 1
    assert orders.load(ORDERS).status == "unchanged"
    orders.source.execute("UPDATE orders SET note = 'changed' WHERE id = 5000")
    assert orders.load(ORDERS).rows_replaced == 1
    assert_equal(orders)


def test_a_new_column_means_a_full_refresh(orders: Any) -> None:
    orders.load(ORDERS)
    orders.source.execute("ALTER TABLE orders ADD COLUMN extra int DEFAULT 42")
    result = orders.load(ORDERS)
    assert result.mode == "full_refresh" and result.reason and "columns" in result.reason
    assert orders.raw("orders", "DISTINCT extra") == [(42,)]


def test_a_table_made_anew_means_a_full_refresh(orders: Any) -> None:
    orders.load(ORDERS)
    orders.source.execute("CREATE TABLE copy AS SELECT * FROM orders WHERE id <= 10")
    orders.source.execute(
        "DROP TABLE orders; ALTER TABLE copy RENAME TO orders; ALTER TABLE orders ADD PRIMARY KEY (id)"
    )
    assert orders.load(ORDERS).mode == "full_refresh"
    assert_equal(orders)


def test_an_unchanged_full_refresh_commits_nothing(bench: Any) -> None:
    bench.source.execute("CREATE TABLE plain (a int, b text)")
    bench.source.execute("INSERT INTO plain VALUES (1, 'x'), (1, 'x'), (2, NULL)")
    assert bench.load(PLAIN).status == "committed"
    assert bench.load(PLAIN).status == "unchanged"
    bench.source.execute("UPDATE plain SET b = 'y' WHERE a = 2")
    assert bench.load(PLAIN).status == "committed"
    assert bench.snapshots("plain") == 2
    assert bench.raw("plain", order="1, 2") == [(1, "x"), (1, "x"), (2, "y")]


def test_an_empty_table_is_there_and_stays_quiet(bench: Any) -> None:
    bench.source.execute("CREATE TABLE orders (id bigint PRIMARY KEY, updated_at timestamptz)")
    bench.load(ORDERS)
    assert bench.raw("orders") == []
    before = bench.snapshots("orders")
    bench.load(ORDERS)
    assert bench.snapshots("orders") == before
    bench.source.execute("INSERT INTO orders VALUES (1, now())")
    bench.load(ORDERS)
    assert_equal(bench)


def test_duplicates_of_a_declared_key_keep_the_newest(bench: Any) -> None:
    bench.source.execute("CREATE TABLE orders (id bigint, note text, updated_at timestamptz)")
    bench.source.execute(
        "INSERT INTO orders VALUES (1, 'old', now() - interval '1 day'), (1, 'new', now() - interval '1 h')"
    )
    bench.load(ORDERS)
    assert bench.raw("orders", "id, note") == [(1, "new")]
    bench.source.execute("INSERT INTO orders VALUES (1, 'newer', now() - interval '1 minute'), (1, 'newest', now())")
    bench.load(ORDERS)
    assert bench.raw("orders", "id, note") == [(1, "newest")]


def test_composite_keys_with_a_filter_and_chosen_columns(bench: Any) -> None:
    bench.source.execute(
        'CREATE TABLE "Sélect" (tenant text, "order" int, "Größe" numeric(5,1), hidden text, updated_at timestamptz, '
        'PRIMARY KEY (tenant, "order"))'
    )
    bench.source.execute(
        "INSERT INTO \"Sélect\" VALUES ('o''brien', 1, 1.5, 's', now()), ('o''brien', 2, 2.5, 's', now()), "
        "('other', 1, 9.9, 's', now())"
    )
    spec = TableSpec(
        name="sizes",
        source_schema="public",
        source_table="Sélect",
        primary_key=("tenant", "order"),
        columns=("tenant", "order", "größe", "updated_at"),
        incremental_column="updated_at",
        mode="incremental",
    )
    bench.load(spec, equals={"tenant": "o'brien"})
    assert bench.raw("sizes", 'tenant, "order", größe', "2") == [
        ("o'brien", 1, Decimal("1.5")),
        ("o'brien", 2, Decimal("2.5")),
    ]
    bench.source.execute('UPDATE "Sélect" SET "Größe" = 3, updated_at = clock_timestamp() WHERE "order" = 1')
    result = bench.load(spec, equals={"tenant": "o'brien"})
    assert result.rows_committed == 1
    other = bench.load(spec, equals={"tenant": "other"})
    assert other.mode == "full_refresh" and bench.raw("sizes", "tenant") == [("other",)]


def test_a_value_that_cannot_be_kept_fails_naming_column_and_key(bench: Any) -> None:
    bench.source.execute("CREATE TABLE plain (id int PRIMARY KEY, price numeric(8,2))")
    bench.source.execute("INSERT INTO plain VALUES (1, 5), (7, 'NaN')")
    with pytest.raises(DataQualityError, match=r'test\.plain.*"price".*key 7'):
        bench.load(PLAIN)


def test_a_missing_table_and_a_missing_column_are_named(orders: Any) -> None:
    with pytest.raises(TerminalError, match=r"public\.plain does not exist"):
        orders.load(PLAIN)
    with pytest.raises(TerminalError, match="no column changed_at"):
        orders.load(ORDERS.model_copy(update={"incremental_column": "changed_at"}))


def test_a_dry_run_counts_and_commits_nothing(orders: Any) -> None:
    planned = orders.load(ORDERS, dry_run=True)
    assert (planned.status, planned.rows_read) == ("planned", 1000)
    orders.load(ORDERS)
    orders.source.execute("UPDATE orders SET note = 'x', updated_at = now() WHERE id = 1")
    planned = orders.load(ORDERS, dry_run=True)
    assert (planned.mode, planned.rows_read, orders.snapshots("orders")) == ("incremental", 1, 1)


def test_a_backfill_reads_its_window_and_leaves_the_watermark(orders: Any) -> None:
    orders.load(ORDERS)
    watermark = orders.record("orders")["mozart.watermark"]
    orders.source.execute("UPDATE orders SET note = 'silently' WHERE id = 10")  # the trigger was off
    since, until = (
        row[0] for row in orders.source.execute("SELECT updated_at::text FROM orders WHERE id IN (9, 12) ORDER BY 1")
    )
    result = orders.load(ORDERS, since=since, until=until)
    assert (result.mode, result.rows_read, result.rows_committed) == ("backfill", 3, 1)
    assert orders.record("orders")["mozart.watermark"] == watermark
    assert_equal(orders)


def test_two_loaders_of_one_table_lose_and_double_nothing(orders: Any) -> None:
    orders.load(ORDERS)
    orders.source.execute("UPDATE orders SET note = 'both', updated_at = now() WHERE id <= 300")
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(orders.load(ORDERS))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert_equal(orders)


def test_parts_by_pages_are_one_snapshot(orders: Any) -> None:
    orders.source.execute("INSERT INTO orders SELECT g, 1, 'x', now() FROM generate_series(2000, 6999) g")
    orders.source.execute("ANALYZE orders")
    orders.connection = orders.connection.model_copy(
        update={"options": {"chunk_rows": "1000", "chunk_by": "place", "max_connections": "1"}}
    )
    result = orders.load(ORDERS)
    assert (result.parts, result.snapshots, result.rows_committed) == (6, 1, 6000)
    assert_equal(orders)


@pytest.mark.parametrize("full", [True, False], ids=["full refresh", "incremental"])
def test_a_run_that_began_before_another_loaded_does_not_take_raw_back(orders: Any, full: bool) -> None:
    """Its snapshot is older than what the other left in raw, and a long transaction holds the watermark back."""
    orders.load(ORDERS)
    with psycopg.connect(orders.source.info.dsn, password=orders.source.info.password) as long:
        long.execute("CREATE TABLE held (id int)")
        orders.source.execute("UPDATE orders SET note = 'older', updated_at = now() WHERE id = 1")
        with orders.run() as (early, lake):
            early.snapshot_name()
            orders.source.execute("UPDATE orders SET note = 'newer', updated_at = now() WHERE id = 1")
            orders.source.execute("INSERT INTO orders VALUES (9000, 1, 'new', now())")
            assert orders.load(ORDERS).status == "committed"
            load_table(LoadRequest("test", orders.namespace, ORDERS, "late", full_refresh=full), early, lake)
        assert_equal(orders)


def test_a_read_in_one_stream_tells_how_far_it_is(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row waits at the source until rows before it have been told of."""
    monkeypatch.setattr("mozart.lake.row_watch.INTERVAL_SECONDS", 0.02)
    bench.source.execute("CREATE TABLE plain (id int PRIMARY KEY)")
    bench.source.execute("INSERT INTO plain SELECT generate_series(1, 50000)")
    bench.source.execute(
        "CREATE VIEW slow AS SELECT id, CASE WHEN id = 50000 THEN pg_advisory_xact_lock_shared(7)::text END AS gate "
        "FROM (SELECT id FROM plain ORDER BY id) AS ordered"
    )
    told: list[RowsRead] = []
    gate = "SELECT pg_advisory_lock(7)"
    opened = "SELECT pg_advisory_unlock_all()"
    bench.source.execute(gate)
    late = threading.Timer(60, bench.source.execute, (opened,))
    late.start()

    def listen(figures: RowsRead) -> None:
        told.append(figures)
        if figures.rows:
            bench.source.execute(opened)

    try:
        bench.load(TableSpec(name="slow", source_schema="public", source_table="slow"), on_rows=listen)
    finally:
        late.cancel()
    under_way = [figures.rows for figures in told if not figures.parts]
    assert under_way == sorted(under_way)
    assert 0 < under_way[-1] <= 50_000
    assert [figures.rows for figures in told if figures.parts] == [50_000]
    assert bench.raw("slow", "count(*)") == [(50_000,)]


def test_a_snapshot_that_is_too_old_is_let_go_and_the_next_read_takes_another(orders: Any) -> None:
    holds = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    connector = create_connector(orders.connection.model_copy(update={"options": {"snapshot_age": "1ms"}}))
    with connector.open() as reader:
        first = reader.snapshot_name()
        deadline = time.monotonic() + 60
        while orders.source.execute(holds).fetchone()[0]:
            assert time.monotonic() < deadline, "the snapshot is held although its age has passed"
        assert reader.snapshot_name() != first
        assert reader.describe("public", "orders").columns


def test_a_source_that_came_back_is_read_in_a_new_snapshot(orders: Any) -> None:
    with create_connector(orders.connection).open() as reader:
        first = reader.snapshot_name()
        orders.source.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
        assert reader.snapshot_name() != first


def test_a_table_that_is_locked_at_the_source_holds_up_no_other(orders: Any) -> None:
    """Both are large enough to be divided, which takes a look at the table itself."""
    orders.source.execute("INSERT INTO orders SELECT g, 1, 'x', now() FROM generate_series(2000, 6999) g")
    orders.source.execute("CREATE TABLE twin (LIKE orders INCLUDING ALL)")
    orders.source.execute("INSERT INTO twin SELECT * FROM orders; ANALYZE orders; ANALYZE twin")
    orders.connection = orders.connection.model_copy(update={"options": {"chunk_rows": "1000"}})
    twin = ORDERS.model_copy(update={"name": "twin", "source_table": "twin"})
    with psycopg.connect(orders.source.info.dsn, password=orders.source.info.password) as locker:
        locker.execute("LOCK TABLE twin IN ACCESS EXCLUSIVE MODE")
        loads = threading.Thread(target=orders.load_together, args=([twin, ORDERS],))
        loads.start()
        catalog = orders.lakehouse.catalog()
        deadline = time.monotonic() + 60
        while not catalog.table_exists((orders.namespace, "orders")):
            assert time.monotonic() < deadline, "the locked table holds the other up"
            time.sleep(0.05)
        locker.rollback()
    loads.join()
    assert (orders.snapshots("orders"), orders.snapshots("twin")) == (1, 1)
    assert_equal(orders)


def test_never_more_connections_read_than_the_source_may_have(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables at once, each in parts, over two slots: no third read begins before one has ended."""
    orders.source.execute("INSERT INTO orders SELECT g, 1, 'x', now() FROM generate_series(2000, 6999) g")
    orders.source.execute("ANALYZE orders")
    options = {"chunk_rows": "1000", "max_connections": "2"}
    orders.connection = orders.connection.model_copy(update={"options": options})
    reading: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def counted(cursor: Any, *rest: Any, **named: Any) -> Any:
        with lock:
            reading.append(1)
            most.append(len(reading))
        try:
            return land(cursor, *rest, **named)
        finally:
            with lock:
                reading.pop()

    monkeypatch.setattr("mozart.lake.extract.land", counted)
    twin = ORDERS.model_copy(update={"name": "twin"})
    results = orders.load_together([ORDERS, twin])
    assert [result.parts for result in results] == [6, 6]
    assert max(most) == 2
