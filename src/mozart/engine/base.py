"""What an engine has to offer so that tenants, models and commands need not know which one runs.

An engine reads the lake with SQL and tells dbt how to connect. It does not load: raw tables are written the same way on
every engine (`mozart.lake`). How models are computed on each is `mozart.engine.model_engine`'s affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa

from mozart.engine.choice import DUCKDB, ENGINES, TRINO, engine_name
from mozart.engine.rows import Rows
from mozart.errors import ConfigurationError, Problem
from mozart.lake.lakehouse import Lakehouse, lakehouse_from_settings, tenant_lakehouse
from mozart.settings import Settings
from mozart.tenancy.model import ResolvedTenant


class Session(Protocol):
    """A connection that can read the lake and change nothing."""

    def run(self, sql: str) -> Rows:
        """Start one reading statement; errors are Mozart's, also while its rows are read."""
        ...


class Engine(Protocol):
    """One engine over one lakehouse."""

    @property
    def name(self) -> str:
        """As the settings spell it."""
        ...

    def query(self, sql: str) -> pa.Table:
        """The whole result of one reading statement, in memory: for small results. Errors as for `Session.run`."""
        ...

    def dbt_output(self) -> Mapping[str, Any]:
        """The output of a dbt profile; the same in every run, without address and secret."""
        ...


def create_engine(name: str, lakehouse: Lakehouse, settings: Settings | None = None) -> Engine:
    """The engine called `name` over `lakehouse`; Trino needs the `settings` that say where it is.

    Raises ConfigurationError for a name nobody knows.
    """
    if name == DUCKDB:
        from mozart.engine.query import DuckDBEngine  # noqa: PLC0415 - an engine's packages are imported when it is used

        return DuckDBEngine(lakehouse)
    if name == TRINO and settings is not None:
        from mozart.engine.trino_client import trino_from_settings  # noqa: PLC0415
        from mozart.engine.trino_query import TrinoEngine  # noqa: PLC0415

        return TrinoEngine(trino_from_settings(settings))
    known = ", ".join(ENGINES)
    raise ConfigurationError(Problem("environment", "engine", f"{name!r} is not an engine; known: {known}"))


def open_query_session(settings: Settings, tenant: ResolvedTenant | None = None) -> AbstractContextManager[Session]:
    """A reading session on the engine that the settings name: on the shared lake, or where `tenant` has its tables.

    On DuckDB with the identity of its own, if any; on Trino with the login that reads all and changes nothing.
    Raises TransientError when the lake does not answer, TerminalError when it refuses the identity.
    """
    if engine_name(settings) == TRINO:
        from mozart.engine.trino_client import trino_from_settings  # noqa: PLC0415 - as it is used
        from mozart.engine.trino_query import open_trino_session  # noqa: PLC0415

        address = trino_from_settings(settings)
        return open_trino_session(address.model_copy(update={"catalog": tenant.iceberg.catalog}) if tenant else address)
    from mozart.engine.query import open_session  # noqa: PLC0415

    shared = lakehouse_from_settings(settings)
    if tenant is None:
        return open_session(shared)
    return open_session(tenant_lakehouse(shared, tenant), catalog=tenant.iceberg.catalog)
