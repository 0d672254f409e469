"""The PostgreSQL that holds the OLTP tables, the views made of them, and Mozart's own state.

Three schemas: the OLTP tables live in `source_schema`, the views in `view_schema` (a view may name another), and
what Mozart keeps about them in `STATE_SCHEMA`. Every connection works through a transaction pooler: no session state,
no prepared statements, no startup options; what a transaction needs is set by `transaction()` with SET LOCAL.

Pitfalls: under REPEATABLE READ the snapshot is taken by the first query, before an advisory lock is held, so a caller
must lock the row it decides by; see `mozart.olap.attempt`. SET and LOCK TABLE take no snapshot.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import psycopg
from psycopg import errors as pg
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from mozart.errors import ConfigurationError, DataQualityError, MozartError, Problem, TerminalError, TransientError
from mozart.settings import Settings
from mozart.sql import quote_identifier, quote_literal

VIEW_SCHEMA = "axiom_vision"
STATE_SCHEMA = "mozart"
READER_ROLE = "olap_reader"

Row = tuple[Any, ...]
Connection = psycopg.Connection[Row]


class OlapDatabase(BaseModel):
    """How to reach the database of the OLAP layer. The password never shows in `repr`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int = Field(default=5432, gt=0, lt=65536)
    database: str
    username: str
    password: SecretStr
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    connect_timeout_seconds: int = Field(default=10, ge=1)
    source_schema: str = "public"
    view_schema: str = VIEW_SCHEMA
    reader_role: str = READER_ROLE

    def connect(self, *, autocommit: bool = True) -> Connection:
        """A new connection; TransientError when the server does not answer, ConfigurationError when it refuses."""
        try:
            return psycopg.connect(
                host=self.host,
                port=self.port,
                dbname=self.database,
                user=self.username,
                password=self.password.get_secret_value(),
                sslmode=self.sslmode,
                connect_timeout=self.connect_timeout_seconds,
                application_name="mozart-olap",
                autocommit=autocommit,
                prepare_threshold=None,
            )
        except psycopg.OperationalError as error:
            raise self._connect_error(error) from None

    def _connect_error(self, error: psycopg.OperationalError) -> MozartError:
        text = str(error).strip().splitlines()[-1]
        where = f"PostgreSQL {self.username}@{self.host}:{self.port}/{self.database}"
        refusals = ("password authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
        if any(refusal in text for refusal in refusals):
            return ConfigurationError(Problem("MOZART_OLAP_* in .env", "", f"{where} refuses: {text}"))
        return TransientError(f"{where} does not answer: {text}")


def olap_database_from_settings(settings: Settings) -> OlapDatabase:
    """The database that MOZART_OLAP_* name; by default `axiom` in the local stack's PostgreSQL."""
    values = settings.values
    return OlapDatabase(
        host=values.get("MOZART_OLAP_HOST") or settings.get("MOZART_HOST"),
        port=settings.port("MOZART_OLAP_PORT" if values.get("MOZART_OLAP_PORT") else "MOZART_POSTGRES_PORT"),
        database=settings.get("MOZART_OLAP_DATABASE"),
        username=settings.get("MOZART_OLAP_USERNAME"),
        password=SecretStr(
            settings.get("MOZART_OLAP_PASSWORD" if values.get("MOZART_OLAP_PASSWORD") else "MOZART_POSTGRES_PASSWORD")
        ),
        sslmode=_sslmode(settings.get("MOZART_OLAP_SSLMODE")),
        source_schema=settings.get("MOZART_OLAP_SOURCE_SCHEMA"),
        view_schema=settings.get("MOZART_OLAP_VIEW_SCHEMA"),
    )


@contextmanager
def transaction(
    connection: Connection,
    *,
    repeatable_read: bool = False,
    settings: Mapping[str, str] | None = None,
    search_path: Sequence[str] = (),
    lock_shared: Sequence[str] = (),
) -> Generator[Connection]:
    """One transaction of an idle connection, with `settings` SET LOCAL; times are UTC in it.

    `lock_shared` are quoted names of tables to lock against DDL and TRUNCATE before the snapshot is taken: a rewritten
    or truncated table looks empty to an older snapshot.
    """
    opening = ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"] if repeatable_read else []
    for name, value in {"timezone": "UTC", **(settings or {})}.items():
        opening.append(f"SET LOCAL {quote_identifier(name)} = {quote_literal(value)}")
    if search_path:
        opening.append(f"SET LOCAL search_path = {', '.join(quote_identifier(schema) for schema in search_path)}")
    if lock_shared:
        opening.append(f"LOCK TABLE {', '.join(lock_shared)} IN ACCESS SHARE MODE")
    with connection.transaction():
        connection.execute("; ".join(opening).encode())
        yield connection


def translate(error: psycopg.Error, what: str) -> MozartError:
    """A driver's error as ours: lost connections, locks and shortages are transient, broken data is DataQuality."""
    # Never the detail: it shows the row that failed.
    text = " ".join((error.diag.message_primary or str(error)).split())
    if isinstance(error, pg.InsufficientPrivilege):
        return ConfigurationError(f"{what}: {text}; give the login of MOZART_OLAP_USERNAME that right")
    if isinstance(error, psycopg.IntegrityError | psycopg.DataError | pg.CardinalityViolation):
        return DataQualityError(f"{what}: {text}")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return TransientError(f"{what}: {text}")
    return TerminalError(f"{what}: {text}")


def _sslmode(text: str) -> Any:
    known = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
    if text not in known:
        raise ConfigurationError(Problem(".env", "MOZART_OLAP_SSLMODE", f"{text!r} is not one of {', '.join(known)}"))
    return text
