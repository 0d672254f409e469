"""Where one tenant's data comes from and goes to, as its two blocks hold it."""

from __future__ import annotations

from blocks.lakehouse import TenantLakehouse
from blocks.source_database import SourceDatabase
from mozart.errors import ConfigurationError
from mozart.lake.tenant_run import TenantPlace
from mozart.tenancy import names


async def load_place(tenant: str, suffix: str) -> TenantPlace:
    """What the tenant's blocks hold. ConfigurationError when they are missing or of an older shape."""
    try:
        source = await SourceDatabase.aload(names.source_block(tenant, suffix))
        lakehouse = await TenantLakehouse.aload(names.lakehouse_block(tenant, suffix))
    except (ValueError, RuntimeError) as error:
        # Neither chained nor quoted: a failed validation prints the block's values.
        what = "are missing" if isinstance(error, ValueError) else "have an older shape"
        raise ConfigurationError(f"tenant {tenant}: its blocks {what}; run `mozart deploy`") from None
    return TenantPlace(source.connection(), source.params, lakehouse.lakehouse(), lakehouse.namespaces())
