"""A Prefect server on the embedded PostgreSQL, started as one uvicorn process without Prefect's command line.

The database login reaches the server through a password file (PGPASSFILE, mode 0600), so it stands neither in its
environment nor among its arguments. Prefect's own block types are registered by the first start of each Prefect version
only, and the start is not memoized, because the check of that memo imports every installed integration: measured, 3.1 s
to ready instead of 6.9, and 178 MB instead of 254. `mozart deploy` registers the block types that Mozart uses.

Knows no Prefect code: it starts a process and talks HTTP.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import httpx

from mozart.services import loopback
from mozart.services.ledger import Ledger
from mozart.services.pools import ensure_pools
from mozart.services.postgres import Postgres
from mozart.services.process import Command
from mozart.services.secrets import write_private
from mozart.services.service import HOST, Port, Service

DATABASE = "prefect"

QUIET: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
}
"""Telemetry off, for the server, its clients, its pages and dbt."""


class PrefectServer(Service):
    """The API and the pages of Prefect. Its home folder, shared with the workers, is `state/prefect`."""

    name: ClassVar[str] = "prefect"
    needs: ClassVar[tuple[str, ...]] = ("postgres",)

    def __init__(self, ledger: Ledger, *, port: int, postgres: Postgres, root: Path) -> None:
        super().__init__(ledger)
        self._root = root
        self._port = port
        self._postgres = postgres

    @property
    def ports(self) -> Mapping[str, Port]:
        return {"api": Port(self._port, "MOZART_PREFECT_PORT")}

    @property
    def ui_url(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def api_url(self) -> str:
        return f"{self.ui_url}/api"

    def prepare(self) -> None:
        """Make the server's role and database on the running PostgreSQL, and its password file."""
        super().prepare()
        password = self._password()
        self._postgres.create_database(DATABASE, owner=DATABASE, password=password, extensions=("pg_trgm",))

    def command(self) -> Command:
        program = [
            *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--host", HOST, "--port", str(self._port), "--timeout-keep-alive", "5"),
            *("--timeout-graceful-shutdown", "3", "--no-access-log"),
        ]
        sql_port = self._postgres.ports["sql"].number
        environment = {
            **client_environment(self.folder, self.api_url),
            "PGPASSFILE": str(self._password_file),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{DATABASE}@{HOST}:{sql_port}/{DATABASE}",
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "10",
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "20",
            "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false" if self._has_blocks() else "true",
            "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
            "PREFECT_SERVER_UI_API_URL": self.api_url,
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.folder / "ui"),
        }
        return Command(program, self.environment(environment), self.folder)

    def problem(self) -> str | None:
        try:
            answer = loopback.client().get(f"{self.api_url}/health")
        except httpx.HTTPError as error:
            return loopback.reason(error)
        return None if answer.is_success else f"/api/health answers {answer.status_code}"

    def settle(self) -> None:
        """Make the work pools that the stack's workers serve."""
        ensure_pools(self.api_url, self._root)
        self._registered_file.write_text(version("prefect"))

    def _has_blocks(self) -> bool:
        """Whether a server of this Prefect version has registered its block types in this database before."""
        file = self._registered_file
        return file.is_file() and file.read_text() == version("prefect")

    @property
    def _registered_file(self) -> Path:
        return self.folder / "blocks-registered"

    @property
    def _password_file(self) -> Path:
        return self.folder / "pgpass"

    def _password(self) -> str:
        """The database password from the password file, which is made on first use. The address in it is a wildcard."""
        if not self._password_file.is_file():
            write_private(self._password_file, f"*:*:{DATABASE}:{DATABASE}:{secrets.token_urlsafe(24)}\n")
        return self._password_file.read_text().strip().rsplit(":", 1)[1]


def client_environment(home: Path, api_url: str) -> dict[str, str]:
    """What a process needs to be a client of this Prefect server, telemetry off; holds no secret."""
    return {"PREFECT_HOME": str(home), "PREFECT_API_URL": api_url, **QUIET}
