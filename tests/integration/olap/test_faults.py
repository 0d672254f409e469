"""Deaths in the middle of a refresh: nothing half done, nothing held, the next refresh exact."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
from olap_case import FACTS, Olap

from mozart.errors import MozartError, TransientError
from mozart.olap import maintain, refresh, relation
from mozart.olap.attempt import LockedState, Work
from mozart.olap.database import Connection
from mozart.olap.install import install
from mozart.olap.model import View
from mozart.olap.state import close_killed_attempts, due_views, read_history
from mozart.services.ports import find_free_ports

FORK = multiprocessing.get_context("fork")


def _change(olap: Olap) -> None:
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1.5 WHERE case_id <= 50")


def _slow_refresh(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a refresh do its work and then stay in its transaction, inside a query."""
    apply = maintain._apply

    def apply_and_stay(connection: Connection, view: View, state: LockedState, changes: maintain.Changes) -> Work:
        work = apply(connection, view, state, changes)
        connection.execute("SELECT pg_sleep(60)")
        return work

    monkeypatch.setattr(maintain, "_apply", apply_and_stay)


def _wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def _sleeping(olap: Olap) -> list[int]:
    found = olap.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%%'"
        " AND state = 'active'"
    )
    return [int(pid) for (pid,) in found]


def _assert_recovers(olap: Olap, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view is as it was, the death is in the history, the request is due, and a refresh makes it exact."""
    monkeypatch.undo()
    assert not olap.is_exact("mv_cashflow_fact")
    with closing(olap.database.connect()) as connection:
        close_killed_attempts(connection, older_than_seconds=0)
        assert read_history(connection, view="mv_cashflow_fact", limit=1)[0].status == status
        if status == "killed":
            assert [due.name for due in due_views(connection, olap.registry)] == ["mv_cashflow_fact"]
    assert olap.refresh("mv_cashflow_fact").status == "completed"
    assert olap.is_exact("mv_cashflow_fact")


@pytest.mark.faults
def test_killed_client(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(olap)
    _slow_refresh(olap, monkeypatch)
    process = FORK.Process(target=olap.refresh, args=("mv_cashflow_fact",))
    process.start()
    _wait_for(lambda: _sleeping(olap), "the refresh is at work")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    _wait_for(lambda: not _sleeping(olap), "the server notices that its client is gone")
    _assert_recovers(olap, "killed", monkeypatch)


@pytest.mark.faults
def test_killed_backend(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(olap)
    _slow_refresh(olap, monkeypatch)
    with ThreadPoolExecutor(1) as one:
        future = one.submit(olap.refresh, "mv_cashflow_fact")
        _wait_for(lambda: _sleeping(olap), "the refresh is at work")
        olap.execute("SELECT pg_terminate_backend(%s)", (_sleeping(olap)[0],))
        with pytest.raises(TransientError, match="mv_cashflow_fact"):
            future.result(20)
    _assert_recovers(olap, "failed", monkeypatch)


@pytest.mark.faults
def test_restarted_server(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(olap)
    _slow_refresh(olap, monkeypatch)
    with ThreadPoolExecutor(1) as one:
        future = one.submit(olap.refresh, "mv_cashflow_fact")
        _wait_for(lambda: _sleeping(olap), "the refresh is at work")
        olap.server.stop()
        with pytest.raises(MozartError):
            future.result(20)
    olap.server.start()
    _assert_recovers(olap, "killed", monkeypatch)
    assert olap.refresh("mv_cashflow_fact").reason is None, "a restart is no other server"


@pytest.mark.faults
def test_commit_whose_answer_is_lost_counts_as_done(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection dies after the commit: the history says so, and nobody is told of a failure."""
    _change(olap)
    transact = refresh._transact

    def commit_and_die(*args: object) -> object:
        transact(*args)  # type: ignore[arg-type]
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(refresh, "_transact", commit_and_die)
    result = olap.refresh("mv_cashflow_fact")
    assert result.status == "completed" and result.changed_rows and olap.is_exact("mv_cashflow_fact")


@pytest.mark.faults
def test_install_killed_before_the_exchange_leaves_the_old_view(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(relation, "exchange", die)
    process = FORK.Process(target=olap.use, args=("refresh", "mv_business_fact"))
    process.start()
    process.join(30)
    monkeypatch.undo()
    assert process.exitcode == -signal.SIGKILL
    assert olap.refresh("mv_business_fact").status == "completed" and olap.is_exact("mv_business_fact")
    olap.use("refresh", "mv_business_fact")
    assert olap.is_exact("mv_business_fact")


@pytest.fixture
def pooled(olap: Olap, tmp_path: Path) -> Iterator[Olap]:
    """The same database through PgBouncer in transaction mode, with one server connection for two clients."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer): the transaction pooler was NOT tested")
    port = find_free_ports(1)[0]
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if os.access(folder, os.W_OK) and "pytest" in str(folder):
            folder.chmod(0o755)
    database = olap.database
    (tmp_path / "users").write_text(f'"{database.username}" "{database.password.get_secret_value()}"\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n{database.database} = host=127.0.0.1 port={database.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\n"
        f"auth_file = {tmp_path / 'users'}\npool_mode = transaction\ndefault_pool_size = 2\n"
    )
    command = [program, *(["-u", "nobody"] if os.geteuid() == 0 else []), str(tmp_path / "pgbouncer.ini")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    olap.database = database.model_copy(update={"port": port, "sslmode": "disable"})
    try:
        _wait_for(lambda: _answers(olap, process), "PgBouncer answers")
        yield olap
    finally:
        process.kill()
        process.wait(10)


def _answers(olap: Olap, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "PgBouncer ended"
    try:
        return bool(olap.one("SELECT 1"))
    except MozartError:
        return False


@pytest.mark.faults
def test_transaction_pooler_between(pooled: Olap) -> None:
    """More askers than server connections, every kind of work: nothing leaks from one client's session to another's."""
    for view in FACTS:
        pooled.execute("UPDATE cases SET org_id = 1 + org_id % 50 WHERE case_id < 50")
        with ThreadPoolExecutor(6) as askers:
            results = list(askers.map(partial(pooled.refresh, view), ("event", "sweep", "full") * 4))
        assert {result.status for result in results} <= {"completed", "skipped"}
        assert pooled.is_exact(view)
    pooled.use("refresh", "mv_business_fact")
    assert pooled.refresh("mv_business_fact", force=True).status == "completed"
    assert pooled.verify("mv_business_fact")
    assert pooled.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert pooled.one("SHOW timezone") == "UTC" and pooled.one("SHOW work_mem") == "4MB"
    assert set(install(pooled.database, pooled.registry).views.values()) == {"unchanged"}
