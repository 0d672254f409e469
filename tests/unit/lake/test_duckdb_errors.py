"""DuckDB's errors at the lake: which are worth a retry."""

from __future__ import annotations

import duckdb
import pytest

from mozart.errors import MozartError, TerminalError, TransientError
from mozart.lake.duckdb_errors import duckdb_translated

_CONFIG = "Request to 'http://h:1/v1/config?warehouse=w' returned a non-200 status code"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (duckdb.Error(f"{_CONFIG} (ServiceUnavailable_503), with reason: x"), TransientError),
        (duckdb.Error(f"{_CONFIG} (Conflict_409), with reason: Conflict"), TransientError),
        (duckdb.Error(f"{_CONFIG} (Forbidden_403), with reason: Forbidden"), TerminalError),
        (duckdb.Error("Could not get token from http://h:1: Request returned HTTP 500 for HTTP POST"), TransientError),
        (duckdb.IOException("IO Error: Transferred a partial file error for GET 'http://h:40345/a'"), TransientError),
        (
            duckdb.Error('Could not get token from http://h:1: HTTP BadGateway_502 - {"error":{"code":403}}'),
            TransientError,
        ),
        (duckdb.IOException("IO Error: Could not write file: No space left on device"), TransientError),
        (duckdb.OutOfMemoryException("Out of Memory Error"), TransientError),
        (duckdb.BinderException("Binder Error: Referenced column not found"), TerminalError),
    ],
)
def test_what_may_pass_is_transient(raised: duckdb.Error, expected: type[MozartError]) -> None:
    with pytest.raises(MozartError, match=r"loading t\.orders") as caught, duckdb_translated("loading t.orders"):
        raise raised
    assert type(caught.value) is expected


def test_other_errors_go_through() -> None:
    with pytest.raises(ZeroDivisionError), duckdb_translated("loading t.orders"):
        raise ZeroDivisionError
