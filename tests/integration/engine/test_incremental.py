"""Incremental models on DuckDB and a real lake: what is computed, what is merged, and what keeps the last version.

One tenant serves all tests, for each build costs seconds: a test loads flows of its own beside those that are there,
and asks for the rows that the full query gives. What needs no dbt is in `test_publish.py`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from mozart.engine.dbt_run import ModelEvent, ModelResult, build_models
from mozart.lake.commit import read_head
from mozart.lake.compaction import CompactionPolicy, compact_table
from mozart.lake.session import open_lake
from mozart.services.seaweedfs import SeaweedFS
from mozart.tenancy.product_schema import Mart, MartColumn, ProductSchema
from tests.integration.engine.conftest import CASES, FLOWS, TinyTenant, make_tiny

# Flows of amount 13 are a row of their own in a delta, so that a key comes twice.
BY_CASE = """\
{{ config(alias='mart_by_case', materialized='incremental', unique_key='case_id') }}
select case_id, cast(max(id) as bigint) as last_flow, cast(sum(amount) as bigint) as total
from {{ ref('tiny__stg_flows') }} flows
{% if is_incremental() %}
where exists (
    select 1 from {{ ref('tiny__stg_flows') }} newer
    where newer.case_id is not distinct from flows.case_id
        and newer.id > (select coalesce(max(last_flow), 0) from {{ this }})
)
group by case_id, case when amount = 13 then id end
{% else %}
group by case_id
{% endif %}
"""

ALL_TOTAL = """\
{{ config(alias='mart_all') }}
select cast(count(*) as bigint) as cases, cast(sum(total) as bigint) as total from {{ ref('tiny__mart_by_case') }}
"""

# Asks `this` while it is rendered, as dbt's documentation does to find the newest row.
TITLES = """\
{{ config(alias='mart_title', materialized='incremental', unique_key=['title', 'cases'],
    incremental_strategy='merge', on_schema_change='fail') }}
{% if is_incremental() %}
    {% set least = run_query('select max(cases) from ' ~ this).rows[0][0] %}
{% else %}
    {% set least = 0 %}
{% endif %}
select title, cast(amount as bigint) as cases from {{ ref('tiny__stg_cases') }} where amount >= {{ least }}
"""

PROPERTIES = """\
version: 2
models:
  - name: tiny__mart_by_case
    columns:
      - {name: case_id, data_type: bigint, data_tests: [unique]}
      - {name: last_flow, data_type: bigint}
      - {name: total, data_type: bigint, data_tests: [{non_negative: {}}]}
  - name: tiny__mart_all
    columns:
      - {name: cases, data_type: bigint}
      - {name: total, data_type: bigint}
"""

Rows = list[tuple[object, ...]]


def _mart(name: str, key: tuple[str, ...], *counts: str) -> Mart:
    kinds = {"title": "string"}
    columns = (MartColumn(name=column, type=kinds.get(column, "long"), description=".") for column in (*key, *counts))
    return Mart(name=name, description=".", key=key, columns=tuple(columns))


PRODUCT = ProductSchema(
    version=1,
    marts=(
        _mart("mart_by_case", ("case_id",), "last_flow", "total"),
        _mart("mart_case", ("case_id",), "title", "total"),
        _mart("mart_all", ("cases",), "total"),
        _mart("mart_title", ("title", "cases")),
    ),
)


class Summed:
    """The tenant, the flows it has loaded, and the mart that adds them up by case."""

    def __init__(self, tiny: TinyTenant) -> None:
        self.tiny = tiny
        self.ids = itertools.count(1)
        self.flows: list[tuple[int, int, int]] = []

    def add(self, *flows: tuple[int, int]) -> None:
        """Load new flows (case, amount) beside the others."""
        self.flows += [(next(self.ids), case, amount) for case, amount in flows]
        self.load()

    def load(self, *more: tuple[object, ...]) -> None:
        """Load the flows, and `more` for this once."""
        self.tiny.load("flows", FLOWS, [*self.flows, *more])

    def full_query(self) -> Rows:
        """What the mart holds when all flows are in it."""
        cases = sorted({case for _, case, _ in self.flows})
        of_case = {case: [flow for flow in self.flows if flow[1] == case] for case in cases}
        return [
            (case, max(flow[0] for flow in found), sum(flow[2] for flow in found)) for case, found in of_case.items()
        ]

    def build(self, listener: Callable[[ModelEvent], None] = lambda _event: None, **changes: object) -> _Results:
        results = build_models(self.tiny.request(product=PRODUCT, **changes), self.tiny.lakehouse, listener)
        return _Results({result.name: result for result in results})

    def while_computing(self, act: Callable[[], None]) -> _Results:
        """A build during which `act` happens once, after the plan and before anything is published."""
        done: list[str] = []

        def listen(event: ModelEvent) -> None:
            if event.kind == "started" and not done:
                done.append(event.name)
                act()

        results = self.build(listen)
        assert done
        return results

    def rows(self, table: str = "mart_by_case") -> Rows:
        return self.tiny.rows(table)

    def state(self) -> tuple[Rows, list[int]]:
        return self.rows(), self.tiny.snapshots("mart_by_case")

    def written(self) -> tuple[int, int]:
        """Rows in the data files and in the delete files of the newest commit."""
        snapshot = self.tiny.lakehouse.catalog().load_table((self.tiny.namespace, "mart_by_case")).current_snapshot()
        assert snapshot is not None
        assert snapshot.summary is not None
        properties = snapshot.summary.additional_properties
        return int(properties.get("added-records", 0)), int(properties.get("added-position-deletes", 0))

    def compact(self, folder: Path) -> str:
        """What maintenance does when a delta's two files are too many."""
        eager = CompactionPolicy(small_files=1, delete_files=0)
        with open_lake(self.tiny.lakehouse, scratch=folder, memory="200MB") as lake:
            return compact_table(lake, (self.tiny.namespace, "mart_by_case"), run_id="care", policy=eager).status


class _Results(dict[str, ModelResult]):
    def __init__(self, results: Mapping[str, ModelResult]) -> None:
        super().__init__(results)

    @property
    def outcome(self) -> tuple[str, int | None]:
        """The mart's status, and how many rows were merged."""
        return self["mart_by_case"].status, self["mart_by_case"].merged_rows

    @property
    def reason(self) -> str:
        return self["mart_by_case"].reason or ""


@pytest.fixture(scope="module")
def summed(tiny_root: Path, seaweedfs: SeaweedFS) -> Summed:
    """The mart, one that reads it, and one with a key of two columns, each published once."""
    lakehouse = seaweedfs.lakehouse.model_copy(update={"prefix": "raw/incremental"})
    tiny = make_tiny(tiny_root, lakehouse)
    tiny.write("mart/tiny__mart_by_case.sql", BY_CASE)
    tiny.write("mart/tiny__mart_all.sql", ALL_TOTAL)
    tiny.write("mart/tiny__mart_title.sql", TITLES)
    tiny.write("mart/_incremental.yml", PROPERTIES)
    summed = Summed(tiny)
    summed.add((1, 5), (1, 7), (2, 1))
    results = summed.build()
    assert results.outcome == ("published", None), results.reason
    assert results["mart_title"].status == "published", results["mart_title"].reason
    assert summed.rows() == summed.full_query() == [(1, 2, 12), (2, 3, 1)]
    return summed


@pytest.fixture
def readings(summed: Summed) -> Iterator[list[object]]:
    """What a reader sees who asks all the time."""
    seen: list[object] = []
    over = threading.Event()

    def poll() -> None:
        while not over.wait(0.1):  # a reader, not a load test
            try:
                seen.append(summed.rows())
            except Exception as error:  # noqa: BLE001 - any failure to read is the finding
                seen.append(error)

    reader = threading.Thread(target=poll)
    reader.start()
    yield seen
    over.set()
    reader.join()


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
