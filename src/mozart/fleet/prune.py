"""What the Prefect API holds of ours and the plan no longer has: found by what the objects themselves say, and removed.

Only objects that Mozart made are looked at: deployments of its flows that carry its tag, documents of its own block
types, limits of tenants it found there. An environment prunes its own: a branch never touches production, production
never a branch. A tenant's data is not looked at here; it stays until somebody asks for its removal.

Pitfall: a tenant whose file cannot be read has not left. Nothing of it is removed; `untouched` names such tenants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import BlockDocument
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from blocks import SourceDatabase, TenantLakehouse
from mozart.fleet.changes import Applied
from mozart.fleet.plan import LAKEHOUSE_TAG, TENANT_FLOWS, FleetEnvironment, FleetPlan
from mozart.lake.lakehouse import Lakehouse
from mozart.tenancy import names

_PAGE = 200
_BLOCKS: tuple[type[Block], ...] = (SourceDatabase, TenantLakehouse)


async def prune(
    client: PrefectClient,
    plan: FleetPlan,
    shared: Lakehouse,
    report: Callable[[Applied], None],
    untouched: Collection[str] = (),
) -> None:
    """Remove what left the plan: deployments (their schedules with them), blocks, limits. `shared`: the shared lake."""
    kept = {deployment.full_name for deployment in plan.all_deployments}
    tenants = {deployment.parameters["tenant"] for deployment in plan.deployments} | set(untouched)
    gone: set[str] = set()
    for flow_name in TENANT_FLOWS:
        for deployment in await find_deployments(client, flow_name, plan.environment):
            full_name = f"{flow_name}/{deployment.name}"
            if full_name not in kept and not _tenants_of(deployment) & set(untouched):
                gone |= _tenants_of(deployment)
                await client.delete_deployment(deployment.id)
                report(Applied("deployment", full_name, "removed"))
    for document in await find_documents(client, plan.environment):
        tenant = str(document.data.get("tenant"))
        if tenant not in tenants:
            gone.add(tenant)
            await client.delete_block_document(document.id)
            report(Applied("block", str(document.name), "removed", left_behind(document.data, shared)))
    if not plan.environment.branch:  # a branch shares production's limits
        for tenant in sorted(gone - tenants):
            await _remove_limit(client, names.source_limit(tenant), report)


async def find_deployments(
    client: PrefectClient, flow_name: str, environment: FleetEnvironment
) -> list[DeploymentResponse]:
    """The deployments of a flow that Mozart made in this environment."""
    found: list[DeploymentResponse] = []
    flow = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    while True:
        page = await client.read_deployments(flow_filter=flow, limit=_PAGE, offset=len(found))
        found.extend(page)
        if len(page) < _PAGE:
            return [item for item in found if LAKEHOUSE_TAG in item.tags and _branch_of(item) == environment.branch]


def _branch_of(deployment: DeploymentResponse) -> str | None:
    return next((tag.removeprefix("branch:") for tag in deployment.tags if tag.startswith("branch:")), None)


def _tenants_of(deployment: DeploymentResponse) -> set[str]:
    return {tag.removeprefix("tenant:") for tag in deployment.tags if tag.startswith("tenant:")}


async def find_documents(client: PrefectClient, environment: FleetEnvironment) -> list[BlockDocument]:
    """The documents of Mozart's block types in this environment, secrets left out."""
    found: list[BlockDocument] = []
    for block in _BLOCKS:
        slug: Any = block.get_block_type_slug()
        try:
            found.extend(await client.read_block_documents_by_type(slug, include_secrets=False))
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 404:
                raise
            continue  # the type was never registered: there is no document of it
    return [item for item in found if item.name and item.data.get("branch", "") == (environment.branch or "")]


def left_behind(data: Mapping[str, Any], shared: Lakehouse) -> str:
    """Where the data of a tenant with this block still is, and the command that removes it; "" for another block."""
    if "schema_name" not in data:
        return ""
    tenant, schema, prefix = data["tenant"], data["schema_name"], data["prefix"]
    options = "" if schema == tenant else f" --schema {schema}"
    options += "" if prefix == names.landing_prefix(tenant) else f" --prefix {prefix}"
    options += "" if data["bucket"] == shared.bucket else f" --bucket {data['bucket']}"
    place = f"{schema}_raw, {schema} and {prefix}"
    if data["warehouse"] != shared.warehouse:
        place += f" of warehouse {data['warehouse']} and bucket {data['bucket']}"
        options += f" --catalog {data['catalog']} --warehouse {data['warehouse']}"
        options += " --access-key-id VARIABLE --secret-access-key VARIABLE"
    return f"its data stays in {place}; remove it with `mozart tenant drop {tenant}{options}`"


async def _remove_limit(client: PrefectClient, name: str, report: Callable[[Applied], None]) -> None:
    try:
        await client.delete_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        return
    report(Applied("limit", name, "removed"))
