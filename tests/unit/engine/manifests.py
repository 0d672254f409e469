"""Small manifests as dbt would write them, for planning without dbt."""

from __future__ import annotations

from typing import Any


def model(
    name: str, *parents: str, sql: str = "select 1", materialized: str = "table", **config: Any
) -> dict[str, Any]:
    """`stg_cases` with parents like `stg_x` (a model) or `raw.cases` (a source)."""
    return {
        "unique_id": f"model.mozart.t__{name}",
        "resource_type": "model",
        "name": f"t__{name}",
        "alias": name,
        "database": "candidates",
        "schema": "t",
        "original_file_path": f"../tenants/t/models/t__{name}.sql",
        "raw_code": sql,
        "checksum": {"checksum": sql},
        "columns": {"id": {"name": "id", "data_type": "bigint", "description": "words"}},
        "config": {"materialized": materialized, **config},
        "depends_on": {"nodes": [unique_id(parent) for parent in parents]},
    }


def data_test(name: str, *models: str, attached: str | None = None, **config: Any) -> dict[str, Any]:
    return {
        "unique_id": f"test.mozart.{name}",
        "resource_type": "test",
        "name": name,
        "config": {"severity": "ERROR", **config},
        "depends_on": {"nodes": [unique_id(m) for m in models]},
        "attached_node": unique_id(attached or models[0]),
        "raw_code": "{{ test_not_null(**_dbt_generic_test_kwargs) }}",
    }


def unique_id(name: str) -> str:
    if name.startswith("raw."):
        return f"source.mozart.t_raw.{name.removeprefix('raw.')}"
    return name if name.startswith("seed.") else f"model.mozart.t__{name}"


def manifest(*nodes: dict[str, Any], raw: tuple[str, ...] = ("cases", "flows")) -> dict[str, Any]:
    sources = {
        unique_id(f"raw.{table}"): {
            "unique_id": unique_id(f"raw.{table}"),
            "schema": "t_raw",
            "name": table,
            "identifier": table,
        }
        for table in raw
    }
    return {"nodes": {node["unique_id"]: node for node in nodes}, "sources": sources, "unit_tests": {}}
