"""Exact under random writers and killed refreshers; and the same harness catches a cursor that is a time."""

from __future__ import annotations

import secrets
from contextlib import closing

import pytest
from olap_case import FACTS, Olap
from writers import run_harness

from mozart.olap import maintain
from mozart.olap.attempt import LockedState
from mozart.olap.database import Connection
from mozart.olap.model import View
from mozart.olap.state import close_killed_attempts, prune_change_log, read_history


def _refresh(olap: Olap, view: str) -> None:
    kind = secrets.choice(("incremental", "event", "sweep", "full"))
    olap.refresh(view, kind)  # type: ignore[arg-type]
    with closing(olap.database.connect()) as connection:
        prune_change_log(connection)


@pytest.mark.faults
def test_views_are_exact_after_writers_and_killed_refreshers(olap: Olap) -> None:
    seed = secrets.randbelow(10**6)
    killed = run_harness(olap, seed=seed, seconds=15, refresher=_refresh)
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
        assert connection.execute("SELECT count(*) FROM mozart.change_log").fetchone() == (0,)


@pytest.mark.faults
def test_the_harness_catches_a_cursor_that_is_a_time(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 'changed since the last refresh' as the cursor, what commits late is lost, and the comparison sees it."""

    def changed_since(connection: Connection, view: View, state: LockedState) -> maintain.Changes:
        row = connection.execute(
            "SELECT array_agg(DISTINCT l.key)::text, count(DISTINCT l.key)"
            " FROM mozart.change_log l, mozart.view_state s"
            " WHERE s.name = %s AND l.source = ANY(s.sources) AND l.changed_at > s.last_refreshed_at",
            (view.name,),
        ).fetchone()
        keys, count = row or (None, 0)
        return maintain.Changes(str(keys or "{}"), int(count), is_unbounded=False)

    def refresh(case: Olap, view: str) -> None:
        case.refresh(view)

    monkeypatch.setattr(maintain, "read_changes", changed_since)
    seed = secrets.randbelow(10**6)
    run_harness(olap, seed=seed, seconds=5, refresher=refresh)
    for view in FACTS:
        olap.refresh(view)
    print(f"seed {seed}")
    assert not all(olap.is_exact(view) for view in FACTS), f"the harness is too tame; seed {seed}"
