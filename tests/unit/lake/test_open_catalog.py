"""A catalog that accepts and never answers holds nobody: its client has a deadline from the login on."""

from __future__ import annotations

import socket

import pytest
from pydantic import SecretStr

from mozart.errors import TransientError
from mozart.lake import catalog_client
from mozart.lake.catalog_client import Deadline
from mozart.lake.lakehouse import Lakehouse


def lake_at(port: int) -> Lakehouse:
    return Lakehouse(
        s3_endpoint="http://127.0.0.1:1",
        catalog_uri=f"http://127.0.0.1:{port}",
        access_key_id="key",
        secret_access_key=SecretStr("secret"),
    )


def test_a_catalog_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_client, "DEADLINE", Deadline(connect=0.2, read=0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TransientError, match="opening the catalog"):
        lake_at(silent.getsockname()[1]).catalog()


def test_a_catalog_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(TransientError, match="opening the catalog"):
        lake_at(port).catalog()
