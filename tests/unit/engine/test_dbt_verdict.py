"""From dbt's results to what may be published, with reasons an operator can act on."""

from __future__ import annotations

from typing import Any

from mozart.engine.dbt_graph import read_graph
from mozart.engine.dbt_verdict import NodeResult, Verdict, judge, one_line
from tests.unit.engine.manifests import data_test, manifest, model, unique_id

NODES = (
    model("stg_cases", "raw.cases"),
    model("mart_dim", "raw.cases"),
    model("mart_case", "stg_cases"),
    data_test("not_null_stg", "stg_cases"),
    data_test("relationship", "mart_case", "mart_dim", attached="mart_case"),
)
GRAPH = read_graph(manifest(*NODES))


def verdicts(selected: tuple[str, ...], **results: NodeResult | str) -> dict[str, Verdict]:
    given: dict[str, NodeResult] = {}
    for name, result in results.items():
        key = unique_id(name) if name.startswith(("stg_", "mart_")) else f"test.mozart.{name}"
        given[key] = NodeResult(key, result) if isinstance(result, str) else result
    found = judge(GRAPH, [unique_id(name) for name in selected], given)
    return {key.rpartition("__")[2]: verdict for key, verdict in found.items()}


ALL = ("stg_cases", "mart_dim", "mart_case")
GOOD: dict[str, Any] = {
    "stg_cases": "success",
    "mart_dim": "success",
    "mart_case": "success",
    "not_null_stg": "pass",
    "relationship": "warn",
}


def test_built_and_tested_passes() -> None:
    found = verdicts(ALL, **GOOD)
    assert {verdict.status for verdict in found.values()} == {"passed"}
    assert found["stg_cases"].tests_passed == 1


def test_a_failed_test_is_named_with_its_rows_and_message() -> None:
    failure = NodeResult("test.mozart.not_null_stg", "fail", "Got 3 results,\n configured to fail", 3)
    found = verdicts(ALL, **{**GOOD, "not_null_stg": failure, "mart_case": "skipped", "relationship": "skipped"})
    assert found["stg_cases"].status == "failed"
    assert found["stg_cases"].reason == ("test not_null_stg failed: 3 failing rows; Got 3 results, configured to fail")
    assert found["mart_case"].status == "skipped"
    assert found["mart_case"].reason == "upstream stg_cases failed; keeps its last version"
    assert found["mart_dim"].status == "passed"


def test_a_test_of_two_models_is_charged_to_the_one_it_was_written_for() -> None:
    found = verdicts(ALL, **{**GOOD, "relationship": "fail"})
    assert (found["mart_case"].status, found["mart_dim"].status) == ("failed", "passed")


def test_a_test_of_a_model_that_is_not_built_is_charged_to_the_one_that_changed() -> None:
    found = verdicts(("mart_dim",), mart_dim="success", relationship="fail")
    assert found["mart_dim"].status == "failed"


def test_a_model_whose_test_could_not_run_is_not_published() -> None:
    found = verdicts(ALL, **{**GOOD, "mart_dim": "error", "relationship": "skipped"})
    assert found["mart_case"].status == "skipped"
    assert "relationship could not run" in (found["mart_case"].reason or "")


def test_an_error_gives_dbt_s_message_on_one_line() -> None:
    broken = NodeResult(unique_id("mart_dim"), "error", "Binder Error:\n  no column x")
    assert verdicts(ALL, **{**GOOD, "mart_dim": broken})["mart_dim"].reason == "Binder Error: no column x"


def test_a_model_without_a_result_is_never_published() -> None:
    assert verdicts(("mart_dim",))["mart_dim"].status == "failed"


def test_long_messages_are_cut() -> None:
    assert len(one_line("x" * 5000)) == 500
