"""A branch taken away without a trace: its deployments, its runs, its tables and files, its blocks.

Found by what the objects themselves say (tags, the blocks' branch), so also what tenants that have left the project
had there. Blocks come last, for they say where the data is: ended half-way, it is called again. Production's objects
carry no branch and are never looked at; the limits are shared with production and stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType

from blocks import TenantLakehouse
from mozart.errors import TransientError
from mozart.fleet.plan import LAKEHOUSE_TAG, TENANT_FLOWS, FleetEnvironment
from mozart.fleet.prune import find_deployments, find_documents
from mozart.lake.removal import remove_tenant_data

Progress = Callable[[str], None]

_PAGE = 200
_IN_FLIGHT = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED]


async def remove_branch(client: PrefectClient, environment: FleetEnvironment, report: Progress) -> None:
    """Remove everything of the environment's branch.

    Raises TransientError while a run of it is under way: what it writes next would stay behind.
    """
    if not environment.branch:
        raise ValueError("only a branch is taken away whole")
    tags = [LAKEHOUSE_TAG, *environment.tags]
    for flow_name in TENANT_FLOWS:
        for deployment in await find_deployments(client, flow_name, environment):
            await client.delete_deployment(deployment.id)
            report(f"deployment {flow_name}/{deployment.name}: removed")
    await require_no_runs(client, tags)
    documents = await find_documents(client, environment)
    slug = TenantLakehouse.get_block_type_slug()
    for document in documents:
        if document.block_type is not None and document.block_type.slug == slug:
            block = await TenantLakehouse.aload(str(document.name))
            await asyncio.to_thread(remove_tenant_data, block.lakehouse(), block.namespaces(), report)
    await _delete_runs(client, tags, report)
    for document in documents:
        await client.delete_block_document(document.id)
        report(f"block {document.name}: removed")


async def require_no_runs(client: PrefectClient, tags: Sequence[str]) -> None:
    """Raises TransientError naming a run with these tags that is under way."""
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=_IN_FLIGHT))
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=list(tags)), state=states), limit=1
    )
    if found:
        run = found[0]
        raise TransientError(
            f"run {run.name} ({run.state_name}) is under way; wait for it or cancel it, then try again"
        )


async def _delete_runs(client: PrefectClient, tags: Sequence[str], report: Progress) -> None:
    count = 0
    while page := await _runs(client, tags):
        for run in page:
            await client.delete_flow_run(run.id)
        count += len(page)
    if count:
        report(f"{count} runs: removed")


async def _runs(client: PrefectClient, tags: Sequence[str]) -> list[FlowRun]:
    return await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=list(tags))), limit=_PAGE
    )
