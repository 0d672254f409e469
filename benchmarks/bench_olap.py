"""The OLAP layer: incremental against REFRESH CONCURRENTLY against plain REFRESH, readers, writers, events; one run.

    python -m benchmarks.bench_olap                # 1M cases, 5M cash flows
    python -m benchmarks.bench_olap --scale 2      # 80k cases, 400k cash flows: a look, not the targets

One durable embedded PostgreSQL, started and stopped here. Each fact is kept twice: incrementally by Mozart, and as a
materialized view of the same query, the rival. For each number of changed rows (one UPDATE of that many random rows of
the view's largest table), Mozart's figure is `refresh_view` as anybody calls it, connection, history and lock included;
the rival's is the bare statement. Ratios are of medians. Readers are processes of their own that look up one group of
the view in a loop and keep their longest wait. Write overhead is a durable one-row INSERT with Mozart's triggers over
the same without, in rounds that take turns.

Pitfalls: CONCURRENTLY costs the same whatever changed, so it is measured for the smallest and the largest change only
and the median counts for all. On a machine that does other work the longest wait is the scheduler's.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from benchmarks.result import Targets, print_result
from mozart.olap.database import OlapDatabase
from mozart.olap.install import install
from mozart.olap.model import View
from mozart.olap.refresh import refresh_view
from mozart.olap.registry import ViewRegistry, read_views
from mozart.olap.verify import verify_view
from mozart.olap.view_sql import full_query
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.postgres import SUPERUSER, Postgres
from mozart.sql import quote_identifier, quote_qualified
from samples import axiom_core

T = TypeVar("T")
FULL_SCALE = 25.0
ROOT = Path(__file__).resolve().parents[1]
CHANGED_TABLES = {
    "mv_business_fact": ("stakeholders", "stakeholder_id", "claim_amount = coalesce(claim_amount, 0) + 1"),
    "mv_cashflow_fact": ("cash_flow_entries", "entry_id", "amount = amount + 1"),
}
INSERT = (
    b"INSERT INTO cash_flow_entries (case_id, flow_type, category, amount, entry_date)"
    b" VALUES (%s, 'in', 'fee', 1.5, '2024-05-06')"
)
UPDATE = b"UPDATE cash_flow_entries SET amount = amount + 1 WHERE entry_id = %s"
REPEATS = {0: 5, 1: 7, 100: 5, 10_000: 3}

TARGETS: Targets = {
    "speedup_1": (">=", 400),
    "speedup_100": (">=", 100),
    "speedup_10k": (">=", 3),
    "reader_wait_ms": ("<=", 50),
    "reader_wait_concurrently_ms": ("<=", 250),
    "write_overhead": ("<=", 1.05),
    "refreshes_per_burst": ("<=", 1),
    "relay_events_per_s": (">=", 10_000),
    "event_to_fresh_p95_s": ("<=", 12),
}


@dataclass
class Fact:
    """One fact's measurements: seconds by number of changed rows, and the readers' longest waits in ms."""

    incremental: dict[int, float] = field(default_factory=dict)
    recomputed: set[int] = field(default_factory=set)
    concurrently: float = 0.0
    plain: float = 0.0
    wait_incremental: float = 0.0
    wait_concurrently: float = 0.0


def main() -> None:
    """Run everything; the last line printed is the JSON."""
    parser = argparse.ArgumentParser(description="benchmarks of the OLAP layer", epilog="example: --scale 2")
    parser.add_argument("--scale", type=float, default=FULL_SCALE, help="1 is 40k cases (default 25: 1M cases)")
    parser.add_argument("--rounds", type=int, default=120, help="rounds of the write overhead (default 120)")
    parser.add_argument("--without-events", action="store_true", help="skip relay and event to fresh")
    options = parser.parse_args()
    print(f"scale {options.scale}, PYTHONDONTWRITEBYTECODE={os.environ.get('PYTHONDONTWRITEBYTECODE')!r}")
    with _server() as database:
        registry = _prepare(database, options.scale)
        facts = {view.name: _measure(database, registry, view, options.scale) for view in registry.facts}
        overhead = {
            "write_overhead": _write_overhead(database, options.rounds, INSERT, "insert"),
            "update_overhead": _write_overhead(database, options.rounds, UPDATE, "update"),
        }
        for view in registry.facts:
            assert verify_view(database, registry, view.name).is_exact, f"{view.name} is not exact after the benchmark"
    figures = {**_figures(facts, options.scale), **overhead}
    if not options.without_events:
        figures |= _event_figures()
    print_result("olap", figures, TARGETS)


@contextmanager
def _server() -> Iterator[OlapDatabase]:
    """A durable PostgreSQL of this benchmark's own, with an empty database."""
    with tempfile.TemporaryDirectory(prefix="mozart-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        password = secrets.token_urlsafe(12)
        server = Postgres(Ledger(folder), port=find_free_ports(1)[0], password=password, durable=True)
        try:
            server.start()
            server.create_database("axiom", owner="axiom", password=password)
            place = server.superuser("axiom")
            yield OlapDatabase(
                host=place.host, port=place.port, database="axiom", username=SUPERUSER, password=SecretStr(password)
            )
        finally:
            server.stop()


def _prepare(database: OlapDatabase, scale: float) -> ViewRegistry:
    registry = read_views(ROOT)
    with closing(database.connect()) as connection:
        rows = _timed("sample", lambda: axiom_core.create(connection, scale=scale))
        print({table: rows[table] for table in ("cases", "stakeholders", "cash_flow_entries")})
        _timed("install", lambda: install(database, registry))
        connection.execute("CREATE SCHEMA rival")
        connection.execute("SET search_path = public")
        for view in registry.facts:
            keys = ", ".join(quote_identifier(key) for key in view.unique_key)
            connection.execute(f"CREATE MATERIALIZED VIEW {_rival(view)} AS {full_query(view)}".encode())
            connection.execute(f"CREATE UNIQUE INDEX ON {_rival(view)} ({keys})".encode())
        connection.execute("VACUUM ANALYZE")
    return registry


def _measure(database: OlapDatabase, registry: ViewRegistry, view: View, scale: float) -> Fact:
    fact = Fact()
    one_percent = max(1, round(200_000 * scale * 0.01))
    sizes = {**REPEATS, one_percent: 1}
    with closing(database.connect()) as connection:
        connection.execute("SET work_mem = '64MB'")
        with _reader(database, f"axiom_vision.{view.name}", view) as longest:
            for rows, repeats in sizes.items():
                spent: list[float] = []
                for _ in range(repeats):
                    _change(connection, view, rows)
                    started = time.perf_counter()
                    result = refresh_view(database, registry, view.name, kind="incremental")
                    spent.append(time.perf_counter() - started)
                    if result.reason:
                        fact.recomputed.add(rows)
                fact.incremental[rows] = statistics.median(spent)
            fact.wait_incremental = longest()
        rival = _rival(view)
        with _reader(database, f"rival.{view.name}", view) as longest:
            spent = []
            for rows in (1, one_percent):
                _change(connection, view, rows)
                started = time.perf_counter()
                connection.execute(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {rival}".encode())
                spent.append(time.perf_counter() - started)
            fact.concurrently = statistics.median(spent)
            fact.wait_concurrently = longest()
        started = time.perf_counter()
        connection.execute(f"REFRESH MATERIALIZED VIEW {rival}".encode())
        fact.plain = time.perf_counter() - started
        refresh_view(database, registry, view.name, kind="incremental")
    _report(view, fact)
    return fact


def _report(view: View, fact: Fact) -> None:
    print(f"{view.name}: CONCURRENTLY {fact.concurrently:.2f} s, plain {fact.plain:.2f} s")
    for rows, spent in fact.incremental.items():
        how = " (recomputed)" if rows in fact.recomputed else ""
        print(f"  {rows:>7} rows: {spent * 1000:9.1f} ms{how}, {fact.concurrently / spent:8.1f} times faster")
    print(f"  readers' longest wait: {fact.wait_incremental:.0f} ms, CONCURRENTLY {fact.wait_concurrently:.0f} ms")


def _change(connection: Any, view: View, rows: int) -> None:
    """Change that many random rows in one statement."""
    if not rows:
        return
    table, key, assignment = CHANGED_TABLES[view.name]
    connection.execute(
        f"UPDATE {table} SET {assignment} WHERE {key} IN (SELECT DISTINCT 1 + floor(random() * (SELECT max({key})"
        f" FROM {table}))::bigint FROM generate_series(1, {rows}))".encode()
    )


@contextmanager
def _reader(database: OlapDatabase, relation: str, view: View) -> Iterator[Callable[[], float]]:
    """A reader at work; the yielded function gives its longest wait in ms."""
    context = multiprocessing.get_context("spawn")
    longest, stop = context.Value("d", 0.0), context.Event()
    process = context.Process(target=_read, args=(database, relation, view.unique_key, longest, stop))
    process.start()
    try:
        yield lambda: longest.value * 1000
    finally:
        stop.set()
        process.join(30)
        if process.is_alive():
            process.kill()
    assert process.exitcode == 0, "the reader failed"


def _read(database: OlapDatabase, relation: str, keys: tuple[str, ...], longest: Any, stop: Any) -> None:
    condition = " AND ".join(f"{quote_identifier(key)} = %s" for key in keys)
    with closing(database.connect()) as connection:
        names = ", ".join(quote_identifier(key) for key in keys)
        group = connection.execute(f"SELECT {names} FROM {relation} ORDER BY {names} LIMIT 1".encode()).fetchone()
        query = f"SELECT * FROM {relation} WHERE {condition}".encode()
        while not stop.is_set():
            started = time.perf_counter()
            found = connection.execute(query, group).fetchall()
            longest.value = max(longest.value, time.perf_counter() - started)
            assert found, "an empty result"
            time.sleep(0.001)


def _write_overhead(database: OlapDatabase, rounds: int, write: bytes, what: str) -> float:
    """Median over the rounds of time with triggers / time without, for 50 durable one-row writes each."""
    ratios: list[float] = []
    with closing(database.connect()) as connection:
        names = [
            str(row[0])
            for row in connection.execute(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = 'cash_flow_entries'::regclass AND tgname LIKE 'mozart%'"
            )
        ]
        for turn in range(rounds):
            spent: dict[bool, float] = {}
            for traced in (True, False) if turn % 2 else (False, True):
                action = "ENABLE ALWAYS" if traced else "DISABLE"
                actions = ", ".join(f"{action} TRIGGER {quote_identifier(name)}" for name in names)
                connection.execute(f"ALTER TABLE cash_flow_entries {actions}".encode())
                connection.execute(write, (1,))
                started = time.perf_counter()
                for case in range(1, 51):
                    connection.execute(write, (case,))
                spent[traced] = time.perf_counter() - started
            ratios.append(spent[True] / spent[False])
        actions = ", ".join(f"ENABLE ALWAYS TRIGGER {quote_identifier(name)}" for name in names)
        connection.execute(f"ALTER TABLE cash_flow_entries {actions}".encode())
        connection.execute("UPDATE mozart.view_state SET recompute_reason = 'triggers were off in the benchmark'")
    overhead = statistics.median(ratios)
    print(f"write overhead {overhead:.3f} (a durable one-row {what} takes {spent[False] * 20:.2f} ms without triggers)")
    return overhead


def _event_figures() -> dict[str, float]:
    """Relay, burst and event to fresh, from the module that knows the events' side."""
    if importlib.util.find_spec("benchmarks.olap_events") is None:
        print("benchmarks.olap_events is missing: no figures of events")
        return {}
    from benchmarks import olap_events

    return dict(olap_events.event_figures())


def _figures(facts: Mapping[str, Fact], scale: float) -> dict[str, float]:
    """Figures of the fact whose CONCURRENTLY is slower; the readers' waits are the worse of both."""
    slower = max(facts.values(), key=lambda fact: fact.concurrently)
    return {
        "scale": scale,
        "speedup_1": slower.concurrently / slower.incremental[1],
        "speedup_100": slower.concurrently / slower.incremental[100],
        "speedup_10k": slower.concurrently / slower.incremental[10_000],
        "incremental_1_ms": slower.incremental[1] * 1000,
        "concurrently_s": slower.concurrently,
        "plain_s": slower.plain,
        "reader_wait_ms": max(fact.wait_incremental for fact in facts.values()),
        "reader_wait_concurrently_ms": max(fact.wait_concurrently for fact in facts.values()),
    }


def _timed(what: str, action: Callable[[], T]) -> T:
    started = time.perf_counter()
    value = action()
    print(f"{what}: {time.perf_counter() - started:.1f} s", flush=True)
    return value


def _rival(view: View) -> str:
    return quote_qualified("rival", view.name)


if __name__ == "__main__":
    main()
