"""What an operator types, and what it leaves on the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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


def test_prefects_own_command_twice_at_once_completes_one_and_cancels_one_with_the_reason(deployed: Deployed) -> None:
    command = ("deployment", "run", f"tenant-pipeline/{TENANT}")
    with deployed.hold(), ThreadPoolExecutor(2) as two:
        outputs = list(two.map(lambda _: deployed.prefect(*command), range(2)))
        runs = [_started_run(output) for output in outputs]
        first = sorted((deployed.wait(run, "RUNNING", "CANCELLED").type, run) for run in runs)
    assert [kind for kind, _ in first] == ["CANCELLED", "RUNNING"]
    cancelled, running = (run for _, run in first)
    assert deployed.state(cancelled) == RunState("CANCELLED", "Cancelled", "Deployment concurrency limit reached.")
    assert deployed.tasks(cancelled) == {}
    assert deployed.wait(running).name == "Completed"
