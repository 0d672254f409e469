"""Business events to fresh views through the whole stack, and without the parts of it that may be away."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from mozart.olap.refresh import ANSWERED
from mozart.olap.sweep import GRACE_SECONDS
from tests.e2e.deployment import wait_until
from tests.e2e.olap import FACTS, Olap

pytestmark = pytest.mark.e2e

WINDOW = 1.0
"""Seconds of quiet that the tests' views wait for."""


def _refreshes(olap: Olap, view: str, *kinds: str) -> int:
    return sum(attempt.status == "completed" and attempt.kind in kinds for attempt in olap.history(view))


def test_a_burst_of_events_is_one_run_of_each_views_deployment(olap: Olap) -> None:
    olap.wait_fresh(*FACTS)
    before = {view: len(olap.runs(f"mv-incremental/{view}")) for view in FACTS}
    refreshed = {view: _refreshes(olap, view, "event", "sweep", "incremental") for view in FACTS}
    olap.change(seed=21)
    olap.execute(
        "INSERT INTO event_outbox (topic, payload)"
        " SELECT 'performance_recorded', jsonb_build_object('case_id', n) FROM generate_series(1, 10000) n"
    )
    seconds = olap.wait_fresh(*FACTS)
    print(f"the views were fresh {seconds:.1f} s after a burst of 10,000 events, with a window of {WINDOW:.0f} s")
    for view in FACTS:
        assert _refreshes(olap, view, "event", "sweep", "incremental") == refreshed[view] + 1
        wait_until(lambda view=view: len(olap.runs(f"mv-incremental/{view}")) == before[view] + 1, 30, "its run")
        run = olap.runs(f"mv-incremental/{view}")[0]
        assert olap.project.wait(run["id"]).type == "COMPLETED"
        (row,) = olap.project.rows_of(run["id"], f"{view.replace('_', '-')}-sync")
        assert (row["kind"], row["run_id"]) == ("event", run["id"])
        # On a machine that is so slow that the sweep had to do it, the run says so and does nothing again.
        assert row["status"] == "completed" or (seconds > GRACE_SECONDS and row["reason"] == ANSWERED)


def test_another_system_asks_by_the_documented_event(olap: Olap) -> None:
    olap.wait_fresh(*FACTS)
    before = len(olap.runs("mv-incremental/dim_org"))
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "mozart.view.changed",
        "resource": {"prefect.resource.id": "mozart.view.dim_org"},
        "payload": {},
    }
    olap.project.post("events", [event])
    wait_until(lambda: len(olap.runs("mv-incremental/dim_org")) == before + 1, 60, "the automation's run")
    assert olap.project.wait(olap.runs("mv-incremental/dim_org")[0]["id"]).type == "COMPLETED"


def test_a_request_too_soon_is_skipped_with_the_reason_and_kept(olap: Olap) -> None:
    run = olap.start("mv-incremental/dim_org", force=True)
    assert olap.project.wait(run).type == "COMPLETED"
    run = olap.start("mv-incremental/dim_org")
    assert olap.project.wait(run).type == "COMPLETED"
    (row,) = olap.project.rows_of(run, "dim-org-sync")
    assert (row["status"], row["reason"]) == ("skipped", "Too recent")
    assert olap.states()["dim_org"].dirty_since is not None, "the request is not lost"
    run = olap.start("mv-incremental/dim_org", force=True)
    olap.project.wait(run)
    assert olap.project.rows_of(run, "dim-org-sync")[0]["status"] == "completed"


def test_a_failing_refresh_fails_its_run(olap: Olap) -> None:
    run = olap.start("mv-incremental/dim_org", view="dim_nothing")
    state = olap.project.wait(run)
    assert state.type == "FAILED" and "dim_nothing" in state.message


def test_explain_touches_nothing(olap: Olap) -> None:
    before = len(olap.history())
    run = olap.start("mv-incremental/mv_business_fact", explain=True)
    assert olap.project.wait(run).type == "COMPLETED"
    assert len([attempt for attempt in olap.history() if attempt.run_id == run]) == 0
    assert len(olap.history()) >= before


@pytest.mark.faults
def test_killed_daemons_are_started_again_and_lose_no_event(olap: Olap) -> None:
    stack = olap.project.stack
    for daemon in (stack.relay, stack.listen):
        record = daemon.process()
        assert record is not None
        process = record.find()
        assert process is not None
        process.kill()
        process.wait(10)
    olap.change(seed=31)
    assert not olap.is_fresh(*FACTS)
    stack.up()
    olap.wait_fresh(*FACTS)
    status = olap.project.must("olap", "listen", "--status")
    assert "outbox         0 events" in status


@pytest.mark.faults
def test_while_the_prefect_server_is_away_the_sweep_does_the_work(olap: Olap) -> None:
    stack = olap.project.stack
    before = {view: _refreshes(olap, view, "sweep") for view in FACTS}
    stack.prefect.stop()
    try:
        olap.change(seed=41)
        olap.wait_fresh(*FACTS)
        assert all(_refreshes(olap, view, "sweep") > before[view] for view in FACTS)
    finally:
        stack.up()
    runs = {view: len(olap.runs(f"mv-incremental/{view}")) for view in FACTS}
    # Workers of a server that was away come back by themselves, and events start runs again.
    olap.change(seed=42)
    olap.wait_fresh(*FACTS)
    wait_until(
        lambda: all(len(olap.runs(f"mv-incremental/{view}")) > runs[view] for view in FACTS), 60, "runs of both views"
    )


@pytest.mark.faults
def test_a_lost_redis_costs_latency_only(olap: Olap) -> None:
    stack = olap.project.stack
    stack.valkey.stop()
    try:
        olap.change(seed=51)
        began = time.monotonic()
        olap.wait_fresh(*FACTS)  # by the change log: no event can come
        print(f"without Redis the views were fresh after {time.monotonic() - began:.1f} s")
    finally:
        stack.up()
    olap.change(seed=52)
    olap.wait_fresh(*FACTS)
