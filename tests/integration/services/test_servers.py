"""The session's servers, each by its own fixture."""

from __future__ import annotations

from collections.abc import Callable

import redis

from mozart.lake.lakehouse import Lakehouse
from mozart.services.postgres import Database


def test_databases_are_apart(database: Callable[..., Database]) -> None:
    first, second = database(), database(extensions=("pg_trgm",))
    with first.connect() as connection:
        connection.execute("CREATE TABLE x (id int)")
    with second.connect() as connection:
        assert connection.execute("SELECT to_regclass('x')").fetchone() == (None,)
        assert connection.execute("SELECT show_limit() > 0").fetchone() == (True,)
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)


def test_namespace_is_in_the_catalog(lakehouse: Lakehouse, namespace: str) -> None:
    assert (namespace,) in lakehouse.catalog().list_namespaces()


def test_valkey_starts_empty(valkey: redis.Redis) -> None:
    assert valkey.dbsize() == 0
    valkey.set("a", 1)
    assert valkey.get("a") == b"1"
