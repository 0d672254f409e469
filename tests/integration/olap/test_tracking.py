"""Whatever changes the OLTP tables, the next refresh makes the view exact; what does not matter is not logged."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from olap_case import FACTS, Olap

from mozart.errors import DataQualityError
from mozart.olap.install import install
from mozart.olap.view_sql import apply_changes

CHANGES = {
    "insert": "INSERT INTO cash_flow_entries (case_id, flow_type, category, amount, entry_date)"
    " SELECT case_id, 'in', 'fee', 12.34, date '2024-02-03' FROM cases WHERE case_id <= 3",
    "delete": "DELETE FROM cash_flow_entries WHERE case_id <= 20",
    "update": "UPDATE cash_flow_entries SET amount = amount + 1.5, is_final = NOT is_final WHERE case_id <= 20",
    "key of a group moves": "UPDATE cases SET org_id = 1 + org_id % 50, opened_at = opened_at + interval '40 days'"
    " WHERE case_id <= 30",
    "row moves to another case": "UPDATE cash_flow_entries SET case_id = case_id + 5 WHERE case_id <= 10",
    "child moves": "UPDATE stakeholders SET case_id = 1 + case_id % 300, stk_type_id = 1 + stk_type_id % 6"
    " WHERE stakeholder_id <= 100",
    "case without children": "INSERT INTO cases (reference, case_type_id, org_id, title, amount)"
    " VALUES ('AX-alone', 1, 1, 'alone', 1)",
    "all of a case": "DELETE FROM case_user_roles WHERE case_id = 7; DELETE FROM cash_flow_entries WHERE case_id = 7;"
    " DELETE FROM assets WHERE case_id = 7; DELETE FROM performance_records WHERE case_id = 7;"
    " DELETE FROM stakeholders WHERE case_id = 7; DELETE FROM cases WHERE case_id = 7",
    "null measures": "UPDATE stakeholders SET claim_amount = NULL, admitted_at = NULL WHERE case_id <= 40",
    "merge": "MERGE INTO cash_flow_entries t USING (SELECT entry_id FROM cash_flow_entries WHERE case_id <= 30) s"
    " ON t.entry_id = s.entry_id WHEN MATCHED AND t.entry_id % 3 = 0 THEN DELETE"
    " WHEN MATCHED THEN UPDATE SET amount = t.amount * 2",
    "upsert": "INSERT INTO assets (asset_id, case_id, asset_class, description, value)"
    " SELECT asset_id, case_id, 'IP', 'x', 1 FROM assets WHERE asset_id <= 9"
    " ON CONFLICT (asset_id) DO UPDATE SET value = assets.value + excluded.value",
    "truncate": "TRUNCATE performance_records",
    "truncate of several": "TRUNCATE cash_flow_entries, case_user_roles",
    "nothing": "UPDATE cash_flow_entries SET amount = amount WHERE false",
}


def test_every_change_arrives(olap: Olap) -> None:
    """One after the other in one database, so that each also starts from what the ones before left."""
    for name, statement in CHANGES.items():
        olap.execute(statement)
        for view in FACTS:
            result = olap.refresh(view)
            assert result.status == "completed"
            assert olap.is_exact(view), f"{view} after {name}"
            assert name.startswith("truncate") or result.reason is None, f"computed everything after {name}"


def test_copy_arrives(olap: Olap) -> None:
    with (
        closing(olap.database.connect()) as connection,
        connection.cursor().copy(
            "COPY cash_flow_entries (case_id, flow_type, category, amount, entry_date) FROM STDIN"
        ) as copy,
    ):
        for case in range(1, 200):
            copy.write_row((case, "out", "tax", "3.21", "2023-05-06"))
    result = olap.refresh("mv_cashflow_fact")
    assert result.changed_rows and olap.is_exact("mv_cashflow_fact")


def test_replication_role_does_not_hide_a_change(olap: Olap) -> None:
    with olap.superuser() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE cash_flow_entries SET amount = amount + 7 WHERE case_id = 3")
    assert not olap.is_exact("mv_cashflow_fact")
    result = olap.refresh("mv_cashflow_fact")
    assert result.reason is None and olap.is_exact("mv_cashflow_fact")


def test_writer_needs_no_right_on_the_log(olap: Olap) -> None:
    with olap.superuser() as connection:
        connection.execute("CREATE ROLE clerk_of_test")
        try:
            connection.execute("GRANT SELECT, UPDATE, DELETE ON cash_flow_entries TO clerk_of_test")
            connection.execute("SET ROLE clerk_of_test")
            connection.execute("UPDATE cash_flow_entries SET amount = amount + 7 WHERE case_id = 3")
            connection.execute("DELETE FROM cash_flow_entries WHERE case_id = 4")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM mozart.changed_key")
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP OWNED BY clerk_of_test")
            connection.execute("DROP ROLE clerk_of_test")
    assert olap.refresh("mv_cashflow_fact").changed_rows and olap.is_exact("mv_cashflow_fact")


def test_rolled_back_change_leaves_nothing(olap: Olap) -> None:
    with closing(olap.database.connect()) as connection, connection.transaction(force_rollback=True):
        connection.execute("UPDATE cases SET org_id = 2")
    assert olap.one("SELECT count(*) FROM mozart.changed_key") == 0


def test_update_of_columns_that_no_view_reads_is_not_logged(olap: Olap) -> None:
    olap.execute("UPDATE cases SET title = title || '!', risk_score = 0.5, attributes = '{}' WHERE case_id < 50")
    olap.execute("UPDATE cash_flow_entries SET memo = 'x', amount = amount WHERE case_id < 50")
    assert olap.one("SELECT count(*) FROM mozart.changed_key") == 0
    olap.execute("UPDATE cases SET status = 'open', closed_at = NULL WHERE status = 'closed'")
    assert olap.one("SELECT count(DISTINCT key) FROM mozart.changed_key") > 0


def test_values_exchanged_between_cases_are_seen(olap: Olap) -> None:
    olap.execute("UPDATE cash_flow_entries SET case_id = CASE case_id WHEN 1 THEN 2 ELSE 1 END WHERE case_id IN (1, 2)")
    olap.refresh("mv_cashflow_fact")
    assert olap.is_exact("mv_cashflow_fact")


def test_bulk_change_is_logged_up_to_its_bound_and_recomputed(olap: Olap) -> None:
    olap.execute("UPDATE mozart.tracked_source SET bulk_rows = 100")
    install(olap.database, olap.registry)
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1")
    assert olap.execute(
        "SELECT t.name, l.key FROM mozart.changed_key l JOIN mozart.tracked_source t ON t.id = l.source"
    ) == [("cash_flow_entries", None)]
    olap.execute(
        "INSERT INTO cash_flow_entries (case_id, flow_type, category, amount, entry_date)"
        " SELECT 1, 'in', 'fee', 1, '2024-01-01' FROM generate_series(1, 300)"
    )
    assert olap.one("SELECT count(*) FROM mozart.changed_key") == 102, "so many keys at most, and one"
    result = olap.refresh("mv_cashflow_fact")
    assert result.reason and "bulk" in result.reason and olap.is_exact("mv_cashflow_fact")
    olap.execute(
        "INSERT INTO cash_flow_entries (case_id, flow_type, category, amount, entry_date)"
        " SELECT 1, 'in', 'fee', 1, '2024-01-01' FROM generate_series(1, 300)"
    )
    result = olap.refresh("mv_cashflow_fact")
    assert result.reason and "bulk" in result.reason and olap.is_exact("mv_cashflow_fact")
    olap.change_log("DELETE FROM {}")
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE entry_id <= 90")
    assert olap.one("SELECT count(*) = count(DISTINCT key) FROM mozart.changed_key"), "90 rows are no bulk"
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1")
    result = olap.refresh("mv_cashflow_fact")
    assert result.reason and "bulk" in result.reason and olap.is_exact("mv_cashflow_fact")


def test_disabled_trigger_means_full(olap: Olap) -> None:
    trigger = olap.one("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'mozart_log_cash_flow_entries%%update'")
    olap.execute(f"ALTER TABLE cash_flow_entries DISABLE TRIGGER {trigger}")
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id < 9")
    result = olap.refresh("mv_cashflow_fact")
    assert result.reason and "tracking is off" in result.reason and olap.is_exact("mv_cashflow_fact")
    install(olap.database, olap.registry)
    assert olap.refresh("mv_cashflow_fact").reason is None


def test_change_of_the_schema_means_full(olap: Olap) -> None:
    for ddl in (
        "ALTER TABLE cash_flow_entries ALTER COLUMN amount TYPE numeric(16,2) USING amount * 2",
        "ALTER TABLE cash_flow_entries ALTER COLUMN amount TYPE numeric(16,2) USING amount + 1",
        "ALTER TABLE cash_flow_entries RENAME amount TO paid; ALTER TABLE cash_flow_entries ADD amount numeric(9,2)"
        " NOT NULL DEFAULT 3",
    ):
        olap.execute(ddl)
        result = olap.refresh("mv_cashflow_fact")
        assert result.reason and "rewritten or changed" in result.reason, ddl
        assert olap.is_exact("mv_cashflow_fact")
        assert olap.refresh("mv_cashflow_fact").reason is None


def test_another_server_means_full(olap: Olap) -> None:
    olap.execute("UPDATE mozart.view_state SET server_identity = 'elsewhere'")
    olap.change_log("DELETE FROM {}")
    result = olap.refresh("mv_cashflow_fact")
    assert result.reason and "another server" in result.reason
    assert olap.refresh("mv_cashflow_fact").reason is None


def test_many_changes_are_recomputed_when_that_was_learned_to_be_cheaper(olap: Olap) -> None:
    olap.execute("UPDATE mozart.view_state SET ms_per_key = 10, recompute_ms = 100")
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id <= 9")
    assert olap.refresh("mv_cashflow_fact").reason is None
    olap.execute("UPDATE mozart.view_state SET ms_per_key = 10, recompute_ms = 100")
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id <= 60")
    result = olap.refresh("mv_cashflow_fact")
    assert result.reason and "cost more" in result.reason and olap.is_exact("mv_cashflow_fact")


def test_what_a_batch_costs_is_learned(olap: Olap) -> None:
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id <= 300")
    assert olap.one("SELECT ms_per_key FROM mozart.view_state WHERE name = 'mv_cashflow_fact'") is None
    olap.refresh("mv_cashflow_fact")
    assert olap.one("SELECT ms_per_key FROM mozart.view_state WHERE name = 'mv_cashflow_fact'") > 0


def test_a_sum_that_is_no_number_is_refused_and_the_last_good_view_stays(olap: Olap) -> None:
    before = olap.execute("SELECT * FROM axiom_vision.mv_business_fact ORDER BY 1, 2, 3, 4")
    olap.execute("UPDATE assets SET value = 'NaN' WHERE case_id = 3 OR asset_id = 1")
    with pytest.raises(DataQualityError, match="mv_business_fact"):
        olap.refresh("mv_business_fact")
    assert olap.execute("SELECT * FROM axiom_vision.mv_business_fact ORDER BY 1, 2, 3, 4") == before
    olap.execute("UPDATE assets SET value = 1 WHERE value = 'NaN'")
    assert olap.refresh("mv_business_fact").status == "completed" and olap.is_exact("mv_business_fact")


def test_refresh_reads_only_what_changed(olap: Olap) -> None:
    """Every table is read by its index on the key, below GROUP BY too: no plan node reads a whole table."""
    with closing(olap.database.connect()) as connection, connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL search_path = public")
        connection.execute("SET LOCAL enable_seqscan = off")
        for view in FACTS:
            statement = apply_changes(olap.registry.get(view), "bigint").replace("%(keys)s", "'{1,2}'")
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {statement}".encode()).fetchall())
            for table in olap.registry.get(view).sources:
                assert f"Seq Scan on {table}" not in plan, plan
