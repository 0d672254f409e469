"""The whole stack as an operator uses it: up, ps, kills, taken ports, down. One stack serves the module."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from mozart.services.process import MARKER, ProcessRecord
from mozart.services.secrets import STACK_SECRETS
from mozart.settings import load_settings
from tests.projects import Project

Kill = Callable[[int], None]
Eventually = Callable[..., None]

PARTS = ("postgres", "valkey", "seaweedfs", "prefect", "worker", "inline")


def test_every_part_listens_on_loopback_only(project: Project) -> None:
    for name, pid in project.pids.items():
        for connection in psutil.Process(pid).net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1", f"{name} listens on {connection.laddr}"


def test_ps_shows_every_part_running(project: Project) -> None:
    done = project.mozart("ps", "--json")
    assert done.returncode == 0
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert tuple(rows) == PARTS
    assert {row["state"] for row in rows.values()} == {"running"}
    assert rows["prefect"]["port"] == load_settings(project.root, environ={}).port("MOZART_PREFECT_PORT")
    assert "worker" in project.mozart("ps").stdout


def test_second_up_starts_nothing(project: Project) -> None:
    before = project.pids
    assert project.up().count("already running") == len(PARTS)
    assert project.pids == before


def test_no_process_carries_a_secret_in_its_arguments_or_environment(project: Project) -> None:
    settings = load_settings(project.root, environ={})
    secrets = {settings.get(name) for name in STACK_SECRETS}
    secrets.add((project.root / ".mozart/prefect/pgpass").read_text().strip().rsplit(":", 1)[1])
    for name, pid in project.pids.items():
        process = psutil.Process(pid)
        shown = "\n".join([*process.cmdline(), *process.environ().values()])
        for secret in secrets:
            assert secret not in shown, f"{name} shows a secret"


def test_environment_of_a_run_is_an_allow_list(project: Project) -> None:
    out = project.root / "environment.txt"
    run = project.api.run(project.api.deploy("mozart", "probe.py:hello", project.root), out=str(out))
    project.api.wait(run, "COMPLETED")
    shown = json.loads(out.read_text())
    settings = load_settings(project.root, environ={})
    assert not {settings.get(name) for name in STACK_SECRETS} & set(shown.values())
    assert not set(STACK_SECRETS) & set(shown)
    assert shown["DO_NOT_TRACK"] == "1"
    assert shown["MOZART_ROOT"] == str(project.root)


def test_secret_files_are_private(project: Project) -> None:
    for file in (".env", ".mozart/prefect/pgpass", ".mozart/seaweedfs/s3.json", ".mozart/valkey/valkey.conf"):
        assert (project.root / file).stat().st_mode & 0o777 == 0o600, file


def test_telemetry_is_off(project: Project) -> None:
    seaweedfs = psutil.Process(project.pids["seaweedfs"]).cmdline()
    assert "-master.telemetry=false" in seaweedfs
    assert psutil.Process(project.pids["prefect"]).environ()["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


@pytest.mark.faults
def test_up_restarts_only_killed_parts_with_their_data(project: Project, kill: Kill) -> None:
    killed = {"postgres", "valkey", "seaweedfs", "inline"}
    project.stack.valkey.client().set("kept", "yes")
    project.stack.seaweedfs.lakehouse.catalog().create_namespace_if_not_exists("kept")
    database = project.stack.postgres.create_database("kept", owner="kept", password="pw")
    with database.connect() as connection:
        connection.execute("CREATE TABLE kept (id int)")
    before = project.pids
    for part in sorted(killed):
        kill(before[part])
    done = project.mozart("ps", "--json")
    assert done.returncode == 1
    assert {row["name"] for row in json.loads(done.stdout) if row["state"] == "dead"} == killed
    project.revive()
    after = project.pids
    assert {name for name in PARTS if after[name] != before[name]} == killed
    assert project.stack.valkey.client().get("kept") == b"yes"
    assert ("kept",) in project.stack.seaweedfs.lakehouse.catalog().list_namespaces()
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@pytest.mark.faults
def test_killed_worker_and_server_come_back_and_run_what_was_scheduled(project: Project, kill: Kill) -> None:
    deployment = project.api.deploy("mozart", "probe.py:hello", project.root)
    kill(project.pids["worker"])
    run = project.api.run(deployment)
    kill(project.pids["prefect"])
    project.revive()
    project.api.wait(run, "COMPLETED")


@pytest.mark.faults
def test_taken_port_names_port_holder_and_setting(project: Project, kill: Kill) -> None:
    port = project.stack.valkey.ports["valkey"].number
    kill(project.pids["valkey"])
    with socket.create_server(("127.0.0.1", port)):
        done = project.mozart("up")
    assert done.returncode == 2
    assert f"port {port} (valkey" in done.stderr
    assert f"(pid {psutil.Process().pid})" in done.stderr
    assert "MOZART_VALKEY_PORT" in done.stderr
    project.revive()


@pytest.mark.faults
def test_two_ups_do_not_race(project: Project) -> None:
    with project.stack.ledger.lock():
        done = project.mozart("up")
    assert done.returncode == 75
    assert f"pid {psutil.Process().pid}" in done.stderr


@pytest.mark.faults
def test_down_stops_ours_and_nothing_else(project: Project, kill: Kill, eventually: Eventually) -> None:
    """With a recycled pid in the records, and a run that its killed worker left behind."""
    out = project.root / "left.txt"
    deployment = project.api.deploy("mozart", "probe.py:hello", project.root)
    project.api.wait(project.api.run(deployment, out=str(out), seconds=300), "RUNNING")
    ours = project.pids
    left = _children(ours["worker"])
    assert left
    kill(ours["worker"])
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as stranger:
        record = project.stack.ledger.get("valkey")
        assert record is not None
        kill(ours.pop("valkey"))
        recycled = ProcessRecord(stranger.pid, record.create_time, record.ports)
        project.stack.ledger.put("valkey", recycled)
        done = project.mozart("down")
        assert done.returncode == 0, done.stderr
        assert stranger.poll() is None
        stranger.kill()
    gone = [*ours.values(), *left]
    eventually(lambda: not any(psutil.pid_exists(pid) and _is_ours(pid, project) for pid in gone), 5)
    assert {status.state for status in project.stack.status()} == {"stopped"}
    project.revive()


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _is_ours(pid: int, project: Project) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARKER) == str(
            project.root / ".mozart"
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
