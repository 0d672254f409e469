"""The full sync's pieces: validation before anything, resuming what was killed, drift found and repaired, health."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from olap_case import FACTS, Olap, held_lock

from mozart.errors import ConfigurationError, DataQualityError, TransientError
from mozart.olap.full_sync import (
    begin_full_sync,
    has_unfinished_sync,
    record_full_sync,
    refresh_in_full_sync,
    validate_source,
)
from mozart.olap.health import get_sync_health
from mozart.olap.refresh import DONE_IN_SYNC
from mozart.olap.state import read_history


def sync_all(olap: Olap) -> dict[str, int | None]:
    report = validate_source(olap.database, olap.registry)
    sync = begin_full_sync(olap.database, report=report)
    drift = {
        view.name: refresh_in_full_sync(olap.database, olap.registry, sync.id, view.name).drift_rows
        for view in olap.registry.views
        if view.name not in sync.done
    }
    record_full_sync(olap.database, sync.id, status="completed")
    return drift


def test_sync_refreshes_all_and_finds_no_drift(olap: Olap) -> None:
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id < 30")
    drift = sync_all(olap)
    assert {name: drift[name] for name in FACTS} == dict.fromkeys(FACTS, 0)
    assert all(olap.is_exact(view.name) for view in olap.registry.views)
    assert sync_all(olap).keys() == drift.keys(), "a second sync is a sync of its own"


def test_drift_is_found_repaired_and_reported(olap: Olap) -> None:
    olap.execute("UPDATE axiom_vision.mv_cashflow_fact SET amount = amount + 1 WHERE time_id = 202301")
    wrong = olap.one("SELECT count(*) FROM axiom_vision.mv_cashflow_fact WHERE time_id = 202301")
    olap.execute("DELETE FROM axiom_vision.mv_cashflow_fact WHERE time_id = 202302")
    gone = olap.one(
        "SELECT count(*) FROM (SELECT DISTINCT c.case_type_id, c.org_id, e.flow_type FROM cash_flow_entries e"
        " JOIN cases c USING (case_id) WHERE date_trunc('month', e.entry_date) = date '2023-02-01') AS g"
    )
    assert wrong and gone and not olap.verify("mv_cashflow_fact")
    assert sync_all(olap)["mv_cashflow_fact"] == wrong + gone
    assert olap.verify("mv_cashflow_fact")
    with closing(olap.database.connect()) as connection:
        assert read_history(connection, view="mv_cashflow_fact", limit=1)[0].drift_rows == wrong + gone


def test_killed_sync_goes_on_without_repeating_or_skipping(olap: Olap) -> None:
    assert not has_unfinished_sync(olap.database)
    first = begin_full_sync(olap.database, run_id="killed")
    assert has_unfinished_sync(olap.database)
    for view in olap.registry.dimensions[:2]:
        refresh_in_full_sync(olap.database, olap.registry, first.id, view.name)
    second = begin_full_sync(olap.database, run_id="next")
    assert (second.id, second.resumed) == (first.id, True)
    assert second.done == {view.name for view in olap.registry.dimensions[:2]}
    results = [refresh_in_full_sync(olap.database, olap.registry, second.id, v.name) for v in olap.registry.views]
    assert [r.reason == DONE_IN_SYNC for r in results] == [v.name in second.done for v in olap.registry.views]
    record_full_sync(olap.database, second.id, status="completed")
    record_full_sync(olap.database, first.id, status="failed", reason="came late")
    assert olap.one("SELECT status FROM mozart.full_sync WHERE id = %s", (first.id,)) == "completed"
    assert not begin_full_sync(olap.database).resumed


def test_two_syncs_at_once_share_the_work(olap: Olap) -> None:
    with ThreadPoolExecutor(2) as schedulers:
        syncs = list(schedulers.map(lambda _: begin_full_sync(olap.database), range(2)))
        assert len({sync.id for sync in syncs}) == 1
        names = [view.name for view in olap.registry.views for _ in range(2)]
        results = list(
            schedulers.map(lambda n: refresh_in_full_sync(olap.database, olap.registry, syncs[0].id, n), names)
        )
    assert sorted(r.view for r in results if r.status == "completed") == sorted(v.name for v in olap.registry.views)


def test_view_that_is_held_too_long_is_worth_a_retry(olap: Olap) -> None:
    olap.change("mv_cashflow_fact", timeout_seconds=0.5)
    sync = begin_full_sync(olap.database)
    with held_lock(olap, "mv_cashflow_fact"), pytest.raises(TransientError, match="still being refreshed"):
        refresh_in_full_sync(olap.database, olap.registry, sync.id, "mv_cashflow_fact")
    assert refresh_in_full_sync(olap.database, olap.registry, sync.id, "mv_cashflow_fact").status == "completed"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("TRUNCATE organisations CASCADE", "organisations: 0 rows, below minimum_rows 1"),
        ("DELETE FROM cash_flow_entries WHERE entry_id % 4 <> 0", "cash_flow_entries: .* below minimum_share_of_last"),
        (
            "ALTER TABLE assets DROP CONSTRAINT assets_case_id_fkey; UPDATE assets SET case_id = -1 WHERE asset_id < 4",
            r"assets.case_id: \d of \d+ rows point to no cases.case_id",
        ),
    ],
)
def test_validation_refuses_damaged_tables(olap: Olap, damage: str, message: str) -> None:
    sync_all(olap)
    before = olap.execute("SELECT name, generation FROM mozart.view_state ORDER BY 1")
    olap.execute(damage)
    with pytest.raises(DataQualityError, match=message):
        validate_source(olap.database, olap.registry)
    assert olap.execute("SELECT name, generation FROM mozart.view_state ORDER BY 1") == before


def test_validation_names_missing_tables_and_columns(olap: Olap) -> None:
    olap.execute("DROP TABLE performance_records; ALTER TABLE assets DROP COLUMN case_id")
    with pytest.raises(ConfigurationError) as caught:
        validate_source(olap.database, olap.registry)
    assert "tables.performance_records" in str(caught.value) and "no column 'case_id'" in str(caught.value)


def test_health_follows_sync_lag_and_pause(olap: Olap) -> None:
    stale = get_sync_health(olap.database, olap.registry)
    assert stale.health == "stale" and "no full sync" in stale.problems[0]
    sync_all(olap)
    healthy = get_sync_health(olap.database, olap.registry)
    assert healthy.health == "healthy" and healthy.last_full_sync and healthy.last_incremental_sync is None
    assert {view.name: view.row_count for view in healthy.views}["dim_time"] == 600
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id = 1")
    olap.change_log("UPDATE {} SET changed_at = now() - interval '16 minutes'")
    lagging = get_sync_health(olap.database, olap.registry)
    assert lagging.health == "stale" and "mv_cashflow_fact lags by 9" in lagging.problems[0]
    olap.refresh("mv_cashflow_fact")
    assert get_sync_health(olap.database, olap.registry).health == "healthy"
    olap.execute("UPDATE mozart.full_sync SET finished_at = finished_at - interval '26 hours'")
    assert "more than 25 h ago" in get_sync_health(olap.database, olap.registry).problems[0]
