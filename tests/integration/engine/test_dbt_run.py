"""Models of a tenant end to end on a real lake: dbt in a process of its own, tests on candidates, publication."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from mozart.engine.dbt_process import DbtProcess
from mozart.engine.dbt_run import ModelEvent, ModelResult, RawInput, build_models, parse_models
from mozart.errors import ConfigurationError, TerminalError, TransientError
from mozart.lake.commit import DataFileRef, read_head, replace
from tests.integration.engine.conftest import CASES, FLOWS, TinyTenant, polled

MODELS = ("stg_cases", "stg_flows", "mart_case", "mart_title")


def statuses(results: Mapping[str, ModelResult]) -> dict[str, str]:
    return {name: result.status for name, result in results.items()}


def dbt_children() -> list[psutil.Process]:
    """The dbt processes that this process has started."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "mozart.engine.dbt_child" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def compact(tiny: TinyTenant, table: str) -> None:
    """What maintenance does: the same rows in a new snapshot with a record of its own."""
    catalog = tiny.lakehouse.catalog()
    head = read_head(catalog, (f"{tiny.namespace}_raw", table))
    assert head.table is not None
    assert head.record is not None
    files = [DataFileRef(task.file.file_path, task.file.record_count) for task in head.table.scan().plan_files()]
    record = head.record.carry_forward(load_id=f"compaction-{table}", run_id="maintenance")
    assert replace(catalog, head, head.table.schema(), files, record).snapshot_id != head.snapshot_id


def test_builds_what_changed_and_leaves_the_rest_alone(tiny: TinyTenant) -> None:
    results = tiny.build()
    assert statuses(results) == dict.fromkeys(MODELS, "published"), results
    assert tiny.rows("mart_case") == [(1, "a", 12), (2, "b", 0)]
    assert (results["mart_case"].rows, results["mart_case"].tests_passed) == (2, 2)
    record = read_head(tiny.lakehouse.catalog(), (tiny.namespace, "mart_case")).record
    assert record is not None
    assert (record.mode, record.run_id, record.rows) == ("publish", "run-1", 2)
    assert set(json.loads(record.details["inputs"])) == {f"{tiny.namespace}.stg_{name}" for name in ("cases", "flows")}

    compact(tiny, "cases")
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("mozart.engine.dbt_run.DbtProcess")  # starting dbt would raise
        again = tiny.build()
    assert statuses(again) == dict.fromkeys(MODELS, "unchanged")
    assert [event.kind for event in tiny.events] == ["finished"] * 4

    tiny.load("flows", FLOWS, [(1, 2, 100)])
    changed = tiny.build()
    assert {name for name, status in statuses(changed).items() if status == "published"} == {"stg_flows", "mart_case"}
    assert tiny.rows("mart_case") == [(1, "a", 0), (2, "b", 100)]
    assert [event.kind for event in tiny.events if event.name == "mart_case"] == [
        "planned",
        "started",
        "computed",
        "finished",
    ]
    assert len(tiny.snapshots("mart_case")) == 2
    assert len(tiny.snapshots("mart_title")) == 1
    assert not (tiny.base / "runs").exists()


def test_a_failing_test_keeps_the_old_version_in_sight_of_every_reader(tiny: TinyTenant) -> None:
    tiny.build()
    before = tiny.rows("mart_case")
    with polled(lambda: tiny.rows("mart_case"), pause=0.2) as seen:  # a reader, not a load test
        tiny.load("flows", FLOWS, [(1, 1, -50), (2, 2, -1)])
        failed = tiny.build()
        still_failing = tiny.build()
        tiny.load("flows", FLOWS, [(1, 1, 50)])
        mended = tiny.build()

    assert (failed["stg_flows"].status, failed["mart_case"].status) == ("published", "failed")
    assert "non_negative_tiny__mart_case_total failed: 2 failing rows" in (failed["mart_case"].reason or "")
    assert (still_failing["stg_flows"].status, still_failing["mart_case"].status) == ("unchanged", "failed")
    assert mended["mart_case"].status == "published"
    after = tiny.rows("mart_case")
    assert after == [(1, "a", 50), (2, "b", 0)]
    assert len(seen) > 3
    assert all(rows in (before, after) for rows in seen), seen


def test_a_model_cannot_reach_files_of_the_machine(tiny: TinyTenant) -> None:
    tiny.edit(
        "mart/tiny__mart_title.sql", "group by title", "where exists (from read_text('/etc/hostname')) group by title"
    )
    results = tiny.build()
    assert results["mart_title"].status == "failed"
    assert "disabled by configuration" in (results["mart_title"].reason or "")
    assert results["mart_case"].status == "published"


def test_failed_models_are_told_with_the_reason_and_skipped_ones_with_the_culprit(tiny: TinyTenant) -> None:
    tiny.load("cases", CASES, [(1, "a", 1), (1, "twice", 2)])
    tiny.edit("staging/tiny__stg_flows.sql", "case_id, amount", "case_id, amount as money")
    results = tiny.build()
    assert statuses(results) == {
        "stg_cases": "failed",
        "stg_flows": "failed",
        "mart_case": "skipped",
        "mart_title": "skipped",
    }
    assert "test unique_tiny__stg_cases_id failed: 1 failing row" in (results["stg_cases"].reason or "")
    assert "contract" in (results["stg_flows"].reason or "").lower()
    assert "money" in (results["stg_flows"].reason or "")
    assert results["mart_title"].reason == "upstream stg_cases failed; keeps its last version"
    assert "stg_cases, stg_flows" in (results["mart_case"].reason or "")
    assert not any(tiny.is_published(name) for name in MODELS)


def test_models_of_a_failed_table_are_blocked_and_the_others_read_what_their_load_made(tiny: TinyTenant) -> None:
    loaded = tiny.load("cases", CASES, [(7, "seen", 1)])
    tiny.load("cases", CASES, [(8, "later", 1)])
    results = tiny.build(inputs={"flows": RawInput(state="failed"), "cases": RawInput(loaded, "loaded")})
    assert statuses(results) == {
        "stg_cases": "published",
        "stg_flows": "blocked",
        "mart_case": "blocked",
        "mart_title": "published",
    }
    assert "flows failed to load" in (results["mart_case"].reason or "")
    assert tiny.rows("mart_title") == [("seen", 1)]


def test_a_changed_model_replaces_columns_and_an_unknown_type_is_named(tiny: TinyTenant) -> None:
    tiny.build()
    tiny.edit("mart/tiny__mart_title.sql", "count(*) as cases", "cast(count(*) as varchar) as cases, true as is_new")
    tiny.edit(
        "_models.yml",
        "{name: cases, data_type: bigint}",
        "{name: cases, data_type: varchar}\n      - {name: is_new, data_type: boolean}",
    )
    tiny.edit("mart/tiny__mart_case.sql", " as bigint)", " as hugeint)")
    tiny.edit("_models.yml", "{name: total, data_type: bigint,", "{name: total, data_type: hugeint,")
    results = tiny.build()
    assert results["mart_title"].status == "published"
    assert tiny.rows("mart_title") == [("a", "1", True), ("b", "1", True)]
    assert results["mart_case"].status == "failed"
    assert "column total is HUGEINT" in (results["mart_case"].reason or "")
    assert tiny.rows("mart_case") == [(1, "a", 12), (2, "b", 0)]


def test_a_killed_child_publishes_nothing_and_can_be_retried(tiny: TinyTenant) -> None:
    tiny.load("cases", CASES, [])
    killed: list[int] = []

    def kill_the_first(event: ModelEvent) -> None:
        if event.kind == "started" and not killed:
            for child in dbt_children():
                child.kill()
                killed.append(child.pid)

    with pytest.raises(TransientError, match="killed by SIGKILL"):
        build_models(tiny.request(), tiny.lakehouse, kill_the_first)
    assert killed
    assert not any(tiny.is_published(name) for name in MODELS)
    assert not (tiny.base / "runs").exists()
    assert set(statuses(tiny.build()).values()) == {"published"}
    assert tiny.rows("mart_case") == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("mart/tiny__mart_case.sql", "{{ config(alias='mart_case') }} select {{ oh no }}", "tiny__mart_case"),
        ("_models.yml", "models: [unclosed", "_models.yml"),
        ("mart/tiny__mart_case.sql", "{{ config(alias='mart_case') }} select * from {{ ref('nobody') }}", "nobody"),
    ],
    ids=["jinja", "yaml", "unknown ref"],
)
def test_what_dbt_cannot_parse_is_one_configuration_error(
    tiny: TinyTenant, name: str, text: str, expected: str
) -> None:
    tiny.write(name, text)
    with pytest.raises(ConfigurationError, match=f"tenants/tiny/models: dbt cannot parse it: .*{expected}") as caught:
        parse_models(tiny.request())
    assert "\n" not in str(caught.value)


def test_a_model_may_not_leave_its_tenant(tiny: TinyTenant) -> None:
    tiny.edit("_sources.yml", "{{ env_var('MOZART_SCHEMA') }}_raw", "globex_raw")
    tiny.edit("mart/tiny__mart_title.sql", "alias='mart_title'", "alias='mart_title', schema='globex'")
    with pytest.raises(ConfigurationError) as caught:
        tiny.build()
    assert "globex_raw.cases" in str(caught.value)
    assert "mart_title would be published to globex" in str(caught.value)


def test_a_secret_is_in_no_file_no_argument_no_environment_and_no_error(
    tiny: TinyTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tiny.lakehouse.secret_access_key.get_secret_value()
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", secret)
    exposed: list[str] = []

    def look(_: ModelEvent) -> None:
        for child in dbt_children():
            exposed.append(" ".join(child.cmdline()))
            exposed.append(Path(f"/proc/{child.pid}/environ").read_text(errors="replace"))

    # A model that brings the secret into dbt's own error message.
    tiny.edit("mart/tiny__mart_title.sql", "count(*) as cases", f"cast('{secret}' as bigint) as cases")
    results = {result.name: result for result in build_models(tiny.request(), tiny.lakehouse, look)}
    assert exposed
    assert not any(secret in text for text in exposed)
    assert "***" in (results["mart_title"].reason or "")
    assert secret not in repr(results)
    # The model's own text lies in dbt's parse state and compiled SQL; that is the test's doing.
    found = {path.name for path in tiny.secrets_in_state()}
    assert found <= {"tiny__mart_title.sql", "manifest.json", "partial_parse.msgpack"}


@pytest.fixture
def idle_child(tmp_path: Path) -> Callable[[float], DbtProcess]:
    """A child that waits for its first request, to be ended within so many seconds."""

    def start(seconds: float) -> DbtProcess:
        deadline = time.monotonic() + seconds
        return DbtProcess(folder=tmp_path, environ={}, secrets=(), what="models of tiny", deadline=deadline)

    return start


def test_the_time_limit_ends_the_child(idle_child: Callable[[float], DbtProcess]) -> None:
    with pytest.raises(TerminalError, match="models of tiny: not done within its time limit"), idle_child(0) as process:
        next(process.events())
    assert not psutil.pid_exists(process.pid)


def test_an_exception_in_the_parent_ends_the_child(idle_child: Callable[[float], DbtProcess]) -> None:
    with pytest.raises(KeyboardInterrupt), idle_child(60) as process:
        raise KeyboardInterrupt
    assert not psutil.pid_exists(process.pid)


def test_a_child_that_breaks_is_told_with_its_last_lines(idle_child: Callable[[float], DbtProcess]) -> None:
    with idle_child(60) as process:
        process.send({"project": "nowhere"})  # the rest of the request is missing
        assert list(process.events()) == []
        error = process.death()
    assert isinstance(error, TerminalError)
    assert "ended with code 1" in str(error)
    assert "KeyError: 'profiles'" in str(error)
