"""What an engine has to offer so that tenants, models and commands need not know which one runs.

An engine reads the lake with SQL and tells dbt how to connect. It does not load and does not commit: raw tables and
publication are the same on every engine (`mozart.lake`). DuckDB, embedded, is the one that exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa

from mozart.errors import ConfigurationError, Problem
from mozart.lake.lakehouse import Lakehouse


class Engine(Protocol):
    """One engine over one lakehouse."""

    @property
    def name(self) -> str:
        """As the settings spell it."""
        ...

    def query(self, sql: str) -> pa.Table:
        """The whole result of one reading statement, in memory: for small results. Errors as for `QuerySession.run`."""
        ...

    def dbt_output(self) -> Mapping[str, Any]:
        """The output of a dbt profile; the same in every run, without address and secret."""
        ...


def create_engine(name: str, lakehouse: Lakehouse) -> Engine:
    """The engine called `name` over `lakehouse`. Raises ConfigurationError for a name nobody knows."""
    if name == "duckdb":
        from mozart.engine.query import DuckDBEngine  # noqa: PLC0415 - an engine's packages are imported when it is used

        return DuckDBEngine(lakehouse)
    raise ConfigurationError(Problem("environment", "engine", f"{name!r} is not an engine; known: duckdb"))
