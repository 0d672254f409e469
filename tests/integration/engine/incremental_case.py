"""A tenant with incremental models, as it is published first, for the tests on either engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from mozart.engine.dbt_run import ModelEvent, ModelResult, build_models
from mozart.lake.compaction import CompactionPolicy, compact_table
from mozart.lake.session import open_lake
from mozart.tenancy.product_schema import Mart, MartColumn, ProductSchema
from tests.integration.engine.conftest import FLOWS, TinyTenant

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

    @classmethod
    def published(cls, tiny: TinyTenant) -> Summed:
        """The mart, one that reads it, and one with a key of two columns, each published once by DuckDB."""
        tiny.write("mart/tiny__mart_by_case.sql", BY_CASE)
        tiny.write("mart/tiny__mart_all.sql", ALL_TOTAL)
        tiny.write("mart/tiny__mart_title.sql", TITLES)
        tiny.write("mart/_incremental.yml", PROPERTIES)
        summed = cls(tiny)
        summed.add((1, 5), (1, 7), (2, 1))
        results = summed.build()
        assert results.outcome == ("published", None), results.reason
        assert results["mart_title"].status == "published", results["mart_title"].reason
        assert summed.rows() == summed.full_query() == [(1, 2, 12), (2, 3, 1)]
        return summed

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

    def build(self, listener: Callable[[ModelEvent], None] = lambda _event: None, **changes: object) -> Results:
        results = build_models(self.tiny.request(product=PRODUCT, **changes), self.tiny.lakehouse, listener)
        return Results({result.name: result for result in results})

    def while_computing(self, act: Callable[[], None]) -> Results:
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


class Results(dict[str, ModelResult]):
    """What became of each model, by table."""

    def __init__(self, results: Mapping[str, ModelResult]) -> None:
        super().__init__(results)

    @property
    def outcome(self) -> tuple[str, int | None]:
        """The mart's status, and how many rows were merged."""
        return self["mart_by_case"].status, self["mart_by_case"].merged_rows

    @property
    def reason(self) -> str:
        return self["mart_by_case"].reason or ""
