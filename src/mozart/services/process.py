"""Processes of the stack: start one, recognise it later, stop it and nothing else.

A process is known by its pid *and* the time it was created: a pid alone is reused by the kernel, and a signal sent to a
recycled pid kills a stranger. Every child also carries `MARKER` (the state folder's path) in its environment, which
finds what our children started and left behind when they were killed.

Children run in a session of their own, with the default signal handlers (a stack started in the background of a script
would otherwise pass on "ignore SIGINT"), and with an environment built from an allow-list: secrets reach them by files.

Does not decide what to start or in which order: see `mozart.services.stack`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARKER = "MOZART_STACK"

_LAUNCHER = Path(__file__).with_name("launch.py")
# The clock behind psutil's creation times may be corrected by a little; a pid is not reused that fast.
_SAME_START = 2.0
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
)
_POLL = 0.03
_LOG_LIMIT = 16 * 1024 * 1024

# Popen objects of living children: a dead child of ours stays a zombie until it is asked for its status.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class RunAs:
    """Whom to become before the program starts: a user of this machine, or (`namespace`) a mapped user of our own."""

    uid: int
    gid: int
    namespace: bool = False

    def launcher_arguments(self) -> list[str]:
        kind = "--namespace" if self.namespace else "--user"
        return [f"{kind}={self.uid}:{self.gid}"]


@dataclass(frozen=True)
class Command:
    """What to run: arguments (never a secret among them), the whole environment, and where."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    run_as: RunAs | None = None


@dataclass(frozen=True)
class ProcessRecord:
    """A process that was started: enough to recognise it in a later command. Times are seconds since the epoch."""

    pid: int
    create_time: float
    ports: Mapping[str, int] = field(default_factory=dict[str, int])

    def find(self) -> psutil.Process | None:
        """The living process of this record; None when it is gone or when its pid belongs to another one now."""
        reap(self.pid)
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.create_time) > _SAME_START:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None


def base_environment(state: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment every child starts from: a few names of the operator's, no secret, and the marker."""
    source = os.environ if environ is None else environ
    passed = {name: source[name] for name in _PASSED_ON if name in source}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **passed, MARKER: str(state)}


def start_process(command: Command, log: Path, ports: Mapping[str, int]) -> ProcessRecord:
    """Start `command` detached from this terminal, its output appended to `log` (kept to 16 MB and one older file)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    run_as = command.run_as.launcher_arguments() if command.run_as else []
    # Isolated and without site: the launcher must not wait for packages it does not use.
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), *run_as, "--", *command.arguments]
    with log.open("ab") as output:
        child = subprocess.Popen(
            launcher,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=command.folder,
            env=dict(command.environment),
            start_new_session=True,
        )
    _children[child.pid] = child
    return ProcessRecord(child.pid, psutil.Process(child.pid).create_time(), dict(ports))


def reap(pid: int) -> None:
    """Collect the exit status of a child of this process, so that it does not stay a zombie."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        _children.pop(pid, None)


def stop_process(record: ProcessRecord, steps: Sequence[tuple[signal.Signals, float]]) -> bool:
    """Send each signal in turn and wait its seconds; True when the process is gone. Verifies identity before each."""
    for number, seconds in steps:
        if not _signal(record, number):
            return True
        if _wait_gone(record, seconds):
            return True
    return record.find() is None


def stop_marked(state: Path, *, but: Sequence[int] = (), seconds: float = 5.0) -> list[int]:
    """Kill processes that carry this stack's marker (left behind by a killed part); returns their pids."""
    left = [(process.pid, process.create_time()) for process in marked(state) if process.pid not in but]
    for pid, create_time in left:
        record = ProcessRecord(pid, create_time)
        stop_process(record, ((signal.SIGTERM, seconds), (signal.SIGKILL, seconds)))
    return [pid for pid, _ in left]


def marked(state: Path) -> Iterator[psutil.Process]:
    """Living processes, except this one and its ancestors, whose environment carries this stack's marker."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get(MARKER) == str(state):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            continue


def _signal(record: ProcessRecord, number: signal.Signals) -> bool:
    process = record.find()
    if process is None:
        return False
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def _wait_gone(record: ProcessRecord, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while record.find() is not None:
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL)
    return True
