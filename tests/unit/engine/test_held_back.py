"""What holds a model back after dbt is done."""

from __future__ import annotations

from mozart.engine.dbt_graph import read_graph
from mozart.engine.dbt_run import ModelResult, _held_back
from mozart.engine.dbt_verdict import Verdict
from tests.unit.engine.manifests import manifest, model, unique_id

GRAPH = read_graph(
    manifest(model("stg_cases", "raw.cases"), model("stg_flows", "raw.flows"), model("mart_case", "stg_cases"))
)
PASSED = Verdict("passed", None, 3, 0, 1.0)


def result(name: str, status: str) -> dict[str, ModelResult]:
    return {unique_id(name): ModelResult(unique_id(name), name, "staging", status)}  # type: ignore[arg-type]


def test_a_model_stays_when_its_parent_could_not_be_published() -> None:
    node = GRAPH.nodes[unique_id("mart_case")]
    earlier = {**result("stg_cases", "failed"), **result("stg_flows", "failed")}
    held = _held_back(GRAPH, node, PASSED, earlier)
    assert (held.status, held.reason) == ("skipped", "upstream stg_cases was not published; keeps its last version")
    assert held.tests_passed == 3


def test_it_goes_when_its_parents_went_or_another_model_failed() -> None:
    node = GRAPH.nodes[unique_id("mart_case")]
    earlier = {**result("stg_cases", "published"), **result("stg_flows", "failed")}
    assert _held_back(GRAPH, node, PASSED, earlier) is PASSED


def test_its_own_failure_is_not_covered_up() -> None:
    node = GRAPH.nodes[unique_id("mart_case")]
    failed = Verdict("failed", "its own", 0, 1, 1.0)
    assert _held_back(GRAPH, node, failed, result("stg_cases", "failed")) is failed
