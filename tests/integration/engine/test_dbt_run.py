"""Models of a tenant end to end on a real lake: dbt in a process of its own, tests on candidates, publication."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mozart.engine.dbt_run import ModelEvent, RawInput, build_models, parse_models
from mozart.errors import CommitConflictError, ConfigurationError, TerminalError, TransientError
from mozart.lake import publish as publish_module
from mozart.lake.commit import read_head, replace as replace_table
from tests.integration.engine.conftest import CASES, FLOWS, MART_CASE, TinyTenant

MODELS = {"stg_cases", "stg_flows", "mart_case", "mart_title"}


def statuses(results: dict[str, object]) -> dict[str, str]:
    return {name: result.status for name, result in results.items()}  # type: ignore[attr-defined]


def children(marker: str = "mozart.engine.dbt_child") -> list[psutil.Process]:
    """dbt children of this process."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children(recursive=True):
        try:
            if marker in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def test_builds_and_publishes_and_then_leaves_everything_alone(
    tiny: TinyTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tiny.build()
    assert statuses(results) == dict.fromkeys(MODELS, "published"), results
    assert tiny.rows("mart_case") == [(1, "a", 12), (2, "b", 0)]
    assert (results["mart_case"].rows, results["mart_case"].tests_passed) == (2, 2)
    assert results["mart_case"].layer == "mart"
    record = read_head(tiny.lakehouse.catalog(), (tiny.namespace, "mart_case")).record
    assert record is not None
    assert (record.mode, record.run_id, record.rows) == ("publish", "run-1", 2)
    assert set(json.loads(record.details["inputs"])) == {f"{tiny.namespace}.stg_{name}" for name in ("cases", "flows")}

    def no_child(*_: object, **__: object) -> None:
        raise AssertionError("dbt was started")

    monkeypatch.setattr("mozart.engine.dbt_run.DbtProcess", no_child)
    again = tiny.build()
    assert statuses(again) == dict.fromkeys(MODELS, "unchanged")
    assert [event.kind for event in tiny.events] == ["finished"] * 4
    assert len(tiny.snapshots("mart_case")) == 1


def test_only_what_reads_the_changed_table_is_built_on_the_rest_as_published(tiny: TinyTenant) -> None:
    tiny.build()
    tiny.load("flows", FLOWS, [(1, 2, 100)])
    results = tiny.build()
    assert statuses(results) == {
        "stg_cases": "unchanged",
        "stg_flows": "published",
        "mart_case": "published",
        "mart_title": "unchanged",
    }
    assert tiny.rows("mart_case") == [(1, "a", 0), (2, "b", 100)]
    assert [(event.kind, event.name) for event in tiny.events if event.name == "mart_case"] == [
        (kind, "mart_case") for kind in ("planned", "started", "computed", "finished")
    ]
    # Everything of the run itself is gone; what parsing left stays.
    assert not (tiny.base / "runs").exists()


def test_maintenance_of_a_raw_table_rebuilds_nothing(tiny: TinyTenant) -> None:
    tiny.build()
    catalog = tiny.lakehouse.catalog()
    head = read_head(catalog, (f"{tiny.namespace}_raw", "cases"))
    assert head.table is not None and head.record is not None
    files = [
        publish_module.replace.__globals__["DataFileRef"](t.file.file_path, t.file.record_count)
        for t in head.table.scan().plan_files()
    ]
    record = head.record.carry_forward(load_id="compaction", run_id="maintenance")
    assert replace_table(catalog, head, head.table.schema(), files, record).snapshot_id != head.snapshot_id
    assert set(statuses(tiny.build()).values()) == {"unchanged"}


def test_a_failing_test_keeps_the_old_version_in_sight_of_every_reader(tiny: TinyTenant) -> None:
    tiny.build()
    before = tiny.rows("mart_case")
    seen: list[object] = []
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            try:
                seen.append(tiny.rows("mart_case"))
            except Exception as error:  # noqa: BLE001 - any failure to read is the finding
                seen.append(error)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        tiny.load("flows", FLOWS, [(1, 1, -50), (2, 2, -1)])
        failed = tiny.build()
        tiny.load("flows", FLOWS, [(1, 1, 50)])
        mended = tiny.build()
    finally:
        done.set()
        reader.join()

    assert failed["stg_flows"].status == "published"
    assert failed["mart_case"].status == "failed"
    assert failed["mart_case"].tests_failed == 1
    assert "non_negative_tiny__mart_case_total failed: 2 failing rows" in (failed["mart_case"].reason or "")
    assert mended["mart_case"].status == "published"
    after = tiny.rows("mart_case")
    assert after == [(1, "a", 50), (2, "b", 0)]
    assert len(seen) > 3
    assert all(rows in (before, after) for rows in seen), seen


def test_a_failed_model_is_tried_again_though_its_inputs_did_not_change(tiny: TinyTenant) -> None:
    tiny.load("flows", FLOWS, [(1, 1, -50)])
    assert tiny.build()["mart_case"].status == "failed"
    again = tiny.build()
    assert statuses(again)["mart_case"] == "failed"
    assert statuses(again)["stg_flows"] == "unchanged"


def test_below_a_failed_model_everything_is_skipped_and_told_why(tiny: TinyTenant) -> None:
    tiny.build()
    tiny.load("cases", CASES, [(1, "a", 1), (1, "twice", 2)])
    results = tiny.build()
    assert statuses(results) == {
        "stg_cases": "failed",
        "stg_flows": "unchanged",
        "mart_case": "skipped",
        "mart_title": "skipped",
    }
    assert "unique_tiny__stg_cases_id" in (results["stg_cases"].reason or "")
    assert results["mart_title"].reason == "upstream stg_cases failed; keeps its last version"
    assert tiny.rows("mart_title") == [("a", 1), ("b", 1)]


def test_a_broken_contract_keeps_the_last_version(tiny: TinyTenant) -> None:
    tiny.build()
    tiny.edit("mart/tiny__mart_title.sql", "count(*) as cases", "count(*) as number_of_cases")
    results = tiny.build()
    assert results["mart_title"].status == "failed"
    assert "contract" in (results["mart_title"].reason or "").lower()
    assert "number_of_cases" in (results["mart_title"].reason or "")
    assert results["mart_case"].status == "unchanged"
    assert tiny.rows("mart_title") == [("a", 1), ("b", 1)]


def test_models_of_a_failed_table_are_blocked_and_the_others_built(tiny: TinyTenant) -> None:
    tiny.build()
    tiny.load("cases", CASES, [(1, "z", 1)])
    tiny.load("flows", FLOWS, [(1, 1, 999)])
    results = tiny.build(inputs={"flows": RawInput(state="failed"), "cases": RawInput(state="loaded")})
    assert statuses(results) == {
        "stg_cases": "published",
        "stg_flows": "blocked",
        "mart_case": "blocked",
        "mart_title": "published",
    }
    assert "flows failed to load" in (results["mart_case"].reason or "")
    assert tiny.rows("mart_title") == [("z", 1)]
    assert tiny.rows("mart_case") == [(1, "a", 12), (2, "b", 0)]


def test_a_run_reads_the_snapshot_its_load_made(tiny: TinyTenant) -> None:
    loaded = tiny.load("cases", CASES, [(7, "seen", 1)])
    tiny.load("cases", CASES, [(8, "later", 1)])
    tiny.build(inputs={"cases": RawInput(loaded, "loaded")})
    assert tiny.rows("mart_title") == [("seen", 1)]
    # The later rows have a version of their own, so they are not taken for what was published.
    tiny.build()
    assert tiny.rows("mart_title") == [("later", 1)]


def test_a_changed_model_replaces_columns(tiny: TinyTenant) -> None:
    tiny.build()
    tiny.edit("mart/tiny__mart_title.sql", "count(*) as cases", "cast(count(*) as varchar) as cases, true as is_new")
    tiny.edit(
        "_models.yml",
        "{name: cases, data_type: bigint}",
        "{name: cases, data_type: varchar}\n      - {name: is_new, data_type: boolean}",
    )
    assert tiny.build()["mart_title"].status == "published"
    assert tiny.rows("mart_title") == [("a", "1", True), ("b", "1", True)]


def test_a_type_the_lake_does_not_have_is_named_with_its_cure(tiny: TinyTenant) -> None:
    tiny.edit(
        "mart/tiny__mart_case.sql", "cast(coalesce(sum(flows.amount), 0) as bigint)", "coalesce(sum(flows.amount), 0)"
    )
    tiny.edit("_models.yml", "{name: total, data_type: bigint,", "{name: total, data_type: hugeint,")
    result = tiny.build()["mart_case"]
    assert result.status == "failed"
    assert "column total is HUGEINT" in (result.reason or "")
    assert "cast it" in (result.reason or "")


def kill_when_started(pids: list[int]) -> Callable[[ModelEvent], None]:
    def on_event(event: ModelEvent) -> None:
        if event.kind == "started" and not pids:
            for child in children():
                pids.append(child.pid)
                child.kill()

    return on_event


def test_a_killed_child_leaves_the_lake_as_it_was_and_can_be_retried(tiny: TinyTenant) -> None:
    tiny.build()
    tiny.load("cases", CASES, [(9, "new", 1)])
    pids: list[int] = []
    with pytest.raises(TransientError, match="killed by SIGKILL"):
        build_models(tiny.request(), tiny.lakehouse, kill_when_started(pids))
    assert pids
    assert tiny.rows("mart_title") == [("a", 1), ("b", 1)]
    assert not (tiny.base / "runs").exists()
    assert statuses(tiny.build())["mart_title"] == "published"


def test_the_time_limit_stops_dbt(tiny: TinyTenant) -> None:
    # Row by row over 10^12 rows: it cannot end by itself within this test.
    tiny.edit(
        "mart/tiny__mart_title.sql",
        "count(*) as cases",
        "count(*) + (select count(*) from range(1000000000000) t(i) where hash(i) = 0) as cases",
    )
    seen: list[int] = []

    def on_event(event: ModelEvent) -> None:
        seen.extend(child.pid for child in children())

    with pytest.raises(TerminalError, match="time limit"):
        build_models(tiny.request(timeout_seconds=15.0), tiny.lakehouse, on_event)
    assert seen
    assert not any(psutil.pid_exists(pid) for pid in seen)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("mart/tiny__mart_case.sql", "{{ config(alias='mart_case') }} select {{ oh no }}", "tiny__mart_case"),
        ("_models.yml", "models: [unclosed", "_models.yml"),
        ("mart/tiny__mart_case.sql", "{{ config(alias='mart_case') }} select * from {{ ref('nobody') }}", "nobody"),
        ("mart/tiny__mart_case.sql", MART_CASE.replace("'mart_case'", "'mart_other'"), "mart_other"),
    ],
    ids=["jinja", "yaml", "unknown ref", "alias"],
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


def test_a_secret_is_in_no_file_no_argument_no_environment_and_no_error(tiny: TinyTenant) -> None:
    secret = tiny.lakehouse.secret_access_key.get_secret_value()
    exposed: list[str] = []

    def on_event(event: ModelEvent) -> None:
        for child in children():
            exposed.append(" ".join(child.cmdline()))
            exposed.append(Path(f"/proc/{child.pid}/environ").read_text(errors="replace"))

    os.environ["MOZART_TEST_SECRET"] = secret
    try:
        tiny.edit("mart/tiny__mart_title.sql", "count(*) as cases", f"cast('{secret}' as bigint) as cases")
        results = build_models(tiny.request(), tiny.lakehouse, on_event)
    finally:
        del os.environ["MOZART_TEST_SECRET"]
        tiny.models.joinpath("mart/tiny__mart_title.sql").unlink()
    assert exposed
    assert not any(secret in text for text in exposed)
    failed = next(result for result in results if result.name == "mart_title")
    assert "***" in (failed.reason or "")
    assert secret not in repr(results)
    written = [path for path in tiny.secrets_in_state() if "mart_title" not in path.name]
    # The model's own text is the test's doing; it is in dbt's parse state and in compiled SQL, nowhere else.
    assert {path.name for path in written} <= {"manifest.json", "partial_parse.msgpack"}


def test_a_lost_race_is_planned_again_on_the_new_head(tiny: TinyTenant, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = publish_module.replace

    def once_late(*arguments: object) -> object:
        calls.append("replace")
        if len(calls) == 1:
            raise CommitConflictError("another writer was first")
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(publish_module, "replace", once_late)
    assert set(statuses(tiny.build()).values()) == {"published"}
    assert len(calls) == 5


def test_what_stands_on_an_unpublished_model_is_not_published(
    tiny: TinyTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = publish_module.replace

    def refuse_staging(catalog: object, head: object, *rest: object) -> object:
        if head.name.endswith("stg_cases"):  # type: ignore[attr-defined]
            raise TerminalError("the catalog refused")
        return original(catalog, head, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(publish_module, "replace", refuse_staging)
    results = tiny.build()
    assert results["stg_cases"].reason == "built and tested, but not published: the catalog refused"
    assert statuses(results) == {
        "stg_cases": "failed",
        "stg_flows": "published",
        "mart_case": "skipped",
        "mart_title": "skipped",
    }


def test_a_full_refresh_publishes_again_and_a_retry_of_the_same_run_does_not(tiny: TinyTenant) -> None:
    tiny.build()
    assert set(statuses(tiny.build(full_refresh=True, run_id="same")).values()) == {"published"}
    before = tiny.snapshots("mart_case")
    assert set(statuses(tiny.build(full_refresh=True, run_id="same")).values()) == {"published"}
    assert tiny.snapshots("mart_case") == before
    assert len(before) == 2


def test_an_empty_table_is_read_as_empty(tiny: TinyTenant) -> None:
    tiny.load("cases", CASES, [])
    results = tiny.build()
    assert set(statuses(results).values()) == {"published"}, results
    assert tiny.rows("mart_case") == []
