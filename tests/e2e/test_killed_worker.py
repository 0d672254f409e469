"""A worker killed at any point blocks its tenant for at most two minutes.

The kills are `kill -9`; afterwards `mozart up` starts a worker again. Two deployments, the tenant's and a branch's with
a slot of its own, wait side by side, so that the two long waits are one. The seconds are printed (`pytest -s`).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from mozart.fleet.automations import build_automation
from mozart.fleet.plan import AUTOMATIONS
from mozart.services.pools import PROCESS_POOL
from mozart.services.prefect_server import client_environment
from tests.e2e.deployment import Deployed, kill_all, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

BRANCH = "killed"
BRANCH_DEPLOYMENT = f"acme_{BRANCH}"
AT_MOST_SECONDS = 120.0

# Prefect's own process worker, which dies at the moment between the claim and the start of a run's process.
CLAIM_AND_DIE = """
import asyncio, os, signal, sys
from prefect.workers.process import ProcessWorker

class Dying(ProcessWorker):
    async def run(self, *_arguments, **_options):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Dying(work_pool_name=sys.argv[1], name="dying", limit=1) as worker:
        await worker.sync_with_backend()
        while True:
            await worker.get_and_submit_flow_runs()
            await asyncio.sleep(0.2)

asyncio.run(main())
"""


@pytest.fixture
def branch(deployed: Deployed) -> Iterator[str]:
    """A second deployment of the tenant, with namespaces and a slot of its own."""
    deployed.must("deploy", MOZART_BRANCH=BRANCH)
    yield BRANCH_DEPLOYMENT
    deployed.must("up")


def test_worker_killed_idle_or_alone_is_replaced_by_up(deployed: Deployed) -> None:
    """What was asked for meanwhile runs. A run whose worker alone is killed ends by itself, whichever way."""
    kill_all(deployed.family())
    run = deployed.start()
    with deployed.hold():
        deployed.must("up")
        deployed.wait(run, "RUNNING")
        kill_all([deployed.worker()])
        killed_at = time.monotonic()
        deployed.must("up")
    state = deployed.wait(run, "COMPLETED", "CRASHED", seconds=AT_MOST_SECONDS)
    print(f"\nworker killed alone: its run is {state.name} after {time.monotonic() - killed_at:.0f} s: {state.message}")
    deployed.complete()


def test_worker_killed_with_its_run_or_before_its_start_frees_the_tenant_within_two_minutes(
    deployed: Deployed, branch: str
) -> None:
    with deployed.hold():
        running = deployed.start()
        deployed.wait(running, "RUNNING")
        kill_all(deployed.family())
        killed_at = time.monotonic()
    claimed, claimed_at = _claim_and_die(deployed, branch)
    deployed.must("up")

    crashed = _seconds_until_crashed(deployed, running, killed_at)
    after_crash, accepted = _seconds_until_accepted(deployed, "acme", killed_at)
    print(f"\nkilled with its run: Crashed after {crashed:.0f} s, a new run accepted after {accepted:.0f} s")
    freed = _seconds_until_free(deployed, branch, claimed_at)
    after_claim, accepted = _seconds_until_accepted(deployed, branch, claimed_at)
    print(f"killed before the start: free after {freed:.0f} s, a new run accepted after {accepted:.0f} s")
    assert deployed.state(claimed).type in ("PENDING", "CRASHED")
    assert {deployed.wait(run).name for run in (after_crash, after_claim)} == {"Completed"}


def test_run_that_never_starts_is_crashed_and_one_that_starts_is_not(deployed: Deployed) -> None:
    """The automation of the plan with seconds in place of minutes, for runs of a tag of its own."""
    spec = next(spec for spec in AUTOMATIONS if spec.kind == "crash_stuck_runs")
    automation = build_automation(replace(spec, name="stuck, soon", seconds=15)).model_dump(mode="json")
    automation["trigger"]["match_related"] = {"prefect.resource.id": ["prefect.tag.soon"]}
    made = deployed.post("automations/", automation)
    stuck, started = (_pending_run(deployed) for _ in range(2))
    deployed.post(f"flow_runs/{started}/set_state", {"state": {"type": "RUNNING"}})
    assert deployed.wait(stuck, "CRASHED", seconds=60).message == spec.description
    assert deployed.state(started).type == "RUNNING"
    deployed.post(f"flow_runs/{started}/set_state", {"state": {"type": "COMPLETED"}})
    httpx.delete(f"{deployed.api}/automations/{made['id']}", timeout=20).raise_for_status()


def _pending_run(deployed: Deployed) -> str:
    flow = deployed.post("flows/", {"name": "never-started"})
    run = deployed.post("flow_runs/", {"flow_id": flow["id"], "tags": ["soon"], "state": {"type": "SCHEDULED"}})
    deployed.post(f"flow_runs/{run['id']}/set_state", {"state": {"type": "PENDING"}})
    return str(run["id"])


def _claim_and_die(deployed: Deployed, deployment: str) -> tuple[str, float]:
    """A run that a worker claimed just before it was killed, and the moment of that."""
    home = deployed.root / ".mozart" / "prefect"
    run = deployed.start(deployment)
    environment = deployed.environment(**client_environment(home, deployed.api), MOZART_ROOT=str(deployed.root))
    done = subprocess.run([sys.executable, "-c", CLAIM_AND_DIE, PROCESS_POOL], env=environment, timeout=90, check=False)
    assert done.returncode == -signal.SIGKILL
    assert deployed.state(run).type == "PENDING"
    assert deployed.taken_slots(deployment) == 1
    return run, time.monotonic()


def _seconds_until_crashed(deployed: Deployed, run: str, since: float) -> float:
    assert deployed.state(run).type == "RUNNING"
    left = AT_MOST_SECONDS - (time.monotonic() - since)
    wait_until(lambda: deployed.state(run).type != "RUNNING", left, "the run without a process is crashed")
    state = deployed.state(run)
    zombies = next(spec for spec in AUTOMATIONS if spec.kind == "crash_zombie_runs")
    assert (state.type, state.message) == ("CRASHED", zombies.description)
    return time.monotonic() - since


def _seconds_until_free(deployed: Deployed, deployment: str, since: float) -> float:
    left = AT_MOST_SECONDS - (time.monotonic() - since)
    wait_until(lambda: deployed.taken_slots(deployment) == 0, left, "the slot of the run that never started is free")
    return time.monotonic() - since


def _seconds_until_accepted(deployed: Deployed, deployment: str, since: float) -> tuple[str, float]:
    """A new run, and when it got the slot. How long its process takes to start is this machine's matter."""
    run = deployed.start(deployment)
    deployed.wait(run, "PENDING", "RUNNING", "COMPLETED")
    seconds = time.monotonic() - since
    assert seconds < AT_MOST_SECONDS
    return run, seconds
