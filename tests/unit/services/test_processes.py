"""Starting, recognising and stopping processes; a stranger with a recycled pid is never signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mozart.services.process import (
    MARKER,
    Command,
    ProcessRecord,
    base_environment,
    marked,
    start_process,
    stop_marked,
    stop_process,
)

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ProcessRecord]]:
    records: list[ProcessRecord] = []
    yield records
    for record in records:
        stop_process(record, ((signal.SIGKILL, 5),))


def run_python(code: str, folder: Path) -> ProcessRecord:
    command = Command([sys.executable, "-c", code], base_environment(folder), folder)
    return start_process(command, folder / "logs" / "x.log", {"x": 1})


def test_started_process_is_found_until_it_is_stopped(tmp_path: Path, started: list[ProcessRecord]) -> None:
    record = run_python(SLEEP, tmp_path)
    started.append(record)
    assert record.find() is not None
    assert stop_process(record, ((signal.SIGTERM, 10), (signal.SIGKILL, 5)))
    assert record.find() is None


def test_another_creation_time_is_another_process(tmp_path: Path, started: list[ProcessRecord]) -> None:
    record = run_python(SLEEP, tmp_path)
    started.append(record)
    recycled = replace(record, create_time=record.create_time - 60)
    assert recycled.find() is None
    assert stop_process(recycled, ((signal.SIGKILL, 5),))
    assert record.find() is not None


def test_stubborn_process_is_killed_after_its_deadline(tmp_path: Path, started: list[ProcessRecord]) -> None:
    record = run_python(STUBBORN, tmp_path)
    started.append(record)
    log = tmp_path / "logs" / "x.log"
    while "up" not in log.read_text():
        assert record.find() is not None
    assert not stop_process(record, ((signal.SIGTERM, 0.2),))
    assert stop_process(record, ((signal.SIGTERM, 0.2), (signal.SIGKILL, 10)))


def test_child_has_default_signals_and_a_session_of_its_own(tmp_path: Path) -> None:
    """Even when whoever starts it ignores SIGINT, as a script's background job does."""
    code = "import os, signal; print(signal.getsignal(signal.SIGINT), os.getsid(0) == os.getpid(), flush=True)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        record = run_python(code, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    psutil.Process(record.pid).wait(20)
    assert "default_int_handler" in (tmp_path / "logs" / "x.log").read_text()
    assert "True" in (tmp_path / "logs" / "x.log").read_text()


def test_environment_is_an_allow_list(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "HOME": "/home/x", "S3_SECRET_ACCESS_KEY": "s", "AWS_PROFILE": "p", "PGPASSWORD": "q"}
    shown = base_environment(tmp_path, environ)
    assert shown == {"PATH": "/bin", "HOME": "/home/x", "LANG": "C.UTF-8", MARKER: str(tmp_path)}


def test_marked_processes_are_found_and_stopped(tmp_path: Path, started: list[ProcessRecord]) -> None:
    """A grandchild that nobody recorded, as a killed worker leaves one."""
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); time.sleep(60)"
    parent = run_python(code, tmp_path)
    started.append(parent)
    while len(found := {process.pid for process in marked(tmp_path)}) < 2:
        assert parent.find() is not None
    stop_process(parent, ((signal.SIGKILL, 5),))
    with subprocess.Popen([sys.executable, "-c", SLEEP], env={**os.environ, MARKER: "/elsewhere"}) as stranger:
        stopped = set(stop_marked(tmp_path))
        assert stranger.poll() is None
        stranger.kill()
    assert stopped == found - {parent.pid}
    assert not list(marked(tmp_path))
