"""Where a tenant writes, and which tenants would write into each other.

Compared by warehouse and schema (where the tables are), by catalog and schema (their names in SQL), and by bucket and
prefix (one prefix inside another counts). Ids and schemas cannot end in `_raw` (see `names`), so two tenants meet among
the tables only by an equal schema. Blame falls on the tenant that left its own name, so that a newcomer cannot take an
existing tenant out of service; if neither or both did, both are named.

Pitfall: a catalog is a name only; a tenant without a lake of its own is in the shared warehouse whatever it is called.
Pitfall: before resolution a variable without a default is compared by its name; `check_resolved` compares the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

from mozart.errors import Problem
from mozart.tenancy import names
from mozart.tenancy.model import ResolvedTenant, Tenant
from mozart.tenancy.templates import declared_value


@dataclass(frozen=True)
class Footprint:
    """The places one tenant writes to. `warehouse`: "" is the shared one, where nobody knows its name."""

    tenant_id: str
    warehouse: str
    catalog: str
    schema: str
    bucket: str
    prefix: tuple[str, ...]


def declared_footprint(tenant: Tenant, shared_warehouse: str = "") -> Footprint:
    """The places as far as the file tells: defaults stand for variables, and names for those without one."""
    return Footprint(
        tenant_id=tenant.id,
        warehouse=_declared(tenant.dedicated.warehouse) if tenant.dedicated else shared_warehouse,
        catalog=_declared(tenant.iceberg.catalog),
        schema=_declared(tenant.iceberg.schema_name),
        bucket=_declared(tenant.storage.bucket),
        prefix=prefix_parts(_declared(tenant.storage.prefix)),
    )


def resolved_footprint(tenant: ResolvedTenant, shared_warehouse: str) -> Footprint:
    """The places with every variable resolved; `shared_warehouse` is that of tenants without a lake of their own."""
    return Footprint(
        tenant_id=tenant.id,
        warehouse=tenant.dedicated.warehouse if tenant.dedicated else shared_warehouse,
        catalog=tenant.iceberg.catalog,
        schema=tenant.iceberg.schema_name,
        bucket=tenant.storage.bucket,
        prefix=prefix_parts(tenant.storage.prefix),
    )


def prefix_parts(prefix: str) -> tuple[str, ...]:
    """A landing prefix as it is compared: part by part, whatever slashes are around it."""
    return tuple(part for part in prefix.split("/") if part)


def check_resolved(tenants: Sequence[ResolvedTenant], shared_warehouse: str) -> dict[str, tuple[Problem, ...]]:
    """The collisions that only show once variables are resolved, by tenant id."""
    return collisions([resolved_footprint(tenant, shared_warehouse) for tenant in tenants])


def collisions(footprints: Sequence[Footprint]) -> dict[str, tuple[Problem, ...]]:
    """The mistakes of the tenants that write where another does, by tenant id."""
    found: dict[str, list[Problem]] = {}
    for first, second in meeting(footprints):
        if first.schema == second.schema and _share_tables(first, second):
            own = (first.schema == first.tenant_id, second.schema == second.tenant_id)
            for blamed, other in _blamed(first, second, own):
                place = f"the schema {first.schema!r}"
                found.setdefault(blamed, []).append(_problem(blamed, other, "tenant.iceberg.schema", place))
        if first.bucket == second.bucket and _overlap(first.prefix, second.prefix):
            own = (first.prefix[-1:] == (first.tenant_id,), second.prefix[-1:] == (second.tenant_id,))
            for blamed, other in _blamed(first, second, own):
                place = f"the prefix {'/'.join(first.prefix)!r} of bucket {first.bucket!r}"
                found.setdefault(blamed, []).append(_problem(blamed, other, "tenant.storage.prefix", place))
    return {tenant_id: tuple(problems) for tenant_id, problems in found.items()}


def meeting(footprints: Sequence[Footprint]) -> list[tuple[Footprint, Footprint]]:
    """The pairs that write to one schema or into one prefix, by their ids; does not compare all with all."""
    found: set[tuple[int, int]] = set()
    ordered = sorted(footprints, key=lambda footprint: footprint.tenant_id)
    by_schema: dict[tuple[str, str, str], list[int]] = {}
    for number, footprint in enumerate(ordered):
        by_schema.setdefault(("warehouse", footprint.warehouse, footprint.schema), []).append(number)
        by_schema.setdefault(("catalog", footprint.catalog, footprint.schema), []).append(number)
    for numbers in by_schema.values():
        found.update(combinations(numbers, 2))
    # Sorted by place, what lies inside a prefix follows it; `around` holds the prefixes that the present one lies in.
    around: list[int] = []
    for number in sorted(range(len(ordered)), key=lambda number: (ordered[number].bucket, ordered[number].prefix)):
        place = ordered[number]
        while around and not _is_inside(place, ordered[around[-1]]):
            around.pop()
        found.update((min(number, other), max(number, other)) for other in around)
        around.append(number)
    return [(ordered[first], ordered[second]) for first, second in sorted(found)]


def branch_collisions(footprints: Sequence[Footprint], suffix: str) -> list[Problem]:
    """Where a branch of one tenant could be taken for something of another: its production or a branch of it.

    Ids and schemas: acme in branch `eu_dev` is acme_eu in branch `dev`. Landing prefixes: only production's are known.
    Empty without a suffix.
    """
    if not suffix:
        return []
    found: list[Problem] = []
    if suffix.endswith(names.RAW_SUFFIX):
        message = f"{suffix.lstrip('_')!r} ends like raw namespaces do; choose another branch name"
        found.append(Problem("environment", "MOZART_BRANCH", message))
    for footprint, other in permutations(footprints, 2):
        taken = _taken_by_branch(footprint, other, suffix)
        if taken:
            message = (
                f"tenant {footprint.tenant_id!r} would use {taken!r}, which is {other.tenant_id!r}'s or its branch's"
            )
            found.append(Problem("environment", "MOZART_BRANCH", f"{message}; choose another branch name"))
    return found


def _taken_by_branch(footprint: Footprint, other: Footprint, suffix: str) -> str | None:
    ids = (footprint.tenant_id, other.tenant_id)
    pairs = [ids, (footprint.schema, other.schema)] if _share_tables(footprint, other) else [ids]
    for own, foreign in pairs:
        branched = f"{own}{suffix}"
        # Above what both have in common: acme_dev is no mistake for acme itself.
        if len(foreign) > len(own) and f"{branched}_".startswith(f"{foreign}_"):
            return branched
    prefix = (*footprint.prefix[:-1], f"{footprint.prefix[-1]}{suffix}") if footprint.prefix else ()
    if footprint.bucket == other.bucket and _overlap(prefix, other.prefix):
        return "/".join(prefix)
    return None


def _share_tables(first: Footprint, second: Footprint) -> bool:
    """Whether an equal schema would be one and the same, in the lake or in SQL."""
    return first.warehouse == second.warehouse or first.catalog == second.catalog


def _declared(text: str) -> str:
    value = declared_value(text)
    return text if value is None else value


def _is_inside(inner: Footprint, outer: Footprint) -> bool:
    return inner.bucket == outer.bucket and inner.prefix[: len(outer.prefix)] == outer.prefix


def _overlap(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _blamed(first: Footprint, second: Footprint, own: tuple[bool, bool]) -> list[tuple[str, str]]:
    """Who is to blame, each with the other's id. `own`: whether each kept its own name."""
    if own[0] != own[1]:
        keeper, leaver = (first, second) if own[0] else (second, first)
        return [(leaver.tenant_id, keeper.tenant_id)]
    return [(first.tenant_id, second.tenant_id), (second.tenant_id, first.tenant_id)]


def _problem(blamed: str, other: str, key: str, place: str) -> Problem:
    message = f"{place} is also written to by tenant {other!r}; give each tenant its own"
    return Problem(f"tenants/{blamed}/tenant.yaml", key, message)
