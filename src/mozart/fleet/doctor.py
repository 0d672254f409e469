"""What keeps a fleet from working, looked for one thing after the other, each finding with its cure.

Reads: the API, its work pools and workers, the automations, each tenant's deployment and blocks, and with the blocks'
own credentials the lake and the sources; Trino and its logins where models run there. Changes nothing, except
`end_stuck_runs`, which an operator asks for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from blocks import SourceDatabase, TenantLakehouse
from mozart.connectors.registry import create_connector
from mozart.engine.choice import TRINO, engine_name
from mozart.errors import MozartError
from mozart.fleet.engine_health import find_login_problem, find_server_problem
from mozart.fleet.plan import LAKEHOUSE_TAG, FleetPlan
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.object_store import ObjectStore
from mozart.lake.references import list_tables
from mozart.settings import Settings
from mozart.tenancy import names

STUCK = timedelta(minutes=6)
"""A run that waits this long for its process after a worker took it: the automation ends it after five minutes."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `problem` says what is wrong and the cure, and is None when nothing is."""

    what: str
    problem: str | None = None


async def examine(
    client: PrefectClient,
    plan: FleetPlan,
    settings: Settings,
    report: Callable[[Finding], None] = lambda _finding: None,
) -> list[Finding]:
    """Look at everything; a thing that cannot be looked at is a finding as well."""
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        report(finding)

    note(await _version(client))
    for pool in sorted({spec.work_pool for spec in plan.all_deployments}):
        note(await _pool(client, pool))
    for automation in plan.automations:
        note(await _automation(client, automation.name))
    if engine_name(settings) == TRINO:
        note(Finding("Trino", await asyncio.to_thread(find_server_problem, settings)))
    stuck = await find_stuck_runs(client)
    cure = "; `mozart doctor --fix` ends them" if stuck else ""
    note(Finding("stuck runs", f"{', '.join(run.name for run in stuck)} never started{cure}" if stuck else None))
    for spec in plan.deployments:
        for finding in await _tenant(client, spec.full_name, spec.parameters["tenant"], settings):
            note(finding)
    return found


async def find_stuck_runs(client: PrefectClient, now: datetime | None = None) -> list[FlowRun]:
    """Runs of ours that a worker took and that never began to run."""
    before = (now or datetime.now(UTC)) - STUCK
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[LAKEHOUSE_TAG]), state=state), limit=200
    )
    return [run for run in found if run.state and run.state.timestamp < before]


async def end_stuck_runs(client: PrefectClient, now: datetime | None = None) -> list[FlowRun]:
    """Mark stuck runs Crashed, so that their slots are free again; the runs that were ended."""
    runs = await find_stuck_runs(client, now)
    for run in runs:
        message = f"Never started within {STUCK.total_seconds() / 60:.0f} minutes; ended by `mozart doctor --fix`"
        await client.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return runs


async def _version(client: PrefectClient) -> Finding:
    server, ours = await client.api_version(), version("prefect")
    if server.split(".")[:2] == ours.split(".")[:2]:
        return Finding(f"Prefect server {server}")
    return Finding("Prefect server", f"is {server}, this project is tested with {ours}; bring them together")


async def _pool(client: PrefectClient, name: str) -> Finding:
    what = f"work pool {name}"
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        return Finding(what, "is not there; `mozart up` makes it, or `prefect work-pool create`")
    if pool.is_paused:
        return Finding(what, f"is paused; `prefect work-pool resume {name}`")
    workers = await client.read_workers_for_work_pool(name)
    if not any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return Finding(what, f"has no living worker; `mozart up`, or `prefect worker start --pool {name}`")
    return Finding(what)


async def _automation(client: PrefectClient, name: str) -> Finding:
    found = await client.read_automations_by_name(name)
    if not found:
        return Finding(f"automation {name!r}", "is not there; run `mozart deploy`")
    return Finding(f"automation {name!r}", None if found[0].enabled else "is switched off; switch it on in the UI")


async def _tenant(client: PrefectClient, deployment: str, tenant: str, settings: Settings) -> Sequence[Finding]:
    suffix = settings.suffix
    try:
        deployed = await client.read_deployment_by_name(deployment)
        source = await SourceDatabase.aload(names.source_block(tenant, suffix))
        place = await TenantLakehouse.aload(names.lakehouse_block(tenant, suffix))
    except (ObjectNotFound, ValueError):
        return [Finding(tenant, "is not deployed, or a block of it is gone; run `mozart deploy`")]
    paused = f"deployment {deployment} is paused; resume it in the UI" if deployed.paused else None
    found = [
        Finding(f"{tenant}: deployment and blocks", paused),
        await asyncio.to_thread(_source, tenant, source),
        await asyncio.to_thread(_lake, tenant, place.lakehouse(), place.namespaces()),
    ]
    if engine_name(settings) == TRINO:
        problem = await asyncio.to_thread(find_login_problem, settings, place.namespaces())
        found.append(Finding(f"{tenant}: login on Trino", problem))
    return found


def _source(tenant: str, block: SourceDatabase) -> Finding:
    what = f"{tenant}: source"
    try:
        with create_connector(block.connection(), application="mozart/doctor").open():
            return Finding(what)
    except MozartError as error:
        return Finding(what, str(error))


def _lake(tenant: str, lakehouse: Lakehouse, spaces: names.Namespaces) -> Finding:
    what = f"{tenant}: lake"
    try:
        ObjectStore(lakehouse).now(lakehouse.landing_uri)
        list_tables(lakehouse.catalog(), spaces.raw)
    except MozartError as error:
        return Finding(what, str(error))
    return Finding(what)
