"""Where Redis (or Valkey) is: the server of the event stream and of the cache's generations.

A value without a connection: `client()` makes one. Every call of a client goes through `answering`, which turns the
driver's errors into Mozart's: an unreachable server is transient, a refused login is the operator's to fix.

Pitfall: the driver's own retries are off. They would hold a caller for seconds with a dead server, and the daemons
wait and go on by themselves.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict, SecretStr
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError
from redis.retry import Retry

from mozart.errors import ConfigurationError, TerminalError, TransientError
from mozart.settings import Settings

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0


class RedisServer(BaseModel):
    """One Redis server, a login and a database number. Its text form holds no password."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int = 6379
    username: str | None = None
    password: SecretStr | None = None
    database: int = 0
    tls: bool = False

    def client(self) -> Any:
        """A client whose answers are text; bytes that are no UTF-8 are escaped, never an error."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            db=self.database,
            username=self.username,
            password=self.password.get_secret_value() if self.password else None,
            ssl=self.tls,
            decode_responses=True,
            encoding_errors="backslashreplace",
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # the answers' shapes differ between the protocols
        )

    def __str__(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"


@contextmanager
def answering(server: RedisServer) -> Generator[None]:
    """Within the block the driver's errors become TransientError, ConfigurationError or TerminalError."""
    try:
        yield
    except redis.AuthenticationError:
        raise ConfigurationError(
            f"Redis at {server} refuses the login; check MOZART_REDIS_USERNAME and MOZART_REDIS_PASSWORD"
            " (MOZART_VALKEY_PASSWORD with the local stack)"
        ) from None
    except (redis.ConnectionError, redis.TimeoutError, ReadOnlyError) as error:
        raise TransientError(
            f"Redis at {server} does not answer ({type(error).__name__}); start it, or correct MOZART_REDIS_HOST"
        ) from error
    except redis.OutOfMemoryError as error:
        raise TransientError(f"Redis at {server} has no memory left: {error}; raise maxmemory") from error
    except redis.RedisError as error:
        raise TerminalError(f"Redis at {server}: {error}") from error


def redis_from_settings(settings: Settings) -> RedisServer:
    """The server that MOZART_REDIS_* describe; the local stack's Valkey as far as they are not set."""
    values = settings.values
    is_own = bool(values.get("MOZART_REDIS_HOST"))
    password = values.get("MOZART_REDIS_PASSWORD") or ("" if is_own else values.get("MOZART_VALKEY_PASSWORD", ""))
    return RedisServer(
        host=values.get("MOZART_REDIS_HOST") or settings.get("MOZART_HOST"),
        port=settings.port("MOZART_REDIS_PORT" if values.get("MOZART_REDIS_PORT") else "MOZART_VALKEY_PORT"),
        username=values.get("MOZART_REDIS_USERNAME") or None,
        password=SecretStr(password) if password else None,
        database=int(values.get("MOZART_REDIS_DATABASE") or 0),
        tls=values.get("MOZART_REDIS_TLS", "").lower() in ("1", "true", "yes"),
    )
