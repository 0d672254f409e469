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
from mozart.lake.lakehouse import Lakehouse, lakehouse_from_settings
from mozart.settings import Settings


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


def open_query_session(settings: Settings) -> AbstractContextManager[Session]:
    """A reading session on the engine that the settings name.

    Raises TransientError when the lake does not answer, TerminalError when it refuses the identity.
    """
    if engine_name(settings) == TRINO:
        from mozart.engine.trino_client import trino_from_settings  # noqa: PLC0415 - as it is used
        from mozart.engine.trino_query import open_trino_session  # noqa: PLC0415

        return open_trino_session(trino_from_settings(settings))
    from mozart.engine.query import open_session  # noqa: PLC0415

    return open_session(lakehouse_from_settings(settings))
