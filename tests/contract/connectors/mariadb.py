"""A MariaDB server of its own for tests: from the distribution's packages, on loopback, in a temporary folder.

Nothing is downloaded. Where the server or the Python driver is missing, tests are skipped with the package to install
in the reason, so that a run without them shows in the summary and never looks like a passed one.
"""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mozart.services.ports import find_free_ports

_START_SECONDS = 60


@dataclass(frozen=True)
class MariaDB:
    """A running server. Its administrator logs in through the socket only."""

    port: int
    socket: Path

    def admin(self, database: str | None = None) -> Any:
        """A connection as administrator, in autocommit."""
        return _driver().connect(unix_socket=str(self.socket), user="root", database=database, autocommit=True)

    @contextmanager
    def database(self) -> Iterator[tuple[str, str, str]]:
        """A database of its own: its name, and a login with all rights on it and PROCESS; dropped at the end."""
        name, password = f"t_{secrets.token_hex(6)}", f"p'\"\\{secrets.token_hex(4)} ü"
        with self.admin() as admin, admin.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            cursor.execute(f"CREATE USER {name}@'%%' IDENTIFIED BY %s", (password,))
            cursor.execute(f"GRANT ALL ON {name}.* TO {name}@'%'")
            cursor.execute(f"GRANT PROCESS ON *.* TO {name}@'%'")
        yield name, name, password
        with self.admin() as admin, admin.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")
            cursor.execute(f"DROP USER {name}@'%'")


@pytest.fixture(scope="session")
def mariadb(state_folder: Path) -> Iterator[MariaDB]:
    """The session's server, for every folder of tests that imports this fixture."""
    with run_mariadb(Path(tempfile.mkdtemp(prefix="mariadb-", dir=state_folder))) as server:
        yield server


@contextmanager
def run_mariadb(folder: Path) -> Iterator[MariaDB]:
    """A server with its data in `folder`, stopped at the end."""
    _driver()
    install, program = _program("mariadb-install-db"), _program("mariadbd")
    _program("my_print_defaults")  # which the first of them calls
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    # The server refuses root unless told so. No user `mysql`: the package with the programs alone makes none.
    as_user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [install, "--no-defaults", f"--datadir={data}", *as_user, "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
        timeout=_START_SECONDS,
    )
    port, socket = find_free_ports(1)[0], data / "s"
    server = subprocess.Popen(
        [
            *(program, "--no-defaults", f"--datadir={data}", *as_user, f"--port={port}", f"--socket={socket}"),
            *("--bind-address=127.0.0.1", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0"),
            *(
                "--innodb-buffer-pool-size=64M",
                "--skip-name-resolve",
                "--performance-schema=off",
                "--max-allowed-packet=64M",
            ),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        running = MariaDB(port, socket)
        _wait_ready(running, server)
        yield running
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _driver() -> Any:
    try:
        return importlib.import_module("pymysql")
    except ModuleNotFoundError:
        pytest.skip("NOT TESTED: MySQL/MariaDB: the Python package PyMySQL is not installed")


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(
            f"NOT TESTED: MySQL/MariaDB: no {name}; install the packages mariadb-server-core and mariadb-client-core"
        )
    return found


def _wait_ready(running: MariaDB, server: subprocess.Popen[bytes]) -> None:
    error = _driver().MySQLError
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            running.admin().close()
        except error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
