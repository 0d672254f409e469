"""How many rows of a statement have passed while it runs, told at intervals.

A read in parts is told of by its parts; a read in one stream says nothing until its end, which may be an hour away.
Its rows take a number of a sequence as they pass (22 ns a row), and another cursor looks at it. Not in the source's
books, as `pg_stat_progress_copy`: only some databases have them, and each says it in its own way.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import duckdb
from duckdb import DuckDBPyConnection

from mozart.sql import quote_literal, quote_qualified

INTERVAL_SECONDS = 10.0

OnPassed = Callable[[int], None]
"""Given the rows that have passed so far, by a thread of the watch's own."""


@contextmanager
def watched(connection: DuckDBPyConnection, on_passed: OnPassed) -> Generator[Callable[[str], str]]:
    """Gives what makes a FROM item countable: same rows, same columns, for one statement of any cursor of `connection`.

    Enter before the statement's transaction begins, which otherwise does not see the sequence, and leave after its end.
    `on_passed` is told every `INTERVAL_SECONDS`, never at the end: who ran the statement knows its rows.
    """
    name = f"mozart_passed_{secrets.token_hex(8)}"
    place = quote_qualified("memory", "main", name)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SEQUENCE {place}")
        ended = threading.Event()
        watch = threading.Thread(target=_tell, args=(cursor, name, ended, on_passed), name="rows", daemon=True)
        watch.start()
        try:
            yield lambda relation: f"(SELECT * FROM {relation} AS passing WHERE nextval({quote_literal(place)}) > 0)"
        finally:
            ended.set()
            watch.join()
            cursor.execute(f"DROP SEQUENCE {place}")


def _tell(cursor: DuckDBPyConnection, name: str, ended: threading.Event, on_passed: OnPassed) -> None:
    while not ended.wait(INTERVAL_SECONDS):
        try:
            on_passed(_passed(cursor, name))
        except duckdb.Error:
            return  # the statement itself tells what is wrong with the instance


def _passed(cursor: DuckDBPyConnection, name: str) -> int:
    row = cursor.execute("SELECT last_value FROM duckdb_sequences() WHERE sequence_name = ?", [name]).fetchone()
    return int(row[0] or 0) if row else 0
