"""A lake of the tenant's own: read whole or refused, resolved with its secret hidden, put into the tenant's block."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from blocks import TenantLakehouse
from mozart.errors import ConfigurationError
from mozart.lake.lakehouse import Lakehouse
from mozart.tenancy.load import load_tenant
from mozart.tenancy.resolve import resolve
from tests.unit.tenancy.conftest import WriteTenant

STORAGE = '  storage: {bucket: "${S3_BUCKET:warehouse}", prefix: raw/acme}\n'
ICEBERG = "  iceberg: {catalog: iceberg, schema: acme}\n"
OWN_STORAGE = """\
  storage:
    bucket: acme-landing
    access_key_id: "${ACME_S3_ACCESS_KEY_ID}"
    secret_access_key: "${ACME_S3_SECRET_ACCESS_KEY}"
"""
OWN_ICEBERG = "  iceberg: {catalog: acme_lake, schema: acme, warehouse: acme-warehouse}\n"
VALUES = {"ACME_DB_PASSWORD": "p", "ACME_S3_ACCESS_KEY_ID": "own-key", "ACME_S3_SECRET_ACCESS_KEY": "own-secret"}
SHARED = Lakehouse(
    s3_endpoint="http://s3",
    catalog_uri="http://catalog",
    access_key_id="shared-key",
    secret_access_key=SecretStr("shared-secret"),
)


def dedicated(acme: str, storage: str = OWN_STORAGE, iceberg: str = OWN_ICEBERG) -> str:
    assert STORAGE in acme
    assert ICEBERG in acme
    return acme.replace(STORAGE, storage).replace(ICEBERG, iceberg)


def test_a_tenant_shares_unless_its_file_says_otherwise(write_tenant: WriteTenant, acme: str) -> None:
    tenant = resolve(load_tenant(write_tenant(acme)), VALUES)
    assert tenant.dedicated is None
    place = TenantLakehouse.of(SHARED, tenant, None).lakehouse()
    assert (place.access_key_id, place.warehouse, place.bucket) == ("shared-key", "warehouse", "warehouse")


def test_its_own_identity_goes_into_its_block(write_tenant: WriteTenant, acme: str) -> None:
    tenant = resolve(load_tenant(write_tenant(dedicated(acme))), VALUES)
    assert tenant.dedicated
    assert "own-secret" not in repr(tenant)
    block = TenantLakehouse.of(SHARED, tenant, None)
    place = block.lakehouse()
    assert place.secret_access_key.get_secret_value() == "own-secret"
    assert (place.access_key_id, place.warehouse, place.bucket) == ("own-key", "acme-warehouse", "acme-landing")
    assert block.namespaces().catalog == "acme_lake"


@pytest.mark.parametrize(
    ("storage", "iceberg", "expected"),
    [
        (STORAGE, OWN_ICEBERG, "needs also storage.access_key_id, storage.secret_access_key"),
        (OWN_STORAGE, ICEBERG, "needs also iceberg.warehouse"),
        (OWN_STORAGE, ICEBERG.replace("schema", "warehouse: w-acme, schema"), "iceberg is the shared lake's"),
        (OWN_STORAGE.replace("    bucket: acme-landing\n", ""), OWN_ICEBERG, "needs also storage.bucket"),
        (OWN_STORAGE.replace("_ACCESS_KEY}", "_ACCESS_KEY:x}"), OWN_ICEBERG, "a default for a secret is refused"),
    ],
)
def test_half_a_lake_is_refused(
    write_tenant: WriteTenant, acme: str, storage: str, iceberg: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_tenant(write_tenant(dedicated(acme, storage, iceberg)))
    assert expected in str(caught.value)


def test_a_secret_that_is_not_set_is_named(write_tenant: WriteTenant, acme: str) -> None:
    tenant = load_tenant(write_tenant(dedicated(acme)))
    with pytest.raises(ConfigurationError, match=r"tenant\.storage\.secret_access_key: .*ACME_S3_SECRET_ACCESS_KEY"):
        resolve(tenant, {**VALUES, "ACME_S3_SECRET_ACCESS_KEY": ""})
