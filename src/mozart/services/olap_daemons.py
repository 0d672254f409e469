"""The two daemons of the OLAP layer: `mozart olap relay` and `mozart olap listen`, as parts of the local stack.

They belong to the stack once its OLAP layer is installed (`enable_daemons`), not before: without the tables they would
only wait. Their passwords are in `.env`, which they read by themselves; none is in their environment. One is ready
when it is connected to PostgreSQL and Valkey, which it says in a file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mozart.services.ledger import Ledger
from mozart.services.process import Command
from mozart.services.service import Port, Service

_MARK = "olap-enabled"


class OlapDaemon(Service):
    """A subcommand of `mozart olap` that runs until SIGTERM."""

    needs: ClassVar[tuple[str, ...]] = ("postgres", "valkey")
    subcommand: ClassVar[str]

    def __init__(self, ledger: Ledger, *, root: Path, api_url: str) -> None:
        super().__init__(ledger)
        self._root = root
        self._api_url = api_url

    @property
    def ports(self) -> Mapping[str, Port]:
        return {}

    def prepare(self) -> None:
        """Forget the readiness of an earlier process."""
        super().prepare()
        self._ready_file.unlink(missing_ok=True)

    def command(self) -> Command:
        options = ("olap", self.subcommand, "--ready-file", str(self._ready_file))
        environment = {"MOZART_ROOT": str(self._root), "PREFECT_API_URL": self._api_url, "PYTHONUNBUFFERED": "1"}
        program = [sys.executable, "-m", "mozart.cli.main", *options]
        return Command(program, self.environment(environment), self._root)

    def problem(self) -> str | None:
        record = self.ledger.get(self.name)
        try:
            pid = self._ready_file.read_text()
        except FileNotFoundError:
            pid = ""
        if record and pid == str(record.pid):
            return None
        return "it is not connected to PostgreSQL and Valkey yet"

    @property
    def _ready_file(self) -> Path:
        return self.folder / "ready"


class RelayDaemon(OlapDaemon):
    """Carries business events from the outbox into the event stream."""

    name: ClassVar[str] = "relay"
    subcommand: ClassVar[str] = "relay"


class ListenDaemon(OlapDaemon):
    """Turns business events into refreshes, and sweeps."""

    name: ClassVar[str] = "listen"
    subcommand: ClassVar[str] = "listen"


def enable_daemons(state: Path) -> None:
    """From now on the daemons are parts of this stack: the next `up` starts them."""
    state.mkdir(parents=True, exist_ok=True)
    (state / _MARK).touch()


def are_enabled(state: Path) -> bool:
    """Whether the OLAP layer was installed in this stack."""
    return (state / _MARK).is_file()
