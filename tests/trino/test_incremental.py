"""Incremental models on Trino: the delta alone is merged, and each engine goes on from what the other has published.

One tenant serves all tests, in their order: a model there costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mozart.engine.dbt_run import ModelEvent, build_models
from mozart.engine.trino_client import TrinoSession, open_trino
from mozart.engine.trino_models import TrinoModels
from mozart.lake.head import read_head
from mozart.services.seaweedfs import SeaweedFS
from mozart.services.trino import Trino
from mozart.tenancy.names import Namespaces, candidates_namespace
from tests.integration.engine.conftest import CASES, make_tiny, polled
from tests.integration.engine.incremental_case import PRODUCT, Results, Summed
from tests.integration.engine.unit_tests import UNIT_TESTS, WRONG
from tests.trino.conftest import Login

Build = Callable[..., Results]


@pytest.fixture(scope="module")
def summed(tiny_root: Path, seaweedfs: SeaweedFS, tiny_spaces: Namespaces) -> Summed:
    lakehouse = seaweedfs.lakehouse.model_copy(update={"prefix": "raw/trino-incremental"})
    return Summed.published(make_tiny(tiny_root, lakehouse, tiny_spaces.core))


@pytest.fixture(scope="module")
def build(summed: Summed, tiny_spaces: Namespaces, login: Login) -> Build:
    """Build on Trino with the tenant's own login; results by table."""
    address = login(tiny_spaces)

    def run(listener: Callable[[ModelEvent], None] = lambda _event: None) -> Results:
        request = summed.tiny.request(product=PRODUCT)
        results = build_models(request, summed.tiny.lakehouse, listener, TrinoModels(address))
        return Results({result.name: result for result in results})

    return run


@pytest.fixture
def readings(summed: Summed, trino: Trino) -> Iterator[list[object]]:
    """What a reader on Trino sees."""
    query = f"SELECT case_id, last_flow, total FROM iceberg.{summed.tiny.namespace}.mart_by_case ORDER BY 1"

    def ask() -> object:
        with open_trino(trino.address) as session:
            return session.execute(query)

    with polled(ask, pause=0) as seen:
        yield seen


def test_trino_goes_on_from_what_duckdb_published_and_duckdb_from_trino(
    summed: Summed, build: Build, readings: list[object], operator: TrinoSession
) -> None:
    before = summed.rows()
    summed.add((2, 10), (3, 4))
    summed.tiny.load("cases", CASES, [(1, "a", 10), (2, "b", 20), (3, "b", 30), (4, "c", 20), (5, "low", 1)])
    results = build()
    after = summed.full_query()
    assert results.outcome == ("published", 2), results.reason
    assert results["mart_by_case"].rows == 3
    assert results["mart_by_case"].tests_passed == 2
    assert summed.rows() == after
    assert summed.written() == (2, 1)
    assert summed.rows("mart_all") == [(3, 27)]
    assert results["mart_title"].merged_rows == 3, results["mart_title"].reason
    assert summed.rows("mart_title") == [("a", 10), ("b", 20), ("b", 30), ("c", 20)]
    catalog = summed.tiny.lakehouse.catalog()
    assert catalog.list_tables(candidates_namespace(summed.tiny.namespace)) == []
    head = read_head(catalog, (summed.tiny.namespace, "mart_by_case"))
    assert head.record
    assert not head.is_foreign
    assert head.record.rows == 2
    assert len(readings) > 3
    assert all(rows in (before, after) for rows in readings), readings

    assert summed.build().outcome == ("unchanged", None)
    summed.add((3, 1), (4, 1))
    on_duckdb = summed.build()
    assert on_duckdb.outcome == ("published", 2), on_duckdb.reason
    assert build().outcome == ("unchanged", None)
    query = f"SELECT case_id, last_flow, total FROM iceberg.{summed.tiny.namespace}.mart_by_case ORDER BY 1"
    assert summed.rows() == summed.full_query() == operator.execute(query)


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        ((1000, 1, -1000), "test non_negative_tiny__mart_by_case_total failed: 1 failing row"),
        ((1000, 1, 13), "unique_key (case_id) comes more than once for 1 of its values"),
        ((1000, 6, None), "mart_by_case breaks the product schema: column total is NULL in 1 row"),
    ],
    ids=["test", "key twice", "product schema"],
)
def test_a_delta_that_breaks_a_promise_keeps_the_last_version(
    summed: Summed, build: Build, flow: tuple[object, ...], reason: str
) -> None:
    before = summed.state()
    summed.load(flow)
    results = build()
    assert results["mart_by_case"].status == "failed"
    assert reason in results.reason
    assert results["mart_all"].status == "skipped"
    assert summed.state() == before


def test_nothing_new_is_noted_and_a_foreign_commit_is_not_built_upon(summed: Summed, build: Build) -> None:
    before = summed.rows()
    summed.load((0, 1, 100))  # below what the model looks for
    assert build().outcome == ("published", 0)
    assert summed.rows() == before

    def append(event: ModelEvent) -> None:
        if event.kind == "started" and event.name == "mart_by_case":
            table = summed.tiny.lakehouse.catalog().load_table((summed.tiny.namespace, "mart_by_case"))
            table.append(pa.table({name: [70] for name in ("case_id", "last_flow", "total")}))

    summed.add((1, 3))
    results = build(append)
    assert results["mart_by_case"].status == "failed"
    assert "was changed by another writer after the run was planned" in results.reason
    assert summed.rows() == [*before, (70, 70, 70)]
    assert build().outcome == ("published", None)
    assert summed.rows() == summed.full_query()

    summed.add((1, 1), (6, 2))
    on_duckdb = summed.build()
    assert on_duckdb.outcome == ("published", 2), on_duckdb.reason
    assert summed.rows() == summed.full_query()


def test_unit_tests_pass_and_hold_back_as_on_duckdb(summed: Summed, build: Build) -> None:
    summed.load()
    summed.tiny.write("mart/_unit.yml", UNIT_TESTS)
    results = build()
    assert results["mart_by_case"].tests_passed == 4, results.reason
    before = summed.state()
    summed.tiny.write("mart/_unit.yml", WRONG)
    summed.add((1, 1))
    results = build()
    assert results["mart_by_case"].status == "failed"
    assert "test adds_up_newer failed" in results.reason
    assert summed.state() == before
    summed.tiny.write("mart/_unit.yml", "version: 2\n")
    assert build()["mart_by_case"].status == "published"
