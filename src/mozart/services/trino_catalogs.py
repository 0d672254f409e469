"""Trino's catalogs of tenants with a lake of their own: a file each, like the shared lake's, with variables of its own.

The file is that of the shared lake; the warehouse and the credentials come from variables that begin with the catalog's
name (`ACME_LAKE_ICEBERG_WAREHOUSE` for `acme_lake`), so that no secret is in a file. Trino reads its catalogs' files at
start only.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from mozart.lake.lakehouse import Lakehouse

SHARED_FILE = Path("catalog") / "iceberg.properties"
_VARIABLE = re.compile(r"\$\{ENV:([A-Z0-9_]+)\}")
_OWN = ("ICEBERG_WAREHOUSE", "ICEBERG_CATALOG_CREDENTIAL", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")


def dedicated_catalog(shared: str, catalog: str) -> str:
    """The file of a tenant's own catalog, made from `shared`, the text of the shared lake's."""

    def own(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"${{ENV:{_prefix(catalog)}{name}}}" if name in _OWN else match.group(0)

    return _VARIABLE.sub(own, shared)


def dedicated_values(catalog: str, lake: Lakehouse) -> dict[str, str]:
    """The variables of a tenant's own catalog; two of them are secret."""
    secret = lake.secret_access_key.get_secret_value()
    values = (lake.warehouse, f"{lake.access_key_id}:{secret}", lake.access_key_id, secret)
    return {f"{_prefix(catalog)}{name}": value for name, value in zip(_OWN, values, strict=True)}


def write_configuration(target: Path, shared: Path, catalogs: Iterable[str]) -> None:
    """Make `target` a copy of the configuration in `shared` with these catalogs added."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(shared, target)
    text = (shared / SHARED_FILE).read_text()
    for catalog in catalogs:
        (target / "catalog" / f"{catalog}.properties").write_text(dedicated_catalog(text, catalog))


def _prefix(catalog: str) -> str:
    return f"{catalog.upper()}_"
