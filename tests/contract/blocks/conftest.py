"""A Prefect server without workers, for documents of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.postgres import Postgres
from mozart.services.prefect_server import PrefectServer


@pytest.fixture(scope="package")
def prefect_api(ledger: Ledger, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server; within it, Prefect's client talks to it."""
    root: Path = tmp_path_factory.mktemp("blocks")
    server = PrefectServer(ledger, port=find_free_ports(1)[0], postgres=postgres, root=root)
    try:
        server.start()
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield server.api_url
    finally:
        server.stop()
