"""A Trino server as Mozart talks to it: its address, a connection, and what its errors mean.

A login is a name and a password over TLS; nothing is ever sent unencrypted. Errors are sorted once, here: what the
server, the network or another writer may answer differently in a minute is transient, what is wrong with the statement,
the login or the permission is terminal. `retrying` tries the former again, three times within ten minutes.

Pitfalls: the client reads some 40,000 rows a second, so large results belong into a table. A statement runs only while
somebody fetches its result: `execute` fetches all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import requests
import trino
from pydantic import BaseModel, ConfigDict, SecretStr
from trino import exceptions as failures
from trino.types import NamedRowTuple

from mozart.errors import MozartError, TerminalError, TransientError
from mozart.settings import Settings
from mozart.sql import quote_identifier

CATALOG = "iceberg"
"""The shared lake's name in SQL, on every engine."""

SOURCE = "mozart"
DEFAULT_USERNAME = "mozart"
READER = "mozart_reader"

RETRY_PAUSES = (5.0, 30.0, 120.0)
"""Seconds before each retry, each up to half as long again."""
RETRY_WITHIN = 600.0
_REQUEST_SECONDS = 30.0

Answer = TypeVar("Answer")

# Reasons of Trino itself and of its Iceberg connector that another attempt may not meet.
_TRANSIENT_NAMES = frozenset(
    {
        "ABANDONED_TASK",
        "CLUSTER_OUT_OF_MEMORY",
        "ICEBERG_CATALOG_ERROR",
        "ICEBERG_COMMIT_ERROR",
        "ICEBERG_CANNOT_OPEN_SPLIT",
        "ICEBERG_CURSOR_ERROR",
        "ICEBERG_FILESYSTEM_ERROR",
        "ICEBERG_WRITER_CLOSE_ERROR",
        "ICEBERG_WRITER_DATA_ERROR",
        "ICEBERG_WRITER_OPEN_ERROR",
        "NO_NODES_AVAILABLE",
        "PAGE_TRANSPORT_ERROR",
        "PAGE_TRANSPORT_TIMEOUT",
        "QUERY_QUEUE_FULL",
        "REMOTE_HOST_GONE",
        "REMOTE_TASK_ERROR",
        "REMOTE_TASK_MISMATCH",
        "SERVER_SHUTTING_DOWN",
        "SERVER_STARTING_UP",
        "TOO_MANY_REQUESTS_FAILED",
        "TRANSACTION_CONFLICT",
    }
)
_NAME_IN_TEXT = re.compile(r"\bname=([A-Z_]+)")
_UNREACHABLE = re.compile(
    r"Max retries exceeded|Failed to establish|Connection (?:refused|reset|aborted)|\berror 50[234]\b"
)
# A catalog's 5xx in answer to a commit, no answer, and the answer to a commit that was sent again after one of these
# reach us as an internal error of Trino, told by its words alone.
_CATALOG_TROUBLE = re.compile(
    r"\b(?:Service unavailable|Service failed|Server error): |\bfailed to respond\b|processing [A-Z]+ request"
    r"|can't add snapshot with id \d+, already exists"
)
_REFUSED_SERVER = re.compile(r"Not ?[Aa]uthorized|Unauthorized|invalid_client|Status Code: 40[13]\b")
_SERVER_CREDENTIALS = (
    "catalog or store refuse the server's own credentials: ICEBERG_CATALOG_CREDENTIAL, S3_ACCESS_KEY_ID and "
    "S3_SECRET_ACCESS_KEY of its environment"
)
_REFUSED_LOGIN = re.compile(r"\berror 40[13]\b")


class TrinoAddress(BaseModel):
    """Where a Trino server is and who logs in. `certificate`: its own or its authority's, where it is not public.

    `catalog` is the lake in SQL: the shared one, or that of a tenant with a lake of its own.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    port: int
    username: str
    password: SecretStr
    certificate: Path | None = None
    catalog: str = CATALOG

    @property
    def name(self) -> str:
        """For errors."""
        return f"Trino at {self.host}:{self.port}"


@dataclass(frozen=True)
class Result:
    """Column names, Trino's types as it writes them, and rows as they come."""

    query_id: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


class TrinoSession:
    """One connection; use it from one thread."""

    def __init__(self, address: TrinoAddress, connection: trino.dbapi.Connection) -> None:
        self.address = address
        self._connection = connection

    def stream(self, sql: str) -> Result:
        """Start a statement; the rows come as they are read. Errors as for `execute`, also while they are read."""
        with translated(self.address):
            cursor = self._connection.cursor()
            cursor.execute(sql)
            columns = cast(Sequence[Sequence[Any]], cursor.description or ())
        names, types = [str(column[0]) for column in columns], [str(column[1]) for column in columns]
        return Result(str(cursor.query_id), tuple(names), tuple(types), self._rows(cursor))

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement to its end; its rows. Raises TransientError or TerminalError with Trino's reason."""
        return list(self.stream(sql).rows)

    def fetch_one(self, sql: str) -> tuple[Any, ...]:
        """The first row of a query that has one."""
        return self.execute(sql)[0]

    def _rows(self, cursor: Any) -> Iterator[tuple[Any, ...]]:
        while True:
            with translated(self.address):
                row = cursor.fetchone()
            if row is None:
                return
            yield tuple(_plain(value) for value in row)


def _plain(value: Any) -> Any:
    """Rows within rows as dicts, as DuckDB and pyiceberg give them."""
    if isinstance(value, NamedRowTuple):
        names = cast(Sequence[str], value.__annotations__["names"])
        return {name: _plain(inner) for name, inner in zip(names, value, strict=True)}
    if isinstance(value, list):
        return [_plain(inner) for inner in cast(list[Any], value)]
    return value


@contextlib.contextmanager
def open_trino(address: TrinoAddress, *, attempts: int = 3) -> Generator[TrinoSession]:
    """A session in UTC. Nothing is sent before the first statement; `attempts` are the client's own, at once."""
    connection = trino.dbapi.connect(
        host=address.host,
        port=address.port,
        user=address.username,
        auth=trino.auth.BasicAuthentication(address.username, address.password.get_secret_value()),
        http_scheme="https",
        http_session=_http_session(address),
        catalog=address.catalog,
        source=SOURCE,
        timezone="UTC",
        request_timeout=_REQUEST_SECONDS,
        max_attempts=attempts,
    )
    try:
        yield TrinoSession(address, connection)
    finally:
        connection.close()


def _http_session(address: TrinoAddress) -> requests.Session:
    session = requests.Session()
    if address.certificate:
        # Else REQUESTS_CA_BUNDLE of the environment goes before the certificate that is given here.
        session.trust_env = False
        session.verify = str(address.certificate)
    return session


@contextlib.contextmanager
def translated(address: TrinoAddress) -> Generator[None]:
    """Turn what the client raises into Mozart's errors."""
    try:
        yield
    except (failures.Error, failures.HttpError, requests.RequestException, OSError) as error:
        raise translate(error, address) from error


def translate(error: Exception, address: TrinoAddress) -> MozartError:
    """One error of the client as one of ours, with Trino's own words and no secret (the client quotes none)."""
    if isinstance(error, failures.TrinoQueryError):
        reason = _with_cause(error)
        text = f"{address.name}: {error.error_name}: {one_line(reason)} (query {error.query_id})"
        if _REFUSED_SERVER.search(reason):
            return TerminalError(f"{text}; {_SERVER_CREDENTIALS}")
        is_transient = is_transient_name(error.error_name) or _CATALOG_TROUBLE.search(reason)
        return TransientError(text) if is_transient else TerminalError(text)
    text = one_line(str(error))
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return TerminalError(
            f"{address.name} shows a certificate that is not trusted: {text}; see MOZART_TRINO_CERTIFICATE"
        )
    if _REFUSED_LOGIN.search(text):
        return TerminalError(
            f"{address.name} refuses the login of {address.username}: {text}; see MOZART_TRINO_USERNAME and "
            "MOZART_TRINO_PASSWORD; a tenant's login is made by `mozart deploy`"
        )
    return TransientError(f"{address.name} does not answer: {text}; is it up? (`mozart ps`)")


def _with_cause(error: failures.TrinoQueryError) -> str:
    """Trino's message, and that of what was behind it all: the first often says no more than that something failed."""
    deepest: Any = error.failure_info or {}
    while deepest.get("cause"):
        deepest = deepest["cause"]
    cause = str(deepest.get("message") or "")
    return error.message if cause in error.message else f"{error.message} ({cause})"


def is_transient_name(name: str | None) -> bool:
    """Whether Trino's error name stands for something that may pass."""
    return name in _TRANSIENT_NAMES


def is_transient_text(text: str) -> bool:
    """The same for an error of which only the text is left, as dbt gives it."""
    named = _NAME_IN_TEXT.search(text)
    if _REFUSED_SERVER.search(text):
        return False
    if named and is_transient_name(named.group(1)):
        return True
    return bool((_CATALOG_TROUBLE if named else _UNREACHABLE).search(text))


def retrying(
    call: Callable[[], Answer],
    *,
    pauses: Sequence[float] = RETRY_PAUSES,
    within: float = RETRY_WITHIN,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """The answer of `call`, which is tried again after a TransientError: once for each pause, within `within` seconds.

    The last error says how often it was tried. Other errors are raised at once.
    """
    end = time.monotonic() + within
    for tried, pause in enumerate((*pauses, None), 1):
        try:
            return call()
        except TransientError as error:
            if pause is None or time.monotonic() + pause > end:
                raise TransientError(f"{error} (tried {tried} times)") from error
            sleep(pause * random.uniform(1.0, 1.5))  # noqa: S311 - spreads rivals, guards nothing
    raise AssertionError("unreachable")


def tenant_login(address: TrinoAddress, namespace: str, catalog: str = CATALOG) -> TrinoAddress:
    """The same server with the login of the tenant whose tables lie in `namespace` of `catalog`."""
    return derived_login(address, namespace).model_copy(update={"catalog": catalog})


def reader_login(address: TrinoAddress) -> TrinoAddress:
    """The same server with the login that may read everything and change nothing."""
    return derived_login(address, READER)


def is_login_known(address: TrinoAddress) -> bool:
    """Whether the server has taken this login and its rules over. Raises TransientError when it does not answer."""
    try:
        with open_trino(address, attempts=1) as session:
            # Refused to whom the rules do not name.
            session.execute(f"SHOW SCHEMAS FROM {quote_identifier(address.catalog)}")
    except TerminalError:
        return False
    return True


def derived_login(address: TrinoAddress, username: str) -> TrinoAddress:
    """A login whose password follows from the operator's, so that no further secret has to be kept anywhere.

    The password does not tell the operator's, as long as that one is random (`mozart up` makes it so). A new
    password of the operator is a new one for everybody.
    """
    key = address.password.get_secret_value().encode()
    password = hmac.new(key, f"mozart trino login\0{username}".encode(), hashlib.sha256).hexdigest()
    return address.model_copy(update={"username": username, "password": SecretStr(password)})


def trino_from_settings(settings: Settings) -> TrinoAddress:
    """The server that the settings name: MOZART_TRINO_HOST where set, else the local stack's.

    Raises ConfigurationError for a setting that is missing or wrong.
    """
    values = settings.values
    certificate = values.get("MOZART_TRINO_CERTIFICATE")
    is_local = not values.get("MOZART_TRINO_HOST")
    own = settings.state / "trino" / "certificate.pem" if is_local else None
    return TrinoAddress(
        host=values.get("MOZART_TRINO_HOST") or settings.get("MOZART_HOST"),
        port=settings.port("MOZART_TRINO_PORT"),
        username=values.get("MOZART_TRINO_USERNAME") or DEFAULT_USERNAME,
        password=SecretStr(settings.get("MOZART_TRINO_PASSWORD")),
        certificate=Path(certificate).expanduser() if certificate else own,
    )


def one_line(text: str, longest: int = 500) -> str:
    """A message on one line, bounded."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
