"""Which connectors there are. Adding one is one module and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from mozart.connectors.base import BaseConnector, SourceConnection
from mozart.errors import ConfigurationError

# type → "module:class"; imported on demand, so that a missing driver of one database hurts no other.
_CONNECTORS: Mapping[str, str] = {
    "duckdb": "mozart.connectors.duckdb_file:DuckdbConnector",
    "mysql": "mozart.connectors.mysql:MysqlConnector",
    "oracle": "mozart.connectors.oracle:OracleConnector",
    "postgresql": "mozart.connectors.postgresql:PostgresqlConnector",
    "sqlite": "mozart.connectors.sqlite:SqliteConnector",
    "sqlserver": "mozart.connectors.sqlserver:SqlserverConnector",
}


def registered_types() -> tuple[str, ...]:
    """The values `source.type` may take."""
    return tuple(sorted(_CONNECTORS))


def create_connector(connection: SourceConnection, *, application: str = "mozart") -> BaseConnector:
    """The connector for `connection.type`; ConfigurationError when nobody registered it."""
    target = _CONNECTORS.get(connection.type)
    if target is None:
        raise ConfigurationError(f"no connector for {connection.type!r}; registered: {', '.join(registered_types())}")
    module_name, class_name = target.split(":")
    connector: type[BaseConnector] = getattr(importlib.import_module(module_name), class_name)
    return connector(connection, application=application)
