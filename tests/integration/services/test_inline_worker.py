"""The inline worker: short runs inside one process, failures, cancellation, draining."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.projects import Project

POOL = "mozart-inline"


def test_run_completes_and_sends_a_heartbeat(project: Project, eventually: object) -> None:
    api = project.api
    run = api.run(api.deploy(POOL, "probe.py:hello", project.root), seconds=2)
    api.wait(run, "COMPLETED", seconds=30)
    wait_until = eventually
    assert callable(wait_until)
    wait_until(lambda: bool(api.events("prefect.flow-run.heartbeat", run)))


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
def test_sigterm_drains(project: Project) -> None:
    api = project.api
    run = api.run(api.deploy(POOL, "probe.py:hello", project.root), seconds=4)
    api.wait(run, "RUNNING", seconds=30)
    worker = psutil.Process(project.pids["inline"])
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    assert api.state(run)["type"] == "COMPLETED"
    project.up()
