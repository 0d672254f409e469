"""What is wrong in `views/` is refused with file, key and cure; what is right is read in dependency order."""

from __future__ import annotations

from pathlib import Path

import pytest

from mozart.errors import ConfigurationError
from mozart.olap.registry import read_views
from tests.projects import PROJECT

GOOD_YAML = """\
kind: fact
description: Payments.
strategy: incremental
unique_key: [org_id]
per: case_id
measures:
  entries: count(*)
  amount: sum(amount)
sources: [cases]
"""
GOOD_SQL = "SELECT case_id, org_id, amount FROM cases"


def write(root: Path, name: str, yaml: str = GOOD_YAML, sql: str | None = GOOD_SQL) -> None:
    folder = root / "views" / name
    folder.mkdir(parents=True)
    (folder / "view.yaml").write_text(yaml)
    if sql is not None:
        (folder / "view.sql").write_text(sql)


def refusal(root: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_views(root)
    return str(caught.value)


def test_the_projects_own_views() -> None:
    registry = read_views(PROJECT)
    names = [view.name for view in registry.views]
    assert names[:4] == ["dim_case_type", "dim_org", "dim_stakeholder_type", "dim_time"]
    assert names[4:] == ["mv_business_fact", "mv_cashflow_fact"]
    events = {topic: [view.name for view in registry.of_event(topic)] for topic in registry.topics}
    assert events == {
        "case_created": ["mv_business_fact"],
        "case_status_changed": ["mv_business_fact"],
        "stakeholder_registered": ["mv_business_fact"],
        "stakeholder_admitted": ["mv_business_fact"],
        "performance_recorded": ["mv_business_fact", "mv_cashflow_fact"],
        "cash_flow_entry_created": ["mv_cashflow_fact"],
    }
    assert registry.of_event("unknown") == ()
    assert registry.get("dim_org").min_interval_seconds == 300
    assert registry.get("mv_business_fact").min_interval_seconds == 0
    assert registry.get("mv_business_fact").unique_key == ("case_type_id", "org_id", "time_id", "stk_type_id")


def test_a_good_view_is_read(tmp_path: Path) -> None:
    write(tmp_path, "mv_paid")
    view = read_views(tmp_path).get("mv_paid")
    assert (view.index_name, view.debounce_seconds, view.debounce_max_wait_seconds) == ("idx_mv_paid_pk", 10, 60)
    assert [str(measure) for measure in view.measures] == ["count(*)", "sum(amount)"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unique_key: [org_id]\n", "", "view.yaml: unique_key: is needed"),
        ("unique_key: [org_id]", "unique_key: []", "unique_key: "),
        ("kind: fact", "kind: cube", "view.yaml:1: kind: "),
        ("sources: [cases]", "sources: [cases]\nowner: me", "owner: is no key of this file; known: kind,"),
        ("per: case_id\n", "", "per: is needed"),
        ("sources: [cases]\n", "", "sources: is needed"),
        ("sum(amount)", "max(amount)", "measures.amount: max(amount) cannot be kept up to date by what changed"),
        ("sum(amount)", "avg(amount)", "keep sum and count and divide when reading"),
        ("sum(amount)", "count(distinct org_name)", "count(distinct org_name) cannot be kept"),
        ("sum(amount)", "sum(amount * 2)", "'sum(amount * 2)' is not one of count(*)"),
        ("sum(amount)", "median(amount)", "is not one of count(*)"),
        ("entries: count(*)", "entries: count(amount)", "needs one count(*)"),
        ("unique_key: [org_id]", "unique_key: [Org Id]", "'Org Id' must be small letters"),
        ("unique_key: [org_id]", "unique_key: [org_id, org_id]", "names something twice"),
        ("  amount: sum", "  org_id: sum", "org_id is in unique_key too"),
        ("sources: [cases]", "sources: [cases]\ndepends_on: [dim_moon]", "there is no view 'dim_moon'"),
        ("sources: [cases]", "sources: [cases]\ndebounce_seconds: 70", "debounce_max_wait_seconds: must not be below"),
        ("sources: [cases]", "sources: [cases]\nmin_interval_seconds: -1", "min_interval_seconds: "),
        ("kind: fact", "kind: fact\nkind: fact", "kind"),
        ("kind: fact", "kind: [fact", "view.yaml"),
    ],
)
def test_mistake_in_the_yaml(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD_YAML
    write(tmp_path, "mv_paid", GOOD_YAML.replace(old, new))
    text = refusal(tmp_path)
    assert "views/mv_paid/view.yaml" in text and message in text


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT now()", "now gives another result on the same data"),
        ("SELECT CURRENT_DATE", "current_date gives another"),
        ("SELECT case_id, org_id, random() AS amount FROM cases", "random gives another"),
        ("SELECT date 'today', nextval('s')", "'today' gives another"),
        ("SELECT 1; DROP TABLE cases", "must be one SELECT"),
        ("DELETE FROM cases", "must be one SELECT"),
        ("", "must be one SELECT"),
        ("SELECT case_id, org_id, sum(amount) OVER (PARTITION BY org_id) AS amount FROM cases", "window functions"),
        ("SELECT case_id, org_id, amount FROM cases LIMIT 5", "limit, offset or fetch"),
        ("SELECT case_id, org_id, amount::float8 FROM cases", "floating point numbers"),
    ],
)
def test_mistake_in_the_sql(tmp_path: Path, sql: str, message: str) -> None:
    write(tmp_path, "mv_paid", sql=sql)
    text = refusal(tmp_path)
    assert "views/mv_paid" in text and message in text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT case_id, org_id, amount -- not now() and no limit\nFROM cases",
        "SELECT case_id, org_id, amount /* random() */ FROM cases WHERE title <> 'now() over (limit)'",
        "SELECT case_id, org_id, amount, known_at, nowhere FROM cases -- columns called so\n;",
        'SELECT case_id, org_id, "limit" AS amount FROM cases',
        "WITH c AS (SELECT * FROM cases) SELECT case_id, org_id, amount FROM c",
    ],
)
def test_innocent_sql(tmp_path: Path, sql: str) -> None:
    write(tmp_path, "mv_paid", sql=sql)
    assert read_views(tmp_path).get("mv_paid")


def test_strategy_refresh_allows_what_incremental_cannot(tmp_path: Path) -> None:
    yaml = (
        GOOD_YAML.replace("incremental", "refresh").replace("sum(amount)", "max(amount)").replace("per: case_id\n", "")
    )
    write(tmp_path, "mv_paid", yaml, "SELECT case_id, org_id, amount::float8 FROM cases LIMIT 9")
    assert read_views(tmp_path).get("mv_paid").min_interval_seconds == 300


def test_missing_sql(tmp_path: Path) -> None:
    write(tmp_path, "mv_paid", sql=None)
    assert "view.sql: is missing" in refusal(tmp_path)


def test_missing_folder(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path)


def test_circle_is_named(tmp_path: Path) -> None:
    for name, other in (("mv_a", "mv_b"), ("mv_b", "mv_c"), ("mv_c", "mv_a")):
        write(tmp_path, name, GOOD_YAML + f"depends_on: [{other}]\n")
    text = refusal(tmp_path)
    assert "goes round in a circle" in text and all(name in text for name in ("mv_a", "mv_b", "mv_c"))


def test_dimension_that_waits_for_a_fact(tmp_path: Path) -> None:
    write(tmp_path, "mv_paid")
    dimension = "kind: dimension\ndescription: x\nunique_key: [a]\ndepends_on: [mv_paid]\n"
    write(tmp_path, "dim_a", dimension, "SELECT 1 AS a")
    assert "a dimension cannot wait for the fact 'mv_paid'" in refusal(tmp_path)


def test_every_mistake_of_every_view_at_once(tmp_path: Path) -> None:
    write(tmp_path, "mv_one", GOOD_YAML.replace("sum(amount)", "max(amount)"), "SELECT now()")
    write(tmp_path, "mv_two", GOOD_YAML.replace("kind: fact", "kind: cube"))
    (tmp_path / "views" / "sources.yaml").write_text("tables:\n  cases: {minimum_rows: few}\n")
    text = refusal(tmp_path)
    assert all(part in text for part in ("max(amount)", "now gives", "mv_two", "sources.yaml:2: tables.cases.minimum"))


def test_index_of_two_views(tmp_path: Path) -> None:
    write(tmp_path, "mv_a", GOOD_YAML + "index_name: idx_same\n")
    write(tmp_path, "mv_b", GOOD_YAML + "index_name: idx_same\n")
    assert "'idx_same' belongs to another view too" in refusal(tmp_path)
