"""The two workers of the local stack, each on a pool of its own (see `mozart.services.pools`).

A worker is launched beside the server, because importing Prefect takes longer than anything it waits for; it waits for
its pool by itself. It is ready when the server has a heartbeat from after its start. Its environment holds no secret:
flow runs read blocks. Runs that a killed worker left behind go on; `mozart down` ends them.

Knows no Prefect code: it starts processes and talks HTTP.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, cast

import httpx

from mozart.services import loopback
from mozart.services.ledger import Ledger
from mozart.services.pools import INLINE_POOL, PROCESS_POOL
from mozart.services.prefect_server import PrefectServer, client_environment
from mozart.services.process import Command
from mozart.services.service import Port, Service
from mozart.services.stack_engine import engine_environment

HEARTBEAT_SECONDS = "30"
"""How often a flow run says that it is alive; the automation that finds killed runs waits for three of these."""


class Worker(Service):
    """A worker process on a pool of its own."""

    needs: ClassVar[tuple[str, ...]] = ("prefect",)
    starts_early: ClassVar[bool] = True
    pool: ClassVar[str]
    module: ClassVar[str]

    def __init__(self, ledger: Ledger, *, root: Path, server: PrefectServer, limit: int) -> None:
        super().__init__(ledger)
        self._root = root
        self._server = server
        self._limit = limit

    @property
    def _temporary(self) -> Path:
        return self.ledger.state / "tmp"

    def prepare(self) -> None:
        """Make the folder that its runs use for temporary files."""
        super().prepare()
        self._temporary.mkdir(parents=True, exist_ok=True)

    @property
    def ports(self) -> Mapping[str, Port]:
        return {}

    def command(self) -> Command:
        options = ("--pool", self.pool, "--name", self.name, "--limit", str(self._limit))
        environment = {
            **client_environment(self._server.folder, self._server.api_url),
            **engine_environment(os.environ),
            "MOZART_ROOT": str(self._root),
            # Prefect keeps its runs' files in the machine's temporary folder, where another user's are in the way.
            "TMPDIR": str(self._temporary),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": HEARTBEAT_SECONDS,
        }
        return Command([sys.executable, "-m", self.module, *options], self.environment(environment), self._root)

    def problem(self) -> str | None:
        record = self.ledger.get(self.name)
        try:
            answer = loopback.client().post(f"{self._server.api_url}/work_pools/{self.pool}/workers/filter", json={})
            answer.raise_for_status()
        except httpx.HTTPError as error:
            return loopback.reason(error)
        workers = cast(list[dict[str, Any]], answer.json())
        beats = [_moment(item["last_heartbeat_time"]) for item in workers if item["name"] == self.name]
        if record and any(beat >= record.create_time for beat in beats):
            return None
        return "the server has no heartbeat of it yet"


class ProcessWorker(Worker):
    """Runs each flow run in a process of its own."""

    name: ClassVar[str] = "worker"
    pool: ClassVar[str] = PROCESS_POOL
    module: ClassVar[str] = "mozart.fleet.process_worker"


class InlineWorker(Worker):
    """Runs short flow runs inside itself."""

    name: ClassVar[str] = "inline"
    pool: ClassVar[str] = INLINE_POOL
    module: ClassVar[str] = "mozart.fleet.inline_worker"


def _moment(text: str | None) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0
