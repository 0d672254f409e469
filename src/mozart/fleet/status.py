"""How the fleet is: each tenant's last run, its last good one, what comes next, and whether that is well.

Read from the Prefect API alone; what is in the lake says `mozart query`, how fresh the views are `mozart olap health`.
A tenant is unwell when its deployment is missing, its last run did not complete, or its schedule has passed twice
since the last good run began, whoever may be to blame: no worker, a paused schedule, a run that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas.schedules import CronSchedule

from mozart.fleet.plan import TENANT_FLOW, DeploymentSpec

_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
_UNDER_WAY = [StateType.RUNNING, StateType.PENDING]
_MISSED = 2
"""One passed date may be the run that is about to start; two are none."""


@dataclass(frozen=True)
class TenantStatus:
    """One tenant. Times in UTC; `seconds` is how long the last ended run took; `problem` is None when all is well."""

    tenant: str
    deployment: str
    last_state: str | None = None
    last_ended_at: datetime | None = None
    seconds: float | None = None
    last_success_at: datetime | None = None
    under_way: str | None = None
    next_at: datetime | None = None
    problem: str | None = None


async def read_status(
    client: PrefectClient, deployments: Sequence[DeploymentSpec], now: datetime | None = None
) -> list[TenantStatus]:
    """The status of each tenant's pipeline, in the plan's order."""
    moment = now or datetime.now(UTC)
    pipelines = [spec for spec in deployments if spec.flow_name == TENANT_FLOW]
    return list(await asyncio.gather(*(_status(client, spec, moment) for spec in pipelines)))


async def _status(client: PrefectClient, spec: DeploymentSpec, now: datetime) -> TenantStatus:
    tenant = spec.parameters["tenant"]
    try:
        deployment = await client.read_deployment_by_name(spec.full_name)
    except ObjectNotFound:
        return TenantStatus(tenant, spec.full_name, problem="not deployed; run `mozart deploy`")
    last, good, current = await asyncio.gather(
        _newest(client, deployment, _ENDED),
        _newest(client, deployment, [StateType.COMPLETED]),
        _newest(client, deployment, _UNDER_WAY),
    )
    began = good.start_time if good else None
    return TenantStatus(
        tenant=tenant,
        deployment=spec.full_name,
        last_state=last.state_name if last else None,
        last_ended_at=last.end_time if last else None,
        seconds=last.total_run_time.total_seconds() if last else None,
        last_success_at=good.end_time if good else None,
        under_way=f"{current.name} ({current.state_name})" if current else None,
        next_at=await _next(spec, deployment, now),
        problem=_run_problem(last) or await _missed(spec, deployment, began or deployment.created, now),
    )


async def _newest(client: PrefectClient, deployment: DeploymentResponse, types: Sequence[StateType]) -> FlowRun | None:
    found = await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    return found[0] if found else None


def _run_problem(last: FlowRun | None) -> str | None:
    if last is None or last.state is None or last.state.type == StateType.COMPLETED:
        return None
    if last.state.type == StateType.CANCELLED:
        return None  # one of two runs at once, or an operator's wish; a tenant that stays behind is found by its dates
    message = (last.state.message or "").strip().splitlines()
    return f"run {last.name} {(last.state_name or '').lower()}: {message[0] if message else 'see its page'}"


async def _next(spec: DeploymentSpec, deployment: DeploymentResponse, now: datetime) -> datetime | None:
    if spec.schedule is None or deployment.paused or not any(row.active for row in deployment.schedules):
        return None
    return (await _dates(spec, now, 1))[0]


async def _missed(
    spec: DeploymentSpec, deployment: DeploymentResponse, since: datetime | None, now: datetime
) -> str | None:
    """Says so when `_MISSED` dates of the schedule have passed since the last good run began."""
    if spec.schedule is None or not spec.schedule.active or since is None:
        return None
    dates = await _dates(spec, since, _MISSED)
    if len(dates) < _MISSED or dates[-1] > now:
        return None
    why = "its schedule is paused" if deployment.paused or not any(row.active for row in deployment.schedules) else ""
    return (
        f"no good run since {since:%Y-%m-%d %H:%M} UTC{f': {why}' if why else '; is a worker running? `mozart doctor`'}"
    )


async def _dates(spec: DeploymentSpec, after: datetime, count: int) -> list[datetime]:
    if spec.schedule is None:
        return []
    cron = CronSchedule(cron=spec.schedule.cron, timezone=spec.schedule.timezone)
    dates = await cron.get_dates(count + 1, start=after)
    return [date for date in (datetime.fromtimestamp(d.timestamp(), UTC) for d in dates) if date > after][:count]
