"""The whole local stack: which servers, in which order, started side by side where nothing holds them up.

`Stack.up` starts what is not running and leaves the rest alone; `down` stops what this stack started and nothing else.
Both hold the stack's lock, so that two at once do not race. All state lies in the project's `.mozart/`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from mozart.errors import ConfigurationError, MozartError
from mozart.lake.lakehouse import Lakehouse
from mozart.services.ledger import Ledger
from mozart.services.olap_daemons import ListenDaemon, RelayDaemon, are_enabled
from mozart.services.postgres import Postgres
from mozart.services.prefect_server import PrefectServer
from mozart.services.process import stop_marked
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS
from mozart.services.secrets import ensure_secrets
from mozart.services.service import DEADLINE, Service, ServiceStatus
from mozart.services.stack_engine import create_trino, stack_secrets
from mozart.services.valkey import Valkey
from mozart.services.workers import InlineWorker, ProcessWorker
from mozart.settings import Settings, load_settings


@dataclass(frozen=True)
class Progress:
    """One step of `up` or `down`, as it is done. Seconds count from the service's own start."""

    service: str
    event: str
    seconds: float


Report = Callable[[Progress], None]


def ignore(_progress: Progress) -> None:
    """Report nothing."""


class _NotStartedError(MozartError):
    """What a service needs did not start."""


class Stack:
    """The services of one project. `durable=False` (tests) lets PostgreSQL skip fsync."""

    def __init__(self, settings: Settings, *, durable: bool = True) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.state)
        ledger, port, known = self.ledger, settings.port, _with_blank_secrets(settings)
        self.postgres = Postgres(
            ledger, port=port("MOZART_POSTGRES_PORT"), password=known.get("MOZART_POSTGRES_PASSWORD"), durable=durable
        )
        self.valkey = Valkey(ledger, port=port("MOZART_VALKEY_PORT"), password=known.get("MOZART_VALKEY_PASSWORD"))
        base = port("MOZART_SEAWEEDFS_PORT_BASE")
        inner = range(base, base + INNER_PORTS)
        self.seaweedfs = SeaweedFS(ledger, lakehouse=local_lakehouse(known), inner_ports=inner)
        self.trino = create_trino(ledger, known, self.seaweedfs.lakehouse)
        self.prefect = PrefectServer(
            ledger, port=port("MOZART_PREFECT_PORT"), postgres=self.postgres, root=settings.root
        )
        self.worker = ProcessWorker(
            ledger, root=settings.root, server=self.prefect, limit=settings.number("MOZART_WORKER_LIMIT")
        )
        self.inline = InlineWorker(
            ledger, root=settings.root, server=self.prefect, limit=settings.number("MOZART_INLINE_LIMIT")
        )
        self.relay = RelayDaemon(ledger, root=settings.root, api_url=self.prefect.api_url)
        self.listen = ListenDaemon(ledger, root=settings.root, api_url=self.prefect.api_url)

    @property
    def services(self) -> Sequence[Service]:
        servers = (self.postgres, self.valkey, self.seaweedfs, *self._engines, self.prefect, self.worker, self.inline)
        return (*servers, *self._daemons) if are_enabled(self.ledger.state) else servers

    @property
    def _engines(self) -> Sequence[Service]:
        return () if self.trino is None else (self.trino,)

    @property
    def _daemons(self) -> Sequence[Service]:
        return (self.relay, self.listen)

    def up(self, report: Report = ignore) -> None:
        """Start what is not running and wait until everything is ready.

        Before anything is started, raises ConfigurationError naming every port that something else holds, TerminalError
        for what this machine lacks; else the first service's error, after the others that do not depend on it are up.
        """
        for name in stack_secrets(self.settings):
            self.settings.get(name)
        with self.ledger.lock():
            self._check_ports()
            for service in self.services:
                service.require()
            failures = _start_in_order(self.services, report)
        if failures:
            raise failures[0]

    def down(self, report: Report = ignore, deadline: float = DEADLINE) -> None:
        """Stop everything this stack started, dependents first, `deadline` seconds for each service at most."""
        with self.ledger.lock():
            first = (self.worker, self.inline, *self._daemons)
            waves = (first, (self.prefect, *self._engines), (self.postgres, self.valkey, self.seaweedfs))
            failures = [failure for wave in waves for failure in _stop_together(wave, report, deadline)]
            for pid in stop_marked(self.ledger.state):
                report(Progress(f"pid {pid}", "stopped (left behind by a part that was killed)", 0.0))
        if failures:
            raise failures[0]

    def status(self) -> list[ServiceStatus]:
        return [service.status() for service in self.services]

    def _check_ports(self) -> None:
        problems = [
            problem for service in self.services if service.process() is None for problem in service.port_problems()
        ]
        if problems:
            raise ConfigurationError(problems)


def load_stack(root: Path | None = None, *, durable: bool = True) -> Stack:
    """The stack of the project, its secrets made on first use (see `ensure_secrets`)."""
    settings = load_settings(root)
    ensure_secrets(settings.root, stack_secrets(settings))
    return Stack(load_settings(root), durable=durable)


def local_lakehouse(settings: Settings) -> Lakehouse:
    """The lakehouse that the settings describe; raises ConfigurationError naming a secret that is not set."""
    host = settings.get("MOZART_HOST")
    return Lakehouse(
        s3_endpoint=f"http://{host}:{settings.port('MOZART_S3_PORT')}",
        s3_region=settings.get("S3_REGION"),
        access_key_id=settings.get("S3_ACCESS_KEY_ID"),
        secret_access_key=SecretStr(settings.get("S3_SECRET_ACCESS_KEY")),
        catalog_uri=f"http://{host}:{settings.port('MOZART_CATALOG_PORT')}",
        warehouse=settings.get("ICEBERG_WAREHOUSE"),
        bucket=settings.get("S3_BUCKET"),
    )


def _with_blank_secrets(settings: Settings) -> Settings:
    """So that `down` and `ps` work on a project whose `.env` is gone."""
    known = {name: value for name, value in settings.values.items() if value}
    return replace(settings, values={**dict.fromkeys(stack_secrets(settings), "not-set"), **known})


def _start_in_order(services: Sequence[Service], report: Report) -> list[MozartError]:
    """Start each service as soon as those it needs are ready; returns the errors, the first cause first."""
    ready: dict[str, Future[None]] = {service.name: Future() for service in services}
    failures: list[MozartError] = []

    def start(service: Service) -> None:
        needs, outcome = [ready[need] for need in service.needs], ready[service.name]
        launched = service.starts_early and service.begin()
        if any(need.exception() for need in needs):  # waits; the cause is reported by the service that has it
            outcome.set_exception(_NotStartedError())
            return
        began = time.monotonic()
        try:
            launched = service.begin() or launched
            service.finish()
        except MozartError as error:
            failures.append(error)
            outcome.set_exception(error)
            report(Progress(service.name, "failed", time.monotonic() - began))
        else:
            report(Progress(service.name, "ready" if launched else "already running", time.monotonic() - began))
            outcome.set_result(None)

    _in_threads([partial(start, service) for service in services])
    return failures


def _stop_together(services: Sequence[Service], report: Report, deadline: float) -> list[MozartError]:
    failures: list[MozartError] = []

    def stop(service: Service) -> None:
        began = time.monotonic()
        try:
            event = "stopped" if service.stop(deadline) else "was not running"
        except MozartError as error:
            failures.append(error)
            event = "does not end"
        report(Progress(service.name, event, time.monotonic() - began))

    _in_threads([partial(stop, service) for service in services])
    return failures


def _in_threads(jobs: Sequence[Callable[[], None]]) -> None:
    """Run the jobs side by side. Daemon threads: Ctrl-C ends the command at once, not after their timeouts."""
    unexpected: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            unexpected.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if unexpected:
        raise unexpected[0]
