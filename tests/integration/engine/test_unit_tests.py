"""dbt's unit tests and hooks of an incremental model on DuckDB: what they see, and what they hold back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mozart.services.seaweedfs import SeaweedFS
from tests.integration.engine.conftest import make_tiny
from tests.integration.engine.incremental_case import BY_CASE, Summed
from tests.integration.engine.unit_tests import UNIT_TESTS, WRONG

FILE, UNIT_FILE = "mart/tiny__mart_by_case.sql", "mart/_unit.yml"


@pytest.fixture(scope="module")
def published(tiny_root: Path, seaweedfs: SeaweedFS) -> Summed:
    return Summed.published(make_tiny(tiny_root, seaweedfs.lakehouse.model_copy(update={"prefix": "raw/unit-tests"})))


@pytest.fixture
def summed(published: Summed) -> Iterator[Summed]:
    """The published mart; its file as it was, afterwards."""
    yield published
    published.tiny.write(FILE, BY_CASE)
    published.tiny.write(UNIT_FILE, "version: 2\n")


def with_hook(sql: str) -> str:
    return BY_CASE.replace("unique_key='case_id')", f"unique_key='case_id', post_hook=\"{sql}\")")


def test_inputs_that_are_not_built_now_have_the_columns_of_the_published_tables(summed: Summed) -> None:
    before = summed.state()
    summed.tiny.write(UNIT_FILE, UNIT_TESTS)
    results = summed.build()
    assert results["stg_flows"].status == "unchanged"
    assert (results["mart_by_case"].status, results["mart_by_case"].tests_passed) != ("failed", 0), results.reason
    assert results["mart_by_case"].tests_passed == 4, results.reason
    assert summed.rows() == before[0]


def test_changed_code_is_tested_beside_the_published_rows(summed: Summed) -> None:
    summed.tiny.write(UNIT_FILE, UNIT_TESTS)
    summed.tiny.write(FILE, f"-- changed\n{BY_CASE}")
    results = summed.build()
    assert results.outcome == ("published", None), results.reason
    assert results["mart_by_case"].tests_passed == 4


def test_a_unit_test_that_fails_keeps_the_last_version(summed: Summed) -> None:
    before = summed.state()
    summed.tiny.write(UNIT_FILE, WRONG)
    summed.add((1, 1))
    results = summed.build()
    assert results["mart_by_case"].status == "failed"
    assert "test adds_up_newer failed: 1 failing row; actual differs from expected" in results.reason
    assert "6→5" in results.reason
    assert summed.state() == before


def test_a_changed_override_is_a_changed_test(summed: Summed) -> None:
    summed.tiny.write(UNIT_FILE, UNIT_TESTS)
    assert summed.build()["mart_by_case"].status != "failed"
    summed.tiny.write(UNIT_FILE, UNIT_TESTS.replace("is_incremental: true", "is_incremental: false"))
    results = summed.build()
    assert results["mart_by_case"].status == "failed"
    assert "test adds_up_newer failed" in results.reason


def test_a_hook_may_read_what_was_built_and_not_write_into_merged_rows(summed: Summed) -> None:
    summed.tiny.write(FILE, with_hook("select 1 / count(*) from {{ this }} where total > 0"))
    assert summed.build().outcome == ("published", None)
    summed.add((2, 1))
    assert summed.build().outcome == ("published", 1)

    summed.tiny.write(FILE, with_hook("delete from {{ this }} where case_id = -1"))
    assert summed.build().outcome == ("published", None)
    before = summed.state()
    summed.add((2, 1))
    results = summed.build()
    assert results["mart_by_case"].status == "failed"
    assert "Can only delete from base table" in results.reason
    assert summed.state() == before
