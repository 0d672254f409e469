"""The cache in front of the OLAP views: one Redis or Valkey, where the copies of the views' generations are."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr

from blocks.declared import DeclaredBlock
from mozart.olap.cache import ViewCache
from mozart.olap.redis_server import RedisServer

DOCUMENT = "olap-cache"


class OlapCache(DeclaredBlock):
    """Where the views' cached answers are, and the login to it."""

    _block_type_name: ClassVar[str | None] = "Mozart OLAP cache"
    _block_type_slug: ClassVar[str | None] = "mozart-olap-cache"
    _description: ClassVar[str | None] = "The Redis whose copies of the views' generations a refresh counts up."

    host: str = Field(description="Host name or address.")
    port: int = Field(default=6379, description="Port.")
    database: int = Field(default=0, description="Database number.")
    username: str | None = Field(default=None, description="User, if the server knows users.")
    password: SecretStr | None = Field(default=None, description="Password, if the server asks for one.")
    tls: bool = Field(default=False, description="Connect with TLS.")

    def server(self) -> RedisServer:
        """The server as the core takes it."""
        return RedisServer(
            host=self.host,
            port=self.port,
            database=self.database,
            username=self.username,
            password=self.password,
            tls=self.tls,
        )

    def cache(self) -> ViewCache:
        """A connection of its own; close it after use."""
        return ViewCache(self.server())

    @classmethod
    def of(cls, server: RedisServer) -> OlapCache:
        """The block of a server; not yet saved."""
        return cls(
            host=server.host,
            port=server.port,
            database=server.database,
            username=server.username,
            password=server.password,
            tls=server.tls,
        )
