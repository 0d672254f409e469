"""A schedule in tenant.yaml becomes runs on the server, and a changed one is applied by the next deploy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.deployment import TENANT, Deployed, wait_until

pytestmark = pytest.mark.e2e

# Far off, so that no run of it falls into the tests; Prefect plans at most 100 days ahead.
SOON = 'schedule: "17 3 * * *"'


def _planned(deployed: Deployed) -> list[dict[str, Any]]:
    """The runs that the server itself has scheduled for the tenant."""
    found = deployed.post(
        "flow_runs/filter",
        {
            "deployments": {"id": {"any_": [deployed.deployment()["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        },
    )
    return [run for run in found if run["auto_scheduled"]]


def test_a_changed_schedule_is_deployed_and_makes_runs(deployed: Deployed) -> None:
    file = deployed.root / "tenants" / TENANT / "tenant.yaml"
    text = file.read_text()
    line = next(row.strip() for row in text.splitlines() if row.strip().startswith("schedule:"))
    try:
        file.write_text(text.replace(line, SOON))
        deployed.must("sync")
        assert f"deployment tenant-pipeline/{TENANT}: updated" in deployed.must("deploy")
        schedules = deployed.deployment()["schedules"]
        assert [schedule["schedule"]["cron"] for schedule in schedules] == ["17 3 * * *"]
        wait_until(lambda: bool(_planned(deployed)), 120, "the scheduler's first run")
        assert all("T03:17:00" in run["expected_start_time"] for run in _planned(deployed))
    finally:
        file.write_text(text)
        deployed.must("sync")
        deployed.must("deploy")
    assert deployed.must("deploy").startswith("Nothing to change")
