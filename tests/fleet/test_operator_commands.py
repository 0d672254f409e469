"""`mozart status` and `mozart doctor`: they name what is wrong, with the cure, and nothing when nothing is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient

from mozart.cli.connect import prefect_client
from mozart.fleet.doctor import end_stuck_runs, find_stuck_runs
from mozart.fleet.plan import FleetPlan, ScheduleSpec, plan_fleet
from mozart.fleet.status import TenantStatus, read_status
from mozart.tenancy.load import load_fleet
from tests.e2e.deployment import Deployed
from tests.fleet.deployed_fleet import VICTIM, DeployedFleet, source_down


@pytest.fixture(scope="module")
def project(deployed_fleet: DeployedFleet) -> Deployed:
    return deployed_fleet.project


def _ask(project: Deployed, question: Callable[[PrefectClient], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with prefect_client(project.settings) as client:
            return await question(client)

    return asyncio.run(run())


def _plan(project: Deployed) -> FleetPlan:
    return plan_fleet(load_fleet(project.root).tenants)


def _status(project: Deployed) -> tuple[int, dict[str, Any]]:
    done = project.mozart("status", "--json")
    return done.returncode, {row["tenant"]: row for row in json.loads(done.stdout)["tenants"]}


def _findings(project: Deployed) -> tuple[int, dict[str, str]]:
    done = project.mozart("doctor", "--json")
    assert done.stdout, done.stderr
    return done.returncode, {row["what"]: row["problem"] for row in json.loads(done.stdout) if row["problem"]}


def test_status_shows_the_last_run_and_a_failed_one_until_the_next_good_one(project: Deployed) -> None:
    project.complete(VICTIM)
    good = _status(project)[1][VICTIM]
    assert (good["last_state"], good["problem"]) == ("Completed", None)
    _, failed = project.run(VICTIM, tables=["no_such_table"])
    assert failed.type == "FAILED"
    code, rows = _status(project)
    assert code == 1
    assert rows[VICTIM]["last_state"] == "Failed"
    assert "no_such_table" in rows[VICTIM]["problem"]
    assert rows[VICTIM]["last_success_at"] == good["last_success_at"]
    assert "no_such_table" in project.mozart("status").stdout
    project.complete(VICTIM)
    assert _status(project)[1][VICTIM]["problem"] is None


def test_status_finds_a_tenant_whose_schedule_passed_twice_without_a_good_run(project: Deployed) -> None:
    plan = _plan(project)
    hourly = [replace(spec, schedule=ScheduleSpec("0 * * * *", "UTC", active=True)) for spec in plan.deployments]

    def problem_after(hours: int) -> str | None:
        now = datetime.now(UTC) + timedelta(hours=hours)
        found: list[TenantStatus] = _ask(project, lambda client: read_status(client, hourly, now))
        return next(row.problem for row in found if row.tenant == VICTIM)

    project.complete(VICTIM)
    assert problem_after(0) is None
    assert "no good run since" in (problem_after(3) or "")


def test_status_names_a_tenant_that_is_not_deployed(project: Deployed) -> None:
    plan = _plan(project)
    missing = [replace(plan.deployments[0], name="nobody")]
    (row,) = _ask(project, lambda client: read_status(client, missing))
    assert row.problem == "not deployed; run `mozart deploy`"


def test_doctor_finds_nothing_in_a_fleet_that_is_well(project: Deployed) -> None:
    assert _findings(project) == (0, {})


def test_doctor_names_a_source_that_is_down_and_a_block_that_is_gone(
    deployed_fleet: DeployedFleet, project: Deployed
) -> None:
    with source_down(deployed_fleet):
        code, problems = _findings(project)
    assert code == 1
    assert list(problems) == [f"{VICTIM}: source"]
    password = project.settings.get("HARBOR_DB_PASSWORD")
    assert password not in problems[f"{VICTIM}: source"]

    _ask(project, lambda client: _delete_block(client, "atlas-lakehouse"))
    assert _findings(project) == (1, {"atlas": "is not deployed, or a block of it is gone; run `mozart deploy`"})
    project.must("deploy")
    assert _findings(project) == (0, {})


async def _delete_block(client: PrefectClient, name: str) -> None:
    document = await client.read_block_document_by_name(name, "mozart-tenant-lakehouse")
    await client.delete_block_document(document.id)


def test_doctor_ends_runs_that_never_started_and_no_others(project: Deployed) -> None:
    deployment = project.deployment("acme")["id"]
    body = {"state": {"type": "PENDING"}, "tags": ["lakehouse"]}
    run = project.post(f"deployments/{deployment}/create_flow_run", body)["id"]
    later = datetime.now(UTC) + timedelta(minutes=10)
    try:
        assert _ask(project, find_stuck_runs) == [], "a minute ago is no reason"
        (ended,) = _ask(project, lambda client: end_stuck_runs(client, later))
        assert str(ended.id) == run
        state = project.state(run)
        assert (state.type, "doctor" in state.message) == ("CRASHED", True)
    finally:
        project.post(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
