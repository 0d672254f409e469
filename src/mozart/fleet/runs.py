"""Start a deployment's run through its worker, and wait for its end.

Knows nothing of what the run does. Figures come from the artifacts that the run left.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun

from mozart.errors import TransientError

_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class FinishedRun:
    """A run that reached its end. `seconds` is wall time from the request."""

    id: UUID
    name: str
    state: str
    message: str
    seconds: float

    @property
    def is_completed(self) -> bool:
        return self.state == "Completed"


async def run_to_end(
    client: PrefectClient,
    deployment: str,
    parameters: dict[str, Any] | None = None,
    *,
    timeout_seconds: float = 900,
    on_state: Callable[[str], None] = lambda _state: None,
) -> FinishedRun:
    """Run `deployment` ("flow/name") and wait. TransientError when it has not ended after `timeout_seconds`."""
    started = time.monotonic()
    found = await client.read_deployment_by_name(deployment)
    run = await client.create_flow_run_from_deployment(found.id, parameters=parameters or {})
    seen = ""
    while time.monotonic() - started < timeout_seconds:
        run = await client.read_flow_run(run.id)
        name = run.state_name or ""
        if name != seen:
            seen = name
            on_state(name)
        if run.state and run.state.is_final():
            return _finished(run, time.monotonic() - started)
        await asyncio.sleep(_POLL_SECONDS)
    raise TransientError(f"{deployment}: run {run.name} is still {seen} after {timeout_seconds:.0f} s; see `mozart ps`")


def _finished(run: FlowRun, seconds: float) -> FinishedRun:
    message = (run.state.message if run.state else None) or ""
    return FinishedRun(run.id, run.name, run.state_name or "", message, seconds)


async def read_table_artifact(client: PrefectClient, run_id: UUID, key: str) -> list[dict[str, Any]]:
    """The rows of a table artifact that a run left; empty when it left none of this key."""
    artifacts = await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]), key=ArtifactFilterKey(any_=[key])
        )
    )
    if not artifacts:
        return []
    data = artifacts[0].data
    rows: list[dict[str, Any]] = json.loads(data) if isinstance(data, str) else []
    return rows
