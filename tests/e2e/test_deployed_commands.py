"""What an operator types, and what it leaves on the server."""

from __future__ import annotations

import pytest

from mozart.fleet.plan import AUTOMATIONS, SOURCE_READERS
from tests.e2e.deployment import TENANT, Deployed, RunState

pytestmark = pytest.mark.e2e


def _started_run(output: str) -> str:
    """The run's id in the output of `prefect deployment run`."""
    return next(line.split("UUID:")[1].strip() for line in output.splitlines() if "UUID:" in line)


def test_second_deploy_changes_nothing(deployed: Deployed) -> None:
    assert deployed.must("deploy").startswith("Nothing to change")


def test_sync_check_finds_no_drift_and_finds_one(deployed: Deployed) -> None:
    assert deployed.mozart("sync", "--check").returncode == 0
    file = deployed.root / "prefect.yaml"
    text = file.read_text()
    try:
        file.write_text(text.replace("CANCEL_NEW", "ENQUEUE"))
        assert deployed.mozart("sync", "--check").returncode == 1
    finally:
        file.write_text(text)


def test_automations_and_limits_are_on_the_server(deployed: Deployed) -> None:
    automations = {row["name"]: row for row in deployed.post("automations/filter", {})}
    for spec in AUTOMATIONS:
        assert automations[spec.name]["enabled"]
        assert automations[spec.name]["trigger"]["within"] == spec.seconds
    limits = {row["name"]: row for row in deployed.post("v2/concurrency_limits/filter", {})}
    assert limits[f"source-{TENANT}"]["limit"] == SOURCE_READERS
    assert deployed.deployment()["global_concurrency_limit"]["limit"] == 1
    assert deployed.deployment()["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def test_prefects_own_command_runs_the_tenant_and_a_second_one_is_cancelled_with_the_reason(
    deployed: Deployed,
) -> None:
    with deployed.hold():
        first = _started_run(deployed.prefect("deployment", "run", f"tenant-pipeline/{TENANT}"))
        deployed.wait(first, "RUNNING")
        second = _started_run(deployed.prefect("deployment", "run", f"tenant-pipeline/{TENANT}"))
        cancelled = deployed.wait(second)
    assert cancelled == RunState("CANCELLED", "Cancelled", "Deployment concurrency limit reached.")
    assert deployed.wait(first).name == "Completed"
    assert deployed.task_states(second) == {}


def test_two_at_once_end_as_one_completed_and_one_cancelled(deployed: Deployed) -> None:
    with deployed.hold():
        runs = [deployed.start(), deployed.start()]
        deployed_states = {run: deployed.wait(run, "RUNNING", "CANCELLED") for run in runs}
    assert sorted(state.type for state in deployed_states.values()) == ["CANCELLED", "RUNNING"]
    finals = sorted((deployed.wait(run) for run in runs), key=lambda state: state.type)
    assert finals[0].message == "Deployment concurrency limit reached."
    assert finals[1].name == "Completed"
