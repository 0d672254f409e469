"""Which models a run builds: blocked, unchanged, build, and what a fingerprint reacts to."""

from __future__ import annotations

from typing import Any

import pytest

from mozart.engine.dbt_graph import Graph, read_graph
from mozart.engine.dbt_plan import Plan, SourceState, needed_relations, plan_models
from mozart.errors import ConfigurationError
from tests.unit.engine.manifests import data_test, manifest, model, unique_id

NODES = (
    model("mart_case", "stg_cases", "stg_flows"),
    model("mart_title", "stg_cases"),
    model("stg_cases", "raw.cases"),
    model("stg_flows", "raw.flows"),
    data_test("not_null_id", "stg_cases"),
)


def loaded(**versions: str | None) -> dict[str, SourceState]:
    states = {"cases": "1", "flows": "1", **versions}
    return {unique_id(f"raw.{table}"): SourceState(version) for table, version in states.items()}


def plan(graph: Graph, **changes: Any) -> Plan:
    given: dict[str, Any] = {"sources": loaded(), "published": {}, "shared": "s", **changes}
    return plan_models(graph, **given)


def actions(result: Plan) -> dict[str, str]:
    return {planned.node.alias: planned.action for planned in result.models}


def as_published(result: Plan) -> dict[str, str]:
    return {planned.node.unique_id: planned.fingerprint for planned in result.models}


GRAPH = read_graph(manifest(*NODES))
PUBLISHED = as_published(plan(GRAPH))


def test_what_is_published_under_the_same_fingerprint_is_unchanged() -> None:
    assert set(actions(plan(GRAPH)).values()) == {"build"}
    again = plan(GRAPH, published=PUBLISHED)
    assert set(actions(again).values()) == {"unchanged"}
    assert again.selection == ()
    assert {planned.reason for planned in again.models} == {"inputs unchanged"}


def test_parents_come_before_children() -> None:
    order = [planned.node.alias for planned in plan(GRAPH).models]
    assert order.index("stg_cases") < order.index("mart_title")
    assert order.index("stg_flows") < order.index("mart_case")


def test_only_what_reads_the_changed_table_is_built() -> None:
    changed = plan(GRAPH, published=PUBLISHED, sources=loaded(flows="2"))
    assert actions(changed) == {
        "stg_cases": "unchanged",
        "stg_flows": "build",
        "mart_case": "build",
        "mart_title": "unchanged",
    }
    assert changed.selection == ("t__stg_flows", "t__mart_case")


@pytest.mark.parametrize(
    ("node", "built"),
    [
        (model("stg_flows", "raw.flows", sql="select 2"), {"stg_flows", "mart_case"}),
        (model("stg_flows", "raw.flows", contract={"enforced": True}), {"stg_flows", "mart_case"}),
        (model("stg_flows", "raw.flows", tags=["x"], description="y"), set[str]()),
        (data_test("unique_id", "stg_flows"), {"stg_flows", "mart_case"}),
        (data_test("not_null_id", "stg_cases", severity="WARN"), {"stg_cases", "mart_case", "mart_title"}),
        (
            {**data_test("not_null_id", "stg_cases"), "test_metadata": {"kwargs": {"values": [1]}}},
            {"stg_cases", "mart_case", "mart_title"},
        ),
    ],
    ids=["code", "contract", "tags", "new test", "test's severity", "test's arguments"],
)
def test_what_a_fingerprint_reacts_to(node: dict[str, Any], built: set[str]) -> None:
    graph = read_graph(manifest(*NODES, node))
    result = plan(graph, published=PUBLISHED)
    assert {name for name, action in actions(result).items() if action == "build"} == built


def test_macros_and_versions_concern_every_model() -> None:
    assert set(actions(plan(GRAPH, published=PUBLISHED, shared="other")).values()) == {"build"}


def test_force_builds_everything_that_is_not_blocked() -> None:
    sources = {**loaded(), unique_id("raw.flows"): SourceState("1", "failed")}
    result = plan(GRAPH, published=PUBLISHED, sources=sources, force=True)
    assert actions(result) == {
        "stg_cases": "build",
        "stg_flows": "blocked",
        "mart_case": "blocked",
        "mart_title": "build",
    }


def test_a_failed_table_blocks_whatever_reads_it_and_names_it() -> None:
    sources = {**loaded(), unique_id("raw.flows"): SourceState("2", "failed")}
    result = plan(GRAPH, published=PUBLISHED, sources=sources)
    reasons = {planned.node.alias: planned.reason for planned in result.models if planned.action == "blocked"}
    assert set(reasons) == {"stg_flows", "mart_case"}
    assert set(reasons.values()) == {"raw table t_raw.flows failed to load in this run; keeps its last version"}


@pytest.mark.parametrize("sources", [loaded(flows=None), {unique_id("raw.cases"): SourceState("1")}])
def test_a_table_that_was_never_loaded_blocks(sources: dict[str, SourceState]) -> None:
    result = plan(GRAPH, sources=sources)
    assert actions(result)["mart_case"] == "blocked"
    assert actions(result)["mart_title"] == "build"
    reasons = {planned.reason for planned in result.models if planned.action == "blocked"}
    assert reasons == {"raw table t_raw.flows has never been loaded; keeps its last version"}


def test_a_model_that_depends_on_the_clock_is_always_built() -> None:
    graph = read_graph(manifest(model("mart_age", "raw.cases", meta={"rebuild": "always"})))
    published = as_published(plan(graph))
    assert actions(plan(graph, published=published)) == {"mart_age": "build"}


def test_ephemeral_models_and_seeds_are_inputs_and_are_not_published() -> None:
    seed = {
        **model("codes"),
        "unique_id": "seed.mozart.codes",
        "resource_type": "seed",
        "name": "codes",
        "alias": "codes",
        "raw_code": "",
        "checksum": {"checksum": "a"},
        "depends_on": {},
    }
    between = model("stg_between", "raw.cases", "seed.mozart.codes", materialized="ephemeral")
    graph = read_graph(manifest(between, seed, model("mart_case", "stg_between")))
    first = plan(graph)
    assert actions(first) == {"mart_case": "build"}
    assert first.selection == ("t__mart_case", "codes")
    assert first.models[0].inputs["t_raw.cases"] == "1"
    assert needed_relations(graph, first) == ({unique_id("raw.cases")}, set())

    changed_seed = read_graph(
        manifest(between, {**seed, "checksum": {"checksum": "b"}}, model("mart_case", "stg_between"))
    )
    assert actions(plan(changed_seed, published=as_published(first))) == {"mart_case": "build"}


def test_needed_relations_are_what_the_built_models_and_their_tests_read() -> None:
    relationship = data_test("relationship", "mart_case", "mart_title", attached="mart_case")
    graph = read_graph(manifest(*NODES, relationship))
    published = as_published(plan(graph))
    result = plan(graph, published=published, sources=loaded(flows="2"))
    sources, models = needed_relations(graph, result)
    assert sources == {unique_id("raw.flows")}
    assert models == {unique_id("stg_cases"), unique_id("mart_title")}


@pytest.mark.parametrize("materialized", ["view", "materialized_view"])
def test_materializations_that_need_a_lasting_database_are_refused(materialized: str) -> None:
    with pytest.raises(ConfigurationError, match=r"t__mart_x\.sql: materialized: .*use 'table'"):
        read_graph(manifest(model("mart_x", materialized=materialized)))


def incremental(name: str, *parents: str, **config: Any) -> dict[str, Any]:
    return model(name, *parents, materialized="incremental", **{"unique_key": "id", **config})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"unique_key": None}, "unique_key: an incremental model needs it"),
        ({"unique_key": ["id", "day"]}, "unique_key: day is no column that the model declares"),
        ({"incremental_strategy": "append"}, "incremental_strategy: 'append' is not supported: .* use 'merge'"),
        ({"on_schema_change": "append_new_columns"}, "on_schema_change: 'append_new_columns' is not supported"),
        ({"merge_update_columns": ["id"]}, "merge_update_columns: has no effect here, remove it"),
        ({"full_refresh": False}, "full_refresh: has no effect here, remove it: the run's own parameter decides"),
    ],
)
def test_options_of_an_incremental_model_that_would_be_without_effect_are_named(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"t__mart_x\.sql: {message}"):
        read_graph(manifest(incremental("mart_x", **config)))


INCREMENTAL = (
    incremental("mart_sum", "stg_between", incremental_strategy="delete+insert", on_schema_change="fail"),
    model("stg_between", "stg_cases", materialized="ephemeral"),
    model("stg_cases", "raw.cases"),
    data_test("not_null_id", "mart_sum"),
)


def extents(node: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    """How much of each model is built, one node being another since its table was published from the first load."""
    before = plan(read_graph(manifest(*INCREMENTAL)))
    graph = read_graph(manifest(*INCREMENTAL, *([node] if node else [])))
    codes = {planned.node.unique_id: planned.code for planned in before.models}
    given: dict[str, Any] = {"published": as_published(before), "codes": codes, "sources": loaded(cases="2"), **changes}
    return {planned.node.alias: planned.extent for planned in plan(graph, **given).to_build}


def test_an_incremental_model_is_computed_as_a_delta_while_the_same_code_made_its_table() -> None:
    assert extents() == {"stg_cases": "whole", "mart_sum": "delta"}
    assert extents(codes={}) == {"stg_cases": "whole", "mart_sum": "whole"}
    assert extents(force=True) == {"stg_cases": "whole", "mart_sum": "whole"}
    assert extents(shared="other macros") == {"stg_cases": "whole", "mart_sum": "whole"}


@pytest.mark.parametrize(
    ("node", "extent"),
    [
        (model("stg_cases", "raw.cases", sql="select 2"), "whole"),
        (model("stg_between", "stg_cases", sql="select 2", materialized="ephemeral"), "whole"),
        (incremental("mart_sum", "stg_between", unique_key=["id"], sql="select 2"), "whole"),
        (data_test("unique_id", "mart_sum"), "delta"),
        (data_test("unique_id", "stg_cases"), "delta"),
    ],
    ids=["parent's code", "ephemeral parent's code", "own code", "a test", "a parent's test"],
)
def test_code_over_any_distance_means_a_whole_build_and_tests_do_not(node: dict[str, Any], extent: str) -> None:
    assert extents(node)["mart_sum"] == extent


def test_inputs_name_tables_and_versions() -> None:
    by_name = {planned.node.alias: planned for planned in plan(GRAPH).models}
    assert by_name["stg_cases"].inputs == {"t_raw.cases": "1"}
    assert by_name["mart_title"].inputs == {"t.stg_cases": by_name["stg_cases"].fingerprint}
