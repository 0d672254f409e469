"""Real servers for tests, started on first use and once per session, with the classes that serve `mozart up`.

Each test isolates itself: `database()` makes a database of its own, `namespace` a catalog namespace, `lakehouse` a
landing prefix, `valkey` an empty keyspace. State lies in a temporary folder, ports are random, and everything is
stopped at the end of the session, also after Ctrl-C.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from mozart.lake.lakehouse import Lakehouse
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.postgres import Database, Postgres
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS
from mozart.services.stack import Stack, load_stack
from mozart.services.valkey import Valkey
from tests.projects import PROJECT_FILES, make_project

DatabaseFactory = Callable[..., Database]


@pytest.fixture
def seed() -> int:
    """A random number, printed when the test fails; MOZART_TEST_SEED gives the same one again."""
    number = int(os.environ.get("MOZART_TEST_SEED") or secrets.randbelow(10**6))
    print(f"repeat with MOZART_TEST_SEED={number}")
    return number


@pytest.fixture(scope="session")
def state_folder() -> Iterator[Path]:
    """The session's stack state. Open to other users, so that PostgreSQL can run when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="mozart-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def ledger(state_folder: Path) -> Ledger:
    return Ledger(state_folder)


@pytest.fixture(scope="session")
def postgres(ledger: Ledger) -> Iterator[Postgres]:
    """A PostgreSQL server without fsync. Most tests want `database`."""
    server = Postgres(ledger, port=find_free_ports(1)[0], password=secrets.token_urlsafe(12), durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[DatabaseFactory]:
    """`database()` → a fresh database with an owner of its own; `database(superuser=True)` logs in as superuser.

    Dropped, with whoever is still connected, when the test ends.
    """
    made: list[Database] = []

    def create(*, superuser: bool = False, extensions: tuple[str, ...] = ()) -> Database:
        name = f"t_{secrets.token_hex(6)}"
        new = postgres.create_database(name, owner=f"{name}_owner", password="owner-pw", extensions=extensions)
        made.append(new)
        return postgres.superuser(name) if superuser else new

    yield create
    for each in made:
        postgres.drop_database(each.name)


@pytest.fixture(scope="session")
def seaweedfs(ledger: Ledger) -> Iterator[SeaweedFS]:
    s3, catalog, *inner = find_free_ports(2 + INNER_PORTS)
    lakehouse = Lakehouse(
        s3_endpoint=f"http://127.0.0.1:{s3}",
        catalog_uri=f"http://127.0.0.1:{catalog}",
        access_key_id=secrets.token_hex(8),
        secret_access_key=SecretStr(secrets.token_urlsafe(16)),
    )
    server = SeaweedFS(ledger, lakehouse=lakehouse, inner_ports=inner)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def lakehouse(seaweedfs: SeaweedFS) -> Lakehouse:
    """The running lake, with a landing prefix of this test's own."""
    return seaweedfs.lakehouse.model_copy(update={"prefix": f"raw/{secrets.token_hex(6)}"})


@pytest.fixture
def namespace(lakehouse: Lakehouse) -> str:
    """The name of an empty namespace in the catalog, made for this test."""
    name = f"t_{secrets.token_hex(6)}"
    lakehouse.catalog().create_namespace(name)
    return name


@pytest.fixture(scope="session")
def valkey_server(ledger: Ledger) -> Iterator[Valkey]:
    server = Valkey(ledger, port=find_free_ports(1)[0], password=secrets.token_urlsafe(12))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Iterator[redis.Redis]:
    """A client of an empty Valkey; answers are bytes."""
    with valkey_server.client() as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole stack, workers included, in a temporary copy of this project: `stack.settings.root`.

    `stack.prefect.api_url` is its Prefect API; `stack.postgres`, `stack.seaweedfs`, `stack.valkey` are its servers.
    Run commands in it with `cwd=stack.settings.root`; its ports and secrets stand in the copy's `.env`.
    """
    with tempfile.TemporaryDirectory(prefix="mozart-stack-", ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        make_project(root, copied=PROJECT_FILES)
        running = load_stack(root, durable=False)
        try:
            running.up()
            yield running
        finally:
            running.down()


@pytest.fixture(scope="session")
def prefect_api_url(stack: Stack) -> str:
    return stack.prefect.api_url


@pytest.fixture
def kill() -> Callable[[int], None]:
    """`kill(pid)`: SIGKILL, and wait until the process is gone."""

    def kill_and_wait(pid: int) -> None:
        process = psutil.Process(pid)
        process.kill()
        process.wait(10)

    return kill_and_wait
