"""`Tenant` → `ResolvedTenant`: every `${…}` replaced by values the caller gives, every result checked again.

For `mozart deploy` only. `sync`, `validate` and workers never resolve anything. No message repeats a value.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

from mozart.errors import ConfigurationError, Problem
from mozart.tenancy.model import Dedicated, IcebergSpec, ParamValue, ResolvedSource, ResolvedTenant, StorageSpec, Tenant
from mozart.tenancy.templates import is_secret_key, missing_variables, resolve_text
from mozart.tenancy.values import value_mistake


def resolve(tenant: Tenant, values: Mapping[str, str]) -> ResolvedTenant:
    """The tenant with `values` filled in; ConfigurationError with every missing variable and wrong value at once.

    An empty value counts as not set. Values are taken as they are: `${…}` inside one stays text.
    """
    resolver = _Resolver(tenant.file, values)
    source = _resolve_source(tenant, resolver)
    storage = StorageSpec(
        bucket=resolver.text("storage.bucket", tenant.storage.bucket),
        prefix=resolver.text("storage.prefix", tenant.storage.prefix),
    )
    iceberg = IcebergSpec(
        catalog=resolver.text("iceberg.catalog", tenant.iceberg.catalog),
        schema_name=resolver.text("iceberg.schema", tenant.iceberg.schema_name),
    )
    dedicated = _resolve_dedicated(tenant, resolver)
    if resolver.problems:
        raise ConfigurationError(resolver.problems)
    return ResolvedTenant(
        id=tenant.id,
        source=source,
        storage=storage,
        iceberg=iceberg,
        schedule=tenant.schedule,
        timezone=tenant.timezone,
        tables=tenant.tables,
        dedicated=dedicated,
    )


def _resolve_dedicated(tenant: Tenant, resolver: _Resolver) -> Dedicated | None:
    spec = tenant.dedicated
    if spec is None:
        return None
    return Dedicated(
        warehouse=resolver.text("iceberg.warehouse", spec.warehouse),
        access_key_id=resolver.text("storage.access_key_id", spec.access_key_id),
        secret_access_key=SecretStr(resolver.text("storage.secret_access_key", spec.secret_access_key)),
    )


class _Resolver:
    """Replaces variables and collects what is missing or wrong; a placeholder value stands in for either."""

    def __init__(self, file: str, values: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._values = values

    def text(self, key: str, template: str) -> str:
        """The value under the dotted `key` below `tenant`; empty when it could not be had."""
        missing = missing_variables(template, self._values)
        for name in dict.fromkeys(missing):
            self._note(key, f"${{{name}}} is not set; set it in the environment or in .env")
        if missing:
            return ""
        value = resolve_text(template, self._values)
        mistake = value_mistake(key, value)
        if mistake:
            self._note(key, f"its resolved value {mistake}")
        return value

    def _note(self, key: str, message: str) -> None:
        self.problems.append(Problem(self._file, f"tenant.{key}", message))


def _resolve_source(tenant: Tenant, resolver: _Resolver) -> ResolvedSource:
    spec = tenant.source
    connection = {key: resolver.text(f"source.{key}", text) for key, text in spec.connection.items()}
    options = {key: resolver.text(f"source.options.{key}", text) for key, text in spec.options.items()}
    params: dict[str, ParamValue] = {
        key: resolver.text(f"params.{key}", value) if isinstance(value, str) else value
        for key, value in spec.params.items()
    }
    port, password = connection.get("port", ""), connection.get("password")
    return ResolvedSource(
        type=spec.type,
        host=connection.get("host"),
        port=int(port) if value_mistake("source.port", port) is None else None,
        database=connection.get("database", ""),
        username=connection.get("username"),
        password=None if password is None else SecretStr(password),
        options={key: value for key, value in options.items() if not is_secret_key(key)},
        secret_options={key: SecretStr(value) for key, value in options.items() if is_secret_key(key)},
        params=params,
    )
