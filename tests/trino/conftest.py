"""One real Trino for all tests here, over the session's embedded lake, started with the files of `docker/trino`.

It is fetched from Maven Central once (see `mozart.services.trino_download`); without Maven or its Java the tests fail
with the message that an operator gets. `login(namespaces)` gives a tenant's own login, once Trino knows it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from mozart.engine.trino_client import TrinoAddress, TrinoSession, open_trino, tenant_login
from mozart.errors import MozartError
from mozart.lake.lakehouse import Lakehouse
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS
from mozart.services.trino import Trino
from mozart.services.trino_download import trino_folder
from mozart.tenancy.names import Namespaces, namespaces
from tests.faults.proxy import FaultProxy
from tests.integration.engine.conftest import TinyTenant, make_tiny, tiny_root
from tests.integration.tenants.conftest import fleet, project_root, sources

__all__ = ["fleet", "project_root", "sources", "tiny_root"]  # fixtures: the sample tenants on DuckDB, a project

CHECKOUT = Path(__file__).parents[2]
_LOGIN_SECONDS = 60.0
_LOGIN_PAUSE = 0.5

Login = Callable[[Namespaces], TrinoAddress]


@pytest.fixture(scope="session")
def seaweedfs(ledger: Ledger) -> Iterator[SeaweedFS]:
    """The shared lake of all tests, and two that belong to one tenant each (`dedicated_lakes`)."""
    s3, catalog, *inner = find_free_ports(2 + INNER_PORTS)
    shared, *dedicated = (
        Lakehouse(
            s3_endpoint=f"http://127.0.0.1:{s3}",
            catalog_uri=f"http://127.0.0.1:{catalog}",
            access_key_id=secrets.token_hex(8),
            secret_access_key=SecretStr(secrets.token_urlsafe(16)),
            warehouse=f"warehouse{name}",
            bucket=f"landing{name}",
        )
        for name in ("", "-first", "-second")
    )
    server = SeaweedFS(ledger, lakehouse=shared, inner_ports=inner, dedicated=dedicated)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def dedicated_lakes(seaweedfs: SeaweedFS) -> Mapping[str, Lakehouse]:
    """By the name of their catalog on Trino."""
    return dict(zip(("first_lake", "second_lake"), seaweedfs.dedicated, strict=True))


@pytest.fixture(scope="session")
def trinos_catalog(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    """The catalog as Trino alone reaches it; tests that make it misbehave call `clear` at their end."""
    with FaultProxy(seaweedfs.lakehouse.catalog_uri) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def trino(
    ledger: Ledger, seaweedfs: SeaweedFS, trinos_catalog: FaultProxy, dedicated_lakes: Mapping[str, Lakehouse]
) -> Iterator[Trino]:
    port, inner_port = find_free_ports(2)
    server = Trino(
        ledger,
        lakehouse=seaweedfs.lakehouse.model_copy(update={"catalog_uri": trinos_catalog.url}),
        home=trino_folder(os.environ),
        config=CHECKOUT / "docker" / "trino",
        port=port,
        inner_port=inner_port,
        password=secrets.token_urlsafe(24),
        dedicated=dedicated_lakes,
        min_retention="0s",
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def operator(trino: Trino) -> Iterator[TrinoSession]:
    """A session with the operator's login."""
    with open_trino(trino.address) as session:
        yield session


@pytest.fixture(scope="session")
def login(trino: Trino) -> Login:
    def log_in(spaces: Namespaces) -> TrinoAddress:
        if spaces not in trino.tenants:
            trino.write_access([*trino.tenants, spaces])
        address = tenant_login(trino.address, spaces.core, spaces.catalog)
        _wait_until_known(address, spaces)
        return address

    return log_in


def _wait_until_known(address: TrinoAddress, spaces: Namespaces) -> None:
    """Trino reads passwords and rules every 5 s, each by a clock of its own."""
    end = time.monotonic() + _LOGIN_SECONDS
    while True:
        try:
            with open_trino(address) as session:
                listed = session.execute(f"SHOW SCHEMAS FROM {address.catalog}")
                if (spaces.core,) in listed:
                    return
        except MozartError:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, f"{address.username} never saw {spaces.core}"
        time.sleep(_LOGIN_PAUSE)


@pytest.fixture(scope="session")
def tiny_spaces() -> Namespaces:
    """One for the session: dbt parses everything anew when it changes."""
    return namespaces("iceberg", f"tiny_{secrets.token_hex(4)}")


@pytest.fixture
def tiny(tiny_root: Path, lakehouse: Lakehouse, tiny_spaces: Namespaces) -> TinyTenant:
    """A small tenant, both raw tables loaded, nothing published."""
    return make_tiny(tiny_root, lakehouse, tiny_spaces.core)
