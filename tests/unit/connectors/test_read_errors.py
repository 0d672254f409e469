"""A failed read is told for what it is, whatever DuckDB wraps it in."""

from __future__ import annotations

import duckdb
import pytest

from mozart.connectors.errors import GUARD_MARK, end_read, read_error
from mozart.errors import DataQualityError, TerminalError, TransientError

STATEMENT = f"SELECT CASE WHEN x THEN (''{GUARD_MARK}NaN in column x, key '' || id)::int4 END FROM t"


def test_a_connection_lost_while_a_statement_is_planned_can_be_tried_again() -> None:
    """DuckDB 1.5 calls it a Binder Error and shows the statement, with the texts of its guards."""
    text = f'Failed to prepare query "{STATEMENT}": server closed the connection unexpectedly\n\tThis probably means'
    found = read_error("t.orders", duckdb.BinderException(f"Binder Error: {text}"))
    assert type(found) is TransientError


def test_a_guard_in_the_statement_refuses_nothing() -> None:
    text = f"IO Error: canceling statement due to statement timeout LINE 1: {STATEMENT}"
    assert type(read_error("t.orders", duckdb.IOException(text))) is TransientError


def test_a_guard_that_refused_is_a_matter_of_the_data() -> None:
    text = f'Failed to fetch "{STATEMENT}": invalid input syntax for type integer: "{GUARD_MARK}NaN in x, key 7"'
    found = read_error("t.orders", duckdb.IOException(text))
    assert type(found) is DataQualityError
    assert "NaN in x, key 7;" in str(found)


@pytest.mark.parametrize("reason", ['relation "t" does not exist', "permission denied for table t"])
def test_what_a_retry_cannot_cure_is_terminal(reason: str) -> None:
    assert type(read_error("t.orders", duckdb.IOException(f"Failed: ERROR: {reason}"))) is TerminalError


@pytest.mark.parametrize("begun", [True, False])
def test_a_cursor_is_ended_with_or_without_a_transaction(begun: bool) -> None:
    connection = duckdb.connect()
    cursor = connection.cursor()
    if begun:
        cursor.execute("BEGIN")
    end_read(cursor)
    with pytest.raises(duckdb.ConnectionException):
        cursor.execute("SELECT 1")
