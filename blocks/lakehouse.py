"""One tenant's place in the lake: store, catalog, bucket, prefix and schema, over credentials of prefect-aws."""

from __future__ import annotations

from typing import ClassVar

from prefect_aws.credentials import AwsCredentials
from pydantic import Field, SecretStr

from blocks.declared import DeclaredBlock
from mozart.lake.lakehouse import Lakehouse, tenant_lakehouse
from mozart.tenancy.model import ResolvedTenant
from mozart.tenancy.names import Namespaces, branch_suffix, namespaces


class TenantLakehouse(DeclaredBlock):
    """Where one tenant's files and tables are, and the identity that may reach them."""

    _block_type_name: ClassVar[str | None] = "Mozart tenant lakehouse"
    _block_type_slug: ClassVar[str | None] = "mozart-tenant-lakehouse"
    _description: ClassVar[str | None] = "A tenant's object storage and Iceberg catalog."

    tenant: str = Field(description="The tenant it belongs to.")
    branch: str = Field(default="", description="The branch it belongs to; empty in production.")
    credentials: AwsCredentials = Field(description="Identity of the object store and of the catalog.")
    s3_endpoint: str = Field(description="Address of the S3 API.")
    catalog_uri: str = Field(description="Address of the Iceberg REST catalog.")
    warehouse: str = Field(description="The catalog's name for its storage.")
    bucket: str = Field(description="Bucket of the landing files.")
    prefix: str = Field(description="Prefix of the tenant's landing files within the bucket.")
    catalog: str = Field(default="iceberg", description="Name of the catalog in SQL.")
    schema_name: str = Field(description="Schema of staging and marts; raw is {schema}_raw.")

    def lakehouse(self) -> Lakehouse:
        """The lake as the core takes it."""
        return Lakehouse(
            s3_endpoint=self.s3_endpoint,
            s3_region=self.credentials.region_name or "us-east-1",
            access_key_id=self.credentials.aws_access_key_id or "",
            secret_access_key=self.credentials.aws_secret_access_key or SecretStr(""),
            catalog_uri=self.catalog_uri,
            warehouse=self.warehouse,
            bucket=self.bucket,
            prefix=self.prefix,
        )

    def namespaces(self) -> Namespaces:
        """The tenant's namespaces in this environment."""
        return namespaces(self.catalog, self.schema_name, branch_suffix(self.branch))

    @classmethod
    def of(cls, lakehouse: Lakehouse, tenant: ResolvedTenant, branch: str | None) -> TenantLakehouse:
        """The block of a resolved tenant; not yet saved. A branch lands under a prefix of its own.

        `lakehouse` is the shared one; a tenant with a lake of its own has its identity and its warehouse.
        """
        own = tenant_lakehouse(lakehouse, tenant)
        return cls(
            tenant=tenant.id,
            branch=branch or "",
            credentials=AwsCredentials(
                aws_access_key_id=own.access_key_id,
                aws_secret_access_key=own.secret_access_key,
                region_name=own.s3_region,
            ),
            s3_endpoint=own.s3_endpoint,
            catalog_uri=own.catalog_uri,
            warehouse=own.warehouse,
            bucket=own.bucket,
            prefix=f"{own.prefix}{branch_suffix(branch)}",
            catalog=tenant.iceberg.catalog,
            schema_name=tenant.iceberg.schema_name,
        )
