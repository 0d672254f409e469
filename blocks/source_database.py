"""The source database of one tenant: the connector's name and options over a login of prefect-sqlalchemy."""

from __future__ import annotations

from typing import Any, ClassVar

from prefect.types import SecretDict
from prefect_sqlalchemy.credentials import ConnectionComponents
from prefect_sqlalchemy.database import SqlAlchemyConnector
from pydantic import Field, SecretStr

from blocks.declared import DeclaredBlock
from mozart.connectors.base import SourceConnection
from mozart.tenancy.model import ResolvedTenant

# How SQLAlchemy names the drivers that Mozart's own environment has.
DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "sqlite": "sqlite+pysqlite",
    "sqlserver": "mssql+pyodbc",
    "oracle": "oracle+oracledb",
}


class SourceDatabase(DeclaredBlock):
    """One tenant's source: where it is, the login, the connector's options and the tenant's parameters."""

    _block_type_name: ClassVar[str | None] = "Mozart source database"
    _block_type_slug: ClassVar[str | None] = "mozart-source-database"
    _description: ClassVar[str | None] = "A tenant's source database, read by tenant_pipeline."

    tenant: str = Field(description="The tenant it belongs to.")
    branch: str = Field(default="", description="The branch it belongs to; empty in production.")
    connector: str = Field(description="A registered connector, such as postgresql.")
    login: SqlAlchemyConnector = Field(description="Address, user and password of the source.")
    options: dict[str, str] = Field(default_factory=dict, description="The connector's own options, such as sslmode.")
    secret_options: SecretDict = Field(default=SecretDict({}), description="Options whose values are secret.")
    params: dict[str, str] = Field(default_factory=dict, description="Values of the tenant's filters.")

    def connection(self) -> SourceConnection:
        """The source as the connectors take it."""
        info = self.login.connection_info
        if not isinstance(info, ConnectionComponents):
            raise TypeError("a Mozart source database holds connection components, not an address")
        return SourceConnection(
            type=self.connector,
            host=info.host,
            port=info.port,
            database=info.database or "",
            username=info.username,
            password=info.password,
            options={
                **self.options,
                **{key: str(value) for key, value in self.secret_options.get_secret_value().items()},
            },
        )

    @classmethod
    def of(cls, tenant: ResolvedTenant, branch: str | None) -> SourceDatabase:
        """The block of a resolved tenant's source; not yet saved."""
        source = tenant.source
        components: dict[str, Any] = {
            "driver": DRIVERS.get(source.type, source.type),
            "database": source.database,
            "username": source.username,
            "password": source.password or SecretStr(""),
            "host": source.host,
            "port": source.port,
        }
        return cls(
            tenant=tenant.id,
            branch=branch or "",
            connector=source.type,
            login=SqlAlchemyConnector(connection_info=ConnectionComponents(**components)),
            options=dict(source.options),
            secret_options=SecretDict({key: value.get_secret_value() for key, value in source.secret_options.items()}),
            params={key: str(value) for key, value in source.params.items()},
        )
