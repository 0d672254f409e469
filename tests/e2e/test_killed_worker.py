"""A worker killed at any point blocks its tenant for at most two minutes.

The kills are `kill -9`; afterwards `mozart up` starts a worker again. Two deployments (the tenant's and a branch's, each
with its slot) wait side by side, so that the two long waits are one. The seconds are printed (`pytest -s`).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mozart.fleet.plan import AUTOMATIONS
from mozart.services.pools import PROCESS_POOL
from mozart.services.prefect_server import client_environment
from tests.e2e.deployment import Deployed, RunState, kill_all, wait_until

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


def test_idle_worker_killed_and_started_again_runs_the_next_run(deployed: Deployed) -> None:
    kill_all(deployed.family())
    deployed.must("up")
    deployed.complete()


def test_run_survives_its_worker(deployed: Deployed) -> None:
    with deployed.hold():
        run = deployed.start()
        deployed.wait(run, "RUNNING")
        kill_all([deployed.worker()])
        deployed.must("up")
    assert deployed.wait(run) == RunState("COMPLETED", "Completed", "")
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
    freed = _seconds_until_free(deployed, branch, claimed_at)
    print(f"\nkilled while running: Crashed after {crashed:.0f} s; killed before the start: free after {freed:.0f} s")
    assert deployed.state(claimed).type in ("PENDING", "CRASHED")

    for deployment, since in (("acme", killed_at), (branch, claimed_at)):
        deployed.wait(deployed.start(deployment), "RUNNING", "COMPLETED")
        accepted = time.monotonic() - since
        print(f"{deployment}: a new run is running {accepted:.0f} s after the kill")
        assert accepted < AT_MOST_SECONDS
    wait_until(lambda: not deployed.taken_slots() + deployed.taken_slots(branch), 120, "both new runs end")


def _claim_and_die(deployed: Deployed, deployment: str) -> tuple[str, float]:
    """A run that a worker claimed just before it was killed, and the moment of that."""
    home = deployed.root / ".mozart" / "prefect"
    run = deployed.start(deployment)
    environment = deployed.environment(**client_environment(Path(home), deployed.api), MOZART_ROOT=str(deployed.root))
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
