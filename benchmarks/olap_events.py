"""The event path in figures, for `bench_olap`: relay throughput, refreshes per burst, event to fresh.

    python -m benchmarks.olap_events               # these figures alone

`event_figures` starts a whole stack in a temporary project, deploys the OLAP layer and measures the way through Prefect
as an operator has it, with the views' own windows of 10 s. Relay and listener are not yet running when the relay is
measured, for they would take its events.

Pitfall: event to fresh counts CPU of the server and the worker, some 1.5 s beyond the window on two cores; on a machine
that does other work it is that work's figure.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mozart.olap.database import OlapDatabase, olap_database_from_settings
from mozart.olap.event_stream import EventStream
from mozart.olap.redis_server import RedisServer, redis_from_settings
from mozart.olap.relay import OutboxRelay
from mozart.olap.state import read_history, read_states
from mozart.services.stack import Stack, load_stack
from samples import axiom_core
from tests.projects import PROJECT_FILES, make_project

FACTS = ("mv_business_fact", "mv_cashflow_fact")
RELAYED = 50_000
BURST = 10_000
_WAIT_SECONDS = 180.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Latencies:
    """Seconds from the commit of a burst's last event to the fresh view, one figure a view and round."""

    seconds: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """The nearest-rank quantile; `share` 0 to 1."""
        ordered = sorted(self.seconds)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def event_figures(*, scale: float = 0.25, rounds: int = 10) -> dict[str, float]:
    """Everything below, on a stack of its own. Seconds, and events a second; `scale` 1 is 40k cases."""
    with _stack() as stack:
        database, redis = olap_database_from_settings(stack.settings), redis_from_settings(stack.settings)
        stack.postgres.create_database(
            database.database, owner=database.username, password=database.password.get_secret_value()
        )
        with closing(database.connect(autocommit=False)) as connection:
            axiom_core.create(connection, scale=scale)
        figures = {"relay_events_per_s": relay_events_per_second(database, redis)}
        for command in (("olap", "install"), ("sync",), ("deploy",), ("up",)):
            _mozart(stack.settings.root, *command)
        latencies = event_to_fresh(database, FACTS, rounds=rounds)
        figures["event_to_fresh_p50_s"] = latencies.quantile(0.5)
        figures["event_to_fresh_p95_s"] = latencies.quantile(0.95)
        figures["refreshes_per_burst"] = refreshes_per_burst(database, FACTS)
    return figures


@contextmanager
def _stack() -> Iterator[Stack]:
    """A durable stack in a temporary project without tenants."""
    with tempfile.TemporaryDirectory(prefix="mozart-bench-", ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        make_project(root, copied=PROJECT_FILES)
        for folder in (root / "tenants").iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
        stack = load_stack(root)
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


def _mozart(root: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mozart.cli.main", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"mozart {' '.join(arguments)}: {done.stdout}{done.stderr}"


def relay_events_per_second(database: OlapDatabase, redis: RedisServer, *, events: int = RELAYED) -> float:
    """How many events one relay publishes in a second, from a full outbox, each marked as published durably."""
    stream = EventStream(redis, name=f"bench:{secrets.token_hex(4)}", longest=2 * events)
    emit(database, "bench_event", events)
    relay = OutboxRelay(database, stream)
    try:
        with closing(database.connect()) as connection:
            began = time.perf_counter()
            published = relay.drain(connection)
            seconds = time.perf_counter() - began
    finally:
        client = redis.client()
        client.delete(stream.name, f"{stream.name}:epoch")
        client.close()
    return published / seconds


def refreshes_per_burst(database: OlapDatabase, views: Sequence[str], *, events: int = BURST) -> float:
    """Completed refreshes per view that a burst of events leads to, through the running daemons; the most of a view."""
    _wait_fresh(database, views)
    before = {view: _newest_attempt(database, view) for view in views}
    with closing(database.connect(autocommit=False)) as connection:
        axiom_core.apply_changes(connection, seed=secrets.randbelow(1_000_000), inserts=8, updates=8)
    emit(database, "performance_recorded", events)
    _wait_fresh(database, views)
    # Another refresh of the same burst would come within a window and a sweep.
    time.sleep(15)
    return float(max(_completed_since(database, view, before[view]) for view in views))


def event_to_fresh(database: OlapDatabase, views: Sequence[str], *, rounds: int = 10) -> Latencies:
    """Bursts of business one after the other, each when the views are fresh; what starts cold is not counted."""
    found: list[float] = []
    for number in range(rounds + 1):
        with closing(database.connect(autocommit=False)) as connection:
            axiom_core.apply_changes(connection, seed=secrets.randbelow(1_000_000), inserts=8, updates=8)
        times = _wait_fresh(database, views)
        if number:
            found += times
    return Latencies(tuple(found))


def emit(database: OlapDatabase, topic: str, count: int) -> None:
    """So many committed events of one topic."""
    with closing(database.connect()) as connection:
        connection.execute(
            "INSERT INTO event_outbox (topic, payload)"
            " SELECT %s, jsonb_build_object('case_id', n) FROM generate_series(1, %s) AS n",
            (topic, count),
        )


def _wait_fresh(database: OlapDatabase, views: Sequence[str]) -> list[float]:
    """Seconds until each view is fresh."""
    began = time.perf_counter()
    found: dict[str, float] = {}
    with closing(database.connect()) as connection:
        while len(found) < len(views):
            now = time.perf_counter() - began
            if now > _WAIT_SECONDS:
                raise TimeoutError(f"not fresh after {now:.0f} s: {sorted(set(views) - set(found))}")
            for state in read_states(connection):
                if state.name in views and not state.is_stale:
                    found.setdefault(state.name, now)
            time.sleep(_POLL_SECONDS)
    return list(found.values())


def _newest_attempt(database: OlapDatabase, view: str) -> int:
    with closing(database.connect()) as connection:
        return max((attempt.id for attempt in read_history(connection, view=view, limit=1)), default=0)


def _completed_since(database: OlapDatabase, view: str, newest: int) -> int:
    with closing(database.connect()) as connection:
        attempts = read_history(connection, view=view, limit=100)
    return sum(attempt.status == "completed" and attempt.id > newest for attempt in attempts)


if __name__ == "__main__":
    print(json.dumps({name: round(value, 2) for name, value in event_figures().items()}))
