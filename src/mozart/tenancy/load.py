"""Tenants from their folders: one, or all of them with the broken ones set apart.

`load_fleet` is what most callers want: a mistake in one tenant's file leaves every other tenant usable. Two tenants
that would write into the same place are a mistake of the one that left its own name; see `mozart.tenancy.footprint`.
Nothing is resolved here and the environment is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mozart.connectors.registry import registered_types
from mozart.errors import ConfigurationError, Problem
from mozart.tenancy.footprint import collisions, declared_footprint
from mozart.tenancy.model import Tenant
from mozart.tenancy.read import read_tenant
from mozart.tenancy.yaml_tree import ProblemLog, read_tree

TENANT_FILE = "tenant.yaml"


@dataclass(frozen=True)
class Fleet:
    """The tenants that can be used, by id in order, and the mistakes of the others by their folder's name."""

    tenants: tuple[Tenant, ...]
    broken: Mapping[str, tuple[Problem, ...]]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All mistakes, folder by folder."""
        return tuple(problem for folder in sorted(self.broken) for problem in self.broken[folder])

    def tenant(self, tenant_id: str) -> Tenant:
        """The tenant of that id; ConfigurationError with its mistakes, or with the known ids when there is none."""
        for tenant in self.tenants:
            if tenant.id == tenant_id:
                return tenant
        if tenant_id in self.broken:
            raise ConfigurationError(self.broken[tenant_id])
        known = ", ".join(tenant.id for tenant in self.tenants) or "none"
        raise ConfigurationError(f"there is no tenant {tenant_id!r}; known: {known}")


def load_tenant(folder: Path, source_types: Sequence[str] | None = None) -> Tenant:
    """The tenant in `folder`; ConfigurationError with every mistake of its file at once.

    `source_types` are the values `source.type` may take; by default the registered connectors.
    """
    loaded = _load(folder, registered_types() if source_types is None else source_types)
    if isinstance(loaded, Tenant):
        return loaded
    raise ConfigurationError(loaded)


def load_tenants(root: Path, source_types: Sequence[str] | None = None) -> list[Tenant]:
    """Every tenant of the project at `root`, in the order of their ids; ConfigurationError when any is broken."""
    fleet = load_fleet(root, source_types)
    if fleet.broken:
        raise ConfigurationError(fleet.problems)
    return list(fleet.tenants)


def load_fleet(root: Path, source_types: Sequence[str] | None = None) -> Fleet:
    """The good tenants of the project at `root`, and the mistakes of the others. Never raises for a tenant's file."""
    types = registered_types() if source_types is None else source_types
    good: dict[str, Tenant] = {}
    broken: dict[str, tuple[Problem, ...]] = {}
    for folder in tenant_folders(root):
        loaded = _load(folder, types)
        if isinstance(loaded, Tenant):
            good[folder.name] = loaded
        else:
            broken[folder.name] = loaded
    for tenant_id, problems in collisions([declared_footprint(tenant) for tenant in good.values()]).items():
        broken[tenant_id] = problems
        del good[tenant_id]
    return Fleet(tuple(good.values()), broken)


def tenant_folders(root: Path) -> list[Path]:
    """The folders below `tenants/`, in the order of their names; hidden ones and caches are not tenants."""
    parent = root / "tenants"
    if not parent.is_dir():
        return []
    return sorted(
        (entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))),
        key=lambda entry: entry.name,
    )


def _load(folder: Path, source_types: Sequence[str]) -> Tenant | tuple[Problem, ...]:
    log = ProblemLog(f"{folder.parent.name}/{folder.name}/{TENANT_FILE}")
    root = read_tree(folder / TENANT_FILE, log)
    tenant = read_tenant(root, folder.name, source_types, log) if root is not None else None
    return tenant if tenant is not None else log.problems
