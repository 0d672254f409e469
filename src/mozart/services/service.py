"""One server of the stack: how it is started, when it is ready, how it is stopped.

The same class serves `mozart up` and the tests. A subclass says what to run (`command`), what must exist before
(`prepare`), when it can be used (`problem`: a reason, or None) and what must exist inside it (`settle`). This class
does the rest: ports, process records, waiting, stopping.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mozart.errors import ConfigurationError, Problem, TerminalError, TransientError
from mozart.services import ports as tcp
from mozart.services.ledger import Ledger
from mozart.services.process import Command, ProcessRecord, base_environment, start_process, stop_process

State = Literal["running", "dead", "stopped"]

HOST = "127.0.0.1"
DEADLINE = 20.0
_POLL = 0.03
_SLOWEST_POLL = 0.2
_LOG_LINES = 15


@dataclass(frozen=True)
class Port:
    """A port a service listens on and the setting that moves it."""

    number: int
    setting: str


@dataclass(frozen=True)
class ServiceStatus:
    """One row of `mozart ps`. `dead`: it was started and is gone; `stopped`: it was not started. Uptime in seconds."""

    name: str
    state: State
    pid: int | None
    port: int | None
    uptime: float | None
    log: str


class Service(ABC):
    """A server process of the stack. `needs` names the services that must be ready before it can be."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    starts_early: ClassVar[bool] = False
    """Whether it may be launched before what it needs is ready, and waits for that by itself."""
    start_timeout: ClassVar[float] = 90.0
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]] = (
        (signal.SIGTERM, 0.8),
        (signal.SIGKILL, 0.2),
    )
    """Signals in order, each with its share of the deadline."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.folder = ledger.state / self.name
        self.log = ledger.state / "logs" / f"{self.name}.log"

    # What a subclass says.

    @property
    @abstractmethod
    def ports(self) -> Mapping[str, Port]:
        """The ports by role; the first is the one people connect to."""

    @abstractmethod
    def command(self) -> Command: ...

    @abstractmethod
    def problem(self) -> str | None:
        """Why the running server cannot be used yet; None when it can. Must not raise for a server that is starting."""

    def require(self) -> None:  # noqa: B027 - most services bring everything along
        """Raise TerminalError, with the cure, when this machine lacks what the server needs. Changes nothing."""

    def prepare(self) -> None:
        """Write what the server needs before it starts (folders, configuration). Idempotent."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def settle(self) -> None:  # noqa: B027 - most services have nothing to settle
        """Create what must exist inside the ready server (pools). Idempotent; runs at every `up`."""

    # What callers use.

    def start(self) -> bool:
        """`begin` and `finish`; True when a process was started."""
        started = self.begin()
        self.finish()
        return started

    def begin(self) -> bool:
        """Launch the process unless it runs; True when it was launched. Raises ConfigurationError for a taken port."""
        if self.process() is not None:
            return False
        self.check_ports()
        self.prepare()
        self.launch()
        return True

    def finish(self) -> None:
        """Wait until the launched server is ready, and settle it.

        Raises TerminalError when the process exits while starting, TransientError when it is not ready within
        `start_timeout` seconds.
        """
        self.wait_ready()
        self.settle()

    def launch(self) -> None:
        numbers = {role: port.number for role, port in self.ports.items()}
        self.ledger.put(self.name, start_process(self.command(), self.log, numbers))

    def is_ready(self) -> bool:
        return self.process() is not None and self.problem() is None

    def stop(self, deadline: float = DEADLINE) -> bool:
        """Stop the process this stack started, within `deadline` seconds; True when there was one to stop."""
        record = self.ledger.get(self.name)
        if record is None:
            return False
        alive = record.find() is not None
        steps = [(number, share * deadline) for number, share in self.stop_steps]
        if not stop_process(record, steps):
            raise TransientError(f"{self.name} (pid {record.pid}) does not end, not even by SIGKILL; see {self.log}")
        self.ledger.remove(self.name)
        return alive

    def process(self) -> ProcessRecord | None:
        """The record of the living process, None when there is none."""
        record = self.ledger.get(self.name)
        return record if record and record.find() else None

    def status(self) -> ServiceStatus:
        record = self.ledger.get(self.name)
        alive = self.process()
        state: State = "running" if alive else "dead" if record else "stopped"
        first = next(iter(self.ports.values()), None)
        return ServiceStatus(
            name=self.name,
            state=state,
            pid=alive.pid if alive else None,
            port=first.number if first else None,
            uptime=round(time.time() - alive.create_time, 1) if alive else None,
            log=str(self.log),
        )

    def port_problems(self) -> list[Problem]:
        """One problem for each setting whose ports another process holds, naming that process."""
        taken: dict[tuple[str, str], list[str]] = {}
        for role, port in self.ports.items():
            if not tcp.is_free(port.number):
                holder = str(tcp.find_holder(port.number))
                taken.setdefault((port.setting, holder), []).append(f"{port.number} ({self.name}, {role})")
        return [
            Problem(
                ".env",
                setting,
                f"port {', '.join(held)} is taken by {holder}; stop that process, or set {setting} to a free port",
            )
            for (setting, holder), held in taken.items()
        ]

    def check_ports(self) -> None:
        problems = self.port_problems()
        if problems:
            raise ConfigurationError(problems)

    def wait_ready(self) -> None:
        pause = _POLL
        end = time.monotonic() + self.start_timeout
        while True:
            alive = self.process() is not None
            reason = self.problem() if alive else None
            if not alive:
                raise TerminalError(
                    f"{self.name} ended while starting. Its log, {self.log}, ends with:\n{self.log_tail()}"
                )
            if reason is None:
                return
            if time.monotonic() > end:
                raise TransientError(
                    f"{self.name} is not ready after {self.start_timeout:.0f} s: {reason}. "
                    f"Its log, {self.log}, ends with:\n{self.log_tail()}"
                )
            time.sleep(pause)
            pause = min(pause * 1.2, _SLOWEST_POLL)  # the asking must not slow down what is asked

    def log_tail(self) -> str:
        return tail(self.log)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**base_environment(self.ledger.state), **(extra or {})}


def tail(log: Path, lines: int = _LOG_LINES) -> str:
    """The last lines of a log, for an error message."""
    if not log.is_file():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
