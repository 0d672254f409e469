"""The sweep: what is due is refreshed although nobody came, and nobody is disturbed who did."""

from __future__ import annotations

import pytest

from mozart.errors import TransientError
from mozart.olap import sweep as sweep_module
from mozart.olap.database import OlapDatabase
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import mark_dirty, pause_view, read_history
from mozart.olap.state_schema import log_of
from mozart.olap.sweep import Sweep
from tests.integration.olap_events.conftest import change, completed, state_of

VIEW = "mv_cashflow_fact"


def mark(database: OlapDatabase, reason: str, view: str = VIEW) -> None:
    with database.connect() as connection:
        mark_dirty(connection, view, reason=reason)


def test_nothing_due_nothing_done(olap: OlapDatabase, all_views: ViewRegistry) -> None:
    report = Sweep(olap, all_views).run_once()
    assert not report.refreshed and not report.failed and report.line == ""


def test_a_skipped_request_is_done_at_once_and_an_event_is_left_to_its_run(
    olap: OlapDatabase, all_views: ViewRegistry
) -> None:
    mark(olap, "events: 3", "mv_business_fact")
    mark(olap, "Too recent")
    sweep = Sweep(olap, all_views)
    report = sweep.run_once()
    assert [result.view for result in report.refreshed] == [VIEW] and report.left == ("mv_business_fact",)
    assert [result.view for result in sweep.run_once(patient=False).refreshed] == ["mv_business_fact"]


def test_changes_that_no_event_told_of_are_found(olap: OlapDatabase, all_views: ViewRegistry) -> None:
    change(olap, seed=11)
    with olap.connect() as connection:
        for (number,) in connection.execute("SELECT id FROM mozart.tracked_source").fetchall():
            connection.execute(f"UPDATE {log_of(number)} SET changed_at = changed_at - interval '1 hour'".encode())
    report = Sweep(olap, all_views).run_once()
    assert {result.view for result in report.refreshed} >= {VIEW, "mv_business_fact"}
    assert not state_of(olap, VIEW).is_stale
    assert {result.kind for result in report.refreshed} == {"sweep"}


def test_a_paused_view_is_left(olap: OlapDatabase, all_views: ViewRegistry) -> None:
    mark(olap, "asked")
    with olap.connect() as connection:
        pause_view(connection, VIEW)
    assert not Sweep(olap, all_views).run_once(patient=False).refreshed


def test_a_view_under_refresh_is_left_and_not_marked_again(olap: OlapDatabase, all_views: ViewRegistry) -> None:
    mark(olap, "asked")
    with olap.connect(autocommit=False) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('mv:' || %s, 0))", [VIEW])
        report = Sweep(olap, all_views).run_once()
        assert report.left == (VIEW,) and not report.refreshed
        other.rollback()
    with olap.connect() as connection:
        assert not [attempt for attempt in read_history(connection, view=VIEW) if attempt.status == "skipped"]
    assert [result.view for result in Sweep(olap, all_views).run_once().refreshed] == [VIEW]


@pytest.mark.faults
def test_killed_attempts_are_closed_and_done_again(olap: OlapDatabase, all_views: ViewRegistry) -> None:
    with olap.connect() as connection:
        connection.execute(
            "INSERT INTO mozart.refresh_history (view, kind, strategy, started_at)"
            " VALUES (%s, 'incremental', 'incremental', now() - interval '1 minute')",
            [VIEW],
        )
    before = completed(olap, VIEW)
    report = Sweep(olap, all_views).run_once()
    assert report.killed_attempts == 1 and completed(olap, VIEW) == before + 1
    with olap.connect() as connection:
        assert "killed" in {attempt.status for attempt in read_history(connection, view=VIEW)}


def test_a_failing_view_is_tried_less_and_less_often(
    olap: OlapDatabase, all_views: ViewRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise TransientError("the disk is full")

    mark(olap, "asked")
    monkeypatch.setattr(sweep_module, "refresh_view", fail)
    sweep = Sweep(olap, all_views)
    assert sweep.run_once().failed == {VIEW: "the disk is full"}
    assert sweep.run_once().left == (VIEW,), "not again at once"
    assert sweep.run_once(patient=False).failed, "unless a person asks"


@pytest.mark.faults
def test_a_lost_database_is_a_transient_error(olap: OlapDatabase, all_views: ViewRegistry) -> None:
    nowhere = olap.model_copy(update={"port": 1})
    with pytest.raises(TransientError):
        Sweep(nowhere, all_views).run_once()
