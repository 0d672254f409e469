"""How the catalog is called: every request has a deadline, every failure becomes one of Mozart's errors.

pyiceberg's REST client waits for ever by default, from its first request on, the login; a reply that never comes would
hold a loader's slot until it is killed. Knows nothing of tables and snapshots. Pitfall: an error translated here says
that a *read* or a *preparation* failed. The outcome of a commit is never decided from an exception;
`mozart.lake.commit` reads the table again.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

from pydantic import ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    ForbiddenError,
    OAuthError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from mozart.errors import MozartError, TerminalError, TransientError

_LONGEST_DETAIL = 300

FAILURES = (RESTError, OSError, ValidationError, JSONDecodeError)
"""What calls of the catalog and the store raise: refusals, 5xx, connections, files, replies that make no sense."""

_REFUSED = (UnauthorizedError, ForbiddenError, AuthorizationExpiredError, OAuthError)
_MAY_PASS = (ServerError, ServiceUnavailableError, TooManyRequestsError)


@dataclass(frozen=True)
class Deadline:
    """Seconds to wait for a connection, and for each part of a reply."""

    connect: float = 10.0
    read: float = 60.0


DEADLINE = Deadline()
"""What a new client has."""


class _DeadlineAdapter(HTTPAdapter):
    """Sends with a deadline and without retries: a commit must never be sent twice behind our back."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__(max_retries=0)
        self._deadline = deadline

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = (self._deadline.connect, self._deadline.read)
        return super().send(request, *args, **kwargs)


class _Catalog(RestCatalog):
    """A client whose session has a deadline before it logs in: its headers are the first that pyiceberg sets."""

    def _config_headers(self, session: Session) -> None:
        _mount(session, DEADLINE)
        super()._config_headers(session)


def open_catalog(properties: Mapping[str, Any]) -> Catalog:
    """A new client, logged in.

    Raises TransientError when the catalog cannot be reached, TerminalError when it refuses the identity.
    """
    with translated(f"opening the catalog at {properties['uri']}"):
        return _Catalog("lake", **properties)


def set_deadline(catalog: Catalog, deadline: Deadline) -> None:
    """Give the client's requests another deadline."""
    if isinstance(catalog, RestCatalog):
        _mount(catalog._session, deadline)


def _mount(session: Session, deadline: Deadline) -> None:
    for scheme in ("http://", "https://"):
        session.mount(scheme, _DeadlineAdapter(deadline))


@contextmanager
def translated(doing: str) -> Generator[None]:
    """Turn failures of the catalog or the object store into errors for an operator; `doing` says what failed.

    Raises TransientError for what may pass (a connection, a 5xx, an unreadable reply), TerminalError for what was
    refused. Anything else is a mistake in the program and goes through as it is.
    """
    try:
        yield
    except FAILURES as error:
        raise translate(error, doing) from error


def translate(error: Exception, doing: str) -> MozartError:
    """The error an operator sees for `error`, which came up while `doing`."""
    if isinstance(error, _REFUSED):
        return TerminalError(
            f"{doing}: the catalog refused our identity ({describe(error)}); check the lakehouse's key and its rights"
        )
    if isinstance(error, _MAY_PASS) or not isinstance(error, RESTError):
        return TransientError(f"{doing}: {describe(error)}; nothing was committed, try again")
    return TerminalError(f"{doing}: the catalog refused the request ({describe(error)})")


def describe(error: BaseException) -> str:
    """The error's class and the beginning of its text, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_LONGEST_DETAIL]}" if text else type(error).__name__
