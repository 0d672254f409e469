"""Who may refresh when, and what is left of every attempt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from olap_case import FACTS, Olap, held_lock

from mozart.errors import ConfigurationError, DataQualityError, MozartError
from mozart.olap import refresh
from mozart.olap.database import Connection
from mozart.olap.install import install
from mozart.olap.refresh import ANSWERED, IN_PROGRESS, PAUSED, TOO_RECENT, SyncResult, refresh_view
from mozart.olap.state import (
    close_killed_attempts,
    due_views,
    mark_dirty,
    pause_view,
    prune_change_log,
    prune_history,
    read_history,
    read_states,
    resume_view,
)


def due(olap: Olap, *, after_seconds: float = 0) -> dict[str, str]:
    with closing(olap.database.connect()) as connection:
        moment = datetime.now(UTC) + timedelta(seconds=after_seconds)
        return {view.name: view.reason for view in due_views(connection, olap.registry, moment)}


def test_too_recent_is_skipped_and_comes_back(olap: Olap) -> None:
    result = olap.refresh("dim_org")
    assert (result.status, result.reason) == ("skipped", TOO_RECENT)
    assert due(olap) == {}
    assert due(olap, after_seconds=301) == {"dim_org": f"skipped: {TOO_RECENT}"}
    assert olap.refresh("dim_org", force=True).status == "completed"
    assert due(olap, after_seconds=301) == {}


def test_interval_counts_from_any_success_of_the_view(olap: Olap) -> None:
    olap.execute("UPDATE mozart.view_state SET last_refreshed_at = now() - interval '301 seconds'")
    assert olap.refresh("dim_org").status == "completed"
    assert olap.refresh("dim_org", "event").reason == TOO_RECENT
    assert olap.refresh("dim_org", "full").status == "completed"


def test_a_late_request_is_answered_by_the_refresh_that_came_first_unless_more_changed(olap: Olap) -> None:
    def late() -> SyncResult:
        return refresh_view(olap.database, olap.registry, "mv_cashflow_fact", kind="event", asked_at=asked_at)

    asked_at = olap.one("SELECT clock_timestamp()")
    assert late().status == "completed", "nobody was there since"
    assert late().reason == ANSWERED and not due(olap), "and nothing is to be done again"
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE entry_id = 1")
    assert late().status == "completed" and olap.is_exact("mv_cashflow_fact")
    with closing(olap.database.connect()) as connection:
        mark_dirty(connection, "mv_cashflow_fact", reason="somebody")
    assert late().status == "completed"
    asked_at = olap.one("SELECT clock_timestamp()")
    assert late().status == "completed", "what is asked for after a refresh is not answered by it"


def test_held_view_is_skipped_and_no_request_is_lost(olap: Olap) -> None:
    with held_lock(olap, "mv_cashflow_fact"):
        result = olap.refresh("mv_cashflow_fact", force=True)
        assert (result.status, result.reason) == ("skipped", IN_PROGRESS)
    assert due(olap) == {"mv_cashflow_fact": f"skipped: {IN_PROGRESS}"}
    assert olap.refresh("mv_cashflow_fact", "sweep").status == "completed"
    assert due(olap) == {}


def test_paused_view_is_skipped_even_by_force(olap: Olap) -> None:
    with closing(olap.database.connect()) as connection:
        pause_view(connection, "mv_cashflow_fact", reason="closing")
        assert olap.refresh("mv_cashflow_fact", force=True).reason == PAUSED
        assert due(olap) == {}
        resume_view(connection, "mv_cashflow_fact")
    assert due(olap) == {"mv_cashflow_fact": f"skipped: {PAUSED}"}


def test_change_that_no_event_told_of_is_due_after_the_longest_debounce(olap: Olap) -> None:
    olap.execute(
        "INSERT INTO cash_flow_entries (case_id, flow_type, category, amount, entry_date)"
        " VALUES (1, 'in', 'fee', 1, '2024-01-01')"
    )
    assert due(olap) == {}
    assert set(due(olap, after_seconds=61)) == {"mv_cashflow_fact"}
    with closing(olap.database.connect()) as connection:
        states = {state.name: state for state in read_states(connection)}
    assert states["mv_cashflow_fact"].lag_seconds is not None and states["mv_cashflow_fact"].lag_seconds < 30
    assert states["mv_business_fact"].lag_seconds is None
    result = olap.refresh("mv_cashflow_fact")
    assert result.lag_seconds is not None and result.changed_rows == 1


def test_mark_of_a_moment_when_a_refresh_runs_survives_it(olap: Olap) -> None:
    """A mark that the refresh's snapshot does not see asks for what it did not read."""
    with closing(olap.database.connect()) as late:
        late.autocommit = False
        mark_dirty(late, "mv_cashflow_fact", reason="late")
        assert olap.refresh("mv_cashflow_fact").status == "completed"
        late.commit()
    assert due(olap) == {"mv_cashflow_fact": "late"}


def test_stale_dimension_is_refreshed_first(olap: Olap) -> None:
    olap.execute("UPDATE organisations SET name = 'Renamed' WHERE org_id = 3")
    olap.refresh("mv_cashflow_fact")
    with closing(olap.database.connect()) as connection:
        newest = read_history(connection, limit=2)
    assert [(each.view, each.reason) for each in newest] == [
        ("mv_cashflow_fact", None),
        ("dim_org", "stale before mv_cashflow_fact"),
    ]
    assert olap.one("SELECT name FROM axiom_vision.dim_org WHERE org_id = 3") == "Renamed"


def test_a_fact_whose_dimension_fails_says_so_itself_and_stays_due(olap: Olap) -> None:
    olap.execute("UPDATE organisations SET name = 'Renamed' WHERE org_id = 3")
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE entry_id = 1")
    olap.execute("ALTER MATERIALIZED VIEW axiom_vision.dim_org RENAME TO dim_org_away")
    with pytest.raises(MozartError, match="dim_org"):
        olap.refresh("mv_cashflow_fact")
    with closing(olap.database.connect()) as connection:
        (attempt,) = read_history(connection, view="mv_cashflow_fact", limit=1)
        assert next(state for state in read_states(connection) if state.name == "mv_cashflow_fact").is_stale
    assert attempt.status == "failed" and attempt.reason and "dim_org failed" in attempt.reason


def test_old_history_is_pruned_and_the_newest_of_each_kind_is_kept(olap: Olap) -> None:
    for _ in range(3):
        olap.refresh("mv_cashflow_fact", force=True)
    olap.execute("UPDATE mozart.refresh_history SET started_at = started_at - interval '100 days'")
    olap.refresh("mv_cashflow_fact", force=True)
    kept = "SELECT count(*) FROM mozart.refresh_history WHERE view = 'mv_cashflow_fact' AND kind = 'incremental'"
    with closing(olap.database.connect()) as connection:
        assert prune_history(connection, days=101) == 0
        assert prune_history(connection) >= 3
    assert olap.one(kept) == 1


def test_duplicate_keys_fail_the_attempt_and_keep_the_view(olap: Olap) -> None:
    view = olap.registry.get("dim_org")
    olap.execute("ALTER TABLE organisations DROP CONSTRAINT organisations_pkey CASCADE")
    olap.execute("UPDATE organisations SET org_id = 1 WHERE org_id = 2")
    with pytest.raises(DataQualityError, match="dim_org"):
        olap.refresh(view.name, force=True)
    assert olap.one("SELECT count(*) FROM axiom_vision.dim_org") == 50
    with closing(olap.database.connect()) as connection:
        assert read_history(connection, view="dim_org", limit=1)[0].status == "failed"


def test_every_attempt_is_in_the_history(olap: Olap) -> None:
    olap.refresh("mv_cashflow_fact")
    olap.refresh("dim_org")
    with closing(olap.database.connect()) as connection:
        history = read_history(connection, limit=2)
    assert [(each.view, each.kind, each.status) for each in history] == [
        ("dim_org", "incremental", "skipped"),
        ("mv_cashflow_fact", "incremental", "completed"),
    ]
    done = history[1]
    assert done.rows and done.changed_rows == 0 and done.generation == 2 and done.duration_seconds is not None


def test_killed_attempt_is_closed_and_due_but_a_running_one_is_not(olap: Olap) -> None:
    for view in FACTS:
        olap.execute(
            "INSERT INTO mozart.refresh_history (view, kind, strategy, started_at)"
            " VALUES (%s, 'event', 'incremental', now() - interval '1 minute')",
            (view,),
        )
    with held_lock(olap, "mv_business_fact"), closing(olap.database.connect()) as connection:
        closed = close_killed_attempts(connection)
    assert [(each.view, each.status) for each in closed] == [("mv_cashflow_fact", "killed")]
    assert due(olap) == {"mv_cashflow_fact": "a refresh was killed"}


def test_view_that_is_not_installed_says_so(sample: Olap) -> None:
    with pytest.raises(ConfigurationError, match="mozart olap install"):
        sample.refresh("mv_cashflow_fact")


def test_edited_folder_says_that_it_is_not_installed(olap: Olap) -> None:
    olap.change("mv_cashflow_fact", sql=olap.registry.get("mv_cashflow_fact").sql + " WHERE e.amount > 5")
    with pytest.raises(ConfigurationError, match="differs from what is installed"):
        olap.refresh("mv_cashflow_fact")
    install(olap.database, olap.registry)
    assert olap.refresh("mv_cashflow_fact").status == "completed" and olap.is_exact("mv_cashflow_fact")


def test_change_log_is_pruned_to_what_some_view_still_needs(olap: Olap) -> None:
    olap.execute("UPDATE cases SET org_id = 1 + org_id % 50 WHERE case_id < 20")
    with closing(olap.database.connect()) as connection:
        olap.refresh("mv_business_fact")
        assert prune_change_log(connection) == 0
        for view in olap.registry.views:
            olap.refresh(view.name, force=True)
        assert prune_change_log(connection) == 19, "one row for each case, though before and after differ"
    assert olap.verify("mv_business_fact") and olap.verify("mv_cashflow_fact")


def _intervals(lines: Iterator[str], what: str) -> list[tuple[float, float]]:
    """Begin and end, in seconds, of every logged statement that contains `what`."""
    found: list[tuple[float, float]] = []
    for line in lines:
        head, _, rest = line.partition(" UTC ")
        if what in rest and "duration: " in rest:
            spent = float(rest.split("duration: ")[1].split(" ms")[0]) / 1000
            end = datetime.fromisoformat(head).timestamp()
            found.append((end - spent, end))
    return sorted(found)


def test_one_view_is_never_refreshed_twice_at_once(olap: Olap, server_log: Callable[[], Iterator[str]]) -> None:
    """Eight askers of every kind, twelve rounds: one at a time by the server's own log, and nobody is forgotten."""
    olap.use("refresh", "mv_cashflow_fact")
    kinds = ("full", "incremental", "event", "sweep") * 24
    with ThreadPoolExecutor(8) as askers:
        results = list(askers.map(lambda kind: olap.refresh("mv_cashflow_fact", kind, force=True), kinds))
    completed = [result for result in results if result.status == "completed"]
    skipped = [result for result in results if result.status == "skipped"]
    assert skipped and {result.reason for result in skipped} == {IN_PROGRESS}
    statements = _intervals(server_log(), "REFRESH MATERIALIZED VIEW CONCURRENTLY")
    assert len(statements) == len(completed)
    overlaps = [pair for pair in itertools.pairwise(statements) if pair[0][1] > pair[1][0] + 0.001]
    assert not overlaps
    generations = [result.generation for result in completed]
    assert len(set(generations)) == len(generations)
    last_skip = max(result.finished_at for result in skipped)
    last_done = max(result.finished_at for result in completed)
    assert last_done > last_skip or due(olap) == {"mv_cashflow_fact": f"skipped: {IN_PROGRESS}"}


def test_a_populated_view_is_only_ever_refreshed_concurrently(
    olap: Olap, server_log: Callable[[], Iterator[str]]
) -> None:
    olap.use("refresh", *FACTS)
    for view in olap.registry.views:
        olap.refresh(view.name, "full")
        olap.refresh(view.name, force=True)
    olap.execute("UPDATE organisations SET name = 'x' WHERE org_id = 1")
    olap.refresh("mv_business_fact", "event")
    olap.use("incremental", *FACTS)
    olap.refresh("mv_business_fact", "full")
    refreshes = [line for line in server_log() if "REFRESH MATERIALIZED VIEW" in line]
    assert len(refreshes) == 14
    assert all("REFRESH MATERIALIZED VIEW CONCURRENTLY" in line for line in refreshes)


def test_decision_is_never_made_on_what_was_true_before_the_lock(
    olap: Olap, server_log: Callable[[], Iterator[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another refresh commits between the snapshot and the lock: the view is too recent, and not computed again."""
    olap.use("refresh", "mv_cashflow_fact")
    olap.change("mv_cashflow_fact", min_interval_seconds=300.0)
    olap.execute("UPDATE mozart.view_state SET last_refreshed_at = now() - interval '1 hour'")
    take_lock = refresh.try_lock

    def let_another_pass(connection: Connection, view: str) -> bool:
        connection.execute("SELECT 1")
        monkeypatch.setattr(refresh, "try_lock", take_lock)
        assert olap.refresh("mv_cashflow_fact").status == "completed"
        return take_lock(connection, view)

    monkeypatch.setattr(refresh, "try_lock", let_another_pass)
    assert olap.refresh("mv_cashflow_fact").reason == TOO_RECENT
    assert len([line for line in server_log() if "REFRESH MATERIALIZED VIEW CONCURRENTLY" in line]) == 1
