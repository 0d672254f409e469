"""The types that acme declares for its raw tables are those that loading them makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from mozart.connectors.base import SourceConnection
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.lake.publish import iceberg_type
from mozart.services.postgres import Database
from mozart.tenancy.load import load_tenant
from mozart.tenancy.model_folder import read_model_folder
from samples import axiom_core

ROOT = Path(__file__).parents[3]


def test_acmes_sources_are_declared_as_they_load(database: Callable[..., Database]) -> None:
    place = database(superuser=True)
    with place.connect(autocommit=True) as source:
        axiom_core.create(source, scale=0)
    tenant = load_tenant(ROOT / "tenants" / "acme")
    declared = read_model_folder(ROOT, tenant).raw_tables
    connector = create_connector(
        SourceConnection(
            type="postgresql",
            host=place.host,
            port=place.port,
            database=place.name,
            username=place.user,
            password=SecretStr(place.password),
        )
    )
    with connector.open() as reader, connect() as duck:
        for spec in tenant.tables:
            described = reader.describe(spec.source_schema, spec.source_table)
            loaded = {
                c.name: str(c.iceberg_type) for c in described.columns if not spec.columns or c.name in spec.columns
            }
            kinds = {
                column.name: duck.sql(f"SELECT CAST(NULL AS {column.data_type}) AS x").types[0]
                for column in declared[spec.name].columns
            }
            assert {name: str(iceberg_type(kind)) for name, kind in kinds.items()} == loaded, spec.name
            assert list(kinds) == list(loaded), spec.name
