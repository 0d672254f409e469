"""A failed read of DuckDB from a source, as Mozart's own error: what a retry can cure, and what it cannot.

The text that leaves here holds no login: DuckDB's attach errors may quote it, its query errors do not.

Pitfall: a cursor that read a source is ended by `end_read` and by nothing else. DuckDB 1.5 rolls an open transaction
back in a destructor; when the source's connection is gone by then, that throws there and aborts the whole process.
"""

from __future__ import annotations

import re

import duckdb
from duckdb import DuckDBPyConnection

from mozart.errors import DataQualityError, MozartError, TerminalError, TransientError

GUARD_MARK = "mozart refuses: "
"""How the message of a type's guard starts, so that a refused value can be told from a broken read."""

_REFUSAL = re.compile(rf"(?<!'){re.escape(GUARD_MARK)}")
"""A refusal in force. After a quote it is part of the statement, which DuckDB shows with many errors, a lost connection
among them."""

_SHOWN = 500

_LOST_SIGNS = (
    "server closed the connection",
    "terminating connection",
    "connection to server",
    "Connection refused",
    "no connection to the server",
    "SSL SYSCALL error",
    "could not receive data",
    "could not send data",
    "Lost connection",
    "server has gone away",
    "the database system is ",
)
"""The connection was lost, whatever DuckDB makes of it: at the planning of a statement it is a Binder Error."""

_TERMINAL_SIGNS = (
    "does not exist",
    "doesn't exist",
    "Unknown column",
    "command denied",
    "permission denied",
    "undefined",
    "syntax error",
    "error in your SQL syntax",
    "invalid input syntax",
    "Conversion Error",
    "Binder Error",
    "out of range",
)


def read_error(table: str, error: BaseException) -> MozartError:
    """`error` of a read of `table` as DataQualityError, TerminalError or, when neither is sure, TransientError."""
    if isinstance(error, MozartError):
        return error
    text = " ".join(str(error).split())
    refusals = _REFUSAL.split(text)
    if len(refusals) > 1:
        refused = refusals[-1].rstrip('"')
        return DataQualityError(f"{table}: refused: {refused}; correct the row or leave the column out of `columns`")
    is_lost = any(sign in text for sign in _LOST_SIGNS)
    kind = TerminalError if not is_lost and any(sign in text for sign in _TERMINAL_SIGNS) else TransientError
    # The statement stands first and may be long; the reason stands last.
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 4]} … {text[-3 * _SHOWN // 4 :]}"
    return kind(f"{table}: reading failed: {shown}")


def end_read(cursor: DuckDBPyConnection) -> None:
    """Close a cursor that read a source, with its transaction if one is open. Never raises."""
    try:
        cursor.execute("ROLLBACK")
    except duckdb.Error:
        pass  # no transaction is open, or the source is gone and with it the transaction
    finally:
        cursor.close()
