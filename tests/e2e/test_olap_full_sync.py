"""The full sync as an operator sees it: its steps, its order, its failures, its alerts, and what a kill leaves."""

from __future__ import annotations

from datetime import datetime

import psutil
import pytest

from tests.e2e.deployment import FINAL, kill_all, wait_until
from tests.e2e.olap import DIMENSION_STEPS, DIMENSIONS, FACT_STEPS, FACTS, FULL_SYNC, RESUME, Olap, Received

pytestmark = pytest.mark.e2e


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_the_deployment_is_as_people_know_it(olap: Olap) -> None:
    deployment = olap.deployment(FULL_SYNC)
    assert deployment["description"] == "Daily full sync of OLAP Materialized Views"
    assert set(deployment["tags"]) == {"vision", "olap", "etl", "owner:axiom-vision"}
    (schedule,) = deployment["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 3 * * *", "UTC")
    assert all(olap.deployment(f"mv-incremental/{view}")["description"] for view in (*DIMENSIONS, *FACTS))


def test_a_sync_refreshes_dimensions_then_facts(olap: Olap) -> None:
    olap.change(seed=1)
    run = olap.start(FULL_SYNC)
    assert olap.project.wait(run).type == "COMPLETED"
    steps = olap.steps(run)
    assert set(steps) == {
        "validate_source_data",
        *DIMENSION_STEPS,
        *FACT_STEPS,
        "invalidate_redis_cache",
        "record_sync_completion",
    }
    assert {step["state"]["type"] for step in steps.values()} == {"COMPLETED"}
    last_dimension = max(_moment(steps[name]["end_time"]) for name in DIMENSION_STEPS)
    first_fact = min(_moment(steps[name]["start_time"]) for name in FACT_STEPS)
    assert _moment(steps["validate_source_data"]["end_time"]) <= min(
        _moment(steps[name]["start_time"]) for name in DIMENSION_STEPS
    )
    assert last_dimension <= first_fact
    assert olap.is_fresh(*DIMENSIONS, *FACTS)
    assert {row["view"] for row in olap.project.rows_of(run, "olap-full-sync")} == {*DIMENSIONS, *FACTS}
    assert all(not row["drift_rows"] for row in olap.project.rows_of(run, "olap-full-sync"))
    assert {row["name"] for row in olap.project.rows_of(run, "olap-health")} == {*DIMENSIONS, *FACTS}
    assert "healthy" in olap.project.must("olap", "health")


def test_a_failed_validation_is_final_and_touches_nothing(olap: Olap, received: Received) -> None:
    assert olap.project.wait(olap.start(FULL_SYNC)).type == "COMPLETED", "the next one is compared with this one"
    before = {name: state.generation for name, state in olap.states().items()}
    olap.execute("CREATE TABLE kept AS SELECT * FROM case_user_roles")
    olap.execute("DELETE FROM case_user_roles")
    try:
        run = olap.start(FULL_SYNC, retry_delay_seconds=30)
        state = olap.project.wait(run)
        assert state.type == "FAILED" and "case_user_roles" in state.message
        steps = olap.steps(run)
        assert steps["validate_source_data"]["run_count"] == 1, "a failed validation is not tried again"
        assert not set(steps) & {*DIMENSION_STEPS, *FACT_STEPS}
        full = {attempt.sync_id for attempt in olap.history() if attempt.kind == "full"}
        (status, reason, sync) = olap.execute(
            "SELECT status, reason, id FROM mozart.full_sync ORDER BY id DESC LIMIT 1"
        )[0]
        assert status == "failed" and "case_user_roles" in reason and sync not in full
        assert all(olap.states()[name].generation == before[name] for name in DIMENSIONS)
    finally:
        olap.execute("INSERT INTO case_user_roles SELECT * FROM kept")
        olap.execute("DROP TABLE kept")
    wait_until(lambda: received.mail_of("full sync failed") is not None, 60, "the alert mail")
    wait_until(lambda: any("full sync failed" in post for post in received.posts), 60, "the webhook's message")
    mail = received.mail_of("full sync failed")
    assert mail is not None and mail["To"] == "ops@axipient.com"
    assert "case_user_roles" in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]


@pytest.mark.faults
def test_a_failed_dimension_stops_the_facts_and_the_others_keep_their_data(olap: Olap, received: Received) -> None:
    received.posts.clear()
    before = {name: state.generation for name, state in olap.states().items()}
    olap.execute("UPDATE case_types SET name = name || ' II'")
    others = {*DIMENSIONS} - {"dim_org"}
    try:
        with olap.holding_view("dim_org"):
            run = olap.start(FULL_SYNC, retry_delay_seconds=60)
            wait_until(lambda: _done_in(olap) >= others, 60, "the other dimensions are done")
            wait_until(lambda: any("takes too long" in post for post in received.posts), 60, "the alert of a long sync")
            olap.execute("ALTER MATERIALIZED VIEW axiom_vision.dim_org RENAME TO dim_org_away")
        state = olap.project.wait(run)
    finally:
        olap.execute("ALTER MATERIALIZED VIEW IF EXISTS axiom_vision.dim_org_away RENAME TO dim_org")
    assert state.type == "FAILED" and "dim_org" in state.message
    steps = olap.steps(run)
    assert steps["refresh_dim_org"]["state"]["type"] == "FAILED"
    assert steps["refresh_dim_org"]["run_count"] == 1, "what cannot pass is not tried again"
    assert {steps[name]["state"]["name"] for name in FACT_STEPS} == {"Skipped"}
    assert steps["invalidate_redis_cache"]["state"]["type"] == "COMPLETED"
    assert steps["record_sync_completion"]["state"]["type"] == "COMPLETED"
    assert olap.states()["dim_case_type"].generation > before["dim_case_type"], "it keeps its new data"
    assert olap.execute("SELECT status FROM mozart.full_sync ORDER BY id DESC LIMIT 1") == [("failed",)]
    wait_until(lambda: any("full sync failed" in post for post in received.posts), 60, "the failure's alert")


@pytest.mark.faults
def test_a_transient_failure_is_tried_again(olap: Olap) -> None:
    with olap.holding_view("dim_org"):
        run = olap.start(FULL_SYNC, retry_delay_seconds=0.5)
        wait_until(lambda: _done_in(olap) >= {*DIMENSIONS} - {"dim_org"}, 60, "the other dimensions are done")
        attempts = len(olap.history("dim_org"))
        wait_until(lambda: _kill_refreshes(olap) and len(olap.history("dim_org")) > attempts, 30, "another attempt")
    assert olap.project.wait(run).type == "COMPLETED"
    assert olap.steps(run)["refresh_dim_org"]["run_count"] > 1


def _kill_refreshes(olap: Olap) -> bool:
    """End the connections that try for a view, not the one that holds it."""
    olap.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mozart-olap'"
        " AND datname = current_database() AND pid <> pg_backend_pid()"
        " AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"
    )
    return True


@pytest.mark.faults
def test_a_killed_sync_goes_on_where_it_was(olap: Olap) -> None:
    with olap.holding_view("mv_business_fact"):
        run = olap.start(FULL_SYNC)
        wait_until(lambda: _done_in(olap) >= {*DIMENSIONS, "mv_cashflow_fact"}, 60, "all but the held view are done")
        kill_all([process for process in olap.project.family() if _runs_flow(process)])
    before = olap.execute("SELECT id, status FROM mozart.full_sync ORDER BY id DESC LIMIT 1")[0]
    assert before[1] == "started"
    # The server learns of the kill by the missing heartbeat; the operator does not wait for that.
    olap.project.post(f"flow_runs/{run}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    wait_until(lambda: bool(olap.runs(RESUME)), 60, "the automation goes on with it")
    wait_until(lambda: _status_of(olap, before[0]) == "completed", 120, "the sync is completed")
    for again in olap.runs(RESUME):  # a run that is reported as crashed twice is gone on with by one of them
        assert olap.project.wait(again["id"], *FINAL).type in ("COMPLETED", "CANCELLED")
    assert olap.execute("SELECT id, status FROM mozart.full_sync ORDER BY id DESC LIMIT 1") == [
        (before[0], "completed")
    ]
    completed = [
        attempt.view for attempt in olap.history() if (attempt.sync_id, attempt.status) == (before[0], "completed")
    ]
    assert sorted(completed) == sorted((*DIMENSIONS, *FACTS)), "each view was refreshed once in the sync"


def _status_of(olap: Olap, sync: int) -> str:
    return str(olap.execute(f"SELECT status FROM mozart.full_sync WHERE id = {sync}")[0][0])


def _done_in(olap: Olap) -> set[str]:
    """The views done in the newest sync."""
    rows = olap.execute(
        "SELECT view FROM mozart.refresh_history WHERE status = 'completed'"
        " AND sync_id = (SELECT max(id) FROM mozart.full_sync WHERE status = 'started')"
    )
    return {str(row[0]) for row in rows}


def _runs_flow(process: psutil.Process) -> bool:
    try:
        return "prefect.engine" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def test_three_days_without_a_worker_are_followed_by_one_run(olap: Olap) -> None:
    deployment = olap.deployment(FULL_SYNC)["id"]
    olap.project.stack.worker.stop()
    try:
        body = {"state": {"type": "SCHEDULED", "state_details": {}}}
        missed = [
            str(
                olap.project.post(
                    f"deployments/{deployment}/create_flow_run", body | {"idempotency_key": f"day {day}"}
                )["id"]
            )
            for day in range(3)
        ]
    finally:
        olap.project.stack.up()
    for run in missed:
        olap.project.wait(run, *FINAL)
    assert sorted(olap.project.state(run).type for run in missed) == ["CANCELLED", "CANCELLED", "COMPLETED"]
