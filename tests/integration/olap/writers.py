"""Random business against Axiom Core, and refreshers that are killed: the harness of the exactness tests.

Runs in forked processes, so that a kill is a kill; they are forked from a process of the harness's own, for a fork of
a test session's many threads may hang. The seed decides what each writer does; the interleaving is the machine's. One
writer holds every transaction open for a while, so that transactions commit out of their order.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing

import psycopg
from olap_case import FACTS, Olap

from mozart.errors import MozartError
from mozart.olap import maintain
from mozart.olap.attempt import LockedState
from mozart.olap.database import Connection, OlapDatabase
from mozart.olap.model import View
from mozart.olap.state import prune_change_log

FORK = multiprocessing.get_context("fork")
_EXPECTED = (psycopg.errors.DeadlockDetected, psycopg.errors.ForeignKeyViolation, psycopg.errors.UniqueViolation)


def run_harness(olap: Olap, *, seed: int, seconds: float, refresher: str) -> int:
    """Writers at work for so long while refreshers are killed at random; returns how many were killed.

    `refresher` is the name of a function here that takes the case and a view.
    """
    request = pickle.dumps((olap.without_server(), seed, seconds, refresher))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__],
        input=request,
        env=environment,
        capture_output=True,
        timeout=seconds + 120,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr.decode()[-4000:]}"
    return int(done.stdout)


def main() -> None:
    """Read a request of `run_harness` from standard input, and print how many refreshers were killed."""
    olap, seed, seconds, name = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own parent's
    print(_run(olap, seed, seconds, globals()[name]))


def refresh_as_anybody(olap: Olap, view: str) -> None:
    """A refresh of any kind, and what the sweep does after it."""
    olap.refresh(view, secrets.choice(("incremental", "event", "sweep", "full")))  # type: ignore[arg-type]
    with closing(olap.database.connect()) as connection:
        prune_change_log(connection)


def refresh_by_time(olap: Olap, view: str) -> None:
    """A refresh whose cursor is a time."""
    maintain.read_changes = changed_since_the_last_refresh
    olap.refresh(view)


def changed_since_the_last_refresh(connection: Connection, view: View, state: LockedState) -> maintain.Changes:
    """The wrong cursor: what commits late has an earlier time than the last refresh."""
    row = connection.execute(
        "SELECT array_agg(DISTINCT l.key)::text, count(DISTINCT l.key)"
        " FROM mozart.changed_key l, mozart.tracked_source t, mozart.view_state s"
        " WHERE s.name = %s AND t.id = l.source AND t.name = ANY(s.sources) AND l.changed_at > s.last_refreshed_at",
        (view.name,),
    ).fetchone()
    keys, count = row or (None, 0)
    return maintain.Changes(str(keys or "{}"), int(count), is_unbounded=False)


def _run(olap: Olap, seed: int, seconds: float, refresher: Callable[[Olap, str], None]) -> int:
    chance = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
    until = time.monotonic() + seconds
    writers = [FORK.Process(target=_write, args=(olap.database, seed + n, until, n == 0)) for n in range(4)]
    tasks = [view for view in FACTS for _ in range(2)]
    refreshers = [FORK.Process(target=_refresh_for_ever, args=(refresher, olap, view)) for view in tasks]
    for process in (*writers, *refreshers):
        process.start()
    killed = 0
    try:
        while any(writer.is_alive() for writer in writers):
            writers[chance.randrange(len(writers))].join(chance.uniform(0.05, 0.5))
            victim = chance.randrange(len(refreshers))
            _kill(refreshers[victim])
            killed += 1
            refreshers[victim] = FORK.Process(target=_refresh_for_ever, args=(refresher, olap, tasks[victim]))
            refreshers[victim].start()
    finally:
        for process in refreshers:
            _kill(process)
        for writer in writers:
            writer.join(30)
    codes = [writer.exitcode for writer in writers]
    assert codes == [0] * len(writers), f"writers ended with {codes}"
    return killed


def _refresh_for_ever(refresher: Callable[[Olap, str], None], olap: Olap, view: str) -> None:
    while True:
        try:
            refresher(olap, view)
        except MozartError:
            continue


def _kill(process: multiprocessing.process.BaseProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def _write(database: OlapDatabase, seed: int, until: float, is_slow: bool) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
    with closing(database.connect()) as connection:
        while time.monotonic() < until:
            try:
                with connection.transaction(force_rollback=chance.random() < 0.1):
                    for _ in range(chance.randint(1, 4)):
                        chance.choice(_OPERATIONS)(connection, chance)
                    if is_slow or chance.random() < 0.1:
                        time.sleep(chance.uniform(0.05, 0.4))
            except _EXPECTED:
                continue


def _case(chance: random.Random) -> int:
    return chance.randint(1, 400)


def _pay(connection: Connection, chance: random.Random) -> None:
    connection.execute(
        "INSERT INTO cash_flow_entries (case_id, flow_type, category, amount, entry_date)"
        " SELECT case_id, %s::flow_type, 'fee', %s, date '2024-01-01' + %s FROM cases WHERE case_id = %s",
        (chance.choice(("in", "out")), chance.randint(1, 99999) / 100, chance.randint(0, 364), _case(chance)),
    )


def _cancel(connection: Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM cash_flow_entries WHERE case_id = %s AND entry_id %% 3 = 0", (_case(chance),))


def _move_entries(connection: Connection, chance: random.Random) -> None:
    connection.execute(
        "UPDATE cash_flow_entries SET case_id = %s, entry_date = entry_date + %s WHERE case_id = %s"
        " AND EXISTS (SELECT FROM cases WHERE case_id = %s)",
        ((target := _case(chance)), chance.randint(0, 40), _case(chance), target),
    )


def _move_cases(connection: Connection, chance: random.Random) -> None:
    first = _case(chance)
    connection.execute(
        "UPDATE cases SET org_id = %s, case_type_id = %s, opened_at = opened_at + interval '20 days'"
        " WHERE case_id BETWEEN %s AND %s",
        (chance.randint(1, 5), chance.randint(1, 4), first, first + chance.randint(0, 5)),
    )


def _register(connection: Connection, chance: random.Random) -> None:
    connection.execute(
        "INSERT INTO stakeholders (case_id, stk_type_id, party_no, is_organisation, name)"
        " SELECT case_id, %s, n, false, 'x' FROM cases, generate_series(1, 3) n WHERE case_id = %s",
        (chance.randint(1, 6), _case(chance)),
    )


def _unregister(connection: Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM stakeholders WHERE case_id = %s", (_case(chance),))


def _measure(connection: Connection, chance: random.Random) -> None:
    connection.execute(
        "INSERT INTO performance_records (case_id, metric, period_start, score)"
        " SELECT case_id, 'x', date '2024-01-01', %s FROM cases WHERE case_id = %s",
        (chance.randint(0, 100), _case(chance)),
    )
    connection.execute("UPDATE assets SET value = value + 1.25 WHERE case_id = %s", (_case(chance),))


def _open_and_withdraw(connection: Connection, chance: random.Random) -> None:
    connection.execute(
        "INSERT INTO cases (reference, case_type_id, org_id, title, amount)"
        " VALUES ('N-' || substr(gen_random_uuid()::text, 1, 16), 1, 1, 'new', 5)"
    )
    case = _case(chance)
    for table in ("case_user_roles", "cash_flow_entries", "assets", "performance_records", "stakeholders", "cases"):
        connection.execute(f"DELETE FROM {table} WHERE case_id = %s".encode(), (case,))


def _bulk(connection: Connection, chance: random.Random) -> None:
    with connection.cursor().copy("COPY case_user_roles (case_id, user_id, role) FROM STDIN") as copy:
        case = _case(chance)
        for _ in range(5):
            copy.write_row((case, 10_000_000 + chance.randrange(10**8), "bulk"))


_OPERATIONS: tuple[Callable[[Connection, random.Random], None], ...] = (
    *(_pay, _pay, _pay, _cancel, _move_entries, _move_cases),
    *(_register, _unregister, _measure, _bulk, _open_and_withdraw),
)


if __name__ == "__main__":
    main()
