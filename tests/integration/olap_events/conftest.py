"""An OLAP database with the project's views, and a Redis: what the relay, the listener and the sweep work on.

The database is built once and copied for each test. Windows are shortened by the views' own settings, so that tests
wait for what happens, not for the clock.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import redis
from psycopg import sql
from pydantic import SecretStr

from mozart.olap.database import OlapDatabase
from mozart.olap.event_stream import EventStream
from mozart.olap.identity import server_identity
from mozart.olap.install import install
from mozart.olap.listener import Announcement, EventListener
from mozart.olap.redis_server import RedisServer
from mozart.olap.registry import ViewRegistry, read_views
from mozart.olap.relay import OutboxRelay
from mozart.olap.state import ViewState, read_history, read_states
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.postgres import Postgres
from mozart.services.valkey import Valkey
from samples import axiom_core
from tests.projects import PROJECT

QUIET, LONGEST = 0.4, 2.0
"""Seconds of the shortened windows."""
FACTS = ("mv_business_fact", "mv_cashflow_fact")


@pytest.fixture(scope="session")
def all_views() -> ViewRegistry:
    """The project's own views, with short windows."""
    registry = read_views(PROJECT)
    short = {"debounce_seconds": QUIET, "debounce_max_wait_seconds": LONGEST}
    return replace(registry, views=tuple(view.model_copy(update=short) for view in registry.views))


@pytest.fixture(scope="session")
def template(postgres: Postgres, all_views: ViewRegistry) -> Iterator[str]:
    """A database with 400 cases and every view installed."""
    name = f"olap_{secrets.token_hex(4)}"
    postgres.create_database(name, owner=f"{name}_owner", password="owner-pw")
    with postgres.superuser(name).connect() as connection:
        axiom_core.create(connection, scale=0.01)
    with postgres.superuser(name).connect(autocommit=True) as connection:
        connection.execute("UPDATE event_outbox SET published_at = now()")
    install(database_of(postgres, name), all_views)
    yield name
    postgres.drop_database(name)


def database_of(postgres: Postgres, name: str) -> OlapDatabase:
    login = postgres.superuser(name)
    return OlapDatabase(
        host=login.host, port=login.port, database=name, username=login.user, password=SecretStr(login.password)
    )


@pytest.fixture
def olap(postgres: Postgres, template: str) -> Iterator[OlapDatabase]:
    """A copy of the template, of this test's own."""
    name = f"olap_{secrets.token_hex(6)}"
    with postgres.superuser().connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    copy = database_of(postgres, name)
    with copy.connect() as connection:  # the copy is another database, and its cursors would not be believed
        connection.execute("UPDATE mozart.view_state SET server_identity = %s", [server_identity(connection)])
    yield copy
    postgres.drop_database(name)


@pytest.fixture
def redis_server(valkey: redis.Redis, valkey_server: Valkey) -> RedisServer:
    """The session's Valkey, emptied."""
    return _server(valkey_server)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that the test may kill."""
    tmp_path.chmod(0o755)
    server = Valkey(Ledger(tmp_path), port=find_free_ports(1)[0], password=secrets.token_urlsafe(12))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_redis(own_valkey: Valkey) -> RedisServer:
    return _server(own_valkey)


def _server(valkey: Valkey) -> RedisServer:
    return RedisServer(host="127.0.0.1", port=valkey.ports["valkey"].number, password=SecretStr(valkey._password))


# -- driving ----------------------------------------------------------------------------------------------------------


@dataclass
class Announced:
    """Announcements as they came, with their times."""

    all: list[tuple[float, Announcement]] = field(default_factory=list)

    def __call__(self, announcement: Announcement) -> None:
        self.all.append((time.monotonic(), announcement))

    def of(self, view: str) -> list[Announcement]:
        return [each for _, each in self.all if each.view == view]


def emit(database: OlapDatabase, count: int, topic: str = "cash_flow_entry_created", payload: str = "{}") -> None:
    """Committed business events."""
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO event_outbox (topic, payload) SELECT %s, %s::jsonb FROM generate_series(1, %s)",
            (topic, payload, count),
        )


def change(database: OlapDatabase, *, seed: int, inserts: int = 8, updates: int = 8) -> None:
    """Business with its events."""
    with database.connect(autocommit=False) as connection:
        axiom_core.apply_changes(connection, seed=seed, inserts=inserts, updates=updates)


def relay_all(database: OlapDatabase, stream: EventStream) -> int:
    with database.connect() as connection:
        return OutboxRelay(database, stream).drain(connection)


def state_of(database: OlapDatabase, view: str) -> ViewState:
    with database.connect() as connection:
        return next(state for state in read_states(connection) if state.name == view)


def completed(database: OlapDatabase, view: str) -> int:
    """How many refreshes of the view the history holds."""
    with database.connect() as connection:
        return sum(attempt.status == "completed" for attempt in read_history(connection, view=view, limit=1000))


def unpublished(database: OlapDatabase) -> int:
    with database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM event_outbox WHERE published_at IS NULL").fetchone()
        assert row is not None
        return int(row[0])


def wait_until(met: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)


@contextmanager
def running(*targets: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Run each target in a thread until the block ends; what one raised is raised here."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def guard(target: Callable[[threading.Event], None]) -> None:
        try:
            target(stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            raised.append(error)

    threads = [threading.Thread(target=guard, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    if raised:
        raise raised[0]
    assert not any(thread.is_alive() for thread in threads), "a thread did not stop"


def listening(listener: EventListener) -> Callable[[threading.Event], None]:
    return lambda stop: listener.run(stop, print)


def relaying(relay: OutboxRelay) -> Callable[[threading.Event], None]:
    return lambda stop: relay.run(stop, print)


def kill_connections(database: OlapDatabase) -> None:
    """What a restarted PostgreSQL does to its clients."""
    with database.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def as_input(*models: OlapDatabase | RedisServer) -> str:
    """Models with their passwords as lines of JSON, for a child's standard input."""
    lines: list[str] = []
    for model in models:
        password = model.password.get_secret_value() if model.password else None
        lines.append(json.dumps({**model.model_dump(mode="json"), "password": password}))
    return "\n".join(lines) + "\n"
