"""Models on Trino: published when they passed, whole or not at all, on the same tables that the other engine serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest
from pydantic import SecretStr

from mozart.engine.dbt_run import ModelResult, build_models
from mozart.engine.trino_client import TrinoAddress, TrinoSession, open_trino
from mozart.engine.trino_models import TrinoModels
from mozart.errors import TransientError
from mozart.lake.head import FINGERPRINT, read_head
from mozart.services.ports import find_free_ports
from mozart.services.trino import Trino
from mozart.tenancy.names import Namespaces, candidates_namespace
from tests.integration.engine.conftest import CASES, FLOWS, TinyTenant, polled
from tests.trino.conftest import Login

Build = Callable[..., Mapping[str, ModelResult]]


@pytest.fixture
def build(tiny: TinyTenant, tiny_spaces: Namespaces, login: Login) -> Build:
    """Build the tiny tenant's models on Trino, with its own login; results by table."""
    address = login(tiny_spaces)

    def run(**changes: object) -> Mapping[str, ModelResult]:
        results = build_models(tiny.request(**changes), tiny.lakehouse, tiny.events.append, TrinoModels(address))
        return {result.name: result for result in results}

    return run


def _statuses(results: Mapping[str, ModelResult]) -> dict[str, str]:
    return {name: result.status for name, result in results.items()}


ALL = ("stg_cases", "stg_flows", "mart_case", "mart_title")


def test_models_are_published_with_their_record_and_candidates_go(tiny: TinyTenant, build: Build) -> None:
    results = build()
    assert _statuses(results) == dict.fromkeys(ALL, "published"), [result.reason for result in results.values()]
    assert tiny.rows("mart_case") == [(1, "a", 12), (2, "b", 0)]
    assert results["mart_case"].tests_passed == 2
    catalog = tiny.lakehouse.catalog()
    head = read_head(catalog, (tiny.namespace, "mart_case"))
    assert head.record
    assert not head.is_foreign
    assert (head.record.rows, head.record.mode) == (2, "publish")
    assert head.record.details[FINGERPRINT]
    assert catalog.list_tables(candidates_namespace(tiny.namespace)) == []
    assert tiny.secrets_in_state() == []


def test_engines_take_over_from_each_other_without_rebuilding(tiny: TinyTenant, build: Build) -> None:
    assert _statuses(build()) == dict.fromkeys(ALL, "published")
    on_duckdb = tiny.build()
    assert _statuses(on_duckdb) == dict.fromkeys(ALL, "unchanged")
    tiny.load("cases", CASES, [(1, "a", 10), (2, "c", 20), (3, "c", 1)])
    assert _statuses(tiny.build())["mart_title"] == "published"
    assert _statuses(build()) == dict.fromkeys(ALL, "unchanged")
    tiny.load("cases", CASES, [(7, "z", 1)])
    assert _statuses(build())["mart_title"] == "published"
    assert tiny.rows("mart_title") == [("z", 1)]


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("mart/tiny__mart_title.sql", "count(*) as cases", "cast(count(*) as varchar) as cases", "contract"),
        ("mart/tiny__mart_title.sql", "select title,", "select nullif(title, 'b') as title,", "not_null"),
        ("mart/tiny__mart_title.sql", "count(*) as cases", "count(*) / 0 as cases", "DIVISION_BY_ZERO"),
    ],
)
def test_a_broken_model_keeps_the_last_good_version(
    tiny: TinyTenant, build: Build, file: str, old: str, new: str, reason: str
) -> None:
    assert _statuses(tiny.build()) == dict.fromkeys(ALL, "published")  # on DuckDB, which is quicker
    before = tiny.rows("mart_title"), tiny.snapshots("mart_title")
    tiny.edit(file, old, new)
    tiny.load("cases", CASES, [(1, "a", 10), (2, "b", 20), (3, "d", 30)])
    results = build()
    assert results["mart_title"].status == "failed"
    assert reason in (results["mart_title"].reason or "")
    assert results["mart_case"].status == "published"
    assert (tiny.rows("mart_title"), tiny.snapshots("mart_title")) == before


def test_sources_are_read_at_the_snapshot_of_the_plan(tiny: TinyTenant, build: Build) -> None:
    """Rows that arrive while dbt runs belong to the next run."""
    arrived = threading.Event()
    plain = tiny.events.append

    def load_more(event: object) -> None:
        if not arrived.is_set():
            arrived.set()
            tiny.load("flows", FLOWS, [(1, 1, 1000)])
        plain(event)  # type: ignore[arg-type]

    tiny.events = _Listening(load_more)  # type: ignore[assignment]
    assert _statuses(build())["mart_case"] == "published"
    assert arrived.is_set()
    assert tiny.rows("mart_case") == [(1, "a", 12), (2, "b", 0)]


class _Listening(list[object]):
    def __init__(self, listener: Callable[[object], None]) -> None:
        super().__init__()
        self.append = listener  # type: ignore[method-assign]


def test_readers_see_the_old_rows_or_the_new_ones(
    tiny: TinyTenant, build: Build, trino: Trino, operator: TrinoSession
) -> None:
    """A mart is published over and over while it is read on both engines: never missing, empty or half."""
    tiny.build()
    tables = f"iceberg.{tiny.namespace}.mart_title"

    def on_trino() -> tuple[object, ...]:
        with open_trino(trino.address) as session:
            return session.fetch_one(f"SELECT count(*), min(cases), max(cases) FROM {tables}")

    def on_duckdb() -> tuple[object, ...]:
        rows = tiny.rows("mart_title")
        counts = [int(str(row[1])) for row in rows]
        return len(rows), min(counts), max(counts)

    with polled(on_trino, pause=0) as by_trino, polled(on_duckdb, pause=0) as by_duckdb:
        for copies in (3, 4):  # as many titles as rows of each, so that a mixture shows
            tiny.load("cases", CASES, [(i, f"t{i % copies}", 1) for i in range(copies * copies)])
            assert _statuses(build())["mart_title"] == "published"
    seen = by_trino + by_duckdb
    assert len(seen) > 6
    assert set(seen) <= {(2, 1, 1), (3, 3, 3), (4, 4, 4)}, seen
    assert len(set(seen)) > 1
    assert operator.fetch_one(f"SELECT count(*) FROM {tables}") == (4,)


def test_a_model_cannot_read_another_tenant(
    tiny: TinyTenant, build: Build, operator: TrinoSession, namespace: str
) -> None:
    operator.execute(f"CREATE TABLE iceberg.{namespace}.secret AS SELECT 'theirs' AS title")
    tiny.write(
        "mart/tiny__mart_title.sql",
        f"{{{{ config(alias='mart_title') }}}}\n"
        f"select title, count(*) as cases from iceberg.{namespace}.secret group by title\n",
    )
    results = build()
    assert results["mart_title"].status == "failed"
    assert not tiny.is_published("mart_title")


def test_a_server_that_is_gone_is_asked_again_and_the_lake_keeps_what_it_has(tiny: TinyTenant) -> None:
    tiny.build()
    before = {table: tiny.snapshots(table) for table in ALL}
    nowhere = TrinoAddress(
        host="127.0.0.1", port=find_free_ports(1)[0], username="nobody", password=SecretStr("pw-of-nobody")
    )
    tiny.load("cases", CASES, [(9, "new", 1)])
    with pytest.raises(TransientError, match="tried 2 times") as caught:
        build_models(tiny.request(), tiny.lakehouse, tiny.events.append, TrinoModels(nowhere, pauses=(0.0,)))
    assert "pw-of-nobody" not in str(caught.value)
    assert {table: tiny.snapshots(table) for table in ALL} == before
