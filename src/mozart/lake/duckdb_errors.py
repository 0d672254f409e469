"""DuckDB's failures at the lake as Mozart's own errors: what a retry can cure, and what it cannot.

Knows nothing of sources; a failed read of one is `mozart.connectors.errors.read_error`. Pitfall: DuckDB's iceberg
extension raises its base class for every answer of the catalog that is no success, so that the status is read from
the text.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

import duckdb

from mozart.errors import MozartError, TerminalError, TransientError
from mozart.lake.catalog_client import describe

_MAY_PASS = (duckdb.IOException, duckdb.HTTPException, duckdb.OutOfMemoryException)
_STATUS = re.compile(r"\b[A-Z][A-Za-z]+_(\d{3})\b|\b(?:HTTP|status(?: code)?)\D{1,3}(\d{3})\b")
"""`Conflict_409`, or `HTTP 500`."""
_REFUSED = frozenset({"400", "401", "403", "404"})


@contextmanager
def duckdb_translated(doing: str) -> Generator[None]:
    """Turn DuckDB's errors into errors for an operator; `doing` says what failed.

    Raises TransientError for what may pass (connections, 5xx, a full disk, memory), TerminalError for the rest.
    """
    try:
        yield
    except duckdb.Error as error:
        raise translate_duckdb(error, doing) from error


def translate_duckdb(error: duckdb.Error, doing: str) -> MozartError:
    """The error an operator sees for `error`, which came up while `doing`."""
    text = f"{doing}: {describe(error)}"
    found = _STATUS.search(str(error))
    status = (found.group(1) or found.group(2)) if found else None
    if status in _REFUSED:
        return TerminalError(f"{text}; check the lakehouse's address, key and rights")
    if status is not None or isinstance(error, _MAY_PASS):
        return TransientError(f"{text}; nothing was committed, try again")
    return TerminalError(text)
