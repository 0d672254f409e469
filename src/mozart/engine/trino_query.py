"""Reading the lake on Trino, with a login that can do nothing else.

What keeps a query from writing is that login (see `mozart.services.trino_access`), not a look at the SQL: Trino refuses
it whatever is asked. Results come as Python values: exact decimals, aware datetimes in UTC, rows and maps as they are.

Pitfall: values of a type that this module does not know are left to Arrow to guess in `query`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mozart.engine.dbt_project import TRINO_OUTPUT
from mozart.engine.rows import Rows
from mozart.engine.trino_client import TrinoAddress, TrinoSession, open_trino, reader_login, retrying

_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")
_SIMPLE: Mapping[str, Callable[[], pa.DataType]] = {
    "boolean": pa.bool_,
    "tinyint": pa.int32,
    "smallint": pa.int32,
    "integer": pa.int32,
    "bigint": pa.int64,
    "real": pa.float32,
    "double": pa.float64,
    "varchar": pa.string,
    "char": pa.string,
    "uuid": pa.string,
    "varbinary": pa.binary,
    "date": pa.date32,
}


class TrinoQuerySession:
    """A connection that can read the lake and change nothing. Made by `open_trino_session`."""

    def __init__(self, session: TrinoSession) -> None:
        self._session = session

    def run(self, sql: str) -> Rows:
        """Start one statement. Raises TransientError or TerminalError with Trino's reason, also while rows are read.

        Not tried again beyond the client's own attempts: a person is waiting.
        """
        result = self._session.stream(sql)
        return Rows(result.columns, result.rows)

    def table(self, sql: str) -> pa.Table:
        """The whole result as an Arrow table; for small results. What is transient is tried again (`retrying`)."""

        def read() -> tuple[Sequence[str], Sequence[str], list[tuple[Any, ...]]]:
            result = self._session.stream(sql)
            return result.columns, result.types, list(result.rows)

        columns, types, rows = retrying(read)
        arrays = [pa.array([row[i] for row in rows], type=arrow_type(kind)) for i, kind in enumerate(types)]
        return pa.Table.from_arrays(arrays, names=list(columns))


@contextlib.contextmanager
def open_trino_session(address: TrinoAddress) -> Generator[TrinoQuerySession]:
    """A reading session; `address` is the operator's, the login that is used is the reader's."""
    with open_trino(reader_login(address)) as session:
        yield TrinoQuerySession(session)


class TrinoEngine:
    """The distributed engine (see `mozart.engine.base.Engine`)."""

    def __init__(self, address: TrinoAddress) -> None:
        self._address = address

    @property
    def name(self) -> str:
        return "trino"

    def query(self, sql: str) -> pa.Table:
        with open_trino_session(self._address) as session:
            return session.table(sql)

    def dbt_output(self) -> Mapping[str, Any]:
        return TRINO_OUTPUT


def arrow_type(kind: str) -> pa.DataType | None:
    """Arrow's type for one of Trino's, as Trino writes it; None where Arrow has to guess."""
    decimal = _DECIMAL.fullmatch(kind)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    if kind.startswith("timestamp"):
        return pa.timestamp("us", tz="UTC" if kind.endswith("with time zone") else None)
    if re.fullmatch(r"time(\(\d+\))?", kind):
        return pa.time64("us")
    simple = _SIMPLE.get(kind.partition("(")[0])
    return simple() if simple else None
