"""The workers: short runs inside one process, failures, cancellation, and what SIGTERM leaves."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.projects import Project

POOL = "mozart-inline"


def test_run_completes_and_sends_a_heartbeat(project: Project, eventually: Callable[..., None]) -> None:
    api = project.api
    run = api.run(api.deploy(POOL, "probe.py:hello", project.root), seconds=2)
    api.wait(run, "COMPLETED", seconds=30)
    eventually(lambda: bool(api.events("prefect.flow-run.heartbeat", run)))


def test_second_run_needs_no_import(project: Project) -> None:
    api = project.api
    deployment = api.deploy(POOL, "probe.py:hello", project.root)
    api.wait(api.run(deployment), "COMPLETED", seconds=30)
    began = time.monotonic()
    api.wait(api.run(deployment), "COMPLETED", seconds=30)
    print(f"a warm inline run took {time.monotonic() - began:.2f} s")


def test_failing_flow_fails_its_run_only(project: Project) -> None:
    api = project.api
    state = api.wait(api.run(api.deploy(POOL, "probe.py:broken", project.root)), "FAILED", seconds=30)
    assert "as intended" in state["message"]
    api.wait(api.run(api.deploy(POOL, "probe.py:hello", project.root)), "COMPLETED", seconds=30)


def test_flow_that_cannot_be_loaded_is_crashed_with_the_reason(project: Project) -> None:
    api = project.api
    state = api.wait(api.run(api.deploy(POOL, "nowhere.py:hello", project.root)), "CRASHED", seconds=30)
    assert "nowhere.py" in state["message"]


def test_cancelled_run_ends_as_cancelled(project: Project) -> None:
    api = project.api
    run = api.run(api.deploy(POOL, "probe.py:hello", project.root), seconds=300)
    api.wait(run, "RUNNING", seconds=30)
    api.cancel(run)
    api.wait(run, "CANCELLED", seconds=30)
    api.wait(api.run(api.deploy(POOL, "probe.py:hello", project.root)), "COMPLETED", seconds=30)


@pytest.mark.faults
def test_sigterm_lets_short_runs_end_and_reports_long_ones(project: Project) -> None:
    """Both workers at once: each has a run that ends while it drains and one that does not."""
    api = project.api
    deployments = [api.deploy(pool, "probe.py:hello", project.root) for pool in ("mozart", POOL)]
    long = [api.run(deployment, seconds=300) for deployment in deployments]
    for run in long:
        api.wait(run, "RUNNING")
    short = [api.run(deployment, seconds=3) for deployment in deployments]
    for run in short:
        api.wait(run, "RUNNING", "COMPLETED")
    workers = [psutil.Process(project.pids[name]) for name in ("worker", "inline")]
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(workers, timeout=40)
    assert not alive
    assert [api.state(run)["type"] for run in short] == ["COMPLETED"] * 2
    assert [api.state(run)["type"] for run in long] == ["CRASHED"] * 2
    project.revive()
