"""The delete pass against a real source: what is gone there goes from raw, and no living row ever does."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from mozart.connectors.registry import create_connector
from mozart.errors import CommitConflictError, DataQualityError, TerminalError
from mozart.lake import commit, delete_pass
from mozart.lake.compaction import CompactionPolicy
from mozart.lake.delete_pass import DeleteOptions, DeleteResult, remove_deleted_rows
from mozart.lake.load_plan import LoadRequest
from mozart.lake.publish import lake_state
from mozart.lake.session import open_lake
from mozart.tenancy.model import SoftDelete, TableSpec
from tests.integration.lake.test_load import ORDERS, PLAIN, assert_equal

Progress = Callable[[str], None]
SOFT = ORDERS.model_copy(update={"soft_delete": SoftDelete(column="deleted_at")})


@pytest.fixture
def orders(bench: Any) -> Any:
    """200 rows, an hour old, loaded."""
    bench.source.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, note text, deleted_at timestamptz, "
        "updated_at timestamptz NOT NULL DEFAULT now())"
    )
    bench.source.execute(
        "INSERT INTO orders SELECT g, 'n' || g, NULL, now() - interval '1 hour' + g * interval '1 second' "
        "FROM generate_series(1, 200) g"
    )
    bench.load(ORDERS)
    return bench


def remove(
    bench: Any, spec: TableSpec = ORDERS, progress: Progress = lambda _line: None, *, equals: Any = None, **options: Any
) -> DeleteResult:
    """One pass over one table, in a run of its own."""
    bench.runs += 1
    number = bench.runs
    connector = create_connector(bench.connection, application="mozart/test")
    request = LoadRequest("test", bench.namespace, spec, f"run{number}", equals=equals or {})
    attempts = iter(range(100))

    def session() -> Any:
        return open_lake(
            bench.lakehouse,
            scratch=bench.folder / f"pass{number}-{next(attempts)}",
            extensions=connector.extensions,
            extension_folder=bench.folder / "extensions",
        )

    return remove_deleted_rows(request, connector, session, DeleteOptions(**options), progress)


def test_rows_gone_at_the_source_go_from_raw(orders: Any) -> None:
    orders.source.execute("DELETE FROM orders WHERE id % 10 = 0")
    orders.source.execute("UPDATE orders SET id = 1005, updated_at = now() - interval '1 min' WHERE id = 5")
    assert orders.load(ORDERS).rows_committed == 1
    watermark = orders.record("orders")["mozart.watermark"]
    result = remove(orders)
    assert (result.status, result.found_by, result.rows_compared, result.rows_removed) == ("removed", "keys", 201, 21)
    record = orders.record("orders")
    assert (record["mozart.watermark"], record["mozart.mode"]) == (watermark, "delete_pass")
    assert_equal(orders)
    assert remove(orders).status == "unchanged"
    assert orders.load(ORDERS).status == "unchanged"
    orders.source.execute("UPDATE orders SET note = 'x', updated_at = now() WHERE id = 7")
    assert orders.load(ORDERS).mode == "incremental"
    assert_equal(orders)


def test_marts_see_that_rows_went(orders: Any) -> None:
    """Unlike a compaction, a delete pass changes the version that models are built on."""
    identifier = (orders.namespace, "orders")
    orders.source.execute("UPDATE orders SET note = 'x', updated_at = now() WHERE id = 2")
    orders.load(ORDERS, compaction=CompactionPolicy(delete_files=0, rows_per_file=10**9))
    assert orders.record("orders")["mozart.mode"] == "maintenance"
    before = lake_state(commit.read_head(orders.lakehouse.catalog(), identifier)).version
    orders.source.execute("DELETE FROM orders WHERE id = 1")
    remove(orders)
    assert lake_state(commit.read_head(orders.lakehouse.catalog(), identifier)).version != before


def test_more_than_the_allowed_share_needs_consent(orders: Any) -> None:
    orders.source.execute("DELETE FROM orders WHERE id <= 41")
    with pytest.raises(DataQualityError, match=r"test\.orders: 41 of 200 rows \(20%\).*consent"):
        remove(orders)
    assert len(orders.raw("orders")) == 200
    assert remove(orders, dry_run=True, max_share=0.3).status == "planned"
    assert len(orders.raw("orders")) == 200
    assert remove(orders, max_share=0.205).rows_removed == 41
    orders.source.execute("TRUNCATE orders")
    with pytest.raises(DataQualityError, match="100%"):
        remove(orders)
    assert remove(orders, consent=True).rows_removed == 159
    assert orders.raw("orders") == []


def test_rows_newer_than_the_snapshot_stay(orders: Any) -> None:
    """A row committed and loaded between the pass's snapshot and its comparison."""
    orders.source.execute("DELETE FROM orders WHERE id = 1")
    loads: list[Any] = []

    def meanwhile(line: str) -> None:
        if line.startswith("read the keys") and not loads:
            orders.source.execute("INSERT INTO orders VALUES (900, 'new', NULL, now() - interval '30 min')")
            loads.append(orders.load(ORDERS, full_refresh=True))

    result = remove(orders, progress=meanwhile)
    assert loads[0].status == "committed" and result.attempts == 2
    assert_equal(orders)


def test_the_head_is_taken_before_the_snapshot(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the head taken after the snapshot, a row that came in between (backdated, to pass the bound) is lost."""
    true_keys = delete_pass._Pass._read_keys

    def load_between(self: Any, *arguments: Any) -> None:
        true_keys(self, *arguments)
        orders.source.execute("INSERT INTO orders VALUES (901, 'new', NULL, now() - interval '30 min')")
        orders.load(ORDERS, full_refresh=True)
        self.head = commit.read_head(self.lake.catalog, (self.request.namespace, self.request.spec.name))

    monkeypatch.setattr(delete_pass._Pass, "_read_keys", load_between)
    assert remove(orders).rows_removed == 1
    assert orders.raw("orders", "id", "1")[-1] == (200,)


def test_rows_above_the_safe_bound_wait_for_the_next_pass(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an open transaction may still touch is not judged: a lagging replica shows the same picture."""
    orders.source.execute("INSERT INTO orders VALUES (300, 'new', NULL, clock_timestamp())")
    blocker = psycopg.connect(orders.source.info.dsn, password=orders.source.info.password)
    blocker.execute("UPDATE orders SET note = 'held' WHERE id = 2")
    orders.source.execute("INSERT INTO orders VALUES (301, 'newer', NULL, clock_timestamp())")
    orders.load(ORDERS)
    orders.source.execute("DELETE FROM orders WHERE id IN (3, 301)")
    assert remove(orders).rows_removed == 1
    assert orders.raw("orders", "count(*)", "1") == [(201,)]
    blocker.rollback()
    blocker.close()
    monkeypatch.setattr("mozart.lake.load_plan._MARGIN", timedelta())  # instead of waiting for it
    assert remove(orders).rows_removed == 1
    assert_equal(orders)


def test_a_load_at_the_same_time_and_the_pass_both_land(orders: Any) -> None:
    orders.source.execute("DELETE FROM orders WHERE id = 1")
    loads: list[Any] = []

    def meanwhile(line: str) -> None:
        if line.startswith("compared") and not loads:
            orders.source.execute("UPDATE orders SET note = 'x', updated_at = now() WHERE id = 2")
            loads.append(orders.load(ORDERS))

    result = remove(orders, progress=meanwhile)
    assert (result.attempts, result.rows_removed, loads[0].status) == (2, 1, "committed")
    assert_equal(orders)


def test_a_pass_that_never_gets_its_turn_says_so(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete_pass, "_ATTEMPTS", 2)
    orders.source.execute("DELETE FROM orders WHERE id = 1")

    def always(line: str) -> None:
        if line.startswith("compared"):
            orders.source.execute("UPDATE orders SET note = note || 'x', updated_at = clock_timestamp() WHERE id = 2")
            orders.load(ORDERS)

    with pytest.raises(CommitConflictError):
        remove(orders, progress=always)
    assert len(orders.raw("orders")) == 200


def test_composite_keys_with_the_tenants_filter(bench: Any) -> None:
    bench.source.execute(
        'CREATE TABLE items (tenant text, "Pos" int, "Größe" text, updated_at timestamptz, PRIMARY KEY (tenant, "Pos"))'
    )
    bench.source.execute(
        "INSERT INTO items SELECT t, g, 'v', now() - interval '1 h' FROM generate_series(1, 20) g, "
        "unnest(ARRAY['o''brien', 'other']) t"
    )
    spec = TableSpec(
        name="items",
        source_schema="public",
        source_table="items",
        primary_key=("tenant", "Pos"),
        incremental_column="updated_at",
        mode="incremental",
    )
    mine = {"tenant": "o'brien"}
    bench.load(spec, equals=mine)
    bench.source.execute("DELETE FROM items WHERE \"Pos\" = 4 OR tenant = 'other'")
    assert remove(bench, spec, equals=mine).rows_removed == 1
    assert bench.raw("items", "count(*), count(*) FILTER (pos = 4)") == [(19, 0)]
    # a filter that was changed shows other keys; the next load reads in full, and the pass keeps its hands off
    assert remove(bench, spec, equals={"tenant": "other"}).status == "skipped"
    assert len(bench.raw("items")) == 19


def test_a_table_made_anew_or_not_loaded_or_replaced_each_time_is_skipped(orders: Any) -> None:
    orders.source.execute("CREATE TABLE plain (a int)")
    orders.load(PLAIN)
    assert "full refresh" in remove(orders, PLAIN).reason
    assert "record" in remove(orders, ORDERS.model_copy(update={"name": "never"})).reason
    orders.source.execute("ALTER TABLE orders RENAME TO old; CREATE TABLE orders (LIKE old INCLUDING ALL)")
    result = remove(orders)
    assert result.status == "skipped" and "made anew" in result.reason
    assert len(orders.raw("orders")) == 200


def test_a_soft_delete_column_says_what_is_gone(orders: Any) -> None:
    orders.source.execute("UPDATE orders SET deleted_at = now(), updated_at = now() - interval '5 min' WHERE id <= 7")
    orders.load(SOFT)
    orders.source.execute("DELETE FROM orders WHERE id = 100")  # nothing is compared by key
    result = remove(orders, SOFT)
    assert (result.status, result.found_by, result.rows_removed) == ("removed", "column", 7)
    assert orders.raw("orders", "count(*), min(id)") == [(193, 8)]
    assert orders.load(SOFT).status == "unchanged"
    assert remove(orders, SOFT).status == "unchanged"


def test_a_soft_deleted_row_above_the_watermark_waits(orders: Any) -> None:
    """It would be read again by the next load, and come and go for ever."""
    blocker = psycopg.connect(orders.source.info.dsn, password=orders.source.info.password)
    blocker.execute("SELECT count(*) FROM orders")
    orders.source.execute(
        "UPDATE orders SET deleted_at = now(), updated_at = clock_timestamp() + interval '1 s' WHERE id = 1"
    )
    orders.load(SOFT)
    assert remove(orders, SOFT).status == "unchanged"
    assert orders.load(SOFT).status == "unchanged"
    blocker.close()


@pytest.mark.parametrize(
    ("kind", "dead", "alive"), [("boolean", "true", "false"), ("int", "1", "0"), ("date", "'2024-01-01'", "NULL")]
)
def test_kinds_of_soft_delete_columns(bench: Any, kind: str, dead: str, alive: str) -> None:
    bench.source.execute(f"CREATE TABLE orders (id int PRIMARY KEY, gone {kind}, updated_at timestamptz)")
    bench.source.execute(
        f"INSERT INTO orders SELECT g, CASE WHEN g = 3 THEN {dead} ELSE {alive} END::{kind}, now() - interval '1 h' "
        "FROM generate_series(1, 20) g"
    )
    spec = ORDERS.model_copy(update={"soft_delete": SoftDelete(column="Gone")})
    bench.load(spec)
    assert remove(bench, spec).rows_removed == 1
    assert bench.raw("orders", "count(*) FILTER (id = 3)") == [(0,)]


def test_a_soft_delete_column_must_be_there_and_make_sense(orders: Any) -> None:
    for column, message in (("note", "must be a boolean"), ("missing", "no column 'missing'")):
        with pytest.raises(TerminalError, match=message):
            remove(orders, ORDERS.model_copy(update={"soft_delete": SoftDelete(column=column)}))


def test_random_interleavings_of_source_loads_and_passes(
    orders: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Writes and loads at every point of a pass; raw never lacks a row that was loaded and lives."""
    chance = random.Random(seed)  # noqa: S311 - a seed to be repeated
    policy = CompactionPolicy(small_files=3, delete_files=2)
    commit_now = "clock_timestamp()"

    def write() -> None:
        ids = tuple(chance.sample(range(1, 230), 4))
        kind = chance.choice(["insert", "update", "delete", "rekey", "reinsert"])
        if kind in ("delete", "reinsert"):
            orders.source.execute("DELETE FROM orders WHERE id = ANY(%s)", [list(ids)])
        if kind in ("insert", "reinsert"):
            orders.source.execute(
                f"INSERT INTO orders SELECT id, 'i', NULL, {commit_now} FROM unnest(%s::bigint[]) id "
                f"ON CONFLICT (id) DO UPDATE SET note = 'u', updated_at = {commit_now}",
                [list(ids)],
            )
        if kind == "update":
            orders.source.execute(
                f"UPDATE orders SET note = note || '.', updated_at = {commit_now} WHERE id = ANY(%s)", [list(ids)]
            )
        if kind == "rekey":
            orders.source.execute(
                f"UPDATE orders SET id = id + 10000, updated_at = {commit_now} WHERE id = %s", [ids[0]]
            )

    def load() -> None:
        orders.load(ORDERS, full_refresh=chance.random() < 0.15, compaction=policy)

    def meanwhile(line: str) -> None:
        if line.startswith(("read the keys", "compared")) and chance.random() < 0.4:
            write()
            if chance.random() < 0.7:
                load()
                check()

    def check() -> None:
        """Right after a load: every row of the source is in raw as it is."""
        wanted = {tuple(map(str, row)) for row in orders.source.execute("SELECT * FROM orders").fetchall()}
        assert wanted <= {tuple(map(str, row)) for row in orders.raw("orders")}

    for _ in range(8):
        write()
        if chance.random() < 0.6:
            load()
            check()
        if chance.random() < 0.6:
            remove(orders, progress=meanwhile, consent=True)
    load()
    check()
    monkeypatch.setattr("mozart.lake.load_plan._MARGIN", timedelta())  # instead of waiting for it
    remove(orders, consent=True)
    assert_equal(orders)
