"""Incremental models on DuckDB and a real lake: what is computed, what is merged, and what keeps the last version.

One tenant serves all tests, for each build costs seconds: a test loads flows of its own beside those that are there,
and asks for the rows that the full query gives. What needs no dbt is in `test_publish.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mozart.lake.commit import read_head
from mozart.services.seaweedfs import SeaweedFS
from tests.integration.engine.conftest import CASES, make_tiny, polled
from tests.integration.engine.incremental_case import Summed


@pytest.fixture(scope="module")
def summed(tiny_root: Path, seaweedfs: SeaweedFS) -> Summed:
    return Summed.published(make_tiny(tiny_root, seaweedfs.lakehouse.model_copy(update={"prefix": "raw/incremental"})))


@pytest.fixture
def readings(summed: Summed) -> Iterator[list[object]]:
    with polled(summed.rows) as seen:
        yield seen


def test_only_what_changed_is_computed_and_written(summed: Summed, readings: list[object]) -> None:
    before = summed.rows()
    summed.add((2, 10), (3, 4))
    summed.tiny.load("cases", CASES, [(1, "a", 10), (2, "b", 20), (3, "b", 30), (4, "c", 20), (5, "low", 1)])
    results = summed.build()
    after = summed.full_query()
    assert results.outcome == ("published", 2), results.reason
    assert results["mart_by_case"].rows == 3
    assert results["mart_by_case"].tests_passed == 2
    assert summed.rows() == after == [(1, 2, 12), (2, 4, 11), (3, 5, 4)]
    assert summed.written() == (2, 1)
    record = read_head(summed.tiny.lakehouse.catalog(), (summed.tiny.namespace, "mart_by_case")).record
    assert record is not None
    assert (record.mode, record.rows) == ("publish", 2)

    assert summed.rows("mart_all") == [(3, 27)]
    assert results["mart_title"].merged_rows == 3, results["mart_title"].reason
    assert summed.rows("mart_title") == [("a", 10), ("b", 20), ("b", 30), ("c", 20)]
    assert summed.build().outcome == ("unchanged", None)
    assert len(readings) > 3
    assert all(rows in (before, after) for rows in readings), readings


def test_nothing_new_leaves_the_rows_and_a_full_refresh_finds_what_was_not_looked_for(summed: Summed) -> None:
    before = summed.rows()
    summed.flows.append((0, 1, 100))  # below what the model looks for
    summed.load()
    assert summed.build().outcome == ("published", 0)
    assert summed.rows() == before
    assert summed.written() == (0, 0)
    assert summed.build().outcome == ("unchanged", None)
    assert summed.build(full_refresh=True).outcome == ("published", None)
    assert summed.rows() == summed.full_query() != before


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        ((1000, 1, -1000), "test non_negative_tiny__mart_by_case_total failed: 1 failing row"),
        ((1000, 1, 13), "unique_key (case_id) comes more than once for 1 of its values"),
        ((1000, None, 1), "unique_key (case_id) is NULL in 1 of the computed rows"),
        ((1000, 6, None), "mart_by_case breaks the product schema: column total is NULL in 1 row"),
    ],
    ids=["test", "key twice", "key missing", "product schema"],
)
def test_a_delta_that_breaks_a_promise_keeps_the_last_version(
    summed: Summed, flow: tuple[object, ...], reason: str
) -> None:
    before = summed.state()
    summed.load(flow)
    results = summed.build()
    assert results["mart_by_case"].status == "failed"
    assert reason in results.reason
    assert results["mart_all"].status == "skipped"
    assert summed.state() == before


def test_small_files_are_folded_and_a_compaction_while_it_is_computed_changes_nothing(
    summed: Summed, tmp_path: Path
) -> None:
    summed.add((2, 1))
    assert summed.build().outcome == ("published", 1)
    summed.add((2, 2), (5, 3))
    done: list[str] = []
    results = summed.while_computing(lambda: done.append(summed.compact(tmp_path / "while")))
    assert done == ["compacted"]
    assert results.outcome == ("published", 2), results.reason
    assert summed.rows() == summed.full_query()
    assert summed.compact(tmp_path / "after") == "compacted"
    assert summed.build().outcome == ("unchanged", None)
    assert summed.rows() == summed.full_query()


def test_a_foreign_commit_while_it_is_computed_is_not_built_upon(summed: Summed) -> None:
    def append() -> None:
        table = summed.tiny.lakehouse.catalog().load_table((summed.tiny.namespace, "mart_by_case"))
        table.append(pa.table({name: [70] for name in ("case_id", "last_flow", "total")}))

    before = summed.rows()
    summed.add((1, 3))
    results = summed.while_computing(append)
    assert results["mart_by_case"].status == "failed"
    assert "was changed by another writer after the run was planned" in results.reason
    assert results["mart_all"].status == "skipped"
    assert summed.rows() == [*before, (70, 70, 70)]
    assert summed.build().outcome == ("published", None)  # whole: nobody knows what the other one did
    assert summed.rows() == summed.full_query()


def test_changed_code_means_a_whole_build_and_a_delta_keeps_the_contract(summed: Summed) -> None:
    model = "mart/tiny__mart_by_case.sql"
    broken = "select {% if is_incremental() %}cast(case_id as integer) as case_id{% else %}case_id{% endif %},"
    summed.tiny.edit(model, "select case_id,", broken)
    summed.load()
    assert summed.build().outcome == ("published", None)
    before = summed.state()
    summed.add((1, 1))
    results = summed.build()
    assert results["mart_by_case"].status == "failed"
    assert "contract" in results.reason
    assert summed.state() == before
