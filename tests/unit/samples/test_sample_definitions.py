"""What can be said about the sample and the sample tenant without a server: sizes, scripts, and that nothing drifts."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml

from samples import axiom_rows, axiom_schema

ROOT = Path(__file__).parents[3]
TENANT = ROOT / "tenants" / "acme"
GUIDE = ROOT / "docs" / "guides" / "axiom-core.md"


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _tenant_tables() -> dict[str, dict[str, Any]]:
    return {table["name"]: table for table in _yaml(TENANT / "tenant.yaml")["tables"]}


def _columns_by_table() -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for name, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", axiom_schema.CREATE_TABLES, re.DOTALL):
        tables[name] = re.findall(r"^    (\w+)", body, re.MULTILINE)
    return tables


def _model_files() -> list[Path]:
    return sorted((TENANT / "models").glob("*/*.sql"))


def test_scale_one_and_twenty_five_have_the_promised_sizes() -> None:
    one, large = axiom_rows.Sizes.of_scale(1), axiom_rows.Sizes.of_scale(25)
    assert (one.cases, one.cash_flow_entries) == (40_000, 200_000)
    assert (large.cases, large.cash_flow_entries) == (1_000_000, 5_000_000)


def test_a_tiny_scale_still_has_rows_everywhere() -> None:
    sizes = axiom_rows.Sizes.of_scale(0)
    assert min(sizes.cases, sizes.parties, sizes.assets) > 0


def test_picked_words_are_quoted() -> None:
    assert "'O''Brien'" in axiom_rows.pick("family", "1")


def test_names_cover_many_scripts_and_emoji() -> None:
    letters = "".join(axiom_rows._WORDS[key] for key in ("given", "family", "firm"))
    scripts = {unicodedata.name(letter).split()[0] for letter in letters if letter.isalpha()}
    assert scripts >= {"LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC", "DEVANAGARI", "THAI", "CJK", "HANGUL"}
    assert any(ord(letter) > 0xFFFF for letter in letters), "nothing outside the basic plane"


def test_the_tables_are_those_that_the_ddl_creates() -> None:
    assert tuple(_columns_by_table()) == axiom_schema.TABLES


def test_the_tenant_loads_every_table_but_the_outbox() -> None:
    assert set(_tenant_tables()) == set(axiom_schema.TABLES) - {"event_outbox"}


def test_mutable_tables_are_incremental_and_reference_tables_are_not() -> None:
    for name, table in _tenant_tables().items():
        if name in axiom_schema.MUTABLE_TABLES:
            assert (table["mode"], table["incremental_column"]) == ("incremental", "updated_at"), name
        else:
            assert "mode" not in table and "incremental_column" not in table, name


def test_the_tenant_names_only_columns_that_exist() -> None:
    columns = _columns_by_table()
    for name, table in _tenant_tables().items():
        assert set(table["primary_key"]) | set(table.get("columns", [])) <= set(columns[name]), name
        assert set(table["primary_key"]) <= set(table.get("columns", columns[name])), name


def test_every_loaded_table_is_a_source_with_one_staging_model() -> None:
    (source,) = _yaml(TENANT / "models" / "_sources.yml")["sources"]
    loaded = set(_tenant_tables())
    assert {table["name"] for table in source["tables"]} == loaded
    assert {path.stem for path in (TENANT / "models" / "staging").glob("*.sql")} == {
        f"acme__stg_{name}" for name in loaded
    }


@pytest.mark.parametrize("path", _model_files(), ids=lambda path: path.stem)
def test_every_column_of_a_model_has_a_type_and_a_meaning(path: Path) -> None:
    (model,) = _yaml(path.with_suffix(".yml"))["models"]
    assert model["name"] == path.stem and model["description"]
    for column in model["columns"]:
        assert column["data_type"] and column["description"].endswith("."), column["name"]


@pytest.mark.parametrize("path", _model_files(), ids=lambda path: path.stem)
def test_only_staging_reads_raw(path: Path) -> None:
    reads_raw = "source(" in path.read_text(encoding="utf-8")
    assert reads_raw == (path.parent.name == "staging")


def test_the_guide_names_every_column() -> None:
    sections = dict(
        re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
    for table, columns in _columns_by_table().items():
        missing = [column for column in columns if f"`{column}`" not in sections.get(table, "")]
        assert not missing, f"{table}: {missing}"
