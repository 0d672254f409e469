"""A tenant as its file says it, frozen and checked: `Tenant` with templates, `ResolvedTenant` with values.

A `Tenant` holds no secret: `${NAME}` stands where one would be. A `ResolvedTenant` holds secrets as `SecretStr` and
is for `mozart deploy` to put into blocks; it is never written to a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from mozart.tenancy import names

Mode = Literal["full_refresh", "incremental"]
SchemaChanges = Literal["evolve", "freeze", "ignore"]
UnfitValues = Literal["fail", "null"]
NullWatermarks = Literal["read", "fail"]
Layout = Literal["source", "key"]
ParamValue = str | int


class Frozen(BaseModel):
    """A value that cannot change after it was checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TenantFilter(Frozen):
    """`column` must equal the tenant's parameter `param`; the value is bound, never spliced."""

    column: str
    param: str


class SoftDelete(Frozen):
    """A row whose `column` is true, a number other than 0, or a moment counts as deleted at the source."""

    column: str


class TableSpec(Frozen):
    """One source table and how it is loaded. `columns` None means all of them.

    `source_schema` None means the connection's own. `watermark_lag_seconds`: how far behind now the watermark must
    stay where the source cannot tell which transactions still run. `soft_delete` None: what was deleted at the source
    is found by comparing keys. `schema_changes`: what becomes of columns that came, went or changed at the source
    (`mozart.lake.drift`). `unfit_values`: whether a value that its Iceberg type cannot hold fails the load, or becomes
    NULL and is counted. `null_watermarks`: whether rows without a watermark are read every time, or fail the load.
    `layout`: rows of a full read in the source's order, or sorted by the key within each file.
    """

    name: str
    source_schema: str | None
    source_table: str
    primary_key: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    tenant_filter: TenantFilter | None = None
    incremental_column: str | None = None
    mode: Mode = "full_refresh"
    watermark_lag_seconds: int | None = None
    soft_delete: SoftDelete | None = None
    schema_changes: SchemaChanges = "evolve"
    unfit_values: UnfitValues = "fail"
    null_watermarks: NullWatermarks = "read"
    layout: Layout = "source"


class SourceSpec(Frozen):
    """A source database, values still as templates. `connection`: host, port, database, username, password.

    `options` are the connector's own (TLS, timeouts); `params` feed tenant filters.
    """

    type: str
    connection: Mapping[str, str]
    options: Mapping[str, str] = {}
    params: Mapping[str, ParamValue] = {}


class StorageSpec(Frozen):
    """Where a tenant's landing files go; templates allowed."""

    bucket: str
    prefix: str


class IcebergSpec(Frozen):
    """The catalog and the schema of a tenant's tables; templates allowed. Raw is `{schema}_raw`."""

    catalog: str
    schema_name: str


class DedicatedSpec(Frozen):
    """A lake of the tenant's own: its warehouse, and the identity that reaches it and its bucket; templates."""

    warehouse: str
    access_key_id: str
    secret_access_key: str


class Dedicated(Frozen):
    """The same with its values."""

    warehouse: str
    access_key_id: str
    secret_access_key: SecretStr


class Tenant(Frozen):
    """`tenants/{id}/tenant.yaml`, checked; nothing is resolved. `schedule` None: it runs only on request.

    `dedicated` None: it shares bucket, warehouse and identity with others (`docs/guides/isolation.md`).
    """

    id: str
    source: SourceSpec
    storage: StorageSpec
    iceberg: IcebergSpec
    schedule: str | None
    timezone: str = "UTC"
    tables: tuple[TableSpec, ...]
    dedicated: DedicatedSpec | None = None

    @property
    def file(self) -> str:
        """The tenant's file, relative to the project."""
        return f"tenants/{self.id}/tenant.yaml"

    def table(self, name: str) -> TableSpec | None:
        """The table called `name` in raw."""
        return next((table for table in self.tables if table.name == name), None)


class ResolvedSource(Frozen):
    """A source with its values: what a connector needs, and nothing of the environment besides."""

    type: str
    host: str | None = None
    port: int | None = None
    database: str
    username: str | None = None
    password: SecretStr | None = None
    options: Mapping[str, str] = {}
    secret_options: Mapping[str, SecretStr] = {}
    params: Mapping[str, ParamValue] = {}


class ResolvedTenant(Frozen):
    """A tenant with every `${…}` replaced. `iceberg.schema_name` is without the environment's suffix."""

    id: str
    source: ResolvedSource
    storage: StorageSpec
    iceberg: IcebergSpec
    schedule: str | None
    timezone: str
    tables: tuple[TableSpec, ...]
    dedicated: Dedicated | None = None

    def namespaces(self, suffix: str = "") -> names.Namespaces:
        """Where its tables are; `suffix` is the environment's."""
        return names.namespaces(self.iceberg.catalog, self.iceberg.schema_name, suffix)
