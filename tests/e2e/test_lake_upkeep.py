"""Maintenance and the delete pass as their deployments run them: what they did shows on the run, and loads go on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.deployment import TENANT, Deployed, wait_until

pytestmark = pytest.mark.e2e


def run(deployed: Deployed, flow: str, **parameters: Any) -> tuple[str, str]:
    """A run of one of the tenant's maintenance deployments, to whatever end: its id and final type."""
    deployment = deployed.get(f"deployments/name/{flow}/{TENANT}")
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    started = str(deployed.post(f"deployments/{deployment['id']}/create_flow_run", body)["id"])
    return started, deployed.wait(started).type


def test_maintenance_compacts_and_the_next_load_is_incremental(deployed: Deployed) -> None:
    deployed.change_source(seed=901)
    deployed.complete()
    before = deployed.read_by_pyiceberg(f"{TENANT}_raw", "cases").num_rows
    started, end = run(deployed, "lake-maintenance", compact_all=True)
    assert end == "COMPLETED"
    rows = {row["table"]: row for row in deployed.rows_of(started, f"{TENANT}-maintenance")}
    assert rows[f"{TENANT}_raw.cases"]["compaction"] == "compacted"
    assert rows[f"{TENANT}_raw.cases"]["bytes_after"] > 0
    assert f"{TENANT}.mart_case" in rows
    steps = {f"compact {TENANT}_raw.cases", f"expire {TENANT}.mart_case", f"sweep {TENANT}"}
    # The server writes task runs some seconds after the run's own end.
    wait_until(lambda: steps <= set(deployed.tasks(started)), 60, f"{steps} are shown")
    assert deployed.read_by_duckdb(f"{TENANT}_raw", "cases").num_rows == before
    loads = {row["table"]: row for row in deployed.rows_of(deployed.complete(), f"{TENANT}-tables")}
    assert (loads["cases"]["mode"], loads["cases"]["status"]) == ("incremental", "unchanged")


def test_the_delete_pass_removes_what_is_gone_and_refuses_too_much(deployed: Deployed) -> None:
    with deployed.connect_source() as source:
        source.execute("CREATE TABLE kept AS SELECT * FROM cash_flow_entries WHERE entry_id % 3 = 0")
        source.execute("DELETE FROM cash_flow_entries WHERE entry_id % 3 = 0")
        source.commit()
    try:
        before = deployed.read_by_pyiceberg(f"{TENANT}_raw", "cash_flow_entries").num_rows
        refused, end = run(deployed, "lake-deletes", tables=["cash_flow_entries"])
        assert end == "FAILED" and "consent" in deployed.state(refused).message
        assert deployed.read_by_pyiceberg(f"{TENANT}_raw", "cash_flow_entries").num_rows == before
        done, end = run(deployed, "lake-deletes", tables=["cash_flow_entries"], consent=True)
        assert end == "COMPLETED"
        (row,) = deployed.rows_of(done, f"{TENANT}-deletes")
        with deployed.connect_source() as source:
            (left,) = source.execute("SELECT count(*) FROM cash_flow_entries").fetchall()[0]
        assert row["status"] == "removed" and before - row["rows_removed"] == left
        assert deployed.read_by_duckdb(f"{TENANT}_raw", "cash_flow_entries").num_rows == left
    finally:
        with deployed.connect_source() as source:
            source.execute("INSERT INTO cash_flow_entries OVERRIDING SYSTEM VALUE SELECT * FROM kept")
            source.execute("DROP TABLE kept")
            source.commit()
        deployed.complete(tables=["cash_flow_entries"], full_refresh=True)
