"""Every name Mozart gives to something of a tenant, and the grammar they follow.

One place, because names are contracts: a table's identifier, a model's file name or a block's document name that is
spelled differently in two modules is data nobody finds. Nothing here reads a file or the environment.

Pitfalls: a block document's name may hold no underscore (Prefect refuses it), so ids are written with dashes there;
the suffix of a branch goes onto the schema and `_raw` comes last, so that raw is `{schema}_raw` in every environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from mozart.errors import ConfigurationError, Problem

Layer = Literal["stg", "mart"]

SHARED_CATALOG = "iceberg"
"""The shared lake's name in SQL."""
RAW_SUFFIX = "_raw"
_CANDIDATES_SUFFIX = "__candidates"  # no tenant can have such a namespace: ids hold no `__`
IDENTIFIER_LENGTH = 63
"""The longest name every engine involved keeps whole (PostgreSQL cuts longer ones off)."""
BRANCH_SUFFIX_LENGTH = 22
"""An underscore and the longest branch name `mozart.settings` accepts."""
SCHEMA_LENGTH = IDENTIFIER_LENGTH - len(RAW_SUFFIX) - BRANCH_SUFFIX_LENGTH
"""The longest tenant id or schema: its raw namespace in a branch still fits."""
TABLE_LENGTH = IDENTIFIER_LENGTH - len("stg_")

# Schemas of the engines themselves: a namespace of this name would hide them or be hidden.
RESERVED = frozenset({"information_schema", "pg_catalog", "pg_toast", "main", "temp", "system", "sys", "default"})

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_MODEL = re.compile(r"(?P<tenant>[a-z](?:[a-z0-9]|_(?!_))*)__(?P<layer>stg|mart)_(?P<entity>[a-z0-9][a-z0-9_]*)")


def identifier_mistake(name: str, *, longest: int = IDENTIFIER_LENGTH) -> str | None:
    """What is wrong with `name` as an identifier of ours, or None."""
    if not _IDENTIFIER.fullmatch(name):
        return "must match [a-z][a-z0-9_]* (lower case letters, digits, underscores; a letter first)"
    if len(name) > longest:
        return f"is {len(name)} characters long; {longest} is the most"
    return None


def namespace_mistake(name: str) -> str | None:
    """What is wrong with `name` as a tenant's id or schema, or None.

    `_raw` at the end is the raw namespace of another tenant; `__` and a trailing `_` would make model names ambiguous.
    """
    mistake = identifier_mistake(name, longest=SCHEMA_LENGTH)
    if mistake:
        return mistake
    if name in RESERVED:
        return "is a schema of the engines themselves; choose another name"
    if name.endswith(RAW_SUFFIX):
        return f"must not end in {RAW_SUFFIX}: that is the raw namespace of {name.removesuffix(RAW_SUFFIX)!r}"
    if "__" in name or name.endswith("_"):
        return "must not contain '__' or end in '_': model names separate their parts by '__'"
    return None


@dataclass(frozen=True)
class TableIdentifier:
    """An Iceberg table as `catalog.namespace.table`."""

    catalog: str
    namespace: str
    table: str

    def __str__(self) -> str:
        return f"{self.catalog}.{self.namespace}.{self.table}"


@dataclass(frozen=True)
class Namespaces:
    """Where a tenant's tables are: `core` holds staging and marts, `raw` the loaded tables."""

    catalog: str
    core: str
    raw: str

    def raw_table(self, table: str) -> TableIdentifier:
        return TableIdentifier(self.catalog, self.raw, table)

    def staging_table(self, table: str) -> TableIdentifier:
        return TableIdentifier(self.catalog, self.core, f"stg_{table}")

    def mart_table(self, entity: str) -> TableIdentifier:
        return TableIdentifier(self.catalog, self.core, f"mart_{entity}")


def branch_suffix(branch: str | None) -> str:
    """What a branch appends to namespaces, prefixes and deployment names; empty outside a branch."""
    return f"_{branch}" if branch else ""


def namespaces(catalog: str, schema: str, suffix: str = "") -> Namespaces:
    """The namespaces of a schema; `suffix` is the environment's (`_feature` in a branch, empty elsewhere)."""
    core = f"{schema}{suffix}"
    return Namespaces(catalog=catalog, core=core, raw=f"{core}{RAW_SUFFIX}")


def candidates_namespace(core: str) -> str:
    """Where Trino keeps the candidates of the tenant whose tables lie in `core`."""
    return f"{core}{_CANDIDATES_SUFFIX}"


@dataclass(frozen=True)
class ModelName:
    """A dbt model's name taken apart: `acme__stg_cases` is tenant acme, layer stg, entity cases."""

    tenant: str
    layer: Layer
    entity: str

    def __str__(self) -> str:
        return f"{self.tenant}__{self.layer}_{self.entity}"

    @property
    def alias(self) -> str:
        """The table's physical name: `stg_cases`."""
        return f"{self.layer}_{self.entity}"


def parse_model_name(name: str) -> ModelName:
    """`acme__mart_case` → ModelName; ConfigurationError when it does not follow the grammar."""
    match = _MODEL.fullmatch(name)
    if match is None or namespace_mistake(match["tenant"]):
        raise ConfigurationError(
            Problem(
                f"{name}.sql", "", "a model is named {tenant}__stg_{entity} or {tenant}__mart_{entity}, in lower case"
            )
        )
    return ModelName(match["tenant"], cast(Layer, match["layer"]), match["entity"])


def raw_source(tenant_id: str) -> str:
    """The dbt source that holds a tenant's raw tables."""
    return f"{tenant_id}{RAW_SUFFIX}"


def raw_asset(tenant_id: str, table: str, suffix: str = "") -> str:
    """The asset key of a raw table."""
    return f"iceberg://{tenant_id}{suffix}/input/{table}"


def model_asset(model: ModelName, suffix: str = "") -> str:
    """The asset key of a staging or mart table."""
    stage = "staging" if model.layer == "stg" else "output"
    return f"iceberg://{model.tenant}{suffix}/{stage}/{model.alias}"


def landing_prefix(tenant_id: str) -> str:
    """Where a tenant's landing files are when its file follows the template."""
    return f"raw/{tenant_id}"


def source_block(tenant_id: str, suffix: str = "") -> str:
    """The block document that holds a tenant's source database; a branch has its own."""
    return f"{_dashed(tenant_id)}-source{_dashed(suffix)}"


def lakehouse_block(tenant_id: str, suffix: str = "") -> str:
    """The block document that holds a tenant's lakehouse; a branch has its own."""
    return f"{_dashed(tenant_id)}-lakehouse{_dashed(suffix)}"


def _dashed(tenant_id: str) -> str:
    # One to one: an id holds no dash of its own.
    return tenant_id.replace("_", "-")


def deployment_name(tenant_id: str, suffix: str = "") -> str:
    """The tenant's deployment of `tenant-pipeline`."""
    return f"{tenant_id}{suffix}"


def source_limit(tenant_id: str) -> str:
    """The concurrency limit that bounds how many tables are read from a source at once, in all environments."""
    return f"source-{tenant_id}"


def tenant_tag(tenant_id: str) -> str:
    """The tag on everything of a tenant in the UI."""
    return f"tenant:{tenant_id}"


def dbt_target_folder(state: Path, tenant_id: str, suffix: str = "") -> Path:
    """dbt's target path of one tenant, under the local state; branches have folders of their own."""
    return state / "dbt" / tenant_id / (suffix.lstrip("_") or "default")
