"""Readers never see an error, an empty view or a long wait, whatever is done to the views meanwhile."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass, field

import psycopg
import pytest
from olap_case import FACTS, Olap

LONGEST_WAIT_SECONDS = 2.0
"""Far above what one read takes (see the benchmark for the figures), far below what a refresh takes when it blocks."""


@dataclass
class Reader(threading.Thread):
    """Counts a view's rows in a loop. An `old` reader does so in transactions that keep their first snapshot."""

    olap: Olap
    view: str
    old: bool
    stop: threading.Event
    reads: int = 0
    longest: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        with closing(self.olap.database.connect()) as connection:
            while not self.stop.is_set():
                try:
                    self._read(connection)
                except psycopg.Error as error:
                    self.faults.append(f"{type(error).__name__}: {error}")

    def _read(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with connection.transaction():
            if self.old:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                connection.execute("SELECT 1 FROM axiom_vision.dim_time LIMIT 1")
                self.stop.wait(0.03)
            started = time.perf_counter()
            row = connection.execute(f"SELECT count(*) FROM axiom_vision.{self.view}".encode()).fetchone()
            self.longest = max(self.longest, time.perf_counter() - started)
            self.reads += 1
            if row is None or not row[0]:
                self.faults.append("empty")


@pytest.mark.faults
def test_readers_through_every_kind_of_refresh_and_a_change_of_strategy(olap: Olap) -> None:
    stop = threading.Event()
    readers = [Reader(olap, view, old, stop) for view in FACTS for old in (False, True)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(2):
            for view in FACTS:
                olap.execute("UPDATE cases SET org_id = 1 + org_id % 50 WHERE case_id < 90")
                olap.refresh(view)
                olap.refresh(view, "full")
                olap.execute("UPDATE mozart.view_state SET recompute_reason = 'test' WHERE name = %s", (view,))
                olap.refresh(view, "event")
            olap.use("refresh", *FACTS)
            for view in FACTS:
                olap.execute("UPDATE cases SET org_id = 1 + org_id % 50 WHERE case_id < 90")
                olap.refresh(view, "sweep")
            olap.use("incremental", *FACTS)
            sql = olap.registry.get("mv_cashflow_fact").sql
            olap.change("mv_cashflow_fact", sql=f"{sql}\n-- edited")
            olap.use("incremental", "mv_cashflow_fact")
    finally:
        stop.set()
        for reader in readers:
            reader.join(20)
    print(
        {f"{r.view}{' old' if r.old else ''}": (r.reads, round(r.longest * 1000)) for r in readers}, "reads, longest ms"
    )
    assert [reader.faults for reader in readers] == [[], [], [], []]
    assert all(reader.reads > 5 for reader in readers)
    assert max(reader.longest for reader in readers) < LONGEST_WAIT_SECONDS
    assert all(olap.refresh(view).status == "completed" and olap.is_exact(view) for view in FACTS)
