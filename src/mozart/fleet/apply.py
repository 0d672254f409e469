"""A fleet plan against the Prefect API: what differs is applied, what is the same is left alone, both are said.

Order: blocks, limits, automations, deployments, so that a deployment never exists before what its runs need. Secrets
go into block documents and nowhere else; a change is found by comparing values, never by printing them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, Secret, SecretStr
from pydantic_core import to_jsonable_python

from blocks import SourceDatabase, TenantLakehouse
from mozart.fleet.automations import build_automation
from mozart.fleet.changes import Applied, Change
from mozart.fleet.plan import DeploymentSpec, FleetEnvironment, FleetPlan, LimitSpec, RunLimit
from mozart.fleet.prune import prune
from mozart.lake.lakehouse import Lakehouse
from mozart.tenancy import names
from mozart.tenancy.model import ResolvedTenant

PULL_STEPS: list[dict[str, Any]] = [
    {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $MOZART_ROOT }}"}}
]


async def apply_plan(
    client: PrefectClient,
    plan: FleetPlan,
    tenants: Sequence[ResolvedTenant],
    lakehouse: Lakehouse,
    report: Callable[[Applied], None] = lambda _applied: None,
    *,
    untouched: Collection[str] = (),
    is_rehearsal: bool = False,
) -> list[Applied]:
    """Make the Prefect API hold `plan` and the tenants' blocks; `lakehouse` is the store and catalog they share.

    `untouched` are tenants that are there but cannot be read: what the API holds of them stays as it is. In a rehearsal
    no block is saved; the client is then one of `mozart.fleet.rehearsal`.
    """
    done: list[Applied] = []

    def note(applied: Applied) -> None:
        done.append(applied)
        report(applied)

    for tenant in tenants:
        for name, block in _blocks(tenant, lakehouse, plan.environment):
            note(Applied("block", name, await save_block(name, block, is_rehearsal=is_rehearsal)))
    for limit in plan.limits:
        note(await _apply_limit(client, limit))
    for automation in plan.automations:
        note(await put_automation(client, build_automation(automation)))
    for deployment in plan.all_deployments:
        note(await _apply_deployment(client, deployment))
    await prune(client, plan, lakehouse, note, untouched)
    return done


def _blocks(
    tenant: ResolvedTenant, lakehouse: Lakehouse, environment: FleetEnvironment
) -> list[tuple[str, SourceDatabase | TenantLakehouse]]:
    place = TenantLakehouse.of(lakehouse, tenant, environment.branch)
    return [
        (names.source_block(tenant.id, environment.suffix), SourceDatabase.of(tenant, environment.branch)),
        (names.lakehouse_block(tenant.id, environment.suffix), place),
    ]


async def save_block(name: str, block: Block, *, is_rehearsal: bool = False) -> Change:
    """Save the block's document under this name unless it holds the same values; a rehearsal only says so."""
    change = await _block_change(name, block)
    if change != "unchanged" and not is_rehearsal:
        await block.asave(name, overwrite=change == "updated")
    return change


async def _block_change(name: str, block: Block) -> Change:
    try:
        current = await type(block).aload(name)
    except ValueError:  # Prefect's answer for a document or a type that is not there
        return "created"
    except RuntimeError:  # a document of an older shape, which no longer validates
        return "updated"
    return "unchanged" if _block_values(current) == _block_values(block) else "updated"


def _block_values(block: Block) -> dict[str, Any]:
    """The fields' values, secrets included, without the document's own id and name, also in nested blocks.

    Not by the block's own dump, which writes its JSON schema anew for every field: 0.15 s a block.
    """
    return {name: _plain(getattr(block, name)) for name in type(block).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Block):
        return _block_values(value)
    if isinstance(value, (Secret, SecretStr)):
        return cast(Any, value).get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    return to_jsonable_python(value)


async def _apply_limit(client: PrefectClient, limit: LimitSpec) -> Applied:
    try:
        current = await client.read_global_concurrency_limit_by_name(limit.name)
        change: Change = "unchanged" if current.limit == limit.limit and current.active else "updated"
    except ObjectNotFound:
        change = "created"
    if change != "unchanged":
        await client.upsert_global_concurrency_limit_by_name(limit.name, limit.limit)
    return Applied("limit", limit.name, change)


async def put_automation(client: PrefectClient, wanted: AutomationCore) -> Applied:
    """Create the automation, or make the one of its name like it; an equal one is left alone."""
    found = await client.read_automations_by_name(wanted.name)
    if not found:
        await client.create_automation(wanted)
        return Applied("automation", wanted.name, "created")
    current = found[0]
    if _automation_values(current) == _automation_values(wanted):
        return Applied("automation", wanted.name, "unchanged")
    await client.update_automation(current.id, wanted)
    return Applied("automation", wanted.name, "updated")


def _automation_values(automation: Any) -> dict[str, Any]:
    keys = {"name", "description", "enabled", "trigger", "actions"}
    values = automation.model_dump(mode="json", include=keys)
    values["trigger"].pop("id", None)
    for listed in ("after", "expect", "for_each"):
        values["trigger"][listed] = sorted(values["trigger"][listed])
    return values


async def _apply_deployment(client: PrefectClient, spec: DeploymentSpec) -> Applied:
    flow = load_flow_from_entrypoint(spec.entrypoint)
    wanted = _deployment_values(spec, parameter_schema(flow).model_dump_for_openapi())
    flow_id = await client.create_flow_from_name(spec.flow_name)
    try:
        current = await client.read_deployment_by_name(spec.full_name)
    except ObjectNotFound:
        await _put(client, flow_id, spec, wanted)
        return Applied("deployment", spec.full_name, "created")
    if _current_values(current) == wanted:
        return Applied("deployment", spec.full_name, "unchanged")
    await _put(client, flow_id, spec, wanted)
    return Applied("deployment", spec.full_name, "updated")


def _deployment_values(spec: DeploymentSpec, schema: dict[str, Any]) -> dict[str, Any]:
    """What Mozart sets on a deployment, in the form it is compared in."""
    schedules = []
    if spec.schedule:
        schedules = [{"cron": spec.schedule.cron, "timezone": spec.schedule.timezone, "active": spec.schedule.active}]
    return {
        "description": spec.description,
        "entrypoint": spec.entrypoint,
        "parameters": dict(spec.parameters),
        "tags": sorted(spec.tags),
        "work_pool_name": spec.work_pool,
        "job_variables": {key: dict(value) for key, value in spec.job_variables.items()},
        "concurrency": _concurrency_values(spec.concurrency),
        "pull_steps": PULL_STEPS,
        "schedules": schedules,
        "parameter_openapi_schema": schema,
    }


def _concurrency_values(limit: RunLimit | None) -> list[Any]:
    if limit is None:
        return [None, None, None]
    return [limit.limit, limit.collision_strategy, limit.grace_period_seconds]


def _current_values(current: DeploymentResponse) -> dict[str, Any]:
    limit = current.global_concurrency_limit
    options = current.concurrency_options
    return {
        "description": current.description,
        "entrypoint": current.entrypoint,
        "parameters": current.parameters,
        "tags": sorted(current.tags),
        "work_pool_name": current.work_pool_name,
        "job_variables": current.job_variables,
        "concurrency": [
            limit.limit if limit else None,
            options.collision_strategy.value if options else None,
            options.grace_period_seconds if options else None,
        ],
        "pull_steps": current.pull_steps,
        "schedules": [
            {"cron": item.schedule.cron, "timezone": item.schedule.timezone, "active": item.active}
            for item in current.schedules
            if isinstance(item.schedule, CronSchedule)
        ],
        "parameter_openapi_schema": current.parameter_openapi_schema,
    }


async def _put(client: PrefectClient, flow_id: Any, spec: DeploymentSpec, wanted: dict[str, Any]) -> None:
    """Create the deployment, or replace the one of this name: the API upserts, schedules and pull steps included."""
    await client.create_deployment(
        flow_id,
        spec.name,
        schedules=_schedules(spec),
        concurrency_limit=spec.concurrency.limit if spec.concurrency else None,
        concurrency_options=_concurrency_options(spec.concurrency) if spec.concurrency else None,
        parameters=wanted["parameters"],
        description=spec.description,
        work_pool_name=spec.work_pool,
        tags=list(spec.tags),
        path=".",
        entrypoint=spec.entrypoint,
        parameter_openapi_schema=wanted["parameter_openapi_schema"],
        pull_steps=wanted["pull_steps"],
        job_variables=wanted["job_variables"],
        enforce_parameter_schema=True,
    )


def _schedules(spec: DeploymentSpec) -> list[DeploymentScheduleCreate]:
    if spec.schedule is None:
        return []
    cron = CronSchedule(cron=spec.schedule.cron, timezone=spec.schedule.timezone)
    return [DeploymentScheduleCreate(schedule=cron, active=spec.schedule.active)]


def _concurrency_options(limit: RunLimit) -> ConcurrencyOptions:
    return ConcurrencyOptions(
        collision_strategy=ConcurrencyLimitStrategy(limit.collision_strategy),
        grace_period_seconds=limit.grace_period_seconds,
    )
