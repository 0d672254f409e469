"""Exact under random writers and killed refreshers; and the same harness catches a cursor that is a time."""

from __future__ import annotations

import secrets
from contextlib import closing

import pytest
from olap_case import FACTS, Olap
from writers import changed_since_the_last_refresh, run_harness

from mozart.olap import maintain
from mozart.olap.state import close_killed_attempts, prune_change_log, read_history


@pytest.mark.faults
def test_views_are_exact_after_writers_and_killed_refreshers(olap: Olap) -> None:
    seed = secrets.randbelow(10**6)
    killed = run_harness(olap, seed=seed, seconds=15, refresher="refresh_as_anybody")
    print(f"seed {seed}, {killed} refreshers killed")
    with closing(olap.database.connect()) as connection:
        closed = close_killed_attempts(connection, older_than_seconds=0)
        drift = [each.drift_rows for each in read_history(connection, limit=10**6) if each.drift_rows is not None]
        open_rows = [each for each in read_history(connection, limit=10**6) if each.status == "started"]
    assert killed > 5 and closed and not open_rows
    assert drift and not any(drift), f"a full sync found drift; seed {seed}"
    for view in FACTS:
        assert olap.refresh(view).status == "completed"
        assert olap.is_exact(view), f"{view} differs from its query; seed {seed}"
        counted = olap.one(f"SELECT count(*) FROM axiom_vision.{view}")
        assert olap.one("SELECT row_count FROM mozart.view_state WHERE name = %s", (view,)) == counted
        assert olap.refresh(view, "full").drift_rows == 0
    with closing(olap.database.connect()) as connection:
        for view in olap.registry.views:
            olap.refresh(view.name, force=True)
        prune_change_log(connection)
        assert connection.execute("SELECT count(*) FROM mozart.changed_key").fetchone() == (0,)


@pytest.mark.faults
def test_the_harness_catches_a_cursor_that_is_a_time(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 'changed since the last refresh' as the cursor, what commits late is lost, and the comparison sees it."""

    monkeypatch.setattr(maintain, "read_changes", changed_since_the_last_refresh)
    seed = secrets.randbelow(10**6)
    run_harness(olap, seed=seed, seconds=5, refresher="refresh_by_time")
    for view in FACTS:
        olap.refresh(view)
    print(f"seed {seed}")
    assert not all(olap.is_exact(view) for view in FACTS), f"the harness is too tame; seed {seed}"
