"""The removal of a tenant's data: raw, staging and marts, candidates that a killed run left on Trino, landing files."""

from __future__ import annotations

import secrets

import pyarrow as pa
from pyiceberg.io import load_file_io

from mozart.lake.lakehouse import Lakehouse
from mozart.lake.object_store import ObjectStore
from mozart.lake.removal import find_tenant_data, remove_tenant_data
from mozart.tenancy.names import candidates_namespace, namespaces

ROWS = pa.table({"id": [1]})


def test_every_namespace_of_the_tenant_goes_and_no_other(lakehouse: Lakehouse) -> None:
    leaving = namespaces("iceberg", f"gone_{secrets.token_hex(3)}")
    staying = namespaces("iceberg", f"{leaving.core}_two")  # a name that begins alike
    catalog = lakehouse.catalog()
    own = (leaving.raw, leaving.core, candidates_namespace(leaving.core))
    others = (staying.raw, staying.core, candidates_namespace(staying.core))
    for name in (*own, *others):
        catalog.create_namespace(name)
        catalog.create_table((name, "cases"), ROWS.schema).append(ROWS)
    with load_file_io(lakehouse.catalog_properties()).new_output(f"{lakehouse.landing_uri}/x").create() as file:
        file.write(b"x")

    found = remove_tenant_data(lakehouse, leaving)
    assert set(found.namespaces) == set(own)
    assert {namespace for namespace, _ in found.tables} == set(own)
    assert find_tenant_data(lakehouse, leaving).is_empty
    assert not list(
        ObjectStore(lakehouse).list_files(f"s3://{lakehouse.warehouse}/{candidates_namespace(leaving.core)}")
    )
    for name in others:
        assert catalog.load_table((name, "cases")).scan().to_arrow() == ROWS
