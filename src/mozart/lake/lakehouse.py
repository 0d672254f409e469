"""Where a tenant's lake is: the object store, the Iceberg REST catalog and one identity for both.

Plain data; knows no Prefect (the block in `blocks/` carries one of these) and reads no environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, SecretStr

from mozart.settings import Settings
from mozart.tenancy.model import ResolvedTenant

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


class Lakehouse(BaseModel):
    """An S3 endpoint, an Iceberg REST catalog, and the credentials that both accept.

    `bucket`/`prefix` say where landing files go; `warehouse` is the catalog's name for its storage.
    """

    model_config = ConfigDict(frozen=True)

    s3_endpoint: str
    s3_region: str = "us-east-1"
    access_key_id: str
    secret_access_key: SecretStr
    catalog_uri: str
    warehouse: str = "warehouse"
    bucket: str = "landing"
    prefix: str = "raw"

    @property
    def oauth2_server_uri(self) -> str:
        return f"{self.catalog_uri}/v1/oauth/tokens"

    @property
    def landing_uri(self) -> str:
        """The landing prefix as `s3://bucket/prefix`, without a trailing slash."""
        return f"s3://{self.bucket}/{self.prefix.strip('/')}"

    def catalog_properties(self) -> dict[str, Any]:
        secret = self.secret_access_key.get_secret_value()
        return {
            "type": "rest",
            "uri": self.catalog_uri,
            "warehouse": self.warehouse,
            "credential": f"{self.access_key_id}:{secret}",
            "oauth2-server-uri": self.oauth2_server_uri,
            "scope": "catalog",
            "s3.endpoint": self.s3_endpoint,
            "s3.access-key-id": self.access_key_id,
            "s3.secret-access-key": secret,
            "s3.region": self.s3_region,
            "s3.path-style-access": "true",
        }

    def catalog(self) -> Catalog:
        """A new client of the catalog. Clients hold a token and a session; share one within a run.

        Raises TransientError when the catalog cannot be reached, TerminalError when it refuses the identity.
        """
        # Here, not at the top: dbt's child and `mozart query` need the address but no catalog client (0.4 CPU s).
        from mozart.lake.catalog_client import open_catalog  # noqa: PLC0415

        return open_catalog(self.catalog_properties())


def tenant_lakehouse(shared: Lakehouse, tenant: ResolvedTenant) -> Lakehouse:
    """The lake as one tenant reaches it: its landing places in the `shared` one, or a lake of its own there."""
    own = tenant.dedicated
    places = {"bucket": tenant.storage.bucket, "prefix": tenant.storage.prefix.strip("/")}
    identity = own.model_dump(include={"warehouse", "access_key_id", "secret_access_key"}) if own else {}
    return shared.model_copy(update={**places, **identity})


def lakehouse_from_settings(settings: Settings) -> Lakehouse:
    """The lake that the settings describe: S3_ENDPOINT and ICEBERG_CATALOG_URI where set, else the local stack's.

    Raises ConfigurationError naming the setting that is missing.
    """
    host = settings.get("MOZART_HOST")
    store = settings.values.get("S3_ENDPOINT") or f"http://{host}:{settings.port('MOZART_S3_PORT')}"
    catalog = settings.values.get("ICEBERG_CATALOG_URI") or f"http://{host}:{settings.port('MOZART_CATALOG_PORT')}"
    return Lakehouse(
        s3_endpoint=store.rstrip("/"),
        s3_region=settings.get("S3_REGION"),
        access_key_id=settings.get("S3_ACCESS_KEY_ID"),
        secret_access_key=SecretStr(settings.get("S3_SECRET_ACCESS_KEY")),
        catalog_uri=catalog.rstrip("/"),
        warehouse=settings.get("ICEBERG_WAREHOUSE"),
        bucket=settings.get("S3_BUCKET"),
    )
