"""Install: idempotent, refusing with the cure, changing views under readers, and giving readers nothing but views."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import Any

import psycopg
import pytest
from olap_case import FACTS, Olap, with_view

from mozart.errors import ConfigurationError, TransientError
from mozart.olap import relation
from mozart.olap.install import check, install
from mozart.olap.model import Measure
from samples.axiom_schema import TABLES


def test_second_install_changes_nothing(olap: Olap) -> None:
    before = olap.execute(
        "SELECT oid, relname, relfilenode FROM pg_class WHERE relnamespace = 'axiom_vision'::regnamespace ORDER BY 1"
    )
    report = install(olap.database, olap.registry)
    assert set(report.views.values()) == {"unchanged"} and report.tracked == () and report.removed == ()
    after = olap.execute(
        "SELECT oid, relname, relfilenode FROM pg_class WHERE relnamespace = 'axiom_vision'::regnamespace ORDER BY 1"
    )
    assert before == after


def test_every_view_is_exact_and_has_its_unique_index(olap: Olap) -> None:
    for view in olap.registry.views:
        assert olap.is_exact(view.name)
        key = olap.one(
            "SELECT string_agg(a.attname, ',' ORDER BY array_position(i.indkey::int[], a.attnum::int))"
            " FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_attribute a ON a.attrelid = i.indrelid"
            " AND a.attnum = ANY(i.indkey) WHERE i.indisunique AND x.relname = %s",
            (view.index_name,),
        )
        assert key == ",".join(view.unique_key)
    assert {v.name: v.index_name for v in olap.registry.facts}["mv_business_fact"] == "idx_mv_business_fact_pk"


def test_reader_sees_the_views_and_nothing_else(olap: Olap) -> None:
    with olap.superuser() as connection:
        connection.execute("SET ROLE olap_reader")
        for view in olap.registry.views:
            row = connection.execute(f"SELECT count(*) FROM axiom_vision.{view.name}".encode()).fetchone()
            assert row and row[0] > 0
        others = [f"public.{table}" for table in TABLES]
        others += ["mozart.view_state", "mozart.changed_key", "mozart.contribution_mv_business_fact"]
        for table in others:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT 1 FROM {table}".encode())
        for statement in (
            "INSERT INTO axiom_vision.dim_org (org_id) VALUES (0)",
            "DELETE FROM axiom_vision.mv_business_fact",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(statement.encode())


def test_table_that_everybody_may_read_is_refused(olap: Olap) -> None:
    olap.execute("GRANT SELECT ON stakeholders TO PUBLIC")
    with pytest.raises(ConfigurationError, match=r"could read public\.stakeholders.*REVOKE SELECT"):
        install(olap.database, olap.registry)


def test_strategy_changes_either_way_and_grants_stay(olap: Olap) -> None:
    olap.execute("GRANT SELECT ON axiom_vision.mv_business_fact TO pg_monitor")
    kinds = "SELECT relkind::text FROM pg_class WHERE oid = 'axiom_vision.mv_business_fact'::regclass"
    columns = (
        "SELECT attname, atttypid, atttypmod FROM pg_attribute WHERE attnum > 0"
        " AND attrelid = 'axiom_vision.mv_business_fact'::regclass ORDER BY attnum"
    )
    shape = olap.execute(columns)
    for strategy, kind in (("refresh", "m"), ("incremental", "r")):
        olap.use(strategy, "mv_business_fact")  # type: ignore[arg-type]
        assert olap.one(kinds) == kind and olap.execute(columns) == shape
        assert olap.one("SELECT has_table_privilege('pg_monitor', 'axiom_vision.mv_business_fact', 'SELECT')")
        olap.execute("UPDATE cases SET org_id = 1 + org_id % 50 WHERE case_id < 30")
        assert olap.refresh("mv_business_fact").status == "completed" and olap.is_exact("mv_business_fact")
    assert olap.one("SELECT generation FROM mozart.view_state WHERE name = 'mv_business_fact'") == 5


def test_exchange_gives_up_behind_a_reader_that_never_lets_go(olap: Olap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relation, "_LOCK_TRIES", 2)
    with closing(olap.database.connect()) as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM axiom_vision.mv_business_fact")
        with pytest.raises(TransientError, match="being read without a pause"):
            olap.use("refresh", "mv_business_fact")
    olap.use("refresh", "mv_business_fact")
    assert olap.is_exact("mv_business_fact")


def test_view_that_others_depend_on_is_not_replaced(olap: Olap) -> None:
    olap.execute("CREATE VIEW public.report AS SELECT count(*) FROM axiom_vision.dim_org")
    olap.change("dim_org", sql="SELECT org_id, code FROM organisations")
    with pytest.raises(ConfigurationError, match="report"):
        install(olap.database, olap.registry)
    assert olap.one("SELECT count(*) FROM axiom_vision.dim_org WHERE name <> ''") == 50


def test_view_whose_folder_is_gone_is_dropped(olap: Olap) -> None:
    left = tuple(view for view in olap.registry.views if view.name != "mv_business_fact")
    report = install(olap.database, dataclasses.replace(olap.registry, views=left))
    assert report.removed == ("mv_business_fact",)
    assert olap.one("SELECT to_regclass('axiom_vision.mv_business_fact')") is None
    assert olap.one("SELECT to_regclass('mozart.contribution_mv_business_fact')") is None
    followed = (
        "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'mozart%%' AND tgrelid IN (%s)"
    )
    tables = "'assets'::regclass, 'stakeholders'::regclass, 'cases'::regclass"
    assert olap.execute(followed % tables) == [("cases",)], "nobody pays for a table that no view reads"
    olap.execute("UPDATE assets SET value = 1 WHERE asset_id = 1")
    assert olap.refresh("mv_cashflow_fact").status == "completed" and olap.is_exact("mv_cashflow_fact")


def test_changes_in_the_first_form_of_the_log_are_not_lost(olap: Olap) -> None:
    olap.execute("CREATE TABLE mozart.change_log (source text NOT NULL, key_column text, key text)")
    olap.execute(
        "CREATE OR REPLACE FUNCTION mozart.mozart_log_cash_flow_entries_case_id_update() RETURNS trigger"
        " LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " INSERT INTO mozart.change_log VALUES ('cash_flow_entries', 'case_id', '1'); RETURN NULL; END $$;"
        "COMMENT ON FUNCTION mozart.mozart_log_cash_flow_entries_case_id_update() IS 'its first form'"
    )
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id = 1")
    assert olap.one("SELECT count(*) FROM mozart.changed_key") == 0 and not olap.is_exact("mv_cashflow_fact")
    report = install(olap.database, olap.registry)
    assert report.tracked == ("cash_flow_entries by case_id",)
    assert olap.one("SELECT to_regclass('mozart.change_log')") is None
    for view in FACTS:
        result = olap.refresh(view)
        assert result.reason and "another form" in result.reason and olap.is_exact(view)


def test_what_an_unfinished_install_left_is_made_again(olap: Olap) -> None:
    olap.execute("DROP TABLE mozart.contribution_mv_cashflow_fact")
    olap.execute("DROP INDEX axiom_vision.idx_dim_org_pk")
    olap.execute("CREATE TABLE axiom_vision.mozart_new_dim_org (a int)")
    report = install(olap.database, olap.registry)
    assert {name for name, what in report.views.items() if what != "unchanged"} == {"dim_org", "mv_cashflow_fact"}
    assert olap.refresh("mv_cashflow_fact").status == "completed"


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such column in the key": ("dim_org", {"unique_key": ("nope",)}, "no column 'nope'"),
    "now()": ("dim_org", {"sql": "SELECT org_id, now() AS at FROM organisations"}, r"now\(\) gives another result"),
    "random hidden by quotes": (
        "dim_org",
        {"sql": 'SELECT org_id, pg_catalog."random"() AS at FROM organisations'},
        r"random\(\) gives another result",
    ),
    "current_date": ("dim_org", {"sql": "SELECT org_id, CURRENT_DATE AS at FROM organisations"}, "current_date"),
    "unknown column": ("dim_org", {"sql": "SELECT nope FROM organisations"}, 'column "nope" does not exist'),
    "table not named": (
        "dim_org",
        {"sql": "SELECT org_id FROM organisations JOIN cases USING (org_id)"},
        "view.sql reads cases; add it",
    ),
    "table not read": ("dim_org", {"sources": ("organisations", "cases")}, "does not read cases"),
    "floats": (
        "mv_cashflow_fact",
        {"sql": "SELECT case_id, 1 AS case_type_id, org_id, 1 AS time_id, '' AS flow_type, 1 AS is_final,"
         " risk_score AS amount FROM cases JOIN cash_flow_entries USING (case_id)"},
        r"sum\(amount\) adds up double precision",
    ),
    "key of a type whose text varies": (
        "mv_cashflow_fact",
        {"sql": "SELECT e.entry_date AS case_id, 1 AS case_type_id, org_id, 1 AS time_id, '' AS flow_type,"
         " 1 AS is_final, e.amount FROM cash_flow_entries e JOIN cases USING (case_id)"},
        "case_id is date; changes are followed by bigint",
    ),
    "key that no table has": ("mv_cashflow_fact", {"per": "org"}, "view.sql has no column 'org'"),
    "view in a view": (
        "mv_cashflow_fact",
        {"depends_on": ("dim_org",),
         "sql": "SELECT e.case_id, 1 AS case_type_id, org_id, 1 AS time_id, '' AS flow_type, 1 AS is_final, e.amount"
         " FROM cash_flow_entries e JOIN cases USING (case_id) JOIN axiom_vision.dim_org USING (org_id)"},
        "cannot be incremental",
    ),
}  # fmt: skip


def test_views_are_refused_and_nothing_is_touched(olap: Olap) -> None:
    before = olap.execute("SELECT name, generation FROM mozart.view_state ORDER BY 1")
    good = olap.registry
    for name, (view, fields, message) in REFUSALS.items():
        olap.registry = good
        olap.change(view, **fields)
        for attempt in (install, check):
            with pytest.raises(ConfigurationError, match=message):
                attempt(olap.database, olap.registry)
                pytest.fail(f"{name} was accepted")
        assert olap.execute("SELECT name, generation FROM mozart.view_state ORDER BY 1") == before


def test_table_without_index_on_the_key_is_refused_with_the_cure(olap: Olap) -> None:
    olap.execute("DROP INDEX assets_case_id")
    with pytest.raises(ConfigurationError, match=r"CREATE INDEX CONCURRENTLY ON assets \(case_id\)"):
        install(olap.database, olap.registry)


def test_partitioned_table_is_refused(olap: Olap) -> None:
    olap.execute("CREATE TABLE parts (case_id bigint, n int) PARTITION BY RANGE (case_id)")
    view = olap.registry.get("dim_org").model_copy(
        update={"name": "dim_parts", "index_name": "idx_parts", "sql": "SELECT case_id, n FROM parts",
                "unique_key": ("case_id",), "sources": ("parts",)}
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="partitioned"):
        install(olap.database, with_view(olap.registry, view))


def test_table_without_the_key_column_is_followed_as_a_whole(olap: Olap) -> None:
    """A fact that reads a reference table: a change there is computed in full, one of a case by its key."""
    view = olap.registry.get("mv_cashflow_fact").model_copy(
        update={
            "name": "mv_region_fact",
            "index_name": "idx_region",
            "sql": "SELECT c.case_id, o.region, e.amount FROM cash_flow_entries e JOIN cases c USING (case_id)"
            " JOIN organisations o USING (org_id)",
            "unique_key": ("region",),
            "sources": ("cases", "cash_flow_entries", "organisations"),
            "measures": (
                Measure(name="entries", function="count", argument="*"),
                Measure(name="amount", function="sum", argument="amount"),
            ),
        }
    )
    olap.registry = with_view(olap.registry, view)
    install(olap.database, olap.registry)
    olap.execute("UPDATE cash_flow_entries SET amount = amount + 1 WHERE case_id = 5")
    assert olap.refresh("mv_region_fact").reason is None and olap.is_exact("mv_region_fact")
    olap.execute("UPDATE organisations SET region = 'elsewhere' WHERE org_id < 9")
    result = olap.refresh("mv_region_fact")
    assert result.reason and "cannot be followed by key" in result.reason and olap.is_exact("mv_region_fact")


def test_other_schemas_for_tables_and_views(olap: Olap) -> None:
    olap.execute("CREATE SCHEMA core; ALTER TABLE organisations SET SCHEMA core")
    view = olap.registry.get("dim_org").model_copy(update={"schema_name": "elsewhere"})
    registry = dataclasses.replace(olap.registry, views=(view,), sources=())
    moved = olap.database.model_copy(update={"source_schema": "core"})
    for name in FACTS:
        olap.execute(f"DROP TABLE axiom_vision.{name}")
    install(moved, registry)
    assert olap.one("SELECT count(*) FROM elsewhere.dim_org") == 50
    assert olap.one("SELECT to_regclass('axiom_vision.dim_org')") is None
