"""A source that goes away in the middle of a read, and comes back; and a client whose disk is full."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from mozart.errors import TransientError
from mozart.services.postgres import Postgres
from tests.faults.world import World


@pytest.mark.parametrize("full_refresh", [False, True], ids=["incremental", "full refresh"])
def test_the_source_restarts_in_the_middle_of_a_read(loaded: World, postgres: Postgres, full_refresh: bool) -> None:
    """The load fails with an error that is worth a retry; the next one is exact, and no full refresh by itself."""
    loaded.tally.cases += 1
    loaded.change(1000)
    with ThreadPoolExecutor() as pool:
        locking = loaded.connect(autocommit=False)
        locking.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        run = pool.submit(loaded.run_disturbed, options={"full_refresh": full_refresh})
        loaded.wait_until_somebody_waits()
        postgres.stop()
        postgres.start()
        loaded.tally.faults["source: restarted in mid-read"] += 1
        error = run.result(60)
    locking.close()
    assert isinstance(error, TransientError), error
    loaded.source = loaded.connect()
    loaded.check()
    assert loaded.load_exactly().mode == "incremental"


def test_one_session_of_the_source_is_ended_in_the_middle_of_a_read(loaded: World) -> None:
    loaded.tally.cases += 1
    loaded.change(1000)
    with ThreadPoolExecutor() as pool, loaded.connect(autocommit=False) as locking:
        locking.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        run = pool.submit(loaded.run_disturbed)
        loaded.wait_until_somebody_waits()
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        loaded.write(ended)
        loaded.tally.faults["source: session ended in mid-read"] += 1
        error = run.result(60)
        locking.rollback()
    assert isinstance(error, TransientError), error
    loaded.check()
    loaded.load_exactly()


@pytest.mark.parametrize("full_refresh", [False, True], ids=["incremental", "full refresh"])
def test_the_disk_for_spilled_rows_is_full(loaded: World, full_refresh: bool) -> None:
    """No file of this process may grow beyond 64 kB while a load needs more than its memory: it fails, raw stays."""
    loaded.tally.cases += 1
    loaded.write(
        "INSERT INTO orders SELECT g, 1, repeat(md5(g::text), 400) FROM generate_series(1000, 5400) g",
    )
    before = loaded.head().snapshot_id
    with files_of_at_most(64 * 1024):
        result = loaded.run_disturbed(memory="40MB", options={"full_refresh": full_refresh})
    loaded.tally.faults["client: disk full"] += 1
    if isinstance(result, Exception):
        assert isinstance(result, TransientError), result
        assert loaded.head().snapshot_id == before
    else:
        assert full_refresh, "an incremental load of 55 MB needs more than 40 MB, and had no disk"
    loaded.check()
    loaded.load_exactly()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes: writes fail with EFBIG, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored: Callable[..., object] | int | None = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
