"""What can be said about the Harbor sample and its tenant without a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mozart.tenancy.load import load_tenant
from samples import harbor_rows, harbor_schema

ROOT = Path(__file__).parents[3]
TENANT = load_tenant(ROOT / "tenants" / "harbor")


def _columns_by_table() -> dict[str, list[str]]:
    found = re.findall(r"CREATE TABLE desk\.(\w+) \((.*?)\n\);", harbor_schema.CREATE_TABLES, re.DOTALL)
    return {name: re.findall(r"^    (\w+)", body, re.MULTILINE) for name, body in found}


def _primary_keys() -> dict[str, list[str]]:
    found = re.findall(r"ALTER TABLE desk\.(\w+) ADD PRIMARY KEY \((.*?)\)", harbor_schema.BUILD_KEYS)
    return {name: columns.split(", ") for name, columns in found}


def test_scale_one_has_the_promised_sizes() -> None:
    sizes = harbor_rows.Sizes.of_scale(1)
    assert (sizes.matters, sizes.postings) == (12_000, 60_000)


def test_a_tiny_scale_still_has_rows_everywhere() -> None:
    assert min(vars(harbor_rows.Sizes.of_scale(0)).values()) > 0


def test_other_customers_are_those_a_loose_filter_would_take_for_ours() -> None:
    ours = harbor_rows.CUSTOMER
    assert any(ours.startswith(other) for other in harbor_rows.OTHERS)
    assert any(ours.lower() == other for other in harbor_rows.OTHERS)
    assert any(ours == other.strip() for other in harbor_rows.OTHERS)
    assert ours not in harbor_rows.OTHERS


def test_every_table_says_whose_its_rows_are_and_is_read_with_the_filter() -> None:
    columns = _columns_by_table()
    assert tuple(sorted(columns)) == tuple(sorted(harbor_schema.TABLES))
    assert {table.source_table for table in TENANT.tables} == set(columns)
    for table in TENANT.tables:
        assert table.tenant_filter is not None, table.name
        assert table.tenant_filter.column in columns[table.source_table], table.name
        assert table.tenant_filter.param == "customer_no"


def test_the_filter_is_given_in_both_forms() -> None:
    raw: Any = yaml.safe_load((ROOT / "tenants" / "harbor" / "tenant.yaml").read_text(encoding="utf-8"))
    forms = {type(table["tenant_filter"]) for table in raw["tables"]}
    assert forms == {str, dict}


def test_keys_are_the_sources_and_only_the_diary_has_none() -> None:
    keys = _primary_keys()
    assert {table.name for table in TENANT.tables if not table.primary_key} == {"diary"}
    for table in TENANT.tables:
        assert list(table.primary_key) == keys.get(table.source_table, []), table.name


def test_columns_that_are_named_exist_and_passports_stay() -> None:
    columns = _columns_by_table()
    for table in TENANT.tables:
        assert set(table.columns or ()) <= set(columns[table.source_table]), table.name
    parties = TENANT.table("parties")
    assert parties is not None and parties.columns is not None and "passport_no" not in parties.columns


def test_local_times_wait_longer_than_clocks_go_back() -> None:
    local = re.findall(r"CREATE TABLE desk\.(\w+) \([^;]*?\b\w+ +timestamp NOT NULL", harbor_schema.CREATE_TABLES)
    assert local == ["seats"]
    for table in TENANT.tables:
        if table.source_table in local:
            assert (table.watermark_lag_seconds or 0) > 3600
