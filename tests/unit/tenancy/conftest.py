"""A tenant's file to start from, and a way to write others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ACME = """\
tenant:
  id: acme
  source:
    type: postgresql
    host: "${ACME_DB_HOST:localhost}"
    port: "${ACME_DB_PORT:5432}"
    database: "${ACME_DB_NAME:acme}"
    username: "${ACME_DB_USER:acme}"
    password: "${ACME_DB_PASSWORD}"
  params: {project_id: "7f0c"}
  storage: {bucket: "${S3_BUCKET:warehouse}", prefix: raw/acme}
  iceberg: {catalog: iceberg, schema: acme}
  schedule: "0 */2 * * *"
tables:
  - name: cases
    source_schema: public
    source_table: cases
    primary_key: [id]
    columns: [id, status, updated_at]
    tenant_filter: project_id
    incremental_column: updated_at
    mode: incremental
"""

WriteTenant = Callable[..., Path]


@pytest.fixture
def acme() -> str:
    """The text of a good file; its folder must be called acme."""
    return ACME


@pytest.fixture
def write_tenant(tmp_path: Path) -> WriteTenant:
    """`write_tenant(text, "acme")` → the tenant's folder; text may be bytes."""

    def write(text: str | bytes, tenant_id: str = "acme") -> Path:
        folder = tmp_path / "tenants" / tenant_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tenant.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return folder

    return write
