"""A failed read of DuckDB from a source, as Mozart's own error: what a retry can cure, and what it cannot.

The text that leaves here holds no login: DuckDB's attach errors may quote it, its query errors do not.
"""

from __future__ import annotations

from mozart.errors import DataQualityError, MozartError, TerminalError, TransientError

GUARD_MARK = "mozart refuses: "
"""How the message of a type's guard starts, so that a refused value can be told from a broken read."""

_SHOWN = 500

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
    if GUARD_MARK in text:
        refused = text.rsplit(GUARD_MARK, 1)[1].rstrip('"')
        return DataQualityError(f"{table}: refused: {refused}; correct the row or leave the column out of `columns`")
    kind = TerminalError if any(sign in text for sign in _TERMINAL_SIGNS) else TransientError
    # The statement stands first and may be long; the reason stands last.
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 4]} … {text[-3 * _SHOWN // 4 :]}"
    return kind(f"{table}: reading failed: {shown}")
