"""Whether what the deployments name is there: entrypoints that import, flows that take the parameters, next runs.

Asks no server. Importing an entrypoint runs the project's own modules, as a worker would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.server.schemas.schedules import CronSchedule

from mozart.errors import Problem
from mozart.fleet.plan import DeploymentSpec, ScheduleSpec


def entrypoint_problems(root: Path, deployments: Sequence[DeploymentSpec]) -> list[Problem]:
    """Entrypoints that cannot be imported, are no flow of that name, or do not take a deployment's parameters."""
    problems: list[Problem] = []
    for entrypoint in dict.fromkeys(deployment.entrypoint for deployment in deployments):
        users = [deployment for deployment in deployments if deployment.entrypoint == entrypoint]
        loaded = _load(root, entrypoint)
        if isinstance(loaded, Problem):
            problems.append(loaded)
        else:
            problems += _misfits(loaded, users)
    return problems


def next_runs(schedule: ScheduleSpec, count: int, after: datetime | None = None) -> list[datetime]:
    """The next `count` times of a schedule in UTC, as the server will plan them; `after` is now unless given."""
    cron = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    dates = asyncio.run(cron.get_dates(count, start=after or datetime.now(UTC)))
    return [datetime.fromtimestamp(date.timestamp(), UTC) for date in dates]


def _load(root: Path, entrypoint: str) -> Flow[Any, Any] | Problem:
    file, _, name = entrypoint.partition(":")
    if not (root / file).is_file():
        return Problem(file, "", f"does not exist; deployments start {name} in it")
    try:
        return load_flow_from_entrypoint(f"{root / file}:{name}", use_placeholder_flow=False)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a flow's module may raise anything while imported
        return Problem(file, name, f"cannot be imported: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _misfits(flow: Flow[Any, Any], users: Sequence[DeploymentSpec]) -> list[Problem]:
    known = set(flow.parameters.properties)
    problems: list[Problem] = []
    for deployment in users:
        file, _, name = deployment.entrypoint.partition(":")
        if flow.name != deployment.flow_name:
            problems.append(Problem(file, name, f"is flow {flow.name!r}; deployments name it {deployment.flow_name!r}"))
        unknown = sorted(set(deployment.parameters) - known)
        if unknown:
            message = f"takes no parameter {', '.join(unknown)}, which deployment {deployment.name} gives"
            problems.append(Problem(file, name, message))
    return list(dict.fromkeys(problems))
