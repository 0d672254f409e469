"""The database of the OLAP layer: its schemas over a login of prefect-sqlalchemy."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from prefect_sqlalchemy.credentials import ConnectionComponents
from prefect_sqlalchemy.database import SqlAlchemyConnector
from pydantic import Field, SecretStr

from blocks.declared import DeclaredBlock
from mozart.olap import database as core

DOCUMENT = "olap-database"


class OlapDatabase(DeclaredBlock):
    """Where the OLTP tables and their views are, and the login that refreshes the views."""

    _block_type_name: ClassVar[str | None] = "Mozart OLAP database"
    _block_type_slug: ClassVar[str | None] = "mozart-olap-database"
    _description: ClassVar[str | None] = "The PostgreSQL whose views olap_full_sync and mv_incremental refresh."

    login: SqlAlchemyConnector = Field(description="Address, user and password.")
    sslmode: str = Field(default="prefer", description="libpq's sslmode.")
    source_schema: str = Field(default="public", description="Schema of the OLTP tables.")
    view_schema: str = Field(default=core.VIEW_SCHEMA, description="Schema of the views.")
    reader_role: str = Field(default=core.READER_ROLE, description="The role that may read the views.")

    def database(self) -> core.OlapDatabase:
        """The database as the core takes it."""
        info = self.login.connection_info
        if not isinstance(info, ConnectionComponents):
            raise TypeError("a Mozart OLAP database holds connection components, not an address")
        return core.OlapDatabase(
            host=info.host or "",
            port=int(info.port or 5432),
            database=info.database or "",
            username=info.username or "",
            password=info.password or SecretStr(""),
            sslmode=cast(Any, self.sslmode),
            source_schema=self.source_schema,
            view_schema=self.view_schema,
            reader_role=self.reader_role,
        )

    @classmethod
    def of(cls, database: core.OlapDatabase) -> OlapDatabase:
        """The block of a database; not yet saved."""
        components: dict[str, Any] = {
            "driver": "postgresql+psycopg",
            "database": database.database,
            "username": database.username,
            "password": database.password,
            "host": database.host,
            "port": database.port,
        }
        return cls(
            login=SqlAlchemyConnector(connection_info=ConnectionComponents(**components)),
            sslmode=database.sslmode,
            source_schema=database.source_schema,
            view_schema=database.view_schema,
            reader_role=database.reader_role,
        )
