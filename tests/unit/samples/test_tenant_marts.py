"""The marts of the sample tenants are one text: same SQL from one macro, same contract, tests and meanings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MARTS = ("mart_case", "mart_cashflow_monthly", "mart_stakeholder")
SAMPLES = ("acme", "atlas", "harbor")


def _folder(tenant: str) -> Path:
    return ROOT / "tenants" / tenant / "models"


def _properties(tenant: str, mart: str) -> Any:
    text = (_folder(tenant) / "mart" / f"{tenant}__{mart}.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text.replace(f"{tenant}__", "tenant__"))


@pytest.mark.parametrize("mart", MARTS)
@pytest.mark.parametrize("tenant", SAMPLES)
def test_a_mart_only_names_its_staging_models(tenant: str, mart: str) -> None:
    """What is selected stands in dbt/macros/marts, once."""
    text = (_folder(tenant) / "mart" / f"{tenant}__{mart}.sql").read_text(encoding="utf-8")
    references = rf"(?:\s*\w+=ref\('{tenant}__stg_\w+'\),?)+\s*"
    lines = (
        rf"\{{\{{ config\(alias='{mart}'\) \}}\}}",
        rf"\{{# What is selected is the product's: dbt/macros/marts/{mart}\.sql #\}}",
        rf"\{{\{{ {mart}\({references}\) \}}\}}",
    )
    assert re.fullmatch(r"\s+".join(lines) + r"\s*", text), text


@pytest.mark.parametrize("mart", MARTS)
@pytest.mark.parametrize("tenant", SAMPLES[1:])
def test_contracts_tests_and_meanings_are_the_same(tenant: str, mart: str) -> None:
    assert _properties(tenant, mart) == _properties("acme", mart)


@pytest.mark.parametrize("tenant", SAMPLES)
def test_every_model_has_a_meaning_and_a_type_for_each_column(tenant: str) -> None:
    for path in _folder(tenant).glob("*/*.sql"):
        (model,) = yaml.safe_load(path.with_suffix(".yml").read_text(encoding="utf-8"))["models"]
        assert model["name"] == path.stem and model["description"].endswith("."), path.name
        for column in model["columns"]:
            assert column["data_type"] and column["description"].endswith("."), f"{path.name}: {column['name']}"


@pytest.mark.parametrize("tenant", SAMPLES)
def test_every_loaded_table_is_a_source_and_nothing_else_is(tenant: str) -> None:
    tables = yaml.safe_load((ROOT / "tenants" / tenant / "tenant.yaml").read_text(encoding="utf-8"))["tables"]
    (source,) = yaml.safe_load((_folder(tenant) / "_sources.yml").read_text(encoding="utf-8"))["sources"]
    assert {table["name"] for table in source["tables"]} == {table["name"] for table in tables}
